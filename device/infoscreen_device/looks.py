"""The capture helper's words: what it is asked on the control socket, and its answer read with all its bounds.

The helper belongs to the kiosk's user, so its answers are checked like anything from outside.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from infoscreen_device.core.likeness import is_hash
from infoscreen_device.core.picture import Blind, Blindness, Burst, Look, Page, Region, Witness
from infoscreen_shared.messages import clean

MAX_FRAMES = 16
MAX_TILES = 40_000
MAX_WIDTH = 32_768
MAX_SPAN_S = 60.0
MAX_TEXT = 200
E = TypeVar("E", bound=StrEnum)


class Picture(StrEnum):
    """What a look may bring along besides numbers."""

    JPEG = "jpeg"
    PNG = "png"
    THUMBNAIL = "thumbnail"
    """JPEG of at most 20,000 bytes."""
    EXPLAIN = "explain"
    """PNG with the tiles that moved and the regions that are ignored drawn on it."""


def question(
    *,
    frames: int,
    span_s: float,
    deadline_s: float,
    ignore: Sequence[Region],
    pid: int | None,
    pictures: Sequence[Picture] = (),
    blur: bool = False,
    hashed: bool = False,
    tiles: bool = False,
) -> dict[str, Any]:
    """`pid`: the player whose own word is asked for. `deadline_s`: after it the helper answers that it saw nothing."""
    return {
        "frames": frames,
        "interval_s": round(span_s / (frames - 1), 3),
        "ignore": [list(region) for region in ignore],
        "pid": pid,
        "pictures": list(pictures),
        "blur": blur,
        "hash": hashed,
        "tiles": tiles,
        "deadline_s": deadline_s,
    }


def look_from(answer: Mapping[str, Any]) -> Look:
    """The look in an answer. One that makes no sense is a failed capture, and says where."""
    try:
        blind = answer.get("blind")
        if blind is not None:
            reason = _choice(_object(blind), "reason", Blindness)
            if reason in (Blindness.SETTLING, Blindness.QUIET_HOURS):
                raise ValueError(f"reason: {reason} is not for a helper to say")
            return Blind(reason, _text(_object(blind), "detail"))
        return _burst(_object(answer.get("burst")))
    except ValueError as error:
        return Blind(Blindness.FAILED, f"the helper's answer: {error}")


def _burst(body: Mapping[str, Any]) -> Burst:
    content = _numbers(body, "content", MAX_TILES, MAX_FRAMES)
    changed = _numbers(body, "changed", MAX_TILES, MAX_FRAMES)
    median = _numbers(body, "median", 255, MAX_FRAMES)
    if not content or len(changed) != len(content) - 1 or len(median) != len(content):
        raise ValueError("content, changed and median do not fit each other")
    colour = _numbers(body, "colour", 255, 3)
    if len(colour) != 3:
        raise ValueError("colour: expected three numbers")
    witness, found = body.get("witness"), _text(body, "hash")
    if found and not is_hash(found):
        raise ValueError("hash: expected hexadecimal digits")
    return Burst(
        width=_number(body, "width", MAX_WIDTH),
        height=_number(body, "height", MAX_WIDTH),
        tiles=_number(body, "tiles", MAX_TILES),
        span_s=_seconds(body, "span_s"),
        content=content,
        median=median,
        changed=changed,
        moved=_number(body, "moved", MAX_TILES),
        digest=_text(body, "digest"),
        colour=(colour[0], colour[1], colour[2]),
        backend=_text(body, "backend"),
        hash=found or None,
        windows=None if body.get("windows") is None else _number(body, "windows", 10_000),
        witness=None if witness is None else _witness(_object(witness)),
        tiles_moved=_numbers(body, "tiles_moved", MAX_TILES, MAX_TILES),
    )


def _witness(body: Mapping[str, Any]) -> Witness:
    advances, page = body.get("advances"), body.get("page")
    if advances not in (None, True, False) or not isinstance(body.get("answers", True), bool):
        raise ValueError("witness: expected true, false or null")
    return Witness(
        kind=_text(body, "kind"),
        advances=advances,
        answers=body.get("answers", True),
        page=None if page is None else _choice(body, "page", Page),
        detail=_text(body, "detail"),
    )


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    return value


def _number(body: Mapping[str, Any], name: str, limit: int) -> int:
    value = body.get(name)
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{name}: expected a number up to {limit}")
    return value


def _numbers(body: Mapping[str, Any], name: str, limit: int, count: int) -> tuple[int, ...]:
    value = body.get(name, [])
    fits = isinstance(value, list) and len(value) <= count
    if not fits or not all(type(each) is int and 0 <= each <= limit for each in value):
        raise ValueError(f"{name}: expected at most {count} numbers up to {limit}")
    return tuple(value)


def _seconds(body: Mapping[str, Any], name: str) -> float:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected seconds")
    if not 0 <= value <= MAX_SPAN_S:
        raise ValueError(f"{name}: expected 0 to {MAX_SPAN_S:g} seconds")
    return float(value)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text")
    return clean(value)[:MAX_TEXT]


def _choice(body: Mapping[str, Any], name: str, kind: type[E]) -> E:
    value = body.get(name)
    if not isinstance(value, str) or value not in list(kind):
        raise ValueError(f"{name}: expected one of {', '.join(kind)}")
    return kind(value)
