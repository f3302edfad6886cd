"""What has to be done again and again: the sliding counters, who is offline, and the end of what is too old.

All of it in small transactions with pauses between, so that ingest never waits for longer than a moment.
"""

import logging
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.exc import DBAPIError

from infoscreen_server import screenshots
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import make_engine, writing
from infoscreen_server.ledger import Settings
from infoscreen_server.models import Client, ClientLog, Counter, CounterMark, Daily, DeadLetter, Gap, Lane, Screenshot
from infoscreen_server.persist import counter_mark
from infoscreen_shared.messages import LogLevel

log = logging.getLogger(__name__)

WINDOW = timedelta(hours=24)
"""What `counters` count over."""
FIRST_STEP, SHORTEST_STEP = timedelta(hours=1), timedelta(minutes=1)
"""How far the window moves in one transaction when it lies far behind; by what that took, twice or half as far."""
STEP_S = 0.1
EVERY_S = 60.0
OFFLINE_EVERY_S = 5.0
PRUNE_EVERY_S = 3600.0
CHUNK_ROWS = 2_000
"""Deleted in one transaction: about 100 ms of SQLite's one write lock on a slow disk."""
PAUSE_S = 0.12
"""Between two transactions: longer than the 100 ms that SQLite lets a writer sleep before it looks for the lock again,
else ingest would find it taken time after time."""
MISSED_HEARTBEATS = 3
DAILY_KEPT = timedelta(days=400)
"""Of the daily rollups: this year's figures beside last year's."""


def run(config: ServerConfig) -> int:
    """Work until SIGTERM or SIGINT. Returns an exit code."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return run_housekeeping(config, stop)


def run_housekeeping(config: ServerConfig, stop: threading.Event) -> int:
    """Work until `stop` is set: counters every minute, offline clients every 5 s, the end of old rows every hour."""
    engine = make_engine(config.database_url, hide_parameters=True)
    silence = timedelta(seconds=MISSED_HEARTBEATS * config.heartbeat_seconds)
    count_at = prune_at = time.monotonic()
    try:
        while not stop.is_set():
            try:
                mark_offline(engine, silence, datetime.now(UTC))
                if time.monotonic() >= count_at:
                    count_out(engine, datetime.now(UTC), stop)
                    count_at = time.monotonic() + EVERY_S
                if time.monotonic() >= prune_at:
                    prune(engine, config, datetime.now(UTC), stop)
                    prune_at = time.monotonic() + PRUNE_EVERY_S
            except DBAPIError as error:
                log.error("database: %s", str(error.orig).partition("\n")[0])
            stop.wait(OFFLINE_EVERY_S)
    finally:
        engine.dispose()
    return 0


def mark_offline(engine: Engine, silence: timedelta, now: datetime) -> int:
    """Clients that were not heard of for `silence` are offline. Returns how many that are anew."""
    quiet = Client.online.is_(True) & (Client.last_alive < now - silence)
    with engine.connect() as connection:
        # A look first: a transaction that writes would hold up ingest for nothing nearly every time.
        if connection.execute(select(Client.uuid).where(quiet).limit(1)).first() is None:
            return 0
    with writing(engine) as connection:
        return connection.execute(update(Client).where(quiet).values(online=False)).rowcount


# --- the sliding counters ---------------------------------------------------------------------------------------------


def count_out(engine: Engine, now: datetime, stop: threading.Event | None = None) -> None:
    """Move the window of `counters` up to 24 hours before `now` and take out the rows that it has left.

    Exact at every moment: rows with a timestamp after the mark are counted, and the mark cannot move while an ingest
    transaction is open that has read it.
    """
    stop = stop or threading.Event()
    target, step = now - WINDOW, FIRST_STEP
    while not stop.is_set():
        began = time.monotonic()
        if _move_mark(engine, target, step):
            return
        step = step * 2 if time.monotonic() - began < STEP_S else max(SHORTEST_STEP, step / 2)
        stop.wait(PAUSE_S)


def _move_mark(engine: Engine, target: datetime, step: timedelta) -> bool:
    """One step of the window; whether it is at the target now."""
    with writing(engine) as connection:
        mark = counter_mark(connection, alone=True)
        if target <= mark:
            return True
        reached = min(target, mark + step)
        # By client: there is no index over the whole log, and most counters are 0.
        counted = Counter.error + Counter.warn + Counter.info + Counter.debug > 0
        left = connection.execute(
            select(ClientLog.client_uuid, ClientLog.level, func.count())
            .join(Counter, (Counter.client_uuid == ClientLog.client_uuid) & counted)
            .where(ClientLog.timestamp > mark, ClientLog.timestamp <= reached)
            .group_by(ClientLog.client_uuid, ClientLog.level)
        ).all()
        _subtract(connection, left)
        connection.execute(update(CounterMark).values(counted_out_to=reached))
    return reached == target


def _subtract(connection: Any, left: Any) -> None:
    gone: dict[str, dict[LogLevel, int]] = {}
    for uuid, level, number in left:
        gone.setdefault(uuid, {})[level] = number
    for uuid, numbers in sorted(gone.items()):
        values = {level.lower(): getattr(Counter, level.lower()) - number for level, number in numbers.items()}
        connection.execute(update(Counter).where(Counter.client_uuid == uuid).values(values))


# --- the end of what is too old ---------------------------------------------------------------------------------------


def prune(engine: Engine, settings: Settings, now: datetime, stop: threading.Event | None = None) -> int:
    """Delete what is older than LOG_RETENTION_DAYS; returns the number of log rows.

    Of lanes and their gaps go those that nothing was heard of for as long, of pictures also those beyond the number
    that stays. Counts out first, so that no row goes that is still in the counters.
    """
    stop = stop or threading.Event()
    count_out(engine, now, stop)
    limit = now - timedelta(days=settings.log_retention_days)
    deleted = _prune_logs(engine, limit, stop)
    # A lane with rows in the log is not older than they are, so none of them loses its lane.
    for table, old in (
        (DeadLetter, DeadLetter.received_at < limit),
        (Gap, Gap.lane_id.in_(select(Lane.id).where(Lane.last_seen < limit))),
        (Lane, Lane.last_seen < limit),
    ):
        _in_chunks(engine, table, old, stop)
    _in_chunks(engine, Screenshot, Screenshot.received_at < limit, stop, screenshots.CHUNK_ROWS)
    _trim_screenshots(engine, settings, stop)
    with writing(engine) as connection:
        connection.execute(delete(Daily).where(Daily.day < (now - DAILY_KEPT).date()))
    return deleted


def _prune_logs(engine: Engine, limit: datetime, stop: threading.Event) -> int:
    """Client after client along the index by client and time; there is none over the whole log."""
    deleted, behind = 0, ""
    while not stop.is_set():
        with writing(engine) as connection:
            old = connection.execute(
                select(ClientLog.id, ClientLog.client_uuid)
                .join(Client, Client.uuid == ClientLog.client_uuid)
                .where(Client.uuid >= behind, ClientLog.timestamp < limit)
                .order_by(Client.uuid)
                .limit(CHUNK_ROWS)
            ).all()
            if old:
                connection.execute(delete(ClientLog).where(ClientLog.id.in_([row.id for row in old])))
        deleted += len(old)
        if len(old) < CHUNK_ROWS:
            break
        behind = old[-1].client_uuid
        stop.wait(PAUSE_S)
    return deleted


def _in_chunks(engine: Engine, table: Any, old: Any, stop: threading.Event, size: int | None = None) -> None:
    size = size or CHUNK_ROWS
    while not stop.is_set():
        with writing(engine) as connection:
            chunk = select(table.id).where(old).limit(size)
            rows = connection.execute(delete(table).where(table.id.in_(chunk))).rowcount
        if rows < size:
            return
        stop.wait(PAUSE_S)


def _trim_screenshots(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    """Uploads do this too; a kiosk that sends none after the settings were lowered would keep what it has."""
    with engine.connect() as connection:
        overfull = screenshots.overfull(connection, settings)
    for uuid, kind in overfull:
        deleted = screenshots.CHUNK_ROWS
        while deleted == screenshots.CHUNK_ROWS and not stop.is_set():
            with writing(engine) as connection:
                deleted = screenshots.trim(connection, uuid, kind, screenshots.kept_of(settings, kind))
            stop.wait(PAUSE_S)
