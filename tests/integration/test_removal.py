"""A client that is removed: all of it goes and nothing of others, in bites, however much it says meanwhile."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text

from infoscreen_server import cli, housekeeping, ingest_figures, issues, labels, models_live, removal, screenshots
from infoscreen_server.accounts import add_token, caller_of
from infoscreen_server.alerts import evaluate, quiet, world
from infoscreen_server.alerts.quiet import Draft
from infoscreen_server.alerts.silences import Scope
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import CHUNK_ROWS, writing
from infoscreen_server.issues import Issue
from infoscreen_server.labels import Labels
from infoscreen_server.models import Base, ScreenshotKind, TokenRole
from infoscreen_server.models_alerts import Alert, AlertState, RuleKind
from infoscreen_server.models_history import IncidentBacklog
from infoscreen_server.screenshots import Upload
from infoscreen_server.store import Presence
from infoscreen_shared.messages import Health, Hello, LaneSpan, LogLevel, ProcessStatus, ScreenHealthStatus
from parts.fleet import ALL, NOW, OTHER, UUID, Fleet, batch, finish_removals, hours, item, of_items, uuid_of
from parts.server import Server
from parts.together import together
from parts.wait import wait_for
from parts.watch import LONG, MINUTE, STEP, Watch

ERROR, WARN = LogLevel.ERROR, LogLevel.WARN
KEPT = {"alerts", "tokens"}
"""Where a client is named when it is gone: what fired, and its tokens, revoked."""
NUMBERED = {"gaps"}
"""Tables of a client that name its lanes."""
BREATH_S = 0.005
"""Between two transactions of a busy door: SQLite's lock is not handed on in turn, so one that never rests keeps it."""


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as made:
        yield made


class Once(threading.Event):
    """Set as soon as anybody waits for it: whatever goes on until it is set takes one step."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def remove(fleet: Fleet, uuid: str = UUID) -> None:
    assert removal.ask(fleet.engine, uuid, "anna", NOW)
    finish_removals(fleet.engine)


def in_small_bites(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(removal, "CHUNK_ROWS", rows)
    monkeypatch.setattr(removal, "PAUSE_S", 0.0)


# --- all of it, and nothing else --------------------------------------------------------------------------------------


def live(fleet: Fleet, uuid: str) -> None:
    """One of everything that there can be of a client."""
    crash = [item(n, NOW - hours(n), code="player.crashed") for n in (4, 5, 6)]
    fleet.say(of_items([*crash, {"seq": 7}], base=3, level=ERROR), uuid=uuid)
    fleet.say(of_items([item(1, code="player.started")]), batch(range(1, 9), level=WARN, code="x.slow"), uuid=uuid)
    fleet.say(batch([9], level=WARN, code="buffer.dropped"), uuid=uuid)
    for number, status in enumerate((ScreenHealthStatus.OK, ScreenHealthStatus.BLACK, ScreenHealthStatus.OK)):
        when = NOW + timedelta(minutes=number)
        fleet.say(Health(when, None, None, "mpv", 7, ProcessStatus.RUNNING, status, system={"load": [1]}), uuid=uuid)
    labels.write(fleet.engine, uuid, Labels(f"screen {uuid}", "Graz", ["4k", "foyer"]))
    for number in range(3):
        upload = Upload(f"p{number}", NOW, ScreenshotKind.INCIDENT, ScreenHealthStatus.OK, None, None, 8, 8, b"jpeg")
        assert screenshots.keep(fleet.engine, uuid, upload, NOW, ALL)
    add_token(fleet.engine, "kiosk", TokenRole.DEVICE, now=NOW, client_uuid=uuid)
    quiet.add_silence(fleet.engine, Draft(Scope.CLIENT, uuid, NOW, None), "anna", NOW)
    alert = {"rule_id": 1, "rule_name": "r", "kind": RuleKind.OFFLINE, "began_at": NOW, "fired_at": NOW, "detail": "{}"}
    with writing(fleet.engine) as connection:
        connection.execute(insert(IncidentBacklog).values(client_uuid=uuid, since=NOW))
        connection.execute(insert(AlertState).values(rule_id=1, client_uuid=uuid, phase="firing", changes="[]"))
        connection.execute(insert(Alert).values(client_uuid=uuid, **alert))
        connection.execute(insert(Alert).values(client_uuid=uuid, ended_at=NOW, closed_at=NOW, **alert))


def mentions(fleet: Fleet, uuid: str) -> dict[str, list[Any]]:
    """By table, all rows in which a client is named, in whatever column; and those of its lanes."""
    found: dict[str, list[Any]] = {}
    with fleet.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            rows = [row for row in connection.execute(select(*table.c)) if uuid in repr(row)]
            if rows:
                found[table.name] = sorted(tuple(row) for row in rows) if table.name not in KEPT else rows
    lanes = fleet.rows(
        "SELECT gaps.first, gaps.last FROM gaps JOIN lanes ON lanes.id = lane_id WHERE client_uuid = :uuid", uuid=uuid
    )
    return found | ({"gaps": lanes} if lanes else {})


def tables_of_clients() -> set[str]:
    return {
        table.name
        for table in Base.metadata.sorted_tables
        if "client_uuid" in table.c or any(key.column.table.name == "clients" for key in table.foreign_keys)
    }


@pytest.mark.parametrize("bite", [2, CHUNK_ROWS])
def test_nothing_of_it_is_left_and_all_of_others_is(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, bite: int) -> None:
    in_small_bites(monkeypatch, bite)
    assert models_live.IngestSample.__table__ in Base.metadata.sorted_tables
    for uuid in (OTHER, UUID):
        live(fleet, uuid)
    assert issues.acknowledge(fleet.engine, Issue(ERROR, "player.crashed"), "known", "anna", NOW)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    everywhere = tables_of_clients() | NUMBERED | {"clients", "acknowledgements", "alert_silences"}
    assert set(mentions(fleet, UUID)) == everywhere, "a table that this test does not fill yet"
    others = mentions(fleet, OTHER)
    assert set(others) == everywhere - {"removals"}
    assert fleet.daily_agrees()
    finish_removals(fleet.engine)
    assert set(mentions(fleet, UUID)) == KEPT
    assert json.loads(fleet.one("SELECT clients FROM acknowledgements")) == [OTHER]
    left = mentions(fleet, OTHER)
    assert left | {"acknowledgements": []} == others | {"acknowledgements": []}
    assert fleet.counters_agree()
    assert fleet.issues_agree()
    assert fleet.daily_agrees()
    assert fleet.rows("SELECT 1 FROM alerts WHERE client_uuid = :uuid AND closed_at IS NULL", uuid=UUID) == []
    assert fleet.rows("SELECT revoked_at IS NULL FROM tokens ORDER BY client_uuid") == [False, True]


def test_what_was_counted_out_is_not_taken_out_again(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows on both sides of the mark: at every moment the counts say what the log says, of it and of others."""
    in_small_bites(monkeypatch, 10)
    for uuid in (UUID, OTHER):
        for level, code in ((ERROR, "a.b"), (WARN, None), (LogLevel.INFO, None)):
            more = {} if code is None else {"code": code}
            items = [item(n, NOW - hours(20) + n * timedelta(minutes=40), **more) for n in range(1, 31)]
            fleet.say(of_items(items, level=level), uuid=uuid)
    housekeeping.count_out(fleet.engine, NOW + hours(16))
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    steps = 1
    while removal.go_on(fleet.engine, NOW, Once()):
        steps += 1
        assert fleet.counters_agree()
        assert fleet.issues_agree()
        times = fleet.rows("SELECT timestamp FROM client_logs WHERE client_uuid = :uuid ORDER BY timestamp", uuid=UUID)
        assert len(times) == 90 - 10 * (steps - 1)
    assert steps >= 10
    assert fleet.counters_agree()
    assert fleet.issues_agree()
    assert fleet.rows("SELECT uuid FROM clients") == [OTHER]
    assert len(fleet.messages()) == 90


def test_only_what_is_there_can_be_removed(fleet: Fleet) -> None:
    assert not removal.ask(fleet.engine, UUID, "anna", NOW)
    assert not removal.keep(fleet.engine, UUID)
    finish_removals(fleet.engine)
    fleet.say(Presence(True))
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    assert removal.ask(fleet.engine, UUID, "berta", NOW + hours(1))
    with fleet.engine.connect() as connection:
        assert removal.pending(connection) == {UUID: removal.Asked(NOW, "anna")}


def test_several_go_one_after_the_other(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_bites(monkeypatch, 3)
    for number in range(4):
        fleet.say(batch(range(1, 9)), uuid=uuid_of(number))
    for number in (2, 0, 3):
        assert removal.ask(fleet.engine, uuid_of(number), "anna", NOW)
    finish_removals(fleet.engine)
    assert fleet.rows("SELECT uuid FROM clients") == [uuid_of(1)]
    assert len(fleet.messages()) == 8
    assert fleet.counters_agree()


# --- in bites, and back -----------------------------------------------------------------------------------------------


def test_it_may_be_kept_until_the_end(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_bites(monkeypatch, 10)
    fleet.say(of_items([item(n, NOW - timedelta(minutes=60 - n)) for n in range(1, 36)]))
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    for _ in range(2):
        assert removal.go_on(fleet.engine, NOW, Once())
    assert removal.keep(fleet.engine, UUID)
    assert not removal.keep(fleet.engine, UUID)
    finish_removals(fleet.engine)
    assert fleet.messages() == [f"m{n}" for n in range(21, 36)], "the oldest are gone"
    assert fleet.counters_agree()
    assert fleet.cursor(batch([36], base=35)) == 36
    assert fleet.account() == (36, 36, 0, 0, 0)
    remove(fleet)
    assert fleet.rows("SELECT 1 FROM clients") == []


def test_what_lasts_is_still_known_when_it_is_kept(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_bites(monkeypatch, 2)
    live(fleet, UUID)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    events = "SELECT count(*) FROM incident_events"
    before = fleet.one(events)
    while fleet.one(events) == before:
        assert removal.go_on(fleet.engine, NOW, Once())
    assert removal.keep(fleet.engine, UUID)
    kinds = "SELECT kind, ended_at IS NULL FROM state_spans ORDER BY kind"
    assert fleet.rows(kinds) == [("link", True), ("process", True), ("screen", True)]
    fleet.say(Presence(True), Presence(False), now=NOW + hours(1))
    assert fleet.rows(f"{kinds}, began_at")[:2] == [("link", False), ("link", True)]


def test_it_stops_when_told_and_goes_on_later(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_bites(monkeypatch, 10)
    fleet.say(batch(range(1, 36)))
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    stopped = threading.Event()
    stopped.set()
    assert removal.go_on(fleet.engine, NOW, stopped)
    assert len(fleet.messages()) == 35
    assert removal.go_on(fleet.engine, NOW, Once())
    assert len(fleet.messages()) == 25
    fleet.engine.dispose()
    with Fleet(fleet.url) as later:
        finish_removals(later.engine)
        assert later.rows("SELECT 1 FROM clients") == []


def test_a_turn_has_its_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else housekeeping has to do does not wait for all of it."""
    in_small_bites(monkeypatch, 10)
    monkeypatch.setattr(removal, "TURN_S", 0.0)
    fleet.say(batch(range(1, 36)))
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    assert removal.go_on(fleet.engine, NOW)
    assert fleet.rows("SELECT 1 FROM clients") != []


def test_one_that_never_stops_talking_is_removed_all_the_same(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_bites(monkeypatch, 10)
    live(fleet, UUID)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    steps = 0
    while removal.go_on(fleet.engine, NOW, Once()):
        steps += 1
        fleet.say(item_alone(steps))
        assert steps < 50
    assert fleet.rows("SELECT 1 FROM screenshots") == []
    assert fleet.counters_agree()


def item_alone(number: int) -> Any:
    return of_items([item(number)], epoch="live", base=number - 1)


def test_ingest_waits_only_a_moment_for_a_large_removal(fleet: Fleet) -> None:
    """That of another client, and its own."""
    for first in range(1, 10_001, 500):
        fleet.say(batch(range(first, first + 500), level=ERROR, code="a.b"))
    fleet.say(batch([1]), uuid=OTHER)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    over = threading.Event()

    def house() -> None:
        try:
            with Fleet(fleet.url, migrated=False) as mine:
                finish_removals(mine.engine)
        finally:
            over.set()

    slowest: list[float] = []

    def doors() -> None:
        with Fleet(fleet.url, migrated=False) as mine:
            number = 0
            while not over.wait(BREATH_S):
                number += 1
                for uuid in (UUID, OTHER):
                    before = time.perf_counter()
                    ((_, ack),) = mine.say(item_alone(number), uuid=uuid)
                    slowest.append(time.perf_counter() - before)
                    assert ack.lanes == {LogLevel.INFO: number}

    together(house, doors)
    assert len(slowest) > 6, "ingest went on meanwhile"
    assert max(slowest) < 2.0
    assert fleet.rows("SELECT 1 FROM lanes WHERE client_uuid = :uuid AND epoch = 'e'", uuid=UUID) == []
    assert fleet.counters_agree()
    assert fleet.issues_agree()
    assert len(fleet.rows("SELECT 1 FROM client_logs WHERE client_uuid = :uuid", uuid=OTHER)) == len(slowest) // 2 + 1


def test_housekeeping_does_it_and_goes_on_with_what_it_left(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_bites(monkeypatch, 10)
    fleet.say(batch(range(1, 200)))
    fleet.say(batch(range(1, 8)), uuid=OTHER)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    assert removal.go_on(fleet.engine, NOW, Once())
    stop = threading.Event()
    config = ServerConfig(database_url=fleet.url)
    loop = threading.Thread(target=housekeeping.run_housekeeping, args=(config, stop))
    loop.start()
    try:
        wait_for(lambda: fleet.rows("SELECT uuid FROM clients") == [OTHER], "the client is gone")
    finally:
        stop.set()
        loop.join(5)
    assert not loop.is_alive()
    assert len(fleet.messages()) == 7


def test_a_kill_in_the_middle_loses_nothing_of_others(tmp_path: Path) -> None:
    """The real process, which is started again and goes on."""
    url = f"sqlite:///{tmp_path / 'server.db'}"
    with Fleet(url) as fleet:
        for first in range(1, 20_001, 500):
            fleet.say(batch(range(first, first + 500)))
        fleet.say(batch(range(1, 8)), uuid=OTHER)
        with Server(tmp_path, url, heartbeat_seconds=3600).start() as server:
            assert server.call("client", "remove", UUID).startswith(f"client {UUID} is being removed")
            count = "SELECT count(*) FROM client_logs"
            wait_for(lambda: fleet.one(count) < 20_007, "it has begun")
            server.part("housekeeping").kill()
            assert fleet.one(count) > 7, "it was in the middle"
            wait_for(lambda: fleet.rows("SELECT uuid FROM clients") == [OTHER], "the client is gone", 60)
            assert server.stop() == 0
        assert len(fleet.messages()) == 7
        assert fleet.counters_agree()
        assert f"client {UUID} is removed" in server.log.read_text()


# --- it speaks again --------------------------------------------------------------------------------------------------


def test_one_that_speaks_again_is_a_new_client(fleet: Fleet) -> None:
    fleet.say(batch(range(1, 6)))
    labels.write(fleet.engine, UUID, Labels("foyer", "Graz", ["4k"]))
    before = fleet.one("SELECT max(id) FROM state_spans")
    remove(fleet)
    later = NOW + timedelta(minutes=5)
    ((_, ack),) = fleet.say(Hello("e", {LogLevel.INFO: LaneSpan(5, 8)}, "1"), now=later)
    assert ack.lanes == {LogLevel.INFO: 5}, "what it holds no longer is not asked for again"
    assert fleet.cursor(batch([6, 7], base=5)) == 7
    assert fleet.account() == (7, 2, 0, 0, 5)
    assert fleet.rows("SELECT uuid, name, location FROM clients") == [(UUID, None, None)]
    assert fleet.rows("SELECT 1 FROM client_tags") == []
    assert fleet.messages() == ["m6", "m7"]
    assert fleet.counters_agree()
    assert fleet.daily_agrees()
    assert fleet.one("SELECT min(id) FROM state_spans") > before, "the live view goes by the highest that it saw"


def test_one_that_holds_all_of_it_delivers_all_of_it_again(fleet: Fleet) -> None:
    fleet.say(batch(range(1, 6)))
    remove(fleet)
    assert fleet.cursor(batch(range(1, 8))) == 7
    assert fleet.account() == (7, 7, 0, 0, 0)


def test_its_issues_are_new_ones_then(fleet: Fleet) -> None:
    issue = Issue(ERROR, "a.b")
    fleet.say(batch([1], level=ERROR, code="a.b"))
    assert issues.acknowledge(fleet.engine, issue, "known", "anna", NOW)
    remove(fleet)
    fleet.say(batch([1], level=ERROR, code="a.b"))
    with fleet.engine.connect() as connection:
        (active,) = issues.active_issues(connection, NOW)
    assert active["acknowledgement"] is None


def test_it_is_turned_away_where_none_may_register(fleet: Fleet) -> None:
    fleet.say(batch([1]))
    remove(fleet)
    assert fleet.say(batch([2], base=1), policy=replace(ALL, auto_register=False)) == []
    assert fleet.rows("SELECT 1 FROM clients") == []
    assert fleet.rows("SELECT reason, client_uuid FROM dead_letters") == [("unknown client", UUID)]


def waits_for_a_lock(engine: Engine) -> bool:
    """Whether somebody does; SQLite has no way to ask."""
    if engine.dialect.name == "sqlite":
        return True
    found = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        return connection.execute(text(found)).first() is not None


def test_one_that_waits_while_the_last_of_it_goes_is_made_anew(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PostgreSQL it has seen that the client is there by then."""
    fleet.say(batch([1]))
    fleet.say(batch([1]), uuid=OTHER)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    locked, acks = threading.Event(), []
    forget = issues.forget_client

    def at_last(connection: Any, uuid: str) -> None:
        locked.set()
        wait_for(lambda: waits_for_a_lock(fleet.engine), "ingest waits")
        forget(connection, uuid)

    def speak() -> None:
        assert locked.wait(20)
        with Fleet(fleet.url, migrated=False) as mine:
            acks.extend(mine.say(batch([1, 2])))

    def house() -> None:
        finish_removals(fleet.engine)

    monkeypatch.setattr(issues, "forget_client", at_last)
    together(house, speak)
    ((_, ack),) = acks
    assert ack.lanes == {LogLevel.INFO: 2}
    assert fleet.account() == (3, 3, 0, 0, 0)
    assert sorted(fleet.rows("SELECT uuid FROM clients")) == sorted([UUID, OTHER])
    assert fleet.rows("SELECT 1 FROM dead_letters") == []
    assert fleet.stats().get("unknown_client") is None
    assert fleet.counters_agree()


def test_its_token_opens_nothing_any_more(fleet: Fleet) -> None:
    fleet.say(Presence(True))
    token = add_token(fleet.engine, "kiosk", TokenRole.DEVICE, now=NOW, client_uuid=UUID)
    other = add_token(fleet.engine, "kiosk", TokenRole.DEVICE, now=NOW, client_uuid=OTHER)
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    assert caller_of(fleet.engine, token, NOW) is not None, "it may still be kept"
    finish_removals(fleet.engine)
    assert caller_of(fleet.engine, token, NOW) is None
    assert caller_of(fleet.engine, other, NOW) is not None
    fresh = add_token(fleet.engine, "kiosk", TokenRole.DEVICE, now=NOW, client_uuid=UUID)
    assert caller_of(fleet.engine, fresh, NOW) is not None


def test_the_figures_of_the_ingest_do_not_fall(fleet: Fleet) -> None:
    """The newest records of all may have been its own."""
    fleet.say(batch([1]), uuid=OTHER)
    fleet.say(batch(range(1, 601)))
    ingest_figures.take_sample(fleet.engine, NOW)
    remove(fleet)
    ingest_figures.take_sample(fleet.engine, NOW + MINUTE)
    fleet.say(batch(range(2, 62), base=1), uuid=OTHER)
    ingest_figures.take_sample(fleet.engine, NOW + 2 * MINUTE)
    with fleet.engine.connect() as connection:
        found = ingest_figures.figures(connection, NOW + 3 * MINUTE)
    assert [rate for _, rate in found.per_minute] == [0.0, 1.0]


# --- alerts -----------------------------------------------------------------------------------------------------------

OFFLINE = "ALERT Screen 1: offline [#1-1]"


@pytest.fixture
def watch(database_url: str) -> Iterator[Watch]:
    with Watch(database_url) as running:
        running.start(1, 2, 3, 4, 5, 6)
        running.silence("client", uuid_of(2), timedelta(days=1))
        running.lose(1)
        running.turn(12 * MINUTE, LONG)
        assert running.titles() == [OFFLINE]
        yield running


@pytest.mark.parametrize("rounds", [0, 1])
def test_what_fires_ends_without_a_word(watch: Watch, rounds: int) -> None:
    """Whether or not a round is done between the word and the deed."""
    assert removal.ask(watch.engine, uuid_of(1), "anna", watch.now)
    watch.turn(rounds * STEP)
    finish_removals(watch.engine, watch.now)
    assert watch.unsettled() == 0
    assert watch.rows("SELECT client_uuid FROM alerts WHERE ended_at IS NOT NULL") == [uuid_of(1)]
    watch.turn(20 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE]
    assert watch.rows("SELECT 1 FROM alert_states") == []
    assert watch.rows("SELECT target FROM alert_silences") == [uuid_of(2)]
    watch.show(ScreenHealthStatus.OK, 1)
    watch.turn(5 * MINUTE)
    watch.lose(1)
    watch.turn(12 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE, f"ALERT {uuid_of(1)}: offline [#2-1]"], (
        "a new client, of which a new word is said"
    )


def test_of_one_that_is_being_removed_nothing_is_said(watch: Watch) -> None:
    """Nor that it has recovered because its incidents are gone; of one that is kept it is said anew."""
    assert removal.ask(watch.engine, uuid_of(1), "anna", watch.now)
    assert removal.ask(watch.engine, uuid_of(3), "anna", watch.now)
    watch.show(ScreenHealthStatus.BLACK, 3)
    watch.turn(12 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE]
    assert watch.unsettled() == 0
    assert removal.keep(watch.engine, uuid_of(1))
    watch.turn(12 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE, "ALERT Screen 1: offline [#2-1]"]


def test_a_round_that_was_read_before_it_is_not_written_behind_it(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.rule("screen", hold=0)
    watch.show(ScreenHealthStatus.BLACK, 3)
    watch.now += STEP
    watch.beat()

    def late(*about: Any) -> Any:
        found = world.read(*about)
        assert removal.ask(watch.engine, uuid_of(3), "anna", watch.now)
        finish_removals(watch.engine, watch.now)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "read", late)
        assert evaluate.round(watch.engine, watch.config, watch.now) == 0
    del watch.alive[uuid_of(3)]
    watch.turn(MINUTE)
    assert watch.titles() == [OFFLINE]
    assert watch.rows("SELECT 1 FROM alert_states WHERE client_uuid = :uuid", uuid=uuid_of(3)) == []


# --- by command -------------------------------------------------------------------------------------------------------


def test_the_command_lists_and_removes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("MQTT_BROKER", "DEBUG_MODE", "LOG_RETENTION_DAYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", fleet.url)
    fleet.say(Presence(True), now=NOW)
    fleet.say(Presence(False), uuid=OTHER)
    labels.write(fleet.engine, UUID, Labels("foyer", "Graz", []))
    fleet.run(f"INSERT INTO clients (uuid, hostname, registered_at, online) "
              f"SELECT '{uuid_of(1)}', 'hall-1', registered_at, false FROM clients WHERE uuid = '{UUID}'")  # fmt: skip
    fleet.run(f"UPDATE clients SET hostname = 'hall-1' WHERE uuid = '{OTHER}'")
    seen = fleet.one(f"SELECT substr(CAST(last_alive AS TEXT), 1, 16) FROM clients WHERE uuid = '{UUID}'")
    assert cli.main(["client", "remove", "hall-1"]) == 1
    assert "several clients of this name" in capsys.readouterr().err
    assert cli.main(["client", "remove", "nosuch\0"]) == 1
    assert "no such client" in capsys.readouterr().err
    for asked, uuid in (("foyer", UUID), (OTHER.upper(), OTHER)):
        assert cli.main(["client", "remove", asked]) == 0
        assert capsys.readouterr().out.startswith(f"client {uuid} is being removed")
    assert cli.main(["client", "list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{uuid_of(1)}\thall-1\t-\tnever seen",
        f"{UUID}\tfoyer\tGraz\tbeing removed",
        f"{OTHER}\thall-1\t-\tbeing removed",
    ]
    finish_removals(fleet.engine)
    assert removal.keep(fleet.engine, UUID) is False
    fleet.say(Presence(True), now=NOW)
    assert cli.main(["client", "list"]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith(UUID)]
    assert line in (f"{UUID}\t-\t-\tonline", f"{UUID}\t-\t-\tlast seen {seen.replace('T', ' ')}")
