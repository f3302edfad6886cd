"""When no word is sent: silences, which admins make and end, and opening hours. Checked here and written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Connection, Engine, Row, delete, func, insert, or_, select, update

from infoscreen_server import fleet
from infoscreen_server.alerts import week as weeks
from infoscreen_server.alerts.hours import Hours, Span
from infoscreen_server.alerts.settings import MAX_NAME, MAX_NOTE, MAX_TAG, line
from infoscreen_server.alerts.silences import Scope, Silence
from infoscreen_server.alerts.tables import hours_of, silence_of, week_text
from infoscreen_server.db import insert_or, writing
from infoscreen_server.i18n import lazy
from infoscreen_server.models import Client
from infoscreen_server.models_alerts import AlertSilence, OpeningHours
from infoscreen_server.wording import FieldError

MOST_SILENCES = 200
"""That are not over."""
MOST_HOURS = 200


# --- silences ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """A silence to be made."""

    scope: Scope
    target: str
    starts_at: datetime
    ends_at: datetime | None
    weekly: Hours | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """One that is there."""

    id: int
    silence: Silence
    label: str
    """Of its target: a client's name."""
    note: str
    by: str
    created_at: datetime
    active: bool
    """Now; of a recurring one, whether it is its time."""


def silences(connection: Connection, now: datetime) -> list[Kept]:
    """Active and coming ones, the active first, then by their begin."""
    named = func.coalesce(Client.name, Client.hostname, AlertSilence.target).label("label")
    statement = (
        select(*AlertSilence.__table__.columns, named)
        .outerjoin(Client, (AlertSilence.scope == Scope.CLIENT) & (Client.uuid == AlertSilence.target))
        .where(_not_over(now))
    )
    found = [_kept(row, now) for row in connection.execute(statement)]
    return sorted(found, key=lambda each: (not each.active, each.silence.starts_at, each.id))


def _not_over(now: datetime) -> ColumnElement[bool]:
    return or_(AlertSilence.ends_at.is_(None), AlertSilence.ends_at > now)


def _kept(row: Row[Any], now: datetime) -> Kept:
    silence = silence_of(row)
    return Kept(row.id, silence, row.label, row.note, row.by, row.created_at, silence.is_active(now))


def add_silence(engine: Engine, draft: Draft, by: str, now: datetime) -> int:
    """Raises FieldError."""
    note = line("note", draft.note, MAX_NOTE, needed=False)
    target = "" if draft.scope is Scope.ALL else line("target", draft.target, MAX_NAME)
    if draft.ends_at is not None and draft.ends_at <= max(draft.starts_at, now):
        raise FieldError("end", lazy("expected a time behind the begin, and behind now"))
    if draft.weekly is not None and not any(draft.weekly.week):
        raise FieldError("days", lazy("choose at least one day"))
    values = {
        "scope": str(draft.scope),
        "starts_at": draft.starts_at,
        "ends_at": draft.ends_at,
        "week": None if draft.weekly is None else week_text(draft.weekly.week),
        "zone": None if draft.weekly is None else draft.weekly.zone.key,
        "note": note,
        "by": by,
        "created_at": now,
    }
    with writing(engine) as connection:
        if (connection.scalar(select(func.count()).where(_not_over(now))) or 0) >= MOST_SILENCES:
            raise FieldError("scope", lazy("there are %(most)s already; end some first"), most=MOST_SILENCES)
        if draft.scope is Scope.CLIENT:
            target = fleet.meant(connection, target, "target")
        made: int = connection.execute(
            insert(AlertSilence).values(values | {"target": target}).returning(AlertSilence.id)
        ).scalar_one()
    return made


def named(connection: Connection, uuid: str) -> str:
    """What a client can be asked for by: its name or hostname, where no other has it, else its uuid."""
    row = connection.execute(select(Client.name, Client.hostname).where(Client.uuid == uuid)).first()
    return next((each for each in row or () if each and fleet.called(connection, each) == [uuid]), uuid)


def end_silence(engine: Engine, number: int, now: datetime) -> None:
    """Now. One that has not begun goes altogether. Raises FieldError."""
    there = (AlertSilence.id == number) & _not_over(now)
    with writing(engine) as connection:
        if connection.execute(delete(AlertSilence).where(there, AlertSilence.starts_at > now)).rowcount:
            return
        if connection.execute(update(AlertSilence).where(there).values(ends_at=now)).rowcount == 0:
            raise FieldError("silence", lazy("there is no such silence, or it is over"))


# --- weekly tables ----------------------------------------------------------------------------------------------------


def zone(field: str, name: str) -> ZoneInfo:
    """Raises FieldError."""
    try:
        return weeks.zone(name.strip())
    except ValueError:
        raise FieldError(field, lazy("expected a time zone, such as Europe/Vienna")) from None


def table(days: Sequence[str], field: str = "day%d") -> tuple[tuple[Span, ...], ...]:
    """Seven days as people write them; `field` with the day's number, 0 for Monday, is what is wrong.

    Raises FieldError.
    """
    found = []
    for number, text in enumerate(days):
        try:
            found.append(weeks.day(text))
        except ValueError:
            raise FieldError(
                field % number if "%d" in field else field,
                lazy("expected times such as 08:00-12:00, 13:00-18:00 that do not overlap, or nothing"),
            ) from None
    return tuple(found)


# --- opening hours ----------------------------------------------------------------------------------------------------


def opening_hours(connection: Connection) -> dict[str, Hours]:
    """By tag; the empty tag, of all other clients, first."""
    rows = connection.execute(select(*OpeningHours.__table__.columns))
    found = {row.tag: hours_of(row) for row in rows}
    return dict(sorted(found.items(), key=lambda item: item[0].casefold()))


def set_hours(engine: Engine, tag: str, form: Mapping[str, str], *, anew: bool = False) -> None:
    """Of `zone`, `day0` to `day6` and `closed`; in place of what the tag had, or `anew` only. Raises FieldError."""
    plain = line("tag", tag, MAX_TAG, needed=False)
    where, week = zone("zone", form.get("zone", "")), table([form.get(f"day{n}", "") for n in range(7)])
    if not any(week):
        raise FieldError("day0", lazy("there has to be one open day; to be always open, take the hours away"))
    try:
        closed = sorted(weeks.dates(form.get("closed", "")))
    except ValueError:
        raise FieldError(
            "closed",
            lazy("expected dates such as 2026-12-24, or 2026-12-24 – 2027-01-06, at most %(most)s days"),
            most=weeks.MOST_CLOSED,
        ) from None
    values = {
        "zone": where.key,
        "week": week_text(week),
        "closed": json.dumps([each.isoformat() for each in closed]),
    }
    with writing(engine) as connection:
        count = connection.scalar(select(func.count()).select_from(OpeningHours).where(OpeningHours.tag != plain)) or 0
        if count >= MOST_HOURS:
            raise FieldError("tag", lazy("there are %(most)s already"), most=MOST_HOURS)
        if anew and connection.scalar(select(OpeningHours.tag).where(OpeningHours.tag == plain)) is not None:
            raise FieldError("tag", lazy("there are hours for it already; edit those"))
        statement = insert_or(connection, OpeningHours).values(tag=plain, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=[OpeningHours.tag], set_=values))


def delete_hours(engine: Engine, tag: str) -> None:
    """Its clients are always open then, or go by the hours of all others. Raises FieldError."""
    plain = line("tag", tag, MAX_TAG, needed=False)
    with writing(engine) as connection:
        if connection.execute(delete(OpeningHours).where(OpeningHours.tag == plain)).rowcount == 0:
            raise FieldError("tag", lazy("there are no hours for this tag"))


def usual_zone(connection: Connection) -> str:
    """What to offer first: the zone of the hours that are there."""
    found = connection.scalar(select(OpeningHours.zone).order_by(OpeningHours.tag).limit(1))
    return found or "UTC"
