"""What can be saved from a damaged outbox file, and setting such a file aside.

Reading only, from the outbox's format; that the agent goes on with a new file is for `backlog`.
"""

import sqlite3
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoscreen_device.outbox import LEVELS, PAGE_SIZE, Epoch, Extent, Outbox, Segment, parse_segment
from infoscreen_shared.messages import LogLevel


@dataclass(slots=True)
class Salvage:
    """What could be read of a damaged file."""

    epochs: list[Epoch]
    segments: list[Segment]
    ledger: dict[tuple[str, LogLevel], Extent]
    """What each lane held; a lane is missing if the ledger itself was hit."""

    def openings(self) -> list[Epoch]:
        """Every opening that something is left of, oldest first."""
        names = {epoch.epoch: epoch for epoch in self.epochs}
        for name in [segment.epoch for segment in self.segments] + [name for name, _ in self.ledger]:
            # Its own row was hit: its boot is not known, so its times stay as they are.
            names.setdefault(name, Epoch(name, "", 0.0, 0.0))
        return list(names.values())

    def account(self) -> list[dict[str, object]]:
        """Per lane how many records were saved and how many lost; None where the ledger cannot say it any more."""
        kept = dict.fromkeys(self.ledger, 0)
        for segment in self.segments:
            kept[segment.epoch, segment.level] = kept.get((segment.epoch, segment.level), 0) + segment.n
        rows: list[dict[str, object]] = []
        for (epoch, level), count in kept.items():
            extent = self.ledger.get((epoch, level))
            lost = None if extent is None else max(0, extent.next - 1 - extent.base - count)
            rows.append({"epoch": epoch, "level": level, "saved": count, "lost": lost})
        return rows


def set_aside(path: Path) -> Path:
    """Move a damaged file and its WAL out of the way; only the latest is kept, for the card is small.

    Raises OSError.
    """
    aside = path.with_name(path.name + ".damaged")
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        target = aside.with_name(aside.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            source.rename(target)
    return aside


def salvage(path: Path) -> Salvage:
    """Read whatever is still whole. Never raises for the file's sake."""
    saved = _salvage_rows(path)
    if not saved.segments and not saved.epochs and _mend_first_page(path):
        saved = _salvage_rows(path)
    return saved


def wal_commits(path: Path) -> list[int]:
    """The numbers (from 1) of the frames in the WAL that end a commit, be their check sums right or not.

    SQLite file format, section 4: a header of 32 bytes, then frames of 24 bytes and a page; the salts in both say which
    generation of the WAL they belong to.
    """
    try:
        raw = path.with_name(path.name + "-wal").read_bytes()
    except OSError:
        return []
    headers = [raw[at : at + 24] for at in range(32, len(raw) - 24 - PAGE_SIZE + 1, 24 + PAGE_SIZE)]
    if not headers:
        return []
    salts = raw[16:24] if _wal_header_is_whole(raw[:32]) else headers[0][8:16]
    return [number for number, header in enumerate(headers, 1) if header[8:16] == salts and any(header[4:8])]


def _wal_header_is_whole(header: bytes) -> bool:
    """The WAL's own check sum over its header (SQLite file format, section 4.2)."""
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header[:24])
    first = second = 0
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return (first, second) == struct.unpack(">2I", header[24:32])


def _salvage_rows(path: Path) -> Salvage:
    saved = Salvage([], [], {})
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=2.0)
    except sqlite3.Error:
        return saved
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        epochs = _rows_both_ways(db, "SELECT id, epoch, boot_id, anchor, shift FROM epochs", "id")
        saved.epochs = [Epoch(*row[1:]) for row in sorted(epochs) if _plausible(row)]
        rows = _rows_both_ways(db, "SELECT id, epoch, level, first, n, born, unsynced, crc, body FROM segments", "id")
        found = {row[0]: segment for row in rows if (segment := parse_segment(row)) is not None}
        saved.segments = [found[key] for key in sorted(found)]
        for epoch, level, base, upcoming in _rows_both_ways(db, "SELECT * FROM lanes", "epoch, level"):
            if level in range(len(LEVELS)) and isinstance(base, int) and isinstance(upcoming, int) and base < upcoming:
                saved.ledger[epoch, LEVELS[level]] = Extent(epoch, LEVELS[level], base, upcoming)
    finally:
        db.close()
    return saved


def _rows_both_ways(db: sqlite3.Connection, select: str, key: str) -> set[tuple[Any, ...]]:
    """Rows from the front up to the first unreadable page, then from the back up to the last one."""
    backwards = ", ".join(f"{column} DESC" for column in key.split(", "))
    rows: set[tuple[Any, ...]] = set()
    for order in (key, backwards):
        try:
            for row in db.execute(f"{select} ORDER BY {order}"):
                rows.add(row)
        except (sqlite3.Error, OverflowError, UnicodeDecodeError):
            continue
        break
    return rows


def _plausible(row: tuple[Any, ...]) -> bool:
    _, epoch, boot_id, anchor, shift = row
    return (
        isinstance(epoch, str)
        and isinstance(boot_id, str)
        and isinstance(anchor, float)
        and type(shift) in (float, type(None))
    )


def _mend_first_page(path: Path) -> bool:
    """Give a file whose first page was hit a new one: it holds the header and the schema, the same in every outbox."""
    template = path.with_name(path.name + ".template")
    template.unlink(missing_ok=True)
    try:
        fresh = Outbox(template, PAGE_SIZE * 1000)
        fresh.close()
        first_page = bytearray(template.read_bytes()[:PAGE_SIZE])
        # Offsets 32 to 39 (free list) stay zero; the size at 28 counts only if 24 equals 92 (SQLite file format 1.3.1).
        first_page[28:32] = (path.stat().st_size // PAGE_SIZE).to_bytes(4, "big")
        with path.open("r+b") as file:
            file.write(first_page)
    except (OSError, sqlite3.Error):
        return False
    finally:
        template.unlink(missing_ok=True)
    return True
