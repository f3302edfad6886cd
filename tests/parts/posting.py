"""Channels, and messages that wait to be sent to them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert

from infoscreen_server.db import writing
from infoscreen_server.models_alerts import AlertChannel, AlertMessage, MessageKind, MessageStatus
from parts.fleet import Fleet


def add_channel(fleet: Fleet, name: str, url: str) -> int:
    with writing(fleet.engine) as connection:
        values = {"name": name, "url": url, "created_at": datetime.now(UTC)}
        added = connection.execute(insert(AlertChannel).values(values).returning(AlertChannel.id)).scalar_one()
    return int(added)


def post(fleet: Fleet, channel: int, titles: Iterable[str], now: datetime, topic: str | None = None) -> None:
    """A message for each title, of one topic or each of its own."""
    (first,) = fleet.rows("SELECT coalesce(max(alert_id), 0) + 1 FROM alert_messages")
    rows = [
        {
            "alert_id": first + position,
            "number": 1,
            "kind": MessageKind.FIRING,
            "channel_id": channel,
            "channel_name": f"channel {channel}",
            "topic": topic or title,
            "title": title,
            "body": f"of {title}",
            "created_at": now,
            "status": MessageStatus.PENDING,
            "due_at": now,
        }
        for position, title in enumerate(titles)
    ]
    with writing(fleet.engine) as connection:
        connection.execute(insert(AlertMessage), rows)


def statuses(fleet: Fleet) -> dict[str, Any]:
    return dict(fleet.rows("SELECT title, status FROM alert_messages ORDER BY id"))


def errors(fleet: Fleet) -> list[str | None]:
    """Of all attempts in their order."""
    return fleet.rows("SELECT error FROM alert_attempts ORDER BY message_id, number")
