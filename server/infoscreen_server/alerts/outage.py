"""Whether it is the clients that fell silent, or the server that no longer hears them. Pure.

Many that go at about the same time are one event: the server, its broker or the network between. Their own alerts wait
until it is over, and then count from there.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WINDOW = timedelta(minutes=2)
"""Those that were last heard of within so long went at about the same time."""
LEAST = 5
"""Fewer are no outage, unless they were all."""


@dataclass(frozen=True, slots=True)
class Life:
    client: str
    last_alive: datetime
    offline: bool


@dataclass(frozen=True, slots=True)
class Outage:
    gone: frozenset[str] = frozenset()
    of: int = 0
    """How many were there to go when it began."""
    since: datetime | None = None
    """When the first of them was heard of last."""

    def __bool__(self) -> bool:
        return bool(self.gone)


NO_OUTAGE = Outage()


def outage(lives: Sequence[Life], share: float, *, lasting: bool = False) -> Outage:
    """Clients that went offline together: more than `share` of those that were there, and at least 5; or all of them.

    `lasting`: it is known of already and over only when half as many are left.
    """
    least = 2 if lasting else LEAST
    limit = share / 2 if lasting else share
    online = sum(not each.offline for each in lives)
    silent = sorted((each for each in lives if each.offline), key=lambda each: (each.last_alive, each.client))
    times = [each.last_alive for each in silent]
    gone: set[str] = set()
    there, since, told = 0, None, 0
    for first, last_alive in enumerate(times):
        behind = _end(times, last_alive)
        number, present = behind - first, online + len(silent) - first
        deaf = online == 0 and behind == len(silent) and number >= 2
        if deaf or (number >= least and number > limit * present):
            gone.update(each.client for each in silent[max(first, told) : behind])
            there, since, told = max(there, present), since or last_alive, behind
    return Outage(frozenset(gone), there, since) if gone else NO_OUTAGE


def _end(times: list[datetime], first: datetime) -> int:
    return bisect_left(times, first + WINDOW)
