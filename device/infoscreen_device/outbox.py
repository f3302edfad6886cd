"""The outbox file: segments of records that the server has not acknowledged, in SQLite.

A segment is one compressed run of consecutive records of one lane. This module knows the file: its schema, its pragmas,
reading, writing, deleting. What can be saved from a damaged file is in `salvage`; what is sent when, and what a number
means, in `backlog` and `lanes`. One thread uses it; nothing here retries or hides an sqlite3.Error.

The pragmas, measured per commit of a small segment on the device: 1 kB pages 11 kB, 4 kB pages 15 kB; WAL with
synchronous=FULL because NORMAL may lose hours on a quiet kiosk (it syncs at checkpoints only). One writing connection
and no memory map keep clear of SQLite's WAL-reset bug (fixed in 3.51.3; Debian 12 has 3.40).
"""

import logging
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoscreen_shared.messages import LogLevel

log = logging.getLogger(__name__)

APPLICATION_ID = 0x49535744
"""ISWD: a stranger's database is not written to."""

FORMAT = 1
"""PRAGMA user_version. A reader accepts its own format only; a change has to stay readable by the version before."""

PAGE_SIZE = 1024
CHECKPOINT_PAGES = 120
WAL_BYTES = 196_608
"""What the WAL is made at once: a commit that does not lengthen it costs the file system's journal a quarter less (on
ext4 12.7 kB instead of 17.0 kB, measured at one commit in 30 s). The checkpoint comes before it is full."""
_COLUMNS = "id, epoch, level, first, n, born, unsynced, crc, body"
_SELECT = f"SELECT {_COLUMNS} FROM segments"  # noqa: S608
_INSERT = f"INSERT INTO segments ({_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608

_SCHEMA = (
    "CREATE TABLE epochs (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE, boot_id TEXT NOT NULL,"
    " anchor REAL NOT NULL, shift REAL) STRICT",
    "CREATE TABLE segments (id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, level INTEGER NOT NULL,"
    " first INTEGER NOT NULL, n INTEGER NOT NULL, born REAL NOT NULL, unsynced INTEGER NOT NULL,"
    " crc INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE TABLE lanes (epoch TEXT NOT NULL, level INTEGER NOT NULL, base INTEGER NOT NULL, next INTEGER NOT NULL,"
    " PRIMARY KEY (epoch, level)) WITHOUT ROWID, STRICT",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT",
)

LEVELS = tuple(LogLevel)
_COMPRESSION = 6


class OutboxDamaged(sqlite3.DatabaseError):
    """The file cannot be trusted any more; set it aside."""


_DISK_ERRORS = frozenset({3, 5, 6, 7, 8, 10, 13, 14})
"""PERM, BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN (sqlite3.h, result codes)."""


def blames_disk(error: sqlite3.Error) -> bool:
    """True if the error may pass by itself; False if the content of the file is to blame."""
    code: int | None = getattr(error, "sqlite_errorcode", None)  # none: Python could not decode what it read
    return isinstance(error, sqlite3.OperationalError) and code is not None and code & 0xFF in _DISK_ERRORS


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
    """An open outbox file. Every method may raise sqlite3.Error; `blames_disk` tells the two kinds apart."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        _check_header(path)
        self.was_unclean = path.with_name(path.name + "-wal").exists()
        self._db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
        try:
            self._open(max_bytes)
        except BaseException:
            self._db.close()
            raise

    def _open(self, max_bytes: int) -> None:
        run = self._run
        # EXTRA is FULL, and syncs the folder too: else the journal of the file's first moment could come back after a
        # power cut and undo what was committed since.
        run("PRAGMA synchronous = EXTRA")
        run(f"PRAGMA page_size = {PAGE_SIZE}")
        fresh = self._one("SELECT count(*) FROM sqlite_schema") == 0
        if not fresh:
            if self._one("PRAGMA application_id") != APPLICATION_ID or self._one("PRAGMA user_version") != FORMAT:
                raise OutboxDamaged("not an outbox of this version")
            # Takes as long as reading the backlog once; STRICT tables let it check the types of all values as well.
            if self._one("PRAGMA quick_check(1)") != "ok":
                raise OutboxDamaged("quick_check found damage")
            orphans = "SELECT count(*) FROM {} WHERE epoch NOT IN (SELECT epoch FROM epochs)"
            if self._one(orphans.format("segments")) or self._one(orphans.format("lanes")):
                raise OutboxDamaged("records of an opening that is not listed")
        for pragma in ("journal_mode = WAL", "secure_delete = OFF", "cell_size_check = ON"):
            run(f"PRAGMA {pragma}")
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        run(f"PRAGMA max_page_count = {max_bytes * 5 // 4 // PAGE_SIZE + 64}")
        if fresh:
            self._create()
        self._lengthen_wal()

    def _lengthen_wal(self) -> None:
        """With zeros, which are no frames to SQLite: it reads a WAL up to the first frame with a wrong check sum."""
        try:
            fd = os.open(self.path.with_name(self.path.name + "-wal"), os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return  # a full or read-only disk: the first commit will tell
        try:
            size = os.fstat(fd).st_size
            os.pwrite(fd, bytes(max(0, WAL_BYTES - size)), size)
        except OSError as error:
            log.debug("%s: its WAL stays short: %s", self.path, error)
        finally:
            os.close(fd)

    def _create(self) -> None:
        self._run("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            self._run(statement)
        self._run(f"PRAGMA application_id = {APPLICATION_ID}")
        self._run(f"PRAGMA user_version = {FORMAT}")
        self._run("COMMIT")

    def _run(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        return list(self._rows(sql, values))

    def _rows(self, sql: str, values: Sequence[object] = ()) -> Iterator[Any]:
        try:
            yield from self._db.execute(sql, values)
        except (UnicodeDecodeError, OverflowError) as error:
            # Python cannot even tell the error or the value: both quote a schema or a row that is garbage.
            raise OutboxDamaged(str(error)) from error

    def _one(self, sql: str, *values: object) -> Any:
        return self._run(sql, values)[0][0]

    def close(self) -> None:
        self._db.close()

    def size(self) -> int:
        """Bytes of the pages in use, those of an open transaction included; what is free in a page counts as used."""
        pages: int = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return pages * PAGE_SIZE

    def valid_frames(self) -> int:
        """How many frames of the WAL SQLite found to be good; it ignores all behind the first bad one."""
        frames: int = self._run("PRAGMA wal_checkpoint(PASSIVE)")[0][1]
        return frames

    # --- writing: all of one commit between begin and commit ----------------------------------------------------------

    def begin(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._run("COMMIT")

    def rollback(self) -> None:
        """Undo an open transaction; harmless where SQLite has done it already."""
        if self._db.in_transaction:
            self._run("ROLLBACK")

    def put_epoch(self, epoch: Epoch) -> None:
        """Store an opening, or the shift that has been decided for it."""
        self._run(
            "INSERT INTO epochs (epoch, boot_id, anchor, shift) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE SET shift = ?4",
            (epoch.epoch, epoch.boot_id, epoch.anchor, epoch.shift),
        )

    def add(self, segment: Segment) -> None:
        """Store a segment and say in the ledger up to where its lane is numbered."""
        body = zlib.compress(b"\n".join(segment.records), _COMPRESSION)
        level = LEVELS.index(segment.level)
        crc = _crc(segment.epoch, level, segment.first, segment.n, body)
        self._run(
            _INSERT,
            (segment.epoch, level, segment.first, segment.n, segment.born, segment.unsynced, crc, body),
        )
        self._run(
            "INSERT INTO lanes VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET next = max(next, ?4)",
            (segment.epoch, level, segment.first - 1, segment.last + 1),
        )

    def delete_settled(self, epoch: str, level: LogLevel, base: int) -> None:
        """Drop the segments of a lane that hold nothing above `base`."""
        values = (epoch, LEVELS.index(level), base)
        self._run("DELETE FROM segments WHERE epoch = ? AND level = ? AND first + n - 1 <= ?", values)
        self.put_base(epoch, level, base)

    def put_base(self, epoch: str, level: LogLevel, base: int) -> None:
        """Say in the ledger that a lane holds nothing up to `base` any more."""
        # What was acknowledged before it came to the file had a number all the same: `next` is behind it.
        ledger = "UPDATE lanes SET base = ?3, next = max(next, ?3 + 1) WHERE epoch = ?1 AND level = ?2 AND base < ?3"
        self._run(ledger, (epoch, LEVELS.index(level), base))

    def evict(self, oldest: Segment) -> None:
        """Drop the oldest segment of a lane."""
        self.drop(oldest.id)
        self.put_base(oldest.epoch, oldest.level, oldest.last)

    def put_extent(self, extent: Extent) -> None:
        """Carry a lane's ledger over into a new file."""
        values = (extent.epoch, LEVELS.index(extent.level), extent.base, extent.next)
        self._run("INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?)", values)

    def forget_epoch(self, epoch: str) -> None:
        """Drop an earlier opening of which nothing is held any more."""
        for table in ("segments", "lanes", "epochs"):
            self._run(f"DELETE FROM {table} WHERE epoch = ?", (epoch,))  # noqa: S608

    def set_meta(self, name: str, value: str) -> None:
        self._run("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2", (name, value))

    # --- reading ------------------------------------------------------------------------------------------------------

    def meta(self, name: str) -> str | None:
        rows = self._run("SELECT value FROM meta WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def epochs(self) -> list[Epoch]:
        """All openings that left records, oldest first."""
        return [Epoch(*row) for row in self._run("SELECT epoch, boot_id, anchor, shift FROM epochs ORDER BY id")]

    def extents(self) -> list[Extent]:
        rows = self._run("SELECT epoch, level, base, max(next, base + 1) FROM lanes")
        return [Extent(epoch, LEVELS[level], base, upcoming) for epoch, level, base, upcoming in rows]

    def read(self, epoch: str, level: LogLevel, after: int, after_id: int) -> Iterator[Segment | int]:
        """The segments of a lane that hold numbers above `after`, from row `after_id` on, oldest first.

        In place of one whose check sum is wrong: its row id.
        """
        rows = self._rows(
            f"{_SELECT} WHERE id >= ? AND epoch = ? AND level = ? AND first + n - 1 > ? ORDER BY id",
            (after_id, epoch, LEVELS.index(level), after),
        )
        for row in rows:
            yield parse_segment(row) or int(row[0])

    def drop(self, row_id: int) -> None:
        """A segment that cannot be read."""
        self._run("DELETE FROM segments WHERE id = ?", (row_id,))

    def oldest(self, level: LogLevel | None = None, after_id: int = 0) -> Segment | int | None:
        """The segment written first (of this level, if given) from row `after_id` on; its row id if unreadable."""
        which, values = ("", ()) if level is None else (" AND level = ?", (LEVELS.index(level),))
        rows = self._run(f"{_SELECT} WHERE id >= ?{which} ORDER BY id LIMIT 1", (after_id, *values))
        return (parse_segment(rows[0]) or int(rows[0][0])) if rows else None


def _disk_error(error: OSError) -> sqlite3.OperationalError:
    translated = sqlite3.OperationalError(f"unable to open the outbox: {error.strerror}")
    translated.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    return translated


def _check_header(path: Path) -> None:
    """Raises OutboxDamaged if the header's first 24 bytes are not ours (SQLite file format 1.3).

    SQLite itself takes some damage there for a wish: with another "write version" it opens the file read-only.
    """
    try:
        with path.open("rb") as file:
            header = file.read(24)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _disk_error(error) from error
    versions = header[18:20]
    expected = b"SQLite format 3\0" + PAGE_SIZE.to_bytes(2, "big") + versions + bytes([0, 64, 32, 32])
    if header and (header != expected or versions not in (b"\1\1", b"\2\2")):
        raise OutboxDamaged("the file's header is not an outbox's")


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
