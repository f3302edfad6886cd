"""What a client's states were, shaped for its page: bars, how much of the time each state had, a table. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_server.history import Period
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.pages import charts, words

PERIODS = {Period.DAY: lazy("24 hours"), Period.WEEK: lazy("7 days"), Period.MONTH: lazy("30 days")}
TITLES = {"link": lazy("Connection"), "process": lazy("Player"), "screen": lazy("Screen")}
MOST_ROWS = 30
"""Of one kind in the table: the newest."""


class Share(NamedTuple):
    state: str
    share: float


@dataclass(frozen=True, slots=True)
class Track:
    """One kind of state over a time."""

    title: str
    paths: dict[str, str]
    shares: list[Share]
    """Of the whole time, the largest first; the rest is not known."""
    label: str
    rows: list[dict[str, Any]]
    """The newest segments, newest first."""
    more: int
    """How many older ones there are."""


def period_of(text: str | None, known: Collection[Period], usual: Period) -> Period:
    """Out of an address, in which anything may stand."""
    return next((each for each in known if each == text), usual)


def tracks(segments: dict[str, list[dict[str, Any]]], began: datetime, ended: datetime) -> list[Track]:
    return [_track(kind, segments.get(kind, []), began, ended) for kind in TITLES]


def _track(kind: str, segments: Sequence[dict[str, Any]], began: datetime, ended: datetime) -> Track:
    spans = [charts.Span(_drawn(each), each["began_at"], each["ended_at"]) for each in segments]
    shares = _shares(segments, ended - began)
    told = ", ".join(f"{words.word(state)} {words.percent(share)}" for state, share in shares)
    title = gettext(TITLES[kind])
    label = gettext("%(what)s: %(told)s", what=title, told=told or gettext("nothing known"))
    newest = [_row(each) for each in reversed(segments[-MOST_ROWS:])]
    paths = charts.timeline(spans, began, ended)
    return Track(title, paths, shares, label, newest, max(0, len(segments) - MOST_ROWS))


def _drawn(segment: dict[str, Any]) -> str:
    return words.kind(segment["state"]) if segment["known"] else "off"


def _shares(segments: Sequence[dict[str, Any]], whole: timedelta) -> list[Share]:
    """What was only last known counts as offline."""
    lengths: dict[str, timedelta] = {}
    for each in segments:
        state = each["state"] if each["known"] else "offline"
        lengths[state] = lengths.get(state, timedelta()) + (each["ended_at"] - each["began_at"])
    found = [Share(state, length / whole) for state, length in lengths.items() if length]
    return sorted(found, key=lambda share: -share.share)


def _row(segment: dict[str, Any]) -> dict[str, Any]:
    return segment | {"seconds": (segment["ended_at"] - segment["began_at"]).total_seconds()}
