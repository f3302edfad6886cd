"""Which event is due when: the rules of a schedule, and how it is written in JSON. Pure; the time is an argument.

    {"events": [
      {"id": 7, "type": "presentation", "source": "menu.pdf",
       "start": "11:00", "end": "14:30", "weekdays": ["mon", "fri"]},
      {"id": 42, "type": "video", "source": "/srv/films/welcome.mkv"}
    ]}

id         whole number from 0, the event's number at the server
type       "video", "website" or "presentation"
source     a file (relative ones from the schedule's own directory) or a URL
start, end time of day, "HH:MM" or "HH:MM:SS"; from midnight and to midnight where they are left out; an `end` before
           `start` is on the next day
weekdays   the days on which it starts: "mon", "tue", "wed", "thu", "fri", "sat", "sun"; all where left out

Of all events that are due the first in the list plays. Times are those of the clock on the wall: naive datetimes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from infoscreen_device.table import Table, did_you_mean
from infoscreen_shared.messages import MAX_SEQ, EventType

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT = time()
MAX_EVENTS = 10_000


class ScheduleError(Exception):
    """All that is wrong with a schedule, each problem with its place."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Event:
    id: int | None
    type: EventType
    source: str
    start: time = MIDNIGHT
    end: time = MIDNIGHT
    """Not later than `start`: on the next day."""
    weekdays: frozenset[int] = frozenset(range(7))
    """Monday is 0."""


def due(events: tuple[Event, ...], now: datetime) -> Event | None:
    """The event that plays now."""
    return next((event for event in events if _covers(event, now)), None)


def next_change(events: tuple[Event, ...], now: datetime) -> datetime | None:
    """The first moment after `now` at which another event is due; None if that never happens."""
    current = due(events, now)
    # A week and the night after it show every state that there ever is.
    edges = {edge for event in events for span in _spans(event, now.date(), 9) for edge in span}
    later = sorted(edge for edge in edges if edge > now)
    return next((edge for edge in later if due(events, edge) != current), None)


def _covers(event: Event, now: datetime) -> bool:
    return any(begin <= now < end for begin, end in _spans(event, now.date(), 1))


def _spans(event: Event, today: date, days: int) -> Iterator[tuple[datetime, datetime]]:
    """From when to when it plays: those that begin yesterday, today and on the `days` - 1 days that follow."""
    for offset in range(-1, days):
        day = today + timedelta(days=offset)
        if day.weekday() in event.weekdays:
            last_day = day if event.end > event.start else day + timedelta(days=1)
            yield datetime.combine(day, event.start), datetime.combine(last_day, event.end)


# --- JSON -------------------------------------------------------------------------------------------------------------


def parse_schedule(text: str | bytes) -> tuple[Event, ...]:
    """Raises ScheduleError, and nothing else, whatever the text is."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ScheduleError([f"{error.msg} (at line {error.lineno}, column {error.colno})"]) from None
    except RecursionError:
        raise ScheduleError(["nested too deeply"]) from None
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        raise ScheduleError([str(error)]) from None
    if not isinstance(document, dict):
        raise ScheduleError(['expected an object: {"events": [ … ]}'])
    root = Table(document, [])
    items = root.raw("events")
    if not isinstance(items, list) or len(items) > MAX_EVENTS:
        root.fault("events", f"expected a list of at most {MAX_EVENTS} events")
        items = []
    events = tuple(_event(item, f"events[{number}]", root.problems) for number, item in enumerate(items))
    root.finish()
    if root.problems:
        raise ScheduleError(root.problems)
    return events


def _event(item: Any, path: str, problems: list[str]) -> Event:
    if not isinstance(item, dict):
        problems.append(f"{path}: expected an object")
        return Event(None, EventType.VIDEO, "")
    told = len(problems)
    table = Table(item, problems, path)
    event = Event(
        id=table.integer("id", None, 0, MAX_SEQ),
        type=table.choice("type", EventType) or EventType.VIDEO,
        source=table.text("source", ""),
        start=_time(table, "start"),
        end=_time(table, "end"),
        weekdays=_weekdays(table),
    )
    for name in ("id", "type", "source"):
        if table.raw(name) is None:
            table.fault(name, "is missing")
    if event.source.startswith("-"):
        # The player would take it for an option.
        table.fault("source", "must not begin with a dash: write ./-name")
    if event.start == event.end and table.has("start") and table.has("end") and len(problems) == told:
        table.fault("end", "is the same as start: leave both out for the whole day")
    table.finish()
    return event


def _time(table: Table, name: str) -> time:
    text = table.raw(name)
    if text is None or (text == "24:00" and name == "end"):
        return MIDNIGHT
    try:
        if isinstance(text, str) and len(text) in (5, 8):
            parsed = time.fromisoformat(text)
            if parsed.tzinfo is None:
                return parsed
    except ValueError:
        pass
    table.fault(name, 'expected a time of day such as "08:30"')
    return MIDNIGHT


def _weekdays(table: Table) -> frozenset[int]:
    words = table.texts("weekdays", 7)
    unknown = [word for word in words if word not in WEEKDAYS]
    if unknown:
        table.fault("weekdays", f"expected some of {', '.join(WEEKDAYS)}{did_you_mean(unknown[0], WEEKDAYS)}")
    elif table.raw("weekdays") == []:
        table.fault("weekdays", "is empty: leave it out for every day")
    return frozenset(WEEKDAYS.index(word) for word in words if word in WEEKDAYS) or frozenset(range(7))
