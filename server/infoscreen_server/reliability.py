"""How reliable the kiosks are: availability, incidents, and the times between and until repair. Rule and reads.

A kiosk is observed from its registration on, but no further back than incidents are kept, and while it is offline up
to when it was last heard of: what happened behind that it will tell later. Of the observed time it was available when
neither its player nor its screen had an incident. Time without connection is no fault of the picture and stands apart,
as `reachable`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Text, bindparam, cast, func, literal_column, or_, select

from infoscreen_server.models import Client, UtcTime
from infoscreen_server.models_history import Incident, IncidentKind

ZERO = timedelta()


Outage = tuple[datetime, datetime | None]
"""When an incident began and when it ended, None while it lasts. Bare, since there are a hundred thousand of them."""


class Window(NamedTuple):
    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return max(ZERO, self.end - self.start)


@dataclass(frozen=True, slots=True)
class Reliability:
    observed: timedelta
    down: timedelta
    """Union of the incidents within the observed time: two at once count once."""
    incidents: int
    """That touched the observed time."""
    repaired: int
    """Of these, the ones that ended within it."""
    repair: timedelta
    """Sum of the whole durations of those."""

    @property
    def availability(self) -> float | None:
        """1 is always; None where nothing was observed."""
        return 1 - self.down / self.observed if self.observed else None

    @property
    def between_failures(self) -> timedelta | None:
        """MTBF; None without an incident."""
        return (self.observed - self.down) / self.incidents if self.incidents else None

    @property
    def to_repair(self) -> timedelta | None:
        """MTTR; None where none ended."""
        return self.repair / self.repaired if self.repaired else None


def observed(window: Window, registered_at: datetime, last_alive: datetime | None, *, online: bool) -> Window:
    """The part of the window in which something is known of a client; it may be empty.

    >>> def at(hour): return datetime(2026, 1, 2, hour, tzinfo=UTC)
    >>> seen = observed(Window(at(0), at(9)), at(2), at(5), online=False)
    >>> seen.start.hour, seen.end.hour
    (2, 5)
    """
    start = max(window.start, registered_at)
    end = window.end if online else min(window.end, last_alive or registered_at)
    return Window(start, max(start, end))


def kept(window: Window, now: datetime, retention: timedelta) -> Window:
    """The part of the window of which nothing was deleted for its age; it may be empty.

    Housekeeping deletes incidents that ended before the retention (housekeeping.prune). Further back a time without
    incidents looks like one whose incidents were deleted.

    >>> def at(hour): return datetime(2026, 1, 2, hour, tzinfo=UTC)
    >>> left = kept(Window(at(0), at(9)), at(9), timedelta(hours=7))
    >>> left.start.hour, left.end.hour
    (2, 9)
    """
    return Window(max(window.start, now - retention), window.end)


def measured(outages: Iterable[Outage], window: Window) -> Reliability:
    """The figures over one observed window. `outages` in order of their beginning; they may overlap.

    One that ends as the window begins, or begins as it ends, is none of the window's: no moment belongs to two windows
    that follow each other.

    >>> def at(minute): return datetime(2026, 1, 2, 3, minute, tzinfo=UTC)
    >>> player, screen = (at(10), at(16)), (at(14), at(20))
    >>> found = measured([player, screen], Window(at(0), at(50)))
    >>> found.availability, found.incidents
    (0.8, 2)
    >>> str(found.between_failures), str(found.to_repair)
    ('0:20:00', '0:06:00')
    """
    start, end = window
    down, repair, incidents, repaired = ZERO, ZERO, 0, 0
    since = reached = start  # the newest stretch without a gap
    for began_at, ended_at in outages if start < end else ():
        if began_at >= end or (began_at < start and ended_at is not None and ended_at <= start):
            continue
        incidents += 1
        until = end
        if ended_at is not None and ended_at <= end:
            repaired += 1
            repair += ended_at - began_at
            until = ended_at
        if began_at > reached:
            down += reached - since
            since, reached = began_at, until
        elif until > reached:
            reached = until
    down += reached - since
    return Reliability(window.length, down, incidents, repaired, repair)


def daily(outages: Sequence[Outage], known: Window, days: Sequence[Window]) -> list[Reliability]:
    """The figures of each day, over the part of it that is known."""
    parts = [Window(max(day.start, known.start), min(day.end, known.end)) for day in days]
    return [measured(outages, part) for part in parts]


def together(figures: Iterable[Reliability]) -> float | None:
    """Availability over windows that follow each other: that of one window as long as all of them.

    Each counts by what of it was observed: ten minutes of a day are no day.

    >>> def figures(observed, down): return Reliability(timedelta(hours=observed), timedelta(hours=down), 0, 0, ZERO)
    >>> together([figures(24, 0), figures(1, 1), figures(0, 0)])
    0.96
    """
    every = list(figures)
    observed_sum = sum((each.observed for each in every), ZERO)
    return 1 - sum((each.down for each in every), ZERO) / observed_sum if observed_sum else None


def last_days(now: datetime, days: int) -> list[Window]:
    """The UTC days up to today, oldest first; today ends now.

    >>> [(day.start.day, day.end.day, day.end.hour) for day in last_days(datetime(2026, 1, 2, 3, tzinfo=UTC), 2)]
    [(1, 2, 0), (2, 2, 3)]
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [today - timedelta(days=back) for back in reversed(range(days))]
    return [Window(start, min(start + timedelta(days=1), now)) for start in starts]


# --- reads ------------------------------------------------------------------------------------------------------------


_CLIENT = (
    Client.uuid,
    Client.name,
    Client.hostname,
    Client.location,
    Client.registered_at,
    Client.last_alive,
    Client.online,
)


def fleet_reliability(
    connection: Connection,
    start: datetime,
    end: datetime,
    now: datetime,
    conditions: Sequence[ColumnElement[bool]] = (),
    *,
    retention: timedelta,
) -> list[dict[str, Any]]:
    """One row per client that meets the conditions, the least available first, then the one with most incidents.

    Incidents are kept for `retention`; what was before that is not observed.

    Keys: uuid, name, hostname, location; availability (0 to 1, None if not observed), incidents, mtbf_s, mttr_s (None
    where there is none), down_s, observed_s, reachable (share of the time since registration, as far as it is kept,
    with a connection).
    """
    window = kept(Window(start, min(end, now)), now, retention)
    clients = connection.execute(select(*_CLIENT).where(*conditions)).all()
    pasts = _pasts(connection, window, [row.uuid for row in clients] if conditions else None)
    # One after the other: the outages of all at once would be a hundred thousand pairs to keep.
    return sorted((_figures(row, window, pasts.get(row.uuid)) for row in clients), key=_worst_first)


def _worst_first(row: dict[str, Any]) -> tuple[bool, float, int, str]:
    known = row["availability"] is not None
    return not known, row["availability"] if known else 0.0, -row["incidents"], row["uuid"]


def _figures(row: Row[Any], window: Window, past: Row[Any] | None) -> dict[str, Any]:
    known = observed(window, row.registered_at, row.last_alive, online=row.online)
    figures = measured(_outages(past, _PICTURE), known)
    present = Window(known.start, max(known.start, window.end))
    reachable = measured(_outages(past, _LINK), present).availability if row.last_alive is not None else None
    return {
        **{name: getattr(row, name) for name in ("uuid", "name", "hostname", "location")},
        "availability": figures.availability,
        "incidents": figures.incidents,
        "mtbf_s": _seconds(figures.between_failures),
        "mttr_s": _seconds(figures.to_repair),
        "down_s": figures.down.total_seconds(),
        "observed_s": figures.observed.total_seconds(),
        "reachable": reachable,
    }


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


_NONE: Any = literal_column("''")
_COMMA: Any = literal_column("','")
"""In the statement and no parameters of it: these would cost SQLite half as much time again."""


def _joined(time: Any, which: ColumnElement[bool]) -> ColumnElement[Any]:
    """The times of these incidents of a group, none left out; in any order, but the same in all columns."""
    return func.aggregate_strings(func.coalesce(cast(time, Text), _NONE), _COMMA).filter(which)


def _both(which: ColumnElement[bool]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return _joined(Incident.began_at, which), _joined(Incident.ended_at, which)


_OF_LINK = Incident.kind == IncidentKind.LINK
_TIMES = (
    select(Incident.client_uuid, *_both(~_OF_LINK), *_both(_OF_LINK))
    .where(or_(Incident.ended_at >= bindparam("since", type_=UtcTime()), Incident.ended_at.is_(None)))
    .group_by(Incident.client_uuid)
)
"""Put together once: that takes longer than to run it for one client. A row for each incident would take the drivers
most of the time.

What began behind a window is for the rule to leave out: asked for, SQLite would take the index that lacks the ends."""
_PICTURE, _LINK = slice(1, 3), slice(3, 5)
"""Where in a row the beginnings and ends of which incidents are."""


def _pasts(connection: Connection, window: Window, uuids: Collection[str] | None) -> dict[str, Row[Any]]:
    """By client what did not end before the window."""
    statement = _TIMES if uuids is None else _TIMES.where(Incident.client_uuid.in_(sorted(uuids)))
    return {row[0]: row for row in connection.execute(statement, {"since": window.start})}


def _outages(past: Sequence[Any] | None, which: slice) -> list[Outage]:
    """In order of their beginning.

    >>> past = ("0b6c", "2026-01-02 03:04:05+00,2026-01-01T00:00:00.500000Z", ",2026-01-03 00:00:00+00", None, None)
    >>> for began_at, ended_at in _outages(past, _PICTURE):
    ...     print(began_at, ended_at)
    2026-01-01 00:00:00.500000+00:00 2026-01-03 00:00:00+00:00
    2026-01-02 03:04:05+00:00 None
    """
    began, ended = (None, None) if past is None else past[which]
    if began is None or ended is None:
        return []
    ends = [datetime.fromisoformat(text) if text else None for text in ended.split(",")]
    return sorted(zip(map(datetime.fromisoformat, began.split(",")), ends, strict=True), key=itemgetter(0))


def daily_availability(
    connection: Connection, uuids: Collection[str], days: int, now: datetime, *, retention: timedelta
) -> dict[str, list[Reliability]]:
    """For each of these clients its figures on each of the last UTC days, oldest first, today up to now.

    Nothing is observed of a day of which nothing is known, nor kept: incidents are for `retention`.
    """
    spans = last_days(now, days)
    window = kept(Window(spans[0].start, now), now, retention)
    pasts = _pasts(connection, window, uuids)
    rows = connection.execute(select(*_CLIENT).where(Client.uuid.in_(sorted(uuids))))
    answer: dict[str, list[Reliability]] = {}
    for row in rows:
        known = observed(window, row.registered_at, row.last_alive, online=row.online)
        answer[row.uuid] = daily(_outages(pasts.get(row.uuid), _PICTURE), known, spans)
    return answer
