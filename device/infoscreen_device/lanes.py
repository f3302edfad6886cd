"""One lane's numbers: what is held, what is sent, what is acknowledged. Pure bookkeeping, no I/O.

    base        flushed          sent             next
     |  on disk  |   in memory (tail)              |
     |......in flight..............|   not yet sent|

All up to `base` is no longer held (acknowledged, evicted or lost). `flushed` is the highest number that is on disk or
no longer held; the records above it wait in `tail`. `sent` is the highest number sent since the last go-back. Numbers
are never given twice: a lane belongs to one opening of the outbox (its epoch), and only that opening extends it.
"""

from collections import deque
from dataclasses import dataclass, field

from infoscreen_shared.messages import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, LogLevel

WINDOW_BYTES = 1_000_000
"""In flight per lane: enough to fill a link of 100 Mbit/s at a round trip of 80 ms."""

WINDOW_BATCHES = 64


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch on its way. Times in seconds of the boot clock."""

    first: int
    last: int
    size: int
    sent_at: float


@dataclass(slots=True)
class Lane:
    epoch: str
    level: LogLevel
    base: int = 0
    next: int = 1
    flushed: int = 0
    sent: int = 0
    acked: int = 0
    """The server's own word on its cursor; below `base` where a loss is not yet declared to it."""
    read_id: int = 0
    """The outbox row up to which this lane was read for sending; 0 after a go-back."""
    holed: bool = False
    """Numbers may be missing between those on disk, and that has been said."""
    tail: deque[tuple[bytes, float]] = field(default_factory=deque)
    """Records that are in memory only, with their wall time as seconds since 1970."""
    tail_bytes: int = 0
    flush_at: float | None = None
    """When the oldest record of the tail has to be on disk (boot clock)."""
    window: deque[Flight] = field(default_factory=deque)
    in_flight_bytes: int = 0

    @property
    def held(self) -> int:
        return self.next - 1 - self.base

    @property
    def unsent(self) -> int:
        return self.next - 1 - self.sent

    @property
    def undeclared(self) -> bool:
        """Nothing is left to send that would tell the server of what was lost: a hello has to."""
        return not self.held and self.acked < self.base

    def append(self, record: bytes, born: float, flush_at: float) -> None:
        """Take the record that was numbered `next`."""
        self.next += 1
        self.tail.append((record, born))
        self.tail_bytes += len(record)
        self.flush_at = flush_at if self.flush_at is None else min(self.flush_at, flush_at)

    def mark_flushed(self) -> None:
        """The tail is on disk."""
        self.flushed = self.next - 1
        self._forget_tail()

    def settle(self, seq: int) -> None:
        """All up to `seq` is no longer held, be it acknowledged, evicted or lost."""
        if seq <= self.base:
            return
        self.base = min(seq, self.next - 1)
        self.sent = max(self.sent, self.base)
        while self.flushed < self.base:
            self.flushed += 1
            self.tail_bytes -= len(self.tail.popleft()[0])
        if not self.tail:
            self._forget_tail()
        while self.window and self.window[0].last <= self.base:
            self.in_flight_bytes -= self.window.popleft().size

    def drop_oldest_of_tail(self) -> float:
        """Give up the oldest record that is in memory only; returns its wall time.

        If older ones are on disk this leaves a hole behind them, which is passed once they are acknowledged.
        """
        record, born = self.tail.popleft()
        self.tail_bytes -= len(record)
        self.flushed += 1
        if self.base == self.flushed - 1:
            self.settle(self.flushed)
        else:
            self.holed = True
        if not self.tail:
            self.flush_at = None
        self.sent = max(self.sent, self.base)
        return born

    def launch(self, first: int, last: int, size: int, now: float) -> None:
        self.window.append(Flight(first, last, size, now))
        self.in_flight_bytes += size
        self.sent = last

    def go_back(self) -> None:
        """Send again from the first number that is not acknowledged (go-back-N)."""
        self.sent = self.base
        self.read_id = 0
        self.window.clear()
        self.in_flight_bytes = 0

    def has_room(self) -> bool:
        return len(self.window) < WINDOW_BATCHES and self.in_flight_bytes < WINDOW_BYTES

    def unsent_tail(self) -> list[bytes]:
        """The next batch's worth of records that are in memory; everything on disk must have been sent before."""
        batch: list[bytes] = []
        size = 0
        skip = self.sent - self.flushed
        for position in range(skip, min(len(self.tail), skip + MAX_BATCH_RECORDS)):
            record = self.tail[position][0]
            if batch and size + len(record) > MAX_BATCH_BYTES:
                break
            batch.append(record)
            size += len(record) + 1
        return batch

    def _forget_tail(self) -> None:
        self.tail.clear()
        self.tail_bytes = 0
        self.flush_at = None
