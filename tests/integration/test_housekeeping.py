"""Counters that stay exact while rows come and go, retention in small bites, and silence told from life."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select, update

from infoscreen_server import db, housekeeping, screenshots
from infoscreen_server.config import ServerConfig
from infoscreen_server.housekeeping import Hearing
from infoscreen_server.models import Lane, ScreenshotKind
from infoscreen_server.models_history import Incident
from infoscreen_server.screenshots import Upload
from infoscreen_server.store import Arrival, Policy, Presence, ingest
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus
from parts.fleet import ALL, NOW, OTHER, UUID, Fleet, batch, hours, item, of_items, uuid_of
from parts.postgres import Postgres
from parts.wait import wait_for

DAY = timedelta(days=1)
SILENCE = timedelta(seconds=45)
BREATH_S = 0.005
"""Between two transactions of a busy door: SQLite's lock is not handed on in turn, so one that never rests keeps it."""


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as made:
        yield made


def counter(fleet: Fleet) -> list[tuple[str, int, int]]:
    return fleet.rows("SELECT client_uuid, info, error FROM counters ORDER BY client_uuid")


def test_the_window_slides_and_takes_out_what_it_leaves(fleet: Fleet) -> None:
    times = [NOW - hours(23), NOW - hours(12), NOW - hours(1)]
    fleet.say(of_items([item(n, when) for n, when in enumerate(times, 1)]), batch([1], level=LogLevel.ERROR))
    assert counter(fleet) == [(UUID, 3, 1)]
    for later, left in ((hours(0.5), 3), (hours(2), 2), (hours(13), 1), (hours(23.5), 0)):
        housekeeping.count_out(fleet.engine, NOW + later)
        assert counter(fleet)[0][1] == left
        assert fleet.counters_agree()
    assert counter(fleet) == [(UUID, 0, 1)]


def test_rows_older_than_the_window_are_never_counted(fleet: Fleet) -> None:
    later = NOW + hours(1)
    housekeeping.count_out(fleet.engine, later)
    times = later - DAY, later - DAY + timedelta(microseconds=1)
    fleet.say(of_items([item(n, when) for n, when in enumerate(times, 1)]), now=later)
    assert counter(fleet) == [(UUID, 1, 0)]
    assert fleet.counters_agree()
    assert fleet.daily_agrees()


def test_the_mark_never_goes_back(fleet: Fleet) -> None:
    housekeeping.count_out(fleet.engine, NOW + DAY)
    before = fleet.one("SELECT counted_out_to FROM counter_mark")
    housekeeping.count_out(fleet.engine, NOW)
    assert fleet.one("SELECT counted_out_to FROM counter_mark") == before


def test_counting_in_and_out_at_once_stays_exact(fleet: Fleet) -> None:
    """Rows on both sides of a mark that moves all the time, from two doors."""
    housekeeping.count_out(fleet.engine, NOW)
    failures: list[BaseException] = []
    over = threading.Event()
    steps = dict.fromkeys((UUID, OTHER), 0)

    def door(uuid: str) -> None:
        try:
            with Fleet(fleet.url) as mine:
                for step in range(40):
                    steps[uuid] = step
                    times = [NOW - DAY + timedelta(seconds=60 * step + offset) for offset in (0, 20, 59, 61, 90)]
                    records = of_items([item(5 * step + n, when) for n, when in enumerate(times, 1)])
                    ingest(mine.engine, [Arrival(uuid, records)], NOW, ALL, "mqtt")
                    over.wait(BREATH_S)
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failures.append(error)

    doors = [threading.Thread(target=door, args=(uuid,)) for uuid in (UUID, OTHER)]
    for thread in doors:
        thread.start()
    with Fleet(fleet.url) as mine:
        while any(thread.is_alive() for thread in doors):
            housekeeping.count_out(mine.engine, NOW + timedelta(minutes=min(steps.values()), seconds=30))
    assert not failures
    assert fleet.account() == (400, 400, 0, 0, 0)
    assert fleet.counters_agree()
    housekeeping.count_out(fleet.engine, NOW + DAY)
    assert fleet.rows("SELECT info FROM counters") == [0, 0]


def test_prune_takes_what_is_too_old_and_nothing_else(fleet: Fleet) -> None:
    keep = Policy(debug_mode=True, log_retention_days=10)
    for number in range(3):
        times = [NOW - timedelta(days=day) for day in (9, 6, 3, 0)]
        fleet.say(of_items([item(n, when) for n, when in enumerate(times, 1)]), uuid=uuid_of(number), policy=keep)
    fleet.say(of_items([{"seq": 1}], epoch="dead"), policy=keep)
    later = NOW + timedelta(days=5)
    fleet.say(batch([1], epoch="young"), policy=keep, now=later)
    assert housekeeping.prune(fleet.engine, keep, later) == 6
    assert sorted(fleet.messages()) == sorted(["m3", "m4"] * 3 + ["m1"])
    assert len(fleet.rows("SELECT 1 FROM dead_letters")) == 1
    assert fleet.counters_agree()


def test_prune_takes_lanes_and_gaps_nobody_speaks_of_any_more(fleet: Fleet) -> None:
    keep = Policy(debug_mode=True, log_retention_days=10)
    fleet.say(batch([5], base=4, epoch="old"), of_items([{"seq": 1}], epoch="old", level=LogLevel.WARN), policy=keep)
    later = NOW + timedelta(days=11)
    fleet.say(batch([3], base=2, epoch="new"), policy=keep, now=later)
    housekeeping.prune(fleet.engine, keep, later)
    assert fleet.rows("SELECT epoch FROM lanes") == ["new"]
    assert fleet.rows("SELECT last FROM gaps") == [2]
    assert fleet.rows("SELECT 1 FROM dead_letters") == []


def add_pictures(fleet: Fleet, kind: ScreenshotKind, numbers: range, uuid: str = UUID) -> None:
    """One for each number: so many days old when taken and received."""
    generous = Policy(periodic_screenshots_kept=1000, incident_screenshots_kept=1000, log_retention_days=3650)
    for number in numbers:
        when = NOW - timedelta(days=number)
        upload = Upload(f"{kind}-{number}", when, kind, ScreenHealthStatus.OK, None, None, 8, 8, b"jpeg")
        assert screenshots.keep(fleet.engine, uuid, upload, when, generous)


def pictures(fleet: Fleet, uuid: str = UUID) -> list[str]:
    return fleet.rows("SELECT upload_id FROM screenshots WHERE client_uuid = :uuid ORDER BY 1", uuid=uuid)


def test_prune_takes_pictures_that_are_too_old_or_too_many(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bites of two, so that several are needed. What is too old goes however few there are."""
    monkeypatch.setattr(screenshots, "CHUNK_ROWS", 2)
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0.0)
    add_pictures(fleet, ScreenshotKind.PERIODIC, range(9))
    add_pictures(fleet, ScreenshotKind.INCIDENT, range(9))
    add_pictures(fleet, ScreenshotKind.PERIODIC, range(4, 9), OTHER)
    keep = Policy(log_retention_days=6, periodic_screenshots_kept=2, incident_screenshots_kept=5)
    assert housekeeping.prune(fleet.engine, keep, NOW, stopped()) == 0
    assert len(pictures(fleet)) == 18
    housekeeping.prune(fleet.engine, keep, NOW)
    assert pictures(fleet) == [*[f"incident-{number}" for number in range(5)], "periodic-0", "periodic-1"]
    assert pictures(fleet, OTHER) == ["periodic-4", "periodic-5"]


def test_a_row_that_is_renewed_meanwhile_is_not_deleted(postgres: Postgres) -> None:
    """Ingest holds an old lane, for which the deletion waits, and commits that it was heard of just now."""
    old = Lane.last_seen < NOW + SILENCE
    with Fleet(postgres.new_database()) as fleet:
        for epoch in ("silent", "renewed"):
            fleet.say(batch([1], epoch=epoch))
        deleted: list[int] = []

        def tidy() -> None:
            with db.writing(fleet.engine) as mine:
                deleted.append(db.delete_some(mine, Lane, old, 10))

        pruning = threading.Thread(target=tidy)
        with db.writing(fleet.engine) as connection:
            connection.execute(update(Lane).where(Lane.epoch == "renewed").values(last_seen=NOW + DAY))
            pruning.start()
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            wait_for(lambda: fleet.rows(waits), "the deletion waits for ingest")
        pruning.join(30)
        assert deleted == [1]
        assert fleet.rows("SELECT epoch FROM lanes") == ["renewed"]


def test_uploads_and_prune_at_once_do_not_hold_each_other_up(fleet: Fleet) -> None:
    few = Policy(log_retention_days=3, periodic_screenshots_kept=2, incident_screenshots_kept=2)
    over = threading.Event()
    failures: list[BaseException] = []

    def tidy() -> None:
        try:
            with Fleet(fleet.url) as mine:
                while not over.is_set():
                    housekeeping.prune(mine.engine, few, NOW)
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failures.append(error)

    pruning = threading.Thread(target=tidy)
    pruning.start()
    try:
        for turn in range(5):
            add_pictures(fleet, ScreenshotKind.PERIODIC, range(20 * turn, 20 * turn + 20))
            upload = Upload(f"live-{turn}", NOW, ScreenshotKind.PERIODIC, ScreenHealthStatus.OK, None, None, 8, 8, b"j")
            assert screenshots.keep(fleet.engine, UUID, upload, NOW, few)
    finally:
        over.set()
        pruning.join(30)
    assert not failures
    housekeeping.prune(fleet.engine, few, NOW)
    assert pictures(fleet) == ["live-3", "live-4"]


def test_prune_goes_in_bites_and_stops_when_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "CHUNK_ROWS", 10)
    for number in range(4):
        fleet.say(batch(range(1, 26)), uuid=uuid_of(number))
    later = NOW + timedelta(days=100)
    assert housekeeping.prune(fleet.engine, ALL, later, stopped()) == 0
    assert housekeeping.prune(fleet.engine, ALL, later) == 100
    assert fleet.messages() == []


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_ingest_waits_only_a_moment_for_a_large_prune(fleet: Fleet) -> None:
    for first in range(1, 10_001, 500):
        fleet.say(batch(range(first, first + 500)))
    later = NOW + timedelta(days=100)
    pruned: list[int] = []
    pruning = threading.Thread(target=lambda: pruned.append(housekeeping.prune(fleet.engine, ALL, later)))
    pruning.start()
    slowest = 0.0
    with Fleet(fleet.url) as mine:
        number = 0
        while pruning.is_alive():
            number += 1
            before = time.perf_counter()
            mine.say(of_items([item(number, later)], epoch="live"), now=later)
            slowest = max(slowest, time.perf_counter() - before)
            pruning.join(BREATH_S)
    assert pruned == [10_000]
    assert number > 3, "ingest went on meanwhile"
    assert slowest < 2.0


def test_a_client_that_fell_silent_is_offline(fleet: Fleet) -> None:
    fleet.say(Presence(True))
    fleet.say(Presence(True), uuid=OTHER, now=NOW + timedelta(seconds=30))
    silence = timedelta(seconds=45)
    assert housekeeping.mark_offline(fleet.engine, silence, NOW + timedelta(seconds=45)) == 0
    assert housekeeping.mark_offline(fleet.engine, silence, NOW + timedelta(seconds=46)) == 1
    assert fleet.rows("SELECT uuid FROM clients WHERE online") == [OTHER]
    assert housekeeping.mark_offline(fleet.engine, silence, NOW + timedelta(seconds=46)) == 0


def look(hearing: Hearing, seconds: float, online: int = 0, silent: int = 0) -> bool:
    """Every 5 s up to then; the last answer."""
    answer = False
    at = NOW if hearing.looked_at is None else hearing.looked_at + timedelta(seconds=5)
    while at <= NOW + timedelta(seconds=seconds):
        answer = hearing.proves(at, online, silent)
        at += timedelta(seconds=5)
    return answer


def test_no_silence_proves_anything_until_the_server_has_listened_for_so_long() -> None:
    hearing = Hearing(SILENCE, by_broker=True)
    assert not look(hearing, 0, 3, 1)
    assert not look(hearing, 40, 3, 1)
    assert look(hearing, 45, 3, 1)


@pytest.mark.parametrize("gap", [180, -3600])
def test_a_server_that_was_asleep_or_whose_clock_was_set_begins_anew(gap: int) -> None:
    hearing = Hearing(SILENCE, by_broker=False)
    assert look(hearing, 100)
    after = NOW + timedelta(seconds=100 + gap)
    assert [hearing.proves(after + timedelta(seconds=5 * n), 9, 9) for n in range(10)] == [False] * 9 + [True]


@pytest.mark.parametrize(
    ("online", "silent", "doubted"),
    [
        (1000, 1000, True),
        (1000, 501, True),
        (1000, 500, False),
        (8, 5, True),
        (7, 4, False),
        (2, 2, True),
        (2, 1, False),
        (1, 1, False),
        (0, 0, False),
    ],
)
def test_many_that_fall_silent_at_once_are_not_so_many_deaths(online: int, silent: int, doubted: bool) -> None:
    hearing = Hearing(SILENCE, by_broker=True)
    assert look(hearing, 100, 1000, 3)
    assert look(hearing, 600, online, silent) is not doubted
    if doubted:
        assert not look(hearing, 640, 1000, 3), "ingest is back, and reads what the broker kept"
        assert look(hearing, 645, 1000, 3)
        assert not look(hearing, 700, online, silent)
        assert look(hearing, 700 + 31 * 60, online, silent), "not for ever"
        look(hearing, 3000, online, 0)
        assert not look(hearing, 3100, online, silent)


def test_beats_that_come_together_are_no_doubt_without_an_end() -> None:
    """Kiosks that tell every 30 s, all at once: by turns all of them seem silent, and none but the one that is dead."""
    hearing = Hearing(SILENCE, by_broker=True)
    proved = [
        seconds
        for seconds in range(0, 3 * 3600, 5)
        if hearing.proves(NOW + timedelta(seconds=seconds), 3, 3 if seconds % 30 == 25 else 1)
    ]
    assert proved
    assert proved[0] <= 31 * 60
    assert max(after - before for before, after in pairwise(proved)) <= 32 * 60


def test_without_a_broker_a_site_may_fall_silent_at_once() -> None:
    hearing = Hearing(SILENCE, by_broker=False)
    look(hearing, 100, 9, 0)
    assert look(hearing, 105, 9, 9)


def test_after_a_stop_of_the_server_only_what_stays_silent_is_offline(tmp_path: Path) -> None:
    """The first look comes before ingest has read a message. Back to the last word all the same."""
    url = f"sqlite:///{tmp_path}/server.db"
    before = datetime.now(UTC) - timedelta(minutes=3)
    with Fleet(url) as fleet:
        for number in range(6):
            fleet.say(Presence(True), uuid=uuid_of(number), now=before)
        stop = threading.Event()
        config = ServerConfig(database_url=url, heartbeat_seconds=1)
        loop = threading.Thread(target=housekeeping.run_housekeeping, args=(config, stop))
        loop.start()
        try:
            wait_for(lambda: fleet.rows("SELECT 1 FROM ingest_samples"), "it has looked once")
            assert fleet.rows("SELECT 1 FROM incidents") == []
            for number in range(5):
                fleet.say(Presence(True), uuid=uuid_of(number), now=datetime.now(UTC) + timedelta(minutes=1))
            wait_for(lambda: fleet.rows("SELECT 1 FROM clients WHERE NOT online"), "the dead one is offline")
        finally:
            stop.set()
            loop.join(5)
        assert fleet.rows("SELECT client_uuid, kind FROM incidents") == [(uuid_of(5), "link")]
        with fleet.engine.connect() as connection:
            assert connection.scalars(select(Incident.began_at)).all() == [before]


def test_the_loop_works_and_ends_when_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/server.db"
    with Fleet(url) as fleet:
        fleet.say(batch([1]), now=NOW - timedelta(days=200))
        stop = threading.Event()
        config = ServerConfig(database_url=url, heartbeat_seconds=1)
        loop = threading.Thread(target=housekeeping.run_housekeeping, args=(config, stop))
        loop.start()
        try:
            wait_for(lambda: fleet.rows("SELECT 1 FROM lanes") == [], "old lanes are gone")
            wait_for(lambda: fleet.rows("SELECT uuid FROM clients WHERE online") == [], "the silent one is offline")
        finally:
            stop.set()
            loop.join(5)
        assert not loop.is_alive()


def test_the_loop_outlives_a_database_without_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/server.db"
    stop = threading.Event()
    codes: list[int] = []
    config = ServerConfig(database_url=url)
    loop = threading.Thread(target=lambda: codes.append(housekeeping.run_housekeeping(config, stop)))
    loop.start()
    wait_for((tmp_path / "server.db").exists, "it has looked at the database")
    assert loop.is_alive()
    stop.set()
    loop.join(5)
    assert codes == [0]
    assert db.head()
