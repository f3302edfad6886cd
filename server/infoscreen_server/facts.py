"""What the kiosks said of their machines, a sample every five minutes for a week. Reads only."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from infoscreen_server.models_history import FactSample

EVERY = timedelta(minutes=5)
KEPT = timedelta(days=7)

_COLUMNS = tuple(column for column in FactSample.__table__.columns if column.name != "client_uuid")


def samples(connection: Connection, uuid: str, since: datetime) -> list[dict[str, Any]]:
    """Oldest first. Keys: at, cpu_temperature (Celsius), load, memory_available, memory_total, disk_free (bytes),
    outbox_pending (records); what a kiosk did not tell is None."""
    statement = select(*_COLUMNS).where(FactSample.client_uuid == uuid, FactSample.at >= since).order_by(FactSample.at)
    return [dict(row._mapping) for row in connection.execute(statement)]
