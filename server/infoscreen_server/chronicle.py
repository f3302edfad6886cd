"""Writes what was: issues counted, spans of states, samples of facts.

In the transaction of the ingest that it came with (or of housekeeping), which has the clients locked: so nobody else
writes the same clients' history meanwhile. happenings says what there is to write, incident_store makes the incidents
of players and screens. What is done grows with what happened, never with the log.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, insert, select, update

from infoscreen_server.db import insert_or, portions
from infoscreen_server.happenings import Happenings, Turn
from infoscreen_server.incident_store import make_incidents
from infoscreen_server.models_history import (
    FactSample,
    Incident,
    IncidentKind,
    IssueCount,
    RecordDrop,
    SpanKind,
    StateSpan,
)

OFFLINE, OFFLINE_CODE = "offline", "link.offline"


def write(connection: Connection, past: Happenings, received_at: datetime) -> None:
    _count_issues(connection, past)
    _note_drops(connection, past, received_at)
    turn(connection, past.turns)
    make_incidents(connection, past)
    _sample(connection, past)


# --- issues -----------------------------------------------------------------------------------------------------------


def _count_issues(connection: Connection, past: Happenings) -> None:
    rows = [
        {
            "client_uuid": key.uuid,
            "level": key.level,
            "code": key.code,
            "n": found.n,
            "last_at": found.last_at,
            "last_message": found.last_message,
        }
        for key, found in sorted(past.issues.items())
    ]
    if not rows:
        return
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


def _note_drops(connection: Connection, past: Happenings, received_at: datetime) -> None:
    rows = [
        {"client_uuid": uuid, "received_at": received_at, "message": message}
        for uuid, message in sorted(past.drops.items())
    ]
    if rows:
        statement = insert_or(connection, RecordDrop)
        values = {"received_at": statement.excluded.received_at, "message": statement.excluded.message}
        connection.execute(statement.on_conflict_do_update(index_elements=["client_uuid"], set_=values), rows)


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
    would have no length gives way to the new one. Each state that a client comes into is a new row: the live view goes
    by the ids.
    """
    if not turns:
        return
    old = _open_spans(connection, sorted({one.uuid for one in turns}))
    before = {key: _Span(span.state, span.began_at, None, span.id) for key, span in old.items()}
    after: dict[tuple[str, SpanKind], list[_Span]] = {key: [span] for key, span in old.items()}
    replaced: list[int] = []
    for uuid, kind, state, at in turns:
        spans = after.setdefault((uuid, kind), [])
        last = spans[-1] if spans else None
        if last is None:
            spans.append(_Span(state, at))
        elif last.state == state:
            continue
        elif at <= last.began_at:
            if last.id is not None:
                replaced.append(last.id)
            spans[-1] = _Span(state, last.began_at)
        else:
            last.ended_at = at
            spans.append(_Span(state, at))
    # First of all: of a kind one may last.
    for some in portions(replaced):
        connection.execute(delete(StateSpan).where(StateSpan.id.in_(some)))
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
_UPDATE_SPAN = update(StateSpan).where(StateSpan.id == bindparam("of_id")).values(ended_at=bindparam("new_end"))


def _write_spans(connection: Connection, before: dict[tuple[str, SpanKind], _Span], after: _Spans) -> None:
    changed = [
        {"of_id": span.id, "new_end": span.ended_at}
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


# --- facts ------------------------------------------------------------------------------------------------------------


def _sample(connection: Connection, past: Happenings) -> None:
    rows = [{"client_uuid": uuid, "at": at, **found} for (uuid, at), found in sorted(past.facts.items())]
    if rows:
        connection.execute(insert_or(connection, FactSample).on_conflict_do_nothing(), rows)
