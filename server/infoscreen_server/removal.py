"""A client goes for good, with all that is known of it: people ask for that, housekeeping does it.

In many small transactions, since it may have hundreds of thousands of records and ingest must never wait for longer
than a moment. What is deleted is counted out at once, so that until the last transaction, which takes all that is left,
the removal can be taken back. Each of them locks the client as an ingest does: whoever waits for that lock meanwhile
finds the client gone and makes it anew, as a new one.

What fired stays in the history of alerts, under the uuid, and so do its device tokens, revoked.
"""

import logging
import threading
import time
from collections import Counter as Tally
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, select, update

from infoscreen_server import issues, persist
from infoscreen_server.alerts.silences import Scope
from infoscreen_server.db import CHUNK_ROWS, PAUSE_S, delete_some, insert_or, writing
from infoscreen_server.happenings import ISSUE_LEVELS
from infoscreen_server.models import (
    Client,
    ClientLog,
    ClientTag,
    Counter,
    Daily,
    DeadLetter,
    Gap,
    Lane,
    Removal,
    Screenshot,
    Token,
    UtcTime,
)
from infoscreen_server.models_alerts import Alert, AlertMark, AlertSilence, AlertState
from infoscreen_server.models_history import (
    FactSample,
    Incident,
    IncidentBacklog,
    IncidentEvent,
    IssueCount,
    RecordDrop,
    StateSpan,
)

log = logging.getLogger(__name__)

TURN_S = 5.0
"""After which housekeeping has its other work to do."""
PICTURE_ROWS = 10
"""A picture costs as much as so many other rows."""


class Asked(NamedTuple):
    at: datetime
    by: str


def ask(engine: Engine, uuid: str, by: str, now: datetime) -> bool:
    """Have a client removed; False if there is no such client. Asked again, the first word counts."""
    with writing(engine) as connection:
        if not _lock(connection, uuid):
            return False
        row = {"client_uuid": uuid, "asked_at": now, "by": by}
        connection.execute(insert_or(connection, Removal).values(row).on_conflict_do_nothing())
    return True


def keep(engine: Engine, uuid: str) -> bool:
    """Take it back; False if it is done, or nobody asked for it. What was deleted before is gone."""
    with writing(engine) as connection:
        _lock(connection, uuid)
        return connection.execute(delete(Removal).where(Removal.client_uuid == uuid)).rowcount > 0


def pending(connection: Connection) -> dict[str, Asked]:
    """What is asked for and not done, the oldest first."""
    rows = connection.execute(select(*Removal.__table__.columns).order_by(Removal.asked_at, Removal.client_uuid))
    return {row.client_uuid: Asked(row.asked_at, row.by) for row in rows}


def go_on(engine: Engine, now: datetime, stop: threading.Event | None = None) -> bool:
    """Do what is asked for, for TURN_S at most, or until `stop` is set. Returns whether something is left."""
    stop = stop or threading.Event()
    until = time.monotonic() + TURN_S
    while True:
        with engine.connect() as connection:
            uuid = next(iter(pending(connection)), None)
        if uuid is None or stop.is_set() or time.monotonic() >= until:
            return uuid is not None
        if _take(engine, uuid, now):
            log.info("client %s is removed", uuid)
        stop.wait(PAUSE_S)


def _take(engine: Engine, uuid: str, now: datetime) -> bool:
    """One transaction: CHUNK_ROWS at most, and if that was all of it the client itself. Returns whether it is gone."""
    with writing(engine) as connection:
        mark = persist.counter_mark(connection)
        if not _lock(connection, uuid) or uuid not in pending(connection):
            return False
        gone = not _take_some(connection, uuid, mark)
        if gone:
            _take_the_rest(connection, uuid, now)
    return gone


def _lock(connection: Connection, uuid: str) -> bool:
    """Whether there is such a client."""
    return connection.execute(select(Client.uuid).where(Client.uuid == uuid).with_for_update()).first() is not None


# --- what there may be much of ----------------------------------------------------------------------------------------


class _Many(NamedTuple):
    table: Any
    of_client: Any
    """What is a client's, by its uuid. What lasts is left to the end: it holds on if the client is kept."""
    cost: int = 1


def _many(uuid: str) -> tuple[_Many, ...]:
    lanes = select(Lane.id).where(Lane.client_uuid == uuid)
    return (
        _Many(Screenshot, Screenshot.client_uuid == uuid, PICTURE_ROWS),
        _Many(DeadLetter, DeadLetter.client_uuid == uuid),
        _Many(Gap, Gap.lane_id.in_(lanes)),
        _Many(StateSpan, (StateSpan.client_uuid == uuid) & StateSpan.ended_at.is_not(None)),
        _Many(Incident, (Incident.client_uuid == uuid) & Incident.ended_at.is_not(None)),
        _Many(IncidentEvent, IncidentEvent.client_uuid == uuid),
    )


def _take_some(connection: Connection, uuid: str, mark: datetime) -> bool:
    """Whether there may be more than that."""
    left = CHUNK_ROWS - _take_logs(connection, uuid, mark)
    for table, of_client, cost in _many(uuid):
        if left > 0:
            left -= cost * delete_some(connection, table, of_client, -(-left // cost))
    return left <= 0


def _take_logs(connection: Connection, uuid: str, mark: datetime) -> int:
    """The oldest, out of the counts too. Returns how many those were."""
    columns = (ClientLog.id, ClientLog.timestamp, ClientLog.level, ClientLog.code)
    oldest = select(*columns).where(ClientLog.client_uuid == uuid).order_by(ClientLog.timestamp, ClientLog.id)
    rows = connection.execute(oldest.limit(CHUNK_ROWS)).all()
    if not rows:
        return 0
    connection.execute(delete(ClientLog).where(ClientLog.id.in_([row.id for row in rows])))
    counted = [row for row in rows if row.timestamp > mark]
    levels = Tally(row.level for row in counted)
    persist.subtract(connection, [(uuid, level, number) for level, number in levels.items()])
    codes = Tally((row.level, row.code) for row in counted if row.level in ISSUE_LEVELS)
    issues.subtract(connection, [(uuid, level, code, number) for (level, code), number in codes.items()])
    return len(rows)


# --- the last of it ---------------------------------------------------------------------------------------------------

_REST: tuple[Any, ...] = (
    AlertState,
    ClientTag,
    Counter,
    Daily,
    FactSample,
    Incident,
    IncidentBacklog,
    IssueCount,
    Lane,
    RecordDrop,
    Removal,
    StateSpan,
)


def _take_the_rest(connection: Connection, uuid: str, now: datetime) -> None:
    # A round of alerts that was read before this is not to be written behind it.
    connection.execute(update(AlertMark).values(round=AlertMark.round + 1))
    over = {"ended_at": func.coalesce(Alert.ended_at, now, type_=UtcTime()), "closed_at": now}
    connection.execute(update(Alert).where(Alert.client_uuid == uuid, Alert.closed_at.is_(None)).values(over))
    connection.execute(delete(AlertSilence).where(AlertSilence.scope == Scope.CLIENT, AlertSilence.target == uuid))
    in_force = (Token.client_uuid == uuid) & Token.revoked_at.is_(None)
    connection.execute(update(Token).where(in_force).values(revoked_at=now))
    issues.forget_client(connection, uuid)
    for table in _REST:
        connection.execute(delete(table).where(table.client_uuid == uuid))
    connection.execute(delete(Client).where(Client.uuid == uuid))
