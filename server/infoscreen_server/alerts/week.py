"""A weekly table as people write it: for each day "08:00-12:00, 13:00-18:00". Pure."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

from infoscreen_server.alerts.hours import DAY_MINUTES, Hours, Span

MOST_SPANS = 10
MOST_CLOSED = 400
_SPAN = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)\s*[-–]\s*([01]?\d|2[0-4]):([0-5]\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_POINTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})", re.ASCII)
_DASH = re.compile(r"(?<=\d)(?:\s*[–—]\s*|\s+-\s+)(?=\d)", re.ASCII)
"""Between the first and the last of a run."""


def day(text: str) -> tuple[Span, ...]:
    """Raises ValueError for what is no list of spans, and for spans that overlap.

    >>> day("8:00-12:00, 22:00-02:00")
    (Span(begin=480, end=720), Span(begin=1320, end=120))
    >>> day("")
    ()
    """
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    spans = sorted((_span(piece) for piece in pieces), key=lambda span: span.begin)
    if len(spans) > MOST_SPANS:
        raise ValueError("too many")
    for one, following in pairwise(spans):
        if one.end > following.begin or one.end <= one.begin:
            raise ValueError("they overlap")
    return tuple(spans)


def _span(text: str) -> Span:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError("no span")
    hour, minute, until_hour, until_minute = map(int, found.groups())
    begin, end = hour * 60 + minute, until_hour * 60 + until_minute
    if begin >= DAY_MINUTES or end > DAY_MINUTES or begin == end:
        raise ValueError("no span")
    # Midnight is the end of this day and the begin of the next.
    return Span(begin, end or DAY_MINUTES)


def day_text(spans: Sequence[Span]) -> str:
    """
    >>> day_text(day("8:00-12:00, 13:00 - 24:00"))
    '08:00-12:00, 13:00-24:00'
    """
    return ", ".join(f"{clock(span.begin)}-{clock(span.end)}" for span in spans)


def clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def dates(text: str) -> frozenset[date]:
    """Of dates and runs of them, with blanks, commas or line breaks between. Raises ValueError.

    >>> sorted(dates("2026-12-24, 26.12.2026")) == [date(2026, 12, 24), date(2026, 12, 26)]
    True
    >>> len(dates("2026-12-24 – 2027-01-06"))
    14
    """
    found: set[date] = set()
    for piece in filter(None, re.split(r"[\s,;]+", _DASH.sub("/", text))):
        first, _, last = piece.partition("/")
        begin, end = _date(first), _date(last or first)
        if not 0 <= (end - begin).days < MOST_CLOSED:
            raise ValueError("no run of dates")
        found |= {begin + timedelta(days=number) for number in range((end - begin).days + 1)}
        if len(found) > MOST_CLOSED:
            raise ValueError("too many")
    return frozenset(found)


def _date(text: str) -> date:
    if _DATE.fullmatch(text):
        return date.fromisoformat(text)
    found = _POINTED.fullmatch(text)
    if found is None:
        raise ValueError("no date")
    return date(int(found[3]), int(found[2]), int(found[1]))


def runs(days: Iterable[date]) -> list[tuple[date, date]]:
    """Days in a row as the first and the last of them.

    >>> [(str(first), str(last)) for first, last in runs(dates("2026-12-24 2026-12-25 2026-12-27"))]
    [('2026-12-24', '2026-12-25'), ('2026-12-27', '2026-12-27')]
    """
    found: list[tuple[date, date]] = []
    for each in sorted(days):
        if found and each - found[-1][1] == timedelta(days=1):
            found[-1] = found[-1][0], each
        else:
            found.append((each, each))
    return found


def dates_text(days: Iterable[date]) -> str:
    """As people write them, a line each.

    >>> dates_text(dates("2026-12-24 – 2027-01-06, 2026-05-01")).splitlines()
    ['2026-05-01', '2026-12-24 – 2027-01-06']
    """
    return "\n".join(str(first) if first == last else f"{first} – {last}" for first, last in runs(days))


@cache
def zones() -> tuple[str, ...]:
    """Worth offering: places, and UTC."""
    named = (name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "SystemV/")))
    return (*sorted(named), "UTC")


def zone(name: str) -> ZoneInfo:
    """Raises ValueError. Only names of the list: others would be paths of files."""
    if name not in zones():
        raise ValueError("no zone")
    return ZoneInfo(name)


def table_text(hours: Hours) -> list[str]:
    return [day_text(spans) for spans in hours.week]
