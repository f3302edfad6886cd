"""The tables of what was: states, incidents, issues, facts. Written at ingest and by housekeeping.

All of them are small beside the log: they grow with what happens to kiosks, not with what these say.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from infoscreen_server.models import Base, BigId, _enum
from infoscreen_shared.messages import MAX_CODE_CHARS, LogLevel

MESSAGE_CHARS = 300
"""How much of a record's message is kept beside the log."""


class SpanKind(StrEnum):
    LINK = "link"
    """online or offline."""
    PROCESS = "process"
    SCREEN = "screen"


class IncidentKind(StrEnum):
    PLAYER = "player"
    SCREEN = "screen"
    LINK = "link"


_OPEN = text("ended_at IS NULL")


def _one_open(name: str) -> Index:
    """A client has one state of a kind, and one incident of a kind, at a time."""
    return Index(name, "client_uuid", "kind", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN)


class StateSpan(Base):
    """From when to when a client was in a state: what it told, or whether it was heard of. They never overlap."""

    __tablename__ = "state_spans"
    __table_args__ = (
        _one_open("ix_state_spans_open"),
        Index(None, "client_uuid", "ended_at"),
        # An id is never given twice: the live view goes by the highest that it saw.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"))
    kind: Mapped[SpanKind] = mapped_column(_enum(SpanKind, "kind"))
    state: Mapped[str] = mapped_column(String(16))
    """online or offline, a ProcessStatus, a ScreenHealthStatus, or unknown where a client does not tell."""
    began_at: Mapped[datetime]
    """Device time, clamped; of the link the server's."""
    ended_at: Mapped[datetime | None]
    """None while it lasts."""


class IncidentEvent(Base):
    """What opens, changes or ends an incident: a narrow copy of the record that said so, or a state that was told."""

    __tablename__ = "incident_events"
    __table_args__ = (Index(None, "client_uuid", "at"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"))
    at: Mapped[datetime]
    """When it happened, by the device's clock, clamped: a record may have been made a moment later."""
    code: Mapped[str] = mapped_column(String(MAX_CODE_CHARS))
    level: Mapped[LogLevel] = mapped_column(_enum(LogLevel, "level"))
    message: Mapped[str]
    detail: Mapped[str | None]
    """Parts of the record's context, a JSON object as text."""


class Incident(Base):
    """A time in which a player or a screen was not as it should be, or a client was not heard of."""

    __tablename__ = "incidents"
    __table_args__ = (
        _one_open("ix_incidents_open"),
        Index(None, "client_uuid", "began_at", "id"),
        # Holds all that reliability reads, in the order of its groups.
        Index(None, "client_uuid", "kind", "began_at", "ended_at"),
        Index(None, "began_at", "id"),
        Index(None, "ended_at"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"))
    kind: Mapped[IncidentKind] = mapped_column(_enum(IncidentKind, "kind"))
    began_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    """None while it lasts."""
    code: Mapped[str] = mapped_column(String(MAX_CODE_CHARS))
    """Of the event that opened it, as is `message`."""
    message: Mapped[str]
    restarts: Mapped[int]
    last_event_at: Mapped[datetime]


class IncidentBacklog(Base):
    """Clients whose events from `since` on housekeeping has yet to make into incidents: too many for one ingest."""

    __tablename__ = "incident_backlog"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"), primary_key=True)
    since: Mapped[datetime]


class IssueCount(Base):
    """Per client, level and code, the ERROR and WARN rows of the log after counter_mark.counted_out_to. Exact."""

    __tablename__ = "issue_counts"
    __table_args__ = (Index(None, "level", "code"),)

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"), primary_key=True)
    level: Mapped[LogLevel] = mapped_column(_enum(LogLevel, "level"), primary_key=True)
    code: Mapped[str] = mapped_column(String(MAX_CODE_CHARS), primary_key=True)
    """Empty for records without one."""
    n: Mapped[int]
    last_at: Mapped[datetime]
    last_message: Mapped[str]


class RecordDrop(Base):
    """The newest word of each client that records were dropped on it; see happenings.DROPPED."""

    __tablename__ = "record_drops"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"), primary_key=True)
    received_at: Mapped[datetime]
    """Server time. Records are dropped while nobody can be told: the device's time may be days before."""
    message: Mapped[str]


class Acknowledgement(Base):
    """Somebody knows of an issue. It holds until the issue is gone, or shows on a client that did not have it then."""

    __tablename__ = "acknowledgements"

    level: Mapped[LogLevel] = mapped_column(_enum(LogLevel, "level"), primary_key=True)
    code: Mapped[str] = mapped_column(String(MAX_CODE_CHARS), primary_key=True)
    note: Mapped[str]
    given_by: Mapped[str]
    given_at: Mapped[datetime]
    clients: Mapped[str]
    """The uuids that had the issue then, a JSON list as text."""


class FactSample(Base):
    """What a kiosk said of its machine in five minutes that begin at `at`, the first word of them."""

    __tablename__ = "fact_samples"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    cpu_temperature: Mapped[float | None]
    load: Mapped[float | None]
    """Of the last minute."""
    memory_available: Mapped[int | None]
    memory_total: Mapped[int | None]
    disk_free: Mapped[int | None]
    outbox_pending: Mapped[int | None]
