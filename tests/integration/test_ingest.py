"""`infoscreen-server ingest` between a real broker and a real database: what it owes both, whatever fails."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from infoscreen_server.db import upgrade, writing
from infoscreen_server.models import Client
from infoscreen_shared.messages import Ack, LogLevel, Wanted
from parts.api import Api
from parts.broker import Broker
from parts.fleet import NOW, UUID
from parts.ingester import Ingester, held_before_commit, locked, wait_held
from parts.kiosk import Kiosk, hello, numbered
from parts.link import Link
from parts.postgres import Postgres
from parts.wait import free_port, wait_for

ERROR, INFO = LogLevel.ERROR, LogLevel.INFO
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@dataclass
class Setup:
    broker: Broker
    ingester: Ingester
    kiosk: Kiosk

    @property
    def messages(self) -> list[str]:
        return self.ingester.fleet.messages()

    def wait_stored(self, last: int) -> None:
        """Until m1 to `last` are stored, each once and in order, and nothing else is."""
        wait_for(lambda: self.messages == names(1, last), f"{last} records are stored: {self.ingester.log()}")


def names(first: int, last: int) -> list[str]:
    return [f"m{number}" for number in range(first, last + 1)]


@pytest.fixture
def setup(tmp_path: Path, broker: Broker, database_url: str) -> Iterator[Setup]:
    with Ingester(tmp_path, database_url, broker.url) as ingester, Kiosk(broker.port) as kiosk:
        ingester.start()
        yield Setup(broker, ingester, kiosk)


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_hello_batch_ack(setup: Setup) -> None:
    answered = setup.kiosk.answer("hello", hello())
    assert (answered.epoch, answered.lanes) == ("e", {ERROR: 0})
    assert answered.wanted == {
        ERROR: Wanted.ALL,
        LogLevel.WARN: Wanted.ALL,
        INFO: Wanted.CODED,
        LogLevel.DEBUG: Wanted.NONE,
    }
    for numbers, cursor in ((range(1, 4), 3), (range(1, 4), 3), (range(3, 6), 5), (range(8, 9), 5)):
        assert setup.kiosk.answer("logs/error", numbered(numbers)) == Ack("e", {ERROR: cursor})
    assert setup.messages == names(1, 5)
    assert setup.kiosk.answer("logs/error", numbered([8], base=7)).lanes == {ERROR: 8}
    assert setup.kiosk.answer("hello", hello(base=20, upcoming=30)).lanes == {ERROR: 20}
    fleet = setup.ingester.fleet
    assert fleet.rows("SELECT first, last FROM gaps ORDER BY first") == [(6, 7), (9, 20)]
    assert fleet.account() == (20, 6, 0, 0, 14)
    assert fleet.rows("SELECT uuid, version, online FROM clients") == [(UUID, "1.0", 1)]
    assert setup.ingester.stop() == 0


# --- killed -----------------------------------------------------------------------------------------------------------


def test_killed_between_insert_and_commit(setup: Setup) -> None:
    setup.kiosk.answer("logs/error", numbered([1]))
    with held_before_commit(setup.ingester):
        setup.kiosk.say("logs/error", numbered([2, 3]))
        wait_held(setup.ingester)
        assert len(setup.kiosk.acks) == 1
        setup.ingester.kill()
    assert setup.messages == ["m1"]
    assert setup.ingester.fleet.account() == (1, 1, 0, 0, 0)
    setup.ingester.start()
    # The kiosk has not said it again: the broker has, for it was not acknowledged to the broker either.
    wait_for(lambda: [ack.lanes for ack in setup.kiosk.acks] == [{ERROR: 1}, {ERROR: 3}], "it is acknowledged")
    assert setup.messages == names(1, 3)
    assert setup.ingester.fleet.stats() == {}


def test_killed_between_commit_and_ack(tmp_path: Path, broker: Broker, database_url: str) -> None:
    with (
        Link(broker.port) as link,
        Ingester(tmp_path, database_url, link.url) as ingester,
        Kiosk(broker.port) as kiosk,
    ):
        setup = Setup(broker, ingester.start(), kiosk)
        kiosk.answer("logs/error", numbered([1]))
        link.hold()
        kiosk.say("logs/error", numbered([2, 3]))
        setup.wait_stored(3)
        ingester.kill()
        link.drop()
        assert len(kiosk.acks) == 1, "neither the kiosk nor the broker has heard of it"
        ingester.start()
        wait_for(lambda: kiosk.acks[1:] == [Ack("e", {ERROR: 3})], "it is acknowledged")
        assert setup.messages == names(1, 3)
        assert ingester.fleet.stats() == {"duplicate": 2}
        assert kiosk.answer("logs/error", numbered([4])).lanes == {ERROR: 4}


@on_sqlite
def test_no_acknowledgement_leaves_before_the_commit(tmp_path: Path, broker: Broker, database_url: str) -> None:
    with (
        Link(broker.port) as link,
        Ingester(tmp_path, database_url, link.url).start() as ingester,
        Kiosk(broker.port) as kiosk,
    ):
        kiosk.answer("logs/error", numbered([1]))
        sent = len(link.sent)
        with held_before_commit(ingester):
            kiosk.say("logs/error", numbered([2]))
            wait_held(ingester)
            assert link.sent[sent:] == b"", "neither an ack nor a PUBACK"
            ingester.kill()


# --- transactions -----------------------------------------------------------------------------------------------------

TRANSACTIONS = "SELECT count(DISTINCT received_at) FROM client_logs"


@on_sqlite
def test_what_waits_is_stored_in_few_transactions(setup: Setup) -> None:
    setup.kiosk.say("logs/error", numbered([1]))
    setup.wait_stored(1)
    with locked(setup.ingester.fleet):
        setup.kiosk.say("logs/error", *(numbered([number]) for number in range(2, 1002)))
    setup.wait_stored(1001)
    # The broker has 200 on their way at most; one message is that for which it had to wait.
    assert setup.ingester.fleet.one(TRANSACTIONS) < 40
    wait_for(lambda: setup.kiosk.acks[-1].lanes == {ERROR: 1001}, "all are acknowledged")
    assert len(setup.kiosk.acks) < 40, "one ack for each transaction"


@on_sqlite
def test_what_comes_alone_is_stored_at_once(setup: Setup) -> None:
    setup.kiosk.answer("logs/error", numbered([1]))
    begun = time.monotonic()
    for number in range(2, 42):
        assert setup.kiosk.answer("logs/error", numbered([number])).lanes == {ERROR: number}
    assert setup.ingester.fleet.one(TRANSACTIONS) == 41
    # A gathering pause of a tenth of a second would already be seen.
    assert time.monotonic() - begun < 4


def test_both_doors_at_once_for_one_client(setup: Setup) -> None:
    last = 400
    web = Api(setup.ingester.fleet.url)
    web.now = datetime.now(UTC)
    failures: list[BaseException] = []

    def deliver(ask: Callable[[bytes], int], width: int) -> None:
        """Go-back-N: always from what the last answer said, as the agent does."""
        cursor = 0
        try:
            while cursor < last:
                cursor = ask(numbered(range(cursor + 1, min(last, cursor + width) + 1)))
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failures.append(error)

    def http(body: bytes) -> int:
        answer = web.post(data=b'{"level":"ERROR",' + body[1:])
        return int(answer.json["acks"][0]["lanes"]["error"])

    def mqtt(body: bytes) -> int:
        return setup.kiosk.answer("logs/error", body).lanes[ERROR]

    ways = [threading.Thread(target=deliver, args=way) for way in ((http, 7), (mqtt, 11))]
    for way in ways:
        way.start()
    for way in ways:
        way.join(60)
    web.close()
    assert not failures
    assert setup.messages == names(1, last)
    assert setup.ingester.fleet.account() == (last, last, 0, 0, 0)


# --- the database is away ---------------------------------------------------------------------------------------------


@on_sqlite
def test_a_locked_database_is_waited_for(setup: Setup) -> None:
    setup.kiosk.answer("logs/error", numbered([1]))
    with locked(setup.ingester.fleet):
        setup.kiosk.say("logs/error", numbered([2]), numbered([3]))
        assert len(setup.kiosk.acks) == 1
    setup.wait_stored(3)
    wait_for(lambda: setup.kiosk.acks[-1].lanes == {ERROR: 3}, "all is acknowledged")


def test_tables_that_are_missing_are_waited_for(tmp_path: Path, broker: Broker, empty_database_url: str) -> None:
    """Started before `migrate` was."""
    with Ingester(tmp_path, empty_database_url, broker.url, migrated=False) as ingester, Kiosk(broker.port) as kiosk:
        setup = Setup(broker, ingester.start(), kiosk)
        kiosk.say("logs/error", numbered([1, 2]))
        wait_for(lambda: "ERROR infoscreen_server.ingest: database: " in ingester.log(), "the log says why it waits")
        upgrade(empty_database_url)
        setup.wait_stored(2)
        wait_for(lambda: kiosk.acks == [Ack("e", {ERROR: 2})], "it is acknowledged")


def test_postgresql_goes_and_comes_back(tmp_path: Path, broker: Broker, postgres: Postgres) -> None:
    url = postgres.new_database()
    with Ingester(tmp_path, url, broker.url) as ingester, Kiosk(broker.port) as kiosk:
        ingester.start()
        kiosk.answer("logs/error", numbered([1]))
        ingester.fleet.engine.dispose()
        postgres.stop()
        try:
            kiosk.say("logs/error", *(numbered([number]) for number in range(2, 302)))
            wait_for(lambda: ingester.log().count("database: ") >= 2, "it tries again")
            assert len(kiosk.acks) == 1
        finally:
            postgres.start()
        wait_for(lambda: kiosk.acks[-1].lanes == {ERROR: 301}, "the last one is acknowledged")
        assert kiosk.answer("logs/error", numbered([302])).lanes == {ERROR: 302}
        assert ingester.fleet.account() == (302, 302, 0, 0, 0)


# --- the broker is away -----------------------------------------------------------------------------------------------


@on_sqlite
def test_a_broker_that_comes_later(tmp_path: Path, database_url: str) -> None:
    broker = Broker(tmp_path / "broker", free_port())
    broker.directory.mkdir()
    with Ingester(tmp_path, database_url, broker.url) as ingester:
        ingester.start(listening=False)
        wait_for(lambda: f"broker 127.0.0.1:{broker.port}: Connection refused" in ingester.log(), "it says so")
        with broker:
            ingester.wait_listening(0)
            with Kiosk(broker.port) as kiosk:
                assert kiosk.answer("logs/error", numbered([1])).lanes == {ERROR: 1}


@on_sqlite
def test_a_broker_that_is_killed_and_has_forgotten_all(tmp_path: Path, broker: Broker, database_url: str) -> None:
    with Ingester(tmp_path, database_url, broker.url) as ingester:
        ingester.start()
        with Kiosk(broker.port) as kiosk:
            kiosk.answer("logs/error", numbered([1, 2]))
        for last in (3, 4):
            before = ingester.connections()
            broker.kill()
            broker.wipe()
            broker.start()
            ingester.wait_listening(before)
            with Kiosk(broker.port) as kiosk:
                assert kiosk.answer("hello", hello(upcoming=last + 1)).lanes == {ERROR: last - 1}
                assert kiosk.answer("logs/error", numbered(range(1, last + 1))).lanes == {ERROR: last}
        assert ingester.fleet.messages() == names(1, 4)
        assert ingester.log().count("new session") == 3


@on_sqlite
def test_a_wrong_password_is_told_without_it_and_tried_again(tmp_path: Path, database_url: str) -> None:
    passwords = tmp_path / "passwords"
    add = ["mosquitto_passwd", "-b", str(passwords), "ingest"]
    passwords.touch()
    subprocess.run([*add, "another"], check=True)
    closed = f"allow_anonymous false\npassword_file {passwords}"
    broker = Broker(tmp_path / "broker", extra=closed)
    broker.directory.mkdir()
    told = f"broker 127.0.0.1:{broker.port}: refuses the connection: Not authorized, again in "
    with broker, Ingester(tmp_path, database_url, f"mqtt://ingest:s3cret@127.0.0.1:{broker.port}") as ingester:
        ingester.start(listening=False)
        wait_for(lambda: ingester.log().count(told) >= 2, "it says so and tries again")
        assert "s3cret" not in " ".join(ingester.running().cmdline())
        subprocess.run([*add, "s3cret"], check=True)
        broker.stop()
        broker.start()
        ingester.wait_listening(0)
        assert "s3cret" not in ingester.log()
        assert ingester.stop() == 0


@on_sqlite
def test_a_standby_takes_over(tmp_path: Path, broker: Broker, database_url: str) -> None:
    """It has the same client id: the broker lets one of the two in at a time, and gives the session to it."""
    (tmp_path / "standby").mkdir()
    with (
        Ingester(tmp_path, database_url, broker.url).start() as first,
        Ingester(tmp_path / "standby", database_url, broker.url) as second,
        Kiosk(broker.port) as kiosk,
    ):
        kiosk.answer("logs/error", numbered([1]))
        second.start()
        kiosk.say("logs/error", *(numbered([number]) for number in range(2, 102)))
        wait_for(lambda: "connection lost" in first.log(), "the first is turned out")
        first.kill()
        kiosk.say("logs/error", numbered(range(2, 111)))
        wait_for(lambda: kiosk.acks[-1].lanes == {ERROR: 110}, "the second serves")
        assert first.fleet.messages() == names(1, 110)
        assert "kept session" in second.log()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_stranger_is_neither_stored_nor_acknowledged(tmp_path: Path, broker: Broker, database_url: str) -> None:
    with Ingester(tmp_path, database_url, broker.url, auto_register=False) as ingester, Kiosk(broker.port) as kiosk:
        ingester.start()
        fleet = ingester.fleet
        kiosk.say("hello", hello())
        kiosk.say("logs/error", numbered([1]))
        kiosk.say("heartbeat", b'{"timestamp":"2026-01-02T03:04:05"}')
        wait_for(lambda: fleet.stats() == {"unknown_client": 3}, "all of it is counted")
        assert fleet.rows("SELECT 1 FROM clients") == []
        assert fleet.rows("SELECT reason, client_uuid FROM dead_letters") == [("unknown client", UUID)]
        with writing(fleet.engine) as connection:
            connection.execute(insert(Client).values(uuid=UUID, registered_at=NOW, online=False))
        assert kiosk.answer("hello", hello()).lanes == {ERROR: 0}
        assert kiosk.answer("logs/error", numbered([1])).lanes == {ERROR: 1}
        assert len(kiosk.acks) == 2
        assert fleet.messages() == ["m1"]


@on_sqlite
def test_without_debug_mode_the_usual_is_acknowledged_and_not_stored(
    tmp_path: Path, broker: Broker, database_url: str
) -> None:
    with Ingester(tmp_path, database_url, broker.url).start() as ingester, Kiosk(broker.port) as kiosk:
        assert kiosk.answer("logs/debug", numbered([1, 2])).lanes == {LogLevel.DEBUG: 2}
        assert kiosk.answer("logs/info", numbered([1, 2])).lanes == {INFO: 2}
        assert kiosk.answer("logs/info", numbered([3], code="player.recovered")).lanes == {INFO: 3}
        kiosk.say("logs/info", b'{"timestamp":"2026-01-02T03:04:05","message":"plain","context":{}}')
        assert kiosk.answer("logs/warn", numbered([1])).lanes == {LogLevel.WARN: 1}
        assert ingester.fleet.rows("SELECT level, seq FROM client_logs ORDER BY id") == [("INFO", 3), ("WARN", 1)]
        assert ingester.fleet.account() == (6, 2, 4, 0, 0)
        assert ingester.fleet.stats() == {"unwanted": 5}


@on_sqlite
def test_debug_mode_wants_and_stores_all(tmp_path: Path, broker: Broker, database_url: str) -> None:
    with Ingester(tmp_path, database_url, broker.url) as ingester, Kiosk(broker.port) as kiosk:
        ingester.server.environment["DEBUG_MODE"] = "1"
        ingester.start()
        assert kiosk.answer("hello", hello()).wanted == dict.fromkeys(LogLevel, Wanted.ALL)
        for level in LogLevel:
            assert kiosk.answer(f"logs/{level.lower()}", numbered([1])).lanes == {level: 1}
        kiosk.say("logs/info", b'{"timestamp":"2026-01-02T03:04:05","message":"plain","context":{}}')
        wait_for(lambda: len(ingester.fleet.messages()) == 5, "the plain one too")
        assert ingester.fleet.account() == (4, 4, 0, 0, 0)
