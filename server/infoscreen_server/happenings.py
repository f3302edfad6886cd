"""What arrivals mean for the tables of what was: events, issues, turns of states, facts. Pure.

The ledger hands over what it stores and applies; chronicle writes the result down. Told apart here is what an incident
may be made of from the mass that is only log: the usual INFO record costs one look.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_server.facts import EVERY
from infoscreen_server.incidents import CODES, Event, Told
from infoscreen_server.models_history import MESSAGE_CHARS, SpanKind
from infoscreen_server.rows import Row
from infoscreen_shared.messages import LogLevel

ISSUE_LEVELS = (LogLevel.ERROR, LogLevel.WARN)
LATE = timedelta(minutes=1)
"""A record of a death is made at most so long after it."""
DETAILS = ("event_id", "process", "pid", "exit_code", "signal", "restart", "restarts", "outage_s", "reason", "error",
           "unit", "count", "level", "from", "to")  # fmt: skip
"""What of a record's context is kept with its event."""
DETAIL_CHARS = 100
DROPPED = "buffer.dropped"
"""Of records that say that others were dropped on the kiosk."""
MAX_NUMBER = 2**63 - 1


class Turn(NamedTuple):
    """A client is in another state from then on."""

    uuid: str
    kind: SpanKind
    state: str
    at: datetime


class IssueKey(NamedTuple):
    uuid: str
    level: LogLevel
    code: str


@dataclass(slots=True)
class Tally:
    n: int
    last_at: datetime
    last_message: str


@dataclass(slots=True)
class Happenings:
    """Of one ingest transaction, in the order of arrival."""

    events: dict[str, list[Event]] = field(default_factory=dict)
    issues: dict[IssueKey, Tally] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    told: dict[str, list[Told]] = field(default_factory=dict)
    facts: dict[tuple[str, datetime], dict[str, Any]] = field(default_factory=dict)
    drops: dict[str, str] = field(default_factory=dict)
    """By client: what was last said of records that were dropped there, however long ago that was."""

    def stored(
        self, uuid: str, level: LogLevel, rows: Sequence[Row], times: Sequence[datetime], mark: datetime
    ) -> None:
        """Rows of one level that go into the log; those after the mark count as issues."""
        if level in ISSUE_LEVELS:
            self._count(uuid, level, rows, times, mark)
        for number in [number for number, row in enumerate(rows) if row[2] in CODES]:
            self.events.setdefault(uuid, []).append(event_of(level, rows[number], times[number]))
            if rows[number][2] == DROPPED:
                self.drops[uuid] = rows[number][3][:MESSAGE_CHARS]

    def _count(
        self, uuid: str, level: LogLevel, rows: Sequence[Row], times: Sequence[datetime], mark: datetime
    ) -> None:
        for row, when in zip(rows, times, strict=True):
            if when <= mark:
                continue
            key = IssueKey(uuid, level, row[2] or "")
            tally = self.issues.get(key)
            if tally is None:
                self.issues[key] = Tally(1, when, row[3][:MESSAGE_CHARS])
                continue
            tally.n += 1
            if when >= tally.last_at:
                tally.last_at, tally.last_message = when, row[3][:MESSAGE_CHARS]

    def turned(self, uuid: str, kind: SpanKind, state: str | None, at: datetime) -> None:
        self.turns.append(Turn(uuid, kind, state or "unknown", at))

    def tell(self, uuid: str, state: str | None, at: datetime, pid: int | None = None) -> None:
        """A client is in a state, be it a new one or not."""
        if state is not None:
            self.told.setdefault(uuid, []).append(Told(state, at, pid))

    def sample(self, uuid: str, at: datetime, system: Mapping[str, Any], outbox_pending: int | None) -> None:
        """Facts of a machine: the first of every five minutes is kept."""
        slot = datetime.fromtimestamp(at.timestamp() // EVERY.total_seconds() * EVERY.total_seconds(), UTC)
        found = facts_of(system)
        if found:
            self.facts.setdefault((uuid, slot), {**found, "outbox_pending": outbox_pending})


def event_of(level: LogLevel, row: Row, when: datetime) -> Event:
    _time, _device_time, code, message, text, _seq, _clock = row
    assert code is not None
    context: dict[str, Any] = json.loads(text) if text else {}
    late = _number(context.get("after_s"))
    if late is not None and 0 <= late <= LATE.total_seconds():
        when -= timedelta(seconds=late)
    detail = {name: _short(context[name]) for name in DETAILS if _is_plain(context.get(name))}
    packed = json.dumps(detail, ensure_ascii=False, separators=(",", ":")) if detail else None
    return Event(when, code, level, message[:MESSAGE_CHARS], packed)


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, bool)) or _number(value) is not None


def _short(value: Any) -> Any:
    return value[:DETAIL_CHARS] if isinstance(value, str) else value


def facts_of(system: Mapping[str, Any]) -> dict[str, float | int | None]:
    """The figures that are drawn, out of what a client said; nothing if there is none of them.

    >>> facts_of({"cpu_temperature": 48.5, "load": [0.5, 0.4, 0.3], "memory_total": "much"})["load"]
    0.5
    >>> facts_of({"hostname": "kiosk-1"})
    {}
    """
    load = system.get("load")
    first = load[0] if isinstance(load, list) and load else load
    found: dict[str, float | int | None] = {"cpu_temperature": _number(system.get("cpu_temperature"))}
    found["load"] = _number(first)
    for name in ("memory_available", "memory_total", "disk_free"):
        number = _number(system.get(name))
        found[name] = None if number is None else int(number)
    return found if any(value is not None for value in found.values()) else {}


def _number(value: object) -> float | int | None:
    """A number that both databases can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if -MAX_NUMBER <= value <= MAX_NUMBER else None
