"""Writes events and the incidents that they make.

What comes behind all that there was goes on from the newest incidents; what comes late has the part behind it folded
anew. As in chronicle, the clients are locked by the transaction that this is part of.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import aliased

from infoscreen_server.db import insert_or, portions
from infoscreen_server.happenings import Happenings
from infoscreen_server.incidents import PLAYER, SCREEN, TOLD, Event, Told, contradictions, fold, thin
from infoscreen_server.incidents import Incident as Found
from infoscreen_server.models import Client, UtcTime
from infoscreen_server.models_history import Incident, IncidentBacklog, IncidentEvent, IncidentKind

FOLD_EVENTS = 2_000
"""Folded anew in one ingest: some 20 ms. A client with more has an incident of days, and housekeeping does it."""

EVENTS_KEPT = 2_000
"""The newest of one incident, however long it lasts, besides its first; those of two such numbers make it overfull."""

_KINDS = (PLAYER, SCREEN)
_other = aliased(Incident)
_FOUND = tuple(getattr(Incident, name) for name in Found._fields)
_EVENT = tuple(getattr(IncidentEvent, name) for name in Event._fields)


def make_incidents(connection: Connection, past: Happenings) -> None:
    told = {uuid: words for uuid, words in past.told.items() if any(one.state in TOLD for one in words)}
    if not past.events and not told:
        return
    waiting = _backlog(connection, sorted({*past.events, *told}))
    _enter(connection, past.events, waiting)
    # Their records say it better where they do; and these are in by now.
    newest = _to_compare(connection, {uuid: words for uuid, words in told.items() if uuid not in waiting})
    _enter(connection, {uuid: contradictions(told[uuid], last) for uuid, last in newest.items()}, waiting)


def _backlog(connection: Connection, uuids: list[str]) -> dict[str, datetime]:
    columns = (IncidentBacklog.client_uuid, IncidentBacklog.since)
    found: dict[str, datetime] = {}
    for some in portions(uuids):
        rows = connection.execute(select(*columns).where(IncidentBacklog.client_uuid.in_(some)))
        found.update((uuid, since) for uuid, since in rows)
    return found


def _enter(connection: Connection, events: Mapping[str, list[Event]], waiting: dict[str, datetime]) -> None:
    """Store events and make them into incidents, or leave that to housekeeping where it is too much."""
    uuids = sorted(uuid for uuid, fresh in events.items() if fresh)
    if not uuids:
        return
    latest = _latest_events(connection, uuids)
    connection.execute(
        insert(IncidentEvent), [{"client_uuid": uuid, **event._asdict()} for uuid in uuids for event in events[uuid]]
    )
    behind: list[str] = []
    for uuid in uuids:
        since = min(event.at for event in events[uuid])
        if uuid in waiting:
            if since < waiting[uuid]:
                _postpone(connection, uuid, since)
                waiting[uuid] = since
        elif uuid not in latest or latest[uuid] < since:
            behind.append(uuid)
        elif not refold(connection, uuid, since, FOLD_EVENTS):
            _postpone(connection, uuid, since)
            waiting[uuid] = since
    _append(connection, {uuid: events[uuid] for uuid in behind})


def _latest_events(connection: Connection, uuids: list[str]) -> dict[str, datetime]:
    """When the newest event of each was; a look into the index for each."""
    newest = select(func.max(IncidentEvent.at)).where(IncidentEvent.client_uuid == Client.uuid).scalar_subquery()
    found: dict[str, datetime] = {}
    for some in portions(uuids):
        rows = connection.execute(select(Client.uuid, newest).where(Client.uuid.in_(some)))
        found.update((uuid, when) for uuid, when in rows if when is not None)
    return found


def _append(connection: Connection, events: Mapping[str, list[Event]]) -> None:
    """Events that come behind all that there were, as they mostly do: the newest incidents are enough to go on."""
    last = _newest(connection, sorted(events))
    changes = _Changes([], [], [])
    for uuid, fresh in events.items():
        old = {one: number for number, one in last.get(uuid, [])}
        changes.compare(uuid, old, fold(fresh, old))
    changes.write(connection)


def _newest(connection: Connection, uuids: list[str]) -> dict[str, list[tuple[int, Found]]]:
    """The newest incident of each kind of these clients, with its number."""

    def newest(kind: IncidentKind) -> Any:
        statement = select(_other.id).where(_other.client_uuid == Client.uuid, _other.kind == kind)
        return statement.order_by(_other.began_at.desc()).limit(1).scalar_subquery()

    found: dict[str, list[tuple[int, Found]]] = {}
    for some in portions(uuids):
        statement = (
            select(Incident.client_uuid, Incident.id, *_FOUND)
            .join(Client, Incident.id.in_([newest(kind) for kind in _KINDS]))
            .where(Client.uuid.in_(some))
        )
        for uuid, number, *values in connection.execute(statement):
            found.setdefault(uuid, []).append((number, Found(*values)))
    return found


def _to_compare(connection: Connection, told: Mapping[str, list[Told]]) -> dict[str, list[Found]]:
    """The incidents that may contradict what was told: where all is said to be well, only those that last."""
    wary = sorted(uuid for uuid, words in told.items() if any(TOLD.get(one.state, (None, False))[1] for one in words))
    found: dict[str, list[Found]] = {uuid: [] for uuid in wary}
    for uuid, last in _newest(connection, wary).items():
        found[uuid] = [one for _number, one in last]
    for some in portions(sorted(told.keys() - found.keys())):
        statement = select(Incident.client_uuid, *_FOUND).where(
            Incident.ended_at.is_(None), Incident.client_uuid.in_(some), Incident.kind.in_(_KINDS)
        )
        for uuid, *values in connection.execute(statement):
            found.setdefault(uuid, []).append(Found(*values))
    return found


def _postpone(connection: Connection, uuid: str, since: datetime) -> None:
    statement = insert_or(connection, IncidentBacklog)
    earliest = statement.on_conflict_do_update(index_elements=["client_uuid"], set_={"since": statement.excluded.since})
    connection.execute(earliest, [{"client_uuid": uuid, "since": since}])


# --- folded anew ------------------------------------------------------------------------------------------------------


class _Base(NamedTuple):
    """Where a fold may begin so that all before it stands."""

    since: datetime
    last: list[tuple[int, Found]]


def _base(connection: Connection, uuid: str, since: datetime) -> _Base:
    """Before the incidents that events from `since` on have made or changed; those ahead of them stand as they are."""
    while True:
        last = _before(connection, uuid, since)
        touched = [one.began_at for _number, one in last if one.last_event_at >= since]
        if not touched:
            return _Base(since, last)
        since = min(touched)


def _before(connection: Connection, uuid: str, when: datetime) -> list[tuple[int, Found]]:
    """The newest incident of each kind that began before then, with its number."""
    found: list[tuple[int, Found]] = []
    for kind in _KINDS:
        same = (Incident.client_uuid == uuid, Incident.kind == kind, Incident.began_at < when)
        statement = select(Incident.id, *_FOUND).where(*same).order_by(Incident.began_at.desc()).limit(1)
        found += [(number, Found(*values)) for number, *values in connection.execute(statement)]
    return found


def refold(connection: Connection, uuid: str, since: datetime, limit: int | None = None) -> bool:
    """Make the incidents of a client what its events say, given that these are new from `since` on.

    False, and nothing is done, if that takes more than `limit` events.
    """
    base = _base(connection, uuid, since)
    of_client = (IncidentEvent.client_uuid == uuid, IncidentEvent.at >= base.since)
    statement = select(*_EVENT).where(*of_client).order_by(IncidentEvent.at)
    rows = connection.execute(statement if limit is None else statement.limit(limit + 1)).all()
    if limit is not None and len(rows) > limit:
        return False
    last = {one: number for number, one in base.last}
    touched = (Incident.client_uuid == uuid, Incident.kind.in_(_KINDS), Incident.began_at >= base.since)
    replaced = connection.execute(select(Incident.id, *_FOUND).where(*touched))
    old = last | {Found(*values): number for number, *values in replaced}
    changes = _Changes([], [], [])
    changes.compare(uuid, old, fold((Event(*row) for row in rows), last))
    changes.write(connection)
    return True


_UPDATE_INCIDENT = (
    update(Incident)
    .where(Incident.id == bindparam("of_id"))
    .values({name: bindparam(f"new_{name}") for name in Found._fields})
)


class _Changes(NamedTuple):
    """What makes the incidents that are there those that should be."""

    gone: list[int]
    changed: list[dict[str, Any]]
    fresh: list[dict[str, Any]]

    def compare(self, uuid: str, old: Mapping[Found, int], new: Iterable[Found]) -> None:
        """An incident that began at the same time is the same one, and keeps its number."""
        numbers = {(one.kind, one.began_at): number for one, number in old.items()}
        for one in new:
            number = numbers.pop((one.kind, one.began_at), None)
            if number is None:
                self.fresh.append({"client_uuid": uuid, **one._asdict()})
            elif one not in old:
                self.changed.append(
                    {"of_id": number, **{f"new_{name}": value for name, value in one._asdict().items()}}
                )
        self.gone.extend(numbers.values())

    def write(self, connection: Connection) -> None:
        for some in portions(sorted(self.gone)):
            connection.execute(delete(Incident).where(Incident.id.in_(some)))
        if self.changed:
            # Those that have ended first: of a kind one may last.
            ended_first = sorted(self.changed, key=lambda row: row["new_ended_at"] is None)
            connection.execute(_UPDATE_INCIDENT, ended_first)
        if self.fresh:
            connection.execute(insert(Incident), self.fresh)


# --- long incidents ---------------------------------------------------------------------------------------------------


def overfull(connection: Connection, uuid: str) -> list[datetime]:
    """When the incidents of this client began that have more than twice EVENTS_KEPT events."""
    of_client = IncidentEvent.client_uuid == uuid
    too_many = select(IncidentEvent.id).where(of_client).order_by(IncidentEvent.at).limit(1).offset(2 * EVENTS_KEPT)
    if connection.execute(too_many).first() is None:
        return []
    own = IncidentEvent.at.between(Incident.began_at, Incident.last_event_at)
    statement = select(Incident.began_at).where(
        Incident.client_uuid == uuid, Incident.kind.in_(_KINDS), too_many.where(own).exists()
    )
    return sorted(set(connection.scalars(statement)))


def thin_out(connection: Connection, uuid: str, began_at: datetime, before: datetime) -> int:
    """Leave out the oldest events that `thin` can do without of an incident; its newest EVENTS_KEPT stay.

    Only such as are older than `before`: of later ones not all are here yet.
    Returns how many are gone: few, or none, if this leads no further. At most FOLD_EVENTS are looked at.
    """
    of_client = IncidentEvent.client_uuid == uuid
    ends = select(func.max(Incident.last_event_at, type_=UtcTime())).where(
        Incident.client_uuid == uuid, Incident.kind.in_(_KINDS), Incident.began_at == began_at
    )
    last_event_at = connection.execute(ends).scalar()
    if last_event_at is None:
        return 0
    newest = select(IncidentEvent.at).where(of_client, IncidentEvent.at.between(began_at, last_event_at))
    stays = connection.execute(newest.order_by(IncidentEvent.at.desc()).limit(1).offset(EVENTS_KEPT - 1)).scalar()
    if stays is None:
        return 0
    stays = min(stays, before)
    base = _base(connection, uuid, began_at)
    statement = select(IncidentEvent.id, *_EVENT).where(of_client, IncidentEvent.at >= base.since)
    statement = statement.where(IncidentEvent.at < stays).order_by(IncidentEvent.at).limit(FOLD_EVENTS + 1)
    rows = list(connection.execute(statement))
    if len(rows) > FOLD_EVENTS:
        # Of one time all or none: the fold has an order of its own among them.
        rows = [row for row in rows if row.at < rows[-1].at]
    found = sorted(((Event(*values), number) for number, *values in rows), key=lambda one: one[0].place)
    thinned = thin([event for event, _number in found], [one for _number, one in base.last])
    for some in portions([found[place][1] for place in thinned.gone]):
        connection.execute(delete(IncidentEvent).where(IncidentEvent.id.in_(some)))
    if thinned.instead:
        connection.execute(insert(IncidentEvent), [{"client_uuid": uuid, **one._asdict()} for one in thinned.instead])
    return len(thinned.gone) - len(thinned.instead)


# --- the end of what is too old ---------------------------------------------------------------------------------------


def forget(connection: Connection, uuid: str, limit: datetime) -> None:
    """Delete what ended before then, an incident with all its events or not at all.

    What overlaps one that stays, stays with it: what is left still folds into what is left.
    """
    columns = (Incident.began_at, Incident.ended_at, Incident.last_event_at)
    of_client = (Incident.client_uuid == uuid, Incident.kind.in_(_KINDS))
    newest_first = select(*columns).where(*of_client, Incident.began_at < limit).order_by(Incident.last_event_at.desc())
    horizon = limit
    # Of those that last the events may go on.
    rows = sorted(connection.execute(newest_first), key=lambda row: row.ended_at is not None)
    for began_at, ended_at, last_event_at in rows:
        if ended_at is None or last_event_at >= horizon:
            horizon = min(horizon, began_at)
    connection.execute(delete(Incident).where(*of_client, Incident.began_at < horizon))
    connection.execute(delete(IncidentEvent).where(IncidentEvent.client_uuid == uuid, IncidentEvent.at < horizon))
