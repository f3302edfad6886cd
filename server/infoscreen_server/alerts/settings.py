"""What superadmins set: the rules, and the channels they go to. Checked here, whoever sends it, and written.

A channel's URL goes in and comes out only for the process that sends: people see its service and host. Silences and
opening hours are in quiet.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from infoscreen_server.alerts import channels, outbox
from infoscreen_server.alerts.channels import ChannelError
from infoscreen_server.db import writing
from infoscreen_server.i18n import lazy
from infoscreen_server.models_alerts import AlertChannel, AlertMessage, AlertRule, AlertRuleChannel, RuleKind
from infoscreen_server.wording import FieldError
from infoscreen_shared.messages import clean

MAX_NAME, MAX_TAG, MAX_NOTE = 100, 50, 200
MOST_RULES, MOST_CHANNELS = 50, 50
MINUTE, HOUR, DAY = 60, 3600, 86_400
MAX_THRESHOLD = 100_000
COUNTED = frozenset({RuleKind.ERRORS, RuleKind.CRASH_LOOP})
"""Fire over one threshold and end at another, within a window."""
WINDOWED = COUNTED | {RuleKind.BUFFER}


def line(field: str, text: str, longest: int, *, needed: bool = True) -> str:
    """Raises FieldError for what is longer, empty, or holds what nobody sees."""
    plain = " ".join(clean(text).split())
    if len(plain) > longest or (needed and not plain) or not plain.isprintable():
        least = 1 if needed else 0
        raise FieldError(
            field, lazy("expected %(least)s to %(most)s letters, digits and signs"), least=least, most=longest
        )
    return plain


def between(field: str, number: int, least: int, most: int, unit: int = 1) -> None:
    """Raises FieldError for what is not `least` to `most` times `unit`."""
    if not least * unit <= number <= most * unit:
        raise FieldError(field, lazy("expected %(least)s to %(most)s"), least=least, most=most)


# --- rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """What may be changed of one; its kind stays. Times in seconds. What its kind does not know is left as it is."""

    name: str
    enabled: bool = True
    tag: str = ""
    threshold: int = 0
    clear_threshold: int = 0
    window: int = 900
    hold: int = 0
    keep: int = 0
    repeat: int = 12 * HOUR
    in_hours: bool = True
    channels: frozenset[int] = frozenset()
    """Empty: all of them."""


USUAL = {
    RuleKind.OFFLINE: Rule("", hold=600, keep=60),
    RuleKind.SCREEN: Rule("", hold=300, keep=60),
    RuleKind.ERRORS: Rule("", threshold=10, clear_threshold=2),
    RuleKind.CRASH_LOOP: Rule("", threshold=3),
    RuleKind.BUFFER: Rule(""),
    RuleKind.OUTAGE: Rule("", threshold=30, hold=60, keep=60),
}
"""What a new one begins with."""


def rules(connection: Connection) -> list[dict[str, Any]]:
    """In the order in which they were made, with the ids of their `channels`."""
    chosen: dict[int, list[int]] = {}
    for rule_id, channel_id in connection.execute(select(AlertRuleChannel.rule_id, AlertRuleChannel.channel_id)):
        chosen.setdefault(rule_id, []).append(channel_id)
    rows = connection.execute(select(*AlertRule.__table__.columns).order_by(AlertRule.id))
    return [{**row._mapping, "channels": sorted(chosen.get(row.id, []))} for row in rows]


def add_rule(engine: Engine, kind: RuleKind, name: str, now: datetime) -> int:
    """With the usual values of its kind, and not enabled: first someone looks at them. Raises FieldError."""
    values = {"kind": kind, "created_at": now, **_values(kind, replace(USUAL[kind], name=name, enabled=False))}
    with writing(engine) as connection:
        kinds = list(connection.scalars(select(AlertRule.kind)))
        if len(kinds) >= MOST_RULES:
            raise FieldError("name", lazy("there are %(most)s already"), most=MOST_RULES)
        if kind is RuleKind.OUTAGE and kind in kinds:
            raise FieldError("kind", lazy("there is one about the whole fleet already"))
        made: int = connection.execute(insert(AlertRule).values(values).returning(AlertRule.id)).scalar_one()
    return made


def change_rule(engine: Engine, number: int, rule: Rule) -> None:
    """Raises FieldError."""
    try:
        with writing(engine) as connection:
            values = _checked(_kind(connection, number), rule)
            connection.execute(update(AlertRule).where(AlertRule.id == number).values(values))
            connection.execute(delete(AlertRuleChannel).where(AlertRuleChannel.rule_id == number))
            rows = [{"rule_id": number, "channel_id": each} for each in sorted(rule.channels)]
            if rows:
                connection.execute(insert(AlertRuleChannel), rows)
    except IntegrityError:
        raise FieldError("channels", lazy("one of these channels is gone")) from None


def delete_rule(engine: Engine, number: int) -> str:
    """Its name. What fired by it stays in the history. Raises FieldError."""
    with writing(engine) as connection:
        name = connection.scalar(delete(AlertRule).where(AlertRule.id == number).returning(AlertRule.name))
    if name is None:
        raise _no_rule()
    return name


def _kind(connection: Connection, number: int) -> RuleKind:
    found = connection.scalar(select(AlertRule.kind).where(AlertRule.id == number))
    if found is None:
        raise _no_rule()
    return RuleKind(found)


def _no_rule() -> FieldError:
    return FieldError("rule", lazy("there is no such rule"))


def _checked(kind: RuleKind, rule: Rule) -> dict[str, Any]:
    values = _values(kind, rule)
    if kind in COUNTED:
        between("threshold", rule.threshold, 0, MAX_THRESHOLD)
        between("clear_threshold", rule.clear_threshold, 0, rule.threshold)
    elif kind is RuleKind.OUTAGE:
        between("threshold", rule.threshold, 1, 99)
    # Only what came within a day is counted at all.
    between("window", rule.window, 1, DAY // MINUTE, MINUTE)
    between("hold", rule.hold, 0, 7 * DAY // MINUTE, MINUTE)
    between("keep", rule.keep, 0, DAY // MINUTE, MINUTE)
    between("repeat", rule.repeat, 0, 30 * DAY // HOUR, HOUR)
    return values


def _values(kind: RuleKind, rule: Rule) -> dict[str, Any]:
    name, tag = line("name", rule.name, MAX_NAME), line("tag", rule.tag, MAX_TAG, needed=False)
    values: dict[str, Any] = {
        "name": name,
        "enabled": rule.enabled,
        "hold": rule.hold,
        "keep": rule.keep,
        "repeat": rule.repeat,
        "in_hours": rule.in_hours,
    }
    if kind is not RuleKind.OUTAGE:
        values["tag"] = tag or None
    if kind in COUNTED or kind is RuleKind.OUTAGE:
        values["threshold"] = rule.threshold
    if kind in COUNTED:
        values["clear_threshold"] = rule.clear_threshold
    if kind in WINDOWED:
        values["window"] = rule.window
    return values


# --- channels ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Channel:
    """What people see of one."""

    id: int
    name: str
    shown: str
    """Service and host of its URL."""
    created_at: datetime
    sent_at: datetime | None
    """When a message last arrived."""
    failed_at: datetime | None
    """When one was last given up."""


def channel_names(connection: Connection) -> list[Row[tuple[int, str]]]:
    """`id` and `name`, by name."""
    statement = select(AlertChannel.id, AlertChannel.name).order_by(func.lower(AlertChannel.name))
    return list(connection.execute(statement))


def channel_list(connection: Connection) -> list[Channel]:
    """By name."""
    done: dict[tuple[int, str], datetime] = {
        (row.channel_id, str(row.status)): row.at for row in _last_done(connection)
    }
    rows = connection.execute(select(*AlertChannel.__table__.columns).order_by(func.lower(AlertChannel.name)))
    return [
        Channel(
            row.id,
            row.name,
            channels.shown(row.url),
            row.created_at,
            done.get((row.id, "sent")),
            done.get((row.id, "failed")),
        )
        for row in rows
    ]


def _last_done(connection: Connection) -> Collection[Row[Any]]:
    last = (
        select(func.max(AlertMessage.id))
        .where(AlertMessage.finished_at.is_not(None), AlertMessage.channel_id.is_not(None))
        .group_by(AlertMessage.channel_id, AlertMessage.status)
    )
    columns = (AlertMessage.channel_id, AlertMessage.status, AlertMessage.finished_at.label("at"))
    return connection.execute(select(*columns).where(AlertMessage.id.in_(last))).all()


def add_channel(engine: Engine, name: str, url: str, now: datetime, *, allow_local: bool) -> None:
    """Asks the name server whether it may be sent to. Raises FieldError."""
    plain, address = line("name", name, MAX_NAME), _checked_url(url, allow_local)
    try:
        with writing(engine) as connection:
            if connection.scalar(select(func.count()).select_from(AlertChannel)) >= MOST_CHANNELS:  # type: ignore[operator]
                raise FieldError("name", lazy("there are %(most)s already"), most=MOST_CHANNELS)
            connection.execute(insert(AlertChannel).values(name=plain, url=address, created_at=now))
    except IntegrityError:
        raise FieldError("name", lazy("there is a channel of this name already")) from None


def change_url(engine: Engine, number: int, url: str, now: datetime, *, allow_local: bool) -> str:
    """Its name. It stays the channel that it is: rules still send to it, and what waits for it is due at once.

    Asks the name server whether it may be sent to. Raises FieldError.
    """
    address = _checked_url(url, allow_local)
    with writing(engine) as connection:
        changed = update(AlertChannel).where(AlertChannel.id == number).values(url=address, url_changed_at=now)
        name = connection.scalar(changed.returning(AlertChannel.name))
        if name is None:
            raise _no_channel()
        outbox.hurry(connection, number, now)
    return name


def _checked_url(url: str, allow_local: bool) -> str:
    address = url.strip()
    try:
        channels.check_url(address, allow_local)
    except ChannelError as error:
        raise FieldError("url", error.text, **error.values) from None
    return address


def channel_named(connection: Connection, name: str) -> int:
    """Its number. Raises FieldError."""
    number = connection.scalar(select(AlertChannel.id).where(AlertChannel.name == name))
    if number is None:
        raise _no_channel()
    return number


def channel_to_test(connection: Connection, number: int) -> tuple[str, str]:
    """Name and URL, for the sending process only. Raises FieldError."""
    row = connection.execute(select(AlertChannel.name, AlertChannel.url).where(AlertChannel.id == number)).first()
    if row is None:
        raise _no_channel()
    return row.name, row.url


def delete_channel(engine: Engine, number: int) -> str:
    """Its name. What was still to be sent to it is given up by the sender. Raises FieldError."""
    with writing(engine) as connection:
        name = connection.scalar(delete(AlertChannel).where(AlertChannel.id == number).returning(AlertChannel.name))
    if name is None:
        raise _no_channel()
    return name


def _no_channel() -> FieldError:
    return FieldError("channel", lazy("there is no such channel"))
