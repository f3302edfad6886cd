"""All that the server has not acknowledged: accepts records, groups them into commits, hands out batches, takes acks.

Memory first: a record is numbered at once, waits in its lane's tail, and reaches the file when its lane's deadline
passes; what is acknowledged before that never touches the card. The file may be full, read-only, damaged or gone at any
time: then records stay in memory, bounded like the file, and every loss is a record of its own.

What goes over which wire, and when, is for `delivery`; the lane's numbers for `lanes`; the file for `outbox`.
Times: `now` in seconds of the boot clock.
"""

import operator
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from infoscreen_device.core.model import Draft
from infoscreen_device.lanes import Lane
from infoscreen_device.outbox import LEVELS, Epoch, Extent, Outbox, OutboxDamaged, Segment, blames_disk
from infoscreen_device.records import Stamp, correct, moved, number, renumbered
from infoscreen_device.salvage import salvage, set_aside, wal_commits
from infoscreen_device.settings import OutboxConfig
from infoscreen_shared.messages import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    Ack,
    Clock,
    Hello,
    LaneSpan,
    LogLevel,
    encode_batch,
)

MEMORY_BYTES = 4 * 2**20
"""Bound of what waits in memory while the file cannot be written."""

DELETE_AFTER_S = 1.0
"""Acknowledged segments go with the next commit, or after this time if none comes."""

RETRY_FIRST_S, RETRY_CAP_S = 1.0, 60.0
"""How long a file that cannot be written is left alone, doubling."""

EVICT_TO = 0.95
"""A full outbox is brought down to this share of its bound, so that not every commit has to evict."""


class Batch(NamedTuple):
    """What is to be sent next on one lane."""

    level: LogLevel
    epoch: str
    first: int
    last: int
    payload: bytes


class Dropped(NamedTuple):
    """A run of records that a bound or damage took."""

    epoch: str
    level: LogLevel
    first: int
    last: int
    since: float
    until: float


class Backlog:
    def __init__(self, path: Path, config: OutboxConfig, boot_id: str, opened: Stamp) -> None:
        """`opened`: the moment of opening. Never raises for the file's sake."""
        self.path = path
        self.config = config
        self.trouble: str | None = None
        """Why the file cannot be written now."""
        self.incidents: list[tuple[Draft, float]] = []
        """What happened to the outbox itself, and when; the owner appends them as records."""
        anchor = opened.utc.timestamp() - opened.boottime
        self.current = Epoch(secrets.token_hex(8), boot_id, anchor, 0.0 if opened.synced else None)
        self.epochs: dict[str, Epoch] = {}
        """Oldest first; the current one is the last."""
        self.lanes: dict[tuple[str, LogLevel], Lane] = {}
        self._file: Outbox | None = None
        self._aside: Path | None = None
        """A damaged file whose remains are not carried over yet."""
        self._stored: dict[str, Epoch] = {}
        self._settled: set[tuple[str, LogLevel]] = set()
        self._delete_at: float | None = None
        self._retry_at = opened.boottime
        self._retry_s = RETRY_FIRST_S
        self._damage = ""
        self.was_unclean = False
        self._begin_epoch(self.current)
        self._open(opened.boottime)

    # --- accepting ----------------------------------------------------------------------------------------------------

    def append(self, draft: Draft, stamp: Stamp) -> None:
        """Number a record and keep it; on disk by its lane's deadline at the latest (see `flush`)."""
        lane = self.lanes[self.current.epoch, draft.level]
        when, clock = stamp.utc, Clock.SYNCED
        if not stamp.synced and self.current.shift is None:
            when, clock = moved(datetime.fromtimestamp(0, UTC), self.current.anchor + stamp.boottime), Clock.UNSYNCED
        elif not stamp.synced:
            clock = Clock.UNSYNCED
        record = number(draft, lane.next, when, self.current.boot_id, clock)
        full = len(lane.tail) + 1 >= MAX_BATCH_RECORDS or lane.tail_bytes + len(record) >= MAX_BATCH_BYTES
        wait = 0.0 if full else self.config.deadline_s[draft.level]
        lane.append(record, when.timestamp(), stamp.boottime + wait)
        if self.trouble is not None:
            self._bound_memory(stamp.boottime)

    def decide_clock(self, shift: float, now: float) -> None:
        """Say once what the first time sync of this boot revealed: seconds to add to the times taken before it.

        Until then the records of this boot are held back; 0 sends them as they are. Later calls change nothing.
        """
        for name, epoch in self.epochs.items():
            if epoch.boot_id == self.current.boot_id and epoch.shift is None:
                moved_by = 0.0 if shift == 0 else shift + self.current.anchor - epoch.anchor
                self.epochs[name] = Epoch(epoch.epoch, epoch.boot_id, epoch.anchor, moved_by)
        self.current = self.epochs[self.current.epoch]
        # On disk before the first corrected record leaves, so that it is the same whenever it is sent again.
        self._commit(now)

    @property
    def clock_undecided(self) -> bool:
        return any(e.boot_id == self.current.boot_id and e.shift is None for e in self.epochs.values())

    # --- the file -----------------------------------------------------------------------------------------------------

    def next_flush(self) -> float | None:
        """When `flush` has something to do."""
        times = [lane.flush_at for lane in self.lanes.values() if lane.flush_at is not None]
        if self._delete_at is not None:
            times.append(self._delete_at)
        if not times:
            return None
        return max(min(times), self._retry_at) if self.trouble is not None else min(times)

    def flush(self, now: float, *, everything: bool = False) -> None:
        """Bring to disk what is due; what is not due yet goes along, for a commit costs the same."""
        due = self.next_flush()
        if due is not None and (everything or due <= now):
            self._commit(now)

    def _commit(self, now: float) -> None:
        if self.trouble is not None and now < self._retry_at:
            return
        if self._file is None:
            self._open(now)
        if self._file is None:
            return
        try:
            self._write(self._file, now)
        except sqlite3.Error as error:
            self._failed(error, now)

    def _write(self, file: Outbox, now: float) -> None:
        lanes = [lane for lane in self.lanes.values() if lane.tail]
        growing = {lane.epoch for lane in lanes}
        finished = [name for name in self.epochs if name != self.current.epoch and self._is_finished(name)]
        changed = {
            name: epoch
            for name, epoch in self.epochs.items()
            if self._stored.get(name) != epoch and (name in growing or name in self._stored) and name not in finished
        }
        file.begin()
        try:
            for epoch, level in self._settled | {(lane.epoch, lane.level) for lane in lanes}:
                file.delete_settled(epoch, level, self.lanes[epoch, level].base)
            for name in finished:
                file.forget_epoch(name)
            for opening in changed.values():
                file.put_epoch(opening)
            for lane in lanes:
                for segment in self._segments(lane):
                    file.add(segment)
            dropped = self._evict(file)
            file.commit()
        except BaseException:
            file.rollback()
            raise
        self._stored |= changed
        self._written(finished, lanes, dropped, now)

    def _written(self, finished: list[str], lanes: list[Lane], dropped: list[Dropped], now: float) -> None:
        """Follow in memory what the commit made true."""
        self._settled.clear()
        self._delete_at = None
        for name in finished:
            del self.epochs[name]
            self._stored.pop(name, None)
            for level in LEVELS:
                del self.lanes[name, level]
        for lane in lanes:
            lane.mark_flushed()
        for run in dropped:
            self.lanes[run.epoch, run.level].settle(run.last)
        self._report_dropped(dropped, "size", now)
        if self.trouble is not None:
            self.trouble, self._retry_s = None, RETRY_FIRST_S
            self._tell(LogLevel.INFO, "outbox.recovered", "The outbox file can be written again", {}, now)

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
            self._file = Outbox(self.path, self.config.max_bytes)
            self.was_unclean |= self._file.was_unclean
            self._account_for_wal(self._file, commits, now)
            rescued = self._aside is not None
            if self._aside is not None:
                self._carry_over(self._file, self._aside, now)
            self._adopt(self._file, rescued=rescued)
        except sqlite3.Error as error:
            self._close_file()
            self._failed(error, now)

    def _account_for_wal(self, file: Outbox, commits: list[int], now: float) -> None:
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
        self._tell(LogLevel.ERROR, "outbox.damaged", f"Damage cost the last {lost} commits of the outbox", context, now)

    def _adopt(self, file: Outbox, *, rescued: bool) -> None:
        """Take up what earlier openings left, oldest first; what is known already stays as it is."""
        known = self.epochs
        self._stored = {epoch.epoch: epoch for epoch in file.epochs()}
        self.epochs = {name: known.get(name, epoch) for name, epoch in self._stored.items()} | known
        extents = {(extent.epoch, extent.level): extent for extent in file.extents()}
        for name in self.epochs:
            for level in LEVELS:
                extent = extents.get((name, level), Extent(name, level, 0, 1))
                last = extent.next - 1
                lane = Lane(name, level, extent.base, extent.next, last, extent.base, holed=rescued)
                self.lanes.setdefault((name, level), lane).read_id = 0

    def _begin_epoch(self, epoch: Epoch) -> None:
        self.current = epoch
        self.epochs[epoch.epoch] = epoch
        self.lanes |= {(epoch.epoch, level): Lane(epoch.epoch, level) for level in LEVELS}

    def _failed(self, error: sqlite3.Error, now: float) -> None:
        self._cannot_write(error, now) if blames_disk(error) else self._rescue(error, now)

    def _cannot_write(self, error: Exception, now: float) -> None:
        """The disk is to blame: go on in memory and try again later.

        A full disk can still be read, so the connection stays; after anything else a new one is made.
        """
        self._retry_at = now + self._retry_s
        self._retry_s = min(self._retry_s * 2, RETRY_CAP_S)
        if self.trouble is None:
            message = f"The outbox file cannot be written ({error}); records wait in memory"
            self._tell(LogLevel.ERROR, "outbox.unwritable", message, {"path": str(self.path)}, now)
        self.trouble = str(error)
        if "full" not in self.trouble:
            self._close_file()
            if any(lane.base < lane.flushed for lane in self._current_lanes()):
                # What this opening has on disk is out of reach: later records must not wait behind it.
                self._begin_epoch(self._new_epoch())
        self._bound_memory(now)

    def _new_epoch(self) -> Epoch:
        old = self.current
        return Epoch(secrets.token_hex(8), old.boot_id, old.anchor, old.shift)

    def _rescue(self, error: sqlite3.Error, now: float) -> None:
        """The file is damaged: set it aside, save what is whole, go on with a new one."""
        self._close_file()
        try:
            self._aside = set_aside(self.path)
        except OSError as second:
            self._cannot_write(second, now)
            return
        self._damage = str(error)
        self._open(now)

    def _carry_over(self, file: Outbox, aside: Path, now: float) -> None:
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
        for lane in self.lanes.values():
            lane.holed = True
        lanes = saved.account()
        context: dict[str, object] = {"error": self._damage, "set_aside": str(aside), "lanes": lanes}
        saved_records = sum(segment.n for segment in saved.segments)
        message = f"The outbox file was damaged; {saved_records} records were saved from it"
        self._tell(LogLevel.ERROR, "outbox.damaged", message, context, now)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self, now: float) -> None:
        """Bring everything to disk and close."""
        self.flush(now, everything=True)
        self._close_file()

    # --- bounds -------------------------------------------------------------------------------------------------------

    def _evict(self, file: Outbox) -> list[Dropped]:
        """Within the open transaction: oldest of the lowest lane first, until the file is within its bound."""
        dropped: list[Dropped] = []
        if file.bytes <= self.config.max_bytes:
            return dropped
        for level in reversed(LEVELS):
            while file.bytes > self.config.max_bytes * EVICT_TO:
                oldest = file.oldest(level)
                if oldest is None:
                    break
                if isinstance(oldest, int):
                    file.drop(oldest)
                    continue
                file.delete_settled(oldest.epoch, level, oldest.last)
                dropped.append(self._dropped(oldest))
        return dropped

    def evict_aged(self, utc: datetime, now: float) -> None:
        """Drop what is older than the age bound. Call it only while the wall clock is right."""
        if self._file is None:
            return
        limit = utc.timestamp() - self.config.max_age_s
        dropped: list[Dropped] = []
        try:
            self._file.begin()
            while isinstance(oldest := self._file.oldest(), Segment) and self._is_older(oldest, limit):
                self._file.delete_settled(oldest.epoch, oldest.level, oldest.last)
                dropped.append(self._dropped(oldest))
            self._file.commit()
        except sqlite3.Error as error:
            self._file.rollback()
            self._failed(error, now)
            return
        for run in dropped:
            self.lanes[run.epoch, run.level].settle(run.last)
        self._report_dropped(dropped, "age", now)

    def _is_older(self, segment: Segment, limit: float) -> bool:
        shift = self.epochs[segment.epoch].shift
        if segment.unsynced and not shift:
            return False  # nobody knows how old it is
        return segment.born + (shift or 0.0) < limit

    def _dropped(self, segment: Segment) -> Dropped:
        """The part of an evicted segment that was still held."""
        first = max(segment.first, self.lanes[segment.epoch, segment.level].base + 1)
        return Dropped(segment.epoch, segment.level, first, segment.last, segment.born, segment.born)

    def _bound_memory(self, now: float) -> None:
        """The same order of eviction for what waits in memory because the file cannot be written."""
        excess = sum(lane.tail_bytes for lane in self.lanes.values()) - MEMORY_BYTES
        if excess <= 0:
            return
        dropped: list[Dropped] = []
        excess += int(MEMORY_BYTES * (1 - EVICT_TO))
        for level in reversed(LEVELS):
            for name in self.epochs:
                lane = self.lanes[name, level]
                first, births = lane.flushed + 1, []
                while excess > 0 and lane.tail:
                    excess -= len(lane.tail[0][0])
                    births.append(lane.drop_oldest_of_tail())
                if births:
                    dropped.append(Dropped(name, level, first, first + len(births) - 1, births[0], births[-1]))
        self._report_dropped(dropped, "size", now)

    def _report_dropped(self, dropped: list[Dropped], reason: str, now: float) -> None:
        """One record per lane for the runs that were dropped together."""
        runs: dict[tuple[str, LogLevel], Dropped] = {}
        for run in dropped:
            before = runs.get((run.epoch, run.level), run)
            runs[run.epoch, run.level] = before._replace(last=run.last, until=run.until)
        for run in runs.values():
            count = run.last - run.first + 1
            context = {
                "epoch": run.epoch,
                "level": run.level,
                "first": run.first,
                "last": run.last,
                "count": count,
                "from": datetime.fromtimestamp(run.since, UTC).isoformat(),
                "to": datetime.fromtimestamp(run.until, UTC).isoformat(),
                "reason": reason,
            }
            text = f"The outbox dropped {count} {run.level} records, the oldest it had ({reason} bound)"
            self._tell(LogLevel.WARN, "buffer.dropped", text, context, now)

    def _tell(self, level: LogLevel, code: str, message: str, context: dict[str, object], now: float) -> None:
        self.incidents.append((Draft(level, code, message, context), now))

    # --- sending ------------------------------------------------------------------------------------------------------

    def hellos(self, version: str) -> list[Hello]:
        """One for each opening that is not settled with the server, the current one last."""
        return [
            Hello(name, {level: self._span(name, level) for level in LEVELS}, version)
            for name in self.epochs
            if name == self.current.epoch or not self._is_finished(name)
        ]

    def _span(self, name: str, level: LogLevel) -> LaneSpan:
        lane = self.lanes[name, level]
        return LaneSpan(lane.base, lane.next)

    def next_batch(self, now: float, greeted: set[str]) -> Batch | None:
        """The next batch that may go out, most urgent level first; only of openings whose hello was answered."""
        for level in LEVELS:
            for name in self.epochs:
                lane = self.lanes[name, level]
                if not lane.held or self._is_out_of_reach(lane):
                    continue
                if name in greeted and lane.unsent and lane.has_room() and not self._is_held_back(name):
                    batch = self._batch(lane, now)
                    if batch is not None:
                        return batch
                if lane.held:
                    # The order inside a level holds across openings: a younger one waits for the older.
                    break
        return None

    def _is_out_of_reach(self, lane: Lane) -> bool:
        return self._file is None and lane.sent < lane.flushed

    def _is_held_back(self, name: str) -> bool:
        epoch = self.epochs[name]
        return epoch.shift is None and epoch.boot_id == self.current.boot_id

    def _batch(self, lane: Lane, now: float) -> Batch | None:
        records = self._from_disk(lane, now) if lane.sent < lane.flushed else lane.unsent_tail()
        if not records:
            return None
        shift = self.epochs[lane.epoch].shift
        if shift:
            records = correct(records, shift)
        first, last = lane.sent + 1, lane.sent + len(records)
        payload = encode_batch(lane.epoch, lane.base, records)
        lane.launch(first, last, len(payload), now)
        return Batch(lane.level, lane.epoch, first, last, payload)

    def _from_disk(self, lane: Lane, now: float) -> list[bytes]:
        if self._file is None:
            return []
        try:
            return self._read(self._file, lane)
        except sqlite3.Error as error:
            self._failed(error, now)
        return []

    def _read(self, file: Outbox, lane: Lane) -> list[bytes]:
        """As many whole segments as fit a batch. A hole is passed only when everything before it is acknowledged."""
        records: list[bytes] = []
        size = 0
        for segment in file.read(lane.epoch, lane.level, lane.sent, lane.read_id):
            if isinstance(segment, int):
                raise OutboxDamaged(f"segment {segment} has a wrong check sum")
            hole = segment.first > lane.sent + len(records) + 1
            if hole and (records or not self._pass_hole(lane, segment.first - 1)):
                break
            part = segment.records[lane.sent + len(records) + 1 - segment.first :]
            size += sum(map(len, part)) + len(part)
            if records and (len(records) + len(part) > MAX_BATCH_RECORDS or size > MAX_BATCH_BYTES):
                break
            records += part
            lane.read_id = segment.id
        if not records and not lane.window and lane.base == lane.sent and not self._has_more(file, lane):
            self._pass_hole(lane, lane.flushed)
        return records

    @staticmethod
    def _has_more(file: Outbox, lane: Lane) -> bool:
        return next(file.read(lane.epoch, lane.level, lane.sent, 0), None) is not None

    def _pass_hole(self, lane: Lane, up_to: int) -> bool:
        """Records that are gone: `base` declares it, once nothing before them is on its way.

        A hole that nobody has accounted for yet is damage that no check sum shows (a row under a wrong number).
        """
        if not lane.holed:
            raise OutboxDamaged(f"{lane.level} {lane.sent + 1} to {up_to} are missing")
        if lane.base < lane.sent:
            return False
        lane.settle(up_to)
        self._settled.add((lane.epoch, lane.level))
        return True

    def go_back(self) -> None:
        """The connection or the server's memory is gone: everything in flight is to be sent again."""
        for lane in self.lanes.values():
            lane.go_back()

    def oldest_flight(self) -> float | None:
        """When the longest unanswered batch was sent."""
        return min((lane.window[0].sent_at for lane in self.lanes.values() if lane.window), default=None)

    def on_ack(self, ack: Ack, now: float) -> bool:
        """The server's word on one opening's lanes. False if it does not fit what we hold: then say hello again."""
        if ack.epoch not in self.epochs:
            return True
        ours = [self.lanes[ack.epoch, level].next for level in ack.lanes]
        if ack.epoch == self.current.epoch and any(map(operator.ge, ack.lanes.values(), ours)):
            self._reborn(now)
            return False
        fits = True
        for level, seq in ack.lanes.items():
            lane = self.lanes[ack.epoch, level]
            fits &= seq >= lane.base
            lane.acked = min(seq, lane.next - 1)
            on_disk = lane.base < lane.flushed
            before = lane.base
            lane.settle(seq)
            if on_disk and lane.base > before:
                self._settled.add((ack.epoch, level))
                self._delete_at = self._delete_at or now + DELETE_AFTER_S
        return fits

    def _reborn(self, now: float) -> None:
        try:
            self._rebirth(now)
        except sqlite3.Error as error:
            self._failed(error, now)

    def _rebirth(self, now: float) -> None:
        """The server knows numbers of ours that we never gave (a machine resumed from a snapshot): take new ones."""
        old = self.current.epoch
        self._begin_epoch(self._new_epoch())
        for level in LEVELS:
            lane = self.lanes[old, level]
            while lane.base < lane.flushed and self._file is not None:
                segment = next(self._file.read(old, level, lane.base, 0), None)
                if isinstance(segment, int):
                    raise OutboxDamaged(f"segment {segment} has a wrong check sum")
                if segment is None:
                    break
                for seq, record in enumerate(segment.records, segment.first):
                    if seq > lane.base:
                        self._renumber(record, segment.born, level, now)
                lane.settle(segment.last)
                self._settled.add((old, level))
                self._commit(now)
            for record, born in lane.tail:
                self._renumber(record, born, level, now)
            lane.settle(lane.next - 1)
            lane.acked = lane.base
            self._settled.add((old, level))
        self._commit(now)

    def _renumber(self, record: bytes, born: float, level: LogLevel, now: float) -> None:
        lane = self.lanes[self.current.epoch, level]
        lane.append(renumbered(record, lane.next), born, now)

    # --- for status ---------------------------------------------------------------------------------------------------

    def pending(self) -> int:
        return sum(lane.held for lane in self.lanes.values())

    def oldest(self) -> datetime | None:
        """Wall time of the oldest record that waits, as good as the clock was."""
        times = [lane.tail[0][1] for lane in self.lanes.values() if lane.tail]
        try:
            first = None if self._file is None or not self.pending() else self._file.oldest()
        except sqlite3.Error:
            first = None
        if isinstance(first, Segment) and self.lanes[first.epoch, first.level].base < first.last:
            times.append(first.born)
        return datetime.fromtimestamp(min(times), UTC) if times else None

    def undeclared(self) -> bool:
        """The server has to be told of a loss, and only a hello can."""
        return any(lane.undeclared for lane in self.lanes.values())

    def _current_lanes(self) -> list[Lane]:
        return [self.lanes[self.current.epoch, level] for level in LEVELS]

    def _is_finished(self, name: str) -> bool:
        return all(self.lanes[name, level].acked >= self.lanes[name, level].next - 1 for level in LEVELS)
