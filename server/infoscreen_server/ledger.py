"""What a run of arrivals means for the tables: rows, cursors, gaps, dead letters, counts, client states. Pure.

Works on the lanes and clients that were read and locked for the transaction, in the order of arrival; persist writes
the result down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from infoscreen_server.cursor import Span, judge, settle
from infoscreen_server.happenings import Happenings
from infoscreen_server.models_history import SpanKind
from infoscreen_server.rows import MAX_DEAD_CHARS, Bounds, Row, bounds, context_text, count_after, day_counts, rows_of
from infoscreen_shared.messages import (
    DEFAULT_WANTED,
    Ack,
    Batch,
    Health,
    Heartbeat,
    Hello,
    LogLevel,
    ProcessStatus,
    Record,
    Rejected,
    ScreenHealthStatus,
    Wanted,
    clean,
    to_json,
)
from infoscreen_shared.topics import logs_topic, topic

UNKNOWN_CLIENT = "unknown client"
LETTERS_AN_HOUR = 100
"""Of one client and reason, dead letters of what was not accepted; further ones are only counted. All that was sent in
vain looks the same, and a client that says it every 15 s would fill the table for as long as the retention."""
MAX_HOSTNAME = 255


class Settings(Protocol):
    """What of the server's settings decides over storing; config.ServerConfig has it."""

    @property
    def debug_mode(self) -> bool: ...
    @property
    def auto_register(self) -> bool: ...
    @property
    def log_retention_days(self) -> int: ...
    @property
    def periodic_screenshots_kept(self) -> int: ...
    @property
    def incident_screenshots_kept(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """These settings alone."""

    debug_mode: bool = False
    auto_register: bool = True
    log_retention_days: int = 90
    periodic_screenshots_kept: int = 12
    incident_screenshots_kept: int = 200


def wanted(settings: Settings) -> dict[LogLevel, Wanted]:
    """How much of each level is stored: all of it with DEBUG_MODE on."""
    return dict.fromkeys(LogLevel, Wanted.ALL) if settings.debug_mode else dict(DEFAULT_WANTED)


@dataclass(frozen=True, slots=True)
class Presence:
    """The status topic. A retained one tells how things stood, not that something happened just now."""

    online: bool
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A payload that is none of the contract's messages."""

    topic: str
    reason: str
    payload: str


@dataclass(frozen=True, slots=True)
class Stale:
    """A retained message that must not be one: told again to each new subscriber, it is counted and passed over."""


Body = Batch | Hello | Heartbeat | Health | Presence | Refused | Stale


class Arrival(NamedTuple):
    """One message from a client; the uuid is None only where not even the topic names one."""

    uuid: str | None
    body: Body
    topic: str = ""
    """Where it came in, for the dead letters; empty: the contract's topic for such a body."""


LaneKey = tuple[str, str, LogLevel]
"""client_uuid, epoch, level."""


@dataclass(slots=True)
class LaneState:
    id: int
    cursor: int
    stored: int
    unwanted: int
    dead: int
    gap: int
    boot_id: str | None
    changed: bool = False


class Known(NamedTuple):
    """What a client was when it was locked."""

    state_at: datetime | None = None
    last_alive: datetime | None = None
    online: bool = False
    process_status: ProcessStatus | None = None
    screen_health_status: ScreenHealthStatus | None = None
    outbox_pending: int | None = None


class SectionKey(NamedTuple):
    """What all rows of one section of the log have in common."""

    uuid: str
    level: LogLevel
    lane_id: int | None


class Dead(NamedTuple):
    uuid: str | None
    topic: str
    reason: str
    payload: str
    lane_id: int | None = None
    seq: int | None = None
    stays: bool = False
    """Of something that was accepted, the only copy: kept however many there are."""


def keys_of(arrivals: list[Arrival]) -> tuple[set[str], set[LaneKey]]:
    """The clients and lanes that must be locked, and created if there are none, before the arrivals are entered."""
    uuids: set[str] = set()
    lanes: set[LaneKey] = set()
    for uuid, body, _topic in arrivals:
        if uuid is None or isinstance(body, Refused | Stale):
            continue
        uuids.add(uuid)
        if isinstance(body, Batch) and body.epoch is not None and body.first is not None:
            lanes.add((uuid, body.epoch, body.level))
        elif isinstance(body, Hello):
            lanes.update((uuid, body.epoch, level) for level in body.lanes)
    return uuids, lanes


def refused_of(arrivals: list[Arrival]) -> set[str]:
    """The clients that sent what cannot be read: those that are known are locked too, none is created for it."""
    return {uuid for uuid, body, _topic in arrivals if uuid is not None and isinstance(body, Refused)}


@dataclass(slots=True)
class Ledger:
    received_at: datetime
    settings: Settings
    mark: datetime
    """counter_mark.counted_out_to: rows after it are counted in."""
    clients: Mapping[str, Known]
    """The clients that are known, and what they were."""
    lanes: Mapping[LaneKey, LaneState]
    sections: dict[SectionKey, list[Row]] = field(default_factory=dict)
    """Rows of the log that were not handed over yet, `rows` in number."""
    rows: int = 0
    gaps: list[tuple[int, Span]] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    counts: dict[str, dict[LogLevel, int]] = field(default_factory=dict)
    days: dict[tuple[str, str, LogLevel], int] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    acks: dict[tuple[str, str], Ack] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)
    past: Happenings = field(default_factory=Happenings)
    """What becomes history: chronicle writes it."""
    unknown: set[str] = field(default_factory=set)
    """Clients that were turned away; persist keeps one dead letter an hour of each."""

    _within: Bounds = field(init=False)

    def __post_init__(self) -> None:
        self._within = bounds(self.received_at, timedelta(days=self.settings.log_retention_days))

    def enter(self, arrival: Arrival) -> None:
        uuid, body, name = arrival
        if isinstance(body, Refused):
            if uuid is not None and uuid not in self.clients and not self.settings.auto_register:
                self._turn_away(uuid)
                return
            self._count("rejected", 1)
            self._bury(Dead(uuid, body.topic, body.reason, body.payload))
        elif isinstance(body, Stale):
            self._count("retained", 1)
        elif uuid is None or uuid not in self.clients:
            self._turn_away(uuid)
        elif isinstance(body, Batch):
            self._alive(uuid)
            self._batch(uuid, body, name or logs_topic(uuid, body.level))
        elif isinstance(body, Hello):
            self._alive(uuid)
            self._hello(uuid, body)
        elif isinstance(body, Presence):
            self._presence(uuid, body)
        elif isinstance(body, Heartbeat):
            self._heartbeat(uuid, body)
        else:
            self._health(uuid, body)

    def hand_over(self) -> dict[SectionKey, list[Row]]:
        sections, self.sections, self.rows = self.sections, {}, 0
        return sections

    def _count(self, name: str, number: int) -> None:
        if number:
            self.stats[name] = self.stats.get(name, 0) + number

    def _bury(self, letter: Dead) -> None:
        self.dead.append(letter._replace(payload=letter.payload[:MAX_DEAD_CHARS]))

    def _turn_away(self, uuid: str | None) -> None:
        self._count("unknown_client", 1)
        if uuid is not None:
            self.unknown.add(uuid)

    # --- records ------------------------------------------------------------------------------------------------------

    def _batch(self, uuid: str, batch: Batch, name: str) -> None:
        epoch, first, last = batch.epoch, batch.first, batch.last
        if epoch is None or first is None or last is None:
            self._store(uuid, batch.level, None, batch.records, name)
            self._reject(uuid, None, batch.rejected, name)
            return
        lane = self.lanes[uuid, epoch, batch.level]
        verdict = judge(lane.cursor, first, last, batch.base or 0)
        if verdict.refused:
            self._count("out_of_order", 1)
        elif verdict.taken is None:
            self._count("duplicate", last - first + 1)
        else:
            records, rejected = batch.records, batch.rejected
            if verdict.taken.first > first:
                known = lane.cursor
                records = [record for record in records if record.seq is not None and record.seq > known]
                rejected = [one for one in rejected if one.seq is not None and one.seq > known]
                self._count("duplicate", verdict.taken.first - first)
            self._gap(lane, verdict.gap)
            stored = self._store(uuid, batch.level, lane.id, records, name)
            self._reject(uuid, lane.id, rejected, name)
            lane.stored += stored
            lane.unwanted += len(records) - stored
            lane.dead += len(rejected)
            lane.cursor = verdict.cursor
            lane.boot_id = lane.boot_id or next((record.boot_id for record in records), None)
        lane.changed = True
        self._ack(uuid, epoch).lanes[batch.level] = lane.cursor

    def _gap(self, lane: LaneState, gap: Span | None) -> None:
        if gap is not None:
            lane.gap += gap.last - gap.first + 1
            self.gaps.append((lane.id, gap))

    def _store(self, uuid: str, level: LogLevel, lane_id: int | None, records: list[Record], name: str) -> int:
        """Returns how many of the records are stored; the others are not wanted."""
        want = Wanted.ALL if self.settings.debug_mode else DEFAULT_WANTED[level]
        if want is Wanted.NONE or not records:
            self._count("unwanted", len(records))
            return 0
        rows, times, cuts = rows_of(records, self._within, want is Wanted.CODED)
        self._count("unwanted", len(records) - len(rows))
        if not rows:
            return 0
        self.sections.setdefault(SectionKey(uuid, level, lane_id), []).extend(rows)
        self.rows += len(rows)
        self._tally(uuid, level, times)
        self.past.stored(uuid, level, rows, times, self.mark)
        self._count("cut", len(cuts))
        for cut in cuts:
            self._bury(Dead(uuid, name, cut.reason, cut.original, lane_id, cut.seq, stays=True))
        return len(rows)

    def _tally(self, uuid: str, level: LogLevel, times: list[datetime]) -> None:
        recent = count_after(times, self.mark)
        if recent:
            counts = self.counts.setdefault(uuid, {})
            counts[level] = counts.get(level, 0) + recent
        for day, number in day_counts(times).items():
            key = (uuid, day, level)
            self.days[key] = self.days.get(key, 0) + number

    def _reject(self, uuid: str, lane_id: int | None, rejected: list[Rejected], name: str) -> None:
        self._count("dead", len(rejected))
        for one in rejected:
            seq = None if lane_id is None else one.seq
            # What has a number is acknowledged, and gone from the client then.
            self._bury(Dead(uuid, name, one.reason, one.raw, lane_id, seq, stays=seq is not None))

    def _ack(self, uuid: str, epoch: str) -> Ack:
        return self.acks.setdefault((uuid, epoch), Ack(epoch, {}))

    # --- the client's state -------------------------------------------------------------------------------------------

    def _change(self, uuid: str, **values: Any) -> None:
        self.changes.setdefault(uuid, {}).update(values)

    def _now(self, uuid: str, name: str) -> Any:
        """A column of the client as the arrivals so far have left it."""
        changes = self.changes.get(uuid, {})
        return changes[name] if name in changes else getattr(self.clients[uuid], name)

    def _alive(self, uuid: str) -> None:
        if not self._now(uuid, "online"):
            self.past.turned(uuid, SpanKind.LINK, "online", self.received_at)
            # It made more while it was away; how much, its next heartbeat tells.
            self._change(uuid, outbox_pending=None, outbox_oldest=None)
        self._change(uuid, last_alive=self.received_at, online=True)

    def _hello(self, uuid: str, hello: Hello) -> None:
        # A kiosk that connects anew may have been set to another time: what it says next counts, however old it looks.
        self._change(uuid, state_at=None, version=hello.version or None)
        for level, span in hello.lanes.items():
            lane = self.lanes.get((uuid, hello.epoch, level))
            if lane is not None:
                verdict = settle(lane.cursor, span.base)
                self._gap(lane, verdict.gap)
                lane.cursor, lane.changed = verdict.cursor, True
        known = self._ack(uuid, hello.epoch).lanes
        cursors = {
            level: self.lanes[key].cursor if (key := (uuid, hello.epoch, level)) in self.lanes else 0
            for level in hello.lanes
        }
        self.acks[uuid, hello.epoch] = Ack(hello.epoch, known | cursors, wanted(self.settings))

    def _presence(self, uuid: str, presence: Presence) -> None:
        if not presence.online:
            if self._now(uuid, "online"):
                heard = self._now(uuid, "last_alive") or self.received_at
                self.past.turned(uuid, SpanKind.LINK, "offline", heard)
            self._change(uuid, online=False)
        elif not presence.retained:
            self._alive(uuid)

    def _is_newer(self, uuid: str, when: datetime | None) -> datetime | None:
        """The state's time if it is not older than the newest that was applied, else None."""
        # A time before any retention is a clock that was never set.
        when = self.received_at if when is None or when < self._within.low else min(when, self._within.high)
        newest = self._now(uuid, "state_at")
        return when if newest is None or when >= newest else None

    def _told(self, uuid: str, body: Heartbeat | Health, screen: ScreenHealthStatus | None, when: datetime) -> None:
        """Before the change: what of a newer state is history."""
        if body.process_status != self._now(uuid, "process_status"):
            self.past.turned(uuid, SpanKind.PROCESS, body.process_status, when)
        self.past.tell(uuid, body.process_status, when, body.process_pid)
        if screen is not None:
            if screen != self._now(uuid, "screen_health_status"):
                self.past.turned(uuid, SpanKind.SCREEN, screen, when)
            self.past.tell(uuid, screen, when)

    def _heartbeat(self, uuid: str, beat: Heartbeat) -> None:
        if beat.uuid and beat.uuid.lower() != uuid:
            self._count("rejected", 1)
            payload = to_json({"uuid": beat.uuid, "timestamp": beat.timestamp.isoformat()}).decode()
            self._bury(Dead(uuid, topic(uuid, "heartbeat"), "uuid: differs from that of the topic", payload))
            return
        self._alive(uuid)
        when = self._is_newer(uuid, beat.timestamp)
        if when is None:
            return
        self._told(uuid, beat, beat.screen_health_status, when)
        self._change(
            uuid,
            state_at=when,
            current_process=beat.current_process,
            process_pid=beat.process_pid,
            process_status=beat.process_status,
            current_event_id=beat.current_event_id,
        )
        if beat.screen_health_status is not None:
            self._change(uuid, screen_health_status=beat.screen_health_status)
        if beat.outbox_pending is not None:
            oldest = beat.outbox_oldest and min(max(beat.outbox_oldest, self._within.low), self._within.high)
            self._change(uuid, outbox_pending=beat.outbox_pending, outbox_oldest=oldest)
        if beat.version is not None:
            self._change(uuid, version=beat.version)

    def _health(self, uuid: str, health: Health) -> None:
        self._alive(uuid)
        when = self._is_newer(uuid, health.timestamp)
        if when is None:
            return
        self._told(uuid, health, health.screen_status, when)
        self._change(
            uuid,
            state_at=when,
            current_process=health.process,
            process_pid=health.process_pid,
            process_status=health.process_status,
            current_event_id=health.expected_event_id,
            current_event_type=health.expected_event_type,
        )
        if health.screen_status is not None:
            self._change(uuid, screen_health_status=health.screen_status, screen_reason=health.screen_reason)
        # A kiosk that cannot see its screen for once has no picture to tell of: the last one stays the last.
        if health.screen_hash is not None:
            self._change(uuid, last_screenshot_hash=health.screen_hash)
        if health.screen_analyzed_at is not None:
            self._change(uuid, last_screenshot_analyzed=health.screen_analyzed_at)
        if health.system:
            self._change(uuid, system=context_text(health.system))
            self.past.sample(uuid, when, health.system, self._now(uuid, "outbox_pending"))
            hostname = health.system.get("hostname")
            if isinstance(hostname, str) and hostname:
                self._change(uuid, hostname=clean(hostname)[:MAX_HOSTNAME])
