"""The fleet: clients, their log, lanes, and what is counted."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _choice(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=op.f(name), native_enum=False, create_constraint=True, length=16)


def _level(table: str) -> sa.Enum:
    return _choice(f"ck_{table}_level", "ERROR", "WARN", "INFO", "DEBUG")


def _one_of(column: str, *values: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(
        " OR ".join(f"{column} = '{value}'" for value in values), name=op.f(f"ck_client_logs_{column}")
    )


def _of_client(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["client_uuid"], ["clients.uuid"], name=op.f(f"fk_{table}_client_uuid"))


def upgrade() -> None:
    _clients()
    _logs()
    _lanes()
    _dead_letters()
    _counts()


def _clients() -> None:
    op.create_table(
        "clients",
        sa.Column("uuid", sa.String(36), nullable=False),
        sa.Column("hostname", sa.String(255)),
        sa.Column("registered_at", TIME, nullable=False),
        sa.Column("last_alive", TIME),
        sa.Column("online", sa.Boolean, nullable=False),
        sa.Column("version", sa.String(64)),
        sa.Column("current_event_id", sa.BigInteger),
        sa.Column("current_event_type", _choice("ck_clients_current_event_type", "video", "website", "presentation")),
        sa.Column("current_process", sa.String(255)),
        sa.Column("process_status", _choice("ck_clients_process_status", "running", "crashed", "starting", "stopped")),
        sa.Column("process_pid", sa.BigInteger),
        sa.Column(
            "screen_health_status", _choice("ck_clients_screen_health_status", "OK", "BLACK", "FROZEN", "UNKNOWN")
        ),
        sa.Column("screen_reason", sa.String(255)),
        sa.Column("last_screenshot_analyzed", TIME),
        sa.Column("last_screenshot_hash", sa.String(255)),
        sa.Column("outbox_pending", sa.BigInteger),
        sa.Column("outbox_oldest", TIME),
        sa.Column("system", sa.Text),
        sa.Column("state_at", TIME),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_clients")),
    )


def _logs() -> None:
    op.create_table(
        "client_logs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("timestamp", TIME, nullable=False),
        sa.Column("device_timestamp", TIME),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("code", sa.String(64)),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("context", sa.Text),
        sa.Column("lane_id", sa.BigInteger),
        sa.Column("seq", sa.BigInteger),
        sa.Column("clock", sa.String(16)),
        # Spelt with OR: for IN with a list SQLite builds a table anew at every row.
        _one_of("level", "ERROR", "WARN", "INFO", "DEBUG"),
        _one_of("clock", "synced", "corrected", "unsynced"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_logs")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_client_logs_client_uuid_timestamp_id"), "client_logs", ["client_uuid", "timestamp", "id"])
    op.create_index(
        op.f("ix_client_logs_client_uuid_level_timestamp_id"),
        "client_logs",
        ["client_uuid", "level", "timestamp", "id"],
    )


def _lanes() -> None:
    op.create_table(
        "lanes",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("epoch", sa.String(64), nullable=False),
        sa.Column("level", _level("lanes"), nullable=False),
        sa.Column("boot_id", sa.String(64)),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("cursor", "stored", "unwanted", "dead", "gap")),
        sa.Column("first_seen", TIME, nullable=False),
        sa.Column("last_seen", TIME, nullable=False),
        sa.CheckConstraint("cursor = stored + unwanted + dead + gap", name=op.f("ck_lanes_accounts_for_all")),
        _of_client("lanes"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lanes")),
        sa.UniqueConstraint("client_uuid", "epoch", "level", name=op.f("uq_lanes_client_uuid_epoch_level")),
    )
    op.create_table(
        "gaps",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("lane_id", sa.BigInteger, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["lanes.id"], name=op.f("fk_gaps_lane_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gaps")),
    )
    op.create_index(op.f("ix_gaps_lane_id"), "gaps", ["lane_id"])


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("client_uuid", sa.String(36)),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("lane_id", sa.BigInteger),
        sa.Column("seq", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index(op.f("ix_dead_letters_received_at"), "dead_letters", ["received_at"])


def _counts() -> None:
    op.create_table(
        "counters",
        sa.Column("client_uuid", sa.String(36), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("error", "warn", "info", "debug")),
        _of_client("counters"),
        sa.PrimaryKeyConstraint("client_uuid", name=op.f("pk_counters")),
    )
    mark = op.create_table(
        "counter_mark",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("counted_out_to", TIME, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_counter_mark_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counter_mark")),
    )
    assert mark is not None
    begins = datetime.now(UTC) - timedelta(hours=24)
    text = op.get_bind().dialect.name == "sqlite"
    stored = begins.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z" if text else begins
    op.execute(sa.insert(mark).values(id=1, counted_out_to=sa.literal(stored, sa.String() if text else TIME)))
    op.create_table(
        "daily",
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("level", _level("daily"), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        _of_client("daily"),
        sa.PrimaryKeyConstraint("client_uuid", "day", "level", name=op.f("pk_daily")),
    )
    op.create_table(
        "ingest_stats",
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "name", name=op.f("pk_ingest_stats")),
    )


def downgrade() -> None:
    for table in (
        "ingest_stats",
        "daily",
        "counter_mark",
        "counters",
        "dead_letters",
        "gaps",
        "lanes",
        "client_logs",
        "clients",
    ):
        op.drop_table(table)
