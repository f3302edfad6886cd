"""Which rows of a growing table are still to be fetched. Pure.

On SQLite ids become visible in their order. On PostgreSQL they are given before the commit: a row may appear behind
others of higher ids. So ids that were passed over are remembered as gaps for a while, longer than any transaction
takes, and asked for again. A place in such a table is a highest id and the gaps below it, not a number alone.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

HOLD_S = 0.2
"""How long what lies behind a hole waits for it."""
KEEP_S = 60.0
"""How long a gap is asked for. Ids that were rolled back, or belong to a longer transaction, are given up then."""
MAX_GAPS = 200
"""At once. The oldest are given up first; each is one more range in a query, and some bytes in every position."""
MAX_PLACE_GAPS, MAX_PLACE_CHARS = 3 * MAX_GAPS, 3_900
"""Of a position as text: someone who came from another process has that one's gaps too, and what was missed. Two of
them fit into a header of 8,190 bytes, gunicorn's limit for one."""

_MAX_ID, _MOST_DIGITS = 2**63 - 1, 19
_TEXT = re.compile(r"(\d{1,19})((?:~\d{1,19}\.\d{1,19})*)")

Span = tuple[int, int]
"""Ids from the first to the last one, both included."""


class Position(NamedTuple):
    """What was seen of a table: all up to `high` but the gaps, which are in order and apart from each other."""

    high: int
    gaps: tuple[Span, ...] = ()

    def __contains__(self, number: object) -> bool:
        """Whether this id was seen."""
        assert isinstance(number, int)
        return number <= self.high and not any(first <= number <= last for first, last in self.gaps)

    def text(self) -> str:
        """The gaps as their distance from `high` and their length, less one, which keeps it short.

        Where that is too long for a place, the oldest gaps count as seen: what is written here is read again.
        """
        parts = [f"~{self.high - last}.{last - first}" for first, last in self.gaps[-MAX_PLACE_GAPS:]]
        excess = sum(map(len, parts)) + _MOST_DIGITS - MAX_PLACE_CHARS
        begin = 0
        while excess > 0:
            excess -= len(parts[begin])
            begin += 1
        return str(self.high) + "".join(parts[begin:])

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError.

        >>> Position.parse("90~7.2") == Position(90, ((81, 83),))
        True
        """
        found = _TEXT.fullmatch(text) if text.isascii() else None
        if found is None or int(found[1]) > _MAX_ID:
            raise ValueError("not a position")
        high, gaps = int(found[1]), []
        for part in found[2].split("~")[1:]:
            below, longer = map(int, part.split("."))
            gaps.append((high - below - longer, high - below))
        ends = [0, *(end for gap in gaps for end in gap)]
        if len(gaps) > MAX_PLACE_GAPS or any(last >= first for last, first in zip(ends[::2], ends[1::2], strict=False)):
            raise ValueError("not a position")
        return cls(high, tuple(gaps))


def between(then: Position, now: Position) -> list[Span]:
    """What `now` has seen and `then` had not.

    >>> between(Position(10, ((4, 6),)), Position(20, ((6, 7), (15, 15))))
    [(4, 5), (11, 14), (16, 20)]
    """
    ahead = [(then.high + 1, now.high)] if now.high > then.high else []
    found: list[Span] = []
    for span in (*then.gaps, *ahead):
        found.extend(_without(span, now.gaps))
    return [(first, min(last, now.high)) for first, last in found if first <= now.high]


def behind(now: Position, missed: Iterable[Span], number: int) -> Position:
    """Where someone is who got what was missed before `now` up to this id, in order, and nothing since.

    >>> behind(Position(20, ((6, 7),)), [(4, 5), (11, 14)], 12)
    Position(high=20, gaps=((6, 7), (13, 14)))
    """
    left = [(max(first, number + 1), last) for first, last in missed if last > number]
    return Position(now.high, tuple(sorted([*now.gaps, *left])))


def either(one: Position, other: Position) -> Position:
    """What one of them has seen, or the other.

    >>> either(Position(20, ((4, 9), (15, 15))), Position(12, ((8, 11),)))
    Position(high=20, gaps=((8, 9), (15, 15)))
    """
    high = max(one.high, other.high)
    mine, others = ((*position.gaps, (position.high + 1, high)) for position in (one, other))
    common: list[Span] = []
    i = j = 0
    # Both are in order: of two spans the one that ends first meets nothing further.
    while i < len(mine) and j < len(others):
        (a, b), (c, d) = mine[i], others[j]
        first, last = max(a, c), min(b, d)
        if first <= last:
            common.append((first, last))
        if b < d:
            i += 1
        else:
            j += 1
    return Position(high, tuple(common))


def _without(span: Span, holes: Iterable[Span]) -> Iterator[Span]:
    first, last = span
    for low, high in holes:
        if high < first or low > last:
            continue
        if low > first:
            yield first, low - 1
        first = high + 1
    if first <= last:
        yield first, last


class Tail:
    """How far one reader has come. Times are of a monotonic clock."""

    def __init__(self, high: int, *, in_order: bool) -> None:
        """`in_order`: a row never becomes visible behind one of a higher id, so that there are no gaps."""
        self.high = high
        self.given_up = 0
        """Ids that were given up to keep to MAX_GAPS; the reader may count and clear this."""
        self._in_order = in_order
        self._gaps: dict[Span, float] = {}
        """When each is given up; in the order of ids."""
        self._sightings: deque[tuple[float, int]] = deque()
        self._settled = 0
        """Up to here holes were waited for long enough."""

    @property
    def position(self) -> Position:
        return Position(self.high, tuple(self._gaps))

    def ready(self, ids: Sequence[int], now: float) -> int:
        """How many of these, all that are visible behind `high`, are to be taken now: those before the first hole.

        Ids of transactions that are written at the same time lie between each other, one by one. Most holes are full
        after a moment: who waits for that has few gaps to remember.
        """
        if self._in_order or not ids:
            return len(ids)
        self._sightings.append((now, ids[-1]))
        while self._sightings[0][0] <= now - HOLD_S:
            self._settled = self._sightings.popleft()[1]
        expected = self.high + 1
        for count, number in enumerate(ids):
            if number != expected and number > self._settled:
                return count
            expected = number + 1
        return len(ids)

    def see(self, number: int, now: float) -> bool:
        """Note a row that was fetched; False if it was seen before, or given up."""
        if number > self.high:
            if number > self.high + 1 and not self._in_order:
                self._gaps[self.high + 1, number - 1] = now + KEEP_S
                self._keep_few()
            self.high = number
            return True
        for span in self._gaps:
            if span[0] <= number <= span[1]:
                self._split(span, number)
                return True
        return False

    def _split(self, span: Span, number: int) -> None:
        kept: dict[Span, float] = {}
        for gap, until in self._gaps.items():
            for rest in [gap] if gap != span else _without(gap, [(number, number)]):
                kept[rest] = until
        self._gaps = kept
        self._keep_few()

    def _keep_few(self) -> None:
        while len(self._gaps) > MAX_GAPS:
            first, last = next(iter(self._gaps))
            del self._gaps[first, last]
            self.given_up += last - first + 1

    def skip(self, to: int) -> int:
        """Give up what lies behind `high`, up to this id; returns how many ids that are."""
        skipped = max(0, to - self.high)
        self.high += skipped
        return skipped

    def forget(self, now: float) -> None:
        """Give up the gaps whose time is over."""
        if self._gaps:
            self._gaps = {gap: until for gap, until in self._gaps.items() if until > now}
