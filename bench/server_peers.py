"""What others do for the same question, on the same rows: the straightforward SQL, and grep over a log file."""

import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select

from bench.server_fleet import SHOWS, Fleet, Row, blocks
from bench.table import median
from infoscreen_server.models import ClientLog

TIMES = 5


def _timed(work: Callable[[int], object]) -> float:
    """Seconds, the median of TIMES."""
    taken = []
    for number in range(TIMES):
        began = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - began)
    return median(taken)


def counted_anew(engine: Engine) -> float:
    """The summary without counters: all rows of the last 24 hours, by client and level."""

    def work(_number: int) -> None:
        since = datetime.now(UTC) - timedelta(hours=24)
        statement = select(ClientLog.client_uuid, ClientLog.level, func.count()).where(ClientLog.timestamp > since)
        with engine.connect() as connection:
            connection.execute(statement.group_by(ClientLog.client_uuid, ClientLog.level)).all()

    return _timed(work)


def by_offset(engine: Engine, fleet: Fleet, records_back: int) -> float:
    """A page of 50 by OFFSET, of the noisy clients in turn."""

    def page(connection: Connection, uuid: str) -> None:
        newest_first = select(ClientLog).where(ClientLog.client_uuid == uuid).order_by(ClientLog.timestamp.desc())
        connection.execute(newest_first.limit(50).offset(records_back)).all()

    def work(number: int) -> None:
        with engine.connect() as connection:
            page(connection, fleet.noisy[number % len(fleet.noisy)].uuid)

    return _timed(work)


# --- grep -------------------------------------------------------------------------------------------------------------


def text_file(folder: Path, fleet: Fleet, rows: int) -> Path:
    """The same records as lines of one file, as rsyslog keeps them that come from many machines."""
    path = folder / f"{rows}.log"
    if not path.exists():
        names = {kiosk.uuid: kiosk.hostname for kiosk in fleet.kiosks}
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8", buffering=1 << 20) as file:
            for block in blocks(fleet, rows, datetime.now(UTC)):
                file.writelines(_line(names[row[0]], row) for row in block)
        part.rename(path)
    return path


def _line(hostname: str, row: Row) -> str:
    return f"{row[1]} {hostname} agent: {row[3]} {row[4] or '-'} {row[5]} {row[6] or ''}\n"


def grep_all(file: Path, fleet: Fleet) -> float:
    """The newest 20 hits of one client in the file of all."""

    def work(number: int) -> None:
        name, word = fleet.usual[number * 97].hostname, SHOWS[number]
        _pipe(f"grep -F ' {name} ' {file} | grep -iF '{word}' | tail -n 20")

    work(0)  # The file is in memory from then on, if there is room for it.
    return _timed(work)


def grep_own(file: Path, fleet: Fleet, folder: Path) -> float:
    """The same where each client has a file of its own."""
    names = [fleet.usual[number * 97].hostname for number in range(TIMES)]
    for name in names:
        _pipe(f"grep -F ' {name} ' {file} > {folder}/{name}")

    def work(number: int) -> None:
        _pipe(f"grep -iF '{SHOWS[number]}' {folder}/{names[number]} | tail -n 20")

    return _timed(work)


def _pipe(command: str) -> None:
    subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
