"""Records into rows of client_logs: clamped, cut, made storable. Pure, and the tightest loop of the server.

What is done once per record costs at 100,000 records a second: hence one function, tuples, and no call that the usual
record does not need.
"""

import json.encoder
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_shared.messages import MAX_CONTEXT_CHARS, MAX_MESSAGE_CHARS, Record, clean, to_json

FUTURE = timedelta(minutes=5)
"""How far a device's clock may run ahead before its records are pulled back (DESIGN section 6)."""
CUT = " … [cut]"
MAX_DEPTH = 100
"""Of a context: far above sense, far below the some 900 levels at which a reader with more calls below it than the
ingester fails."""
MAX_DEAD_CHARS = 65_536
"""How much of an original is kept in a dead letter."""

Row = tuple[str, str | None, str | None, str, str | None, int | None, str | None]
"""timestamp, device_timestamp, code, message, context, seq, clock: in the order of COLUMNS."""
COLUMNS = ("timestamp", "device_timestamp", "code", "message", "context", "seq", "clock")


class Bounds(NamedTuple):
    """Where a device's time is believed: [received - retention, received + 5 min]."""

    low: datetime
    high: datetime

    def clamp(self, when: datetime) -> datetime:
        return min(max(when, self.low), self.high)


def bounds(received_at: datetime, retention: timedelta) -> Bounds:
    return Bounds(received_at - retention, received_at + FUTURE)


class Cut(NamedTuple):
    """A record that was stored shorter than it came, and what it was."""

    seq: int | None
    reason: str
    original: str


def rows_of(records: Sequence[Record], within: Bounds, coded_only: bool) -> tuple[list[Row], list[datetime], list[Cut]]:
    """The rows of one level's records with their clamped times, and what had to be cut.

    With `coded_only` records without a `code` are left out.
    """
    low, high = within
    rows: list[Row] = []
    times: list[datetime] = []
    cuts: list[Cut] = []
    add, note = rows.append, times.append
    for record in records:
        when, message, context, code, _epoch, seq, _boot_id, clock = record
        if code is None and coded_only:
            continue
        original = None
        if not low <= when <= high:
            original = _text(when)
            when = within.clamp(when)
        text = None
        if context:
            try:
                text = "".join(_context(context, 0))
                if not text.isascii() or "\\u0000" in text:
                    text = _storable(text, context)
            except (ValueError, RecursionError):
                text = _rough(context)
            if len(text) > 2 * MAX_DEPTH and (excess := _excess(text, context)):
                cuts.append(Cut(seq, excess, text[:MAX_DEAD_CHARS]))
                text = to_json({"truncated": text[: MAX_CONTEXT_CHARS // 8] + CUT}).decode()
        if len(message) > MAX_MESSAGE_CHARS:
            cuts.append(Cut(seq, f"message: longer than {MAX_MESSAGE_CHARS} characters", message[:MAX_DEAD_CHARS]))
            message = message[: MAX_MESSAGE_CHARS - len(CUT)] + CUT
        add(
            (
                when.isoformat("T", "microseconds")[:26] + "Z",
                original,
                code,
                message,
                text,
                seq,
                clock and clock._value_,
            )
        )
        note(when)
    return rows, times, cuts


def _text(when: datetime) -> str:
    return when.isoformat("T", "microseconds")[:26] + "Z"


def _context_encoder() -> Callable[[object, int], Sequence[str]]:
    """JSONEncoder.encode without the set-up that it repeats at each call, which is half of its time."""
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _level: [encoder.encode(value)]
    found: Callable[[object, int], Sequence[str]] = make(
        None, encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
    return found


_context = _context_encoder()


def _excess(text: str, context: dict[str, Any]) -> str | None:
    """What a context has too much of."""
    if len(text) > MAX_CONTEXT_CHARS:
        return f"context: longer than {MAX_CONTEXT_CHARS} characters"
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(context) > MAX_DEPTH:
        return f"context: nested deeper than {MAX_DEPTH} levels"
    return None


def _depth(value: object) -> int:
    """How many dicts and lists lie within each other.

    >>> _depth({"a": [1, {"b": 2}], "c": 3})
    3
    """
    depth, layer = 0, [value]
    while layer := [each for each in layer if isinstance(each, (dict, list))]:
        depth += 1
        layer = [inner for each in layer for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def context_text(context: dict[str, Any]) -> str:
    """JSON that both databases can hold, cut where it is too long or nested too deeply."""
    text = _rough(context)
    return text if len(text) <= MAX_CONTEXT_CHARS else to_json({"truncated": text[: MAX_CONTEXT_CHARS // 8]}).decode()


def _rough(context: dict[str, Any]) -> str:
    """The same as `_context`, for whatever it cannot do: numbers beyond all bounds (1e999), nesting, surrogates."""
    return clean(to_json(_sanitised(context)).decode())


def _storable(text: str, context: dict[str, Any]) -> str:
    """Without NUL and lone surrogates, in keys too; other text beyond ASCII stays as it is."""
    if "\\u0000" in text:
        text = to_json(_sanitised(context)).decode()
    return clean(text)


def _sanitised(value: Any, levels: int = MAX_DEPTH) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, (dict, list)) and levels == 0:
        return CUT
    if isinstance(value, dict):
        return {clean(key): _sanitised(inner, levels - 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sanitised(inner, levels - 1) for inner in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value


def day_counts(times: Sequence[datetime]) -> dict[str, int]:
    """How many of the times fall on each UTC day, as ISO dates.

    >>> from datetime import UTC
    >>> day_counts([datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 1, 2, 4, tzinfo=UTC)])
    {'2026-01-02': 2}
    """
    first, last = min(times).date(), max(times).date()
    if first == last:
        return {first.isoformat(): len(times)}
    found: dict[str, int] = {}
    for when in times:
        day = when.date().isoformat()
        found[day] = found.get(day, 0) + 1
    return found


def count_after(times: Sequence[datetime], mark: datetime) -> int:
    """How many of the times lie after the mark."""
    if min(times) > mark:
        return len(times)
    return sum(when > mark for when in times)
