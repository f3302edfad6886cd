"""What a kiosk says of its machine, shaped for its page: the newest figure and the line of a day. Pure.

A kiosk may say anything: what is no number is not shown.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.pages import charts, words

SPAN = timedelta(hours=24)
GAP = timedelta(minutes=20)
"""Without a sample for so long the line is broken: samples come every five minutes."""
_LARGEST = 1e18


class Fact(NamedTuple):
    title: str
    value: str
    """The newest, in words."""
    line: charts.Line | None
    low: str
    """Of the day, as is `high`."""
    high: str


def figure(value: object) -> float | None:
    """A number out of what a kiosk sent.

    >>> figure(51.5), figure(True), figure("51"), figure(1e300)
    (51.5, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < _LARGEST else None


def _degrees(value: float) -> str:
    return gettext("%(n)s °C", n=words.decimal(value, 1))


def _load(value: float) -> str:
    return words.decimal(value, 2)


def _records(value: float) -> str:
    return words.count(round(value))


_KINDS: tuple[tuple[str, str, Callable[[float], str], float], ...] = (
    ("cpu_temperature", lazy("Processor temperature"), _degrees, 30.0),
    ("load", lazy("Load"), _load, 0.0),
    ("memory_available", lazy("Free memory"), words.size, 0.0),
    ("disk_free", lazy("Free disk"), words.size, 0.0),
    ("outbox_pending", lazy("Waiting records"), _records, 0.0),
)
"""Name of the sample, title, how it is worded, and where its scale begins at the latest."""


def facts(client: dict[str, Any], samples: Sequence[dict[str, Any]], now: datetime) -> list[Fact]:
    """Those of which anything is known, the newest or a line."""
    newest = current(client)
    found = []
    for name, title, worded, floor in _KINDS:
        points = [(sample["at"], figure(sample[name])) for sample in samples]
        line = charts.line(points, now - SPAN, now, GAP, floor)
        value = newest[name]
        if value is None and line is None:
            continue
        shown = "–" if value is None else worded(value)
        if name == "memory_available" and value is not None and newest["memory_total"]:
            shown = gettext("%(free)s of %(total)s", free=shown, total=words.size(newest["memory_total"]))
        low, high = ("", "") if line is None else (worded(line.low), worded(line.high))
        found.append(Fact(gettext(title), shown, line, low, high))
    return found


def current(client: dict[str, Any]) -> dict[str, float | None]:
    """The newest figures that a client told."""
    system = client["system"]
    load = system.get("load")
    newest = {name: figure(system.get(name)) for name in ("cpu_temperature", "memory_available", "disk_free")}
    return newest | {
        "memory_total": figure(system.get("memory_total")),
        "load": figure(load[0] if isinstance(load, list) and load else load),
        "outbox_pending": figure(client["outbox_pending"]),
        "uptime_s": figure(system.get("uptime_s")),
    }
