"""Being told that something was committed, for the live view of every web process.

PostgreSQL tells those who listen; ingest and housekeeping call `announce` when they have committed. SQLite has a
counter of commits, and a look at it costs microseconds. What is new then is read in live_source.
"""

import sqlite3
import threading
import time
from contextlib import closing
from typing import Any, Protocol

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from infoscreen_server.db import is_sqlite

CHANNEL = "infoscreen_live"
ANNOUNCE_EVERY_S = 0.05
"""At most, for each process. What is not announced for that is found by the look that follows another (FOLLOW_S)."""
FOLLOW_S = 2 * ANNOUNCE_EVERY_S
LOOK_EVERY_S = 1.0
"""Without being told anything: what a process left unannounced that died right after its commit."""
SQLITE_EVERY_S = 0.1

_announced: dict[str, float] = {}


def announce(engine: Engine) -> None:
    """Tell the web processes that something was committed. Never fails: they look by themselves, if later.

    After the commit and not within: of transactions that notify PostgreSQL commits one at a time, and that of an ingest
    waits for the disk (measured: eight doors and a disk that takes 20 ms, 46 transactions a second instead of 115).
    This one has nothing to write there.
    """
    now, key = time.monotonic(), str(engine.url)
    if is_sqlite(engine) or now - _announced.get(key, -1.0) < ANNOUNCE_EVERY_S:
        return
    _announced[key] = now
    try:
        with engine.connect() as connection:
            connection.execute(text(f"NOTIFY {CHANNEL}"))
            connection.commit()
    except SQLAlchemyError:
        # What was to be told is committed; whatever is wrong with the database shows at the next transaction.
        return


class Waker(Protocol):
    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Wait for a commit; whether there was one, before the time was up."""
        ...

    def close(self) -> None: ...


class SqliteWaker:
    def __init__(self, engine: Engine) -> None:
        self._fairy = engine.raw_connection()
        driver = self._fairy.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        self._version = self._look()

    def _look(self) -> int:
        """Another number whenever any other connection has committed."""
        found: int = self._driver.execute("PRAGMA data_version").fetchone()[0]
        return found

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        until = time.monotonic() + seconds
        while not stop.is_set():
            version = self._look()
            if version != self._version:
                self._version = version
                return True
            left = until - time.monotonic()
            if left <= 0:
                break
            stop.wait(min(left, SQLITE_EVERY_S))
        return False

    def close(self) -> None:
        self._fairy.close()


class PostgresWaker:
    def __init__(self, engine: Engine) -> None:
        fairy = engine.raw_connection()
        driver: Any = fairy.driver_connection
        self._driver = driver
        # Not one of the pool's any more: it must never be given to others as it is.
        fairy.detach()
        self._driver.autocommit = True
        self._driver.execute(f"LISTEN {CHANNEL}")

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        if stop.is_set():
            return False
        with closing(self._driver.notifies(timeout=seconds, stop_after=1)) as heard:
            return any(True for _ in heard)

    def close(self) -> None:
        self._driver.close()


def open_waker(engine: Engine) -> Waker:
    return SqliteWaker(engine) if is_sqlite(engine) else PostgresWaker(engine)
