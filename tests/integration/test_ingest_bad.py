"""Whatever is published, the ingester goes on: bad messages are counted, told with their topic and kept aside.

One ingester has to get over all of it; after each message a good one must still be stored.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from infoscreen_shared import topics
from infoscreen_shared.messages import LogLevel, from_json
from parts.api import Api
from parts.broker import Broker
from parts.fleet import NOW, OTHER, UUID, item
from parts.ingester import Ingester
from parts.kiosk import Kiosk, numbered
from parts.postgres import Postgres
from parts.wait import wait_for

LARGE = "max_packet_size 20000000"
"""A site's broker may let more pass than the one that we ship."""


class Worker:
    def __init__(self, ingester: Ingester, kiosk: Kiosk) -> None:
        self.ingester, self.kiosk, self.fleet = ingester, kiosk, ingester.fleet
        self.good = 0

    def say(self, kind: str, payload: bytes) -> None:
        """On a topic of the client, or on a whole one; then a good record, which must be stored."""
        before = len(self.kiosk.acks)
        self.kiosk.publish((kind if kind.startswith("infoscreen/") else topics.topic(UUID, kind), payload))
        self.good += 1
        self.kiosk.say("logs/warn", numbered([self.good], epoch="good"))
        wait_for(lambda: self.acked(before), f"a good record is stored after {payload[:80]!r}")

    def acked(self, before: int) -> bool:
        return any(ack.lanes.get(LogLevel.WARN) == self.good for ack in self.kiosk.acks[before:])

    def dead(self, since: int = 0) -> list[Any]:
        """Topic, reason, payload."""
        return self.fleet.rows("SELECT topic, reason, payload FROM dead_letters WHERE id > :since", since=since)

    def mark(self) -> int:
        """The last of the dead letters."""
        return int(self.fleet.one("SELECT COALESCE(max(id), 0) FROM dead_letters"))

    def newest(self, level: str) -> Any:
        """Message and context of the last record."""
        sql = "SELECT message, context FROM client_logs WHERE level = :level ORDER BY id DESC LIMIT 1"
        (found,) = self.fleet.rows(sql, level=level)
        return found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def worker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("bad")
    url = f"sqlite:///{folder / 'server.db'}"
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_database()
    with (
        Broker(folder / "broker", extra=LARGE) as broker,
        Ingester(folder, url, broker.url).start() as ingester,
        Kiosk(broker.port) as kiosk,
    ):
        yield Worker(ingester, kiosk)
        assert ingester.running(), "the very same process is still there"


# --- messages that say nothing ----------------------------------------------------------------------------------------

TIME = '"timestamp":"2026-01-02T03:04:05Z"'


def record(**more: Any) -> bytes:
    return json.dumps({"timestamp": "2026-01-02T03:04:05Z", "message": "m", "context": {}} | more).encode()


def beat(**more: Any) -> bytes:
    return json.dumps({"timestamp": "2026-01-02T03:04:05Z"} | more).encode()


def of(*items: Any, **more: Any) -> bytes:
    return json.dumps({"epoch": "bad", "base": 0, "records": items} | more).encode()


NOT_JSON, NOT_UTF8, NOT_OBJECT = "payload is not JSON", "payload is not UTF-8", "expected a JSON object"
REFUSED = [
    ("logs/error", b"not JSON", NOT_JSON),
    ("logs/error", b"", NOT_JSON),
    ("logs/error", b"\0\0\0", NOT_JSON),
    ("logs/error", b'{"message":"\xff"}', NOT_UTF8),
    ("logs/error", record() + b"trailing", NOT_JSON),
    ("logs/error", record()[:-1], NOT_JSON),
    ("logs/error", b"{%s,'message':'m'}" % TIME.encode(), NOT_JSON),
    ("logs/error", b'{%s,"message":"a\0b"}' % TIME.encode(), NOT_JSON),
    ("logs/error", b'{%s,"message":"m","context":{"v":NaN}}' % TIME.encode(), "NaN and Infinity are not JSON"),
    ("logs/error", b'{%s,"message":"m","context":{"v":-Infinity}}' % TIME.encode(), "NaN and Infinity are not JSON"),
    ("logs/error", b"[" * 100_000, "payload is nested too deeply"),
    ("logs/error", b'{"context":' * 50_000 + b"1" + b"}" * 50_000, "payload is nested too deeply"),
    ("logs/error", record(context={"v": 0}).replace(b"0}", b"9" * 5000 + b"}"), NOT_JSON),
    ("logs/error", b"x" * 10_000_000, "payload is larger than 1000000 bytes"),
    ("logs/error", record(message="m" * 10_000_000), "payload is larger than 1000000 bytes"),
    ("logs/error", b"null", NOT_OBJECT),
    ("logs/error", b"[]", NOT_OBJECT),
    ("logs/error", b'"text"', NOT_OBJECT),
    ("logs/error", record(message=None), "message: expected text"),
    ("logs/error", record(message=7), "message: expected text"),
    ("logs/error", record(message=["m"]), "message: expected text"),
    ("logs/error", b'{"message":"m"}', "timestamp: expected an ISO 8601 time"),
    ("logs/error", record(timestamp=1767323045), "timestamp: expected an ISO 8601 time"),
    ("logs/error", record(timestamp="yesterday"), "timestamp: expected an ISO 8601 time"),
    ("logs/error", record(timestamp="9999-12-31T23:59:59-14:00"), "timestamp: expected an ISO 8601 time"),
    ("logs/error", record(timestamp="2026-13-41T99:99:99Z"), "timestamp: expected an ISO 8601 time"),
    ("logs/error", record(code=""), "code: expected text of 1 to 64 characters"),
    ("logs/error", record(code="c" * 65), "code: expected text of 1 to 64 characters"),
    ("logs/error", record(clock="stopped"), "clock: expected synced, corrected or unsynced"),
    ("logs/error", record(epoch="e", seq=0), "seq: expected a whole number from 1"),
    ("logs/error", record(epoch="e", seq=2**63), "seq: expected a whole number from 1"),
    ("logs/error", record(epoch="e", seq=True), "seq: expected a whole number from 1"),
    ("logs/error", of({}, records={}), "records: expected a list"),
    ("logs/error", of(item(1), base=None), "base: expected a whole number from 0"),
    ("logs/error", of(item(1), base=-1), "base: expected a whole number from 0"),
    ("logs/error", of(item(1), item(3)), "seq: the numbers in a batch must follow one by one"),
    ("logs/error", of(item(2), item(1)), "seq: the numbers in a batch must follow one by one"),
    ("logs/error", of("no record"), "seq: the first record of a numbered batch has none"),
    ("logs/error", of(item(1), epoch="e" * 65), "epoch: expected text of 1 to 64 characters"),
    ("logs/error", of(item(2**62), item(2**62 + 1)), "seq: expected numbers from 1"),
    ("logs/loud", record(), "topic is none that a client publishes on"),
    ("logs/ERROR", record(), "topic is none that a client publishes on"),
    ("commands/result", b'{"id":"1","status":"done"}', "commands are not known to this server"),
    ("infoscreen/no-uuid/logs/error", record(), "topic has no valid uuid"),
    ("infoscreen//logs/error", record(), "topic has no valid uuid"),
    (f"infoscreen/{UUID}0/logs/error", record(), "topic has no valid uuid"),
    (f"infoscreen/{'u' * 60_000}/logs/error", record(), "topic has no valid uuid"),
    ("infoscreen/ü€😀/hello", b"{}", "topic has no valid uuid"),
    ("hello", b"[]", NOT_OBJECT),
    ("hello", b'{"lanes":{}}', "epoch: expected text of 1 to 64 characters"),
    ("hello", b'{"epoch":"e","lanes":[]}', "lanes: expected a JSON object"),
    ("hello", b'{"epoch":"e","lanes":{"loud":{"base":0,"next":1}}}', "lanes: expected the levels"),
    ("hello", b'{"epoch":"e","lanes":{"error":{"base":7,"next":7}}}', "lanes.error: base must be below next"),
    ("hello", b'{"epoch":"e","lanes":{"error":{"base":0,"next":1e3}}}', "next: expected a whole number from 0"),
    ("heartbeat", b'{"process_status":"running"}', "timestamp: expected an ISO 8601 time"),
    ("heartbeat", beat(process_status="dancing"), "process_status: expected one of running, crashed"),
    ("heartbeat", beat(process_status=["running"]), "process_status: expected one of running, crashed"),
    ("heartbeat", beat(screen_health_status="ok"), "screen_health_status: expected one of OK, BLACK"),
    ("heartbeat", beat(process_pid=-1), "process_pid: expected a whole number from 0"),
    ("heartbeat", beat(process_pid="12"), "process_pid: expected a whole number from 0"),
    ("heartbeat", beat(current_event_id=10**40), "current_event_id: expected a whole number from 0"),
    ("heartbeat", beat(current_process="p" * 300), "current_process: expected text of 1 to 255 characters"),
    ("heartbeat", beat(outbox=[]), "outbox: expected a JSON object"),
    ("heartbeat", beat(uuid=OTHER), "uuid: differs from that of the topic"),
    ("health", b'{"expected_state":7}', "expected_state: expected a JSON object"),
    ("health", b'{"expected_state":{"event_type":"film"}}', "event_type: expected one of video, website, presentation"),
    ("health", b'{"screen":{"status":"PINK"}}', "status: expected one of OK, BLACK, FROZEN, UNKNOWN"),
    ("health", b'{"timestamp":"2026-01-02T03:04:05Z","system":1}', "system: expected a JSON object"),
    ("status", b"perhaps", "status: expected online or offline"),
    ("status", b"\0", "status: expected online or offline"),
]


def case_name(value: object) -> str:
    return repr(value[:24]) if isinstance(value, (bytes, str)) else repr(value)


@pytest.mark.parametrize(("kind", "payload", "reason"), REFUSED, ids=case_name)
def test_a_bad_message_is_counted_told_and_kept_aside(worker: Worker, kind: str, payload: bytes, reason: str) -> None:
    name = kind if kind.startswith("infoscreen/") else topics.topic(UUID, kind)
    stored, letters, counted = len(worker.fleet.messages()), worker.mark(), worker.fleet.stats().get("rejected", 0)
    logged = len(worker.ingester.log())
    worker.say(kind, payload)
    ((where, why, kept),) = worker.dead(letters)
    assert (where, why[: len(reason)]) == (name[:512], reason)
    assert kept == payload[:16_384].decode("utf-8", "replace").replace("\0", "\ufffd")
    assert worker.fleet.stats()["rejected"] == counted + 1
    assert len(worker.fleet.messages()) == stored + 1, "nothing but the good one"
    (line,) = worker.ingester.log()[logged:].splitlines()
    assert f"WARNING infoscreen_server.ingest: {name[:200]!r}: {reason}" in line
    assert len(line) < 600


# --- messages that are strange and can be kept ------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    return b'{%s,"message":"%d","context":' % (TIME.encode(), levels) + b'{"d":' * levels + b"1" + b"}" * (levels + 1)


KEPT = [
    (record(message="a\0b"), "a\ufffdb", {}),
    (record(message="\ud800x\udc00", context={"\ud800": "\0"}), "\ufffdx\ufffd", {"\ufffd": "\ufffd"}),
    (record(message=""), "", {}),
    (record(message="line\r\n\\.\n\\N\t'; DROP TABLE clients; --"), "line\r\n\\.\n\\N\t'; DROP TABLE clients; --", {}),
    (record(message="\x1b[31m\x07\x7f\u202e"), "\x1b[31m\x07\x7f\u202e", {}),
    (record(context=None), "m", {}),
    (record(context="text"), "m", {"value": "text"}),
    (record(context=[1, [2]]), "m", {"value": [1, [2]]}),
    (record(context={"n": 10**4000}), "m", {"n": 10**4000}),
    (record(context={"n": -(2**64)}), "m", {"n": -(2**64)}),
    (record(context={"v": 0}).replace(b"0}", b"1e999}"), "m", {"v": "inf"}),
    (nested(100), "100", from_json(nested(100))["context"]),
    (record(unknown=[1], level="NONE", client_uuid=OTHER), "m", {}),
    (b'{%s,"message":"first","message":"last"}' % TIME.encode(), "last", {}),
    (b"\xef\xbb\xbf" + record(message="mark"), "mark", {}),
    (b" \n" + record(message="blank") + b"\n ", "blank", {}),
    (json.dumps({"records": [item(None, message="batch")]}).encode(), "batch", {"n": None}),
]


@pytest.mark.parametrize(("payload", "message", "context"), KEPT, ids=case_name)
def test_what_can_be_kept_is_kept(worker: Worker, payload: bytes, message: str, context: dict[str, Any]) -> None:
    letters = worker.mark()
    worker.say("logs/error", payload)
    found, text = worker.newest("ERROR")
    assert (found, from_json(text or "{}")) == (message, context)
    assert worker.dead(letters) == []


@pytest.mark.parametrize("said", ["0001-01-01T00:00:00", "1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_an_unbelievable_time_is_pulled_in_and_kept_beside(worker: Worker, said: str) -> None:
    worker.say("logs/error", record(timestamp=said, message=said))
    times = "CAST(timestamp AS TEXT), CAST(device_timestamp AS TEXT)"
    ((when, device_when),) = worker.fleet.rows(f"SELECT {times} FROM client_logs WHERE message = :said", said=said)
    assert device_when[:10] == said[:10]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(when)).days) <= 90


STATES = [
    ("heartbeat", beat(outbox={"pending": 2**62, "oldest": "0001-01-01T00:00:00"}, process_pid=2**62)),
    ("heartbeat", beat(timestamp="9999-12-31T23:59:59.999999Z", outbox={"pending": 0, "oldest": "9999-12-31T23:59Z"})),
    ("heartbeat", beat(current_process="\0\ud800", version="\n\t'")),
    ("health", b'{"system":{"load":1e999,"\\u0000":"\\ud800","n":%s}}' % (b"9" * 4000)),
    ("health", b'{"system":' + b'{"d":' * 800 + b"1" + b"}" * 800 + b"}"),
    ("health", json.dumps({"system": {"text": "x" * 100_000}}).encode()),
    ("health", json.dumps({"screen": {"status": "OK", "analyzed_at": "0001-01-01", "reason": "\0"}}).encode()),
    ("hello", b'{"epoch":"\\u0000","lanes":{"info":{"base":4611686018427387903,"next":4611686018427387904}}}'),
]


@pytest.mark.parametrize(("kind", "payload"), STATES, ids=case_name)
def test_a_strange_state_is_kept_and_shown(worker: Worker, kind: str, payload: bytes) -> None:
    letters = worker.mark()
    worker.say(kind, payload)
    assert worker.dead(letters) == []
    web = Api(worker.fleet.url)
    web.now = datetime.now(UTC)
    assert web.get(f"/api/clients/{UUID}").status_code == 200
    assert web.get("/api/clients").status_code == 200
    web.close()


def test_one_bad_record_of_a_batch_is_told_and_the_others_are_stored(worker: Worker) -> None:
    letters, logged = worker.mark(), len(worker.ingester.log())
    before = worker.fleet.stats().get("dead", 0)
    worker.say("logs/error", of(item(1), {"seq": 2, "message": None}, item(3), "no record", item(5), epoch="mixed"))
    sql = "SELECT cursor, stored, dead FROM lanes WHERE epoch = 'mixed'"
    assert worker.fleet.rows(sql) == [(5, 3, 2)]
    name = topics.topic(UUID, "logs/error")
    assert worker.dead(letters) == [
        (name, "message: expected text", '{"seq":2,"message":null}'),
        (name, "record: expected a JSON object", '"no record"'),
    ]
    assert worker.fleet.stats()["dead"] == before + 2
    assert f"{name!r}: 2 of 5 records: message: expected text" in worker.ingester.log()[logged:]
    assert any(ack.epoch == "mixed" and ack.lanes == {LogLevel.ERROR: 5} for ack in worker.kiosk.acks)


def test_a_message_of_nearly_the_largest_size_is_cut_and_kept_whole_aside(worker: Worker) -> None:
    letters = worker.mark()
    worker.say("logs/error", record(message="é" * 150_000))
    message, _ = worker.newest("ERROR")
    assert (len(message), message[:9], message[-5:]) == (8192, "é" * 9, "[cut]")
    ((_, reason, kept),) = worker.dead(letters)
    assert (reason, kept) == ("message: longer than 8192 characters", "é" * 65_536)


def test_no_nesting_that_can_be_read_here_is_too_deep_for_those_who_read_it_back(worker: Worker) -> None:
    letters = worker.mark()
    for levels in (101, 500, *range(900, 1000, 10)):
        worker.say("logs/error", nested(levels))
    reasons = [reason for _, reason, _ in worker.dead(letters)]
    assert set(reasons[:3]) == {"context: nested deeper than 100 levels"}
    # From some depth on, which depends on the interpreter, JSON cannot be read at all.
    assert set(reasons[3:]) <= {"context: nested deeper than 100 levels", "payload is nested too deeply"}
    assert len(reasons) == 12
    assert worker.newest("ERROR")[1].startswith('{"truncated":"{')


def test_a_batch_far_beyond_the_agents_bound_is_taken(worker: Worker) -> None:
    items = [{"seq": seq, "timestamp": NOW.isoformat(), "message": "x"} for seq in range(1, 12_001)]
    worker.say("logs/error", of(*items, epoch="long"))
    assert worker.fleet.rows("SELECT cursor, stored FROM lanes WHERE epoch = 'long'") == [(12_000, 12_000)]


def test_other_topics_are_not_even_looked_at(worker: Worker) -> None:
    letters, counted = worker.mark(), worker.fleet.stats()
    for name in (f"infoscreen/{UUID}", f"infoscreen/{UUID}/logs", f"infoscreen/{UUID}/logs/error/more", "else/where"):
        worker.say(name, b"whatever") if name.startswith("infoscreen/") else worker.kiosk.publish((name, b"whatever"))
    assert worker.dead(letters) == []
    assert worker.fleet.stats() == counted


def test_the_api_shows_all_of_it(worker: Worker) -> None:
    web = Api(worker.fleet.url)
    web.now = datetime.now(UTC)
    answer = web.get(f"/api/client-logs/{UUID}/logs?limit=500&level=ERROR")
    assert answer.status_code == 200
    assert len(answer.json["logs"]) == 500
    assert web.get(f"/api/clients/{UUID}").status_code == 200
    clients = [client["uuid"] for client in web.get("/api/clients").json["clients"]]
    assert clients == [UUID], "no bad topic has made a client"
    web.close()


def test_accounts_agree_after_all(worker: Worker) -> None:
    assert worker.fleet.rows("SELECT id FROM lanes WHERE cursor <> stored + unwanted + dead + gap") == []
    assert worker.fleet.counters_agree()
    assert worker.fleet.daily_agrees()
    assert worker.ingester.connections() == 1, "the connection was never lost"


# --- on their own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_retained_messages_are_passed_over_at_every_connection(
    tmp_path: Any, broker: Broker, database_url: str
) -> None:
    """But for the status; live, before the broker has made it a retained one, a record is stored as any other."""
    with Ingester(tmp_path, database_url, broker.url) as ingester, Kiosk(broker.port) as kiosk:
        kiosk.say("logs/error", record(message="old"), retain=True)
        kiosk.say("status", b"perhaps", retain=True)
        for number in (1, 2):
            ingester.start()
            kiosk.answer("logs/warn", numbered([number]))
            assert ingester.fleet.stats() == {"retained": 2 * number}
            if number == 1:
                ingester.stop()
        name = topics.topic(UUID, "logs/error")
        assert ingester.log().count(f"{name!r}: retained, passed over") == 2
        kiosk.say("logs/error", record(message="live"), retain=True)
        wait_for(lambda: ingester.fleet.messages() == ["m1", "m2", "live"], "the live one is stored")
        assert ingester.fleet.rows("SELECT 1 FROM dead_letters") == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_broker_that_we_ship_lets_nothing_huge_pass(tmp_path: Any, broker: Broker, database_url: str) -> None:
    with Ingester(tmp_path, database_url, broker.url).start() as ingester:
        with Kiosk(broker.port) as rude:
            gone = []
            rude.client.on_disconnect = lambda *_: gone.append(True)
            rude.client.publish(topics.topic(UUID, "logs/error"), b"x" * 10_000_000, qos=1)
            wait_for(lambda: gone, "the broker hangs up")
        with Kiosk(broker.port) as kiosk:
            kiosk.answer("logs/warn", numbered([1]))
        assert ingester.connections() == 1
        assert ingester.fleet.stats() == {}
