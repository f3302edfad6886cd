"""What was: the states of one client over a time, and incidents. Reads only; times in the answers are aware UTC.

How they come about: chronicle and incident_store (at ingest and in housekeeping), incidents (the rule).
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, or_, select, tuple_

from infoscreen_server.models import Client
from infoscreen_server.models_history import Incident, IncidentKind, SpanKind, StateSpan
from infoscreen_server.queries import Cursor


class Period(StrEnum):
    """How far back one may look, as it stands in addresses."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "90d"

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]


_LENGTHS = {
    Period.DAY: timedelta(days=1),
    Period.WEEK: timedelta(days=7),
    Period.MONTH: timedelta(days=30),
    Period.QUARTER: timedelta(days=90),
}

MAX_SPANS = 20_000
"""Of one kind read for one picture, the newest: a month of another state every two minutes."""
MAX_SEGMENTS = 500
"""Of one kind in one picture: as many as can be told apart. `condensed` makes so many out of more."""

# --- the timeline of one client ---------------------------------------------------------------------------------------


class Segment(NamedTuple):
    state: str
    began_at: datetime
    ended_at: datetime
    known: bool = True
    """False where the client was not heard of: this is the last that it told."""
    lasting: bool = False
    """It goes on behind the end of the window."""


def timeline(
    connection: Connection, uuid: str, start: datetime, end: datetime, now: datetime, *, retention: timedelta
) -> dict[str, list[Segment]]:
    """Per kind (link, process, screen) what a client's state was from `start` to `end`, oldest first, without overlap.

    Where it was offline, process and screen are its last known (`known` is false). Times of which nothing is known are
    left out, and what was longer ago than states are kept (`retention`): a state that lasts is still there from before
    that, but not the silence that it went through. All lengths are the true ones; to draw many, see `condensed`.
    """
    start, end = max(start, now - retention), min(end, now)
    found = _spans(connection, uuid, start, end)
    offline = [each for each in found[SpanKind.LINK] if each.state == "offline"]
    for kind in (SpanKind.PROCESS, SpanKind.SCREEN):
        found[kind] = list(overlaid(found[kind], offline))
    return {str(kind): segments for kind, segments in found.items()}


def _spans(connection: Connection, uuid: str, start: datetime, end: datetime) -> dict[str, list[Segment]]:
    newest = StateSpan.began_at.desc(), StateSpan.id.desc()
    place = func.row_number().over(partition_by=StateSpan.kind, order_by=newest).label("place")
    spans = (
        select(StateSpan.kind, StateSpan.state, StateSpan.began_at, StateSpan.ended_at, StateSpan.id, place)
        .where(StateSpan.client_uuid == uuid, StateSpan.began_at < end)
        .where(or_(StateSpan.ended_at.is_(None), StateSpan.ended_at > start))
        .subquery()
    )
    statement = select(spans).where(spans.c.place <= MAX_SPANS).order_by(spans.c.began_at, spans.c.id)
    found: dict[str, list[Segment]] = {kind: [] for kind in SpanKind}
    for row in connection.execute(statement):
        until = end if row.ended_at is None else min(row.ended_at, end)
        lasting = row.ended_at is None or row.ended_at > end
        found[row.kind].append(Segment(row.state, max(row.began_at, start), until, lasting=lasting))
    return found


def overlaid(segments: Iterable[Segment], offline: Sequence[Segment]) -> Iterable[Segment]:
    """The segments, cut at the borders of the offline ones and not `known` within them. Both are in order.

    >>> from datetime import UTC
    >>> def at(minute): return datetime(2026, 1, 2, 3, minute, tzinfo=UTC)
    >>> silent = [Segment("offline", at(2), at(4))]
    >>> for part in overlaid([Segment("running", at(1), at(5))], silent):
    ...     print(part.began_at.minute, part.ended_at.minute, part.known)
    1 2 True
    2 4 False
    4 5 True
    """
    place = 0
    for segment in segments:
        while place < len(offline) and offline[place].ended_at <= segment.began_at:
            place += 1
        left, ahead = segment.began_at, place
        while ahead < len(offline) and offline[ahead].began_at < segment.ended_at:
            silent = offline[ahead]
            if left < silent.began_at:
                yield segment._replace(began_at=left, ended_at=silent.began_at, lasting=False)
            till = min(silent.ended_at, segment.ended_at)
            start = max(left, silent.began_at)
            if start < till:
                lasting = segment.lasting and till == segment.ended_at
                yield segment._replace(began_at=start, ended_at=till, known=False, lasting=lasting)
            left, ahead = max(left, till), ahead + 1
        if left < segment.ended_at or segment.began_at == segment.ended_at:
            yield segment._replace(began_at=left)


_BAD = frozenset({"crashed", "BLACK", "FROZEN", "offline"})
GOOD = frozenset({"running", "OK", "online"})
"""One of each kind: nobody is needed."""


def _badness(segment: Segment) -> int:
    return 2 if segment.state in _BAD else 0 if segment.state in GOOD else 1


def condensed(segments: Sequence[Segment], start: datetime, end: datetime, most: int = MAX_SEGMENTS) -> list[Segment]:
    """At most `most` segments: if there are more, each of so many equal stretches shows the worst of its states.

    For drawing alone: a state then has the lengths of its stretches, and three minutes may become an hour and a half.

    >>> from datetime import UTC
    >>> def at(minute): return datetime(2026, 1, 2, 3, minute, tzinfo=UTC)
    >>> many = [Segment("crashed" if minute == 7 else "running", at(minute), at(minute + 1)) for minute in range(20)]
    >>> for part in condensed(many, at(0), at(20), 4):
    ...     print(part.state, part.began_at.minute, part.ended_at.minute)
    running 0 5
    crashed 5 10
    running 10 20
    """
    if len(segments) <= most:
        return list(segments)
    step = (end - start) / most
    found: list[Segment] = []
    worst: dict[int, Segment] = {}
    for segment in segments:
        first = min(most - 1, max(0, (segment.began_at - start) // step))
        last = max(first, min(most - 1, _before(segment.ended_at - start, step)))
        for slot in range(first, last + 1):
            if slot not in worst or _badness(segment) > _badness(worst[slot]):
                worst[slot] = segment
    for slot in sorted(worst):
        shown = worst[slot]._replace(began_at=start + slot * step, ended_at=start + (slot + 1) * step, lasting=False)
        if (
            found
            and found[-1][2] == shown.began_at
            and (found[-1].state, found[-1].known) == (shown.state, shown.known)
        ):
            found[-1] = found[-1]._replace(ended_at=shown.ended_at)
        else:
            found.append(shown)
    found[-1] = found[-1]._replace(lasting=segments[-1].lasting)
    return found


def _before(length: timedelta, step: timedelta) -> int:
    """The slot that ends at or holds this place: a segment that ends on a border is not in the slot behind it."""
    slot, rest = divmod(length, step)
    return slot if rest else slot - 1


# --- incidents --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IncidentPage:
    incidents: list[dict[str, Any]]
    following: Cursor | None
    """Where the next page begins; None if there is nothing older."""


_COLUMNS = (
    Incident.id,
    Incident.client_uuid,
    Incident.kind,
    Incident.began_at,
    Incident.ended_at,
    Incident.code,
    Incident.message,
    Incident.restarts,
    Incident.last_event_at,
)


def incidents_page(
    connection: Connection,
    uuid: str | None = None,
    *,
    kinds: Collection[IncidentKind] = (),
    limit: int,
    before: Cursor | None = None,
    since: datetime | None = None,
) -> IncidentPage:
    """Incidents of one client, or of all (`uuid` None, then with the client's `name` and `hostname`), newest first.

    `kinds`: only these, none for all. `since`: only those that began then or later. Keys: id, client_uuid, kind,
    began_at, ended_at (None while it lasts), code, message, restarts, last_event_at.
    """
    columns = _COLUMNS if uuid is not None else (*_COLUMNS, Client.name, Client.hostname)
    statement = select(*columns)
    if uuid is not None:
        statement = statement.where(Incident.client_uuid == uuid)
    else:
        statement = statement.join(Client, Client.uuid == Incident.client_uuid)
    if kinds:
        statement = statement.where(Incident.kind.in_(sorted(kinds)))
    if since is not None:
        statement = statement.where(Incident.began_at >= since)
    if before is not None:
        statement = statement.where(tuple_(Incident.began_at, Incident.id) < before.bound)
    statement = statement.order_by(Incident.began_at.desc(), Incident.id.desc()).limit(limit + 1)
    rows = [dict(row._mapping) for row in connection.execute(statement)]
    page, more = rows[:limit], len(rows) > limit
    return IncidentPage(page, Cursor(page[-1]["began_at"], page[-1]["id"]) if more else None)


def open_incidents(connection: Connection, uuids: Collection[str] | None = None) -> list[dict[str, Any]]:
    """What lasts: of these clients, or of all; the oldest first. The same keys as `incidents_page`."""
    statement = select(*_COLUMNS).where(Incident.ended_at.is_(None))
    if uuids is not None:
        statement = statement.where(Incident.client_uuid.in_(sorted(uuids)))
    rows = connection.execute(statement.order_by(Incident.began_at, Incident.id))
    return [dict(row._mapping) for row in rows]
