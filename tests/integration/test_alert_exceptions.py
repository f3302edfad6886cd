"""Rounds of evaluation when something stands in the way: silences, hours, rules that change, restarts, company."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, select

from infoscreen_server import db
from infoscreen_server.alerts import evaluate
from infoscreen_server.alerts.tell import tell
from infoscreen_server.db import writing
from infoscreen_server.models import ClientTag
from infoscreen_server.models_alerts import AlertChannel, AlertRule, AlertRuleChannel
from infoscreen_shared.messages import ScreenHealthStatus
from parts.fleet import uuid_of
from parts.watch import LONG, MINUTE, STEP, Watch

OK, BLACK = ScreenHealthStatus.OK, ScreenHealthStatus.BLACK
HOUR = timedelta(hours=1)
OFFLINE = "ALERT Screen 1: offline [#1-1]"


@pytest.fixture
def watch(database_url: str) -> Iterator[Watch]:
    with Watch(database_url) as running:
        yield running


def test_a_silence_keeps_quiet_and_forgets_nothing(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6)
    watch.silence("client", uuid_of(1), HOUR)
    watch.lose(1)
    watch.turn(50 * MINUTE, LONG)
    assert watch.titles() == []
    assert watch.one("SELECT count(*) FROM alerts") == 1
    watch.turn(15 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE]


def test_what_comes_and_goes_under_a_silence_is_recorded_only(watch: Watch) -> None:
    watch.start(1, 2, site="Linz")
    watch.silence("site", "Linz", HOUR)
    watch.show(BLACK, 1)
    watch.turn(10 * MINUTE, LONG)
    watch.show(OK, 1)
    watch.turn(65 * MINUTE, LONG)
    assert watch.titles() == []
    assert watch.rows("SELECT 1 FROM alerts WHERE ended_at IS NOT NULL AND closed_at IS NOT NULL") == [1]


# --- opening hours ----------------------------------------------------------------------------------------------------


def test_outside_opening_hours_nothing_fires(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6, tag="school")
    opens = (watch.now + HOUR).replace(second=0, microsecond=0)
    watch.open_daily("school", opens, opens + 8 * HOUR)
    watch.lose(1)
    watch.turn(30 * MINUTE, LONG)
    assert watch.titles() == []
    watch.turn(opens - watch.now + 8 * MINUTE, LONG)
    assert watch.titles() == [], "ten minutes of open time have to go by"
    watch.turn(4 * MINUTE)
    assert watch.titles() == [OFFLINE]


@pytest.mark.parametrize("weekly", [False, True])
def test_what_comes_out_of_a_silence_at_night_is_told_of_in_the_morning(watch: Watch, weekly: bool) -> None:
    watch.rule("outage", enabled=False)
    watch.start(1, 2, 3, tag="shop")
    closes = (watch.now + 30 * MINUTE).replace(second=0, microsecond=0)
    watch.open_daily("shop", closes + HOUR, closes)
    watch.silence("client", uuid_of(1), 45 * MINUTE)
    if weekly:
        begin, end = (each.hour * 60 + each.minute for each in (watch.now, watch.now + 45 * MINUTE))
        watch.run(f"UPDATE alert_silences SET ends_at = NULL, zone = 'UTC', week = '{[[[begin, end]]] * 7}'")
    watch.lose(1, 2)
    watch.turn(closes - watch.now + 55 * MINUTE, LONG)
    assert watch.titles() == ["ALERT Screen 2: offline [#2-1]"]
    assert watch.one("SELECT count(*) FROM alerts") == 2
    watch.turn(10 * MINUTE, LONG)
    assert watch.titles()[1:] == [OFFLINE]


def test_screens_that_are_off_for_the_night_are_no_outage(watch: Watch) -> None:
    watch.start(*range(20), tag="school")
    watch.start(*range(20, 30))
    closes = (watch.now + 5 * MINUTE).replace(second=0, microsecond=0)
    watch.open_daily("school", closes - 8 * HOUR, closes)
    watch.turn(closes - watch.now + MINUTE)
    watch.lose(*range(20))
    watch.turn(15 * MINUTE, LONG)
    assert watch.titles() == []
    # And of those that never close five of ten are one.
    watch.lose(*range(20, 25))
    watch.turn(15 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    assert "5 of 10 screens" in watch.one("SELECT body FROM alert_messages")


def test_an_outage_is_not_over_because_places_close(watch: Watch) -> None:
    watch.start(*range(10), tag="school")
    watch.start(*range(10, 20))
    closes = (watch.now + 10 * MINUTE).replace(second=0, microsecond=0)
    watch.open_daily("school", closes - 8 * HOUR, closes)
    watch.lose(*range(8))
    watch.turn(5 * MINUTE)
    assert watch.heads() == ["ALERT"]
    watch.turn(20 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    watch.show(OK, *range(8))
    watch.turn(3 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]


def test_what_is_switched_off_for_the_night_makes_no_outage_last(watch: Watch) -> None:
    watch.start(*range(8))
    watch.start(*range(8, 20), tag="school")
    closes = (watch.now + 10 * MINUTE).replace(second=0, microsecond=0)
    watch.open_daily("school", closes - 8 * HOUR, closes)
    watch.lose(*range(8))
    watch.turn(5 * MINUTE)
    assert watch.heads() == ["ALERT"]
    watch.turn(closes - watch.now + MINUTE)
    watch.lose(*range(8, 20))
    watch.turn(3 * MINUTE)
    watch.show(OK, *range(8))
    watch.turn(5 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]


def server_is_away(watch: Watch) -> None:
    """For a moment, as at an upgrade."""
    watch.now += timedelta(seconds=90)


@pytest.mark.parametrize("away", [False, True])
def test_a_new_day_is_no_outage(watch: Watch, away: bool) -> None:
    """Screens are switched off before the place closes and on when it opens, and take their time to start."""
    watch.start(*range(12), tag="school")
    closes = (watch.now + 10 * MINUTE).replace(second=0, microsecond=0)
    opens = closes + 40 * MINUTE
    watch.open_daily("school", opens, closes)
    watch.turn(closes - watch.now - 3 * STEP)
    watch.lose(*range(12))
    watch.turn(opens - watch.now - 5 * MINUTE, LONG)
    if away:
        server_is_away(watch)
    watch.turn(opens - watch.now + timedelta(seconds=80))
    watch.show(OK, *range(12))
    watch.turn(3 * MINUTE)
    assert watch.titles() == []


def test_an_outage_is_over_although_its_place_has_closed(watch: Watch) -> None:
    """Some were switched off meanwhile, and all the others do not count any more."""
    watch.start(*range(20), tag="school")
    closes = (watch.now + 10 * MINUTE).replace(second=0, microsecond=0)
    watch.open_daily("school", closes - 8 * HOUR, closes)
    watch.lose(*range(20))
    watch.turn(closes - watch.now + 10 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    watch.show(OK, *range(17))
    watch.turn(5 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]


@pytest.mark.parametrize("others", ["closed", "silenced"])
def test_an_outage_of_those_that_count_lasts_although_others_are_there(watch: Watch, others: str) -> None:
    watch.start(*range(24), site="Linz", tag="school")
    watch.start(*range(24, 34))
    if others == "closed":
        closes = (watch.now + 5 * MINUTE).replace(second=0, microsecond=0)
        watch.open_daily("school", closes - 8 * HOUR, closes)
        watch.turn(closes - watch.now + MINUTE)
    else:
        watch.silence("site", "Linz", HOUR)
    watch.lose(*range(24, 29))
    watch.turn(9 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    watch.show(OK, *range(24, 29))
    watch.turn(4 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]


# --- silences and outages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["site", "tag", "all"])
def test_silenced_screens_are_no_outage(watch: Watch, scope: str) -> None:
    watch.start(*range(12), site="Linz", tag="hall")
    watch.start(*range(12, 30))
    watch.silence(scope, {"site": "Linz", "tag": "hall"}.get(scope, ""), HOUR)
    watch.lose(*range(12))
    watch.turn(50 * MINUTE, LONG)
    assert watch.titles() == []
    # Of the others six of eighteen are one, whatever those do.
    watch.lose(*range(12, 18))
    watch.turn(3 * MINUTE)
    assert watch.heads() == ([] if scope == "all" else ["ALERT"])


@pytest.mark.parametrize("away", [False, True])
def test_what_went_dark_under_a_silence_is_no_outage_when_it_ends(watch: Watch, away: bool) -> None:
    watch.start(*range(12), site="Linz")
    watch.start(*range(12, 30))
    watch.silence("site", "Linz", 45 * MINUTE)
    watch.lose(*range(12))
    watch.turn(55 * MINUTE, LONG)
    if away:
        server_is_away(watch)
    watch.turn(10 * MINUTE, LONG)
    assert watch.titles() == ["ALERT 12 screens, Linz: offline [#1-1]"]


def test_an_outage_is_not_over_because_someone_silences_it(watch: Watch) -> None:
    watch.start(*range(12), site="Linz")
    watch.start(*range(12, 30))
    watch.lose(*range(12))
    watch.turn(3 * MINUTE)
    watch.silence("site", "Linz", HOUR)
    watch.turn(10 * MINUTE)
    assert watch.heads() == ["ALERT"]
    watch.show(OK, *range(12))
    watch.turn(3 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]


def test_a_silence_over_all_screens_leaves_an_outage_one_message(watch: Watch) -> None:
    watch.start(*range(12), site="Linz")
    watch.silence("all", "", 10 * MINUTE)
    watch.lose(*range(12))
    watch.turn(20 * MINUTE)
    assert watch.heads() == ["ALERT"]
    assert watch.titles()[0].startswith("ALERT All screens")


# --- a server that was away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", [20, 120])
def test_what_fell_silent_while_the_server_was_away_is_an_outage_after_two_restarts_too(
    watch: Watch, back: int
) -> None:
    """It is back for a moment, and starts anew once more before anything could be told."""
    watch.rule("outage", hold=150)
    watch.start(*range(10), site="Linz")
    watch.lose(*range(10))
    watch.now += HOUR
    watch.turn(timedelta(seconds=back))
    server_is_away(watch)
    watch.turn(6 * MINUTE)
    (title,) = watch.titles()
    assert title.startswith("ALERT All screens")


def test_after_the_clock_was_set_back_no_silence_counts_twice(watch: Watch) -> None:
    watch.rule("outage", hold=2100)
    watch.start(*range(12), site="Linz")
    watch.now -= 3 * HOUR
    watch.turn(5 * MINUTE)
    watch.lose(*range(6))
    watch.turn(40 * MINUTE, LONG)
    assert "ALERT All screens" in " ".join(watch.titles())


# --- on and off -------------------------------------------------------------------------------------------------------


def test_on_and_off_is_said_once(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0)
    watch.start(1)
    for _ in range(8):
        watch.show(BLACK, 1)
        watch.turn(2 * MINUTE, LONG)
        watch.show(OK, 1)
        watch.turn(2 * MINUTE, LONG)
    heads = watch.heads()
    assert heads == ["ALERT", "RECOVERED", "ALERT", "RECOVERED", "ALERT", "FLAPPING"]
    watch.turn(35 * MINUTE, LONG)
    assert watch.heads() == [*heads, "STEADY"]
    assert watch.unsettled() == 0
    watch.turn(40 * MINUTE, LONG)
    assert watch.rows("SELECT 1 FROM alert_states") == [], "after an hour nothing of it matters any more"


def test_what_still_holds_when_it_is_steady_goes_on_under_its_number(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0)
    watch.start(1)
    for _ in range(4):
        watch.show(BLACK, 1)
        watch.turn(2 * MINUTE, LONG)
        watch.show(OK, 1)
        watch.turn(2 * MINUTE, LONG)
    watch.show(BLACK, 1)
    watch.turn(35 * MINUTE, LONG)
    watch.show(OK, 1)
    watch.turn(6 * MINUTE)
    assert watch.heads()[-3:] == ["FLAPPING", "STEADY", "RECOVERED"]
    numbers = [title.rpartition("[#")[2] for title in watch.titles()[-3:]]
    assert [number.partition("-")[2] for number in numbers] == ["1]", "2]", "3]"]
    assert len({number.partition("-")[0] for number in numbers}) == 1
    assert watch.unsettled() == 0


def test_a_reminder_after_a_while(watch: Watch) -> None:
    watch.rule("offline", repeat=3600)
    watch.start(1, 2, 3, 4, 5, 6)
    watch.lose(1)
    watch.turn(68 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    watch.turn(70 * MINUTE, LONG)
    assert watch.heads() == ["ALERT", "STILL", "STILL"]


def test_a_reminder_waits_for_nobody_else(watch: Watch) -> None:
    watch.rule("outage", enabled=False)
    watch.rule("offline", repeat=3600)
    watch.start(1, 2, 3)
    watch.lose(1)
    watch.turn(50 * MINUTE, LONG)
    watch.lose(2)
    watch.turn(25 * MINUTE, LONG)
    assert watch.heads() == ["ALERT", "ALERT", "STILL"]
    assert watch.titles()[2] == "STILL 2 screens: offline [#1-2]"


# --- one screen, several alerts ---------------------------------------------------------------------------------------


def test_the_last_word_after_a_silence_is_that_it_is_gone_again(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6)
    watch.lose(1)
    watch.turn(12 * MINUTE, LONG)
    watch.silence("client", uuid_of(1), HOUR)
    watch.show(OK, 1)
    watch.turn(5 * MINUTE)
    watch.lose(1)
    watch.turn(50 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE]
    watch.turn(10 * MINUTE, LONG)
    back = "RECOVERED Screen 1: online again [#1-2]"
    assert watch.titles() == [OFFLINE, back, "ALERT Screen 1: offline [#2-1]"]
    assert len(set(watch.rows("SELECT created_at FROM alert_messages WHERE number = 2 OR alert_id = 2"))) == 1


def test_the_last_word_while_others_fire_is_that_it_is_wrong_again(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0)
    watch.start(1, 2, 3, site="Linz")
    watch.show(BLACK, 1, 2, 3)
    watch.turn(MINUTE)
    watch.show(OK, 3)
    watch.turn(MINUTE)
    watch.show(OK, 1)
    watch.turn(MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]
    watch.show(BLACK, 1)
    watch.turn(10 * MINUTE)
    assert [title.partition(":")[0] for title in watch.titles()] == [
        "ALERT 3 screens, Linz",
        "RECOVERED Screen 3, Linz",
        "RECOVERED Screen 1, Linz",
        "ALERT Screen 1, Linz",
    ]


def flap(watch: Watch, *numbers: int, times: int = 4, black: timedelta = 2 * MINUTE) -> None:
    for _ in range(times):
        watch.show(BLACK, *numbers)
        watch.turn(black, LONG)
        watch.show(OK, *numbers)
        watch.turn(2 * MINUTE, LONG)


def test_flapping_under_a_silence_takes_no_end_away(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0)
    watch.start(1)
    watch.show(BLACK, 1)
    watch.turn(MINUTE)
    watch.silence("client", uuid_of(1), 70 * MINUTE)
    flap(watch, 1)
    watch.turn(45 * MINUTE, LONG)
    assert watch.heads() == ["ALERT"]
    assert watch.rows("SELECT 1 FROM alerts WHERE flapping AND closed_at IS NOT NULL") == [1]
    watch.turn(10 * MINUTE, LONG)
    assert watch.heads() == ["ALERT", "RECOVERED"]
    assert watch.unsettled() == 0


def test_one_that_comes_and_goes_for_long_is_reminded_of(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0, repeat=3600)
    watch.start(1)
    flap(watch, 1, times=17, black=8 * MINUTE)
    heads = watch.heads()
    assert heads[heads.index("FLAPPING") :] == ["FLAPPING", "STILL", "STILL"]
    line = watch.rows("SELECT body FROM alert_messages ORDER BY id")[-1].splitlines()[0]
    assert line.startswith("Screen 1: since ")
    assert ". On and off" in line


def test_a_site_that_flaps_is_one_message(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0)
    watch.start(*range(22), site="Linz")
    flap(watch, *range(22))
    watch.show(BLACK, *range(22))
    watch.turn(35 * MINUTE, LONG)
    flapping, steady = watch.titles()[-2:]
    assert flapping.startswith("FLAPPING 22 screens, Linz: picture wrong, on and off")
    assert steady.startswith("STEADY 22 screens, Linz: no longer on and off")
    assert "Screen 19, … and 2 more" in watch.rows("SELECT body FROM alert_messages ORDER BY id")[-1]
    watch.show(OK, *range(22))
    watch.turn(6 * MINUTE)
    assert watch.heads()[-3:] == ["FLAPPING", "STEADY", "RECOVERED"]
    assert watch.unsettled() == 0


# --- rules and channels that change -----------------------------------------------------------------------------------


def take_away(watch: Watch, what: str) -> None:
    with writing(watch.engine) as connection:
        if what == "rule":
            connection.execute(delete(AlertRule).where(AlertRule.kind == "offline"))
        elif what == "tag":
            connection.execute(delete(ClientTag).where(ClientTag.client_uuid == uuid_of(1)))
    if what == "off":
        watch.rule("offline", enabled=False)


@pytest.mark.parametrize("what", ["off", "rule", "tag"])
def test_what_a_rule_is_no_longer_about_ends_without_a_word(watch: Watch, what: str) -> None:
    watch.start(1, 2, 3, 4, 5, 6, tag="x")
    watch.rule("offline", tag="x")
    watch.lose(1)
    watch.turn(12 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE]
    take_away(watch, what)
    watch.turn(MINUTE)
    assert watch.unsettled() == 0
    assert watch.rows("SELECT 1 FROM alert_states") == []
    watch.show(OK, 1)
    watch.turn(5 * MINUTE)
    assert watch.titles() == [OFFLINE]
    if what == "off":
        watch.rule("offline", enabled=True)
        watch.lose(1)
        watch.turn(12 * MINUTE, LONG)
        assert watch.titles() == [OFFLINE, "ALERT Screen 1: offline [#2-1]"]


def test_a_rule_with_a_tag_is_about_nobody_else(watch: Watch) -> None:
    watch.start(1, tag="x")
    watch.start(2, 3)
    watch.rule("offline", tag="x")
    watch.lose(1, 2)
    watch.turn(12 * MINUTE, LONG)
    assert watch.titles() == [OFFLINE]


def test_without_a_channel_it_is_recorded_all_the_same(watch: Watch) -> None:
    with writing(watch.engine) as connection:
        connection.execute(delete(AlertChannel))
    watch.start(1, 2)
    watch.show(BLACK, 1)
    watch.turn(6 * MINUTE)
    assert watch.rows("SELECT announced_by FROM alerts") == [1]
    # One that comes now does not hear of the end of what it never heard of.
    watch.channel("new")
    watch.show(OK, 1)
    watch.turn(3 * MINUTE)
    assert watch.unsettled() == 0
    assert watch.titles() == []


def choose(watch: Watch, kind: str, *names: str) -> None:
    """Of a rule only these channels."""
    with writing(watch.engine) as connection:
        rule = connection.execute(select(AlertRule.id).where(AlertRule.kind == kind)).scalar_one()
        connection.execute(delete(AlertRuleChannel).where(AlertRuleChannel.rule_id == rule))
        for name in names:
            channel = connection.execute(select(AlertChannel.id).where(AlertChannel.name == name)).scalar_one()
            connection.execute(insert(AlertRuleChannel).values(rule_id=rule, channel_id=channel))


def test_who_heard_of_the_beginning_hears_of_the_end(watch: Watch) -> None:
    watch.channel("night")
    watch.start(1)
    choose(watch, "screen", "ops")
    watch.show(BLACK, 1)
    watch.turn(6 * MINUTE)
    choose(watch, "screen", "night")
    watch.show(OK, 1)
    watch.turn(6 * MINUTE)
    assert watch.heads() == ["ALERT", "RECOVERED"]
    assert watch.rows("SELECT DISTINCT channel_name FROM alert_messages") == ["ops"]


def test_a_message_for_each_channel_of_the_rule(watch: Watch) -> None:
    watch.channel("night")
    watch.channel("boss")
    choose(watch, "screen", "night", "boss")
    watch.start(1, 2)
    watch.show(BLACK, 1)
    watch.turn(6 * MINUTE)
    watch.lose(2)
    watch.turn(12 * MINUTE, LONG)
    found = watch.rows("SELECT alert_id, number, channel_name FROM alert_messages ORDER BY alert_id, channel_name")
    assert found == [(1, 1, "boss"), (1, 1, "night"), (2, 1, "boss"), (2, 1, "night"), (2, 1, "ops")]
    states = watch.rows("SELECT DISTINCT status, attempts FROM alert_messages WHERE due_at = created_at")
    assert states == [("pending", 0)]


# --- restarts and company ---------------------------------------------------------------------------------------------


def story(watch: Watch, between: Any) -> list[str]:
    """All sorts of things, `between` them after every round."""

    def turn(span: timedelta) -> None:
        end = watch.now + span
        while watch.now < end:
            watch.turn(LONG, LONG)
            between()

    watch.rule("screen", hold=60, keep=60)
    watch.start(*range(1, 9), site="Linz")
    watch.silence("client", uuid_of(3), 20 * MINUTE)
    for number in (1, 2, 3):
        watch.show(BLACK, number)
        turn(MINUTE)
    watch.lose(4, 5)
    turn(14 * MINUTE)
    for _ in range(4):
        watch.show(OK, 1)
        turn(3 * MINUTE)
        watch.show(BLACK, 1)
        turn(3 * MINUTE)
    watch.show(OK, *range(1, 9))
    turn(45 * MINUTE)
    return watch.titles()


def test_a_restart_after_every_round_changes_nothing(database_url: str, tmp_path: Any) -> None:
    with Watch(f"sqlite:///{tmp_path / 'other.db'}") as undisturbed:
        expected = story(undisturbed, lambda: None)
        assert undisturbed.unsettled() == 0
    assert {"ALERT", "RECOVERED", "FLAPPING", "STEADY"} == {title.partition(" ")[0] for title in expected}
    with Watch(database_url) as watch:
        assert story(watch, watch.restart) == expected


def test_a_round_that_breaks_off_is_done_by_the_next(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    watch.start(1, 2, 3, 4, 5, 6)
    watch.lose(1)
    watch.turn(9 * MINUTE, LONG)

    def dies(*args: Any) -> int:
        if tell(*args):
            raise MemoryError
        return 0

    monkeypatch.setattr(evaluate, "tell", dies)
    with pytest.raises(MemoryError):
        watch.turn(3 * MINUTE, LONG)
    assert watch.rows("SELECT 1 FROM alerts") == []
    monkeypatch.undo()
    watch.turn(MINUTE)
    assert watch.heads() == ["ALERT"]
    assert watch.rows("SELECT phase FROM alert_states") == ["firing"]
    assert watch.one("SELECT count(*) FROM alerts") == 1


def test_several_processes_at_once_say_it_once(watch: Watch) -> None:
    """Each with connections of its own, all at the same moment."""
    watch.rule("screen", hold=0, keep=0)
    watch.start(1, 2, 3, 4, 5, 6)
    engines = [db.make_engine(watch.url) for _ in range(4)]
    made: list[int] = []
    failures: list[BaseException] = []
    together = threading.Barrier(len(engines))

    def work(engine: Any) -> None:
        try:
            together.wait(30)
            made.append(evaluate.round(engine, watch.config, watch.now))
        except BaseException as error:  # noqa: BLE001 - told to the test below
            failures.append(error)

    for number in range(20):
        watch.show(BLACK if number % 2 == 0 else OK, 1 + number // 4)
        watch.now += STEP
        watch.beat()
        threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for engine in engines:
        engine.dispose()
    assert failures == []
    assert watch.heads() == ["ALERT", "RECOVERED"] * 10
    assert sum(made) == 20
    assert watch.one("SELECT count(*) FROM alerts") == 10
