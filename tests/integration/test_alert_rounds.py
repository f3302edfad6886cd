"""Rounds of evaluation on what kiosks said, with the time in the test's hand: what fires, and what ends."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from infoscreen_server.alerts import evaluate
from infoscreen_server.i18n import gettext, speaking
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus
from parts.figures import Figure
from parts.fleet import uuid_of
from parts.watch import LONG, MINUTE, STEP, Watch

OK, BLACK, FROZEN, UNKNOWN = (
    ScreenHealthStatus.OK,
    ScreenHealthStatus.BLACK,
    ScreenHealthStatus.FROZEN,
    ScreenHealthStatus.UNKNOWN,
)


@pytest.fixture
def watch(database_url: str) -> Iterator[Watch]:
    with Watch(database_url, public_url="https://screens.example.org") as running:
        yield running


def test_offline_is_told_once_and_so_is_its_end(watch: Watch) -> None:
    watch.start(1, 2, 3)
    watch.lose(1)
    watch.turn(9 * MINUTE)
    assert watch.titles() == []
    watch.turn(2 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]"]
    watch.turn(20 * MINUTE)
    watch.show(OK, 1)
    watch.turn(3 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]", "RECOVERED Screen 1: online again [#1-2]"]
    bodies = watch.rows("SELECT body FROM alert_messages ORDER BY id")
    assert f"https://screens.example.org/clients/{uuid_of(1)}" in bodies[0]
    assert "for 3" in bodies[1]
    watch.turn(20 * MINUTE, LONG)
    assert len(watch.titles()) == 2


def test_one_that_was_never_heard_of_is_not_offline(watch: Watch) -> None:
    watch.start(1)
    watch.record(9, LogLevel.INFO, "x.y")
    watch.run("UPDATE clients SET last_alive = NULL, online = false WHERE name IS NULL")
    watch.turn(30 * MINUTE, LONG)
    assert watch.titles() == []


def test_a_site_that_goes_dark_is_one_message(watch: Watch) -> None:
    watch.rule("outage", enabled=False)
    watch.start(*range(40), site="Linz")
    watch.start(*range(40, 100))
    for number in range(40):
        watch.lose(number)
        if number % 20 == 19:
            watch.turn(STEP)
    watch.turn(13 * MINUTE)
    assert watch.titles() == ["ALERT 40 screens, Linz: offline [#1-1]"]
    watch.show(OK, *range(40))
    watch.turn(5 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED 40 screens, Linz: online again [#1-2]"]


def test_when_many_fall_silent_it_is_the_server(watch: Watch) -> None:
    watch.start(*range(20))
    watch.lose(*range(8))
    watch.turn(15 * MINUTE)
    (title,) = watch.titles()
    assert title.startswith("ALERT All screens: many screens fell silent at once")
    watch.show(OK, *range(8))
    watch.turn(5 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]


def test_a_server_that_was_away_does_not_blame_the_screens(watch: Watch) -> None:
    watch.start(1, 2, 3)
    watch.now += timedelta(hours=2)
    watch.turn(10 * MINUTE)
    assert watch.titles() == []


def test_black_and_frozen(watch: Watch) -> None:
    watch.start(1, 2)
    watch.show(BLACK, 1)
    watch.turn(4 * MINUTE)
    assert watch.titles() == []
    watch.turn(2 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: picture wrong [#1-1]"]
    # That it cannot be seen is no recovery.
    watch.show(UNKNOWN, 1)
    watch.turn(10 * MINUTE)
    assert len(watch.titles()) == 1
    watch.show(OK, 1)
    watch.turn(3 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: picture right again [#1-2]"]


def test_errors_have_two_thresholds(watch: Watch) -> None:
    watch.start(1)
    watch.record(1, LogLevel.ERROR, "x.failed", 10)
    watch.turn(MINUTE)
    assert watch.titles() == []
    watch.record(1, LogLevel.ERROR, "x.failed", 1)
    watch.turn(MINUTE)
    assert watch.titles() == ["ALERT Screen 1: many errors [#1-1]"]
    watch.turn(10 * MINUTE)
    watch.record(1, LogLevel.ERROR, "x.failed", 5)
    watch.turn(10 * MINUTE)
    assert len(watch.titles()) == 1, "five are more than the two below which it is over"
    watch.turn(10 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: no longer many errors [#1-2]"]


def test_what_is_black_and_then_offline_is_not_well(watch: Watch) -> None:
    watch.start(1, 2)
    watch.show(FROZEN, 1)
    watch.turn(6 * MINUTE)
    watch.lose(1)
    watch.turn(12 * MINUTE, LONG)
    assert watch.titles() == ["ALERT Screen 1: picture wrong [#1-1]", "ALERT Screen 1: offline [#2-1]"]
    watch.show(FROZEN, 1)
    watch.turn(3 * MINUTE)
    assert watch.titles()[2:] == ["RECOVERED Screen 1: online again [#2-2]"]


def test_a_crash_loop_and_its_end(watch: Watch) -> None:
    watch.rule("errors", enabled=False)
    watch.start(1)
    for _ in range(4):
        assert watch.titles() == []
        watch.record(1, LogLevel.ERROR, "player.crashed")
        watch.turn(MINUTE)
    assert watch.titles() == ["ALERT Screen 1: player crashes again and again [#1-1]"]
    watch.turn(13 * MINUTE, LONG)
    assert len(watch.titles()) == 1, "it ends when there was none in the window"
    watch.turn(4 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: player steady again [#1-2]"]


def test_a_player_that_is_given_up_is_a_crash_loop_until_it_is_back(watch: Watch) -> None:
    watch.rule("errors", enabled=False)
    watch.start(1)
    watch.crashed.add(uuid_of(1))
    watch.record(1, LogLevel.ERROR, "player.crashed")
    watch.record(1, LogLevel.ERROR, "player.gave_up")
    watch.turn(STEP)
    assert watch.titles() == ["ALERT Screen 1: player crashes again and again [#1-1]"]
    watch.turn(40 * MINUTE, LONG)
    assert len(watch.titles()) == 1, "long after the window it is still down"
    watch.crashed.clear()
    watch.record(1, LogLevel.INFO, "player.started")
    watch.turn(STEP)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: player steady again [#1-2]"]
    watch.record(1, LogLevel.ERROR, "player.crashed")
    watch.record(1, LogLevel.INFO, "player.started")
    watch.turn(MINUTE)
    assert len(watch.titles()) == 2, "what was given up once is not so for ever"


def test_dropped_records(watch: Watch) -> None:
    watch.start(1)
    watch.record(1, LogLevel.WARN, "buffer.dropped")
    watch.turn(MINUTE)
    assert watch.titles() == ["ALERT Screen 1: records dropped [#1-1]"]
    assert "buffer.dropped" in watch.one("SELECT body FROM alert_messages")
    watch.turn(15 * MINUTE, LONG)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: no more records dropped [#1-2]"]


def test_german_and_names_that_try_to_be_headers(database_url: str) -> None:
    with Watch(database_url, language="de") as watch:
        watch.start(1, 2, 3, 4, 5, 6)
        watch.run("UPDATE clients SET name = 'Halle\r\nBcc: all@example.org' WHERE name = 'Screen 1'")
        watch.lose(1)
        watch.turn(12 * MINUTE)
        (title,) = watch.titles()
        assert "Halle Bcc: all@example.org" in title
        with speaking("de"):
            assert title.startswith(gettext("ALERT") + " ")
            assert gettext("offline") in title


def test_the_number_of_queries_does_not_grow_with_the_fleet(watch: Watch) -> None:
    seen: list[str] = []
    watch.rule("outage", enabled=False)
    event.listen(watch.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    numbers = []
    for first, last in ((0, 5), (5, 60)):
        watch.start(*range(first, last), tag="x")
        for number in range(first, last):
            watch.record(number, LogLevel.ERROR, "player.crashed", 4)
        watch.show(BLACK, *range(first, last))
        watch.beat()
        seen.clear()
        evaluate.round(watch.engine, watch.config, watch.now)
        numbers.append(len(seen))
    assert numbers[1] <= numbers[0], seen
    assert watch.one("SELECT count(*) FROM alerts") == 60


def test_a_round_reads_neither_the_log_nor_all_incidents(tmp_path: Path) -> None:
    """On SQLite, whose planner goes by rules as long as nobody gathers statistics."""
    with Watch(f"sqlite:///{tmp_path / 'server.db'}") as watch:
        watch.start(1, 2)
        plans: list[str] = []

        def explain(connection: Any, _cursor: object, statement: str, values: Any, *_: object) -> None:
            if statement.startswith("SELECT"):
                driver = connection.connection.driver_connection
                plans.extend(row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", values))

        event.listen(watch.engine, "before_cursor_execute", explain)
        watch.turn(STEP)
        assert any("ix_client_logs_client_uuid_level_timestamp_id" in each for each in plans)
        large = ("client_logs", "incidents", "incident_events", "alerts", "alert_messages")
        assert [each for each in plans if each.startswith("SCAN") and each.split()[1] in large] == []


def test_a_round_over_a_thousand_screens(watch: Watch, figure: Figure) -> None:
    """At its worst: all of them change at once."""
    watch.rule("outage", enabled=False)
    for first in range(0, 1000, 250):
        watch.show(OK, *range(first, first + 250))
        watch.beat()
    watch.turn(STEP)
    kind = watch.engine.dialect.name
    begun = time.perf_counter()
    watch.now += STEP
    assert evaluate.round(watch.engine, watch.config, watch.now) == 0
    figure(f"alerts, a quiet round over 1,000 screens, {kind}", f"{(time.perf_counter() - begun) * 1000:.0f} ms")
    watch.rule("screen", hold=0)
    watch.show(BLACK, *range(1000))
    watch.beat()
    begun = time.perf_counter()
    assert evaluate.round(watch.engine, watch.config, watch.now) == 1
    figure(f"alerts, a round in which 1,000 fire, {kind}", f"{(time.perf_counter() - begun) * 1000:.0f} ms")
    assert watch.one("SELECT count(*) FROM alert_states") == 1000
    body = watch.one("SELECT body FROM alert_messages")
    assert body.count("since") == 20
    assert "980 more" in body


def test_what_is_settled_goes_when_it_is_old(watch: Watch) -> None:
    """The first of a group stays while another of it is open: its messages are counted on."""
    watch.config = replace(watch.config, log_retention_days=1)
    watch.rule("outage", enabled=False)
    watch.start(1, 2, 3, 4, site="Linz")
    watch.silence("all", "", MINUTE)
    watch.lose(1, 2)
    watch.turn(15 * MINUTE)
    watch.show(OK, 1)
    watch.turn(15 * MINUTE)
    assert watch.unsettled() == 1
    watch.run("UPDATE alert_messages SET status = 'sent', due_at = NULL")
    watch.turn(timedelta(days=1), timedelta(minutes=5))
    assert watch.tidied() == (2, 2, 0), "a reminder every 12 hours is still to be sent"
    watch.turn(timedelta(hours=12), timedelta(minutes=5))
    watch.show(OK, 2)
    watch.turn(15 * MINUTE)
    assert watch.titles()[-1].endswith("[#1-6]")
    assert watch.unsettled() == 0
    assert watch.tidied() == (1, 4, 0)
    watch.run("UPDATE alert_messages SET status = 'sent', due_at = NULL")
    watch.turn(timedelta(days=1), timedelta(minutes=5))
    assert watch.tidied() == (0, 0, 0)
