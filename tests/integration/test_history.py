"""States, incidents, issues and facts are what a computation from scratch says, however and in what order all came."""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from infoscreen_server import facts, history, housekeeping, incident_store, issues, screenshots
from infoscreen_server.housekeeping import Thinning
from infoscreen_server.incidents import CODES, Event, Incident, fold
from infoscreen_server.issues import Issue
from infoscreen_server.models import ClientLog, CounterMark, ScreenshotKind
from infoscreen_server.models_history import Incident as IncidentRow
from infoscreen_server.models_history import IncidentEvent, IncidentKind, IssueCount, StateSpan
from infoscreen_server.screenshots import Upload
from infoscreen_server.store import Arrival, Body, Policy, Presence, ingest
from infoscreen_shared.messages import (
    Batch,
    Health,
    Heartbeat,
    Hello,
    LogLevel,
    ProcessStatus,
    ScreenHealthStatus,
    decode_logs,
    timestamp_text,
)
from parts.fleet import ALL, NOW, OTHER, UUID, Fleet, batch, hours, item, of_items, uuid_of
from parts.together import together

ERROR, WARN, INFO = LogLevel.ERROR, LogLevel.WARN, LogLevel.INFO
SECOND = timedelta(seconds=1)


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as made:
        yield made


def rows(fleet: Fleet, table: Any, uuid: str) -> list[Any]:
    with fleet.engine.connect() as connection:
        columns = table.__table__.columns
        return list(connection.execute(select(*columns).where(table.client_uuid == uuid).order_by(table.id)))


def incidents(fleet: Fleet, uuid: str, *kinds: IncidentKind) -> list[Incident]:
    found = [Incident(*(getattr(row, name) for name in Incident._fields)) for row in rows(fleet, IncidentRow, uuid)]
    return sorted((one for one in found if one.kind in kinds), key=lambda one: (one.began_at, one.kind))


def events(fleet: Fleet, uuid: str) -> list[Event]:
    return [Event(*(getattr(row, name) for name in Event._fields)) for row in rows(fleet, IncidentEvent, uuid)]


def beat(fleet: Fleet, pending: int = 0, oldest: datetime | None = None) -> None:
    fleet.say(Heartbeat(UUID, NOW, "mpv", 7, None, outbox_pending=pending, outbox_oldest=oldest))


def thin(engine: Engine, state: Thinning | None = None, now: datetime = NOW) -> None:
    """Found in one pass, thinned in the next."""
    state = state or Thinning()
    for _ in range(2):
        housekeeping.thin_incidents(engine, state, now)


def spans(fleet: Fleet, uuid: str, kind: str) -> list[tuple[str, datetime, datetime | None]]:
    found = [(row.state, row.began_at, row.ended_at) for row in rows(fleet, StateSpan, uuid) if row.kind == kind]
    return sorted(found, key=lambda span: span[1])


# --- from scratch -----------------------------------------------------------------------------------------------------


def assert_incidents_are_the_fold(fleet: Fleet, uuid: str) -> None:
    assert incidents(fleet, uuid, IncidentKind.PLAYER, IncidentKind.SCREEN) == fold(events(fleet, uuid))


def assert_spans_are_sound(fleet: Fleet, uuid: str) -> None:
    columns = "online, process_status, screen_health_status"
    (now,) = fleet.rows(f"SELECT {columns} FROM clients WHERE uuid = :uuid", uuid=uuid)
    shown = ("online" if now[0] else "offline", now[1] or "unknown", now[2])
    for kind, state in zip(("link", "process", "screen"), shown, strict=True):
        found = spans(fleet, uuid, kind)
        for (_, began, ended), (_, following, _) in pairwise(found):
            assert ended is not None
            assert began < ended == following
        if found:
            assert found[-1][0] == state
            assert found[-1][2] is None
        else:
            assert state in ("offline", "unknown", None)
    link = [(one.began_at, one.ended_at) for one in incidents(fleet, uuid, IncidentKind.LINK)]
    assert link == [span[1:] for span in spans(fleet, uuid, "link") if span[0] == "offline"]


def assert_issues_are_counted(fleet: Fleet) -> None:
    with fleet.engine.connect() as connection:
        mark = connection.execute(select(CounterMark.counted_out_to)).scalar_one()
        logs = connection.execute(
            select(
                ClientLog.client_uuid, ClientLog.level, ClientLog.code, ClientLog.timestamp, ClientLog.message
            ).where(ClientLog.level.in_([ERROR, WARN]), ClientLog.timestamp > mark)
        ).all()
        counted = connection.execute(select(*IssueCount.__table__.columns)).all()
    numbers = Counter((uuid, level, code or "") for uuid, level, code, _, _ in logs)
    assert {(row.client_uuid, row.level, row.code): row.n for row in counted} == numbers
    for row in counted:
        mine = [log for log in logs if (log[0], log[1], log[2] or "") == (row.client_uuid, row.level, row.code)]
        newest = max(log[3] for log in mine)
        assert row.last_at == newest
        assert row.last_message in {log[4][:300] for log in mine if log[3] == newest}


# --- whatever comes in whatever order ---------------------------------------------------------------------------------

CODED = {
    ERROR: ["player.crashed", "screen.black", "player.gave_up", "session.restarting", "other", None],
    WARN: ["player.exited", "player.stopped", "buffer.dropped", None],
    INFO: ["player.started", "player.restarting", "player.recovered", "screen.recovered", "expectation.cleared", None],
}
STEP = 7
"""Seconds from one thing to the next."""
DAY = 86_400
SECONDS = st.integers(-300, 300) | st.sampled_from([-2 * DAY, -DAY - 1, *range(-DAY, -DAY + 9 * STEP, STEP)])
"""From now: many of them just where the counters' window begins."""
LANE = st.tuples(SECONDS, st.integers(0, 5), st.sampled_from([None, 0.5, 3]))
SCRIPT = st.fixed_dictionaries({level: st.lists(LANE, max_size=9) for level in CODED})
STATES = st.tuples(st.sampled_from([None, *ProcessStatus]), st.sampled_from([None, *ScreenHealthStatus]))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("batch"), st.sampled_from(sorted(CODED)), st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("plain"), st.sampled_from(sorted(CODED)), LANE),
        st.tuples(st.sampled_from(["beat", "health"]), SECONDS, STATES),
        st.tuples(st.sampled_from(["on", "off", "hello", "silence", "fold", "thin"])),
        st.tuples(st.sampled_from(["count", "prune"]), st.sampled_from([0, STEP, 100])),
    ),
    max_size=14,
)
SHORT = Policy(debug_mode=True, log_retention_days=1)


class Play:
    """One client's life: lanes that are sent as an agent does, again and again, and all that happens between."""

    def __init__(self, fleet: Fleet, uuid: str, script: dict[LogLevel, list[Any]], began: datetime) -> None:
        self.fleet, self.uuid, self.now = fleet, uuid, began
        self.items = {
            level: [self._item(seq, level, one) for seq, one in enumerate(lane, 1)] for level, lane in script.items()
        }
        self.sent = dict.fromkeys(script, 0)
        self.pruned = False

    def _item(self, seq: int | None, level: LogLevel, told: tuple[int, int, float | None]) -> dict[str, Any]:
        offset, pick, number = told
        code = CODED[level][pick % len(CODED[level])]
        context = {} if number is None else {"outage_s": number, "after_s": number, "restart": 1}
        more = {} if code is None else {"code": code}
        return item(seq, self.now + offset * SECOND, context=context, **more)

    def say(self, body: Body) -> None:
        self.fleet.say(body, uuid=self.uuid, policy=ALL, now=self.now)

    def step(self, operation: tuple[Any, ...]) -> None:
        self.now += STEP * SECOND
        match operation:
            case ("batch", level, back, length):
                first = max(0, self.sent[level] - back)
                some = self.items[level][first : first + length]
                if some:
                    self.say(of_items(some, level=level))
                    self.sent[level] = max(self.sent[level], first + len(some))
            case ("plain", level, told):
                self.say(decode_logs(level, json.dumps(self._item(None, level, told)).encode()))
            case ("beat", offset, (process, screen)):
                when = self.now + offset * SECOND
                self.say(Heartbeat(self.uuid, when, "mpv", 7, process, screen_health_status=screen))
            case ("health", offset, (process, screen)):
                self.say(
                    Health(self.now + offset * SECOND, None, None, "mpv", 7, process, screen, system={"load": [1]})
                )
            case ("on" | "off" as word,):
                self.say(Presence(word == "on"))
            case ("hello",):
                self.say(Hello("e", {}, "1"))
            case _:
                self._keep_house(*operation)

    def _keep_house(self, word: str, amount: int = 0) -> None:
        engine = self.fleet.engine
        if word == "silence":
            housekeeping.mark_offline(engine, timedelta(), self.now)
        elif word == "fold":
            housekeeping.fold_backlog(engine)
        elif word == "thin":
            self.pruned = True
            thin(engine)
        elif word == "count":
            housekeeping.count_out(engine, self.now + amount * SECOND)
        else:
            self.pruned = True
            housekeeping.prune(engine, SHORT, self.now + amount * SECOND)


_numbers = iter(range(1_000_000))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SCRIPT, OPERATIONS, st.sampled_from([1, 4, 2_000]))
def test_history_is_what_a_computation_from_scratch_says(
    fleet: Fleet, script: dict[LogLevel, list[Any]], operations: list[tuple[Any, ...]], most: int
) -> None:
    number = next(_numbers)
    # Behind all that the examples before have counted out.
    uuid, began = uuid_of(number), NOW + number * timedelta(minutes=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incident_store, "FOLD_EVENTS", most)
        patch.setattr(incident_store, "EVENTS_KEPT", 2)
        patch.setattr(housekeeping, "PAUSE_S", 0.0)
        play = Play(fleet, uuid, script, began)
        for operation in operations:
            play.step(operation)
            assert_issues_are_counted(fleet)
        housekeeping.fold_backlog(fleet.engine)
    assert fleet.rows("SELECT 1 FROM incident_backlog") == []
    if not fleet.rows("SELECT 1 FROM clients WHERE uuid = :uuid", uuid=uuid):
        return
    assert_incidents_are_the_fold(fleet, uuid)
    assert_spans_are_sound(fleet, uuid)
    if not play.pruned:
        kept = Counter(one.code for one in events(fleet, uuid) if not one.code.startswith("told."))
        logged = fleet.rows("SELECT code FROM client_logs WHERE client_uuid = :uuid AND code IS NOT NULL", uuid=uuid)
        assert kept == Counter(code for code in logged if code in CODES)


def test_several_doors_and_housekeeping_at_once_keep_one_history(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    monkeypatch.setattr(incident_store, "FOLD_EVENTS", 60)
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0.005)
    uuids = [UUID, OTHER]
    over = threading.Event()

    def door(level: LogLevel) -> None:
        rng = random.Random(f"{seed} {level}")
        with Fleet(fleet.url) as mine:
            for turn in range(40):
                arrivals = []
                for uuid in rng.sample(uuids, 2):
                    when = NOW + (rng.uniform(-90, 90) + turn) * SECOND
                    one = item(turn + 1, when, code=rng.choice([code for code in CODED[level] if code]))
                    arrivals.append(Arrival(uuid, of_items([one], level=level)))
                    beat = Heartbeat(uuid, NOW + turn * SECOND, "mpv", 7, rng.choice([*ProcessStatus]))
                    arrivals.append(Arrival(uuid, beat))
                ingest(mine.engine, arrivals, NOW + turn * SECOND, ALL, "mqtt")

    def keep_house() -> None:
        with Fleet(fleet.url) as mine:
            turn = 0
            while not over.is_set():
                turn += 1
                housekeeping.mark_offline(mine.engine, 2 * SECOND, NOW + turn * SECOND)
                housekeeping.fold_backlog(mine.engine)
                housekeeping.count_out(mine.engine, NOW + min(turn, 60) * SECOND)

    house = threading.Thread(target=keep_house)
    house.start()
    try:
        together(lambda: door(ERROR), lambda: door(WARN), lambda: door(INFO), within=90)
    finally:
        over.set()
        house.join(30)
    housekeeping.fold_backlog(fleet.engine)
    for uuid in uuids:
        assert len([one for one in events(fleet, uuid) if not one.code.startswith("told.")]) >= 80
        assert_incidents_are_the_fold(fleet, uuid)
        assert_spans_are_sound(fleet, uuid)
    assert_issues_are_counted(fleet)


# --- incidents --------------------------------------------------------------------------------------------------------


def record(seq: int, seconds: float, code: str, level: LogLevel = ERROR, **context: Any) -> Batch:
    return of_items([item(seq, NOW + seconds * SECOND, code=code, context=context)], level=level)


def test_lanes_that_come_one_after_the_other_make_the_same_incidents(fleet: Fleet) -> None:
    """A kiosk that was offline sends all its errors first: a day of crashes is one incident until the starts come."""
    crashes = [item(n, NOW - hours(n), code="player.crashed", message=f"crash {n}") for n in range(20, 0, -1)]
    starts = [item(n, NOW - hours(n) + SECOND, code="player.started") for n in range(20, 0, -1)]
    for lane in (crashes, starts):
        for seq, entry in enumerate(lane, 1):
            entry["seq"] = seq
    fleet.say(of_items(crashes, level=ERROR))
    (one,) = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert (one.began_at, one.ended_at, one.message) == (NOW - hours(20), None, "crash 20")
    before = rows(fleet, IncidentRow, UUID)[0].id
    fleet.say(of_items(starts[:10]))
    assert len(incidents(fleet, UUID, IncidentKind.PLAYER)) == 11
    fleet.say(of_items(starts[10:]))
    found = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert [one.message for one in found] == [f"crash {n}" for n in range(20, 0, -1)]
    assert {one.ended_at - one.began_at for one in found if one.ended_at} == {SECOND}
    assert min(row.id for row in rows(fleet, IncidentRow, UUID)) == before, "what began then keeps its number"


def test_duplicates_of_a_record_restart_nothing_twice(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.say(record(1, 0, "player.crashed"), record(1, 1, "player.restarting", INFO, restart=1))
    (one,) = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert one.restarts == 1
    assert len(events(fleet, UUID)) == 2


def test_a_report_of_a_death_that_comes_after_the_new_start_opens_nothing(fleet: Fleet) -> None:
    """Evidence is collected beside the restart: the record may be made when all is well again."""
    fleet.say(record(1, 0.01, "player.restarting", INFO, restart=1), record(2, 0.2, "player.started", INFO, pid=9))
    fleet.say(record(1, 1.5, "player.crashed", ERROR, pid=7, after_s=1.5))
    (one,) = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert (one.began_at, one.ended_at, one.restarts) == (NOW, NOW + 0.2 * SECOND, 1)


def test_a_record_that_is_not_wanted_is_no_event(fleet: Fleet) -> None:
    fleet.say(batch([1], level=LogLevel.DEBUG, code="player.crashed"), policy=Policy())
    assert events(fleet, UUID) == []


def test_a_simple_client_has_incidents_by_its_heartbeats(fleet: Fleet) -> None:
    for seconds, state, screen in (
        (0, "running", "OK"),
        (15, "crashed", "OK"),
        (30, "crashed", "BLACK"),
        (45, "running", "OK"),
    ):
        beat = Heartbeat(UUID, NOW + seconds * SECOND, "vlc", 1, ProcessStatus(state), None, ScreenHealthStatus(screen))
        fleet.say(beat, now=NOW + seconds * SECOND)
    fleet.say(Heartbeat(UUID, NOW + 20 * SECOND, "vlc", 1, ProcessStatus.CRASHED), now=NOW + 50 * SECOND)
    found = incidents(fleet, UUID, IncidentKind.PLAYER, IncidentKind.SCREEN)
    assert [(one.kind, one.began_at, one.ended_at) for one in found] == [
        ("player", NOW + 15 * SECOND, NOW + 45 * SECOND),
        ("screen", NOW + 30 * SECOND, NOW + 45 * SECOND),
    ]
    assert [state for state, _, _ in spans(fleet, UUID, "process")] == ["running", "crashed", "running"]


def test_several_states_in_one_transaction_are_all_told(fleet: Fleet) -> None:
    """What the broker kept while the server was away."""
    beats = [
        Heartbeat(UUID, NOW + 15 * n * SECOND, "vlc", 1, state)
        for n, state in enumerate([ProcessStatus.RUNNING, ProcessStatus.CRASHED, ProcessStatus.RUNNING])
    ]
    fleet.say(*beats, now=NOW + hours(1))
    assert len(spans(fleet, UUID, "process")) == 3
    (one,) = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert one.ended_at == NOW + 30 * SECOND


def test_too_many_events_for_one_ingest_are_left_to_housekeeping(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_store, "FOLD_EVENTS", 10)
    fleet.say(of_items([item(n, NOW + n * SECOND, code="player.crashed") for n in range(1, 9)], level=ERROR))
    assert len(incidents(fleet, UUID, IncidentKind.PLAYER)) == 1
    fleet.say(of_items([item(n, NOW + n * SECOND, code="player.crashed") for n in range(9, 15)], level=ERROR))
    assert fleet.rows("SELECT 1 FROM incident_backlog") == [], "what comes behind is added to what there is"
    fleet.say(record(1, 0.5, "player.crashed", WARN))
    fleet.say(record(2, -5, "player.crashed", WARN))
    assert incidents(fleet, UUID, IncidentKind.PLAYER)[0].began_at == NOW + SECOND
    assert housekeeping.fold_backlog(fleet.engine) == 1
    assert incidents(fleet, UUID, IncidentKind.PLAYER)[0].began_at == NOW - 5 * SECOND
    assert_incidents_are_the_fold(fleet, UUID)
    assert housekeeping.fold_backlog(fleet.engine) == 0


def test_the_events_of_an_endless_incident_are_bounded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is what a late record costs. A client that sends such records every second may do so for months."""
    monkeypatch.setattr(incident_store, "FOLD_EVENTS", 40)
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 20)
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0.0)
    codes = ["player.crashed", "player.restarting", "player.started"]
    fleet.say(record(1, -3600, "player.crashed", WARN), record(2, -3599, "player.started", WARN))
    thinning = Thinning()
    first = NOW - 500 * SECOND
    for start in (0, 150, 300):
        told = [item(n + 1, first + n * SECOND, code=codes[n % 3]) for n in range(start, start + 150)]
        fleet.say(of_items(told, base=start, level=ERROR))
        beat(fleet)
        thin(fleet.engine, thinning)
        assert len(events(fleet, UUID)) <= 40 + 10
    before, one = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert before.ended_at == NOW - 3599 * SECOND
    assert (one.began_at, one.ended_at, one.message) == (first, first + 449 * SECOND, "m1")
    assert (one.restarts, one.last_event_at) == (150, first + 449 * SECOND)
    assert_incidents_are_the_fold(fleet, UUID)
    for seq, seconds in enumerate((-2, 100.5, 446.5, 500), 1):
        fleet.say(record(seq, seconds - 500, "player.restarting", INFO))
        housekeeping.fold_backlog(fleet.engine)
    assert incidents(fleet, UUID, IncidentKind.PLAYER)[1].restarts == 151, "once when it was down"
    assert_incidents_are_the_fold(fleet, UUID)
    done = thinning.done or 0
    thin(fleet.engine, thinning)
    assert (thinning.done or 0) > done


def test_thinning_goes_on_later_where_there_is_much_of_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_store, "FOLD_EVENTS", 40)
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 20)
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0.0)
    monkeypatch.setattr(housekeeping, "THIN_S", 0.0)
    told = [item(n, NOW + (n - 500) * SECOND, code="player.crashed") for n in range(1, 151)]
    fleet.say(of_items(told, level=ERROR))
    beat(fleet)
    thinning = Thinning()
    thin(fleet.engine, thinning)
    assert thinning.done is None
    assert len(events(fleet, UUID)) == 150 - 38
    monkeypatch.setattr(housekeeping, "THIN_S", 60.0)
    thin(fleet.engine, thinning)
    assert thinning.done
    assert len(events(fleet, UUID)) < 40
    assert_incidents_are_the_fold(fleet, UUID)


def test_many_short_incidents_are_left_as_they_are(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 5)
    codes = ["player.crashed", "player.restarting", "player.started"]
    told = [item(n + 1, NOW + (n // 3 * 100 + n % 3 - 9000) * SECOND, code=codes[n % 3]) for n in range(90)]
    fleet.say(of_items(told, level=ERROR))
    beat(fleet)
    thin(fleet.engine)
    assert len(events(fleet, UUID)) == 90
    assert len(incidents(fleet, UUID, IncidentKind.PLAYER)) == 30


def away(fleet: Fleet) -> None:
    fleet.say(Presence(False))
    fleet.say(Presence(True))


def test_an_incident_whose_ends_are_still_on_the_kiosk_is_no_long_one(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends all its errors first: what they seem to be must not be made true by leaving some of them out."""
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 5)
    crashes = [item(21 - n, NOW - hours(n), code="player.crashed") for n in range(20, 0, -1)]
    starts = [item(21 - n, NOW - hours(n) + SECOND, code="player.started") for n in range(20, 0, -1)]
    thinning = Thinning()
    beat(fleet)
    away(fleet)
    fleet.say(of_items(crashes, level=ERROR))
    housekeeping.thin_incidents(fleet.engine, thinning, NOW)
    assert len(events(fleet, UUID)) == 20, "not before the kiosk had time to say what it holds"
    thin(fleet.engine)
    assert len(events(fleet, UUID)) == 20, "nor as long as it does not"
    fleet.say(Presence(False))
    thin(fleet.engine)
    assert len(events(fleet, UUID)) == 20, "nor while it is away again"
    fleet.say(Presence(True))
    beat(fleet, 20, NOW - hours(20) + SECOND)
    thin(fleet.engine)
    thin(fleet.engine, thinning)
    assert len(events(fleet, UUID)) == 20
    fleet.say(of_items(starts[:8]))
    beat(fleet, 12, NOW - hours(12) + SECOND)
    thin(fleet.engine)
    fleet.say(of_items(starts[8:], base=8))
    beat(fleet)
    thin(fleet.engine)
    found = incidents(fleet, UUID, IncidentKind.PLAYER)
    assert {one.ended_at - one.began_at for one in found if one.ended_at} == {SECOND}
    assert len(found) == 20
    # And one that is long is bounded all the same.
    more = [item(20 + n, NOW - 1800 * SECOND + n * SECOND, code="player.crashed") for n in range(1, 21)]
    fleet.say(of_items(more, base=20, level=ERROR))
    beat(fleet, 3, NOW - 1700 * SECOND)
    thin(fleet.engine)
    assert len(events(fleet, UUID)) < 40 + 12
    assert_incidents_are_the_fold(fleet, UUID)


@pytest.mark.parametrize("online", [True, False])
def test_a_kiosk_that_never_tells_what_it_holds_is_waited_for_a_week(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, online: bool
) -> None:
    """By HTTP come records alone."""
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 5)
    fleet.say(of_items([item(n, NOW + n * SECOND, code="player.crashed") for n in range(1, 21)], level=ERROR))
    fleet.say(Presence(online))
    thin(fleet.engine, now=NOW + timedelta(days=6))
    assert len(events(fleet, UUID)) == 20
    thin(fleet.engine, now=NOW + timedelta(days=8))
    assert len(events(fleet, UUID)) < 20


def test_the_oldest_that_a_kiosk_holds_may_be_of_any_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 5)
    fleet.say(of_items([item(n, NOW + n * SECOND, code="player.crashed") for n in range(1, 21)], level=ERROR))
    for year in (1, 9999):
        beat(fleet, 5, datetime(year, 1, 1, tzinfo=UTC))
        thin(fleet.engine)
    assert len(events(fleet, UUID)) < 20


def test_a_client_that_numbers_nothing_holds_nothing(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_store, "EVENTS_KEPT", 5)
    for number in range(1, 21):
        entry = {"timestamp": timestamp_text(NOW + number * SECOND), "message": "m", "code": "player.crashed"}
        fleet.say(decode_logs(ERROR, json.dumps(entry).encode()))
    thin(fleet.engine)
    assert len(events(fleet, UUID)) < 20


def test_offline_is_since_the_last_word(fleet: Fleet) -> None:
    fleet.say(Presence(True))
    fleet.say(batch([1]), now=NOW + 20 * SECOND)
    assert housekeeping.mark_offline(fleet.engine, 45 * SECOND, NOW + 70 * SECOND) == 1
    fleet.say(batch([2]), now=NOW + 100 * SECOND)
    assert spans(fleet, UUID, "link") == [
        ("online", NOW, NOW + 20 * SECOND),
        ("offline", NOW + 20 * SECOND, NOW + 100 * SECOND),
        ("online", NOW + 100 * SECOND, None),
    ]
    assert_spans_are_sound(fleet, UUID)
    fleet.say(Presence(False), now=NOW + 200 * SECOND)
    assert spans(fleet, UUID, "link")[-1] == ("offline", NOW + 100 * SECOND, None), "it was online for no time at all"
    assert_spans_are_sound(fleet, UUID)


@pytest.mark.parametrize("told", ["silence", "will"])
def test_a_state_that_changes_in_place_is_a_new_row(fleet: Fleet, told: str) -> None:
    """The live view looks for ids that it has not seen."""
    fleet.say(Heartbeat(UUID, NOW, "mpv", 1, ProcessStatus.RUNNING))
    highest = max(row.id for row in rows(fleet, StateSpan, UUID))
    if told == "silence":
        assert housekeeping.mark_offline(fleet.engine, 45 * SECOND, NOW + 60 * SECOND) == 1
    else:
        fleet.say(Presence(False), now=NOW + 60 * SECOND)
    (link,) = [row for row in rows(fleet, StateSpan, UUID) if row.kind == "link"]
    assert (link.state, link.began_at, link.ended_at) == ("offline", NOW, None)
    assert link.id > highest
    assert_spans_are_sound(fleet, UUID)
    assert incidents(fleet, UUID, IncidentKind.LINK)[0].began_at == NOW
    fleet.say(Presence(True), Presence(False), Presence(True), now=NOW)
    assert spans(fleet, UUID, "link") == [("online", NOW, None)]
    assert_spans_are_sound(fleet, UUID)


def test_a_state_that_changes_in_place_and_ends_at_once(fleet: Fleet) -> None:
    for second, state in ((0, "running"), (9, "stopped")):
        fleet.say(Heartbeat(UUID, NOW + second * SECOND, "mpv", 1, ProcessStatus(state)))
    highest = max(row.id for row in rows(fleet, StateSpan, UUID))
    fleet.say(
        Heartbeat(UUID, NOW + 9 * SECOND, "mpv", 1, ProcessStatus.CRASHED),
        Heartbeat(UUID, NOW + 10 * SECOND, "mpv", 1, ProcessStatus.RUNNING),
    )
    assert spans(fleet, UUID, "process") == [
        ("running", NOW, NOW + 9 * SECOND),
        ("crashed", NOW + 9 * SECOND, NOW + 10 * SECOND),
        ("running", NOW + 10 * SECOND, None),
    ]
    assert sum(row.id > highest for row in rows(fleet, StateSpan, UUID)) == 2
    assert_spans_are_sound(fleet, UUID)


def test_a_picture_is_a_sign_of_life(fleet: Fleet) -> None:
    fleet.say(Presence(True))
    fleet.say(Presence(False), now=NOW + SECOND)
    upload = Upload("a-picture", NOW, ScreenshotKind.PERIODIC, ScreenHealthStatus.OK, None, None, 8, 8, b"jpeg")
    screenshots.keep(fleet.engine, UUID, upload, NOW + 9 * SECOND, ALL)
    assert spans(fleet, UUID, "link")[-1] == ("online", NOW + 9 * SECOND, None)
    assert_spans_are_sound(fleet, UUID)


def test_prune_takes_an_incident_with_all_its_events_or_none(fleet: Fleet) -> None:
    keep = Policy(debug_mode=True, log_retention_days=10)
    day = 86_400
    old = [record(1, -9 * day, "player.crashed"), record(1, -9 * day + 5, "player.started", INFO)]
    lasting = [record(2, -8 * day, "screen.black"), record(2, -7 * day, "player.restarting", INFO)]
    fleet.say(*old, *lasting, Heartbeat(UUID, NOW, "mpv", 1, ProcessStatus.RUNNING), policy=keep)
    later = NOW + timedelta(days=5)
    fleet.say(Heartbeat(UUID, later, "mpv", 1, ProcessStatus.STOPPED), policy=keep, now=later)
    housekeeping.prune(fleet.engine, keep, later)
    assert [one.code for one in events(fleet, UUID)] == ["screen.black", "player.restarting"]
    assert [one.kind for one in incidents(fleet, UUID, *IncidentKind)] == ["screen"]
    assert_incidents_are_the_fold(fleet, UUID)
    housekeeping.prune(fleet.engine, keep, NOW + timedelta(days=16))
    assert [state for state, _, _ in spans(fleet, UUID, "process")] == ["stopped"]
    assert len(incidents(fleet, UUID, IncidentKind.SCREEN)) == 1, "it lasts"


def test_prune_leaves_what_overlaps_an_incident_that_lasts(fleet: Fleet) -> None:
    keep = Policy(debug_mode=True, log_retention_days=10)
    day = 86_400
    fleet.say(record(1, -9.5 * day, "player.exited", WARN), record(1, -9.4 * day, "player.started", INFO), policy=keep)
    fleet.say(record(1, -9 * day, "player.crashed"), record(2, -8 * day, "screen.black"), policy=keep)
    fleet.say(record(2, -7 * day, "player.started", INFO), policy=keep)
    housekeeping.prune(fleet.engine, keep, NOW + timedelta(days=5))
    assert [one.code for one in incidents(fleet, UUID, *IncidentKind)] == ["player.crashed", "screen.black"]
    assert_incidents_are_the_fold(fleet, UUID)
    fleet.say(record(3, 0, "screen.recovered", INFO), policy=keep)
    housekeeping.prune(fleet.engine, keep, NOW + timedelta(days=11))
    assert incidents(fleet, UUID, *IncidentKind) == []
    assert events(fleet, UUID) == []


# --- reads ------------------------------------------------------------------------------------------------------------


def test_a_restless_player_takes_no_other_state_off_the_picture(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_SPANS", 10)
    for number in range(30):
        when, status = NOW + number * SECOND, [ProcessStatus.RUNNING, ProcessStatus.CRASHED][number % 2]
        fleet.say(Heartbeat(UUID, when, "mpv", 1, status, screen_health_status=ScreenHealthStatus.OK), now=when)
    with fleet.engine.connect() as connection:
        found = history.timeline(
            connection, UUID, NOW - hours(1), NOW + hours(1), NOW + 60 * SECOND, retention=hours(24)
        )
    assert [len(found[kind]) for kind in ("link", "process", "screen")] == [1, 10, 1]
    assert [(each.state, each.began_at) for each in found["link"]] == [("online", NOW)]
    assert found["process"][-1].began_at == NOW + 29 * SECOND


def test_a_timeline_is_cut_to_its_window_and_knows_what_it_does_not_know(fleet: Fleet) -> None:
    beat = Heartbeat(UUID, NOW, "mpv", 1, ProcessStatus.RUNNING, None, ScreenHealthStatus.OK)
    fleet.say(beat)
    fleet.say(batch([1]), now=NOW + 60 * SECOND)
    housekeeping.mark_offline(fleet.engine, 45 * SECOND, NOW + 120 * SECOND)
    fleet.say(Heartbeat(UUID, NOW + 200 * SECOND, "mpv", 1, ProcessStatus.CRASHED), now=NOW + 200 * SECOND)
    with fleet.engine.connect() as connection:
        found = history.timeline(
            connection, UUID, NOW + 30 * SECOND, NOW + hours(1), NOW + 300 * SECOND, retention=hours(24)
        )

    def brief(kind: str) -> list[tuple[Any, ...]]:
        times = [((one.began_at - NOW) // SECOND, (one.ended_at - NOW) // SECOND) for one in found[kind]]
        words = [(one.state, one.known, one.lasting) for one in found[kind]]
        return [(state, *when, known, lasting) for (state, known, lasting), when in zip(words, times, strict=True)]

    assert brief("link") == [
        ("online", 30, 60, True, False),
        ("offline", 60, 200, True, False),
        ("online", 200, 300, True, True),
    ]
    assert brief("process") == [
        ("running", 30, 60, True, False),
        ("running", 60, 200, False, False),
        ("crashed", 200, 300, True, True),
    ]
    assert brief("screen")[-1] == ("OK", 200, 300, True, True)
    with fleet.engine.connect() as connection:
        nothing = history.timeline(connection, OTHER, NOW, NOW + hours(1), NOW + hours(1), retention=hours(24))
    assert nothing == {"link": [], "process": [], "screen": []}


def test_incidents_are_paged_newest_first(fleet: Fleet) -> None:
    for uuid in (UUID, OTHER):
        for n in range(4):
            fleet.say(
                record(n + 1, 100 * n, "player.crashed"),
                record(n + 1, 100 * n + 1, "player.started", INFO),
                uuid=uuid,
            )
    fleet.say(Presence(False), uuid=OTHER, now=NOW + 500 * SECOND)
    with fleet.engine.connect() as connection:
        seen, place = [], None
        while True:
            page = history.incidents_page(connection, limit=2, before=place)
            seen += page.incidents
            place = page.following
            if place is None:
                break
        mine = history.incidents_page(connection, UUID, limit=50, since=NOW + 150 * SECOND)
        links = history.incidents_page(connection, kinds=[IncidentKind.LINK], limit=50)
        lasting = history.open_incidents(connection)
    assert len(seen) == len({one["id"] for one in seen}) == 9
    assert [one["began_at"] for one in seen] == sorted((one["began_at"] for one in seen), reverse=True)
    assert [one["began_at"] for one in mine.incidents] == [NOW + 300 * SECOND, NOW + 200 * SECOND]
    assert [one["client_uuid"] for one in links.incidents] == [OTHER]
    assert [(one["client_uuid"], one["kind"]) for one in lasting] == [(OTHER, "link")]


def test_facts_are_sampled_every_five_minutes_and_kept_a_week(fleet: Fleet) -> None:
    fleet.say(Heartbeat(UUID, NOW, outbox_pending=12))
    base = datetime.fromtimestamp(NOW.timestamp() // 300 * 300, NOW.tzinfo)
    for seconds in (0, 60, 299, 300, 310):
        system = {"cpu_temperature": 40 + seconds / 10, "load": [0.5, 1, 2], "disk_free": 2**40, "memory_total": "lots"}
        when = base + seconds * SECOND
        fleet.say(Health(when, None, None, None, None, None, system=system), now=when)
    fleet.say(Health(base - hours(1), None, None, None, None, None, system={"load": 9}), now=base)
    fleet.say(Health(base + 900 * SECOND, None, None, None, None, None, system={"load": 1e999}), now=base)
    with fleet.engine.connect() as connection:
        found = facts.samples(connection, UUID, base)
    assert [one["at"] for one in found] == [base, base + 300 * SECOND], "neither an old word, nor one without a number"
    assert found[1] == {
        "at": base + 300 * SECOND,
        "cpu_temperature": 70.0,
        "load": 0.5,
        "memory_available": None,
        "memory_total": None,
        "disk_free": 2**40,
        "outbox_pending": 12,
    }
    housekeeping.prune(fleet.engine, ALL, base + timedelta(days=7, seconds=1))
    with fleet.engine.connect() as connection:
        assert [one["at"] for one in facts.samples(connection, UUID, base)] == [base + 300 * SECOND]


# --- issues -----------------------------------------------------------------------------------------------------------


def active(fleet: Fleet, now: datetime = NOW) -> list[dict[str, Any]]:
    with fleet.engine.connect() as connection:
        return issues.active_issues(connection, now)


def warnings(count: int, epoch: str, code: str = "screen.unseen") -> Batch:
    return of_items([item(n, code=code) for n in range(1, count + 1)], epoch=epoch, level=WARN)


def test_issues_are_errors_and_repeated_warnings_by_code(fleet: Fleet) -> None:
    fleet.say(record(1, 0, "player.crashed"), warnings(5, "a"), warnings(4, "b", "clock.stepped"))
    fleet.say(record(1, 5, "player.crashed"), of_items([item(1)], epoch="x", level=ERROR), uuid=OTHER)
    shown = [(one["level"], one["code"], one["clients"], one["records"]) for one in active(fleet)]
    assert shown == [("ERROR", "player.crashed", 2, 2), ("ERROR", "", 1, 1)]
    assert active(fleet)[0]["last_at"] == NOW + 5 * SECOND
    assert active(fleet)[0]["last_client"] == OTHER
    fleet.say(warnings(1, "c"), uuid=OTHER)
    assert [(one["code"], one["records"]) for one in active(fleet)][2:] == [("screen.unseen", 6)]
    with fleet.engine.connect() as connection:
        clients = issues.clients_of_issue(connection, Issue(WARN, "screen.unseen"), NOW)
    assert [(one["uuid"], one["records"]) for one in clients] == [(UUID, 5), (OTHER, 1)]


def test_what_stands_just_at_the_border_is_out_of_the_window(fleet: Fleet) -> None:
    later = NOW + hours(1)
    housekeeping.count_out(fleet.engine, later)
    border = later - hours(24)
    for seq, when in enumerate((border - SECOND, border, border + SECOND), 1):
        fleet.say(of_items([item(seq, when)], level=ERROR), now=later)
    assert fleet.rows("SELECT n FROM issue_counts") == [1]
    assert_issues_are_counted(fleet)


def test_an_acknowledgement_holds_until_another_client_shows_it(fleet: Fleet) -> None:
    issue = Issue(ERROR, "player.crashed")
    assert not issues.acknowledge(fleet.engine, issue, "which?", "ada", NOW)
    fleet.say(record(1, 0, "player.crashed"))
    assert issues.acknowledge(fleet.engine, issue, "first", "ada", NOW)
    assert issues.acknowledge(fleet.engine, issue, "known", "eve", NOW)
    assert active(fleet)[0]["acknowledgement"] == {"note": "known", "by": "eve", "at": NOW}
    fleet.say(record(2, 1, "player.crashed"))
    assert active(fleet)[0]["acknowledgement"] is not None, "the same client does not count as news"
    fleet.say(record(1, 2, "player.crashed"), uuid=OTHER)
    assert active(fleet)[0]["acknowledgement"] is None
    assert issues.unacknowledge(fleet.engine, issue)
    assert not issues.unacknowledge(fleet.engine, issue)


def test_an_acknowledgement_goes_with_its_issue(fleet: Fleet) -> None:
    fleet.say(record(1, 0, "player.crashed"))
    assert issues.acknowledge(fleet.engine, Issue(ERROR, "player.crashed"), "known", "ada", NOW)
    housekeeping.count_out(fleet.engine, NOW + hours(1))
    assert len(fleet.rows("SELECT 1 FROM acknowledgements")) == 1
    later = NOW + hours(24.5)
    assert active(fleet, later) == [], "also before housekeeping has counted it out"
    housekeeping.count_out(fleet.engine, later)
    assert fleet.rows("SELECT 1 FROM acknowledgements") == []
    assert fleet.rows("SELECT 1 FROM issue_counts") == []
    fleet.say(of_items([item(2, later, code="player.crashed")], level=ERROR), now=later)
    assert active(fleet, later)[0]["acknowledgement"] is None


def test_two_may_acknowledge_at_once(fleet: Fleet) -> None:
    fleet.say(record(1, 0, "player.crashed"))
    ready = threading.Barrier(2, timeout=30)

    def say(name: str) -> None:
        with Fleet(fleet.url, migrated=False) as mine:
            for _ in range(10):
                ready.wait()
                assert issues.acknowledge(mine.engine, Issue(ERROR, "player.crashed"), "known", name, NOW)
                ready.wait()
                issues.unacknowledge(mine.engine, Issue(ERROR, "player.crashed"))

    together(lambda: say("ada"), lambda: say("eve"), within=90)
