"""The bounds of the outbox: what goes first when it is full or too old, and the records that say so."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from infoscreen_device.core.model import Draft
from infoscreen_device.holdings import Holdings
from infoscreen_device.outbox import LEVELS, Outbox, Segment
from infoscreen_shared.messages import LogLevel

MEMORY_BYTES = 4 * 2**20
"""Bound of what waits in memory while the file cannot be written."""

EVICT_TO = 0.95
"""A full outbox is brought down to this share of its bound, so that not every commit has to evict."""


class Dropped(NamedTuple):
    """A run of records that a bound took; the times are wall times, seconds since 1970."""

    epoch: str
    level: LogLevel
    first: int
    last: int
    since: float
    until: float


def evict_full(file: Outbox, held: Holdings, max_bytes: int) -> list[Dropped]:
    """Within the open transaction: oldest of the lowest level first, until the file is within its bound."""
    dropped: list[Dropped] = []
    if file.size() <= max_bytes:
        return dropped
    for level in reversed(LEVELS):
        row_id = 0
        while file.size() > max_bytes * EVICT_TO:
            oldest = file.oldest(level, row_id)
            if oldest is None:
                break
            if isinstance(oldest, int):
                row_id = oldest
                file.drop(oldest)
                continue
            row_id = oldest.id
            file.evict(oldest)
            dropped.append(_dropped(oldest, held))
    return dropped


def evict_aged(file: Outbox, held: Holdings, limit: float) -> list[Dropped]:
    """Within the open transaction: what was born before `limit`, a wall time in seconds since 1970."""
    dropped: list[Dropped] = []
    while isinstance(oldest := file.oldest(), Segment) and _is_older(oldest, held, limit):
        file.evict(oldest)
        dropped.append(_dropped(oldest, held))
    return dropped


def evict_memory(held: Holdings) -> list[Dropped]:
    """The same order for what waits in memory because the file cannot be written."""
    dropped: list[Dropped] = []
    excess = sum(lane.tail_bytes for lane in held.lanes.values()) - MEMORY_BYTES
    if excess <= 0:
        return dropped
    excess += int(MEMORY_BYTES * (1 - EVICT_TO))
    for level in reversed(LEVELS):
        for name in held.epochs:
            lane = held.lanes[name, level]
            first, births = lane.flushed + 1, []
            while excess > 0 and lane.tail:
                excess -= len(lane.tail[0][0])
                births.append(lane.drop_oldest_of_tail())
            if births:
                dropped.append(Dropped(name, level, first, first + len(births) - 1, births[0], births[-1]))
    return dropped


def _is_older(segment: Segment, held: Holdings, limit: float) -> bool:
    shift = held.epochs[segment.epoch].shift
    if segment.unsynced and not shift:
        return False  # nobody knows how old it is
    return segment.born + (shift or 0.0) < limit


def _dropped(segment: Segment, held: Holdings) -> Dropped:
    """The part of an evicted segment that was still held."""
    first = max(segment.first, held.lanes[segment.epoch, segment.level].base + 1)
    return Dropped(segment.epoch, segment.level, first, segment.last, segment.born, segment.born)


def tell_dropped(dropped: Iterable[Dropped], reason: str) -> list[Draft]:
    """One record per lane for the runs that were dropped together; `reason`: size or age."""
    runs: dict[tuple[str, LogLevel], Dropped] = {}
    for run in dropped:
        before = runs.get((run.epoch, run.level), run)
        runs[run.epoch, run.level] = before._replace(last=run.last, until=run.until)
    return [_draft(run, reason) for run in runs.values()]


def _draft(run: Dropped, reason: str) -> Draft:
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
    return Draft(LogLevel.WARN, "buffer.dropped", text, context)
