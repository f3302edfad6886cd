"""Whether it is the clients that fell silent, or the server that no longer hears them. Pure.

Many that go at about the same time are one event: the server, its broker or the network between. Their own alerts wait
until it is over, half an hour at most, and then count from there.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WINDOW = timedelta(minutes=2)
"""Those that were last heard of within so long went at about the same time."""
LEAST = 5
"""Fewer are no outage, unless they were all."""
LEAST_LASTING = 2
"""Fewer that are left of one do not keep it going: a single one is a screen of its own."""
HELD_MOST = timedelta(minutes=30)
"""For so long since it was last heard of, an outage speaks for a client.

Most are over by then. What is silent for longer may be broken itself, and of an outage that lasts for days nobody would
learn which screens those are.
"""


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

    def speaks_for(self, client: str, last_alive: datetime, now: datetime) -> bool:
        """Whether the client's own silence is to wait."""
        # A time as far ahead was told by a clock that was wrong: it must hold nobody until now comes to it.
        return client in self.gone and abs(now - last_alive) < HELD_MOST

    def __bool__(self) -> bool:
        return bool(self.gone)


NO_OUTAGE = Outage()


@dataclass(frozen=True, slots=True)
class Known:
    """One that is told of already, as it was when it began."""

    since: datetime
    of: int


def outage(lives: Sequence[Life], share: float, known: Known | None = None) -> Outage:
    """Clients that went offline together: more than `share` of those that were there, and at least 5; or all of them.

    Of those that went when a `known` one began, half as many keep it going: else it would come and go around the limit.
    They are half of those that were there then, although fewer may be looked at now, and never all of them. Those that
    went at another time are judged as if there were none.
    """
    online = sum(not each.offline for each in lives)
    silent = sorted((each for each in lives if each.offline), key=lambda each: (each.last_alive, each.client))
    times = [each.last_alive for each in silent]

    def many(first: int, behind: int, least: int, limit: float) -> bool:
        return behind - first >= least and behind - first > limit * (online + len(silent) - first)

    spent = None
    if known is not None and len(silent) - bisect_left(times, known.since) <= share / 2 * known.of:
        spent = known.since
    found = []
    for first, last_alive in enumerate(times):
        behind = _end(times, last_alive)
        deaf = online == 0 and behind == len(silent) and behind - first >= 2
        deaf = deaf and not (spent is not None and went_at(spent, last_alive))
        if deaf or many(first, behind, LEAST, share):
            found.append((first, behind))
    if known is not None:
        first, behind = bisect_left(times, known.since), _end(times, known.since)
        if many(first, behind, LEAST_LASTING, share / 2) and behind - first > share / 2 * known.of:
            found.append((first, behind))
    if not found:
        return NO_OUTAGE
    gone: set[str] = set()
    earliest, told = min(found)[0], 0
    for first, behind in sorted(found):
        # Each client once: the windows of a fleet that all went at once would be its size squared.
        gone.update(each.client for each in silent[max(first, told) : behind])
        told = max(told, behind)
    return Outage(frozenset(gone), online + len(silent) - earliest, times[earliest])


def went_at(began: datetime, last_alive: datetime | None) -> bool:
    """Whether it was one of those that began the outage of then."""
    return last_alive is not None and began <= last_alive < began + WINDOW


def _end(times: list[datetime], first: datetime) -> int:
    return bisect_left(times, first + WINDOW)
