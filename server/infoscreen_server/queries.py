"""Every read of the API: plain dicts out of the database, ready for JSON.

Lists are cut by keyset, never by offset, and never counted: a page costs the same wherever in the list it is. Nothing
here scans logs for a figure; counters are kept at ingest.
"""

import base64
import binascii
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Row, Select, bindparam, func, literal, select, tuple_

from infoscreen_server.models import Client, ClientLog, Counter, Lane, UtcTime
from infoscreen_shared.messages import LogLevel, WireError, parse_timestamp, timestamp_text

SUMMARY_HOURS = 24
"""What the counters count over; housekeeping keeps them to it."""
SILENT_HEARTBEATS = 3
"""A client that was not heard of for so many heartbeats is offline."""

_MAX_ID = 2**63 - 1


class Cursor(NamedTuple):
    """A place in a client's logs: behind this row. Opaque to callers."""

    timestamp: datetime
    id: int

    def text(self) -> str:
        return base64.urlsafe_b64encode(f"{timestamp_text(self.timestamp)}/{self.id}".encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError.

        >>> place = Cursor(parse_timestamp("2026-01-02T03:04:05Z"), 7)
        >>> Cursor.parse(place.text()) == place
        True
        """
        try:
            plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
            when, _, number = plain.partition("/")
            found = cls(parse_timestamp(when), int(number) if number.isdecimal() and len(number) < 20 else -1)
        except (binascii.Error, UnicodeError, WireError):
            found = None
        if found is None or not 0 < found.id <= _MAX_ID:
            raise ValueError("expected the `next` of an earlier answer")
        return found


@dataclass(frozen=True, slots=True)
class LogPage:
    logs: list[dict[str, Any]]
    following: Cursor | None
    """Where the next page begins; None if there is nothing older."""


_LOG_COLUMNS = (
    ClientLog.id,
    ClientLog.timestamp,
    ClientLog.level,
    ClientLog.code,
    ClientLog.message,
    ClientLog.context,
    ClientLog.received_at,
    ClientLog.device_timestamp,
    ClientLog.clock,
)


def logs_page(
    connection: Connection,
    uuid: str,
    *,
    levels: Sequence[LogLevel] = (),
    limit: int,
    since: datetime | None = None,
    before: Cursor | None = None,
) -> LogPage:
    """A client's logs, newest first: of these levels (none: of all), not older than `since`, older than `before`."""
    statement = select(*_LOG_COLUMNS).where(ClientLog.client_uuid == uuid)
    if since is not None:
        statement = statement.where(ClientLog.timestamp >= since)
    if before is not None:
        place = tuple_(bindparam(None, before.timestamp, UtcTime()), bindparam(None, before.id, BigInteger()))
        statement = statement.where(tuple_(ClientLog.timestamp, ClientLog.id) < place)
    statement = statement.order_by(ClientLog.timestamp.desc(), ClientLog.id.desc()).limit(limit + 1)
    rows = _of_levels(connection, statement, set(levels), limit + 1)
    page = rows[:limit]
    more = len(rows) > limit
    return LogPage([_log(row) for row in page], Cursor(page[-1].timestamp, page[-1].id) if more else None)


def _of_levels(connection: Connection, statement: Select[Any], levels: set[LogLevel], count: int) -> list[Row[Any]]:
    """One walk along an index for each level, merged: one walk for all would pass thousands of INFO for one ERROR."""
    if not levels or levels == set(LogLevel):
        return list(connection.execute(statement))
    runs = [list(connection.execute(statement.where(ClientLog.level == level))) for level in sorted(levels)]
    return list(heapq.merge(*runs, key=lambda row: (row.timestamp, row.id), reverse=True))[:count]


def _log(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "timestamp": timestamp_text(row.timestamp),
        "level": row.level,
        "message": row.message,
        "context": json.loads(row.context) if row.context else {},
        "code": row.code,
        "received_at": timestamp_text(row.received_at),
        "device_timestamp": _time(row.device_timestamp),
        "clock": row.clock,
    }


def _time(when: datetime | None) -> str | None:
    return None if when is None else timestamp_text(when)


def summary(connection: Connection) -> dict[str, dict[str, int]]:
    """For every client its ERROR, WARN and INFO records of the last SUMMARY_HOURS, out of the counters."""
    columns = [func.coalesce(count, literal(0)) for count in (Counter.error, Counter.warn, Counter.info)]
    statement = select(Client.uuid, *columns).outerjoin(Counter, Counter.client_uuid == Client.uuid)
    rows = connection.execute(statement.order_by(Client.uuid))
    return {uuid: {"ERROR": error, "WARN": warn, "INFO": info} for uuid, error, warn, info in rows}


_CLIENT_COLUMNS = tuple(Client.__table__.columns)


def clients_page(
    connection: Connection, limit: int, after: str | None, now: datetime, silence: float
) -> list[dict[str, Any]]:
    """Clients by uuid, those behind `after`; one that was not heard of for `silence` seconds is offline."""
    statement = select(*_CLIENT_COLUMNS).order_by(Client.uuid).limit(limit)
    if after is not None:
        statement = statement.where(Client.uuid > after)
    return [_client(row, now, silence) for row in connection.execute(statement)]


def client(connection: Connection, uuid: str, now: datetime, silence: float) -> dict[str, Any] | None:
    row = connection.execute(select(*_CLIENT_COLUMNS).where(Client.uuid == uuid)).first()
    return None if row is None else _client(row, now, silence)


def client_exists(connection: Connection, uuid: str) -> bool:
    return connection.execute(select(Client.uuid).where(Client.uuid == uuid)).first() is not None


def _client(row: Row[Any], now: datetime, silence: float) -> dict[str, Any]:
    found = {
        name: timestamp_text(value) if isinstance(value, datetime) else value for name, value in row._mapping.items()
    }
    found["system"] = json.loads(row.system) if row.system else {}
    heard = row.last_alive is not None and (now - row.last_alive).total_seconds() <= silence
    found["online"] = row.online and heard
    return found


def delivery(connection: Connection, uuid: str) -> dict[str, int]:
    """What became of all numbers that a client gave, up to the last acknowledged: nothing is in none of these."""
    sums = [func.coalesce(func.sum(each), 0) for each in (Lane.stored, Lane.unwanted, Lane.dead, Lane.gap)]
    stored, unwanted, dead, gap = connection.execute(select(*sums).where(Lane.client_uuid == uuid)).one()
    return {"stored": int(stored), "unwanted": int(unwanted), "dead": int(dead), "gap": int(gap)}


def last_heard(connection: Connection) -> datetime | None:
    """When anything came in from any client."""
    return connection.execute(select(func.max(Client.last_alive, type_=UtcTime()))).scalar()
