"""Rounds of evaluation on what kiosks said, with the time in the test's hand: what fires, and what ends."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from infoscreen_server.alerts import evaluate, outbox, world
from infoscreen_server.i18n import gettext, speaking
from infoscreen_server.models import time_text
from infoscreen_server.models_alerts import AlertMark
from infoscreen_server.store import Presence
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus
from parts.figures import Figure
from parts.fleet import item, of_items, uuid_of
from parts.watch import LONG, MINUTE, STEP, Watch

OK, BLACK, FROZEN, UNKNOWN = (
    ScreenHealthStatus.OK,
    ScreenHealthStatus.BLACK,
    ScreenHealthStatus.FROZEN,
    ScreenHealthStatus.UNKNOWN,
)
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)


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


def test_an_outage_says_what_is_silent(watch: Watch) -> None:
    watch.start(*range(5), site="Linz")
    watch.start(*range(5, 8), site="Graz")
    watch.start(*range(8, 20))
    watch.lose(*range(9))
    watch.turn(3 * MINUTE)
    first, *lines = watch.one("SELECT body FROM alert_messages").splitlines()
    assert re.fullmatch(r"Since \d{4}-\d\d-\d\d \d\d:\d\d UTC. 9 of 20 screens", first)
    assert lines[:4] == ["Linz: 5 screens", "Graz: 3 screens", "Screen 8", ""]
    watch.show(OK, *range(9))
    watch.turn(5 * MINUTE)
    recovered = watch.rows("SELECT body FROM alert_messages ORDER BY id")[1]
    assert recovered.startswith("For ")
    assert "Linz" not in recovered


def test_a_reminder_of_an_outage_says_what_is_silent_now(watch: Watch) -> None:
    watch.rule("outage", repeat=1200)
    watch.rule("offline", enabled=False)
    watch.start(*range(5), site="Linz")
    watch.start(*range(5, 8), site="Graz")
    watch.start(*range(8, 12))
    watch.lose(*range(8))
    watch.turn(3 * MINUTE)
    watch.show(OK, *range(5))
    watch.turn(20 * MINUTE, LONG)
    assert watch.heads() == ["ALERT", "STILL"]
    body = watch.rows("SELECT body FROM alert_messages ORDER BY id")[1]
    assert "3 of 12 screens\nGraz: 3 screens\n\n" in body


def test_an_outage_that_lasts_keeps_nobody_quiet_for_ever(watch: Watch) -> None:
    watch.start(*range(5), site="Linz")
    watch.start(*range(5, 12), site="Graz")
    watch.lose(*range(5))
    watch.turn(35 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    watch.turn(10 * MINUTE, LONG)
    assert watch.titles()[1:] == ["ALERT 5 screens, Linz: offline [#2-1]"]
    # And what comes hours later, while it still lasts: now it is the broker.
    watch.turn(HOUR, LONG)
    watch.lose(*range(5, 12))
    watch.turn(35 * MINUTE, LONG)
    assert len(watch.titles()) == 2
    watch.turn(10 * MINUTE, LONG)
    assert watch.titles()[2:] == ["ALERT 7 screens, Graz: offline [#7-1]"]
    watch.show(OK, *range(12))
    watch.turn(5 * MINUTE)
    assert sorted(watch.heads()[3:]) == ["RECOVERED"] * 3
    assert watch.unsettled() == 0


def test_a_few_that_fail_while_an_outage_lasts_are_no_part_of_it(watch: Watch) -> None:
    watch.start(*range(5), site="Linz")
    watch.start(*range(5, 12), site="Graz")
    watch.lose(*range(5))
    watch.turn(45 * MINUTE, LONG)
    assert len(watch.titles()) == 2
    watch.lose(5, 6)
    watch.turn(12 * MINUTE)
    assert watch.titles()[2:] == ["ALERT 2 screens, Graz: offline [#7-1]"]


def test_two_that_do_not_come_back_after_a_power_cut_are_named(watch: Watch) -> None:
    watch.start(*range(10), site="Linz")
    watch.lose(*range(10))
    watch.turn(5 * MINUTE)
    watch.show(OK, *range(2, 10))
    watch.turn(40 * MINUTE, LONG)
    assert watch.heads() == ["ALERT", "ALERT"], "the outage is not over: it is more than half of 30 % of them"
    assert watch.titles()[1] == "ALERT 2 screens, Linz: offline [#2-1]"
    bodies = watch.rows("SELECT body FROM alert_messages ORDER BY id")
    assert bodies[1].startswith("Screen 0: since")


def test_an_outage_is_no_sooner_told_of_because_the_server_was_away(watch: Watch) -> None:
    watch.start(*range(20))
    watch.lose(*range(8))
    watch.now += 2 * HOUR
    # For 40 s the server hears nothing that proves anything; from there the hold of a minute counts.
    watch.turn(90 * SECOND)
    assert watch.titles() == []
    watch.turn(20 * SECOND)
    assert watch.heads() == ["ALERT"]
    began = watch.one("SELECT body FROM alert_messages").splitlines()[0]
    assert f"{watch.now - 2 * HOUR - 3 * MINUTE:%H:}" in began, "it began before"


def test_no_outage_if_they_are_there_again_soon_after_the_server(watch: Watch) -> None:
    watch.start(*range(20))
    watch.lose(*range(8))
    watch.now += 2 * HOUR
    watch.turn(MINUTE)
    watch.show(OK, *range(8))
    watch.turn(5 * MINUTE)
    assert watch.titles() == []


def test_an_outage_that_lasts_is_not_over_because_the_server_was_away(watch: Watch) -> None:
    watch.start(*range(20))
    watch.lose(*range(8))
    watch.turn(5 * MINUTE)
    watch.now += 10 * MINUTE
    watch.restart()
    watch.turn(5 * MINUTE)
    assert watch.heads() == ["ALERT"]
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


def test_a_line_that_breaks_again_and_again_hides_no_black_screen(watch: Watch) -> None:
    watch.start(1, 2)
    for _ in range(3):
        watch.show(BLACK, 1)
        watch.turn(220 * SECOND)
        watch.lose(1)
        watch.say(Presence(online=False), uuid=uuid_of(1), now=watch.now)
        watch.turn(20 * SECOND)
    assert watch.titles() == ["ALERT Screen 1: picture wrong [#1-1]"]


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


@pytest.mark.parametrize("ago", [5 * HOUR, timedelta(days=3), timedelta(days=400)])
def test_dropped_records_are_told_of_when_the_server_hears_of_them(watch: Watch, ago: timedelta) -> None:
    """They are dropped while nobody can be told; of more than a day ago they are no issue any more."""
    watch.start(1)
    line = item(1, watch.now - ago, code="buffer.dropped", message="The outbox dropped 7 INFO records")
    watch.say(of_items([line], level=LogLevel.WARN), uuid=uuid_of(1), now=watch.now)
    watch.turn(MINUTE)
    assert watch.titles() == ["ALERT Screen 1: records dropped [#1-1]"]
    assert "The outbox dropped 7 INFO records" in watch.one("SELECT body FROM alert_messages")
    # Told twice, it is the same; and it ends a window after the last word of it.
    watch.say(of_items([line], level=LogLevel.WARN), uuid=uuid_of(1), now=watch.now)
    watch.turn(13 * MINUTE, LONG)
    line["seq"] = 2
    watch.say(of_items([line], level=LogLevel.WARN), uuid=uuid_of(1), now=watch.now)
    watch.turn(14 * MINUTE, LONG)
    assert len(watch.titles()) == 1
    watch.turn(2 * MINUTE, LONG)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: no more records dropped [#1-2]"]


# --- a clock that is set back -----------------------------------------------------------------------------------------

steps = pytest.mark.parametrize("ahead", [2 * HOUR, timedelta(days=3)])


def set_back(watch: Watch, ahead: timedelta) -> None:
    watch.now -= ahead
    # The kiosks' own clocks were right all along.
    watch.run("UPDATE clients SET state_at = NULL")


def mark_of(watch: Watch) -> tuple[datetime | None, datetime | None]:
    with watch.engine.connect() as connection:
        row = connection.execute(select(AlertMark.evaluated_at, AlertMark.deaf_until)).one()
    return row.evaluated_at, row.deaf_until


@steps
def test_a_clock_that_was_ahead_at_boot_makes_nobody_deaf(watch: Watch, ahead: timedelta) -> None:
    watch.start(*range(20))
    watch.now += ahead
    evaluate.round(watch.engine, watch.config, watch.now)
    watch.now -= ahead
    watch.turn(MINUTE)
    watch.lose(1)
    watch.turn(11 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]"]
    watch.lose(*range(2, 10))
    watch.turn(3 * MINUTE)
    assert "many screens fell silent" in watch.titles()[1]


@steps
def test_a_clock_that_is_set_back_makes_the_server_deaf_for_a_moment(watch: Watch, ahead: timedelta) -> None:
    watch.start(*range(20))
    watch.now -= ahead
    evaluate.round(watch.engine, watch.config, watch.now)
    assert mark_of(watch) == (watch.now, watch.now + world.deaf_time(watch.config))


def test_a_mark_that_is_a_little_ahead_is_another_server_s(watch: Watch) -> None:
    watch.start(1)
    before = mark_of(watch)
    watch.now -= 30 * SECOND
    evaluate.round(watch.engine, watch.config, watch.now)
    assert mark_of(watch) == (watch.now, before[1])


def test_deaf_for_longer_than_is_ever_written_is_not_deaf(watch: Watch) -> None:
    watch.start(1, 2, 3)
    with watch.engine.connect() as connection:
        until = watch.now + world.deaf_time(watch.config)
        for time_, deaf in ((until, True), (until + SECOND, False)):
            watch.run(f"UPDATE alert_mark SET deaf_until = '{time_text(time_)}'")
            assert world.read(connection, watch.config, watch.now).deaf is deaf
            connection.rollback()


@steps
def test_what_waits_waits_no_longer_when_the_clock_is_set_back(watch: Watch, ahead: timedelta) -> None:
    watch.start(1, 2)
    watch.show(BLACK, 1)
    watch.turn(4 * MINUTE)
    set_back(watch, ahead)
    watch.turn(6 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: picture wrong [#1-1]"]
    watch.show(OK, 1)
    watch.turn(MINUTE)
    set_back(watch, ahead)
    watch.turn(3 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: picture right again [#1-2]"]


@steps
def test_what_was_told_before_the_clock_was_set_back_holds_up_nothing(watch: Watch, ahead: timedelta) -> None:
    """Times of firing, telling and ending that are ahead now: the group's next word comes in time all the same."""
    watch.start(1, 2, 3, site="Linz")
    watch.show(BLACK, 1)
    watch.turn(MINUTE)
    watch.show(BLACK, 2)
    watch.turn(330 * SECOND)
    assert watch.heads() == ["ALERT"]
    set_back(watch, ahead)
    watch.turn(6 * MINUTE)
    assert watch.titles()[1:] == ["ALERT Screen 2, Linz: picture wrong [#2-1]"]
    watch.show(OK, 1)
    watch.turn(3 * MINUTE)
    watch.show(OK, 2)
    watch.turn(150 * SECOND)
    set_back(watch, ahead)
    watch.turn(8 * MINUTE)
    assert watch.heads()[2:] == ["RECOVERED"] * 2
    assert watch.unsettled() == 0


@steps
def test_a_message_that_is_due_further_ahead_than_any_is_due(watch: Watch, ahead: timedelta) -> None:
    watch.start(1, 2)
    watch.show(BLACK, 1)
    watch.turn(6 * MINUTE)
    (claim,) = outbox.claim(watch.engine, "a", watch.now, (), 4)
    for due, taken in ((outbox.LAST_RETRY, 0), (ahead, 1)):
        watch.run(f"UPDATE alert_messages SET due_at = '{time_text(watch.now + due)}'")
        assert len(outbox.claim(watch.engine, "b", watch.now, (), 4)) == taken
    assert claim.attempt == 1


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
    assert watch.tidied() == (2, 4, 0), "a reminder every 12 hours is still to be sent"
    watch.turn(timedelta(hours=12), timedelta(minutes=5))
    watch.show(OK, 2)
    watch.turn(15 * MINUTE)
    assert watch.titles()[-1].endswith("[#1-6]")
    assert watch.unsettled() == 0
    assert watch.tidied() == (1, 4, 0)
    watch.run("UPDATE alert_messages SET status = 'sent', due_at = NULL")
    watch.turn(timedelta(days=1), timedelta(minutes=5))
    assert watch.tidied() == (0, 0, 0)


def test_the_end_of_what_lasted_longer_than_anything_is_kept_is_told(watch: Watch) -> None:
    watch.config = replace(watch.config, log_retention_days=1)
    watch.rule("outage", enabled=False)
    watch.rule("offline", repeat=0)
    watch.start(1, 2)
    watch.lose(1)
    watch.turn(15 * MINUTE)
    watch.run("UPDATE alert_messages SET status = 'sent', due_at = NULL")
    watch.turn(timedelta(days=2), HOUR)
    assert watch.tidied() == (1, 1, 0)
    watch.show(OK, 1)
    watch.turn(5 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]", "RECOVERED Screen 1: online again [#1-2]"]
    watch.run("UPDATE alert_messages SET status = 'sent', due_at = NULL")
    watch.turn(timedelta(days=1), HOUR)
    assert watch.tidied() == (0, 0, 0)
