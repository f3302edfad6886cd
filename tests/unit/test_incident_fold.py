"""Incidents out of events: the table of the rule, and that neither order nor portions of arrival matter."""

import json
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_server.happenings import event_of
from infoscreen_server.incidents import CODES, PLAYER, SCREEN, Event, Incident, Told, contradictions, fold, thin
from infoscreen_shared.messages import LogLevel

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
FAULTS = {
    PLAYER: {"player.crashed", "player.exited", "player.missing", "player.stopped", "player.restart_failed",
             "player.gave_up", "told.crashed"},
    SCREEN: {"screen.black", "screen.frozen", "screen.gave_up", "told.BLACK", "told.FROZEN"},
}  # fmt: skip
ENDS = {
    PLAYER: {"player.started", "player.recovered", "told.running", "expectation.cleared"},
    SCREEN: {"screen.recovered", "told.OK", "expectation.cleared"},
}
STEPS = {"player.restarting", "session.restarting", "system.rebooting"}
ALL_CODES = sorted({*FAULTS[PLAYER], *FAULTS[SCREEN], *ENDS[PLAYER], *ENDS[SCREEN], *STEPS, "buffer.dropped"})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(seconds: float, code: str, message: str = "", **detail: object) -> Event:
    return Event(at(seconds), code, LogLevel.ERROR, message, json.dumps(detail) if detail else None)


def brief(incidents: list[Incident]) -> list[tuple[str, float, float | None, int]]:
    def seconds(when: datetime | None) -> float | None:
        return None if when is None else (when - START).total_seconds()

    return [(str(one.kind), seconds(one.began_at) or 0.0, seconds(one.ended_at), one.restarts) for one in incidents]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, "player.crashed"), (1, "player.restarting"), (2, "player.started")], [("player", 0, 2, 1)]),
        ([(0, "player.crashed"), (2, "player.started"), (62, "player.crashed")], [("player", 0, None, 0)]),
        (
            [(0, "player.crashed"), (2, "player.started"), (63, "player.exited"), (64, "player.started")],
            [("player", 0, 2, 0), ("player", 63, 64, 0)],
        ),
        ([(0, "player.missing"), (5, "session.restarting"), (9, "system.rebooting")], [("player", 0, None, 2)]),
        ([(0, "screen.black"), (9, "player.restarting"), (30, "screen.recovered")], [("screen", 0, 30, 1)]),
        ([(0, "screen.frozen"), (1, "player.started")], [("screen", 0, None, 0)]),
        ([(0, "player.stopped"), (0, "screen.black"), (4, "expectation.cleared")],
         [("player", 0, 4, 0), ("screen", 0, 4, 0)]),
        ([(0, "player.started"), (0, "player.crashed")], [("player", 0, 0, 0)]),
        ([(0, "player.restarting"), (1, "player.started"), (2, "buffer.dropped")], []),
    ],
)  # fmt: skip
def test_what_events_make(
    events: list[tuple[float, str]], expected: list[tuple[str, float, float | None, int]]
) -> None:
    assert brief(fold(event(when, code) for when, code in events)) == expected


def test_an_incident_is_named_by_what_opened_it() -> None:
    (one,) = fold([event(0, "player.crashed", "first"), event(1, "player.gave_up", "later")])
    assert (one.code, one.message, one.last_event_at) == ("player.crashed", "first", at(1))


def test_the_first_start_of_a_player_is_no_restart() -> None:
    numbered = [event(1, "player.restarting", restart=0), event(2, "player.restarting", restart=1)]
    assert brief(fold([event(0, "player.missing"), *numbered])) == [("player", 0, None, 1)]


def test_a_start_that_was_lost_is_made_up_for_by_the_outage_that_is_told() -> None:
    assert brief(fold([event(0, "player.crashed"), event(130, "player.recovered", outage_s=7.5)])) == [
        ("player", 0, 7.5, 0)
    ]
    late = [event(0, "player.crashed"), event(9, "player.exited"), event(130, "player.recovered", outage_s=7.5)]
    assert brief(fold(late)) == [("player", 0, 9, 0)], "it was still down when that was said"
    absurd = [event(0, "player.crashed"), event(130, "player.recovered", outage_s=1e9)]
    assert brief(fold(absurd)) == [("player", 0, 130, 0)]


def row(code: str, context: object) -> tuple[str, None, str, str, str, int, None]:
    return "", None, code, "m" * 1000, json.dumps(context), 1, None


def test_a_death_is_dated_back_to_when_it_was() -> None:
    found = event_of(LogLevel.ERROR, row("player.crashed", {"after_s": 1.5, "pid": 7, "journal": ["x"]}), at(10))
    assert found.at == at(8.5)
    assert json.loads(found.detail or "") == {"pid": 7}
    assert len(found.message) == 300
    for odd in (-1, 1e6, "1", True, None, [1]):
        assert event_of(LogLevel.ERROR, row("player.crashed", {"after_s": odd}), at(10)).at == at(10)


# --- whatever the order -----------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.builds(
        Event,
        st.integers(0, 300).map(at),
        st.sampled_from(ALL_CODES),
        st.just(LogLevel.ERROR),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from([None, '{"outage_s": 4}', '{"restart": 0}', '{"restart": 2}']),
    ),
    max_size=25,
)


class Down(NamedTuple):
    began: datetime
    ended: datetime | None
    steps: int


def model(events: list[Event], kind: str) -> list[Down]:
    """The same by two plain passes: times of being down, then those with short pauses put together."""
    downs: list[Down] = []
    began, steps = None, 0
    for one in sorted(events, key=lambda each: each.place):
        if one.code in FAULTS[kind]:  # type: ignore[index]  # the kinds are the keys
            began = began or one.at
        elif began is not None and one.code in STEPS:
            steps += one.number("restart") != 0
        elif began is not None and one.code in ENDS[kind]:  # type: ignore[index]
            downs.append(Down(began, one.at, steps))
            began, steps = None, 0
    if began is not None:
        downs.append(Down(began, None, steps))
    joined: list[Down] = []
    for down in downs:
        last = joined[-1] if joined else None
        if last is not None and last.ended is not None and down.began - last.ended <= timedelta(seconds=60):
            joined[-1] = Down(last.began, down.ended, last.steps + down.steps)
        else:
            joined.append(down)
    return joined


@settings(max_examples=400, deadline=None)
@given(EVENTS)
def test_the_fold_equals_two_plain_passes(events: list[Event]) -> None:
    plain = [one if one.code != "player.recovered" else one._replace(detail=None) for one in events]
    found = fold(plain)
    for kind in (PLAYER, SCREEN):
        mine = [Down(one.began_at, one.ended_at, one.restarts) for one in found if one.kind is kind]
        assert mine == model(plain, kind)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.integers(0, 2**32 - 1))
def test_order_does_not_matter(events: list[Event], seed: int) -> None:
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    assert fold(shuffled) == fold(events)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.integers(0, 300))
def test_the_newest_incidents_are_all_that_must_be_known_to_go_on(events: list[Event], border: int) -> None:
    early = [one for one in events if one.at < at(border)]
    before = fold(early)
    last = {one.kind: one for one in before}
    stand = [one for one in before if one is not last[one.kind]]
    after = fold([one for one in events if one.at >= at(border)], last.values())
    assert sorted([*stand, *after], key=lambda one: (one.began_at, one.kind)) == fold(events)


@settings(max_examples=300, deadline=None)
@given(EVENTS)
def test_incidents_of_a_kind_do_not_touch(events: list[Event]) -> None:
    for kind in (PLAYER, SCREEN):
        for earlier, later in pairwise(one for one in fold(events) if one.kind is kind):
            assert earlier.ended_at is not None
            assert earlier.began_at <= earlier.ended_at
            assert later.began_at - earlier.ended_at > timedelta(seconds=60)


# --- what is told -----------------------------------------------------------------------------------------------------


def told(*words: tuple[float, str]) -> list[Told]:
    return [Told(state, at(when)) for when, state in words]


def test_a_client_without_codes_has_incidents_by_what_it_tells() -> None:
    events = contradictions(
        told((0, "running"), (15, "crashed"), (30, "crashed"), (45, "running"), (60, "running")), []
    )
    assert [(one.at, one.code) for one in events] == [(at(15), "told.crashed"), (at(45), "told.running")]
    assert brief(fold(events)) == [("player", 15, 45, 0)]


def test_what_the_records_said_already_is_not_said_again() -> None:
    open_one = fold([event(10, "player.crashed")])
    assert contradictions(told((10.1, "crashed"), (12, "starting"), (13, "UNKNOWN")), open_one) == []
    ended = fold([event(10, "player.crashed"), event(12, "player.started")])
    assert contradictions(told((12.1, "running")), ended) == []


def test_what_is_told_ends_an_incident_of_which_the_end_was_lost() -> None:
    (found,) = contradictions(told((10, "running"), (25, "running")), fold([event(10, "player.stopped")]))
    assert (found.at, found.code) == (at(25), "told.running")


def test_an_older_word_says_nothing() -> None:
    ended = fold([event(10, "screen.black"), event(20, "screen.recovered")])
    assert contradictions(told((15, "BLACK"), (20, "FROZEN")), ended) == []
    assert len(contradictions(told((21, "FROZEN"), (22, "BLACK"), (23, "OK")), ended)) == 2


def test_codes_of_records_are_not_those_of_states() -> None:
    assert not [code for code in CODES if code.startswith("told.")]
    assert {code for code in ALL_CODES if not code.startswith("told.")} == CODES


# --- long incidents ---------------------------------------------------------------------------------------------------


def thinned(events: list[Event], last: list[Incident]) -> list[Event]:
    """In the order of the fold, as `thin` wants it."""
    events = sorted(events, key=lambda one: one.place)
    gone, instead = thin(events, last)
    return sorted(
        [*(one for place, one in enumerate(events) if place not in gone), *instead], key=lambda one: one.place
    )


SOME_EVENTS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(ALL_CODES), st.integers(0, 2)), max_size=40)


@settings(max_examples=300)
@given(SOME_EVENTS, SOME_EVENTS)
def test_thinning_changes_no_incident(some: list[tuple[int, str, int]], behind: list[tuple[int, str, int]]) -> None:
    """Not now, not with what follows, and not where it is done again and again."""
    events = [event(when, code, restart=restart, outage_s=restart) for when, code, restart in some]
    later = [event(401 + when, code, restart=restart) for when, code, restart in behind]
    first = thinned(events, [])
    assert fold(first) == fold(events)
    assert fold([*first, *later]) == fold([*events, *later])
    again = thinned([*first, *later], [])
    assert fold(again) == fold([*events, *later])
    assert len(thinned(again, [])) <= len(again)


@pytest.mark.parametrize(
    "codes",
    [
        ["player.crashed"],
        ["player.crashed", "player.restarting", "player.started"],
        ["player.crashed", "screen.black", "player.restarting"],
        ["player.exited", "expectation.cleared"],
        ["screen.frozen", "player.restarting", "screen.recovered"],
    ],
)
def test_an_endless_incident_is_a_few_events(codes: list[str]) -> None:
    events = [event(n, codes[n % len(codes)], f"event {n}") for n in range(900)]
    left = thinned(events, [])
    assert len(left) < 7
    assert left[0] == events[0]
    assert fold(left) == fold(events)
    last = fold(events[:1])
    assert fold(thinned(events[1:], last), last) == fold(events), "also where its opener is known"


def test_what_comes_late_counts_as_ever_but_an_end() -> None:
    events = [event(n, code) for n in range(0, 900, 3) for code in ("player.crashed", "player.restarting")]
    left = thinned(events, [])
    for code in ("player.restarting", "player.crashed", "system.rebooting"):
        for seconds in (-10, 100, 2000):
            late = event(seconds, code)
            assert fold([*left, late]) == fold([*events, late])
    assert brief(fold([*left, event(400, "player.started")])) == [("player", 0, None, 300)]
    assert brief(fold([*left, event(400, "screen.black")])) == [("player", 0, None, 300), ("screen", 400, None, 0)]


def test_the_newest_word_that_a_player_was_given_up_stays() -> None:
    codes = ["player.crashed", *["player.gave_up"] * 3, *["player.crashed"] * 50]
    left = thinned([event(n, code) for n, code in enumerate(codes)], [])
    assert [(one.at, one.code) for one in left] == [
        (at(0), "player.crashed"),
        (at(3), "player.gave_up"),
        (at(53), "thinned.player"),
    ]
