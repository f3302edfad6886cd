from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import event, insert
from sqlalchemy.exc import OperationalError

from infoscreen_server import api as routes
from infoscreen_server import store
from infoscreen_server.accounts import Access
from infoscreen_server.context import PROGRAMS, access
from infoscreen_server.db import writing
from infoscreen_server.forms import Problem
from infoscreen_server.incoming import arrival_of
from infoscreen_server.models import Client, ClientLog, Counter, Lane, TokenRole
from infoscreen_shared.messages import Clock, LogLevel, ProcessStatus, ScreenHealthStatus, timestamp_text, to_json
from infoscreen_shared.topics import topic
from parts.api import NOW, OTHER, UUID, Api

LOGS = f"/api/client-logs/{UUID}/logs"


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    add(running, Client, uuid=UUID, registered_at=NOW, online=True, last_alive=NOW)
    add(running, Client, uuid=OTHER, registered_at=NOW, online=False)
    yield running
    running.close()


def add(api: Api, table: type, *rows: dict[str, Any], **values: Any) -> None:
    with writing(api.engine) as connection:
        connection.execute(insert(table), list(rows) or [values])


def log_row(number: int, level: LogLevel = LogLevel.INFO, **more: Any) -> dict[str, Any]:
    when = NOW - timedelta(days=1) + timedelta(seconds=number)
    row = {"client_uuid": UUID, "timestamp": when, "received_at": NOW, "level": level, "message": f"m{number}"}
    return row | more


def messages(answer: Any) -> list[str]:
    return [log["message"] for log in answer.json["logs"]]


def test_logs_keep_the_seed_shape(api: Api) -> None:
    add(api, ClientLog, log_row(1, LogLevel.ERROR, context='{"a":{"b":[1]}}', code="player.crashed"))
    answer = api.get(LOGS)
    assert answer.status_code == 200
    (log,) = answer.json["logs"]
    assert answer.json["count"] == 1
    assert answer.json["next"] is None
    assert log == {
        "id": log["id"],
        "timestamp": timestamp_text(NOW - timedelta(days=1) + timedelta(seconds=1)),
        "level": "ERROR",
        "message": "m1",
        "context": {"a": {"b": [1]}},
        "code": "player.crashed",
        "received_at": timestamp_text(NOW),
        "device_timestamp": None,
        "clock": None,
    }


def test_answers_are_what_the_document_says(api: Api) -> None:
    clamped: dict[str, Any] = {"device_timestamp": datetime(1970, 1, 1, tzinfo=UTC), "clock": Clock.UNSYNCED}
    add(api, ClientLog, log_row(1), log_row(2, **clamped))
    routes.LogPage.model_validate_json(api.get(f"{LOGS}?limit=1").data)
    routes.LogPage.model_validate_json(api.get(LOGS).data)
    routes.Summary.model_validate_json(api.get("/api/client-logs/summary").data)
    routes.Clients.model_validate_json(api.get("/api/clients").data)
    routes.ClientDetail.model_validate_json(api.get(f"/api/clients/{UUID}").data)
    routes.Health.model_validate_json(api.client.get("/healthz").data)
    Problem.model_validate_json(api.get("/api/nowhere").data)


def test_newest_first_and_fifty_by_default(api: Api) -> None:
    add(api, ClientLog, *[log_row(number) for number in range(60)], log_row(99, client_uuid=OTHER))
    assert messages(api.get(LOGS)) == [f"m{number}" for number in range(59, 9, -1)]
    assert len(messages(api.get(f"{LOGS}?limit=500"))) == 60


@pytest.mark.parametrize("query", ["", "&level=ERROR&level=WARN&level=INFO", "&level=info"])
def test_pages_follow_without_gap_or_overlap(api: Api, query: str) -> None:
    """Many rows share a timestamp, and rows arrive while someone turns pages."""
    levels = [LogLevel.ERROR, LogLevel.WARN, LogLevel.INFO]
    add(
        api,
        ClientLog,
        *[log_row(number // 7) | {"message": str(number), "level": levels[number % 3]} for number in range(100)],
    )
    everything = messages(api.get(f"{LOGS}?limit=500{query}"))
    assert len(everything) == (33 if query == "&level=info" else 100)
    seen: list[str] = []
    following: str | None = ""
    while following is not None:
        before = f"&before={following}" if following else ""
        answer = api.get(f"{LOGS}?limit=9{query}{before}")
        seen += messages(answer)
        following = answer.json["next"]
        add(api, ClientLog, log_row(5000) | {"message": "later"})
    assert seen == everything
    stamps = [log["timestamp"] for log in api.get(f"{LOGS}?limit=500{query}").json["logs"]]
    assert all(earlier >= later for earlier, later in pairwise(stamps))


def test_a_last_page_that_is_full_has_no_next(api: Api) -> None:
    add(api, ClientLog, *[log_row(number) for number in range(10)])
    assert api.get(f"{LOGS}?limit=10").json["next"] is None
    assert api.get(f"{LOGS}?limit=9").json["next"] is not None


FILTERS = [
    ("level=ERROR", ["m1"]),
    ("level=error", ["m1"]),
    ("level=ERROR&level=WARN", ["m2", "m1"]),
    ("level=DEBUG", []),
    ("level=&limit=&since=&before=", ["m3", "m2", "m1"]),
    ("since=2026-05-31T12:00:02Z", ["m3", "m2"]),
    ("since=2026-05-31T12:00:02", ["m3", "m2"]),
    ("since=2026-05-31T14:00:03%2B02:00", ["m3"]),
    ("since=2026-05-31T14:00:03+02:00", ["m3"]),
    ("since=9999-01-01", []),
    ("since=0001-01-01", ["m3", "m2", "m1"]),
    ("since=2026-05-31T12:00:02Z&level=INFO&limit=1", ["m3"]),
]


def test_filters(api: Api) -> None:
    add(api, ClientLog, log_row(1, LogLevel.ERROR), log_row(2, LogLevel.WARN), log_row(3))
    assert [(query, messages(api.get(f"{LOGS}?{query}"))) for query, _ in FILTERS] == FILTERS


WRONG = [
    (f"{LOGS}?limit=0", "limit"),
    (f"{LOGS}?limit=501", "limit"),
    (f"{LOGS}?limit=-1", "limit"),
    (f"{LOGS}?limit=ZZZ", "limit"),
    (f"{LOGS}?limit={'9' * 5000}", "limit"),
    (f"{LOGS}?level=ZZZ", "level"),
    (f"{LOGS}?level=INFO&level=ZZZ", "level"),
    (f"{LOGS}?since=ZZZ", "since"),
    (f"{LOGS}?since=2026-13-01", "since"),
    (f"{LOGS}?since=0001-01-01T00:00:00%2B02:00", "since"),
    (f"{LOGS}?before=ZZZ", "before"),
    (f"{LOGS}?before=%00%F0", "before"),
    (f"{LOGS}?before={'MjAyNi0wNS0zMS8tMQ'}", "before"),
    (f"{LOGS}?lmit=ZZZ", "lmit"),
    (f"{LOGS}?ZZZ%20=1", "query"),
    ("/api/client-logs/ZZZ/logs", "uuid"),
    ("/api/clients/ZZZ", "uuid"),
    ("/api/clients?limit=ZZZ", "limit"),
    ("/api/clients?after=ZZZ", "after"),
    ("/api/clients?state=ZZZ", "state"),
    (f"/api/clients?tag={'ZZZ' * 20}", "tag"),
    (f"/api/clients?q={'ZZZ' * 40}", "q"),
]


def test_a_wrong_parameter_is_named_and_not_repeated(api: Api) -> None:
    for path, name in WRONG:
        answer: Any = api.get(path)
        assert (path, answer.status_code, list(answer.json)) == (path, 400, ["error"])
        assert answer.json["error"].startswith(f"{name}: "), path
        assert "ZZZ" not in answer.json["error"], path


def test_what_is_not_there(api: Api) -> None:
    unknown = "99999999-2222-4333-8444-555555555555"
    for path in (f"/api/client-logs/{unknown}/logs", f"/api/clients/{unknown}"):
        answer = api.get(path)
        assert (answer.status_code, answer.json) == (404, {"error": "uuid: there is no such client"})
    assert api.get("/api/nothing").json == {"error": "there is nothing at this address"}
    assert api.get(f"/api/client-logs/{OTHER}/logs").json == {"logs": [], "count": 0, "next": None}
    refused = api.client.delete("/api/clients")
    assert (refused.status_code, refused.json) == (405, {"error": "this address does not take this method"})
    assert "GET" in refused.headers["Allow"]


def test_summary_comes_from_the_counters(api: Api) -> None:
    add(api, Counter, client_uuid=UUID, error=3, warn=2, info=1, debug=9)
    statements: list[str] = []
    event.listen(api.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    answer = api.get("/api/client-logs/summary")
    assert answer.json == {
        "summary": {OTHER: {"ERROR": 0, "WARN": 0, "INFO": 0}, UUID: {"ERROR": 3, "WARN": 2, "INFO": 1}},
        "period_hours": 24,
    }
    assert any("counters" in statement for statement in statements)
    assert not any("client_logs" in statement for statement in statements)


STATE = {
    "hostname": "lobby",
    "version": "0.1.0",
    "current_event_id": 2**40,
    "current_event_type": "video",
    "current_process": "vlc",
    "process_status": ProcessStatus.CRASHED,
    "process_pid": 812,
    "screen_health_status": ScreenHealthStatus.BLACK,
    "screen_reason": "uniform",
    "last_screenshot_analyzed": NOW,
    "last_screenshot_hash": "ffee",
    "outbox_pending": 7,
    "outbox_oldest": NOW - timedelta(hours=1),
    "system": '{"load":0.5}',
    "state_at": NOW,
    "name": "Foyer",
    "location": "Graz",
}


def test_a_client_has_the_models_names(api: Api) -> None:
    uuid = "22222222-2222-4333-8444-555555555555"
    add(api, Client, uuid=uuid, registered_at=NOW, online=True, last_alive=NOW, **STATE)
    answer = api.get(f"/api/clients/{uuid.upper()}", TokenRole.USER)
    now, earlier = timestamp_text(NOW), timestamp_text(NOW - timedelta(hours=1))
    told = {"last_screenshot_analyzed": now, "outbox_oldest": earlier, "system": {"load": 0.5}, "state_at": now}
    assert answer.json == STATE | told | {
        "uuid": uuid,
        "online": True,
        "last_alive": now,
        "registered_at": now,
        "tags": [],
        "delivery": {"stored": 0, "unwanted": 0, "dead": 0, "gap": 0},
    }
    (listed,) = [each for each in api.get("/api/clients").json["clients"] if each["uuid"] == uuid]
    assert listed == {name: value for name, value in answer.json.items() if name != "delivery"}


def test_a_health_message_tells_of_the_screen(api: Api) -> None:
    """From the wire to the answer; where nothing can be seen, the last picture stays the last."""

    def told(seconds: int, **screen: Any) -> tuple[Any, ...]:
        when = NOW + timedelta(seconds=seconds)
        expected = {"event_id": 42, "event_type": "video"}
        body = {"timestamp": timestamp_text(when), "expected_state": expected, "actual_state": {}, "screen": screen}
        store.ingest(api.engine, [arrival_of(topic(UUID, "health"), to_json(body))], when, store.Policy(), "mqtt")
        answer = api.get(f"/api/clients/{UUID}").json
        (listed,) = [each for each in api.get("/api/clients").json["clients"] if each["uuid"] == UUID]
        names = ("screen_health_status", "screen_reason", "last_screenshot_hash", "last_screenshot_analyzed")
        assert [answer[name] for name in names] == [listed[name] for name in names]
        return tuple(answer[name] for name in names)

    seen = timestamp_text(NOW)
    full = {"status": "FROZEN", "reason": "ticker stuck", "hash": "ffee00", "analyzed_at": seen}
    assert told(1, **full) == ("FROZEN", "ticker stuck", "ffee00", seen)
    assert told(2) == ("FROZEN", "ticker stuck", "ffee00", seen), "nothing said of the screen changes nothing"
    assert told(3, status="UNKNOWN", reason="display off") == ("UNKNOWN", "display off", "ffee00", seen)
    assert told(4, status="OK") == ("OK", None, "ffee00", seen)


def test_the_account_of_a_clients_records(api: Api) -> None:
    lane = {"client_uuid": UUID, "level": LogLevel.INFO, "first_seen": NOW, "last_seen": NOW}
    add(api, Lane, lane | {"epoch": "a", "cursor": 10, "stored": 5, "unwanted": 3, "dead": 1, "gap": 1})
    add(api, Lane, lane | {"epoch": "b", "cursor": 100, "stored": 100})
    assert api.get(f"/api/clients/{UUID}").json["delivery"] == {"stored": 105, "unwanted": 3, "dead": 1, "gap": 1}


@pytest.mark.parametrize(("silent", "online"), [(0, True), (45, True), (46, False)])
def test_offline_after_three_heartbeats(api: Api, silent: int, online: bool) -> None:
    api.now = NOW + timedelta(seconds=silent)
    assert api.get(f"/api/clients/{UUID}").json["online"] is online


def test_offline_when_the_broker_said_so_or_never_heard(api: Api) -> None:
    add(api, Client, uuid="33333333-2222-4333-8444-555555555555", registered_at=NOW, online=False, last_alive=NOW)
    found = {each["uuid"][:8]: each["online"] for each in api.get("/api/clients").json["clients"]}
    assert found == {"0b6c0f5e": True, "11111111": False, "33333333": False}


def test_clients_come_in_pages(api: Api) -> None:
    add(
        api,
        Client,
        *[{"uuid": f"{n:08d}-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "registered_at": NOW, "online": False} for n in range(7)],
    )
    everything = [each["uuid"] for each in api.get("/api/clients").json["clients"]]
    assert everything == sorted(everything)
    seen: list[str] = []
    after: str | None = None
    for _ in range(3):
        answer = api.get("/api/clients?limit=3" + (f"&after={after}" if after else "")).json
        assert answer["count"] == 3
        seen += [each["uuid"] for each in answer["clients"]]
        after = answer["next"]
    assert after is None
    assert seen == everything


def test_healthz_needs_no_token_and_sees_silence(api: Api) -> None:
    assert api.client.get("/healthz").json == {"status": "ok", "database": "ok", "ingest": "ok"}
    api.now = NOW + timedelta(seconds=46)
    answer: Any = api.client.get("/healthz")
    assert (answer.status_code, answer.json["status"], answer.json["ingest"]) == (200, "degraded", "silent")


def test_a_database_that_is_away(api: Api) -> None:
    token = api.token(TokenRole.ADMIN)

    def away(*_: object) -> None:
        raise OperationalError("SELECT secret", {"p": "secret"}, Exception("connection refused"))

    event.listen(api.engine, "engine_connect", away)
    answer: Any = api.client.get("/healthz")
    assert (answer.status_code, answer.json["database"]) == (503, "unreachable")
    answer = api.client.get("/api/clients", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json) == (503, {"error": "the database does not answer"})


def test_a_fault_of_ours_is_told_to_the_log_alone(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    @access(Access.PUBLIC)
    def broken() -> str:
        raise RuntimeError("the secret is 42")

    api.app.add_url_rule("/api/broken", "broken", broken)
    answer: Any = api.client.get("/api/broken")
    assert (answer.status_code, answer.json) == (500, {"error": "internal error"})
    assert "the secret is 42" in caplog.text


def test_the_document_describes_every_route(api: Api) -> None:
    document: Any = api.client.get("/api/openapi.json").json
    assert document["openapi"].startswith("3.1")
    described = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    routes = {
        f"{method} {rule.rule.replace('<', '{').replace('>', '}')}"
        for rule in api.app.url_map.iter_rules()
        if rule.rule.startswith(PROGRAMS) and rule.rule != "/api/openapi.json"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == routes
    for path, verbs in document["paths"].items():
        for operation in verbs.values():
            assert path == "/healthz" or operation["security"] == [{"token": []}]


def test_answers_are_not_kept_or_guessed_at(api: Api) -> None:
    for answer in (api.get(LOGS), api.get("/api/nowhere"), api.client.get("/api/clients")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.content_type == "application/json"
