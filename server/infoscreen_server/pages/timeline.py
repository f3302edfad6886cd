"""What a client's states were, shaped for its page: bars, how much of the time each state had, a table. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_server.history import GOOD, Period, Segment, condensed
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.pages import charts, words

PERIODS = {Period.DAY: lazy("24 hours"), Period.WEEK: lazy("7 days"), Period.MONTH: lazy("30 days")}
TITLES = {"link": lazy("Connection"), "process": lazy("Player"), "screen": lazy("Screen")}
MOST_ROWS = 30
"""Of one kind in the table: the newest, and of more than so many the newest when something was not well."""


class Share(NamedTuple):
    state: str
    share: float


@dataclass(frozen=True, slots=True)
class Track:
    """One kind of state over a time."""

    title: str
    paths: dict[str, str]
    shares: list[Share]
    """Of the whole time, the largest first; the rest is not known. True ones, however coarse the paths are."""
    label: str
    rows: list[dict[str, Any]]
    """Segments as long as they were, newest first; `seconds` is the length."""
    more: int
    """How many were left out of the rows (see MOST_ROWS)."""


def period_of(text: str | None, known: Collection[Period], usual: Period) -> Period:
    """Out of an address, in which anything may stand."""
    return next((each for each in known if each == text), usual)


def tracks(segments: dict[str, list[Segment]], began: datetime, ended: datetime) -> list[Track]:
    return [_track(kind, segments.get(kind, []), began, ended) for kind in TITLES]


def _track(kind: str, segments: Sequence[Segment], began: datetime, ended: datetime) -> Track:
    drawn = condensed(segments, began, ended)
    spans = [charts.Span(_drawn(each), each.began_at, each.ended_at) for each in drawn]
    shares = _shares(segments, ended - began)
    told = ", ".join(f"{words.word(state)} {words.percent(share)}" for state, share in shares)
    title = gettext(TITLES[kind])
    label = gettext("%(what)s: %(told)s", what=title, told=told or gettext("nothing known"))
    told_of = _told_of(segments)
    rows = [_row(each) for each in reversed(told_of)]
    return Track(title, charts.timeline(spans, began, ended), shares, label, rows, len(segments) - len(rows))


def _told_of(segments: Sequence[Segment]) -> Sequence[Segment]:
    """What stands in the table: all, if they are few; otherwise the newest that tell of something (MOST_ROWS)."""
    if len(segments) <= MOST_ROWS:
        return segments
    bad = [each for each in segments if not each.known or each.state not in GOOD]
    return (bad or segments)[-MOST_ROWS:]


def _drawn(segment: Segment) -> str:
    return words.kind(segment.state) if segment.known else "off"


def _shares(segments: Sequence[Segment], whole: timedelta) -> list[Share]:
    """What was only last known counts as offline."""
    lengths: dict[str, timedelta] = {}
    for each in segments:
        state = each.state if each.known else "offline"
        lengths[state] = lengths.get(state, timedelta()) + (each.ended_at - each.began_at)
    found = [Share(state, length / whole) for state, length in lengths.items() if length]
    return sorted(found, key=lambda share: -share.share)


def _row(segment: Segment) -> dict[str, Any]:
    return segment._asdict() | {"seconds": (segment.ended_at - segment.began_at).total_seconds()}
