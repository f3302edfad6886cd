"""What is wrong in the fleet now: errors and repeated warnings of the last 24 hours, by code, and who knows of them.

Counted at ingest, counted out by housekeeping (see issue_counts); nothing here looks at the log.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Select, bindparam, case, delete, func, or_, select, tuple_, update

from infoscreen_server.db import insert_or, writing
from infoscreen_server.models import Client
from infoscreen_server.models_history import Acknowledgement, IssueCount
from infoscreen_server.queries import SUMMARY_HOURS
from infoscreen_shared.messages import LogLevel

WARNINGS = 5
"""More than so many of one code, over the whole fleet, are an issue; of errors each one is."""
MAX_ISSUES = 200
"""In one answer, those that nobody knows of yet before the others, the worst first."""
MAX_CLIENTS = 200
"""Of one issue in one answer, the loudest first."""
WINDOW = timedelta(hours=SUMMARY_HOURS)
MAX_NOTE = 500
"""Characters of an acknowledgement."""


class Issue(NamedTuple):
    level: LogLevel
    code: str
    """Empty for records without one."""


def active_issues(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """Those that are not acknowledged first; then errors before warnings, those of most clients and records first.

    Keys: level, code, clients and records (how many), last_at, last_message, last_client (uuid), acknowledgement (None,
    or note, by, at).
    """
    groups = _groups(now).subquery()
    valid = _acknowledged(connection, now)
    is_known = tuple_(groups.c.level, groups.c.code).in_([tuple(issue) for issue in valid])
    # "ERROR" sorts before "WARN".
    order = (groups.c.level, groups.c.clients.desc(), groups.c.records.desc(), groups.c.code)
    statement = select(groups).where(groups.c.place == 1)
    if valid:
        statement = statement.order_by(case((is_known, 1), else_=0))
    rows = connection.execute(statement.order_by(*order).limit(MAX_ISSUES)).all()
    return [
        {
            "level": row.level,
            "code": row.code,
            "clients": row.clients,
            "records": int(row.records),
            "last_at": row.last_at,
            "last_message": row.last_message,
            "last_client": row.client_uuid,
            "acknowledgement": valid.get(Issue(row.level, row.code)),
        }
        for row in rows
    ]


def _groups(now: datetime, of: Collection[Issue] | None = None) -> Select[Any]:
    """Each client's count within an active issue, beside the figures of the issue; `place` 1 is the newest."""
    alike = [IssueCount.level, IssueCount.code]
    newest = [IssueCount.last_at.desc(), IssueCount.client_uuid]
    counted = (
        select(
            *(
                IssueCount.__table__.c[name]
                for name in ("client_uuid", "level", "code", "n", "last_at", "last_message")
            ),
            func.count().over(partition_by=alike).label("clients"),
            func.sum(IssueCount.n).over(partition_by=alike).label("records"),
            func.row_number().over(partition_by=alike, order_by=newest).label("place"),
        )
        # Housekeeping counts out once a minute; where it does not run, what is too old is not shown all the same.
        .where(IssueCount.n > 0, IssueCount.last_at > now - WINDOW)
    )
    if of is not None:
        counted = counted.where(tuple_(IssueCount.level, IssueCount.code).in_([tuple(issue) for issue in of]))
    inner = counted.subquery()
    return select(inner).where(or_(inner.c.level == LogLevel.ERROR, inner.c.records > WARNINGS))


def _acknowledged(connection: Connection, now: datetime) -> dict[Issue, dict[str, Any]]:
    """The acknowledgements that hold."""
    rows = {Issue(row.level, row.code): row for row in connection.execute(select(*Acknowledgement.__table__.columns))}
    if not rows:
        return {}
    showing: dict[Issue, set[str]] = {}
    for row in connection.execute(_groups(now, rows)):
        showing.setdefault(Issue(row.level, row.code), set()).add(row.client_uuid)
    return {
        issue: {"note": row.note, "by": row.given_by, "at": row.given_at}
        for issue, row in rows.items()
        if issue in showing and showing[issue] <= set(json.loads(row.clients))
    }


def clients_of_issue(connection: Connection, issue: Issue, now: datetime) -> list[dict[str, Any]]:
    """Who shows it, the most records first. Keys: uuid, name, hostname, location, records, last_at, last_message."""
    statement = (
        select(
            Client.uuid,
            Client.name,
            Client.hostname,
            Client.location,
            IssueCount.n.label("records"),
            IssueCount.last_at,
            IssueCount.last_message,
        )
        .join(Client, Client.uuid == IssueCount.client_uuid)
        .where(IssueCount.level == issue.level, IssueCount.code == issue.code)
        .where(IssueCount.n > 0, IssueCount.last_at > now - WINDOW)
        .order_by(IssueCount.n.desc(), Client.uuid)
        .limit(MAX_CLIENTS)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


_SUBTRACT = (
    update(IssueCount)
    .where(IssueCount.client_uuid == bindparam("of_uuid"))
    .where(IssueCount.level == bindparam("of_level"), IssueCount.code == bindparam("of_code"))
    .values(n=IssueCount.n - bindparam("left"))
)


def subtract(connection: Connection, left: Iterable[Sequence[Any]]) -> None:
    """Take rows out of the counts, by client, level and code: they left the window, or go before that."""
    rows = [
        {"of_uuid": uuid, "of_level": level, "of_code": code or "", "left": number}
        for uuid, level, code, number in left
    ]
    if rows:
        connection.execute(_SUBTRACT, rows)
        connection.execute(delete(IssueCount).where(IssueCount.n <= 0))


# --- acknowledgements -------------------------------------------------------------------------------------------------


def acknowledge(engine: Engine, issue: Issue, note: str, by: str, now: datetime) -> bool:
    """Say that somebody knows of it; False if there is no such issue now. Said again, the last word counts."""
    with writing(engine) as connection:
        uuids = sorted(row.client_uuid for row in connection.execute(_groups(now, [issue])))
        if uuids:
            row = {"note": note, "given_by": by, "given_at": now, "clients": json.dumps(uuids)}
            statement = insert_or(connection, Acknowledgement).values(**issue._asdict(), **row)
            connection.execute(statement.on_conflict_do_update(index_elements=["level", "code"], set_=row))
    return bool(uuids)


def unacknowledge(engine: Engine, issue: Issue) -> bool:
    """Take it back; False if there was none."""
    with writing(engine) as connection:
        return connection.execute(delete(Acknowledgement).where(*_is(issue))).rowcount > 0


def forget_ended(connection: Connection, now: datetime) -> None:
    """Delete the acknowledgements that do not hold any more: an issue that comes back is a new one."""
    known = {
        Issue(level, code) for level, code in connection.execute(select(Acknowledgement.level, Acknowledgement.code))
    }
    for issue in known - _acknowledged(connection, now).keys():
        connection.execute(delete(Acknowledgement).where(*_is(issue)))


def forget_client(connection: Connection, uuid: str) -> None:
    """Take a client that goes out of what was acknowledged: should it come back, its issues are new ones."""
    named = Acknowledgement.clients.contains(uuid)
    columns = (Acknowledgement.level, Acknowledgement.code, Acknowledgement.clients)
    for level, code, clients in connection.execute(select(*columns).where(named).with_for_update()).all():
        others = json.dumps([each for each in json.loads(clients) if each != uuid])
        connection.execute(update(Acknowledgement).where(*_is(Issue(level, code))).values(clients=others))


def _is(issue: Issue) -> tuple[Any, Any]:
    return Acknowledgement.level == issue.level, Acknowledgement.code == issue.code
