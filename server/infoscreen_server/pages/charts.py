"""The geometry of charts: numbers in, SVG paths out. Pure; templates/_charts.html draws what comes from here.

Everything is laid out in whole and half units of a view box, so that a chart weighs little; colours are classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

BAR, BAR_STEP, BARS_HEIGHT = 5, 7, 20
GOOD_DAY, FAIR_DAY = 0.995, 0.97
"""Shares of a day from which its bar is good, or no worse than a warning."""
FLOOR = 0.8
"""A day's bar is full at 1 and at its lowest from here down: below that it makes no difference to anybody."""
LOWEST = 0.2
METER_WIDTH = 100
LINE_WIDTH, LINE_HEIGHT = 240, 48
TIMELINE_WIDTH, TIMELINE_HEIGHT = 1000, 24
NARROWEST = 1.5
"""Of a span in a timeline: a short outage in a month is seen all the same."""


def number(value: float) -> str:
    """As SVG takes it, short.

    >>> number(3.0), number(2.346)
    ('3', '2.3')
    """
    return f"{value:.1f}".removesuffix(".0")


def box(x: float, y: float, width: float, height: float) -> str:
    """A rectangle as a piece of a path.

    >>> box(0, 2.5, 5, 10)
    'M0 2.5h5v10h-5z'
    """
    return f"M{number(x)} {number(y)}h{number(width)}v{number(height)}h-{number(width)}z"


# --- bars: one a day --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bars:
    width: int
    height: int
    paths: dict[str, str]
    """By kind (good, warn, bad, none) the path of all bars of this kind."""


def bar_kind(share: float | None) -> str:
    if share is None:
        return "none"
    if share >= GOOD_DAY:
        return "good"
    return "warn" if share >= FAIR_DAY else "bad"


def bars(shares: Sequence[float | None]) -> Bars:
    """One bar for each share of 1, from left to right; None is a stub: nothing is known of that day."""
    paths: dict[str, str] = {}
    for position, share in enumerate(shares):
        part = LOWEST if share is None else max(LOWEST, (share - FLOOR) / (1 - FLOOR))
        height = round(min(part, 1) * BARS_HEIGHT)
        piece = box(position * BAR_STEP, BARS_HEIGHT - height, BAR, height)
        kind = bar_kind(share)
        paths[kind] = paths.get(kind, "") + piece
    return Bars(max(len(shares) * BAR_STEP - (BAR_STEP - BAR), 1), BARS_HEIGHT, paths)


# --- meters: one share ------------------------------------------------------------------------------------------------


def meter(share: float) -> str:
    """How far a bar of METER_WIDTH is filled: not at all only for nothing.

    >>> meter(0), meter(0.0001), meter(0.5)
    ('0', '1', '50')
    """
    return number(max(1.0, min(share, 1) * METER_WIDTH)) if share > 0 else "0"


# --- lines: a figure over time ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    path: str
    """With a new M wherever nothing was told for a while."""
    area: str
    """What lies below the line, in the same pieces."""
    low: float
    high: float
    last: float


def line(
    samples: Iterable[tuple[datetime, float | None]],
    began: datetime,
    ended: datetime,
    gap: timedelta,
    floor: float,
) -> Line | None:
    """A figure from `began` to `ended`; None where fewer than two samples are known.

    The scale begins at `floor`, or at the lowest figure where that is lower still.
    """
    known = [(when, value) for when, value in samples if value is not None and began <= when <= ended]
    if len(known) < 2:
        return None
    low, high = min(value for _, value in known), max(value for _, value in known)
    bottom = min(floor, low)
    top = high if high > bottom else bottom + 1
    total = (ended - began).total_seconds() or 1.0
    points = [
        (
            when,
            (when - began).total_seconds() / total * LINE_WIDTH,
            LINE_HEIGHT - 1 - (value - bottom) / (top - bottom) * (LINE_HEIGHT - 2),
        )
        for when, value in known
    ]
    pieces = _pieces(points, gap)
    return Line("".join(map(_stroke, pieces)), "".join(map(_area, pieces)), low, high, known[-1][1])


Points = list[tuple[float, float]]


def _pieces(points: Sequence[tuple[datetime, float, float]], gap: timedelta) -> list[Points]:
    pieces: list[Points] = []
    before: datetime | None = None
    for when, x, y in points:
        if before is None or when - before > gap:
            pieces.append([])
        pieces[-1].append((x, y))
        before = when
    return pieces


def _stroke(piece: Points) -> str:
    if len(piece) == 1:
        # A lone sample: a dash, since a path without length is not drawn.
        return f"M{number(piece[0][0])} {number(piece[0][1])}h1"
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in piece)


def _area(piece: Points) -> str:
    first, last = number(piece[0][0]), number(piece[-1][0])
    inner = "L".join(f"{number(x)} {number(y)}" for x, y in piece)
    return f"M{first} {LINE_HEIGHT}L{inner}L{last} {LINE_HEIGHT}z"


# --- timelines: states over time --------------------------------------------------------------------------------------


class Span(NamedTuple):
    kind: str
    """good, warn, bad, off or none: how it is drawn."""
    began: datetime
    ended: datetime


HEIGHTS = {"good": 10, "none": 10, "off": 5, "warn": 17, "bad": TIMELINE_HEIGHT}
"""What is wrong stands out by its height too, not by its colour alone."""


def timeline(spans: Iterable[Span], began: datetime, ended: datetime) -> dict[str, str]:
    """By kind the path of its spans, clipped to the time; what is worse comes later, to lie above the rest."""
    total = (ended - began).total_seconds() or 1.0
    paths: dict[str, str] = {}
    for span in spans:
        start, end = max(span.began, began), min(span.ended, ended)
        if end < start or (end == start and span.ended > span.began):
            continue
        x = (start - began).total_seconds() / total * TIMELINE_WIDTH
        width = max((end - start).total_seconds() / total * TIMELINE_WIDTH, NARROWEST)
        height = HEIGHTS[span.kind]
        piece = box(min(x, TIMELINE_WIDTH - width), TIMELINE_HEIGHT - height, width, height)
        paths[span.kind] = paths.get(span.kind, "") + piece
    return {kind: paths[kind] for kind in HEIGHTS if kind in paths}


class Tick(NamedTuple):
    x: str
    percent: str
    when: datetime


_STEPS = [timedelta(hours=hours) for hours in (1, 2, 3, 4, 6, 12, 24, 48, 72, 120, 168, 240, 336, 720)]


def ticks(began: datetime, ended: datetime, most: int = 7) -> list[Tick]:
    """Round UTC times within, `most` of them at most."""
    length = ended - began
    step = next((each for each in _STEPS if length / each <= most), _STEPS[-1])
    midnight = began.replace(hour=0, minute=0, second=0, microsecond=0)
    when = midnight + ((began - midnight) // step) * step
    found = []
    while when <= ended:
        if when >= began:
            share = (when - began) / length
            found.append(Tick(number(share * TIMELINE_WIDTH), number(share * 100), when))
        when += step
    return found
