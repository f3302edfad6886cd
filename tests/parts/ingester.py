"""The command `infoscreen-server ingest` as a real process, and ways to stop it at a chosen point of its work."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from sqlalchemy import text

from infoscreen_server.db import writing
from parts.fleet import Fleet
from parts.server import COMMAND, Server
from parts.wait import wait_for


class Ingester:
    """`fleet` is the same database, seen from the test."""

    def __init__(self, folder: Path, database_url: str, broker: str, *, migrated: bool = True, **settings: Any) -> None:
        self.server = Server(folder, database_url, broker, **settings)
        self.fleet = Fleet(database_url, migrated=migrated)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, listening: bool = True) -> "Ingester":
        before = self.connections()
        with self.server.log.open("ab") as log:
            command = [*COMMAND, "ingest", "--config", str(self.server.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.server.environment)
        if listening:
            self.wait_listening(before)
        return self

    def wait_listening(self, before: int) -> None:
        wait_for(lambda: self.connections() > before, f"ingest listens: {self.log()}")

    def connections(self) -> int:
        return self.log().count("listening on")

    def log(self) -> str:
        return self.server.log.read_text() if self.server.log.exists() else ""

    def running(self) -> psutil.Process:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return psutil.Process(self.process.pid)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code

    def __enter__(self) -> "Ingester":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process is not None:
            self.kill()
        self.fleet.engine.dispose()


@contextmanager
def locked(fleet: Fleet) -> Iterator[None]:
    """Nobody else can write."""
    with writing(fleet.engine) as connection:
        if fleet.engine.dialect.name != "sqlite":
            connection.execute(text("LOCK TABLE clients, lanes IN EXCLUSIVE MODE"))
        yield


@contextmanager
def held_before_commit(ingester: Ingester) -> Iterator[None]:
    """Inside, a transaction of the ingester that stores a record stops after the record's row and before the commit.

    The body has to bring it there and to end with the ingester killed.
    """
    if ingester.fleet.engine.dialect.name == "sqlite":
        for sql in _ENDLESS:
            ingester.fleet.run(sql)
        yield
        ingester.fleet.run("DROP TRIGGER endless")
    else:
        with writing(ingester.fleet.engine) as connection:
            # The rollup is written after the rows of the log.
            connection.execute(text("LOCK TABLE daily IN EXCLUSIVE MODE"))
            yield


_ENDLESS = (
    "CREATE VIEW IF NOT EXISTS numbers AS WITH RECURSIVE n(i) AS "
    "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) SELECT i FROM n",
    "CREATE TRIGGER endless BEFORE INSERT ON daily BEGIN SELECT max(i) FROM numbers; END",
)


def wait_held(ingester: Ingester) -> None:
    """Until it is at the point where `held_before_commit` holds it."""
    if ingester.fleet.engine.dialect.name == "sqlite":
        # Nothing else that an ingester does with a handful of records takes it so much of a processor.
        process = ingester.running()
        begun = process.cpu_times().user
        wait_for(lambda: process.cpu_times().user > begun + 0.3, "ingest is inside the trigger")
    else:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'daily'::regclass"
        wait_for(lambda: ingester.fleet.one(waiting), "ingest waits for the lock")
