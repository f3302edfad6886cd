"""Drafts become numbered records here, and records of a kiosk that did not know the time yet are put right."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_device.core.model import Draft
from infoscreen_shared.messages import (
    MAX_CONTEXT_CHARS,
    MAX_MESSAGE_CHARS,
    Clock,
    Record,
    encode_record,
    parse_timestamp,
    timestamp_text,
    to_json,
)

_UNSYNCED = b'"clock":"unsynced"'


class Stamp(NamedTuple):
    """The moment at which a draft was accepted."""

    utc: datetime
    boottime: float
    synced: bool


def number(draft: Draft, seq: int, when: datetime, boot_id: str, clock: Clock) -> bytes:
    """The record as it will travel. What is too long or no JSON is cut or described, never refused."""
    message = draft.message
    if len(message) > MAX_MESSAGE_CHARS:
        message = message[: MAX_MESSAGE_CHARS - 1] + "…"
    record = Record(when, message, draft.context, draft.code, None, seq, boot_id, clock)
    try:
        encoded = encode_record(record)
        if len(encoded) <= MAX_CONTEXT_CHARS:
            return encoded
    except (TypeError, ValueError, RecursionError):
        pass
    return encode_record(record._replace(context=_bounded(draft.context)))


def _bounded(context: dict[str, Any]) -> dict[str, Any]:
    """The context as text, cut to fit."""
    try:
        text = json.dumps(context, ensure_ascii=False, default=repr)
    except (TypeError, ValueError, RecursionError):
        text = "not representable as JSON"
    return {"truncated": text[: MAX_CONTEXT_CHARS // 8]}


def correct(records: list[bytes], shift: float) -> list[bytes]:
    """Move the times that were taken before the first sync by `shift` seconds, which that sync revealed.

    The same shift always gives the same bytes, so that a record is the same whenever it is sent again.
    """
    return [_corrected(record, shift) if _UNSYNCED in record else record for record in records]


def _corrected(record: bytes, shift: float) -> bytes:
    body = json.loads(record)
    if body.get("clock") == Clock.UNSYNCED:
        body["timestamp"] = timestamp_text(moved(parse_timestamp(body["timestamp"]), shift))
        body["clock"] = Clock.CORRECTED
    return to_json(body)


def renumbered(record: bytes, seq: int) -> bytes:
    """The same record under another number (a new epoch took it over)."""
    return to_json(json.loads(record) | {"seq": seq})


def moved(when: datetime, seconds: float) -> datetime:
    """`when` plus seconds, kept inside what a datetime can hold."""
    try:
        return when + timedelta(seconds=seconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)
