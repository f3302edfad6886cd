"""The one way into the database, behind both doors: arrivals in, one transaction, acks out after COMMIT.

What an arrival means is the ledger's part, statements are persist's. Here is what happens when the database refuses:
a connection's fault is the caller's to retry, nothing was stored then; a datum's fault is narrowed down to the one
record, which goes to the dead letters so that it holds up nobody else's.
"""

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from infoscreen_server import persist
from infoscreen_server.db import writing
from infoscreen_server.ledger import (
    Arrival,
    Body,
    Ledger,
    Policy,
    Presence,
    Refused,
    Settings,
    Stale,
    keys_of,
    refused_of,
    wanted,
)
from infoscreen_server.live_signal import announce
from infoscreen_server.rows import MAX_DEAD_CHARS
from infoscreen_shared.messages import Ack, Batch, Record, Rejected, clean, encode_record
from infoscreen_shared.topics import topic

__all__ = [
    "Arrival",
    "Body",
    "Policy",
    "Presence",
    "Refused",
    "Settings",
    "Stale",
    "ingest",
    "is_datas_fault",
    "wanted",
]

log = logging.getLogger(__name__)

PORTION_ROWS = 500
"""How many rows are handed to the database at a time within the transaction."""
_SQLITE_DATA = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError)
_POSTGRES_DATA = ("22", "23", "54", "P0")
"""Classes of SQLSTATE (PostgreSQL manual, appendix A): data, integrity, program limits, raised by a trigger. What the
driver itself finds wrong with a value has none, but the same names."""


def ingest(
    engine: Engine, arrivals: Sequence[Arrival], received_at: datetime, settings: Settings, source: str
) -> list[tuple[str, Ack]]:
    """Commit everything that arrived, in its order, in one transaction; returns the acks that may now leave.

    There is one ack for each client and epoch that numbers its records. A client that is not known, where
    `auto_register` is off, gets none: its records are not stored and stay with it, a dead letter an hour tells of it.
    `source`, mqtt or http, is for the statistics. A record that the database refuses for its own sake is found by
    halving, each half in a transaction of its own.

    Raises the driver's error (sqlalchemy.exc.DBAPIError, sqlite3.Error, psycopg.Error) when it is the database that
    fails: then what is not in a committed half is not stored, and the same arrivals may be given again.
    """
    try:
        return _transaction(engine, list(arrivals), received_at, settings, source)
    except Exception as error:
        halves = _halves(list(arrivals), error) if is_datas_fault(error) else None
        if halves is None:
            raise
    acks: dict[tuple[str, str], Ack] = {}
    for half in halves:
        for uuid, ack in ingest(engine, half, received_at, settings, source):
            before = acks.get((uuid, ack.epoch))
            acks[uuid, ack.epoch] = ack if before is None else _merged(before, ack)
    return [(uuid, ack) for (uuid, _epoch), ack in acks.items()]


def _merged(before: Ack, after: Ack) -> Ack:
    return Ack(after.epoch, before.lanes | after.lanes, after.wanted or before.wanted)


def _transaction(
    engine: Engine, arrivals: list[Arrival], received_at: datetime, settings: Settings, source: str
) -> list[tuple[str, Ack]]:
    uuids, lane_keys = keys_of(arrivals)
    with writing(engine) as connection:
        mark = persist.counter_mark(connection)
        clients = persist.lock_clients(
            connection, uuids, received_at, create=settings.auto_register, named=refused_of(arrivals)
        )
        lanes = persist.lock_lanes(connection, [key for key in lane_keys if key[0] in clients], received_at)
        ledger = Ledger(received_at, settings, mark, clients, lanes)
        with persist.log_sink(connection, received_at) as sink:
            for arrival in arrivals:
                ledger.enter(arrival)
                if ledger.rows >= PORTION_ROWS:
                    sink(ledger.hand_over())
            if ledger.rows:
                sink(ledger.hand_over())
        persist.write(connection, ledger, source)
    announce(engine)
    return [(uuid, ack) for (uuid, _epoch), ack in ledger.acks.items()]


def is_datas_fault(error: BaseException) -> bool:
    """Whether the same data would fail again on a database that works."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return False
        error = error.orig or error
    if isinstance(error, sqlite3.Error):
        return isinstance(error, _SQLITE_DATA)
    if type(error).__module__.startswith("psycopg"):
        named = any(base.__name__ in ("DataError", "IntegrityError") for base in type(error).__mro__)
        return named or (getattr(error, "sqlstate", None) or "").startswith(_POSTGRES_DATA)
    return isinstance(error, (ValueError, TypeError, OverflowError, RecursionError))


def _halves(arrivals: list[Arrival], error: Exception) -> list[list[Arrival]] | None:
    """Smaller portions to try; the last one is the culprit as a dead letter. None when even that has failed."""
    if len(arrivals) > 1:
        middle = len(arrivals) // 2
        return [arrivals[:middle], arrivals[middle:]]
    if not arrivals:
        return None
    uuid, body, name = arrivals[0]
    if isinstance(body, Batch) and len(body.records) > 1:
        return [[Arrival(uuid, part, name)] for part in _split(body)]
    reason = f"the database refused it: {type(getattr(error, 'orig', None) or error).__name__}"
    log.error("from %s, to the dead letters: %s", uuid, reason)
    if isinstance(body, Batch) and body.records:
        record = body.records[0]
        dead = Rejected(record.seq, reason, _raw(record))
        rejected = sorted([*body.rejected, dead], key=lambda one: one.seq or 0)
        return [[Arrival(uuid, replace(body, records=[], rejected=rejected), name)]]
    if isinstance(body, Batch | Refused | Stale) or uuid is None:
        return None
    name = name or topic(uuid, type(body).__name__.lower())
    return [[Arrival(uuid, Refused(name, reason, clean(repr(body))[:MAX_DEAD_CHARS]), name)]]


def _split(batch: Batch) -> list[Batch]:
    middle = len(batch.records) // 2
    early, late = batch.records[:middle], batch.records[middle:]
    border = late[0].seq
    if batch.first is None or border is None:
        return [replace(batch, records=early), replace(batch, records=late, rejected=[])]
    below = [one for one in batch.rejected if one.seq is not None and one.seq < border]
    above = [one for one in batch.rejected if one.seq is not None and one.seq >= border]
    return [
        replace(batch, records=early, rejected=below),
        replace(batch, first=border, records=late, rejected=above),
    ]


def _raw(record: Record) -> str:
    try:
        return encode_record(record).decode()[:MAX_DEAD_CHARS]
    except (ValueError, TypeError, RecursionError):
        return clean(record.message)[:MAX_DEAD_CHARS]
