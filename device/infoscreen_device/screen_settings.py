"""[screen] and [pictures] of the configuration: when the picture is looked at, and what is kept of it."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from infoscreen_device.core.likeness import is_hash
from infoscreen_device.core.picture import Region
from infoscreen_device.settings import DAY_S, PicturesConfig, ScreenConfig
from infoscreen_device.table import Table

FAST = ScreenConfig(fast=True, interval_s=1.0, confirm_s=0.2, span_s=1.0)
"""Three looks of 1 s, one after the other: a fault is known 3.4 to 5.4 s after it began."""
_HOURS = re.compile(r"([01]?[0-9]|2[0-4]):([0-5][0-9]) ?- ?([01]?[0-9]|2[0-4]):([0-5][0-9])")


def read_screen(table: Table) -> ScreenConfig:
    """Problems are in `table.problems`."""
    fast = table.flag("fast", False)
    default = FAST if fast else ScreenConfig()
    config = ScreenConfig(
        enabled=table.flag("enabled", default.enabled),
        restart=table.flag("restart", default.restart),
        fast=fast,
        interval_s=table.number("interval_s", default.interval_s, 0.1, 3_600),
        still_s=table.number("still_s", default.still_s, 0.1, 3_600),
        confirm_s=table.number("confirm_s", default.confirm_s, 0.1, 600),
        span_s=table.number("span_s", default.span_s, 0.2, 5),
        settle_s=table.number("settle_s", default.settle_s, 0, 3_600),
        ignore=_regions(table),
        known=_known(table.table("known")),
        quiet=_quiet(table),
    )
    table.finish()
    return config


def _regions(table: Table) -> tuple[Region, ...]:
    value = table.raw("ignore")
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 32 or not all(_is_region(each) for each in value):
        table.fault("ignore", "expected up to 32 lists of [left, top, width, height], as fractions from 0 to 1")
        return ()
    return tuple((float(x), float(y), float(width), float(height)) for x, y, width, height in value)


def _is_region(value: object) -> bool:
    numbers = isinstance(value, list) and len(value) == 4 and all(type(each) in (int, float) for each in value)
    return numbers and all(0 <= each <= 1 for each in value)  # type: ignore[attr-defined]


def _known(table: Table) -> Mapping[str, str]:
    found = {}
    for name in table.names():
        value = table.raw(name)
        hashes = value.split() if isinstance(value, str) else []
        if not hashes or len(name) > 40 or not all(is_hash(each) for each in hashes):
            table.fault(name, "expected hashes as `infoscreen-watchdog screen --remember NAME` prints them")
        else:
            found[name] = " ".join(hashes)
    return MappingProxyType(found)


def _quiet(table: Table) -> tuple[tuple[int, int], ...]:
    found = []
    for text in table.texts("quiet"):
        match = _HOURS.fullmatch(text)
        times = None if match is None else (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4]))
        if times is None or max(times) > 24 * 60:
            table.fault("quiet", 'expected local times such as ["22:00-06:00"]')
            return ()
        found.append(times)
    return tuple(found)


def is_quiet(quiet: tuple[tuple[int, int], ...], minute: int) -> bool:
    """`minute`: since local midnight. A time that ends before it begins goes over midnight.

    >>> is_quiet(((1320, 360),), 1400), is_quiet(((1320, 360),), 720)
    (True, False)
    """
    return any(begin <= minute < end if begin <= end else minute >= begin or minute < end for begin, end in quiet)


def read_pictures(table: Table, size: int) -> PicturesConfig:
    """`size`: max_size in bytes, read by the caller."""
    default = PicturesConfig()
    config = PicturesConfig(
        max_bytes=size,
        max_count=table.integer("max_count", default.max_count, 0, 10_000),
        max_age_s=table.number("max_age_days", default.max_age_s / DAY_S, 0.01, 3_650) * DAY_S,
        thumbnail_s=table.number("thumbnail_s", default.thumbnail_s, 0, DAY_S),
        blur=table.flag("blur", default.blur),
    )
    table.finish()
    return config
