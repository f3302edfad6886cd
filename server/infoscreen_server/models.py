"""The tables, typed. What is written to them and why is in store and housekeeping; migrations/ builds them.

Times are aware UTC datetimes: timestamptz on PostgreSQL, on SQLite text of one fixed width that sorts as the times do.
Enums are text under a CHECK. client_logs has no foreign key and no unique index: the lane's cursor row orders and
deduplicates, and either would cost more than the whole rest of an insert.
"""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TIMESTAMP, TypeDecorator, TypeEngine

from infoscreen_shared.messages import (
    MAX_CODE_CHARS,
    MAX_ID_CHARS,
    Clock,
    EventType,
    LogLevel,
    ProcessStatus,
    ScreenHealthStatus,
)

TIME_WIDTH = len("2026-01-02T03:04:05.678901Z")


def time_text(when: datetime) -> str:
    """The form that SQLite keeps. It sorts as the times do, since all parts have a fixed width.

    >>> time_text(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000000Z'
    """
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class UtcTime(TypeDecorator[datetime]):
    """An aware datetime, always UTC on the way out; a naive one is refused on the way in (ValueError)."""

    impl = TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String(TIME_WIDTH) if dialect.name == "sqlite" else TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone was about to be stored")
        return time_text(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
        assert isinstance(when, datetime)
        return when.astimezone(UTC)


class ScreenshotKind(StrEnum):
    INCIDENT = "incident"
    """Taken before the kiosk did something about its screen."""
    PERIODIC = "periodic"


class Role(StrEnum):
    USER = "user"
    ADMIN = "admin"
    SUPERADMIN = "superadmin"


class TokenRole(StrEnum):
    USER = "user"
    ADMIN = "admin"
    SUPERADMIN = "superadmin"
    DEVICE = "device"


class Scope(StrEnum):
    """What a token is good for, within its role."""

    ALL = "all"
    READ = "read"
    """GET only."""
    METRICS = "metrics"
    """/metrics only."""


def _enum(kind: type[StrEnum], name: str, *, checked: bool = True) -> Enum:
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=checked,
        values_callable=lambda members: [str(member) for member in members],
        length=16,
    )


def _one_of(column: str, kind: type[StrEnum]) -> CheckConstraint:
    """The same CHECK spelt with OR: for IN with a list SQLite builds a table anew at every row, 2 us each."""
    return CheckConstraint(" OR ".join(f"{column} = '{member}'" for member in kind), name=column)


BigId = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the column is an INTEGER; it has 64 bits there too."""
Uuid = String(36)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcTime, int: BigInteger, str: Text}  # noqa: RUF012 - SQLAlchemy's own protocol


class Client(Base):
    """One kiosk and the newest state that it told."""

    __tablename__ = "clients"

    uuid: Mapped[str] = mapped_column(Uuid, primary_key=True)
    hostname: Mapped[str | None] = mapped_column(String(255))
    registered_at: Mapped[datetime]
    last_alive: Mapped[datetime | None]
    """Server time of the last message of any kind that came from the kiosk itself."""
    online: Mapped[bool] = mapped_column(default=False)
    version: Mapped[str | None] = mapped_column(String(MAX_ID_CHARS))
    current_event_id: Mapped[int | None]
    current_event_type: Mapped[EventType | None] = mapped_column(_enum(EventType, "current_event_type"))
    current_process: Mapped[str | None] = mapped_column(String(255))
    process_status: Mapped[ProcessStatus | None] = mapped_column(_enum(ProcessStatus, "process_status"))
    process_pid: Mapped[int | None]
    screen_health_status: Mapped[ScreenHealthStatus | None] = mapped_column(
        _enum(ScreenHealthStatus, "screen_health_status")
    )
    screen_reason: Mapped[str | None] = mapped_column(String(255))
    last_screenshot_analyzed: Mapped[datetime | None]
    last_screenshot_hash: Mapped[str | None] = mapped_column(String(255))
    outbox_pending: Mapped[int | None]
    outbox_oldest: Mapped[datetime | None]
    system: Mapped[str | None]
    """System facts of the newest health message, a JSON object as text."""
    state_at: Mapped[datetime | None]
    """Device time, clamped, of the newest state applied; an older one never overwrites it. None after a hello."""
    name: Mapped[str | None] = mapped_column(String(100))
    """Given by people, as `location` and the tags are; the kiosk knows nothing of them."""
    location: Mapped[str | None] = mapped_column(String(100))
    """The site: alerts are gathered by it."""


class ClientTag(Base):
    __tablename__ = "client_tags"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(50), primary_key=True, index=True)


class Removal(Base):
    """A client that is to go for good, see removal. Taken back, the row goes; done, it goes with the client."""

    __tablename__ = "removals"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"), primary_key=True)
    asked_at: Mapped[datetime]
    by: Mapped[str] = mapped_column(String(255))


class ClientLog(Base):
    """One log record."""

    __tablename__ = "client_logs"
    __table_args__ = (
        Index(None, "client_uuid", "timestamp", "id"),
        Index(None, "client_uuid", "level", "timestamp", "id"),
        _one_of("level", LogLevel),
        _one_of("clock", Clock),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str] = mapped_column(Uuid)
    timestamp: Mapped[datetime]
    """Device time, clamped into [received - retention, received + 5 min]."""
    device_timestamp: Mapped[datetime | None]
    """What the device said, where that was clamped."""
    received_at: Mapped[datetime]
    level: Mapped[LogLevel] = mapped_column(_enum(LogLevel, "level", checked=False))
    code: Mapped[str | None] = mapped_column(String(MAX_CODE_CHARS))
    message: Mapped[str]
    context: Mapped[str | None]
    """A JSON object as text; None stands for an empty one."""
    lane_id: Mapped[int | None]
    """None, like `seq`, for a client that does not number its records."""
    seq: Mapped[int | None]
    clock: Mapped[Clock | None] = mapped_column(_enum(Clock, "clock", checked=False))


class Lane(Base):
    """How far one lane is committed: cursor = stored + unwanted + dead + gap, always."""

    __tablename__ = "lanes"
    __table_args__ = (
        UniqueConstraint("client_uuid", "epoch", "level"),
        CheckConstraint("cursor = stored + unwanted + dead + gap", name="accounts_for_all"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid"))
    epoch: Mapped[str] = mapped_column(String(MAX_ID_CHARS))
    level: Mapped[LogLevel] = mapped_column(_enum(LogLevel, "level"))
    boot_id: Mapped[str | None] = mapped_column(String(MAX_ID_CHARS))
    cursor: Mapped[int] = mapped_column(default=0)
    stored: Mapped[int] = mapped_column(default=0)
    unwanted: Mapped[int] = mapped_column(default=0)
    dead: Mapped[int] = mapped_column(default=0)
    gap: Mapped[int] = mapped_column(default=0)
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]


class Gap(Base):
    """Numbers that the agent gave and no longer holds: evicted, damaged, or acknowledged to a lost database."""

    __tablename__ = "gaps"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    lane_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("lanes.id", ondelete="CASCADE"), index=True)
    first: Mapped[int]
    last: Mapped[int]
    recorded_at: Mapped[datetime]


class DeadLetter(Base):
    """What arrived and could not be stored as what it claims to be, bounded."""

    __tablename__ = "dead_letters"
    __table_args__ = (Index(None, "client_uuid", "received_at"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str | None] = mapped_column(Uuid)
    topic: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(index=True)
    reason: Mapped[str]
    payload: Mapped[str]
    lane_id: Mapped[int | None]
    seq: Mapped[int | None]


class Counter(Base):
    """Per client and level, the log rows whose timestamp lies after counter_mark.counted_out_to. Exact."""

    __tablename__ = "counters"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid"), primary_key=True)
    error: Mapped[int] = mapped_column(default=0)
    warn: Mapped[int] = mapped_column(default=0)
    info: Mapped[int] = mapped_column(default=0)
    debug: Mapped[int] = mapped_column(default=0)


class CounterMark(Base):
    """One row: where the sliding window of `counters` begins, at most a minute off 24 hours ago."""

    __tablename__ = "counter_mark"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    counted_out_to: Mapped[datetime]


class Daily(Base):
    """Log rows stored per client, UTC day of the timestamp, and level."""

    __tablename__ = "daily"

    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    level: Mapped[LogLevel] = mapped_column(_enum(LogLevel, "level"), primary_key=True)
    n: Mapped[int]


class IngestStat(Base):
    """What the doors counted since the database was made: `source` mqtt or http, `name` such as duplicate."""

    __tablename__ = "ingest_stats"

    source: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    n: Mapped[int]


class Screenshot(Base):
    """A small picture of a kiosk's screen. The bytes come last, so that SQLite reads the rest without them."""

    __tablename__ = "screenshots"
    __table_args__ = (
        UniqueConstraint("client_uuid", "upload_id"),
        Index(None, "client_uuid", "taken_at", "id", "kind"),
        # An id is never given twice: caches know a picture by its address.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    client_uuid: Mapped[str] = mapped_column(ForeignKey("clients.uuid", ondelete="CASCADE"))
    upload_id: Mapped[str] = mapped_column(String(MAX_ID_CHARS))
    """Made by the kiosk: an upload that comes again, because its answer was lost, is known by it."""
    taken_at: Mapped[datetime]
    """Device time, clamped as that of log records."""
    device_taken_at: Mapped[datetime | None]
    """What the device said, where that was clamped."""
    received_at: Mapped[datetime] = mapped_column(index=True)
    kind: Mapped[ScreenshotKind] = mapped_column(_enum(ScreenshotKind, "kind"))
    status: Mapped[ScreenHealthStatus] = mapped_column(_enum(ScreenHealthStatus, "status"))
    reason: Mapped[str | None] = mapped_column(String(255))
    hash: Mapped[str | None] = mapped_column(String(255))
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    """Bytes of `picture`."""
    picture: Mapped[bytes] = mapped_column(LargeBinary)


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    password_hash: Mapped[str]
    role: Mapped[Role] = mapped_column(_enum(Role, "role"))
    created_at: Mapped[datetime]
    disabled: Mapped[bool] = mapped_column(default=False)


class Token(Base):
    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    prefix: Mapped[str] = mapped_column(String(32), unique=True)
    """The part that may be shown, and by which a presented token is found."""
    secret_hash: Mapped[str]
    role: Mapped[TokenRole] = mapped_column(_enum(TokenRole, "role"))
    client_uuid: Mapped[str | None] = mapped_column(Uuid)
    """The one kiosk that a device token speaks for; it may exist before the kiosk does."""
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    scope: Mapped[Scope] = mapped_column(_enum(Scope, "scope", checked=False), default=Scope.ALL)
    created_by: Mapped[int | None]
    """Id of the user who made it; None for the command. It may go with the user, see users."""


class SignIn(Base):
    """A session of someone who signed in. The cookie has the token, the table its SHA-256."""

    __tablename__ = "sign_ins"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    last_used: Mapped[datetime]
    browser: Mapped[str] = mapped_column(String(200))
    """What it calls itself, for the list of one's own sessions."""


class SignInFailure(Base):
    """A sign-in that was refused; `who` is what it counts against, see throttle."""

    __tablename__ = "sign_in_failures"
    __table_args__ = (Index(None, "who", "at"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    who: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(index=True)


class SetUpLink(Base):
    """A link that lets its holder choose a password once: the first user's, or that of one who forgot it."""

    __tablename__ = "set_up_links"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("users.id", ondelete="CASCADE"))
    """None: the holder chooses a name as well and becomes a new user with `role`."""
    role: Mapped[Role | None] = mapped_column(_enum(Role, "role", checked=False))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class AppKey(Base):
    """One row: what signs cookies, the same for all web processes."""

    __tablename__ = "app_key"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    secret: Mapped[str]
