"""All that arrives is written here: one function behind both doors, one transaction for each call.

What a batch's numbers mean is for `cursor`, what a record becomes for `rows`; how messages come in and acks go out is
for `ingest` and `api`. Nothing may be acknowledged before the call returns: then it is committed.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError

from infoscreen_server.cursor import Verdict, judge, settle
from infoscreen_server.db import is_sqlite, writing
from infoscreen_server.models import Client, ClientLog, Counter, CounterMark, Daily, DeadLetter, Gap, IngestStat, Lane
from infoscreen_server.rows import COLUMNS, MAX_DEAD_CHARS, Bounds, Row, bounds, count_after, day_counts, rows_of
from infoscreen_shared.messages import (
    DEFAULT_WANTED,
    Ack,
    Batch,
    Health,
    Heartbeat,
    Hello,
    LogLevel,
    Record,
    Rejected,
    Wanted,
    clean,
    to_json,
)

WINDOW = timedelta(hours=24)
"""What `counters` count over."""

LaneKey = tuple[str, str, LogLevel]
"""Client, epoch, level."""


@dataclass(frozen=True, slots=True)
class Dead:
    """What could not even be decoded."""

    topic: str
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Online:
    """The retained status of a client, or its last will."""

    online: bool


@dataclass(frozen=True, slots=True)
class Arrival:
    uuid: str | None
    """None only for a Dead one whose topic names no client."""
    content: Batch | Hello | Heartbeat | Health | Online | Dead
    topic: str = ""


class Settings(Protocol):
    """What of the server's settings is needed here."""

    @property
    def debug_mode(self) -> bool: ...
    @property
    def auto_register(self) -> bool: ...
    @property
    def log_retention_days(self) -> int: ...


def wanted(settings: Settings) -> dict[LogLevel, Wanted]:
    """How much of each level is stored: all of it with DEBUG_MODE on."""
    return dict.fromkeys(LogLevel, Wanted.ALL) if settings.debug_mode else dict(DEFAULT_WANTED)


def ingest(
    engine: Engine, arrivals: Sequence[Arrival], received_at: datetime, settings: Settings, source: str
) -> list[tuple[str, Ack]]:
    """Store what arrived, in order, in one transaction; returns the acks that may now be sent.

    `source`: mqtt or http, for the statistics. If the database refuses the content, the arrivals are taken one by one
    and the one to blame becomes a dead letter. Raises OperationalError while the database is away: then nothing is
    stored, and the same arrivals may be given again.
    """
    try:
        with writing(engine) as connection:
            work = _Work(connection, received_at, settings, source)
            return work.take(arrivals)
    except OperationalError:
        raise
    except DBAPIError as error:
        if len(arrivals) > 1:
            half = len(arrivals) // 2
            first = ingest(engine, arrivals[:half], received_at, settings, source)
            return first + ingest(engine, arrivals[half:], received_at, settings, source)
        if isinstance(arrivals[0].content, Dead):
            raise
        with writing(engine) as connection:
            reason = f"refused by the database: {type(error.orig).__name__}"
            return _Work(connection, received_at, settings, source).bury(arrivals[0], reason)


@dataclass(slots=True)
class _Lane:
    """A lane's row, held for the length of the transaction."""

    id: int
    cursor: int
    boot_id: str | None
    stored: int = 0
    unwanted: int = 0
    dead: int = 0
    gap: int = 0
    """What this transaction adds."""
    touched: bool = False


@dataclass(slots=True)
class _Work:
    """One transaction's work."""

    connection: Connection
    now: datetime
    settings: Settings
    source: str
    within: Bounds = field(init=False)
    lanes: dict[LaneKey, _Lane] = field(default_factory=dict)
    logs: list[tuple[str, LogLevel, int | None, list[Row]]] = field(default_factory=list)
    counts: dict[tuple[str, LogLevel], int] = field(default_factory=lambda: defaultdict(int))
    days: dict[tuple[str, str, LogLevel], int] = field(default_factory=lambda: defaultdict(int))
    stats: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    letters: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    state_times: dict[str, datetime] = field(default_factory=dict)
    mark: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.within = bounds(self.now, timedelta(days=self.settings.log_retention_days))

    def take(self, arrivals: Sequence[Arrival]) -> list[tuple[str, Ack]]:
        known = self._clients({arrival.uuid for arrival in arrivals if arrival.uuid is not None})
        # Held until the commit, so that housekeeping cannot move the window over rows that it cannot see yet.
        self.mark = self._mark()
        self._lock_lanes(arrivals, known)
        acks: dict[tuple[str, str], dict[LogLevel, int]] = {}
        greeted: set[tuple[str, str]] = set()
        for arrival in arrivals:
            uuid, content = arrival.uuid, arrival.content
            if isinstance(content, Dead):
                self._dead(uuid if uuid in known else None, content.topic, content.reason, content.payload)
            elif uuid is None or uuid not in known:
                self._dead(None, arrival.topic, "unknown client", repr(content))
            elif isinstance(content, Batch):
                cursor = self._batch(uuid, content, arrival.topic)
                if cursor is not None and content.epoch is not None:
                    acks.setdefault((uuid, content.epoch), {})[content.level] = cursor
            elif isinstance(content, Hello):
                acks.setdefault((uuid, content.epoch), {}).update(self._hello(uuid, content))
                greeted.add((uuid, content.epoch))
            else:
                self._state(uuid, content)
        self._write()
        answer = wanted(self.settings)
        return [
            (uuid, Ack(epoch, lanes, answer if (uuid, epoch) in greeted else None))
            for (uuid, epoch), lanes in acks.items()
        ]

    def bury(self, arrival: Arrival, reason: str) -> list[tuple[str, Ack]]:
        """Put an arrival that the database refuses among the dead letters; its numbers count as dead."""
        content = arrival.content
        if not isinstance(content, Batch) or content.epoch is None:
            return self.take([Arrival(arrival.uuid, Dead(arrival.topic, reason, repr(content)))])
        dead = [Rejected(record.seq, reason, clean(repr(record))) for record in content.records]
        whole = replace(content, records=[], rejected=dead + content.rejected)
        return self.take([Arrival(arrival.uuid, whole, arrival.topic)])

    # --- one arrival --------------------------------------------------------------------------------------------------

    def _batch(self, uuid: str, batch: Batch, topic: str) -> int | None:
        """Take a batch in; the lane's cursor, or None where there is none to tell."""
        self.states[uuid]  # it is alive
        if batch.first is None or batch.epoch is None or batch.base is None or batch.last is None:
            self._records(uuid, batch.level, None, batch.records)
            for item in batch.rejected:
                self._dead(uuid, topic, item.reason, item.raw, seq=item.seq)
            return None
        lane = self.lanes[uuid, batch.epoch, batch.level]
        verdict = judge(lane.cursor, batch.first, batch.last, batch.base)
        self.stats["duplicate"] += max(0, min(lane.cursor, batch.last) - batch.first + 1)
        self.stats["refused"] += verdict.refused
        self._follow(lane, verdict)
        if verdict.taken is None:
            return lane.cursor
        start = verdict.taken.first
        fresh = batch.records
        if start > batch.first:
            fresh = [record for record in fresh if record.seq is not None and record.seq >= start]
        if fresh and lane.boot_id is None:
            lane.boot_id = fresh[0].boot_id
        stored = self._records(uuid, batch.level, lane.id, fresh)
        lane.stored += stored
        lane.unwanted += len(fresh) - stored
        lane.dead += verdict.taken.last - start + 1 - len(fresh)
        for item in batch.rejected:
            if item.seq is None or item.seq >= start:
                self._dead(uuid, topic, item.reason, item.raw, lane_id=lane.id, seq=item.seq)
        return lane.cursor

    def _hello(self, uuid: str, hello: Hello) -> dict[LogLevel, int]:
        cursors = {}
        for level, span in hello.lanes.items():
            lane = self.lanes[uuid, hello.epoch, level]
            self._follow(lane, settle(lane.cursor, span.base))
            cursors[level] = lane.cursor
        # A newly started agent may have a clock that went back: its next state counts again.
        self.states[uuid] |= {"version": hello.version or None, "online": True, "state_at": None}
        return cursors

    def _follow(self, lane: _Lane, verdict: Verdict) -> None:
        lane.touched = True
        lane.cursor = verdict.cursor
        if verdict.gap is not None:
            lane.gap += verdict.gap.last - verdict.gap.first + 1
            self.connection.execute(
                insert(Gap).values(
                    lane_id=lane.id, first=verdict.gap.first, last=verdict.gap.last, recorded_at=self.now
                )
            )

    def _records(self, uuid: str, level: LogLevel, lane_id: int | None, records: list[Record]) -> int:
        """Make rows of the records that are wanted; how many that were."""
        want = wanted(self.settings)[level]
        if want is Wanted.NONE or not records:
            return 0
        rows, times, cuts = rows_of(records, self.within, want is Wanted.CODED)
        for cut in cuts:
            self._dead(uuid, f"logs/{level.lower()}", cut.reason, cut.original, lane_id=lane_id, seq=cut.seq)
        if rows:
            self.logs.append((uuid, level, lane_id, rows))
            self.counts[uuid, level] += count_after(times, self.mark)
            for day, number in day_counts(times).items():
                self.days[uuid, day, level] += number
        return len(rows)

    def _state(self, uuid: str, content: Heartbeat | Health | Online) -> None:
        state = self.states[uuid]
        if isinstance(content, Online):
            state["online"] = content.online
            return
        state["online"] = True
        when = self.within.clamp(content.timestamp or self.now)
        before = self.state_times.get(uuid)
        if before is not None and when < before:
            return
        self.state_times[uuid] = when
        state |= _heartbeat(content) if isinstance(content, Heartbeat) else _health(content)

    def _dead(
        self,
        uuid: str | None,
        topic: str,
        reason: str,
        payload: str,
        *,
        lane_id: int | None = None,
        seq: int | None = None,
    ) -> None:
        self.stats["dead"] += 1
        self.letters.append(
            {
                "client_uuid": uuid,
                "topic": clean(topic)[:512],
                "received_at": self.now,
                "reason": clean(reason),
                "payload": clean(payload)[:MAX_DEAD_CHARS],
                "lane_id": lane_id,
                "seq": seq if seq is None or 0 < seq < 2**62 else None,
            }
        )

    # --- the database -------------------------------------------------------------------------------------------------

    def _mark(self) -> datetime:
        query = select(CounterMark.counted_out_to).with_for_update(read=True)
        found = self.connection.execute(query).scalar_one_or_none()
        if found is None:
            first = {"id": 1, "counted_out_to": self.now - WINDOW}
            self.connection.execute(self._upsert(CounterMark).values(first).on_conflict_do_nothing())
            found = self.connection.execute(query).scalar_one()
        return found

    def _upsert(self, table: Any) -> Any:
        return sqlite.insert(table) if is_sqlite(self.connection) else postgresql.insert(table)

    def _clients(self, uuids: set[str]) -> set[str]:
        """Those that are registered, after registering the new ones where that is wanted."""
        if not uuids:
            return set()
        known = set(self.connection.scalars(select(Client.uuid).where(Client.uuid.in_(uuids))))
        new = sorted(uuids - known) if self.settings.auto_register else []
        if new:
            rows = [{"uuid": uuid, "registered_at": self.now, "online": False} for uuid in new]
            self.connection.execute(self._upsert(Client).on_conflict_do_nothing(), rows)
        return known | set(new)

    def _lock_lanes(self, arrivals: Sequence[Arrival], known: set[str]) -> None:
        """Find or make the lanes that are needed and lock them, always in the same order so that nobody deadlocks."""
        keys: set[LaneKey] = set()
        for arrival in arrivals:
            content, uuid = arrival.content, arrival.uuid
            if uuid is None or uuid not in known:
                continue
            if isinstance(content, Batch) and content.epoch is not None and content.first is not None:
                keys.add((uuid, content.epoch, content.level))
            elif isinstance(content, Hello):
                keys |= {(uuid, content.epoch, level) for level in content.lanes}
        for uuid, epoch in sorted({key[:2] for key in keys}):
            self._load(uuid, epoch)
        missing = sorted(keys - self.lanes.keys())
        if missing:
            zeros = dict.fromkeys(("cursor", "stored", "unwanted", "dead", "gap"), 0)
            rows = [
                {"client_uuid": uuid, "epoch": epoch, "level": level, "first_seen": self.now, "last_seen": self.now}
                | zeros
                for uuid, epoch, level in missing
            ]
            self.connection.execute(self._upsert(Lane).on_conflict_do_nothing(), rows)
            for uuid, epoch in sorted({key[:2] for key in missing}):
                self._load(uuid, epoch)

    def _load(self, uuid: str, epoch: str) -> None:
        query = (
            select(Lane.level, Lane.id, Lane.cursor, Lane.boot_id)
            .where(Lane.client_uuid == uuid, Lane.epoch == epoch)
            .order_by(Lane.id)
            .with_for_update()
        )
        for level, lane_id, cursor, boot_id in self.connection.execute(query):
            self.lanes.setdefault((uuid, epoch, level), _Lane(lane_id, cursor, boot_id))

    def _write(self) -> None:
        self._insert_logs()
        for lane in self.lanes.values():
            if lane.touched:
                self.connection.execute(
                    update(Lane)
                    .where(Lane.id == lane.id)
                    .values(
                        cursor=lane.cursor,
                        stored=Lane.stored + lane.stored,
                        unwanted=Lane.unwanted + lane.unwanted,
                        dead=Lane.dead + lane.dead,
                        gap=Lane.gap + lane.gap,
                        boot_id=lane.boot_id,
                        last_seen=self.now,
                    )
                )
        if self.letters:
            self.connection.execute(insert(DeadLetter), self.letters)
        self._count()
        for uuid in sorted(self.states):
            self._update_client(uuid, self.states[uuid])

    def _insert_logs(self) -> None:
        """The hot path, without SQLAlchemy: executemany on SQLite, COPY on PostgreSQL."""
        if not self.logs:
            return
        received = self.now.isoformat(timespec="microseconds")[:26] + "Z"
        columns = ", ".join(("client_uuid", "received_at", "level", "lane_id", *COLUMNS))
        rows = (
            (uuid, received, str(level), lane_id, *row) for uuid, level, lane_id, found in self.logs for row in found
        )
        raw: Any = self.connection.connection.driver_connection
        if is_sqlite(self.connection):
            marks = ", ".join("?" * (4 + len(COLUMNS)))
            raw.executemany(f"INSERT INTO {ClientLog.__tablename__} ({columns}) VALUES ({marks})", rows)  # noqa: S608
            return
        with raw.cursor() as cursor, cursor.copy(f"COPY {ClientLog.__tablename__} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def _count(self) -> None:
        by_client: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("error", "warn", "info", "debug"), 0))
        for (uuid, level), number in self.counts.items():
            by_client[uuid][level.lower()] += number
        for uuid in sorted(by_client):
            add = by_client[uuid]
            statement = self._upsert(Counter).values(client_uuid=uuid, **add)
            more = {name: getattr(Counter, name) + number for name, number in add.items()}
            self.connection.execute(statement.on_conflict_do_update(index_elements=["client_uuid"], set_=more))
        for (uuid, day, level), number in sorted(self.days.items()):
            values = {"client_uuid": uuid, "day": date.fromisoformat(day), "level": level, "n": number}
            keys = ["client_uuid", "day", "level"]
            statement = self._upsert(Daily).values(values)
            self.connection.execute(statement.on_conflict_do_update(index_elements=keys, set_={"n": Daily.n + number}))
        for name, number in sorted(self.stats.items()):
            if number:
                statement = self._upsert(IngestStat).values(source=self.source, name=name, n=number)
                keys = ["source", "name"]
                more = {"n": IngestStat.n + number}
                self.connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=more))

    def _update_client(self, uuid: str, state: dict[str, Any]) -> None:
        alive = state.get("online", True)
        always = {name: state.pop(name) for name in ("version", "online", "state_at") if name in state}
        values: dict[str, Any] = {"online": alive} | always | ({"last_alive": self.now} if alive else {})
        self.connection.execute(update(Client).where(Client.uuid == uuid).values(values))
        when = self.state_times.get(uuid)
        if when is not None:
            newer = (Client.state_at.is_(None)) | (Client.state_at <= when)
            self.connection.execute(update(Client).where(Client.uuid == uuid, newer).values(state | {"state_at": when}))


def _given(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in values if value is not None}


def _heartbeat(beat: Heartbeat) -> dict[str, Any]:
    state: dict[str, Any] = {
        "current_process": beat.current_process,
        "process_pid": beat.process_pid,
        "process_status": beat.process_status,
        "current_event_id": beat.current_event_id,
    }
    return state | _given(
        [
            ("screen_health_status", beat.screen_health_status),
            ("outbox_pending", beat.outbox_pending),
            ("outbox_oldest", beat.outbox_oldest),
            ("version", beat.version),
        ]
    )


def _health(health: Health) -> dict[str, Any]:
    hostname = health.system.get("hostname")
    return {
        "current_event_id": health.expected_event_id,
        "current_event_type": health.expected_event_type,
        "current_process": health.process,
        "process_pid": health.process_pid,
        "process_status": health.process_status,
        "screen_health_status": health.screen_status,
        "screen_reason": health.screen_reason,
        "last_screenshot_hash": health.screen_hash,
        "last_screenshot_analyzed": health.screen_analyzed_at,
        "system": clean(to_json(health.system).decode()),
    } | _given([("hostname", clean(hostname)[:255] if isinstance(hostname, str) else None)])
