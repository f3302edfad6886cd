"""Reads of the API: plain dicts out of the database, ready for JSON. Those of the logs are in log_search.

Lists are cut by keyset, never by offset, and never counted: a page costs the same wherever in the list it is. Nothing
here scans logs for a figure; counters are kept at ingest.
"""

import base64
import binascii
import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, bindparam, func, literal, select, tuple_

from infoscreen_server.db import portions
from infoscreen_server.models import Client, ClientTag, Counter, Lane, UtcTime
from infoscreen_shared.messages import WireError, parse_timestamp, timestamp_text

SUMMARY_HOURS = 24
"""What the counters count over; housekeeping keeps them to it."""

_MAX_ID = 2**63 - 1


class Cursor(NamedTuple):
    """A place in a client's logs: behind this row. Opaque to callers."""

    timestamp: datetime
    id: int

    @property
    def bound(self) -> ColumnElement[Any]:
        """For a comparison with such a pair of columns."""
        return tuple_(bindparam(None, self.timestamp, UtcTime()), bindparam(None, self.id, BigInteger()))

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


def time_text(when: datetime | None) -> str | None:
    return None if when is None else timestamp_text(when)


def summary(connection: Connection) -> dict[str, dict[str, int]]:
    """For every client its ERROR, WARN and INFO records of the last SUMMARY_HOURS, out of the counters."""
    columns = [func.coalesce(count, literal(0)) for count in (Counter.error, Counter.warn, Counter.info)]
    statement = select(Client.uuid, *columns).outerjoin(Counter, Counter.client_uuid == Client.uuid)
    rows = connection.execute(statement.order_by(Client.uuid))
    return {uuid: {"ERROR": error, "WARN": warn, "INFO": info} for uuid, error, warn, info in rows}


CLIENT_COLUMNS = tuple(Client.__table__.columns)


def clients_page(
    connection: Connection,
    limit: int,
    after: str | None,
    now: datetime,
    silence: float,
    *conditions: ColumnElement[bool],
) -> list[dict[str, Any]]:
    """Clients by uuid, those behind `after`; one that was not heard of for `silence` seconds is offline."""
    statement = select(*CLIENT_COLUMNS).where(*conditions).order_by(Client.uuid).limit(limit)
    if after is not None:
        statement = statement.where(Client.uuid > after)
    rows = connection.execute(statement).all()
    tags = tags_of(connection, [row.uuid for row in rows])
    return [client_of(row, now, silence, tags.get(row.uuid, [])) for row in rows]


def client(connection: Connection, uuid: str, now: datetime, silence: float) -> dict[str, Any] | None:
    row = connection.execute(select(*CLIENT_COLUMNS).where(Client.uuid == uuid)).first()
    return None if row is None else client_of(row, now, silence, tags_of(connection, [uuid]).get(uuid, []))


def tags_of(connection: Connection, uuids: Collection[str]) -> dict[str, list[str]]:
    """By client; one without tags is left out."""
    found: dict[str, list[str]] = {}
    statement = select(ClientTag.client_uuid, ClientTag.tag)
    for some in portions(sorted(uuids)):
        for uuid, tag in connection.execute(statement.where(ClientTag.client_uuid.in_(some))):
            found.setdefault(uuid, []).append(tag)
    return {uuid: sorted(tags, key=str.casefold) for uuid, tags in found.items()}


def is_online(now: datetime, silence: float) -> ColumnElement[bool]:
    """The same as in SQL: told to be online, and heard of in the last `silence` seconds."""
    return Client.online.is_(True) & (Client.last_alive >= now - timedelta(seconds=silence))


def client_exists(connection: Connection, uuid: str) -> bool:
    return connection.execute(select(Client.uuid).where(Client.uuid == uuid)).first() is not None


def client_of(row: Row[Any], now: datetime, silence: float, tags: list[str]) -> dict[str, Any]:
    """A row with CLIENT_COLUMNS, as the API shows it."""
    values = {column.name: row._mapping[column.name] for column in CLIENT_COLUMNS}
    found = {name: timestamp_text(value) if isinstance(value, datetime) else value for name, value in values.items()}
    found["system"] = json.loads(row.system) if row.system else {}
    heard = row.last_alive is not None and (now - row.last_alive).total_seconds() <= silence
    found["online"] = row.online and heard
    found["tags"] = tags
    return found


def label_of(name: str | None, hostname: str | None, uuid: str) -> str:
    """What a client is called where people read it."""
    return name or hostname or uuid


def delivery(connection: Connection, uuid: str) -> dict[str, int]:
    """What became of all numbers that a client gave, up to the last acknowledged: nothing is in none of these."""
    sums = [func.coalesce(func.sum(each), 0) for each in (Lane.stored, Lane.unwanted, Lane.dead, Lane.gap)]
    stored, unwanted, dead, gap = connection.execute(select(*sums).where(Lane.client_uuid == uuid)).one()
    return {"stored": int(stored), "unwanted": int(unwanted), "dead": int(dead), "gap": int(gap)}


def last_heard(connection: Connection) -> datetime | None:
    """When anything came in from any client."""
    return connection.execute(select(func.max(Client.last_alive, type_=UtcTime()))).scalar()
