"""POST /api/ingest/<uuid>/logs: what comes in that way is stored and acknowledged as over MQTT, and bounded."""

import gzip
import json
from typing import Any

import pytest
from sqlalchemy import insert

from infoscreen_server.db import writing
from infoscreen_server.models import Client
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES, LogLevel, Record, encode_record
from parts.api import NOW, UUID, Api

EPOCH = "aaaa"


def batch(first: int, last: int, level: LogLevel = LogLevel.ERROR, base: int = 0) -> dict[str, Any]:
    records = [
        json.loads(encode_record(Record(NOW, f"m{seq}", {}, None, EPOCH, seq))) for seq in range(first, last + 1)
    ]
    return {"level": level, "epoch": EPOCH, "base": base, "records": records}


def stored(api: Api) -> list[str]:
    return [log["message"] for log in reversed(api.get(f"/api/client-logs/{UUID}/logs?limit=500").json.get("logs", []))]


def acks(answer: Any) -> list[tuple[str, dict[str, int]]]:
    assert answer.status_code == 200, answer.json
    return [(ack["epoch"], ack["lanes"]) for ack in answer.json["acks"]]


def test_one_batch_is_stored_and_acknowledged(api: Api) -> None:
    assert acks(api.post(json=batch(1, 3))) == [(EPOCH, {"error": 3})]
    assert stored(api) == ["m1", "m2", "m3"]


def test_sent_twice_is_stored_once(api: Api) -> None:
    api.post(json=batch(1, 3))
    assert acks(api.post(json=batch(2, 5))) == [(EPOCH, {"error": 5})]
    assert stored(api) == ["m1", "m2", "m3", "m4", "m5"]


def test_a_hole_is_refused_with_the_cursor_and_a_declared_one_is_recorded(api: Api) -> None:
    api.post(json=batch(1, 2))
    assert acks(api.post(json=batch(5, 6))) == [(EPOCH, {"error": 2})]
    assert acks(api.post(json=batch(5, 6, base=4))) == [(EPOCH, {"error": 6})]
    assert api.get(f"/api/clients/{UUID}").json["delivery"] == {"stored": 4, "unwanted": 0, "dead": 0, "gap": 2}


def test_several_batches_and_a_hello_at_once(api: Api) -> None:
    hello = {"epoch": EPOCH, "lanes": {"error": {"base": 0, "next": 3}, "warn": {"base": 0, "next": 2}}, "version": "1"}
    body = {"hello": hello, "batches": [batch(1, 2), batch(1, 1, LogLevel.WARN)]}
    answer = api.post(json=body)
    final: dict[str, int] = {}
    for epoch, lanes in acks(answer):
        assert epoch == EPOCH
        final |= {level: max(seq, final.get(level, 0)) for level, seq in lanes.items()}
    assert (final["error"], final["warn"]) == (2, 1)
    assert any(ack.get("wanted", {}).get("debug") == "none" for ack in answer.json["acks"])
    assert sorted(stored(api)) == ["m1", "m1", "m2"]


def test_a_hello_alone_learns_the_cursors(api: Api) -> None:
    api.post(json=batch(1, 2))
    hello = {"epoch": EPOCH, "lanes": {"error": {"base": 0, "next": 9}, "info": {"base": 0, "next": 1}}, "version": "1"}
    assert acks(api.post(json={"hello": hello})) == [(EPOCH, {"error": 2, "info": 0})]


def test_foreign_records_are_stored_without_an_ack(api: Api) -> None:
    record = {"timestamp": "2026-06-01T11:00:00Z", "message": "plain", "context": {}}
    assert acks(api.post(json={"level": "WARN", "records": [record]})) == []
    assert acks(api.post(json={"level": "WARN"} | record)) == []
    assert stored(api) == ["plain", "plain"]


def test_what_is_not_wanted_is_acknowledged_all_the_same(api: Api) -> None:
    assert acks(api.post(json=batch(1, 3, LogLevel.DEBUG))) == [(EPOCH, {"debug": 3})]
    assert stored(api) == []


def test_gzip(api: Api) -> None:
    body = gzip.compress(json.dumps(batch(1, 3)).encode())
    assert acks(api.post(data=body, headers={"Content-Encoding": "gzip"})) == [(EPOCH, {"error": 3})]


def test_bodies_are_bounded_before_and_after_compression(api: Api) -> None:
    bomb = gzip.compress(b" " * 200_000_000, mtime=0)
    assert len(bomb) < MAX_PAYLOAD_BYTES
    just = b'{"batches":[]}'.ljust(MAX_PAYLOAD_BYTES)
    cases = [
        (b" " * (MAX_PAYLOAD_BYTES + 1), {}, 413),
        (bomb, {"Content-Encoding": "gzip"}, 413),
        (just, {}, 200),
        (gzip.compress(just, mtime=0), {"Content-Encoding": "gzip"}, 200),
        (gzip.compress(just + b" ", mtime=0), {"Content-Encoding": "gzip"}, 413),
    ]
    assert [api.post(data=data, headers=headers).status_code for data, headers, _ in cases] == [
        status for _, _, status in cases
    ]
    assert api.post(data=bomb, headers={"Content-Encoding": "gzip"}).json == {
        "error": "body: larger than 1000000 bytes"
    }


RECORDS = [{"timestamp": "2026-06-01T11:00:00Z", "message": "ZZZ", "seq": 1}, {"message": "ZZZ", "seq": 3}]
WRONG: list[tuple[object, str]] = [
    (b"ZZZ", "body: "),
    (b"\xff\xfe", "body: "),
    (b"", "body: "),
    (b'{"batches":NaN}', "body: "),
    (b"[" * 100_000, "body: "),
    ([], "body: "),
    ({}, "batches: "),
    ({"batches": {}}, "batches: "),
    ({"batches": ["ZZZ"]}, "batches[0].level: "),
    ({"batches": [{"level": "ZZZ"}]}, "batches[0].level: "),
    ({"batches": [{"level": "INFO", "records": "ZZZ"}]}, "batches[0].records: "),
    ({"batches": [{"level": "INFO", "epoch": "e", "records": RECORDS}]}, "batches[0].base: "),
    ({"batches": [{"level": "INFO", "epoch": "e", "base": 0, "records": RECORDS}]}, "batches[0].seq: "),
    ({"level": "INFO", "message": 7}, "message: "),
    ({"hello": "ZZZ"}, "hello: "),
    (b'{"hello":{"epoch":1e999,"lanes":{}}}', "hello: "),
    ({"hello": {"epoch": "e", "lanes": {"error": {"base": 9, "next": 1}}}}, "hello: lanes.error: "),
]


def test_a_wrong_body_is_named_by_its_place_and_not_repeated(api: Api) -> None:
    for body, place in WRONG:
        answer = api.post(data=body if isinstance(body, bytes) else json.dumps(body))
        assert (body, answer.status_code) == (body, 400)
        assert answer.json["error"].startswith(place), (body, answer.json)
        assert "ZZZ" not in answer.json["error"]


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"not gzip", "gzip", "body: not gzip"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip", "body: not one whole gzip stream"),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", "body: not one whole gzip stream"),
        (b"{}", "br", "Content-Encoding: expected gzip or none"),
    ],
)
def test_a_wrong_encoding(api: Api, data: bytes, encoding: str, expected: str) -> None:
    answer = api.post(data=data, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json) == (400, {"error": expected})


def test_one_bad_record_does_not_hold_up_the_others(api: Api) -> None:
    body = batch(1, 3)
    body["records"][1]["message"] = 7
    assert acks(api.post(json=body)) == [(EPOCH, {"error": 3})]
    assert stored(api) == ["m1", "m3"]
    assert api.get(f"/api/clients/{UUID}").json["delivery"] == {"stored": 2, "unwanted": 0, "dead": 1, "gap": 0}


def test_a_client_that_is_not_registered_keeps_its_records(database_url: str) -> None:
    """Where clients are registered by hand, nothing of a stranger is stored, and nothing acknowledged."""
    api = Api(database_url, auto_register=False)
    answer = api.post(json=batch(1, 3))
    assert (answer.status_code, answer.json) == (404, {"error": "uuid: there is no such client"})
    with writing(api.engine) as connection:
        connection.execute(insert(Client).values(uuid=UUID, registered_at=NOW, online=False))
    assert acks(api.post(json=batch(1, 3))) == [(EPOCH, {"error": 3})]
    api.close()


def test_debug_mode_wants_everything(database_url: str) -> None:
    api = Api(database_url, debug_mode=True)
    api.post(json=batch(1, 3, LogLevel.DEBUG))
    assert stored(api) == ["m1", "m2", "m3"]
    api.close()
