"""One rule and one client: random looks against what the whole history of looks says, and the table of the rule."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_server.alerts.machine import (
    CLEAR,
    FLAPPING_CHANGES,
    FLAPPING_WITHIN,
    STEADY_AFTER,
    Phase,
    Sight,
    State,
    Timing,
    begins_to_flap,
    forgotten,
    is_steady,
    step,
)

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOLDS, UNKNOWN, BELOW = Sight(holds=True), Sight(holds=None), Sight(holds=False)
HELD = Sight(holds=True, held=True)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


class Look(NamedTuple):
    seconds: int
    sight: Sight


class Openings(NamedTuple):
    """Open for so long, then closed for so long, and so on."""

    open: int
    closed: int

    def is_open(self, when: datetime) -> bool:
        return self.second_is_open(round((when - START).total_seconds()))

    def second_is_open(self, second: int) -> bool:
        return second % (self.open + self.closed) < self.open

    def time(self, begin: datetime, end: datetime) -> timedelta:
        first, last = (round((when - START).total_seconds()) for when in (begin, end))
        return timedelta(seconds=sum(self.second_is_open(second) for second in range(first, last)))


ALWAYS = Openings(1, 0)


def run(looks: Sequence[Look], timing: Timing, openings: Openings = ALWAYS) -> list[State]:
    state, states = State(), []
    for seconds, sight in looks:
        now = at(seconds)
        state = step(state, sight, now, timing, is_open=openings.is_open(now), open_time=openings.time)
        states.append(state)
    return states


def timing(hold: int = 0, keep: int = 0) -> Timing:
    return Timing(timedelta(seconds=hold), timedelta(seconds=keep))


class History(NamedTuple):
    looks: Sequence[Look]
    hold: int
    keep: int
    openings: Openings

    def fires_now(self) -> bool:
        """Whether one that did not fire does, at the last look."""
        run: list[Look] = []
        for look in reversed(self.looks):
            if not look.sight.holds or look.sight.held:
                break
            run.insert(0, look)
        if not run:
            return False
        before = self.looks[-len(run) - 1] if len(run) < len(self.looks) else None
        was_held = before is not None and bool(before.sight.holds) and before.sight.held
        first = at(run[0].seconds) if was_held else (run[0].sight.since or at(run[0].seconds))
        since = max([first, *(look.sight.since for look in run[1:] if look.sight.since is not None)])
        now = at(self.looks[-1].seconds)
        long_enough = self.openings.time(since, now) >= timedelta(seconds=self.hold)
        return self.openings.is_open(now) and long_enough

    def ends_now(self) -> bool:
        over: int | None = None
        for look in reversed(self.looks):
            if look.sight.holds is not False or not look.sight.clear:
                break
            over = look.seconds
        return over is not None and self.looks[-1].seconds - over >= self.keep


def looks_of(steps: list[tuple[int, Sight, int | None]]) -> list[Look]:
    looks, seconds = [], 0
    for gap, sight, since in steps:
        seconds += gap
        known = None if since is None else at(max(0, seconds - since))
        looks.append(Look(seconds, Sight(sight.holds, sight.clear, known if sight.holds else None, sight.held)))
    return looks


sights = st.sampled_from([HOLDS, HOLDS, HOLDS, UNKNOWN, BELOW, CLEAR, CLEAR, HELD])
histories = st.lists(st.tuples(st.integers(1, 20), sights, st.none() | st.integers(0, 60)), max_size=40).map(looks_of)
openings = st.just(ALWAYS) | st.builds(Openings, st.integers(1, 40), st.integers(0, 40))


@settings(max_examples=400)
@given(histories, st.integers(0, 40), st.integers(0, 40), openings)
def test_it_fires_and_ends_as_the_whole_history_says(looks: list[Look], hold: int, keep: int, opens: Openings) -> None:
    fires = False
    for number, state in enumerate(run(looks, timing(hold, keep), opens), 1):
        history = History(looks[:number], hold, keep, opens)
        fires = not history.ends_now() if fires else history.fires_now()
        assert state.fires == fires
        assert (state.phase is Phase.OK) <= (state.since is None)


@given(histories, st.integers(0, 40), st.integers(0, 40))
def test_every_change_is_noted_once(looks: list[Look], hold: int, keep: int) -> None:
    states = run(looks, timing(hold, keep))
    times = [at(look.seconds) for look in looks]
    changes = [now for now, (a, b) in zip(times, pairwise([State(), *states]), strict=True) if a.fires != b.fires]
    assert (states[-1].changes if states else ()) == tuple(changes[-FLAPPING_CHANGES:])


@pytest.mark.parametrize(
    ("looks", "phases"),
    [
        ([(0, HOLDS), (59, HOLDS), (60, HOLDS)], "pending pending firing"),
        ([(0, HOLDS), (59, CLEAR), (60, HOLDS), (119, HOLDS), (120, HOLDS)], "pending ok pending pending firing"),
        ([(0, HOLDS), (30, UNKNOWN), (60, HOLDS)], "pending ok pending"),
        ([(0, HOLDS), (60, HOLDS), (70, UNKNOWN), (999, UNKNOWN)], "pending firing firing firing"),
        ([(0, HOLDS), (60, HOLDS), (70, BELOW), (999, BELOW)], "pending firing firing firing"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (99, CLEAR), (100, CLEAR)], "pending firing recovering recovering ok"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (99, HOLDS), (100, CLEAR)],
         "pending firing recovering firing recovering"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (99, UNKNOWN), (100, CLEAR)],
         "pending firing recovering firing recovering"),
        ([(0, HELD), (500, HELD), (510, HOLDS), (569, HOLDS), (570, HOLDS)], "held held pending pending firing"),
        ([(0, HOLDS), (60, HOLDS), (70, HELD), (80, CLEAR), (110, CLEAR)], "pending firing firing recovering ok"),
        ([(0, HELD), (500, CLEAR), (510, Sight(holds=True, since=at(0)))], "held ok firing"),
    ],
)  # fmt: skip
def test_phases(looks: list[tuple[int, Sight]], phases: str) -> None:
    """60 seconds to fire, 30 to be over."""
    states = run([Look(*look) for look in looks], timing(60, 30))
    assert [str(state.phase) for state in states] == phases.split()


def test_outside_opening_hours_nothing_begins_and_all_may_end() -> None:
    openings = Openings(100, 100)
    looks = [Look(90, HOLDS), Look(199, HOLDS), Look(249, HOLDS), Look(250, HOLDS), Look(310, CLEAR), Look(340, CLEAR)]
    states = run(looks, timing(60, 30), openings)
    assert [str(state.phase) for state in states] == ["pending", "pending", "pending", "firing", "recovering", "ok"]


def test_six_changes_within_an_hour_are_flapping() -> None:
    looks = [Look(number * 600, HOLDS if number % 2 else CLEAR) for number in range(8)]
    states = run(looks, timing())
    assert [begins_to_flap(state, at(look.seconds)) for state, look in zip(states, looks, strict=True)] == [
        *[False] * 6, True, True,
    ]  # fmt: skip
    slow = run([Look(number * 721, HOLDS if number % 2 else CLEAR) for number in range(8)], timing())
    assert not begins_to_flap(slow[-1], at(7 * 721))


@given(st.lists(st.integers(1, 2000), max_size=FLAPPING_CHANGES), st.integers(0, 9000))
def test_what_is_forgotten_has_nothing_to_remember(gaps: list[int], later: int) -> None:
    changes = tuple(at(sum(gaps[:number])) for number in range(1, len(gaps) + 1))
    now = at(sum(gaps) + later)
    state = State(Phase.OK, None, changes)
    quiet = timedelta(seconds=later)
    assert is_steady(state, now) == (not changes or quiet >= STEADY_AFTER)
    assert forgotten(state, now) == (not changes or quiet > FLAPPING_WITHIN)
    if forgotten(state, now):
        assert is_steady(state, now)
        assert not begins_to_flap(State(Phase.FIRING, None, (*changes, now)[-FLAPPING_CHANGES:]), now)
