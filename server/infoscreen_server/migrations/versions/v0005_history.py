"""What was: states, incidents, issues, facts.

A fleet that is there already begins its history with the states that are known now. Its issues are counted once out
of the log, along the index by client and level, for the window that the counters count over.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
LEVELS = ("ERROR", "WARN", "INFO", "DEBUG")
TABLES = ("state_spans", "incident_events", "incidents", "incident_backlog", "issue_counts", "acknowledgements",
          "fact_samples")  # fmt: skip


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    name = op.f(f"ck_{table}_{column}")
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def _client(table: str) -> list[sa.schema.SchemaItem]:
    name = op.f(f"fk_{table}_client_uuid")
    return [
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.ForeignKeyConstraint(["client_uuid"], ["clients.uuid"], name=name, ondelete="CASCADE"),
    ]


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def _one_open(table: str) -> None:
    where = sa.text("ended_at IS NULL")
    op.create_index(
        op.f(f"ix_{table}_open"),
        table,
        ["client_uuid", "kind"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )


def upgrade() -> None:
    _states()
    _incidents()
    _issues()
    _facts()
    _begin()


def _states() -> None:
    op.create_table(
        "state_spans",
        sa.Column("id", BIG_ID, nullable=False),
        *_client("state_spans"),
        sa.Column("kind", _choice("state_spans", "kind", "link", "process", "screen"), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        _key("state_spans", "id"),
    )
    _one_open("state_spans")
    _index("state_spans", "client_uuid", "ended_at")


def _incidents() -> None:
    op.create_table(
        "incident_events",
        sa.Column("id", BIG_ID, nullable=False),
        *_client("incident_events"),
        sa.Column("at", TIME, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("level", _choice("incident_events", "level", *LEVELS), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        _key("incident_events", "id"),
    )
    _index("incident_events", "client_uuid", "at")
    op.create_table(
        "incidents",
        sa.Column("id", BIG_ID, nullable=False),
        *_client("incidents"),
        sa.Column("kind", _choice("incidents", "kind", "player", "screen", "link"), nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("restarts", sa.BigInteger, nullable=False),
        sa.Column("last_event_at", TIME, nullable=False),
        _key("incidents", "id"),
    )
    _one_open("incidents")
    _index("incidents", "client_uuid", "began_at", "id")
    _index("incidents", "client_uuid", "kind", "began_at")
    _index("incidents", "began_at", "id")
    _index("incidents", "ended_at")
    op.create_table(
        "incident_backlog",
        *_client("incident_backlog"),
        sa.Column("since", TIME, nullable=False),
        _key("incident_backlog", "client_uuid"),
    )


def _issues() -> None:
    op.create_table(
        "issue_counts",
        *_client("issue_counts"),
        sa.Column("level", _choice("issue_counts", "level", *LEVELS), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.Column("last_message", sa.Text, nullable=False),
        _key("issue_counts", "client_uuid", "level", "code"),
    )
    _index("issue_counts", "level", "code")
    op.create_table(
        "acknowledgements",
        sa.Column("level", _choice("acknowledgements", "level", *LEVELS), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("given_by", sa.Text, nullable=False),
        sa.Column("given_at", TIME, nullable=False),
        sa.Column("clients", sa.Text, nullable=False),
        _key("acknowledgements", "level", "code"),
    )


def _facts() -> None:
    numbers = ("memory_available", "memory_total", "disk_free", "outbox_pending")
    op.create_table(
        "fact_samples",
        *_client("fact_samples"),
        sa.Column("at", TIME, nullable=False),
        *(sa.Column(name, sa.Float) for name in ("cpu_temperature", "load")),
        *(sa.Column(name, sa.BigInteger) for name in numbers),
        _key("fact_samples", "client_uuid", "at"),
    )


def _begin() -> None:
    """Known is what each client is now, since when is not: since it told so last."""
    op.execute(
        "INSERT INTO state_spans (client_uuid, kind, state, began_at) "
        "SELECT uuid, 'link', CASE WHEN online THEN 'online' ELSE 'offline' END, last_alive "
        "FROM clients WHERE last_alive IS NOT NULL"
    )
    op.execute(
        "INSERT INTO incidents (client_uuid, kind, began_at, code, message, restarts, last_event_at) "
        "SELECT uuid, 'link', last_alive, 'link.offline', '', 0, last_alive "
        "FROM clients WHERE last_alive IS NOT NULL AND NOT online"
    )
    for kind, column in (("process", "process_status"), ("screen", "screen_health_status")):
        op.execute(
            "INSERT INTO state_spans (client_uuid, kind, state, began_at) "  # noqa: S608 - names of ours only
            f"SELECT uuid, '{kind}', {column}, COALESCE(state_at, last_alive, registered_at) "
            f"FROM clients WHERE {column} IS NOT NULL"
        )
    op.execute(
        "INSERT INTO issue_counts (client_uuid, level, code, n, last_at, last_message) "
        "SELECT client_uuid, level, code, n, timestamp, message FROM ("
        "SELECT logs.client_uuid, logs.level, COALESCE(logs.code, '') AS code, logs.timestamp, "
        "substr(logs.message, 1, 300) AS message, "
        "count(*) OVER (PARTITION BY logs.client_uuid, logs.level, COALESCE(logs.code, '')) AS n, "
        "row_number() OVER (PARTITION BY logs.client_uuid, logs.level, COALESCE(logs.code, '') "
        "ORDER BY logs.timestamp DESC, logs.id DESC) AS place "
        "FROM counters JOIN client_logs AS logs ON logs.client_uuid = counters.client_uuid "
        "WHERE counters.error + counters.warn > 0 AND logs.level IN ('ERROR', 'WARN') "
        "AND logs.timestamp > (SELECT counted_out_to FROM counter_mark)) AS recent WHERE place = 1"
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
