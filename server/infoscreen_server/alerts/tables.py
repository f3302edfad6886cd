"""Opening hours and silences as the database keeps them.

A weekly table is JSON of seven days, Monday first, of [begin, end] in minutes of the day.
"""

import json
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Row

from infoscreen_server.alerts.hours import Hours, Span
from infoscreen_server.alerts.silences import Scope, Silence


def week_of(text: str, zone: str | None, closed: str = "[]") -> Hours:
    """
    >>> week_of('[[[480, 1020]], [], [], [], [], [], []]', "Europe/Vienna").week[0]
    (Span(begin=480, end=1020),)
    """
    week = tuple(tuple(Span(begin, end) for begin, end in day) for day in json.loads(text))
    return Hours(ZoneInfo(zone or "UTC"), week, frozenset(date.fromisoformat(each) for each in json.loads(closed)))


def week_text(week: tuple[tuple[Span, ...], ...]) -> str:
    return json.dumps([[[span.begin, span.end] for span in day] for day in week])


def hours_of(row: Row[Any]) -> Hours:
    return week_of(row.week, row.zone, row.closed)


def silence_of(row: Row[Any]) -> Silence:
    weekly = None if row.week is None else week_of(row.week, row.zone)
    return Silence(Scope(row.scope), row.target, row.starts_at, row.ends_at, weekly)
