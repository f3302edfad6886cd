"""`infoscreen-server run` as it runs in the field: real processes, a real broker, a real socket."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from paho.mqtt import publish
from sqlalchemy import text

from infoscreen_server.db import make_engine
from infoscreen_shared.messages import LogLevel
from infoscreen_shared.topics import logs_topic
from parts.api import UUID
from parts.broker import Broker
from parts.postgres import Postgres
from parts.server import Server
from parts.wait import answers, wait_for


def gone(family: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    """Without a broker, on SQLite."""
    with Server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}") as server:
        yield server


def test_from_an_empty_folder_to_a_record_in_the_api(tmp_path: Path, broker: Broker, empty_database_url: str) -> None:
    with Server(tmp_path, empty_database_url, broker.url).start() as server:
        token = server.token("admin")
        record = b'{"timestamp":"2026-01-02T03:04:05Z","message":"hello","context":{"a":1}}'
        topic = logs_topic(UUID, LogLevel.ERROR)

        def told() -> object:
            # Until the ingester has subscribed for the first time the broker keeps nothing for it.
            publish.single(topic, record, qos=1, hostname="127.0.0.1", port=broker.port)
            return server.request(f"/api/client-logs/{UUID}/logs", token)[1].get("logs")

        logs = wait_for(told, "the record is in the API", interval=0.1)
        assert isinstance(logs, list)
        assert (logs[0]["message"], logs[0]["level"], logs[0]["context"]) == ("hello", "ERROR", {"a": 1})
        assert server.request("/api/client-logs/summary", token)[1]["period_hours"] == 24
        family = server.family()
        assert server.stop() == 0
        assert gone(family)


def test_stops_within_three_seconds(alone: Server) -> None:
    alone.start()
    family = alone.family()
    assert len(family) == 4  # web, its worker, alerts, housekeeping
    begun = time.monotonic()
    assert alone.stop() == 0
    assert time.monotonic() - begun < 3
    assert gone(family)


def test_a_part_that_dies_is_started_again(alone: Server) -> None:
    alone.start()
    before = alone.part("web")
    family = before.children()
    before.kill()
    wait_for(lambda: gone(family), "the worker goes with its master")
    wait_for(lambda: answers(alone.port), "the server answers again")
    assert alone.part("web").pid != before.pid
    assert "web ended with signal 9, it starts again in 0.5 s" in alone.log.read_text()


def test_nothing_survives_a_kill_of_the_whole(alone: Server) -> None:
    alone.start()
    family = alone.family()
    assert alone.stop(signal.SIGKILL) == -9
    wait_for(lambda: gone(family), "all parts are gone")
    assert not answers(alone.port)


def test_tells_systemd(alone: Server, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(20)
        alone.start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert channel.recv(1000) == f"READY=1\nSTATUS=answers on http://127.0.0.1:{alone.port}".encode()
        alone.stop()
        assert channel.recv(1000) == b"STOPPING=1"


def test_a_database_that_cannot_be_ends_it_with_a_reason(tmp_path: Path) -> None:
    server = Server(tmp_path, "sqlite:////no/such/folder/server.db")
    with pytest.raises(AssertionError, match="the folder /no/such/folder does not exist"):
        server.call("run")


def test_a_slow_sender_holds_up_nobody(alone: Server) -> None:
    """More half-sent requests than any pool of threads has; the others are answered all the same."""
    alone.start()
    slow = [socket.create_connection(("127.0.0.1", alone.port)) for _ in range(100)]
    try:
        for each in slow:
            each.sendall(b"POST /api/ingest/x/logs HTTP/1.1\r\nContent-Length: 1000\r\n")
        begun = time.monotonic()
        assert alone.request("/healthz")[0] == 200
        assert time.monotonic() - begun < 1
    finally:
        for each in slow:
            each.close()


def test_a_query_that_waits_holds_up_nobody(tmp_path: Path, postgres: Postgres) -> None:
    """PostgreSQL's driver has to yield to the other requests of its process."""
    database_url = postgres.new_database()
    with Server(tmp_path, database_url).start() as server:
        token = server.token("user")
        server.request("/api/clients", token)
        engine = make_engine(database_url)
        answered: list[int] = []
        waiting = threading.Thread(target=lambda: answered.append(server.request("/api/clients", token)[0]))
        with engine.connect() as connection:
            connection.execute(text("LOCK TABLE clients IN ACCESS EXCLUSIVE MODE"))
            waiting.start()
            blocked = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            with engine.connect() as other:
                wait_for(lambda: other.execute(blocked).scalar_one() > 0, "the query waits for the lock")
            assert server.request("/api/openapi.json")[0] == 200
            assert answered == []
        waiting.join(20)
        engine.dispose()
        assert answered == [200]


def test_no_secret_in_process_list_or_log(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret-broker")
    with Server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}") as server:
        server.config.write_text(f"{server.config.read_text()}\n[mqtt]\npassword_file = '{password}'\n")
        server.start()
        token = server.token("admin")
        assert server.request("/api/clients", token)[0] == 200
        assert server.request("/api/clients", token[:-1] + "?")[0] == 401
        lines = [" ".join(each.cmdline()) for each in server.family()]
        assert not any("s3cret" in line or token in line for line in lines)
        logged = server.log.read_text()
        assert "s3cret" not in logged
        assert token[17:-1] not in logged
