"""Whatever bytes arrive on whatever topic, reading them ends in an arrival, and the arrival holds what it promises."""

import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_server.incoming import EXCERPT_BYTES, MAX_TOPIC_CHARS, arrival_of
from infoscreen_server.ledger import Arrival, Presence, Refused, Stale
from infoscreen_shared import topics
from infoscreen_shared.messages import (
    MAX_SEQ,
    Batch,
    Clock,
    Health,
    Heartbeat,
    Hello,
    LaneSpan,
    LogLevel,
    ProcessStatus,
    Record,
    ScreenHealthStatus,
    encode_batch,
    encode_health,
    encode_heartbeat,
    encode_hello,
    encode_record,
)
from parts.fuzz import PAYLOADS, TEXT, TOPICS, UUID

KINDS = ["logs/error", "logs/warn", "logs/info", "logs/debug", "hello", "health", "heartbeat", "status"]
NAMES = (
    TOPICS
    | st.sampled_from([topics.topic(UUID, kind) for kind in [*KINDS, "ack", "commands/result", "logs/error/"]])
    | st.builds("{}/{}/{}".format, st.sampled_from(["infoscreen", ""]) | TEXT, st.just(UUID) | TEXT, TEXT)
    | st.just("infoscreen/" + "x" * 70_000)
)
WHEN = st.datetimes(timezones=st.just(UTC))


def storable(value: object) -> bool:
    """Whether both databases can hold it; `system` and contexts are made so only when they become text."""
    if isinstance(value, str):
        value.encode()
        return "\0" not in value
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, datetime):
        return value.tzinfo is UTC
    return True


def check(arrival: Arrival, name: str, payload: bytes, *, retained: bool) -> None:
    uuid, body, _ = arrival
    assert uuid is None or (topics.is_uuid(uuid) and uuid == name.split("/")[1].lower())
    if retained:
        assert isinstance(body, Presence | Stale)
    elif isinstance(body, Refused):
        assert storable(body.topic)
        assert storable(body.payload)
        assert body.reason
        assert len(body.topic) <= MAX_TOPIC_CHARS
        assert len(body.payload) <= EXCERPT_BYTES
    else:
        assert uuid is not None
        assert not isinstance(body, Stale)
    if isinstance(body, Batch):
        check_batch(body, payload)
    elif isinstance(body, Heartbeat | Health | Hello):
        for field in fields(body):
            assert storable(getattr(body, field.name))


def check_batch(batch: Batch, payload: bytes) -> None:
    said = json.loads(payload)
    items = said.get("records", [said])
    assert len(batch.records) + len(batch.rejected) == len(items), "each is accounted for"
    if batch.first is not None:
        numbers = sorted([record.seq or 0 for record in batch.records] + [one.seq or 0 for one in batch.rejected])
        assert numbers == list(range(batch.first, (batch.last or 0) + 1))
        assert 1 <= batch.first <= numbers[-1] <= MAX_SEQ
        assert batch.epoch
        assert batch.base is not None
    for record in batch.records:
        assert all(storable(value) for value in record)
        assert batch.epoch is None or record.epoch == batch.epoch
    for one in batch.rejected:
        assert storable(one.raw)


@settings(max_examples=300, deadline=None)
@given(NAMES, PAYLOADS, st.booleans())
def test_anything(name: str, payload: bytes, retained: bool) -> None:
    check(arrival_of(name, payload, retained=retained), name, payload, retained=retained)


# --- close to the contract: a good message with a few bytes wrong -----------------------------------------------------

RECORD = Record(datetime(2026, 6, 1, tzinfo=UTC), "m", {"a": [1, {"b": "ü"}]}, "x.y", "e", 3, "b", Clock.SYNCED)
GOOD = [
    ("logs/error", encode_record(RECORD)),
    ("logs/info", encode_batch("e", 2, [encode_record(RECORD._replace(seq=seq)) for seq in (3, 4, 5)])),
    ("hello", b'{"epoch":"e","lanes":{"error":{"base":0,"next":9}},"version":"1"}'),
    ("heartbeat", encode_heartbeat(Heartbeat(UUID, RECORD.timestamp, "mpv", 812, None, 42, None, 3, RECORD.timestamp))),
    ("health", encode_health(Health(RECORD.timestamp, 42, None, "mpv", 812, None, system={"load": 0.5}))),
    ("status", b"online"),
]
PIECES = st.sampled_from(
    [b"", b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"-1", b"1e999", b"9" * 30, b"NaN", b"\\u0000", b"\\ud800"]
) | st.binary(max_size=3)
WOUNDS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 6), PIECES), max_size=3)


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(GOOD), WOUNDS)
def test_a_good_message_with_wounds(good: tuple[str, bytes], wounds: list[tuple[int, int, bytes]]) -> None:
    kind, payload = good
    for place, length, piece in wounds:
        at = place % (len(payload) + 1)
        payload = payload[:at] + piece + payload[at + length :]
    name = topics.topic(UUID, kind)
    check(arrival_of(name, payload), name, payload, retained=False)


# --- what the contract's own encoders write is read as it was ---------------------------------------------------------

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NAME = PLAIN.filter(bool)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | PLAIN, st.lists, max_leaves=5)
CONTEXTS = st.dictionaries(PLAIN, VALUES, max_size=3)
RECORDS = st.builds(
    Record,
    WHEN,
    PLAIN,
    CONTEXTS,
    st.none() | NAME,
    st.just("e"),
    st.none(),
    st.none() | NAME,
    st.none() | st.sampled_from(Clock),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=5), st.integers(1, 2**61), st.sampled_from(LogLevel), st.data())
def test_what_an_agent_sends_is_read_as_it_was(
    records: list[Record], first: int, level: LogLevel, data: st.DataObject
) -> None:
    base = data.draw(st.integers(0, first - 1))
    sent = [record._replace(seq=seq) for seq, record in enumerate(records, first)]
    payload = encode_batch("e", base, [encode_record(record) for record in sent])
    arrival = arrival_of(topics.logs_topic(UUID, level), payload)
    assert arrival.body == Batch(level, "e", base, sent, [], first)


NUMBERS = st.none() | st.integers(0, MAX_SEQ)
BEATS = st.builds(
    Heartbeat,
    uuid=st.just(UUID),
    timestamp=WHEN,
    current_process=st.none() | NAME,
    process_pid=NUMBERS,
    process_status=st.none() | st.sampled_from(ProcessStatus),
    outbox_oldest=st.none() | WHEN,
)
HEALTHS = st.builds(
    Health,
    timestamp=st.none() | WHEN,
    expected_event_id=NUMBERS,
    process=st.none() | NAME,
    process_pid=NUMBERS,
    screen_status=st.none() | st.sampled_from(ScreenHealthStatus),
    system=CONTEXTS,
)
HELLOS = st.builds(Hello, epoch=NAME, lanes=st.just({LogLevel.WARN: LaneSpan(3, 4)}), version=PLAIN)


@settings(max_examples=60, deadline=None)
@given(BEATS, HEALTHS, HELLOS)
def test_states_are_read_as_they_were(beat: Heartbeat, health: Health, hello: Hello) -> None:
    said: list[tuple[str, bytes, Any]] = [
        ("heartbeat", encode_heartbeat(beat), beat),
        ("health", encode_health(health), health),
        ("hello", encode_hello(hello), hello),
    ]
    for kind, payload, meant in said:
        found = arrival_of(topics.topic(UUID, kind), payload)
        assert (found.uuid, found.body) == (UUID, meant)
