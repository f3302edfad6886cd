"""One rule and one client: what it takes to fire, and what to end. Pure.

    ok -> pending (the condition holds) -> firing (it held for `hold` of open time) -> recovering (it is over) -> ok
             ^-> held (silence proves nothing now: see outage)    ^-------- it is back --'

Two changes between not firing and firing make one alert; too many within an hour make the pair a flapping one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

FLAPPING_CHANGES = 6
FLAPPING_WITHIN = timedelta(hours=1)
STEADY_AFTER = timedelta(minutes=30)
UNSEEN_HOLDS = 2
"""After so many times `hold` (`keep`), what waits for it and cannot be told any more is as if it had not begun.

What waits has been seen for less than one `hold`. So a gap of up to one `hold` never ends it: what is wrong before and
behind that was wrong within it. And whatever cannot be told for two of them counts for nothing.
"""


class Phase(StrEnum):
    OK = "ok"
    PENDING = "pending"
    HELD = "held"
    FIRING = "firing"
    RECOVERING = "recovering"


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be seen of a condition now."""

    holds: bool | None
    """None: not to be told, such as the screen of a client that is offline. That ends nothing and begins nothing, but
    what waits does not wait on it for ever: see UNSEEN_HOLDS."""
    clear: bool = False
    """Not only not holding, but below the lower threshold at which it counts as over."""
    since: datetime | None = None
    """Since when it holds, where that is known better than by when it was first seen."""
    held: bool = False
    """Holds, but is part of something larger that is told of instead."""


CLEAR = Sight(holds=False, clear=True)


@dataclass(frozen=True, slots=True)
class Timing:
    hold: timedelta
    """For how much open time the condition has to hold."""
    keep: timedelta
    """For how long it has to be over."""


@dataclass(frozen=True, slots=True)
class State:
    phase: Phase = Phase.OK
    since: datetime | None = None
    """Pending: from when on `hold` counts. Recovering: since when it is over."""
    changes: tuple[datetime, ...] = ()
    """The newest changes between not firing and firing, as many as it takes to flap."""

    @property
    def fires(self) -> bool:
        return self.phase in (Phase.FIRING, Phase.RECOVERING)


OpenTime: TypeAlias = Callable[[datetime, datetime], timedelta]


def step(state: State, sight: Sight, now: datetime, timing: Timing, *, is_open: bool, open_time: OpenTime) -> State:
    """The state after a look at `now`; outside opening hours nothing begins to fire.

    `now` may lie before the last look, where a clock was set back: that costs `hold` or `keep` once more at most.
    """
    state = _not_ahead(state, now)
    if sight.holds is None:
        return _unseen(state, now, timing)
    if state.fires:
        return _while_firing(state, sight, now, timing)
    if not sight.holds:
        return replace(state, phase=Phase.OK, since=None)
    if sight.held:
        return replace(state, phase=Phase.HELD, since=None)
    # While it was held the silence proved nothing, so it counts from here. A time ahead was told by a clock that was
    # wrong: it says nothing.
    known = [each for each in (state.since, sight.since) if each is not None and each <= now]
    since = now if state.phase is Phase.HELD else max(known, default=now)
    if is_open and open_time(since, now) >= timing.hold:
        return State(Phase.FIRING, None, _changed(state, now))
    return replace(state, phase=Phase.PENDING, since=since)


def _not_ahead(state: State, now: datetime) -> State:
    """Without times ahead of now. Changes keep their distances: slow ones must not seem to be quick ones."""
    since = None if state.since is None else min(state.since, now)
    ahead = max(timedelta(), state.changes[-1] - now) if state.changes else timedelta()
    return replace(state, since=since, changes=tuple(each - ahead for each in state.changes))


def _unseen(state: State, now: datetime, timing: Timing) -> State:
    wait = timing.keep if state.fires else timing.hold
    if state.since is None or now - state.since < UNSEEN_HOLDS * wait:
        return state
    return replace(state, phase=Phase.FIRING if state.fires else Phase.OK, since=None)


def _while_firing(state: State, sight: Sight, now: datetime, timing: Timing) -> State:
    if sight.holds or not sight.clear:
        return state if state.phase is Phase.FIRING else replace(state, phase=Phase.FIRING, since=None)
    since = now if state.since is None else state.since
    if now - since >= timing.keep:
        return State(Phase.OK, None, _changed(state, now))
    return replace(state, phase=Phase.RECOVERING, since=since)


def _changed(state: State, now: datetime) -> tuple[datetime, ...]:
    return (*state.changes, now)[-FLAPPING_CHANGES:]


def begins_to_flap(state: State, now: datetime) -> bool:
    return len(state.changes) == FLAPPING_CHANGES and now - state.changes[0] <= FLAPPING_WITHIN


def is_steady(state: State, now: datetime) -> bool:
    """Of one that flapped: whether it no longer does."""
    return not state.changes or now - state.changes[-1] >= STEADY_AFTER


def calmed(state: State) -> State:
    """Once it is said to be steady, what it did before is no part of what it does next."""
    return replace(state, changes=())


def forgotten(state: State, now: datetime) -> bool:
    """Whether nothing would be lost if this state were that of a pair that was never looked at."""
    return state.phase is Phase.OK and (not state.changes or now - state.changes[-1] > FLAPPING_WITHIN)
