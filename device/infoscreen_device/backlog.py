"""All that the server has not acknowledged: accepts records, hands out batches, takes acks.

Memory first: a record is numbered at once, waits in its lane's tail, and reaches the file when its lane's deadline
passes; what is acknowledged before that never touches the card. What goes over which wire, and when, is for `delivery`;
the lane's numbers for `lanes`; the file and its troubles for `keeper`. Times: `now` in seconds of the boot clock.
"""

import operator
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from infoscreen_device.core.model import Draft
from infoscreen_device.holdings import Holdings
from infoscreen_device.keeper import Keeper
from infoscreen_device.lanes import Lane
from infoscreen_device.outbox import LEVELS, Outbox, OutboxDamaged, Segment
from infoscreen_device.records import Stamp, correct, moved, number, renumbered
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


class Batch(NamedTuple):
    """What is to be sent next on one lane."""

    level: LogLevel
    epoch: str
    first: int
    last: int
    payload: bytes


class Backlog:
    def __init__(self, path: Path, config: OutboxConfig, boot_id: str, opened: Stamp) -> None:
        """`opened`: the moment of opening. Never raises for the file's sake."""
        self.held = Holdings(boot_id, opened)
        self.keeper = Keeper(path, config, self.held, opened.boottime)

    # --- accepting ---------------------------------------------------------------------------------------------------

    def append(self, draft: Draft, stamp: Stamp) -> None:
        """Number a record and keep it; on disk by its lane's deadline at the latest (see `flush`)."""
        lane = self.held.lanes[self.held.current.epoch, draft.level]
        when, clock = stamp.utc, Clock.SYNCED
        if not stamp.synced and self.held.current.shift is None:
            when, clock = (
                moved(datetime.fromtimestamp(0, UTC), self.held.current.anchor + stamp.boottime),
                Clock.UNSYNCED,
            )
        elif not stamp.synced:
            clock = Clock.UNSYNCED
        record = number(draft, lane.next, when, self.held.current.boot_id, clock)
        full = len(lane.tail) + 1 >= MAX_BATCH_RECORDS or lane.tail_bytes + len(record) >= MAX_BATCH_BYTES
        wait = 0.0 if full else self.keeper.config.deadline_s[draft.level]
        lane.append(record, when.timestamp(), stamp.boottime + wait)
        if self.keeper.trouble is not None:
            self.keeper.bound_memory()

    def decide_clock(self, shift: float, now: float) -> None:
        """Say once what the first time sync of this boot revealed: seconds to add to the times taken before it.

        Until then the records of this boot are held back; 0 sends them as they are. Later calls change nothing.
        """
        self.held.decide_shift(shift)
        # On disk before the first corrected record leaves, so that it is the same whenever it is sent again.
        self.keeper.commit(now)

    @property
    def clock_undecided(self) -> bool:
        return any(e.boot_id == self.held.current.boot_id and e.shift is None for e in self.held.epochs.values())

    # --- sending ------------------------------------------------------------------------------------------------------

    def hellos(self, version: str) -> list[Hello]:
        """One for each opening that is not settled with the server, the current one last."""
        return [
            Hello(name, {level: self._span(name, level) for level in LEVELS}, version)
            for name in self.held.epochs
            if name == self.held.current.epoch or not self.held.is_finished(name)
        ]

    def _span(self, name: str, level: LogLevel) -> LaneSpan:
        lane = self.held.lanes[name, level]
        return LaneSpan(lane.base, lane.next)

    def next_batch(self, now: float, greeted: set[str]) -> Batch | None:
        """The next batch that may go out, most urgent level first; only of openings whose hello was answered."""
        for level in LEVELS:
            for name in self.held.epochs:
                lane = self.held.lanes[name, level]
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
        return self.keeper.file is None and lane.sent < lane.flushed

    def _is_held_back(self, name: str) -> bool:
        epoch = self.held.epochs[name]
        return epoch.shift is None and epoch.boot_id == self.held.current.boot_id

    def _batch(self, lane: Lane, now: float) -> Batch | None:
        records = self._from_disk(lane, now) if lane.sent < lane.flushed else lane.unsent_tail()
        if not records:
            return None
        shift = self.held.epochs[lane.epoch].shift
        if shift:
            records = correct(records, shift)
        first, last = lane.sent + 1, lane.sent + len(records)
        payload = encode_batch(lane.epoch, lane.base, records)
        lane.launch(first, last, len(payload), now)
        return Batch(lane.level, lane.epoch, first, last, payload)

    def _from_disk(self, lane: Lane, now: float) -> list[bytes]:
        if self.keeper.file is None:
            return []
        try:
            return self._read(self.keeper.file, lane, now)
        except sqlite3.Error as error:
            self.keeper.failed(error, now)
        return []

    def _read(self, file: Outbox, lane: Lane, now: float) -> list[bytes]:
        """As many whole segments as fit a batch. A hole is passed only when everything before it is acknowledged."""
        records: list[bytes] = []
        size = 0
        for segment in file.read(lane.epoch, lane.level, lane.sent, lane.read_id):
            if isinstance(segment, int):
                raise OutboxDamaged(f"segment {segment} has a wrong check sum")
            hole = segment.first > lane.sent + len(records) + 1
            if hole and (records or not self._pass_hole(lane, segment.first - 1, now)):
                break
            part = segment.records[lane.sent + len(records) + 1 - segment.first :]
            size += sum(map(len, part)) + len(part)
            if records and (len(records) + len(part) > MAX_BATCH_RECORDS or size > MAX_BATCH_BYTES):
                break
            records += part
            lane.read_id = segment.id
        if not records and not lane.window and lane.base == lane.sent and not self._has_more(file, lane):
            self._pass_hole(lane, lane.flushed, now)
        return records

    @staticmethod
    def _has_more(file: Outbox, lane: Lane) -> bool:
        return next(file.read(lane.epoch, lane.level, lane.sent, 0), None) is not None

    def _pass_hole(self, lane: Lane, up_to: int, now: float) -> bool:
        """Records that are gone: `base` declares it, once nothing before them is on its way.

        A hole that nobody has accounted for yet is damage that no check sum shows (a row under a wrong number).
        """
        if not lane.holed:
            raise OutboxDamaged(f"{lane.level} {lane.sent + 1} to {up_to} are missing")
        if lane.base < lane.sent:
            return False
        lane.settle(up_to)
        self.keeper.settle_on_disk(lane.epoch, lane.level, now)
        return True

    # --- acknowledged -------------------------------------------------------------------------------------------------

    def go_back(self) -> None:
        """The connection or the server's memory is gone: everything in flight is to be sent again."""
        for lane in self.held.lanes.values():
            lane.go_back()

    def oldest_flight(self) -> float | None:
        """When the longest unanswered batch was sent."""
        return min((lane.window[0].sent_at for lane in self.held.lanes.values() if lane.window), default=None)

    def on_ack(self, ack: Ack, now: float) -> bool:
        """The server's word on one opening's lanes. False if it does not fit what we hold: then say hello again."""
        if ack.epoch not in self.held.epochs:
            return True
        ours = [self.held.lanes[ack.epoch, level].next for level in ack.lanes]
        if ack.epoch == self.held.current.epoch and any(map(operator.ge, ack.lanes.values(), ours)):
            self._reborn(now)
            return False
        fits = True
        for level, seq in ack.lanes.items():
            lane = self.held.lanes[ack.epoch, level]
            fits &= seq >= lane.base
            lane.acked = min(seq, lane.next - 1)
            on_disk = lane.base < lane.flushed
            before = lane.base
            lane.settle(seq)
            if on_disk and lane.base > before:
                self.keeper.settle_on_disk(ack.epoch, level, now)
        return fits

    def _reborn(self, now: float) -> None:
        try:
            self._rebirth(now)
        except sqlite3.Error as error:
            self.keeper.failed(error, now)

    def _rebirth(self, now: float) -> None:
        """The server knows numbers of ours that we never gave (a machine resumed from a snapshot): take new ones."""
        old = self.held.current.epoch
        self.held.begin_next()
        for level in LEVELS:
            lane = self.held.lanes[old, level]
            while lane.base < lane.flushed and self.keeper.file is not None:
                segment = next(self.keeper.file.read(old, level, lane.base, 0), None)
                if isinstance(segment, int):
                    raise OutboxDamaged(f"segment {segment} has a wrong check sum")
                if segment is None:
                    break
                for seq, record in enumerate(segment.records, segment.first):
                    if seq > lane.base:
                        self._renumber(record, segment.born, level, now)
                lane.settle(segment.last)
                self.keeper.settle_on_disk(old, level, now)
                self.keeper.commit(now)
            for record, born in lane.tail:
                self._renumber(record, born, level, now)
            lane.settle(lane.next - 1)
            lane.acked = lane.base
            self.keeper.settle_on_disk(old, level, now)
        self.keeper.commit(now)

    def _renumber(self, record: bytes, born: float, level: LogLevel, now: float) -> None:
        lane = self.held.lanes[self.held.current.epoch, level]
        lane.append(renumbered(record, lane.next), born, now)

    # --- for status ---------------------------------------------------------------------------------------------------

    def pending(self) -> int:
        return self.held.pending()

    def oldest(self) -> datetime | None:
        """Wall time of the oldest record that waits, as good as the clock was."""
        times = [lane.tail[0][1] for lane in self.held.lanes.values() if lane.tail]
        try:
            first = self._oldest_on_disk() if self.pending() else None
        except sqlite3.Error:
            first = None
        if first is not None:
            times.append(first.born)
        return datetime.fromtimestamp(min(times), UTC) if times else None

    def _oldest_on_disk(self) -> Segment | None:
        """Past those that are acknowledged, and only not deleted yet, and past what cannot be read."""
        after = 0
        while self.keeper.file is not None and (found := self.keeper.file.oldest(after_id=after)) is not None:
            if isinstance(found, Segment) and self.held.lanes[found.epoch, found.level].base < found.last:
                return found
            after = (found.id if isinstance(found, Segment) else found) + 1
        return None

    def undeclared(self) -> bool:
        """The server has to be told of a loss, and only a hello can."""
        return any(lane.undeclared for lane in self.held.lanes.values())
