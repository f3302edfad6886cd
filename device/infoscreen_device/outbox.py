"""The outbox file: segments of records that the server has not acknowledged, in SQLite.

A segment is one compressed run of consecutive records of one lane. This module knows the file: its schema, its pragmas,
reading, writing, deleting. What can be saved from a damaged file is in `salvage`; what is sent when, and what a number
means, in `backlog` and `lanes`. One thread uses it; nothing here retries or hides an sqlite3.Error.

The pragmas, measured per commit of a small segment on the device: 1 kB pages 11 kB, 4 kB pages 15 kB; WAL with
synchronous=FULL because NORMAL may lose hours on a quiet kiosk (it syncs at checkpoints only). One writing connection
and no memory map keep clear of SQLite's WAL-reset bug (fixed in 3.51.3; Debian 12 has 3.40).
"""

import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoscreen_shared.messages import LogLevel

APPLICATION_ID = 0x49535744
"""ISWD: a stranger's database is not written to."""

FORMAT = 1
"""PRAGMA user_version. A reader accepts its own format only; a change has to stay readable by the version before."""

PAGE_SIZE = 1024
CHECKPOINT_PAGES = 4000
_COLUMNS = "id, epoch, level, first, n, born, unsynced, crc, body"
_SELECT = f"SELECT {_COLUMNS} FROM segments"  # noqa: S608
_INSERT = f"INSERT INTO segments ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
ROW_OVERHEAD = 80
"""Bytes that a segment costs beside its body, for the size bound."""

_SCHEMA = (
    "CREATE TABLE epochs (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, boot_id TEXT NOT NULL,"
    " anchor REAL NOT NULL, shift REAL)",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, level INTEGER NOT NULL,"
    " first INTEGER NOT NULL, n INTEGER NOT NULL, born REAL NOT NULL, unsynced INTEGER NOT NULL,"
    " crc INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE lanes (epoch TEXT NOT NULL, level INTEGER NOT NULL, base INTEGER NOT NULL, next INTEGER NOT NULL,"
    " PRIMARY KEY (epoch, level)) WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)

LEVELS = tuple(LogLevel)
_COMPRESSION = 6


class OutboxDamaged(sqlite3.DatabaseError):
    """The file cannot be trusted any more; set it aside."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One opening of the outbox. `anchor`: wall minus boot clock, seconds, as guessed when it was opened."""

    epoch: str
    boot_id: str
    anchor: float
    shift: float | None
    """Seconds to add to times taken before the first sync; None while not known; decided once, then never changed."""


@dataclass(frozen=True, slots=True)
class Segment:
    epoch: str
    level: LogLevel
    first: int
    n: int
    born: float
    """Wall time of its first record, seconds since 1970, as good as the clock was."""
    unsynced: bool
    records: list[bytes]
    id: int = 0

    @property
    def last(self) -> int:
        return self.first + self.n - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """The ledger's word on one lane: the file holds all above `base` and below `next`."""

    epoch: str
    level: LogLevel
    base: int
    next: int


class Outbox:
    """An open outbox file. Every method may raise sqlite3.Error: OperationalError where the disk is to blame."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.was_unclean = path.with_name(path.name + "-wal").exists()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
        try:
            self._open(max_bytes)
        except BaseException:
            self._db.close()
            raise
        self.bytes = self._one("SELECT coalesce(sum(length(body)), 0) + count(*) * ? FROM segments", ROW_OVERHEAD)

    def _open(self, max_bytes: int) -> None:
        run = self._db.execute
        run(f"PRAGMA page_size = {PAGE_SIZE}")
        fresh = self._one("SELECT count(*) FROM sqlite_schema") == 0
        if not fresh:
            if self._one("PRAGMA application_id") != APPLICATION_ID or self._one("PRAGMA user_version") != FORMAT:
                raise OutboxDamaged("not an outbox of this version")
            if self.was_unclean and self._one("PRAGMA quick_check(1)") != "ok":
                raise OutboxDamaged("quick_check found damage")
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = OFF", "cell_size_check = ON"):
            run(f"PRAGMA {pragma}")
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        run(f"PRAGMA max_page_count = {max_bytes * 5 // 4 // PAGE_SIZE + 64}")
        if fresh:
            self._create()

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {FORMAT}")
        self._db.execute("COMMIT")

    def _one(self, sql: str, *values: object) -> Any:
        return self._db.execute(sql, values).fetchone()[0]

    def close(self) -> None:
        self._db.close()

    # --- writing: all of one commit between begin and commit ----------------------------------------------------------

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        """Undo an open transaction; harmless where SQLite has done it already."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def put_epoch(self, epoch: Epoch) -> None:
        """Store an opening, or the shift that has been decided for it."""
        self._db.execute(
            "INSERT INTO epochs (epoch, boot_id, anchor, shift) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE SET shift = ?4",
            (epoch.epoch, epoch.boot_id, epoch.anchor, epoch.shift),
        )

    def add(self, segment: Segment) -> int:
        """Store a segment and say in the ledger up to where its lane is numbered. Returns the bytes it takes."""
        body = zlib.compress(b"\n".join(segment.records), _COMPRESSION)
        level = LEVELS.index(segment.level)
        crc = _crc(segment.epoch, level, segment.first, segment.n, body)
        self._db.execute(
            _INSERT,
            (segment.epoch, level, segment.first, segment.n, segment.born, segment.unsynced, crc, body),
        )
        self._db.execute(
            "INSERT INTO lanes VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET next = max(next, ?4)",
            (segment.epoch, level, segment.first - 1, segment.last + 1),
        )
        size = len(body) + ROW_OVERHEAD
        self.bytes += size
        return size

    def delete_settled(self, epoch: str, level: LogLevel, base: int) -> None:
        """Drop the segments of a lane that hold nothing above `base`."""
        lane = "epoch = ? AND level = ? AND first + n - 1 <= ?"
        values = (epoch, LEVELS.index(level), base)
        gone = self._one(f"SELECT coalesce(sum(length(body) + {ROW_OVERHEAD}), 0) FROM segments WHERE {lane}", *values)  # noqa: S608
        if gone:
            self._db.execute(f"DELETE FROM segments WHERE {lane}", values)  # noqa: S608
            self.bytes -= gone
        ledger = "UPDATE lanes SET base = ?3 WHERE epoch = ?1 AND level = ?2 AND base < ?3"
        self._db.execute(ledger, values)

    def put_extent(self, extent: Extent) -> None:
        """Carry a lane's ledger over into a new file."""
        values = (extent.epoch, LEVELS.index(extent.level), extent.base, extent.next)
        self._db.execute("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?)", values)

    def forget_epoch(self, epoch: str) -> None:
        """Drop an earlier opening of which nothing is held any more."""
        for table in ("segments", "lanes", "epochs"):
            self._db.execute(f"DELETE FROM {table} WHERE epoch = ?", (epoch,))  # noqa: S608

    def set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2", (name, value))

    # --- reading ------------------------------------------------------------------------------------------------------

    def meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def epochs(self) -> list[Epoch]:
        """All openings that left records, oldest first."""
        return [
            Epoch(*row) for row in self._db.execute("SELECT id, epoch, boot_id, anchor, shift FROM epochs ORDER BY id")
        ]

    def extents(self) -> list[Extent]:
        rows = self._db.execute("SELECT epoch, level, base, next FROM lanes")
        return [Extent(epoch, LEVELS[level], base, upcoming) for epoch, level, base, upcoming in rows]

    def read(self, epoch: str, level: LogLevel, after: int, after_id: int) -> Iterator[Segment | int]:
        """The segments of a lane that hold numbers above `after`, from row `after_id` on, oldest first.

        In place of one whose check sum is wrong: its row id.
        """
        rows = self._db.execute(
            f"{_SELECT} WHERE id >= ? AND epoch = ? AND level = ? AND first + n - 1 > ? ORDER BY id",
            (after_id, epoch, LEVELS.index(level), after),
        )
        for row in rows:
            yield parse_segment(row) or int(row[0])

    def drop(self, row_id: int) -> None:
        """A segment that cannot be read."""
        self._db.execute("DELETE FROM segments WHERE id = ?", (row_id,))

    def oldest(self, level: LogLevel | None = None) -> Segment | int | None:
        """The segment written first (of this level, if given); its row id if it cannot be read."""
        where, values = ("", ()) if level is None else (" WHERE level = ?", (LEVELS.index(level),))
        row = self._db.execute(f"{_SELECT}{where} ORDER BY id LIMIT 1", values).fetchone()
        return None if row is None else parse_segment(row) or int(row[0])


def _crc(epoch: str, level: int, first: int, n: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(f"{epoch} {level} {first} {n}".encode()))


def parse_segment(row: tuple[int, str, int, int, int, float, int, int, bytes]) -> Segment | None:
    """None if the row is not what was written."""
    row_id, epoch, level, first, n, born, unsynced, crc, body = row
    try:
        if _crc(epoch, level, first, n, body) != crc:
            return None
        records = zlib.decompress(body).split(b"\n")
        return Segment(epoch, LEVELS[level], first, n, float(born), bool(unsynced), records, row_id)
    except (TypeError, ValueError, IndexError, zlib.error):
        return None


# --- for the command line -----------------------------------------------------------------------------------------


def read_outbox(path: Path) -> Iterator[tuple[str, LogLevel, int, bytes]]:
    """Every record on disk as (epoch, level, seq, JSON), oldest first, without disturbing a running agent.

    Raises sqlite3.Error.
    """
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
    try:
        order = "(SELECT e.id FROM epochs e WHERE e.epoch = segments.epoch), level, id"
        for row in db.execute(f"{_SELECT} ORDER BY {order}"):
            segment = parse_segment(row)
            if segment is not None:
                for seq, record in enumerate(segment.records, segment.first):
                    yield segment.epoch, segment.level, seq, record
    finally:
        db.close()
