"""Pictures of the kiosks' screens in the database: one comes in, few of each kiosk stay, they are listed and shown.

Whether bytes are a picture is for jpeg, who may send or see one for the routes, the age at which they go for
housekeeping. Every upload trims its client's pictures of the same kind, so that no kiosk fills the disk.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, insert, select, tuple_, update

from infoscreen_server import chronicle
from infoscreen_server.db import writing
from infoscreen_server.happenings import Turn
from infoscreen_server.ledger import Settings
from infoscreen_server.models import Client, Screenshot, ScreenshotKind
from infoscreen_server.models_history import SpanKind
from infoscreen_server.persist import lock_clients
from infoscreen_server.queries import Cursor
from infoscreen_server.rows import bounds
from infoscreen_shared.messages import ScreenHealthStatus, timestamp_text

MAX_BYTES = 20_000
CHUNK_ROWS = 200
"""Deleted in one transaction: 4 MB at most."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What a kiosk sends, checked."""

    upload_id: str
    taken_at: datetime
    kind: ScreenshotKind
    status: ScreenHealthStatus
    reason: str | None
    hash: str | None
    width: int
    height: int
    picture: bytes


class Kept(NamedTuple):
    id: int
    new: bool
    """False: it had come before."""


def kept_of(settings: Settings, kind: ScreenshotKind) -> int:
    """How many pictures of this kind stay of each client."""
    if kind is ScreenshotKind.PERIODIC:
        return settings.periodic_screenshots_kept
    return settings.incident_screenshots_kept


def keep(engine: Engine, uuid: str, upload: Upload, received_at: datetime, settings: Settings) -> Kept | None:
    """Commit a picture, once however often it comes; None for a client that is not known and may not register."""
    within = bounds(received_at, timedelta(days=settings.log_retention_days))
    taken_at = within.clamp(upload.taken_at)
    with writing(engine) as connection:
        # Under the client's lock the same upload, come twice at once, is looked at one after the other.
        known = lock_clients(connection, {uuid}, received_at, create=settings.auto_register)
        if not known:
            return None
        if not known[uuid].online:
            chronicle.turn(connection, [Turn(uuid, SpanKind.LINK, "online", received_at)])
        connection.execute(update(Client).where(Client.uuid == uuid).values(last_alive=received_at, online=True))
        same = (Screenshot.client_uuid == uuid) & (Screenshot.upload_id == upload.upload_id)
        kept = connection.execute(select(Screenshot.id).where(same)).scalar()
        if kept is not None:
            return Kept(kept, False)
        values = asdict(upload) | {
            "client_uuid": uuid,
            "taken_at": taken_at,
            "device_taken_at": None if taken_at == upload.taken_at else upload.taken_at,
            "received_at": received_at,
            "size": len(upload.picture),
        }
        number = connection.execute(insert(Screenshot).values(values).returning(Screenshot.id)).scalar_one()
        trim(connection, uuid, upload.kind, kept_of(settings, upload.kind))
    return Kept(number, True)


def trim(connection: Connection, uuid: str, kind: ScreenshotKind, keep_newest: int) -> int:
    """Delete a client's pictures of one kind behind the newest, CHUNK_ROWS at most; returns how many those were."""
    surplus = connection.scalars(
        select(Screenshot.id)
        .where(Screenshot.client_uuid == uuid, Screenshot.kind == kind)
        .order_by(Screenshot.taken_at.desc(), Screenshot.id.desc())
        .limit(CHUNK_ROWS)
        .offset(keep_newest)
    ).all()
    if surplus:
        # Never waits for a row that another is deleting, so that the two cannot wait for each other.
        free = select(Screenshot.id).where(Screenshot.id.in_(surplus)).with_for_update(skip_locked=True)
        connection.execute(delete(Screenshot).where(Screenshot.id.in_(free)))
    return len(surplus)


def overfull(connection: Connection, settings: Settings) -> list[tuple[str, ScreenshotKind]]:
    """Clients with more pictures of a kind than stay: only after the settings were lowered."""
    found: list[tuple[str, ScreenshotKind]] = []
    for kind in ScreenshotKind:
        statement = select(Screenshot.client_uuid).where(Screenshot.kind == kind).group_by(Screenshot.client_uuid)
        more = func.count() > kept_of(settings, kind)
        found += [(uuid, kind) for uuid in connection.scalars(statement.having(more))]
    return found


# --- reading ----------------------------------------------------------------------------------------------------------

_SHOWN = tuple(getattr(Screenshot, name) for name in (
    "id", "taken_at", "device_taken_at", "received_at", "kind", "status", "reason", "hash", "width", "height", "size",
))  # fmt: skip


def page(
    connection: Connection, uuid: str, limit: int, before: Cursor | None, kind: ScreenshotKind | None = None
) -> tuple[list[dict[str, Any]], Cursor | None]:
    """A client's pictures (of one kind) without their bytes, newest first, and where the next page begins."""
    statement = select(*_SHOWN).where(Screenshot.client_uuid == uuid)
    if kind is not None:
        statement = statement.where(Screenshot.kind == kind)
    if before is not None:
        statement = statement.where(tuple_(Screenshot.taken_at, Screenshot.id) < before.bound)
    order = (Screenshot.taken_at.desc(), Screenshot.id.desc())
    rows = connection.execute(statement.order_by(*order).limit(limit + 1)).all()
    shown = [
        {name: timestamp_text(value) if isinstance(value, datetime) else value for name, value in row._mapping.items()}
        for row in rows[:limit]
    ]
    return shown, Cursor(rows[limit - 1].taken_at, rows[limit - 1].id) if len(rows) > limit else None


def picture(connection: Connection, uuid: str, number: int) -> bytes | None:
    statement = select(Screenshot.picture).where(Screenshot.id == number, Screenshot.client_uuid == uuid)
    return connection.execute(statement).scalar()
