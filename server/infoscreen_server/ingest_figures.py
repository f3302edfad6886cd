"""How ingest does: records a second, how late they arrive, what the doors counted. Samples are housekeeping's work.

Nothing here counts the log: ids grow with every record that is stored (on PostgreSQL also with one that was rolled
back), so that two of them and the time between are a rate.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from infoscreen_server.db import is_sqlite, writing
from infoscreen_server.models import ClientLog, DeadLetter, IngestStat
from infoscreen_server.models_live import IngestSample
from infoscreen_shared.messages import Clock

KEPT = timedelta(hours=24)
HOUR = timedelta(hours=1)
NEWEST = 500
"""Records of which the lag is told."""
SHORTEST_S = 5.0
"""Of a rate: what was counted in less says little."""

Counts = dict[str, dict[str, int]]
"""By door, mqtt or http, and name, such as duplicate."""


@dataclass(frozen=True, slots=True)
class Sample:
    at: datetime
    newest_log: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds from a record's making to its arrival."""

    p50: float
    p95: float
    records: int


@dataclass(frozen=True, slots=True)
class Figures:
    now_rate: float | None
    """Records a second since the last sample; None as long as there is none, as for the hour."""
    hour_rate: float | None
    per_minute: list[tuple[datetime, float]]
    """Records a second of each minute of the day, for a chart."""
    total: Counts
    last_hour: Counts
    lag: Lag | None
    """Of the newest records whose clock could be trusted."""
    database_bytes: int


def take_sample(engine: Engine, now: datetime) -> None:
    """What stands now, beside what stood before; what is older than a day goes."""
    with writing(engine) as connection:
        connection.execute(delete(IngestSample).where((IngestSample.at < now - KEPT) | (IngestSample.at >= now)))
        current = _current(connection, now)
        row = {"at": now, "newest_log": current.newest_log, "counts": json.dumps(current.counts)}
        connection.execute(insert(IngestSample).values(row))


def _current(connection: Connection, now: datetime) -> Sample:
    counts: Counts = {}
    for source, name, number in connection.execute(select(IngestStat.source, IngestStat.name, IngestStat.n)):
        counts.setdefault(source, {})[name] = number
    # The highest row may be gone, with a client that was removed; the numbers go on behind it all the same.
    newest = [connection.scalar(select(func.max(each))) or 0 for each in (ClientLog.id, IngestSample.newest_log)]
    return Sample(now, max(newest), counts)


def figures(connection: Connection, now: datetime) -> Figures:
    rows = connection.execute(
        select(IngestSample.at, IngestSample.newest_log, IngestSample.counts)
        .where(IngestSample.at > now - KEPT, IngestSample.at < now)
        .order_by(IngestSample.at)
    )
    samples = [Sample(row.at, row.newest_log, json.loads(row.counts)) for row in rows]
    current = _current(connection, now)
    recent = [sample for sample in samples if sample.at >= now - HOUR - timedelta(minutes=2)]
    settled = [sample for sample in recent if (now - sample.at).total_seconds() >= SHORTEST_S]
    return Figures(
        now_rate=_rate(settled[-1], current) if settled else None,
        hour_rate=_rate(settled[0], current) if settled else None,
        per_minute=[(after.at, _rate(before, after)) for before, after in pairwise(samples)],
        total=current.counts,
        last_hour=_grown(recent[0].counts, current.counts) if recent else {},
        lag=_lag(connection),
        database_bytes=_size(connection),
    )


def _rate(before: Sample, after: Sample) -> float:
    seconds = max((after.at - before.at).total_seconds(), 0.001)
    return max(0, after.newest_log - before.newest_log) / seconds


def _grown(before: Counts, after: Counts) -> Counts:
    return {
        source: {name: max(0, number - before.get(source, {}).get(name, 0)) for name, number in names.items()}
        for source, names in after.items()
    }


def _lag(connection: Connection) -> Lag | None:
    newest = (
        select(ClientLog.timestamp, ClientLog.received_at, ClientLog.clock, ClientLog.device_timestamp)
        .order_by(ClientLog.id.desc())
        .limit(NEWEST)
    )
    seconds = sorted(
        max(0.0, (row.received_at - row.timestamp).total_seconds())
        for row in connection.execute(newest)
        if row.clock == Clock.SYNCED and row.device_timestamp is None
    )
    return Lag(_quantile(seconds, 0.5), _quantile(seconds, 0.95), len(seconds)) if seconds else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    """
    >>> _quantile([1, 2, 3, 4], 0.5), _quantile([1], 0.95)
    (2, 1)
    """
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def _size(connection: Connection) -> int:
    if is_sqlite(connection):
        pages = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")]
        return int(pages[0]) * int(pages[1])
    return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def dead_letters(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The newest. Keys: received_at, client_uuid, topic, reason, payload."""
    columns = (DeadLetter.received_at, DeadLetter.client_uuid, DeadLetter.topic, DeadLetter.reason, DeadLetter.payload)
    statement = select(*columns).order_by(DeadLetter.received_at.desc(), DeadLetter.id.desc()).limit(limit)
    return [dict(row._mapping) for row in connection.execute(statement)]
