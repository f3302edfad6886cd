"""The tables of alerts: rules, channels, what fires, messages to deliver. See models for the rest."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from infoscreen_server.models import Base, BigId, Uuid, _enum


class RuleKind(StrEnum):
    OFFLINE = "offline"
    SCREEN = "screen"
    """Black or frozen."""
    ERRORS = "errors"
    CRASH_LOOP = "crash_loop"
    BUFFER = "buffer"
    """Records were dropped on the kiosk."""
    OUTAGE = "outage"
    """Many clients at once: the server, its broker or the network."""


class MessageKind(StrEnum):
    FIRING = "firing"
    REMINDER = "reminder"
    RECOVERED = "recovered"
    FLAPPING = "flapping"
    STEADY = "steady"
    """No longer flapping."""


class MessageStatus(StrEnum):
    PENDING = "pending"
    SENDING = "sending"
    """Under a lease, until `due_at`."""
    SENT = "sent"
    FAILED = "failed"


class AlertRule(Base):
    """Seconds in all that is named so."""

    __tablename__ = "alert_rules"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[RuleKind] = mapped_column(_enum(RuleKind, "kind"))
    enabled: Mapped[bool] = mapped_column(default=True)
    tag: Mapped[str | None] = mapped_column(String(50))
    """Only clients with this tag; None: all."""
    threshold: Mapped[int | None]
    """More than so many; of an outage, percent of the clients."""
    clear_threshold: Mapped[int | None]
    """Over when there are no more than so many."""
    window: Mapped[int | None]
    """In which they are counted."""
    hold: Mapped[int]
    """For how long it has to hold within opening hours before it fires."""
    keep: Mapped[int]
    """For how long it has to be over before that is told."""
    repeat: Mapped[int]
    """After how long to remind; 0: never."""
    in_hours: Mapped[bool] = mapped_column(default=True)
    """Whether opening hours matter."""
    created_at: Mapped[datetime]


class AlertChannel(Base):
    __tablename__ = "alert_channels"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    url: Mapped[str]
    """For Apprise. Holds secrets: it is given to the process that sends and to nobody else."""
    created_at: Mapped[datetime]
    url_changed_at: Mapped[datetime | None]


class AlertRuleChannel(Base):
    """To which channels a rule's messages go; one with none goes to all."""

    __tablename__ = "alert_rule_channels"

    rule_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("alert_rules.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    channel_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("alert_channels.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )


class AlertState(Base):
    """Of a rule and a client; see alerts.machine. No row: ok, and nothing to remember."""

    __tablename__ = "alert_states"

    rule_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("alert_rules.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    client_uuid: Mapped[str] = mapped_column(Uuid, primary_key=True)
    """Empty for the rule about the whole fleet."""
    phase: Mapped[str] = mapped_column(String(16))
    since: Mapped[datetime | None]
    changes: Mapped[str]
    """A JSON list of times."""


class Alert(Base):
    """From firing to its end: one rule, one client. What is said of it follows from what was said already."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(None, "closed_at"),
        Index(None, "fired_at", "id"),
        Index(None, "client_uuid", "fired_at"),
        # Messages know it by its id for ever.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    rule_id: Mapped[int]
    """No foreign key: what fired stays when its rule goes."""
    rule_name: Mapped[str] = mapped_column(String(100))
    kind: Mapped[RuleKind] = mapped_column(_enum(RuleKind, "kind"))
    flapping: Mapped[bool] = mapped_column(default=False)
    """Stands for the too many alerts of its rule and client, until they are steady."""
    client_uuid: Mapped[str | None] = mapped_column(Uuid)
    """None: the whole fleet."""
    site: Mapped[str | None] = mapped_column(String(100))
    """As it was when it fired: it stays in its group."""
    began_at: Mapped[datetime]
    """Since when the condition held."""
    fired_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    detail: Mapped[str]
    """A JSON object: the figures behind it."""
    notices: Mapped[int] = mapped_column(default=0)
    """How many messages bear its number."""
    announced_at: Mapped[datetime | None]
    announced_by: Mapped[int | None]
    """The alert whose number the message bears; the first of its group."""
    last_notice_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    """Settled: nothing more will be said of it."""
    closed_by: Mapped[int | None]
    """As `announced_by`; None where its end was not told of."""


class AlertSilence(Base):
    __tablename__ = "alert_silences"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    scope: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(100))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    """None: until someone ends it."""
    week: Mapped[str | None]
    """Of a recurring one: a JSON list of seven days, Monday first, of [begin, end] in minutes."""
    zone: Mapped[str | None] = mapped_column(String(64))
    note: Mapped[str] = mapped_column(String(200))
    by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]


class OpeningHours(Base):
    """Per tag; the row with the empty tag is for clients whose tags have none. Without a row: always open."""

    __tablename__ = "opening_hours"

    tag: Mapped[str] = mapped_column(String(50), primary_key=True)
    zone: Mapped[str] = mapped_column(String(64))
    week: Mapped[str]
    """As of a silence."""
    closed: Mapped[str]
    """A JSON list of dates."""


class AlertMessage(Base):
    """One message to one channel: pending -> sending (lease) -> sent or failed. Made with what it tells of."""

    __tablename__ = "alert_messages"
    __table_args__ = (
        UniqueConstraint("alert_id", "number", "channel_id"),
        Index(None, "due_at"),
        Index(None, "created_at", "id"),
        CheckConstraint("(due_at IS NULL) = (status = 'sent' OR status = 'failed')", name="due_until_done"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    alert_id: Mapped[int]
    number: Mapped[int]
    """With alert_id what the title bears, [#1234-2]: the same in all channels, and however often it is tried."""
    kind: Mapped[MessageKind] = mapped_column(_enum(MessageKind, "kind"))
    channel_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("alert_channels.id", ondelete="SET NULL"))
    channel_name: Mapped[str] = mapped_column(String(100))
    topic: Mapped[str] = mapped_column(String(200))
    """Messages of one topic reach a channel in their order."""
    title: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime]
    status: Mapped[MessageStatus] = mapped_column(_enum(MessageStatus, "status"))
    due_at: Mapped[datetime | None]
    """When to try, or to take it back from one that does not finish; None when it is done with."""
    worker: Mapped[str | None] = mapped_column(String(36))
    attempts: Mapped[int] = mapped_column(default=0)
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None]


class AlertAttempt(Base):
    __tablename__ = "alert_attempts"

    message_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("alert_messages.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    """None: under way, or cut off; then nobody knows whether it arrived."""
    error: Mapped[str | None]
    """None when it ended: it was sent."""


class AlertMark(Base):
    """One row: how far evaluation is. Whoever moves `round` on did that round."""

    __tablename__ = "alert_mark"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    round: Mapped[int]
    evaluated_at: Mapped[datetime | None]
    deaf_until: Mapped[datetime | None]
    """The server was not there to hear anything before; a silence until then proves nothing."""
    away_since: Mapped[datetime | None]
    """Of that time: what it had heard until then it did hear."""
