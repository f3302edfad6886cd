"""Alerts where there is more of everything than there is room for, and where every word would like to be a script."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from infoscreen_server.alerts.outbox import LAST_RETRY
from infoscreen_server.alerts.quiet import MOST_HOURS, MOST_SILENCES
from infoscreen_server.alerts.settings import MOST_CHANNELS, MOST_RULES
from infoscreen_server.alerts.tables import week_text
from infoscreen_server.alerts.week import day
from infoscreen_server.db import make_engine, writing
from infoscreen_server.models import Client
from infoscreen_server.models_alerts import (
    Alert,
    AlertAttempt,
    AlertChannel,
    AlertMark,
    AlertMessage,
    AlertRule,
    AlertRuleChannel,
    AlertSilence,
    AlertState,
    MessageKind,
    MessageStatus,
    OpeningHours,
    RuleKind,
)
from infoscreen_shared.messages import ScreenHealthStatus
from parts.alarms import DAY, HOUR

# --- more than there is room for --------------------------------------------------------------------------------------


def long(word: str, length: int, number: int = 0) -> str:
    """Without a blank."""
    return f"{number:03}{word * length}"[:length]


def fill(database_url: str, now: datetime, count: int = 300) -> None:
    """So many screens fire at once; what people write is as long as may be, and there is as much of it as may be."""
    engine = make_engine(database_url)
    try:
        with writing(engine) as connection:
            _crowd(connection, now, count)
            _crowd_of_exceptions(connection, now)
            connection.execute(update(AlertMark).values(evaluated_at=now, deaf_until=now))
    finally:
        engine.dispose()


def _crowd(connection: Connection, now: datetime, count: int) -> None:
    rule = connection.scalar(select(AlertRule.id).where(AlertRule.kind == RuleKind.SCREEN))
    name = long("Bildschirmausfallüberwachung", 100)
    connection.execute(update(AlertRule).where(AlertRule.id == rule).values(name=name, tag=None, hold=604_800))
    host = ".".join(["x" * 60] * 4)
    for number in range(MOST_CHANNELS):
        url = f"jsons://watchdog:secret@{host}/"
        row = {"name": long("Haustechnikbereitschaft", 100, number), "url": url, "created_at": now}
        connection.execute(insert(AlertChannel).values(row))
    channels = connection.execute(select(AlertChannel.id, AlertChannel.name)).all()
    _crowd_of_rules(connection, now, [each.id for each in channels])
    for number in range(count):
        uuid, site = (
            f"{number:08x}-c0de-4000-8000-000000000000",
            long("Schulzentrum", 100, number % 7) if number % 8 else None,
        )
        client = {"uuid": uuid, "registered_at": now, "online": True, "last_alive": now, "location": site}
        client |= {"name": long("Eingangshalle", 100, number), "screen_health_status": ScreenHealthStatus.UNKNOWN}
        connection.execute(insert(Client).values(client))
        reason = long("kein/bild/", 200) if number % 2 else "The screen is black"
        row = {"rule_id": rule, "rule_name": name, "kind": RuleKind.SCREEN, "client_uuid": uuid, "site": site}
        row |= {
            "began_at": now - HOUR,
            "fired_at": now - HOUR,
            "detail": json.dumps({"status": "BLACK", "reason": reason}),
        }
        told = {"notices": 1, "announced_at": now, "last_notice_at": now, "announced_by": 1}
        connection.execute(insert(Alert).values({**row, **told}))
        state = {"rule_id": rule, "client_uuid": uuid, "phase": "firing", "changes": "[]"}
        connection.execute(insert(AlertState).values(state))
    for number in range(60):
        channel = channels[number % len(channels)]
        row = {"alert_id": 1, "number": number + 1, "kind": MessageKind.FIRING, "topic": "1", "body": ""}
        row |= {"channel_id": channel.id, "channel_name": channel.name, "title": f"ALERT {long('Eingangshalle', 200)}"}
        row |= {"created_at": now - HOUR, "status": MessageStatus.PENDING, "due_at": now + LAST_RETRY, "attempts": 40}
        row |= {"error": f"the name {host} is not known"}
        if number % 2:
            row |= {"status": MessageStatus.FAILED, "due_at": None, "finished_at": now}
        message = connection.execute(insert(AlertMessage).values(row).returning(AlertMessage.id)).scalar_one()
        for attempt in range(1, 41):
            values = {"message_id": message, "number": attempt, "at": now, "ended_at": now, "error": row["error"]}
            connection.execute(insert(AlertAttempt).values(values))


def _crowd_of_rules(connection: Connection, now: datetime, channels: list[int]) -> None:
    """Off, so that they look at nothing."""
    there = connection.scalar(select(func.count()).select_from(AlertRule)) or 0
    for number in range(MOST_RULES - there):
        row = {"name": long("Bildschirmausfallüberwachung", 100, number), "kind": RuleKind.SCREEN, "enabled": False}
        row |= {"tag": long("veranstaltungsraum", 50), "hold": 604_800, "keep": 0, "repeat": 0, "created_at": now}
        rule = connection.execute(insert(AlertRule).values(row).returning(AlertRule.id)).scalar_one()
        connection.execute(insert(AlertRuleChannel), [{"rule_id": rule, "channel_id": each} for each in channels])


def _crowd_of_exceptions(connection: Connection, now: datetime) -> None:
    for number in range(MOST_SILENCES):
        row: dict[str, Any] = {
            "scope": ("tag", "site")[number % 2],
            "target": long("Veranstaltungszentrum", 100, number),
        }
        row |= {"starts_at": now, "ends_at": None, "note": long("Umbauarbeiten", 200), "by": long("hausmeisterin", 64)}
        connection.execute(insert(AlertSilence).values(row | {"created_at": now}))
    spans = ", ".join(f"{hour:02}:00-{hour:02}:45" for hour in range(6, 16))
    closed = json.dumps([(now.date() + number * 2 * DAY).isoformat() for number in range(400)])
    for number in range(MOST_HOURS):
        week = week_text(tuple(day(spans) for _ in range(7)))
        row = {"tag": long("veranstaltungsraum", 50, number), "zone": "America/Argentina/ComodRivadavia"}
        connection.execute(insert(OpeningHours).values(row | {"week": week, "closed": closed}))


# --- what would do something, if it were more than text ---------------------------------------------------------------


HOSTILE = 1000
"""The number of the first of these rules."""


def hostile_tag(number: int, bad: str) -> str:
    return f"{number} {bad}"[:50]


def hostile(connection: Connection, number: int, uuid: str, bad: str, now: datetime) -> None:
    """`bad` wherever people or kiosks put words, as one row of each list or two."""
    rule = HOSTILE + number
    kind = {"id": rule, "name": bad[:100], "kind": RuleKind.SCREEN, "tag": bad[:50] if number % 2 else None}
    times = {"hold": 604_800, "keep": 0, "repeat": 0, "created_at": now}
    connection.execute(insert(AlertRule).values(kind | times))
    name = f"{number} {bad}"[:100]
    channel = connection.execute(
        insert(AlertChannel).values(name=name, url="json://nobody.invalid/", created_at=now).returning(AlertChannel.id)
    ).scalar_one()
    connection.execute(insert(AlertRuleChannel).values(rule_id=rule, channel_id=channel))
    row = {"rule_id": rule, "rule_name": bad[:100], "kind": RuleKind.SCREEN, "client_uuid": uuid, "site": bad[:100]}
    row |= {"began_at": now, "fired_at": now, "detail": json.dumps({"status": bad, "reason": bad})}
    told = {"announced_at": now, "announced_by": rule, "last_notice_at": now}
    for over in (None, now):
        connection.execute(insert(Alert).values({**row, **told, "ended_at": over, "closed_at": over}))
    state = {"rule_id": rule, "client_uuid": uuid, "phase": "firing", "changes": "[]"}
    connection.execute(insert(AlertState).values(state))
    for attempts, done in ((1, {"status": MessageStatus.FAILED}), (2, {"status": MessageStatus.PENDING})):
        pending = done["status"] == MessageStatus.PENDING
        row = {"alert_id": rule, "number": attempts, "kind": MessageKind.FIRING, "channel_id": channel}
        row |= {"channel_name": name, "topic": bad[:200], "title": bad, "body": bad, "created_at": now, "error": bad}
        row |= {
            "due_at": now + LAST_RETRY if pending else None,
            "finished_at": None if pending else now,
            "attempts": attempts,
        }
        message = connection.execute(insert(AlertMessage).values(row | done).returning(AlertMessage.id)).scalar_one()
        for each in range(attempts):
            values = {"message_id": message, "number": each + 1, "at": now, "ended_at": now, "error": bad}
            connection.execute(insert(AlertAttempt).values(values))
    week = week_text(tuple(day("02:00-03:00") for _ in range(7)))
    for scope, target in (("site", bad[:100]), ("tag", bad[:100]), ("client", uuid)):
        silence = {"scope": scope, "target": target, "starts_at": now + HOUR, "note": bad[:200], "by": bad[:200]}
        weekly = {"week": week, "zone": "UTC"} if scope == "tag" else {}
        connection.execute(insert(AlertSilence).values(silence | weekly | {"created_at": now}))
    connection.execute(insert(OpeningHours).values(tag=hostile_tag(number, bad), zone="UTC", week=week, closed="[]"))
