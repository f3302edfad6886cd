"""What `infoscreen-watchdog outbox` does with the outbox's file: look, export, compact. cli.py prints.

The file's format is outbox.py's. Looking and exporting only read, beside a running agent too; compacting needs the file
alone, by the lock that the agent holds while it runs.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infoscreen_device.outbox import APPLICATION_ID, FORMAT, LEVELS, read_outbox
from infoscreen_device.show import size

FILE, LOCK = "outbox.db", "outbox.lock"

_STATS = """
SELECT l.epoch, l.level, l.base, l.next, l.next - 1 - l.base AS records,
       coalesce(sum(length(s.body)), 0) AS bytes, min(s.born) AS oldest
FROM lanes l LEFT JOIN segments s ON s.epoch = l.epoch AND s.level = l.level
GROUP BY l.epoch, l.level ORDER BY (SELECT e.id FROM epochs e WHERE e.epoch = l.epoch), l.level
"""


class OutboxFileError(Exception):
    """The command cannot be done; the text says why and what to do."""


def stats(state_dir: Path) -> dict[str, Any]:
    """{"file", "bytes", "records", "lanes": [{"epoch", "level", "records", "base", "next", "bytes", "oldest"}]}.

    `bytes` of a lane are those of its compressed records. Raises OutboxFileError.
    """
    path = _existing(state_dir)
    lanes = []
    with _reading(path) as database:
        for row in database.query(_STATS):
            born = row.pop("oldest")
            oldest = None if born is None else datetime.fromtimestamp(born, UTC).isoformat(timespec="seconds")
            lanes.append({**row, "level": str(LEVELS[row["level"]]), "oldest": oldest})
    sizes = [file.stat().st_size for file in (path, path.with_name(FILE + "-wal")) if file.exists()]
    return {"file": str(path), "bytes": sum(sizes), "records": sum(lane["records"] for lane in lanes), "lanes": lanes}


def stats_table(found: dict[str, Any]) -> str:
    lines = [f"{found['file']}: {found['records']:,} records, {size(found['bytes'])} on disk"]
    if found["lanes"]:
        lines.append(f"{'EPOCH':<17}{'LEVEL':<7}{'RECORDS':>9}{'FROM':>9}{'TO':>9}{'SIZE':>11}  OLDEST")
    for lane in found["lanes"]:
        oldest = (lane["oldest"] or "-")[:16]
        first, last = (lane["base"] + 1, lane["next"] - 1) if lane["records"] else ("-", "-")
        lines.append(
            f"{lane['epoch'][:16]:<17}{lane['level']:<7}{lane['records']:>9,}{first:>9}{last:>9}"
            f"{size(lane['bytes']):>11}  {oldest}"
        )
    return "\n".join(lines)


def export(state_dir: Path) -> Iterator[bytes]:
    """Every record on disk as one line of JSON: epoch by epoch, lane by lane, in order. Raises OutboxFileError."""
    path = _existing(state_dir)
    try:
        for epoch, level, _seq, record in read_outbox(path):
            yield b'{"epoch":"%s","level":"%s",%s\n' % (epoch.encode(), level.encode(), record.removeprefix(b"{"))
    except sqlite3.Error as error:
        raise OutboxFileError(f"{path} cannot be read: {error}") from None


def vacuum(state_dir: Path) -> tuple[int, int]:
    """Gives unused space back to the disk; the sizes before and after, in bytes. Raises OutboxFileError."""
    import sqlite_utils

    path = _existing(state_dir)
    with _alone(state_dir):
        before = path.stat().st_size
        try:
            with closing(sqlite3.connect(path, timeout=5)) as connection:
                database = sqlite_utils.Database(connection)
                _check(path, connection)
                database.vacuum()
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise OutboxFileError(f"{path} cannot be compacted: {error}") from None
        return before, path.stat().st_size


def _existing(state_dir: Path) -> Path:
    path = state_dir / FILE
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise OutboxFileError(f"{path} does not exist: nothing has been kept on this disk yet") from None
    except OSError as error:
        raise OutboxFileError(f"{path}: {error.strerror} (try sudo)") from None
    return path


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    import sqlite_utils

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            _check(path, connection)
            yield sqlite_utils.Database(connection)
    except sqlite3.Error as error:
        raise OutboxFileError(f"{path} cannot be read: {error}") from None


def _check(path: Path, connection: sqlite3.Connection) -> None:
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    if found != [APPLICATION_ID, FORMAT]:
        raise OutboxFileError(f"{path} is not an outbox of this version")


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    try:
        lock = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OutboxFileError(f"{state_dir / LOCK}: {error.strerror} (try sudo)") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OutboxFileError("an agent uses the outbox; stop it first: systemctl stop infoscreen-watchdog") from None
    finally:
        os.close(lock)
