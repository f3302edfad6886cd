"""What has to be done again and again: the sliding counters, who is offline, and the end of what is too old.

Everything in small transactions, so that ingest never waits for longer than a moment.
"""

import logging
import signal
import threading
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.exc import DBAPIError

from infoscreen_server.config import ServerConfig
from infoscreen_server.db import make_engine, writing
from infoscreen_server.models import Client, ClientLog, Counter, CounterMark, DeadLetter, Lane
from infoscreen_server.store import WINDOW

log = logging.getLogger(__name__)

EVERY_S = 15.0
PRUNE_EVERY = timedelta(hours=1)
CHUNK_ROWS = 2_000
"""Deleted in one transaction: about 100 ms of SQLite's one write lock."""
PAUSE_S = 0.05
MISSED_HEARTBEATS = 3


def run(config: ServerConfig) -> int:
    """Work until SIGTERM or SIGINT. Returns an exit code."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    engine = make_engine(config.database_url, hide_parameters=True)
    prune_at = datetime.now(UTC)
    try:
        while not stop.is_set():
            now = datetime.now(UTC)
            try:
                count_out(engine, now)
                mark_offline(engine, config, now)
                if now >= prune_at:
                    prune_at = now + PRUNE_EVERY
                    prune(engine, config, now, stop)
            except DBAPIError as error:
                log.error("database: %s", str(error.orig).partition("\n")[0])
            stop.wait(EVERY_S)
    finally:
        engine.dispose()
    return 0


def count_out(engine: Engine, now: datetime) -> None:
    """Move the counters' window up to 24 hours before `now` and take out the rows that it has left.

    The mark's row is locked against ingest, so that no row can slip in behind the mark uncounted.
    """
    target = now - WINDOW
    with writing(engine) as connection:
        mark = connection.execute(select(CounterMark.counted_out_to).with_for_update()).scalar_one()
        if target <= mark:
            return
        left = connection.execute(
            select(ClientLog.client_uuid, ClientLog.level, func.count())
            .where(ClientLog.timestamp > mark, ClientLog.timestamp <= target)
            .group_by(ClientLog.client_uuid, ClientLog.level)
        ).all()
        for uuid, level, number in sorted(left):
            column = getattr(Counter, level.lower())
            connection.execute(
                update(Counter).where(Counter.client_uuid == uuid).values({level.lower(): column - number})
            )
        connection.execute(update(CounterMark).values(counted_out_to=target))


def mark_offline(engine: Engine, config: ServerConfig, now: datetime) -> None:
    """Clients that missed three heartbeats."""
    limit = now - timedelta(seconds=MISSED_HEARTBEATS * config.heartbeat_seconds)
    with writing(engine) as connection:
        connection.execute(
            update(Client).where(Client.online.is_(True), Client.last_alive < limit).values(online=False)
        )


def prune(engine: Engine, config: ServerConfig, now: datetime, stop: threading.Event | None = None) -> int:
    """Delete what is older than the retention; the number of rows. Counts out first, so that counters stay exact."""
    stop = stop or threading.Event()
    count_out(engine, now)
    limit = now - timedelta(days=config.log_retention_days)
    deleted = 0
    for table, old in (
        (ClientLog, ClientLog.timestamp < limit),
        (DeadLetter, DeadLetter.received_at < limit),
        (Lane, Lane.last_seen < limit),
    ):
        deleted += _in_chunks(engine, table, old, stop)
    return deleted


def _in_chunks(engine: Engine, table: Any, old: Any, stop: threading.Event) -> int:
    deleted = 0
    while True:
        with writing(engine) as connection:
            chunk = select(table.id).where(old).limit(CHUNK_ROWS).scalar_subquery()
            rows = connection.execute(delete(table).where(table.id.in_(chunk))).rowcount
        deleted += rows
        if rows < CHUNK_ROWS or stop.wait(PAUSE_S):
            return deleted
