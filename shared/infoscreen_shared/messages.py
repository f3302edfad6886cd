"""Every message of the wire contract: the types, their JSON, and the checks at the border.

Encoding and decoding only. Who sends what when, what a cursor means and where rows are kept is for the two sides.
Whatever comes from outside is checked here, once; past this module values have the types they are annotated with.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn, TypeVar

E = TypeVar("E", bound=StrEnum)

MAX_BATCH_RECORDS = 500
MAX_BATCH_BYTES = 64_000
"""Bounds of one batch as the agent sends it, uncompressed (DESIGN section 4)."""

MAX_PAYLOAD_BYTES = 1_000_000
"""What a receiver looks at; anything larger is refused unread. Generous: foreign clients batch as they like."""

MAX_MESSAGE_CHARS = 8_192
MAX_CONTEXT_CHARS = 16_384
MAX_CODE_CHARS = 64
MAX_ID_CHARS = 64
MAX_SEQ = 2**62
"""Below the signed 64 bits of both databases, with room to add one."""


class LogLevel(StrEnum):
    ERROR = "ERROR"
    WARN = "WARN"
    INFO = "INFO"
    DEBUG = "DEBUG"


class ProcessStatus(StrEnum):
    RUNNING = "running"
    CRASHED = "crashed"
    STARTING = "starting"
    STOPPED = "stopped"


class ScreenHealthStatus(StrEnum):
    OK = "OK"
    BLACK = "BLACK"
    FROZEN = "FROZEN"
    UNKNOWN = "UNKNOWN"


class EventType(StrEnum):
    VIDEO = "video"
    WEBSITE = "website"
    PRESENTATION = "presentation"


class Clock(StrEnum):
    """How far a record's timestamp can be trusted."""

    SYNCED = "synced"
    CORRECTED = "corrected"
    """Taken before the first time sync of that boot and shifted by what the sync revealed."""
    UNSYNCED = "unsynced"


class Wanted(StrEnum):
    """How much of a level the server stores; the rest the agent keeps to its journal."""

    ALL = "all"
    CODED = "coded"
    """Only records with a `code`: those that open, change or close an incident."""
    NONE = "none"


DEFAULT_WANTED: Mapping[LogLevel, Wanted] = {
    LogLevel.ERROR: Wanted.ALL,
    LogLevel.WARN: Wanted.ALL,
    LogLevel.INFO: Wanted.CODED,
    LogLevel.DEBUG: Wanted.NONE,
}
"""What holds with DEBUG_MODE off, and what an agent assumes until a server has told it."""


class WireError(ValueError):
    """A payload breaks the contract. The text names the field and never repeats more of the payload than that."""


class Record(NamedTuple):
    """One log record as it travels. `seq`, `boot_id` and `clock` are absent in those of foreign clients."""

    timestamp: datetime
    message: str
    context: dict[str, Any]
    code: str | None = None
    epoch: str | None = None
    seq: int | None = None
    boot_id: str | None = None
    clock: Clock | None = None


class Rejected(NamedTuple):
    """A record that cannot be decoded; the rest of its batch is not harmed by it."""

    seq: int | None
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What arrived on one logs topic: `epoch` and `base` are None for a client that does not number its records.

    The sequence numbers of a numbered batch run without a gap from `first`, over accepted and rejected ones together.
    """

    level: LogLevel
    epoch: str | None
    base: int | None
    records: list[Record]
    rejected: list[Rejected]
    first: int | None = None

    @property
    def last(self) -> int | None:
        """The highest sequence number in a numbered batch."""
        return None if self.first is None else self.first + len(self.records) + len(self.rejected) - 1


@dataclass(frozen=True, slots=True)
class LaneSpan:
    """One lane as the agent holds it: all up to `base` is no longer held, `next` is the number not yet given."""

    base: int
    next: int


@dataclass(frozen=True, slots=True)
class Hello:
    epoch: str
    lanes: dict[LogLevel, LaneSpan]
    version: str


@dataclass(frozen=True, slots=True)
class Ack:
    """Per lane of this epoch: all up to this number is committed in the server's database."""

    epoch: str
    lanes: dict[LogLevel, int]
    wanted: dict[LogLevel, Wanted] | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The original flat fields, so that one decoder serves old and new clients."""

    uuid: str
    timestamp: datetime
    current_process: str | None = None
    process_pid: int | None = None
    process_status: ProcessStatus | None = None
    current_event_id: int | None = None
    screen_health_status: ScreenHealthStatus | None = None
    outbox_pending: int | None = None
    outbox_oldest: datetime | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    timestamp: datetime | None
    expected_event_id: int | None
    expected_event_type: EventType | None
    process: str | None
    process_pid: int | None
    process_status: ProcessStatus | None
    screen_status: ScreenHealthStatus | None = None
    screen_reason: str | None = None
    screen_hash: str | None = None
    screen_analyzed_at: datetime | None = None
    system: dict[str, Any] = field(default_factory=dict)


# --- JSON -------------------------------------------------------------------------------------------------------------

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def to_json(value: object) -> bytes:
    """Compact UTF-8 JSON. A lone surrogate, which UTF-8 cannot carry, becomes a question mark.

    Raises ValueError for NaN and infinities, TypeError for what JSON has no word for.
    """
    return _encode(value).encode("utf-8", "replace")


def from_json(payload: bytes | bytearray | str) -> Any:
    """Parse JSON strictly: no NaN, bounded depth and number length.

    Raises WireError.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise WireError(f"payload is larger than {MAX_PAYLOAD_BYTES} bytes")
    try:
        return json.loads(payload, parse_constant=_refuse_constant)
    except RecursionError:
        raise WireError("payload is nested too deeply") from None
    except UnicodeDecodeError:
        raise WireError("payload is not UTF-8") from None
    except ValueError as error:
        reason = str(error) if isinstance(error, WireError) else "payload is not JSON"
        raise WireError(reason) from None


def _refuse_constant(_name: str) -> NoReturn:
    raise WireError("NaN and Infinity are not JSON")


def timestamp_text(when: datetime) -> str:
    """
    >>> timestamp_text(datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC))
    '2026-01-02T03:04:05.678000Z'
    """
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_timestamp(text: object, name: str = "timestamp") -> datetime:
    """ISO 8601 to an aware UTC datetime; without a zone it is UTC, as the original clients send it. Raises WireError.

    >>> parse_timestamp("2026-01-02T04:04:05+01:00")
    datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    """
    if not isinstance(text, str):
        raise WireError(f"{name}: expected an ISO 8601 time")
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is UTC:
            return when
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise WireError(f"{name}: expected an ISO 8601 time") from None


# --- log records ------------------------------------------------------------------------------------------------------


def encode_record(record: Record) -> bytes:
    """One record as JSON; the absent fields are left out, which is also the form that foreign clients send."""
    body: dict[str, object] = {"timestamp": timestamp_text(record.timestamp), "message": record.message}
    body["context"] = record.context
    for name in ("code", "epoch", "seq", "boot_id", "clock"):
        value = getattr(record, name)
        if value is not None:
            body[name] = value
    return to_json(body)


def encode_batch(epoch: str, base: int, records: Iterable[bytes]) -> bytes:
    """A batch out of records that are JSON already: the hot path of a replay never parses on the kiosk."""
    return b'{"epoch":"%s","base":%d,"records":[%s]}' % (epoch.encode(), base, b",".join(records))


def decode_logs(level: LogLevel, payload: bytes | bytearray | str) -> Batch:
    """Whatever may arrive on a logs topic: one record or a batch.

    Raises WireError where not even the frame can be read; a record that cannot be read is in `rejected` instead.
    """
    return batch_from(level, from_json(payload))


def batch_from(level: LogLevel, body: object) -> Batch:
    """`decode_logs` for a body that is parsed already (the HTTP door gets several in one document)."""
    if not isinstance(body, dict):
        raise WireError("expected a JSON object")
    if "records" not in body:
        return _single(level, body)
    items = body["records"]
    if not isinstance(items, list):
        raise WireError("records: expected a list")
    epoch = None if body.get("epoch") is None else _text(body["epoch"], "epoch", MAX_ID_CHARS)
    if epoch is None or not items:
        records, rejected = _records(items, epoch, None)
        return Batch(level, epoch, None, records, rejected)
    base = _integer(body, "base", required=True)
    first = _first_of_run(items)
    records, rejected = _records(items, epoch, first)
    return Batch(level, epoch, base, records, rejected, first)


def _single(level: LogLevel, body: dict[str, Any]) -> Batch:
    """A record that stands alone. Numbered, it may carry a `base` as a batch does; without one it claims no gap."""
    record = _record(body, None)
    if record.epoch is None or record.seq is None:
        return Batch(level, None, None, [record._replace(epoch=None, seq=None)], [])
    return Batch(level, record.epoch, _integer(body, "base") or 0, [record], [], record.seq)


def _records(items: list[Any], epoch: str | None, first: int | None) -> tuple[list[Record], list[Rejected]]:
    """The items that are records and those that are none; in a numbered batch the place gives the number."""
    records: list[Record] = []
    rejected: list[Rejected] = []
    for place, item in enumerate(items):
        seq = None if first is None else first + place
        try:
            record = _record(item, epoch)
        except WireError as error:
            rejected.append(Rejected(seq, str(error), _excerpt(item)))
            continue
        records.append(record if record.seq == seq else record._replace(seq=seq))
    return records, rejected


def _first_of_run(items: list[Any]) -> int:
    """The first number of a batch, after making sure that the others follow one by one."""
    try:
        first = items[0]["seq"]
        if type(first) is int and [item["seq"] for item in items] == list(range(first, first + len(items))):
            return _in_range(first, len(items))
    except (TypeError, KeyError):
        pass
    return _first_of_broken_run(items)


def _first_of_broken_run(items: list[Any]) -> int:
    """The same where some items are no records or have no number: the others must fit around them."""
    first: int | None = None
    for place, item in enumerate(items):
        seq = item.get("seq") if isinstance(item, dict) else None
        if type(seq) is not int or not 0 < seq <= MAX_SEQ:
            if first is None:
                raise WireError("seq: the first record of a numbered batch has none")
            continue
        if first is None:
            first = seq - place
        elif seq != first + place:
            raise WireError("seq: the numbers in a batch must follow one by one")
    assert first is not None
    return _in_range(first, len(items))


def _in_range(first: int, count: int) -> int:
    if first < 1 or first + count - 1 > MAX_SEQ:
        raise WireError("seq: expected numbers from 1")
    return first


_CLOCKS = {str(clock): clock for clock in Clock}
_new = tuple.__new__


def _record(item: object, epoch: str | None) -> Record:
    if not isinstance(item, dict):
        raise WireError("record: expected a JSON object")
    get = item.get
    message = get("message")
    if type(message) is not str:
        raise WireError("message: expected text")
    context = get("context")
    if context is None:
        context = {}
    elif type(context) is not dict:
        # The original clients' context is free; what is no object is kept under a name of its own.
        context = {"value": context}
    seq = get("seq")
    if seq is not None and (type(seq) is not int or not 0 < seq <= MAX_SEQ):
        raise WireError("seq: expected a whole number from 1")
    clock = get("clock")
    if clock is not None:
        clock = _CLOCKS.get(clock) if type(clock) is str else None
        if clock is None:
            raise WireError("clock: expected synced, corrected or unsynced")
    code = get("code")
    if code is not None:
        code = _text(code, "code", MAX_CODE_CHARS)
    boot_id = get("boot_id")
    if boot_id is not None:
        boot_id = _text(boot_id, "boot_id", MAX_ID_CHARS)
    own_epoch = get("epoch")
    if own_epoch is not None:
        own_epoch = _text(own_epoch, "epoch", MAX_ID_CHARS)
        if epoch is not None and own_epoch != epoch:
            raise WireError("epoch: differs from that of the batch")
    if not message.isascii() or "\0" in message:
        message = clean(message)
    when = parse_timestamp(get("timestamp"))
    # What Record(...) does, without the call in between: this is the hot path of a replay.
    return _new(Record, (when, message, context, code, epoch or own_epoch, seq, boot_id, clock))


def clean(text: str) -> str:
    """Text that both databases and UTF-8 can hold: NUL and lone surrogates become U+FFFD."""
    text = text.replace("\0", "\ufffd")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _excerpt(item: object) -> str:
    try:
        return clean(_encode(item))[:MAX_CONTEXT_CHARS]
    except (ValueError, TypeError, RecursionError):
        return ""


# --- fields -----------------------------------------------------------------------------------------------------------


def _text(value: object, name: str, limit: int) -> str:
    if type(value) is not str or not value or len(value) > limit:
        raise WireError(f"{name}: expected text of 1 to {limit} characters")
    return value if value.isascii() and "\0" not in value else clean(value)


def _optional_text(body: Mapping[str, Any], name: str, limit: int = 255) -> str | None:
    """Empty text says as little as none."""
    value = body.get(name)
    return None if value is None or value == "" else _text(value, name, limit)


def _integer(body: Mapping[str, Any], name: str, *, required: bool = False) -> int | None:
    value = body.get(name)
    if value is None and not required:
        return None
    if type(value) is not int or not 0 <= value <= MAX_SEQ:
        raise WireError(f"{name}: expected a whole number from 0")
    return value


def _choice(body: Mapping[str, Any], name: str, kind: type[E]) -> E | None:
    value = body.get(name)
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise WireError(f"{name}: expected one of {', '.join(kind)}") from None


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WireError(f"{name}: expected a JSON object")
    return value


def _optional_time(body: Mapping[str, Any], name: str) -> datetime | None:
    value = body.get(name)
    return None if value is None else parse_timestamp(value, name)


def _document(payload: bytes | bytearray) -> dict[str, Any]:
    body = from_json(payload)
    if not isinstance(body, dict):
        raise WireError("expected a JSON object")
    return body


def _levels(body: Mapping[str, Any], name: str) -> list[tuple[LogLevel, Any]]:
    found = _object(body, name)
    try:
        return [(LogLevel(level.upper()), value) for level, value in found.items()]
    except ValueError:
        raise WireError(f"{name}: expected the levels {', '.join(LogLevel).lower()}") from None


def encode_hello(hello: Hello) -> bytes:
    lanes = {level.lower(): {"base": span.base, "next": span.next} for level, span in hello.lanes.items()}
    return to_json({"epoch": hello.epoch, "lanes": lanes, "version": hello.version})


def decode_hello(payload: bytes | bytearray) -> Hello:
    """Raises WireError."""
    body = _document(payload)
    lanes: dict[LogLevel, LaneSpan] = {}
    for level, span in _levels(body, "lanes"):
        if not isinstance(span, dict):
            raise WireError(f"lanes.{level.lower()}: expected base and next")
        base, upcoming = _integer(span, "base", required=True), _integer(span, "next", required=True)
        assert base is not None
        assert upcoming is not None
        if base >= upcoming:
            raise WireError(f"lanes.{level.lower()}: base must be below next")
        lanes[level] = LaneSpan(base, upcoming)
    epoch = _text(body.get("epoch"), "epoch", MAX_ID_CHARS)
    return Hello(epoch, lanes, _optional_text(body, "version", MAX_ID_CHARS) or "")


def ack_body(ack: Ack) -> dict[str, Any]:
    """The ack as a JSON object: what the HTTP door answers with, and what `encode_ack` writes."""
    body: dict[str, Any] = {"epoch": ack.epoch, "lanes": {level.lower(): seq for level, seq in ack.lanes.items()}}
    if ack.wanted is not None:
        body["wanted"] = {level.lower(): str(wanted) for level, wanted in ack.wanted.items()}
    return body


def encode_ack(ack: Ack) -> bytes:
    return to_json(ack_body(ack))


def decode_ack(payload: bytes | bytearray) -> Ack:
    """Raises WireError."""
    return ack_from(from_json(payload))


def ack_from(body: object) -> Ack:
    """`decode_ack` for a body that is parsed already. Raises WireError."""
    if not isinstance(body, dict):
        raise WireError("expected a JSON object")
    lanes: dict[LogLevel, int] = {}
    for level, seq in _levels(body, "lanes"):
        if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
            raise WireError(f"lanes.{level.lower()}: expected a whole number from 0")
        lanes[level] = seq
    wanted: dict[LogLevel, Wanted] | None = None
    if body.get("wanted") is not None:
        wanted = {}
        for level, value in _levels(body, "wanted"):
            try:
                wanted[level] = Wanted(value)
            except ValueError:
                raise WireError(f"wanted.{level.lower()}: expected one of {', '.join(Wanted)}") from None
    return Ack(_text(body.get("epoch"), "epoch", MAX_ID_CHARS), lanes, wanted)


def encode_heartbeat(beat: Heartbeat) -> bytes:
    oldest = None if beat.outbox_oldest is None else timestamp_text(beat.outbox_oldest)
    return to_json(
        {
            "uuid": beat.uuid,
            "timestamp": timestamp_text(beat.timestamp),
            "current_process": beat.current_process,
            "process_pid": beat.process_pid,
            "process_status": beat.process_status,
            "current_event_id": beat.current_event_id,
            "screen_health_status": beat.screen_health_status,
            "outbox": {"pending": beat.outbox_pending, "oldest": oldest},
            "version": beat.version,
        }
    )


def decode_heartbeat(payload: bytes | bytearray) -> Heartbeat:
    """Raises WireError. All but `timestamp` may be missing: the original clients send the flat fields only."""
    body = _document(payload)
    outbox = _object(body, "outbox")
    return Heartbeat(
        uuid=_optional_text(body, "uuid", MAX_ID_CHARS) or "",
        timestamp=parse_timestamp(body.get("timestamp")),
        current_process=_optional_text(body, "current_process"),
        process_pid=_integer(body, "process_pid"),
        process_status=_choice(body, "process_status", ProcessStatus),
        current_event_id=_integer(body, "current_event_id"),
        screen_health_status=_choice(body, "screen_health_status", ScreenHealthStatus),
        outbox_pending=_integer(outbox, "pending"),
        outbox_oldest=_optional_time(outbox, "oldest"),
        version=_optional_text(body, "version", MAX_ID_CHARS),
    )


def encode_health(health: Health) -> bytes:
    analyzed = None if health.screen_analyzed_at is None else timestamp_text(health.screen_analyzed_at)
    return to_json(
        {
            "timestamp": None if health.timestamp is None else timestamp_text(health.timestamp),
            "expected_state": {"event_id": health.expected_event_id, "event_type": health.expected_event_type},
            "actual_state": {
                "process": health.process,
                "pid": health.process_pid,
                "status": health.process_status,
            },
            "screen": {
                "status": health.screen_status,
                "reason": health.screen_reason,
                "hash": health.screen_hash,
                "analyzed_at": analyzed,
            },
            "system": health.system,
        }
    )


def decode_health(payload: bytes | bytearray) -> Health:
    """Raises WireError."""
    body = _document(payload)
    expected, actual, screen = (_object(body, name) for name in ("expected_state", "actual_state", "screen"))
    return Health(
        timestamp=_optional_time(body, "timestamp"),
        expected_event_id=_integer(expected, "event_id"),
        expected_event_type=_choice(expected, "event_type", EventType),
        process=_optional_text(actual, "process"),
        process_pid=_integer(actual, "pid"),
        process_status=_choice(actual, "status", ProcessStatus),
        screen_status=_choice(screen, "status", ScreenHealthStatus),
        screen_reason=_optional_text(screen, "reason"),
        screen_hash=_optional_text(screen, "hash"),
        screen_analyzed_at=_optional_time(screen, "analyzed_at"),
        system=_object(body, "system"),
    )
