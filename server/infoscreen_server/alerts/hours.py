"""Opening hours: a weekly table on the clock on the wall, with closed dates, in a time zone. Pure.

Open or not is asked of the wall clock alone: an hour that comes twice when summer time ends is open twice, one that is
left out when it begins is not there to be open.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias
from zoneinfo import ZoneInfo

DAY_MINUTES = 24 * 60
_DAY = timedelta(days=1)
_NOTHING = timedelta()

Stretch: TypeAlias = tuple[datetime, datetime]
"""From and to; the end is not part of it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Minutes of the day from midnight, `end` not included. One that ends at or before its begin ends the next day."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Hours:
    zone: ZoneInfo
    week: tuple[tuple[Span, ...], ...]
    """Seven days, Monday first."""
    closed: frozenset[date] = frozenset()
    """Nothing begins on these dates; what began the evening before goes on to its end."""

    def is_open(self, at: datetime) -> bool:
        wall = at.astimezone(self.zone).replace(tzinfo=None)
        return any(opens <= wall < closes for opens, closes in self._between(wall.date(), wall.date()))

    def stretches(self, begin: datetime, end: datetime) -> Iterator[Stretch]:
        """The open time between two moments, in UTC. Where spans overlap so do these."""
        for start, stop, offset in even_pieces(self.zone, begin, end):
            low, high = (start + offset).replace(tzinfo=None), (stop + offset).replace(tzinfo=None)
            for opens, closes in self._between(low.date(), high.date()):
                first, last = max(opens, low), min(closes, high)
                if first < last:
                    yield (first - offset).replace(tzinfo=UTC), (last - offset).replace(tzinfo=UTC)

    def _between(self, first: date, last: date) -> Iterator[Stretch]:
        """On the wall clock: all that touch these days, so those of the evening before too."""
        day = first - _DAY
        while day <= last:
            midnight = datetime.combine(day, datetime.min.time())
            for span in () if day in self.closed else self.week[day.weekday()]:
                end = span.end if span.end > span.begin else span.end + DAY_MINUTES
                yield midnight + timedelta(minutes=span.begin), midnight + timedelta(minutes=end)
            day += _DAY


def even_pieces(zone: ZoneInfo, begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """Cuts the time between two moments wherever the zone's clocks change: pieces in UTC with their offset."""
    start, limit = begin.astimezone(UTC), end.astimezone(UTC)
    while start < limit:
        offset = _offset(zone, start)
        # Clocks change months apart: a look once a day misses no change, and a change is found to the second.
        stop = min(start + _DAY, limit)
        if _offset(zone, stop) != offset:
            low, stop = start, stop.replace(microsecond=0)
            while stop - low > timedelta(seconds=1):
                middle = (low + (stop - low) / 2).replace(microsecond=0)
                low, stop = (middle, stop) if _offset(zone, middle) == offset else (low, middle)
        yield start, stop, offset
        start = stop


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or _NOTHING


def any_open(hours: Sequence[Hours], at: datetime) -> bool:
    """With several tables one that is open is enough; with none it is always open."""
    return not hours or any(each.is_open(at) for each in hours)


def open_time(hours: Sequence[Hours], begin: datetime, end: datetime) -> timedelta:
    """How much of the time between two moments was open."""
    if not hours:
        return max(_NOTHING, end - begin)
    total, behind = _NOTHING, begin
    for start, stop in sorted(stretch for each in hours for stretch in each.stretches(begin, end)):
        total += max(_NOTHING, stop - max(start, behind))
        behind = max(behind, stop)
    return total
