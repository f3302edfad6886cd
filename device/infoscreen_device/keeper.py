"""Keeps the holdings on disk: groups what is due into commits, and lives through a file that is full, read-only,
damaged or gone.

Records that cannot be written wait in memory, bounded like the file; what happens to the outbox itself becomes an
incident, which the owner turns into a record. Times: `now` in seconds of the boot clock.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from infoscreen_device.bounds import Dropped, evict_aged, evict_full, evict_memory, tell_dropped
from infoscreen_device.core.model import Draft
from infoscreen_device.holdings import Holdings
from infoscreen_device.lanes import Lane
from infoscreen_device.outbox import LEVELS, Epoch, Extent, Outbox, Segment, blames_disk
from infoscreen_device.salvage import salvage, set_aside, wal_commits
from infoscreen_device.settings import OutboxConfig
from infoscreen_shared.messages import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, LogLevel

DELETE_AFTER_S = 1.0
"""Acknowledged segments go with the next commit, or after this time if none comes."""

RETRY_FIRST_S, RETRY_CAP_S = 1.0, 60.0
"""How long a file that cannot be written is left alone, doubling."""


class Keeper:
    def __init__(self, path: Path, config: OutboxConfig, held: Holdings, now: float) -> None:
        """Opens the file; never raises for its sake."""
        self.path = path
        self.config = config
        self.held = held
        self.file: Outbox | None = None
        self.trouble: str | None = None
        """Why the file cannot be written now."""
        self.incidents: list[Draft] = []
        self.was_unclean = False
        self._settled: set[tuple[str, LogLevel]] = set()
        self._delete_at: float | None = None
        self._stored: dict[str, Epoch] = {}
        self._aside: Path | None = None
        """A damaged file whose remains are not carried over yet."""
        self._damage = ""
        self._retry_at = now
        self._retry_s = RETRY_FIRST_S
        self._open(now)

    def settle_on_disk(self, epoch: str, level: LogLevel, now: float) -> None:
        """What this lane no longer holds may leave the file."""
        self._settled.add((epoch, level))
        if self._delete_at is None:
            self._delete_at = now + DELETE_AFTER_S

    def next_flush(self) -> float | None:
        """When `flush` has something to do."""
        times = [lane.flush_at for lane in self.held.lanes.values() if lane.flush_at is not None]
        if self._delete_at is not None:
            times.append(self._delete_at)
        if not times:
            return None
        return max(min(times), self._retry_at) if self.trouble is not None else min(times)

    def flush(self, now: float, *, everything: bool = False) -> None:
        """Bring to disk what is due; what is not due yet goes along, for a commit costs the same."""
        due = self.next_flush()
        if due is not None and (everything or due <= now):
            self.commit(now)

    def commit(self, now: float) -> None:
        if self.trouble is not None and now < self._retry_at:
            return
        if self.file is None:
            self._open(now)
        if self.file is None:
            return
        try:
            self._write(self.file)
        except sqlite3.Error as error:
            self.failed(error, now)

    def _write(self, file: Outbox) -> None:
        lanes = [lane for lane in self.held.lanes.values() if lane.tail]
        growing = {lane.epoch for lane in lanes}
        finished = [
            name for name in self.held.epochs if name != self.held.current.epoch and self.held.is_finished(name)
        ]
        changed = {
            name: epoch
            for name, epoch in self.held.epochs.items()
            if self._stored.get(name) != epoch and (name in growing or name in self._stored) and name not in finished
        }
        dropped: list[Dropped] = []
        file.begin()
        try:
            for epoch, level in self._settled:
                file.delete_settled(epoch, level, self.held.lanes[epoch, level].base)
            for name in finished:
                file.forget_epoch(name)
            for opening in changed.values():
                file.put_epoch(opening)
            for lane in lanes:
                file.put_base(lane.epoch, lane.level, lane.base)
                for segment in self._segments(lane):
                    file.add(segment)
                    # At each one: what gathered in memory may be more than the room between bound and end of the file.
                    dropped += evict_full(file, self.held, self.config.max_bytes)
            file.commit()
        except BaseException:
            file.rollback()
            raise
        self._stored |= changed
        self._written(finished, lanes, dropped)

    def _written(self, finished: list[str], lanes: list[Lane], dropped: list[Dropped]) -> None:
        """Follow in memory what the commit made true."""
        if self._settled or dropped:
            # SQLite gives the ids of deleted rows again: a place to read on from is only good while none is deleted.
            for lane in self.held.lanes.values():
                lane.read_id = 0
        self._settled.clear()
        self._delete_at = None
        for name in finished:
            self.held.forget(name)
            self._stored.pop(name, None)
        for lane in lanes:
            lane.mark_flushed()
        for run in dropped:
            self.held.lanes[run.epoch, run.level].settle(run.last)
        self.incidents += tell_dropped(dropped, "size")
        if self.trouble is not None:
            self.trouble, self._retry_s = None, RETRY_FIRST_S
            self._tell(LogLevel.INFO, "outbox.recovered", "The outbox file can be written again", {})

    def _segments(self, lane: Lane) -> Iterator[Segment]:
        """The tail of a lane in segments, each of which fits a batch."""
        records = [record for record, _ in lane.tail]
        start = 0
        while start < len(records):
            end, size = start, 0
            while end < len(records) and end - start < MAX_BATCH_RECORDS:
                size += len(records[end]) + 1
                if size > MAX_BATCH_BYTES and end > start:
                    break
                end += 1
            first = lane.flushed + 1 + start
            unsynced = any(b'"clock":"unsynced"' in record for record in records[start:end])
            run = records[start:end]
            yield Segment(lane.epoch, lane.level, first, len(run), lane.tail[start][1], unsynced, run)
            start = end

    def _open(self, now: float) -> None:
        try:
            commits = wal_commits(self.path)
            self.file = Outbox(self.path, self.config.max_bytes)
            self.was_unclean |= self.file.was_unclean
            self._account_for_wal(self.file, commits)
            rescued = self._aside is not None
            if self._aside is not None:
                self._carry_over(self.file, self._aside)
            self._adopt(self.file, rescued=rescued)
        except sqlite3.Error as error:
            self.drop_file()
            self.failed(error, now)

    def _account_for_wal(self, file: Outbox, commits: list[int]) -> None:
        """Say so if damage in the WAL cost commits that were on disk.

        One unusable commit at the end is what a power cut leaves, and was never promised. But each commit is synced
        before the next begins: two of them behind a bad frame prove that the first had been whole.
        """
        if len(commits) < 2:
            return
        valid = file.valid_frames()
        lost = sum(number > valid for number in commits)
        if lost < 2:
            return
        context = {"error": "the write-ahead log is damaged", "commits_lost": lost, "lanes": []}
        self._tell(LogLevel.ERROR, "outbox.damaged", f"Damage cost the last {lost} commits of the outbox", context)

    def _adopt(self, file: Outbox, *, rescued: bool) -> None:
        """Take up what earlier openings left, oldest first; what is known already stays as it is."""
        known = self.held.epochs
        self._stored = {epoch.epoch: epoch for epoch in file.epochs()}
        self.held.epochs = {name: known.get(name, epoch) for name, epoch in self._stored.items()} | known
        extents = {(extent.epoch, extent.level): extent for extent in file.extents()}
        for name in self.held.epochs:
            for level in LEVELS:
                extent = extents.get((name, level), Extent(name, level, 0, 1))
                last = extent.next - 1
                lane = Lane(name, level, extent.base, extent.next, last, extent.base, holed=rescued)
                self.held.lanes.setdefault((name, level), lane).read_id = 0

    def failed(self, error: sqlite3.Error, now: float) -> None:
        self._cannot_write(error, now) if blames_disk(error) else self._rescue(error, now)

    def _cannot_write(self, error: Exception, now: float) -> None:
        """The disk is to blame: go on in memory and try again later.

        A full disk can still be read, so the connection stays; after anything else a new one is made.
        """
        self._retry_at = now + self._retry_s
        self._retry_s = min(self._retry_s * 2, RETRY_CAP_S)
        if self.trouble is None:
            message = f"The outbox file cannot be written ({error}); records wait in memory"
            self._tell(LogLevel.ERROR, "outbox.unwritable", message, {"path": str(self.path)})
        self.trouble = str(error)
        if "full" not in self.trouble:
            self.drop_file()
            if any(lane.base < lane.flushed for lane in self.held.current_lanes()):
                # What this opening has on disk is out of reach: later records must not wait behind it.
                self.held.begin_next()
        self.bound_memory()

    def _rescue(self, error: sqlite3.Error, now: float) -> None:
        """The file is damaged: set it aside, save what is whole, go on with a new one."""
        self.drop_file()
        try:
            self._aside = set_aside(self.path)
        except OSError as second:
            self._cannot_write(second, now)
            return
        self._damage = str(error)
        self._open(now)

    def _carry_over(self, file: Outbox, aside: Path) -> None:
        saved = salvage(aside)
        file.begin()
        try:
            for epoch in saved.openings():
                file.put_epoch(epoch)
            for extent in saved.ledger.values():
                file.put_extent(extent)
            for segment in saved.segments:
                file.add(segment)
            file.commit()
        except BaseException:
            file.rollback()
            raise
        self._aside = None
        for lane in self.held.lanes.values():
            lane.holed = True
        lanes = saved.account()
        context: dict[str, object] = {"error": self._damage, "set_aside": str(aside), "lanes": lanes}
        saved_records = sum(segment.n for segment in saved.segments)
        message = f"The outbox file was damaged; {saved_records} records were saved from it"
        self._tell(LogLevel.ERROR, "outbox.damaged", message, context)

    def drop_file(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def close(self, now: float) -> None:
        """Bring everything to disk and close."""
        self.flush(now, everything=True)
        self.drop_file()

    def bound_memory(self) -> None:
        self.incidents += tell_dropped(evict_memory(self.held), "size")

    def evict_aged(self, utc: datetime, now: float) -> None:
        """Drop what is older than the age bound. Call it only while the wall clock is right."""
        if self.file is None:
            return
        try:
            self.file.begin()
            dropped = evict_aged(self.file, self.held, utc.timestamp() - self.config.max_age_s)
            self.file.commit()
        except sqlite3.Error as error:
            self.file.rollback()
            self.failed(error, now)
            return
        for run in dropped:
            self.held.lanes[run.epoch, run.level].settle(run.last)
        for lane in self.held.lanes.values():
            lane.read_id = 0
        self.incidents += tell_dropped(dropped, "age")

    def _tell(self, level: LogLevel, code: str, message: str, context: dict[str, object]) -> None:
        self.incidents.append(Draft(level, code, message, context))
