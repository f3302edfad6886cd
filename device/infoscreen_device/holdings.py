"""What this kiosk still holds for the server: the openings of its outbox and their lanes. Bookkeeping, no I/O."""

import os

from infoscreen_device.lanes import Lane
from infoscreen_device.outbox import LEVELS, Epoch
from infoscreen_device.records import Stamp
from infoscreen_shared.messages import LogLevel


class Holdings:
    def __init__(self, boot_id: str, opened: Stamp) -> None:
        self.epochs: dict[str, Epoch] = {}
        """Oldest first; the current one is the last."""
        self.lanes: dict[tuple[str, LogLevel], Lane] = {}
        anchor = opened.utc.timestamp() - opened.boottime
        self.begin(Epoch(os.urandom(8).hex(), boot_id, anchor, 0.0 if opened.synced else None))

    def begin(self, epoch: Epoch) -> None:
        """From now on records are numbered in this opening."""
        self.current = epoch
        self.epochs[epoch.epoch] = epoch
        self.lanes |= {(epoch.epoch, level): Lane(epoch.epoch, level) for level in LEVELS}

    def begin_next(self) -> None:
        """A new opening under the same clock."""
        old = self.current
        self.begin(Epoch(os.urandom(8).hex(), old.boot_id, old.anchor, old.shift))

    def forget(self, name: str) -> None:
        del self.epochs[name]
        for level in LEVELS:
            del self.lanes[name, level]

    def decide_shift(self, shift: float) -> None:
        """Settle how far the times of this boot are moved that were taken before its first sync; once for each."""
        for name, epoch in self.epochs.items():
            if epoch.boot_id == self.current.boot_id and epoch.shift is None:
                own = 0.0 if shift == 0 else shift + self.current.anchor - epoch.anchor
                self.epochs[name] = Epoch(epoch.epoch, epoch.boot_id, epoch.anchor, own)
        self.current = self.epochs[self.current.epoch]

    def current_lanes(self) -> list[Lane]:
        return [self.lanes[self.current.epoch, level] for level in LEVELS]

    def is_finished(self, name: str) -> bool:
        """The server has said of every number of this opening that it is settled."""
        return all(self.lanes[name, level].acked >= self.lanes[name, level].next - 1 for level in LEVELS)

    def pending(self) -> int:
        return sum(lane.held for lane in self.lanes.values())
