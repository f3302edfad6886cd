"""Writes what was: issues counted, spans of states, events and the incidents that they make, samples of facts.

In the transaction of the ingest that it came with (or of housekeeping), which has the clients locked: so nobody else
writes the same clients' history meanwhile. happenings says what there is to write, incidents how events become
incidents. What is done grows with the new events, never with the log.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, insert, select, update

from infoscreen_server.db import insert_or, portions
from infoscreen_server.happenings import Happenings, Turn
from infoscreen_server.incidents import PLAYER, SCREEN, TOLD, Event, contradictions, fold
from infoscreen_server.incidents import Incident as Found
from infoscreen_server.models_history import (
    FactSample,
    Incident,
    IncidentBacklog,
    IncidentEvent,
    IncidentKind,
    IssueCount,
    SpanKind,
    StateSpan,
)

FOLD_EVENTS = 2_000
"""Folded anew in one ingest: some 20 ms. A client with more has an incident of days, and housekeeping does it."""
OFFLINE, OFFLINE_CODE = "offline", "link.offline"


def write(connection: Connection, past: Happenings) -> None:
    _count_issues(connection, past)
    turn(connection, past.turns)
    _make_incidents(connection, past)
    _sample(connection, past)


# --- issues -----------------------------------------------------------------------------------------------------------


def _count_issues(connection: Connection, past: Happenings) -> None:
    rows = [
        {
            **key._asdict(),
            "client_uuid": key.uuid,
            "n": found.n,
            "last_at": found.last_at,
            "last_message": found.last_message,
        }
        for key, found in sorted(past.issues.items())
    ]
    if not rows:
        return
    for row in rows:
        del row["uuid"]
    statement = insert_or(connection, IssueCount)
    new = statement.excluded
    later = new.last_at >= IssueCount.last_at
    values = {
        "n": IssueCount.n + new.n,
        "last_at": case((later, new.last_at), else_=IssueCount.last_at),
        "last_message": case((later, new.last_message), else_=IssueCount.last_message),
    }
    connection.execute(
        statement.on_conflict_do_update(index_elements=["client_uuid", "level", "code"], set_=values), rows
    )


# --- spans of states --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Span:
    state: str
    began_at: datetime
    ended_at: datetime | None = None
    id: int | None = None
    """None: not in the database yet."""


def turn(connection: Connection, turns: Collection[Turn]) -> None:
    """End what lasted, begin what lasts from now on; offline spans are incidents too. The clients are locked.

    A time before the beginning of what lasts (a clock was set back) counts as that beginning: then the span that
    would have no length becomes the new one.
    """
    if not turns:
        return
    old = _open_spans(connection, sorted({one.uuid for one in turns}))
    before = {key: _Span(span.state, span.began_at, None, span.id) for key, span in old.items()}
    after: dict[tuple[str, SpanKind], list[_Span]] = {key: [span] for key, span in old.items()}
    for uuid, kind, state, at in turns:
        spans = after.setdefault((uuid, kind), [])
        last = spans[-1] if spans else None
        if last is None:
            spans.append(_Span(state, at))
        elif at <= last.began_at:
            last.state = state
        elif last.state != state:
            last.ended_at = at
            spans.append(_Span(state, at))
    _write_spans(connection, before, after)
    _write_link_incidents(connection, before, after)


def _open_spans(connection: Connection, uuids: list[str]) -> dict[tuple[str, SpanKind], _Span]:
    columns = (StateSpan.client_uuid, StateSpan.kind, StateSpan.state, StateSpan.began_at, StateSpan.id)
    found: dict[tuple[str, SpanKind], _Span] = {}
    for some in portions(uuids):
        statement = select(*columns).where(StateSpan.ended_at.is_(None), StateSpan.client_uuid.in_(some))
        for uuid, kind, state, began_at, number in connection.execute(statement):
            found[uuid, SpanKind(kind)] = _Span(state, began_at, None, number)
    return found


_Spans = dict[tuple[str, SpanKind], list[_Span]]
_UPDATE_SPAN = (
    update(StateSpan)
    .where(StateSpan.id == bindparam("of_id"))
    .values(state=bindparam("new_state"), ended_at=bindparam("new_end"))
)


def _write_spans(connection: Connection, before: dict[tuple[str, SpanKind], _Span], after: _Spans) -> None:
    changed = [
        {"of_id": span.id, "new_state": span.state, "new_end": span.ended_at}
        for key, spans in after.items()
        for span in spans
        if span.id is not None and span != before[key]
    ]
    if changed:
        connection.execute(_UPDATE_SPAN, changed)
    fresh = [
        {"client_uuid": uuid, "kind": kind, "state": span.state, "began_at": span.began_at, "ended_at": span.ended_at}
        for (uuid, kind), spans in after.items()
        for span in spans
        if span.id is None
    ]
    if fresh:
        connection.execute(insert(StateSpan), fresh)


def _write_link_incidents(connection: Connection, before: dict[tuple[str, SpanKind], _Span], after: _Spans) -> None:
    """An offline span is an incident of the same times."""
    fresh: list[dict[str, Any]] = []
    for (uuid, kind), spans in after.items():
        if kind is not SpanKind.LINK:
            continue
        was_offline = (uuid, kind) in before and before[uuid, kind].state == OFFLINE
        if was_offline:
            lasting = (Incident.client_uuid == uuid, Incident.kind == IncidentKind.LINK, Incident.ended_at.is_(None))
            end = spans[0].ended_at
            if spans[0].state != OFFLINE:
                connection.execute(delete(Incident).where(*lasting))
            elif end is not None:
                connection.execute(update(Incident).where(*lasting).values(ended_at=end, last_event_at=end))
        already = 1 if was_offline and spans[0].state == OFFLINE else 0
        fresh += [_link_incident(uuid, span) for span in spans[already:] if span.state == OFFLINE]
    if fresh:
        connection.execute(insert(Incident), fresh)


def _link_incident(uuid: str, span: _Span) -> dict[str, Any]:
    return {
        "client_uuid": uuid,
        "kind": IncidentKind.LINK,
        "began_at": span.began_at,
        "ended_at": span.ended_at,
        "code": OFFLINE_CODE,
        "message": "",
        "restarts": 0,
        "last_event_at": span.ended_at or span.began_at,
    }


# --- events and incidents ---------------------------------------------------------------------------------------------

_KINDS = (PLAYER, SCREEN)
_FOUND = tuple(getattr(Incident, name) for name in Found._fields)
_EVENT = tuple(getattr(IncidentEvent, name) for name in Event._fields)


def _make_incidents(connection: Connection, past: Happenings) -> None:
    told = {uuid: words for uuid, words in past.told.items() if any(one.state in TOLD for one in words)}
    if not past.events and not told:
        return
    waiting = _backlog(connection, sorted({*past.events, *told}))
    for uuid, events in sorted(past.events.items()):
        _enter(connection, uuid, events, waiting)
    # Their records say it better where they do; and these are in by now.
    newest = _newest(connection, {uuid: words for uuid, words in told.items() if uuid not in waiting})
    for uuid in sorted(newest):
        events = contradictions(told[uuid], newest[uuid])
        if events:
            _enter(connection, uuid, events, waiting)


def _backlog(connection: Connection, uuids: list[str]) -> dict[str, datetime]:
    columns = (IncidentBacklog.client_uuid, IncidentBacklog.since)
    found: dict[str, datetime] = {}
    for some in portions(uuids):
        rows = connection.execute(select(*columns).where(IncidentBacklog.client_uuid.in_(some)))
        found.update((uuid, since) for uuid, since in rows)
    return found


def _newest(connection: Connection, told: dict[str, list[Any]]) -> dict[str, list[Found]]:
    """The newest incidents of these clients: where all is said to be well, those that last are enough."""
    wary = {uuid for uuid, words in told.items() if any(TOLD.get(one.state, (None, False))[1] for one in words)}
    found = {uuid: [one for _number, one in _last(connection, uuid)] for uuid in wary}
    for some in portions(sorted(told.keys() - wary)):
        statement = select(Incident.client_uuid, *_FOUND).where(
            Incident.ended_at.is_(None), Incident.client_uuid.in_(some), Incident.kind.in_(_KINDS)
        )
        for uuid, *values in connection.execute(statement):
            found.setdefault(uuid, []).append(Found(*values))
    return found


def _last(connection: Connection, uuid: str, before: datetime | None = None) -> list[tuple[int, Found]]:
    """The newest incident of each kind that began before then, with its number."""
    found = []
    for kind in _KINDS:
        statement = select(Incident.id, *_FOUND).where(Incident.client_uuid == uuid, Incident.kind == kind)
        if before is not None:
            statement = statement.where(Incident.began_at < before)
        for number, *values in connection.execute(statement.order_by(Incident.began_at.desc()).limit(1)):
            found.append((number, Found(*values)))
    return found


def _enter(connection: Connection, uuid: str, events: list[Event], waiting: dict[str, datetime]) -> None:
    """Store events and fold what they touch, or leave that to housekeeping if it is too much."""
    connection.execute(insert(IncidentEvent), [{"client_uuid": uuid, **event._asdict()} for event in events])
    since = min(event.at for event in events)
    if uuid in waiting:
        if since < waiting[uuid]:
            _postpone(connection, uuid, since)
            waiting[uuid] = since
    elif not refold(connection, uuid, since, FOLD_EVENTS):
        _postpone(connection, uuid, since)
        waiting[uuid] = since


def _postpone(connection: Connection, uuid: str, since: datetime) -> None:
    statement = insert_or(connection, IncidentBacklog)
    earliest = statement.on_conflict_do_update(index_elements=["client_uuid"], set_={"since": statement.excluded.since})
    connection.execute(earliest, [{"client_uuid": uuid, "since": since}])


class _Base(NamedTuple):
    """Where a fold may begin so that all before it stands."""

    since: datetime
    last: list[tuple[int, Found]]


def _base(connection: Connection, uuid: str, since: datetime) -> _Base:
    """Before the incidents that events from `since` on have made or changed; those ahead of them stand as they are."""
    while True:
        last = _last(connection, uuid, since)
        touched = [one.began_at for _number, one in last if one.last_event_at >= since]
        if not touched:
            return _Base(since, last)
        since = min(touched)


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
    touched = (Incident.client_uuid == uuid, Incident.kind.in_(_KINDS), Incident.began_at >= base.since)
    old = {
        Found(*values): number for number, *values in connection.execute(select(Incident.id, *_FOUND).where(*touched))
    }
    old.update((one, number) for number, one in base.last)
    _replace(connection, uuid, old, fold((Event(*row) for row in rows), [one for _number, one in base.last]))
    return True


_UPDATE_INCIDENT = (
    update(Incident)
    .where(Incident.id == bindparam("of_id"))
    .values({name: bindparam(f"new_{name}") for name in Found._fields})
)


def _replace(connection: Connection, uuid: str, old: dict[Found, int], new: Iterable[Found]) -> None:
    """An incident that began at the same time is the same one, and keeps its number."""
    numbers = {(one.kind, one.began_at): number for one, number in old.items()}
    changed, fresh = [], []
    for one in new:
        number = numbers.pop((one.kind, one.began_at), None)
        if number is None:
            fresh.append({"client_uuid": uuid, **one._asdict()})
        elif one not in old:
            changed.append({"of_id": number, **{f"new_{name}": value for name, value in one._asdict().items()}})
    if numbers:
        connection.execute(delete(Incident).where(Incident.id.in_(sorted(numbers.values()))))
    # Those that have ended first: of a kind one may last.
    changed.sort(key=lambda row: row["new_ended_at"] is None)
    if changed:
        connection.execute(_UPDATE_INCIDENT, changed)
    if fresh:
        connection.execute(insert(Incident), fresh)


# --- facts ------------------------------------------------------------------------------------------------------------


def _sample(connection: Connection, past: Happenings) -> None:
    rows = [{"client_uuid": uuid, "at": at, **found} for (uuid, at), found in sorted(past.facts.items())]
    if rows:
        connection.execute(insert_or(connection, FactSample).on_conflict_do_nothing(), rows)
