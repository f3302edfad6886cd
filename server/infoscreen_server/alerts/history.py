"""What fires now, what fired, and the messages about it: for the pages and the API. Only reads."""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select, tuple_

from infoscreen_server.alerts.silences import Place, is_muted
from infoscreen_server.alerts.tables import silence_of
from infoscreen_server.alerts.texts import detail
from infoscreen_server.db import portions
from infoscreen_server.models import Client
from infoscreen_server.models_alerts import (
    Alert,
    AlertAttempt,
    AlertMark,
    AlertMessage,
    AlertRule,
    AlertSilence,
    MessageStatus,
    RuleKind,
)
from infoscreen_server.queries import Cursor, label_of, tags_of

MOST_MESSAGES = 50
LATELY = timedelta(days=7)
_FIRES = (Alert.closed_at.is_(None), Alert.ended_at.is_(None))
_MESSAGE = (
    AlertMessage.id,
    AlertMessage.alert_id,
    AlertMessage.number,
    AlertMessage.kind,
    AlertMessage.channel_name,
    AlertMessage.title,
    AlertMessage.created_at,
    AlertMessage.status,
    AlertMessage.due_at,
    AlertMessage.attempts,
    AlertMessage.finished_at,
    AlertMessage.error,
)


@dataclass(frozen=True, slots=True)
class Told:
    """One alert, as people see it."""

    id: int
    rule_id: int
    rule: str
    kind: RuleKind
    flapping: bool
    client_uuid: str | None
    client: str | None
    """Its name; None for the whole fleet."""
    is_there: bool
    """The client was not removed since."""
    site: str | None
    began_at: datetime
    fired_at: datetime
    ended_at: datetime | None
    announced_at: datetime | None
    closed_at: datetime | None
    detail: str
    silenced: bool
    """It still fires, and a silence covers it."""
    numbers: frozenset[int]
    """Alerts whose number its messages bear."""

    @property
    def fires(self) -> bool:
        return self.ended_at is None and self.closed_at is None


class Page(NamedTuple):
    alerts: list[Told]
    following: Cursor | None


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    number: str
    """As its title bears it: 12-1."""
    alert_id: int
    kind: str
    channel: str
    title: str
    created_at: datetime
    status: MessageStatus
    due_at: datetime | None
    finished_at: datetime | None
    error: str | None
    attempts: list[Row[Any]] = field(default_factory=list)
    """`number`, `at`, `ended_at`, `error` of each."""

    @property
    def why(self) -> str | None:
        """What went wrong, the last time that something did."""
        return self.error or next((each.error for each in reversed(self.attempts) if each.error), None)


def current(connection: Connection, now: datetime) -> list[Told]:
    """What fires now, the oldest first."""
    statement = _alerts().where(*_FIRES).order_by(Alert.fired_at, Alert.id)
    return _told(connection, connection.execute(statement).all(), now)


def page(
    connection: Connection,
    now: datetime,
    *,
    limit: int,
    before: Cursor | None = None,
    client_uuid: str | None = None,
    firing: bool = False,
) -> Page:
    """Newest first; of one client, and only what fires now, if asked for."""
    statement = _alerts()
    if client_uuid is not None:
        statement = statement.where(Alert.client_uuid == client_uuid)
    if firing:
        statement = statement.where(*_FIRES)
    if before is not None:
        statement = statement.where(tuple_(Alert.fired_at, Alert.id) < before.bound)
    statement = statement.order_by(Alert.fired_at.desc(), Alert.id.desc()).limit(limit + 1)
    rows = connection.execute(statement).all()
    found = _told(connection, rows[:limit], now)
    return Page(found, Cursor(found[-1].fired_at, found[-1].id) if len(rows) > limit else None)


def _alerts() -> Select[Any]:
    statement: Select[Any] = select(*Alert.__table__.columns, Client.name, Client.hostname, Client.uuid)
    return statement.outerjoin(Client, Client.uuid == Alert.client_uuid)


def _told(connection: Connection, rows: Collection[Row[Any]], now: datetime) -> list[Told]:
    windows = {row.id: row.window for row in connection.execute(select(AlertRule.id, AlertRule.window))}
    firing = {row.id for row in rows if row.ended_at is None and row.closed_at is None}
    silences = (
        [silence_of(row) for row in connection.execute(select(*AlertSilence.__table__.columns))] if firing else []
    )
    active = [each for each in silences if each.is_active(now)]
    tags = tags_of(connection, {row.client_uuid for row in rows if row.client_uuid}) if active else {}
    return [
        Told(
            id=row.id,
            rule_id=row.rule_id,
            rule=row.rule_name,
            kind=row.kind,
            flapping=row.flapping,
            client_uuid=row.client_uuid,
            client=row.client_uuid and label_of(row.name, row.hostname, row.client_uuid),
            is_there=row.uuid is not None,
            site=row.site,
            began_at=row.began_at,
            fired_at=row.fired_at,
            ended_at=row.ended_at,
            announced_at=row.announced_at,
            closed_at=row.closed_at,
            detail=detail(row.kind, json.loads(row.detail), windows.get(row.rule_id)),
            silenced=row.id in firing
            and is_muted(active, Place(row.client_uuid, row.site, frozenset(tags.get(row.client_uuid, ()))), now),
            numbers=frozenset(filter(None, (row.announced_by, row.closed_by))),
        )
        for row in rows
    ]


# --- messages ---------------------------------------------------------------------------------------------------------


def messages_of(connection: Connection, numbers: Collection[int]) -> dict[int, list[Message]]:
    """By the alert whose number they bear, the oldest first."""
    found: dict[int, list[Message]] = defaultdict(list)
    for some in portions(sorted(numbers)):
        statement = select(*_MESSAGE).where(AlertMessage.alert_id.in_(some)).order_by(AlertMessage.id)
        for message in _messages(connection, connection.execute(statement).all()):
            found[message.alert_id].append(message)
    return found


def failed_messages(connection: Connection, now: datetime) -> list[Message]:
    """Given up in the last LATELY, the newest first."""
    statement = (
        select(*_MESSAGE)
        .where(AlertMessage.created_at > now - LATELY, AlertMessage.status == MessageStatus.FAILED)
        .order_by(AlertMessage.created_at.desc(), AlertMessage.id.desc())
        .limit(MOST_MESSAGES)
    )
    return _messages(connection, connection.execute(statement).all())


def late_messages(connection: Connection) -> list[Message]:
    """Tried in vain so far, and to be tried again; the oldest first."""
    statement = (
        select(*_MESSAGE)
        .where(AlertMessage.due_at.is_not(None), AlertMessage.status == MessageStatus.PENDING)
        .where(AlertMessage.attempts > 0)
        .order_by(AlertMessage.id)
        .limit(MOST_MESSAGES)
    )
    return _messages(connection, connection.execute(statement).all())


def _messages(connection: Connection, rows: Collection[Row[Any]]) -> list[Message]:
    tried: dict[int, list[Row[Any]]] = defaultdict(list)
    for some in portions([row.id for row in rows]):
        columns = AlertAttempt.__table__.columns
        statement = select(*columns).where(AlertAttempt.message_id.in_(some)).order_by(AlertAttempt.number)
        for attempt in connection.execute(statement):
            tried[attempt.message_id].append(attempt)
    return [
        Message(
            row.id,
            f"{row.alert_id}-{row.number}",
            row.alert_id,
            str(row.kind),
            row.channel_name,
            row.title,
            row.created_at,
            row.status,
            row.due_at,
            row.finished_at,
            row.error,
            tried[row.id],
        )
        for row in rows
    ]


def looked_at(connection: Connection) -> datetime | None:
    """When the rules were looked at last."""
    return connection.scalar(select(AlertMark.evaluated_at))
