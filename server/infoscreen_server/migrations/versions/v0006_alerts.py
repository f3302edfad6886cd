"""Alerts: rules, channels, what fires, messages to deliver. Begins with sensible rules and nobody to tell."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
KINDS = ("offline", "screen", "errors", "crash_loop", "buffer", "outage")
MESSAGES = ("firing", "reminder", "recovered", "flapping", "steady")
TABLES = (
    "alert_mark",
    "alert_attempts",
    "alert_messages",
    "opening_hours",
    "alert_silences",
    "alerts",
    "alert_states",
    "alert_rule_channels",
    "alert_channels",
    "alert_rules",
)


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    name = op.f(f"ck_{table}_{column}")
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _refers(table: str, column: str, to: str, ondelete: str = "CASCADE") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{to}.id"], name=op.f(f"fk_{table}_{column}"), ondelete=ondelete)


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def upgrade() -> None:
    _rules()
    _states()
    _exceptions()
    _messages()
    mark = op.create_table(
        "alert_mark",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("round", sa.BigInteger, nullable=False),
        sa.Column("evaluated_at", TIME),
        sa.Column("deaf_until", TIME),
        _key("alert_mark", "id"),
        sa.CheckConstraint("id = 1", name=op.f("ck_alert_mark_one_row")),
    )
    op.bulk_insert(mark, [{"id": 1, "round": 0}])


def _rules() -> None:
    rules = op.create_table(
        "alert_rules",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("kind", _choice("alert_rules", "kind", *KINDS), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("tag", sa.String(50)),
        sa.Column("threshold", sa.BigInteger),
        sa.Column("clear_threshold", sa.BigInteger),
        sa.Column("window", sa.BigInteger),
        sa.Column("hold", sa.BigInteger, nullable=False),
        sa.Column("keep", sa.BigInteger, nullable=False),
        sa.Column("repeat", sa.BigInteger, nullable=False),
        sa.Column("in_hours", sa.Boolean, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        _key("alert_rules", "id"),
    )
    op.create_table(
        "alert_channels",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        _key("alert_channels", "id"),
        sa.UniqueConstraint("name", name=op.f("uq_alert_channels_name")),
    )
    op.create_table(
        "alert_rule_channels",
        sa.Column("rule_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("channel_id", sa.BigInteger, nullable=False, autoincrement=False),
        _key("alert_rule_channels", "rule_id", "channel_id"),
        _refers("alert_rule_channels", "rule_id", "alert_rules"),
        _refers("alert_rule_channels", "channel_id", "alert_channels"),
    )
    op.bulk_insert(rules, [_rule(**each) for each in DEFAULTS])


CALM = {"clear_threshold": 0}
"""Over when there was none at all: what comes every few minutes would else be over again and again."""
DEFAULTS: list[dict[str, Any]] = [
    {"name": "Screen is offline", "kind": "offline", "hold": 600, "keep": 60},
    {"name": "Screen is black or frozen", "kind": "screen", "hold": 300, "keep": 60},
    {"name": "Player crashes again and again", "kind": "crash_loop", "threshold": 3, "window": 900, **CALM},
    {"name": "Records are dropped", "kind": "buffer", "threshold": 0, "window": 900, **CALM},
    {"name": "Many errors", "kind": "errors", "threshold": 10, "clear_threshold": 2, "window": 900},
    {"name": "Server or broker", "kind": "outage", "threshold": 30, "hold": 60, "keep": 60},
]


def _rule(**given: Any) -> dict[str, Any]:
    usual = {"tag": None, "threshold": None, "clear_threshold": None, "window": None, "hold": 0, "keep": 0}
    return {"enabled": True, **usual, "repeat": 43_200, "in_hours": True, "created_at": datetime.now(UTC)} | given


def _states() -> None:
    op.create_table(
        "alert_states",
        sa.Column("rule_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("since", TIME),
        sa.Column("changes", sa.Text, nullable=False),
        _key("alert_states", "rule_id", "client_uuid"),
        _refers("alert_states", "rule_id", "alert_rules"),
    )
    op.create_table(
        "alerts",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("rule_id", sa.BigInteger, nullable=False),
        sa.Column("rule_name", sa.String(100), nullable=False),
        sa.Column("kind", _choice("alerts", "kind", *KINDS), nullable=False),
        sa.Column("flapping", sa.Boolean, nullable=False),
        sa.Column("client_uuid", sa.String(36)),
        sa.Column("site", sa.String(100)),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("fired_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("notices", sa.BigInteger, nullable=False),
        sa.Column("announced_at", TIME),
        sa.Column("announced_by", sa.BigInteger),
        sa.Column("last_notice_at", TIME),
        sa.Column("closed_at", TIME),
        sa.Column("closed_by", sa.BigInteger),
        _key("alerts", "id"),
        sqlite_autoincrement=True,
    )
    _index("alerts", "closed_at")
    _index("alerts", "fired_at", "id")
    _index("alerts", "client_uuid", "fired_at")


def _exceptions() -> None:
    op.create_table(
        "alert_silences",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("target", sa.String(100), nullable=False),
        sa.Column("starts_at", TIME, nullable=False),
        sa.Column("ends_at", TIME),
        sa.Column("week", sa.Text),
        sa.Column("zone", sa.String(64)),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        _key("alert_silences", "id"),
    )
    op.create_table(
        "opening_hours",
        sa.Column("tag", sa.String(50), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("week", sa.Text, nullable=False),
        sa.Column("closed", sa.Text, nullable=False),
        _key("opening_hours", "tag"),
    )


def _messages() -> None:
    op.create_table(
        "alert_messages",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("alert_id", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("kind", _choice("alert_messages", "kind", *MESSAGES), nullable=False),
        sa.Column("channel_id", sa.BigInteger),
        sa.Column("channel_name", sa.String(100), nullable=False),
        sa.Column("topic", sa.String(200), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column(
            "status", _choice("alert_messages", "status", "pending", "sending", "sent", "failed"), nullable=False
        ),
        sa.Column("due_at", TIME),
        sa.Column("worker", sa.String(36)),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("error", sa.Text),
        _key("alert_messages", "id"),
        _refers("alert_messages", "channel_id", "alert_channels", "SET NULL"),
        sa.UniqueConstraint(
            "alert_id", "number", "channel_id", name=op.f("uq_alert_messages_alert_id_number_channel_id")
        ),
        sa.CheckConstraint(
            "(due_at IS NULL) = (status = 'sent' OR status = 'failed')", name=op.f("ck_alert_messages_due_until_done")
        ),
        sqlite_autoincrement=True,
    )
    _index("alert_messages", "due_at")
    _index("alert_messages", "created_at", "id")
    op.create_table(
        "alert_attempts",
        sa.Column("message_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("error", sa.Text),
        _key("alert_attempts", "message_id", "number"),
        _refers("alert_attempts", "message_id", "alert_messages"),
    )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
