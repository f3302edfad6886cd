"""A client in the field that publishes the original plain payloads is served fully: stored, shown, never lost.

It has no numbers and hears no ack, so all that it can count on is the broker: the broker is answered after the commit
only, and keeps for the ingester's session what comes while that is away. A kill between commit and answer stores such a
record twice (DESIGN section 3: not deduplicated); a kill anywhere else stores it once.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infoscreen_shared.messages import LogLevel
from infoscreen_shared.topics import logs_topic, topic
from parts.api import Api
from parts.broker import Broker
from parts.fleet import UUID
from parts.ingester import Ingester, held_before_commit, wait_held
from parts.kiosk import Kiosk
from parts.link import Link
from parts.wait import wait_for

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PUBACK = 0x40


@pytest.fixture
def ingester(tmp_path: Path, broker: Broker, database_url: str) -> Iterator[Ingester]:
    with Ingester(tmp_path, database_url, broker.url) as running:
        yield running.start()


@pytest.fixture
def kiosk(broker: Broker) -> Iterator[Kiosk]:
    with Kiosk(broker.port) as connected:
        yield connected


def plain(message: str, when: datetime | None = None, context: object = None) -> bytes:
    """As Python's `datetime.utcnow().isoformat()` puts it: no zone."""
    stamp = (when or datetime.now(UTC)).replace(tzinfo=None).isoformat()
    return json.dumps({"timestamp": stamp, "message": message, "context": context or {}}).encode()


def heartbeat(**more: Any) -> bytes:
    said = {
        "uuid": UUID,
        "timestamp": datetime.now(UTC).replace(tzinfo=None).isoformat(),
        "current_process": "vlc",
        "process_pid": 1234,
        "process_status": "running",
        "current_event_id": 42,
    }
    return json.dumps(said | more).encode()


def test_its_logs_and_state_are_in_the_api(ingester: Ingester, kiosk: Kiosk) -> None:
    asked = datetime.now(UTC)
    kiosk.say("logs/error", plain("VLC crashed", context={"event_id": 42, "exit_code": -11}))
    kiosk.say("logs/warn", plain("screen black"), plain("ü\n\t€", context={"nested": {"list": [1, None, "x"]}}))
    kiosk.say("logs/info", plain("VLC started"))
    kiosk.say("heartbeat", heartbeat())
    fleet = ingester.fleet
    wait_for(lambda: fleet.rows("SELECT current_process FROM clients") == ["vlc"], "the heartbeat is stored")
    web = Api(fleet.url)
    web.now = datetime.now(UTC)
    logs = web.get(f"/api/client-logs/{UUID}/logs").json["logs"]
    assert [(log["level"], log["message"], log["context"]) for log in logs[::-1]] == [
        ("ERROR", "VLC crashed", {"event_id": 42, "exit_code": -11}),
        ("WARN", "screen black", {}),
        ("WARN", "ü\n\t€", {"nested": {"list": [1, None, "x"]}}),
    ]
    assert asked <= datetime.fromisoformat(logs[0]["timestamp"]) <= web.now
    assert web.get("/api/client-logs/summary").json == {
        "summary": {UUID: {"ERROR": 1, "WARN": 2, "INFO": 0}},
        "period_hours": 24,
    }
    (client,) = web.get("/api/clients").json["clients"]
    shown = ("uuid", "online", "current_process", "process_pid", "process_status", "current_event_id")
    assert [client[name] for name in shown] == [UUID, True, "vlc", 1234, "running", 42]
    web.close()
    assert kiosk.acks == [], "it would not know what to do with one"


@on_sqlite
def test_a_heartbeat_may_leave_out_nearly_all(ingester: Ingester, kiosk: Kiosk) -> None:
    """Nothing plays: nulls, or an empty name. A heartbeat brings what it knows and no more."""
    kiosk.say("heartbeat", heartbeat(screen_health_status="OK"))
    nothing = {"current_process": "", "process_pid": None, "process_status": None, "current_event_id": None}
    kiosk.say("heartbeat", heartbeat(**nothing))
    columns = "current_process, process_pid, process_status, current_event_id, screen_health_status"
    fleet = ingester.fleet
    wait_for(
        lambda: fleet.rows(f"SELECT {columns} FROM clients") == [(None, None, None, None, "OK")],
        "the second heartbeat is stored",
    )
    assert fleet.rows("SELECT 1 FROM dead_letters") == []


@on_sqlite
def test_a_uuid_in_capitals_is_the_same_client(ingester: Ingester, kiosk: Kiosk) -> None:
    kiosk.publish((logs_topic(UUID.upper(), LogLevel.ERROR), plain("loud")))
    kiosk.publish((topic(UUID.upper(), "heartbeat"), heartbeat(uuid=UUID.upper())))
    wait_for(lambda: ingester.fleet.rows("SELECT uuid, current_process FROM clients") == [(UUID, "vlc")], "one client")
    assert ingester.fleet.rows("SELECT client_uuid, message FROM client_logs") == [(UUID, "loud")]


def test_killed_before_the_commit_it_is_delivered_again_and_stored_once(ingester: Ingester, kiosk: Kiosk) -> None:
    kiosk.say("logs/error", plain("first"))
    wait_for(lambda: ingester.fleet.messages() == ["first"], "the first is stored")
    with held_before_commit(ingester):
        kiosk.say("logs/error", plain("second"))
        wait_held(ingester)
        kiosk.say("logs/error", plain("third"))
        ingester.kill()
    assert ingester.fleet.messages() == ["first"]
    ingester.start()
    wait_for(lambda: ingester.fleet.messages() == ["first", "second", "third"], "all are stored once and in order")
    assert "kept session" in ingester.log()


@on_sqlite
def test_the_broker_is_answered_after_the_commit_and_a_kill_in_between_doubles_what_has_no_number(
    tmp_path: Path, broker: Broker, kiosk: Kiosk, database_url: str
) -> None:
    with Link(broker.port) as link, Ingester(tmp_path, database_url, link.url).start() as ingester:
        sent = len(link.sent)
        with held_before_commit(ingester):
            kiosk.say("logs/error", plain("before"))
            wait_held(ingester)
            assert not link.sent[sent:], "no PUBACK yet"
            ingester.kill()
        ingester.start()
        wait_for(lambda: ingester.fleet.messages() == ["before"], "it came again")
        link.hold()
        sent = len(link.sent)
        kiosk.say("logs/error", plain("after"))
        wait_for(lambda: len(link.sent) > sent, "the broker is answered")
        assert link.sent[sent] == PUBACK
        assert ingester.fleet.messages() == ["before", "after"]
        ingester.kill()
        link.drop()
        ingester.start()
        wait_for(lambda: len(ingester.fleet.messages()) == 3, "it came again")
        assert ingester.fleet.messages() == ["before", "after", "after"]


def test_what_is_published_while_ingest_is_down_arrives(ingester: Ingester, kiosk: Kiosk) -> None:
    kiosk.say("logs/error", plain("before"))
    wait_for(lambda: ingester.fleet.messages() == ["before"], "it is stored")
    assert ingester.stop() == 0
    # More than the 1,000 beyond which Mosquitto would drop by default; the configuration that we ship does not.
    texts = [f"while away {number}" for number in range(1500)]
    kiosk.say("logs/error", *map(plain, texts))
    kiosk.say("heartbeat", heartbeat())
    ingester.start()
    wait_for(lambda: len(ingester.fleet.messages()) > 1500, "all are stored")
    assert ingester.fleet.messages() == ["before", *texts]
    wait_for(lambda: ingester.fleet.rows("SELECT process_pid FROM clients") == [1234], "so is the heartbeat")


@on_sqlite
def test_what_the_broker_keeps_outlives_a_restart_of_both(ingester: Ingester, broker: Broker) -> None:
    ingester.stop()
    with Kiosk(broker.port) as kiosk:
        kiosk.say("logs/warn", plain("kept"))
    broker.stop()
    broker.start()
    ingester.start()
    wait_for(lambda: ingester.fleet.messages() == ["kept"], "it is stored")


@on_sqlite
def test_its_last_will_says_that_it_is_gone(ingester: Ingester, kiosk: Kiosk) -> None:
    state = "SELECT online FROM clients"
    kiosk.say("status", b"online", retain=True)
    wait_for(lambda: ingester.fleet.rows(state) == [1], "it is online")
    kiosk.say("status", b"offline", retain=True)
    wait_for(lambda: ingester.fleet.rows(state) == [0], "it is offline")
    kiosk.say("logs/error", plain("back"))
    wait_for(lambda: ingester.fleet.rows(state) == [1], "whatever it says shows that it is back")


@on_sqlite
def test_a_clock_without_battery(ingester: Ingester, kiosk: Kiosk) -> None:
    kiosk.say("logs/error", plain("in 1970", datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)))
    kiosk.say("heartbeat", heartbeat(timestamp="1970-01-01T00:00:09.5"))
    kiosk.say("heartbeat", heartbeat(timestamp="1970-01-01T00:00:24.5", process_pid=99))
    fleet = ingester.fleet
    wait_for(lambda: fleet.rows("SELECT process_pid FROM clients") == [99], "its state is shown all the same")
    ((when, device_when),) = fleet.rows("SELECT timestamp, device_timestamp FROM client_logs")
    assert datetime.fromisoformat(device_when) == datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)
    retention = datetime.now(UTC) - timedelta(days=90)
    assert abs(datetime.fromisoformat(when) - retention) < timedelta(minutes=1)
