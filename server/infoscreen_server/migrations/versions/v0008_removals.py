"""Clients that are to go for good, and what makes that cheap and safe: dead letters by client, and numbers of states
that are never given twice.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
KINDS = ("link", "process", "screen")


def _of_client(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_client_uuid")
    return sa.ForeignKeyConstraint(["client_uuid"], ["clients.uuid"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "removals",
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("client_uuid", name=op.f("pk_removals")),
        _of_client("removals"),
    )
    op.create_index(op.f("ix_dead_letters_client_uuid_received_at"), "dead_letters", ["client_uuid", "received_at"])
    if op.get_bind().dialect.name == "sqlite":
        _number_states_for_ever()


def _number_states_for_ever() -> None:
    """SQLite gives the highest number again when its row is gone; the live view would take what is new for known."""
    op.create_table(
        "numbered_spans",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(*KINDS, name=op.f("ck_state_spans_kind"), native_enum=False, create_constraint=True, length=16),
            nullable=False,
        ),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_state_spans")),
        _of_client("state_spans"),
        sqlite_autoincrement=True,
    )
    columns = "id, client_uuid, kind, state, began_at, ended_at"
    op.execute(f"INSERT INTO numbered_spans ({columns}) SELECT {columns} FROM state_spans")  # noqa: S608 - names of ours
    op.drop_table("state_spans")
    op.rename_table("numbered_spans", "state_spans")
    op.create_index(
        op.f("ix_state_spans_open"),
        "state_spans",
        ["client_uuid", "kind"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(op.f("ix_state_spans_client_uuid_ended_at"), "state_spans", ["client_uuid", "ended_at"])


def downgrade() -> None:
    """States keep their numbers: older versions do not mind."""
    op.drop_index(op.f("ix_dead_letters_client_uuid_received_at"), "dead_letters")
    op.drop_table("removals")
