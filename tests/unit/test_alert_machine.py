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
        if not self.looks[-1].sight.holds or self.looks[-1].sight.held:
            return False
        now = at(self.looks[-1].seconds)
        long_enough = self.openings.time(self._since(), now) >= timedelta(seconds=self.hold)
        return self.openings.is_open(now) and long_enough

    def _since(self) -> datetime:
        """From when on it counts at the last look, which holds."""
        first: datetime | None = None
        was_held = False
        for seconds, sight in self.looks:
            if sight.holds is None:
                if first is not None and at(seconds) - first >= timedelta(seconds=2 * self.hold):
                    first = None
            elif not sight.holds or sight.held:
                first, was_held = None, sight.held
            else:
                told = None if was_held else sight.since
                first = told or first or at(seconds) if first is None or told is None else max(first, told)
                was_held = False
        assert first is not None
        return first

    def ends_now(self) -> bool:
        over: int | None = None
        for seconds, sight in self.looks:
            if sight.holds is None:
                over = None if over is not None and seconds - over >= 2 * self.keep else over
            elif sight.holds or not sight.clear:
                over = None
            elif over is None:
                over = seconds
        sight = self.looks[-1].sight
        return sight.holds is False and sight.clear and over is not None and self.looks[-1].seconds - over >= self.keep


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
        ([(0, HOLDS), (30, UNKNOWN), (59, HOLDS), (60, HOLDS)], "pending pending pending firing"),
        ([(0, HOLDS), (119, UNKNOWN), (120, UNKNOWN), (121, HOLDS)], "pending pending ok pending"),
        ([(0, UNKNOWN), (60, HOLDS), (70, UNKNOWN), (119, UNKNOWN), (120, HOLDS)], "ok pending pending pending firing"),
        ([(0, HELD), (10, UNKNOWN), (70, HOLDS)], "held held pending"),
        ([(0, HOLDS), (60, HOLDS), (70, UNKNOWN), (999, UNKNOWN)], "pending firing firing firing"),
        ([(0, HOLDS), (60, HOLDS), (70, BELOW), (999, BELOW)], "pending firing firing firing"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (99, CLEAR), (100, CLEAR)], "pending firing recovering recovering ok"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (99, HOLDS), (100, CLEAR)],
         "pending firing recovering firing recovering"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (99, UNKNOWN), (100, CLEAR)],
         "pending firing recovering recovering ok"),
        ([(0, HOLDS), (60, HOLDS), (70, CLEAR), (129, UNKNOWN), (130, UNKNOWN), (131, CLEAR)],
         "pending firing recovering recovering firing recovering"),
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


# --- what cannot be seen for a while ----------------------------------------------------------------------------------


@given(st.integers(1, 60), st.lists(st.integers(1, 60), max_size=20), st.data())
def test_what_is_wrong_whenever_it_is_seen_fires(hold: int, gaps: list[int], data: st.DataObject) -> None:
    """Seen at least once a `hold`: it fires with the first such look behind `hold`, whatever lies between."""
    looks = [Look(0, HOLDS)]
    for gap in gaps:
        begin, length = looks[-1].seconds, min(gap, hold)
        blind = data.draw(st.integers(0, length - 1))
        looks += [Look(begin + second, UNKNOWN) for second in range(length - blind, length)]
        looks.append(Look(begin + length, HOLDS))
    for look, state in zip(looks, run(looks, timing(hold)), strict=True):
        if look.sight is HOLDS:
            assert state.fires == (look.seconds >= hold)


def test_a_blip_every_four_minutes_keeps_nothing_from_firing_or_ending() -> None:
    """Looks every 10 s, of which two of every 24 tell nothing."""
    wrong, right = (
        [Look(10 * n, UNKNOWN if n % 24 in (22, 23) else seen) for n in range(60)] for seen in (HOLDS, CLEAR)
    )
    fired = run(wrong, timing(300, 300))
    assert next(look.seconds for look, state in zip(wrong, fired, strict=True) if state.fires) == 300
    later = [Look(600 + look.seconds, look.sight) for look in right]
    ended = run([*wrong, *later], timing(300, 300))[len(wrong) :]
    assert next(look.seconds for look, state in zip(right, ended, strict=True) if not state.fires) == 300


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 400))
def test_what_cannot_be_told_for_two_holds_counts_for_nothing(hold: int, first: int, unseen: int) -> None:
    seen = [Look(second, HOLDS) for second in range(min(first, hold - 1) + 1)]
    begin = seen[-1].seconds + 1
    looks = [*seen, *(Look(begin + second, UNKNOWN) for second in range(2 * hold + unseen))]
    states = run([*looks, Look(looks[-1].seconds + 1, HOLDS)], timing(hold))
    assert (states[-1].phase, states[-1].since) == (Phase.PENDING, at(looks[-1].seconds + 1))


# --- a clock that is set ----------------------------------------------------------------------------------------------

DAYS = 400_000
anywhen = st.integers(-DAYS, DAYS).map(at)
states_of_any_clock = st.builds(
    State,
    st.sampled_from(Phase),
    st.none() | anywhen,
    st.lists(anywhen, max_size=FLAPPING_CHANGES).map(sorted).map(tuple),
)


@given(states_of_any_clock, st.integers(0, 60), st.none() | st.integers(-DAYS, 0) | st.integers(DAYS, 2 * DAYS))
def test_after_any_step_of_the_clock_it_fires_in_time(before: State, hold: int, since: int | None) -> None:
    """Whatever other clocks wrote: what holds from now on fires after `hold`, and no time ahead of now is kept."""
    state, told = before, None if since is None else at(since)
    for second in range(hold + 1):
        now = at(second)
        look = Sight(holds=True, since=told)
        state = step(state, look, now, timing(hold), is_open=True, open_time=ALWAYS.time)
        assert state.since is None or state.since <= now
        assert list(state.changes) == sorted(state.changes)
        assert not state.changes or state.changes[-1] <= now
    assert state.fires


@given(states_of_any_clock, st.integers(0, 60))
def test_after_any_step_of_the_clock_it_ends_in_time(before: State, keep: int) -> None:
    state = before
    for second in range(keep + 1):
        state = step(state, CLEAR, at(second), timing(0, keep), is_open=True, open_time=ALWAYS.time)
    assert (state.phase, state.since) == (Phase.OK, None)
    assert is_steady(state, at(keep) + STEADY_AFTER)
    later = at(keep) + FLAPPING_WITHIN + timedelta(seconds=1)
    assert forgotten(step(state, CLEAR, later, timing(), is_open=True, open_time=ALWAYS.time), later)


steps_of_clock = st.lists(st.tuples(st.integers(1, 20), sights, st.integers(-200, 200)), max_size=40)


@given(steps_of_clock, st.integers(0, 40), st.integers(0, 40))
def test_steps_of_the_clock_cost_no_more_than_one_wait(
    looks: list[tuple[int, Sight, int]], hold: int, keep: int
) -> None:
    """With the clock set again and again: once it is left alone, all is told within `hold` or `keep`."""
    state, true, shift = State(), 0, 0
    for gap, sight, jump in looks:
        true, shift = true + gap, shift + jump
        now = at(true + shift)
        state = step(state, sight, now, timing(hold, keep), is_open=True, open_time=ALWAYS.time)
        assert state.since is None or state.since <= now
    for sight, wait, fires in ((HOLDS, hold, True), (CLEAR, keep, False)):
        for _ in range(wait + 1):
            true += 1
            now = at(true + shift)
            state = step(state, sight, now, timing(hold, keep), is_open=True, open_time=ALWAYS.time)
        assert state.fires is fires


def test_slow_changes_do_not_become_quick_ones_when_the_clock_is_set_back() -> None:
    slow = tuple(at(DAYS + 3600 * number) for number in range(FLAPPING_CHANGES))
    state = step(State(changes=slow), CLEAR, START, timing(), is_open=True, open_time=ALWAYS.time)
    assert not begins_to_flap(state, START)
