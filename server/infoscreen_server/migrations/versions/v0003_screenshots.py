"""Pictures of the kiosks' screens."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _choice(column: str, *values: str) -> sa.Enum:
    name = op.f(f"ck_screenshots_{column}")
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=16)


def upgrade() -> None:
    op.create_table(
        "screenshots",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("upload_id", sa.String(64), nullable=False),
        sa.Column("taken_at", TIME, nullable=False),
        sa.Column("device_taken_at", TIME),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("kind", _choice("kind", "incident", "periodic"), nullable=False),
        sa.Column("status", _choice("status", "OK", "BLACK", "FROZEN", "UNKNOWN"), nullable=False),
        sa.Column("reason", sa.String(255)),
        sa.Column("hash", sa.String(255)),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("width", "height", "size")),
        sa.Column("picture", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_uuid"], ["clients.uuid"], name=op.f("fk_screenshots_client_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_screenshots")),
        sa.UniqueConstraint("client_uuid", "upload_id", name=op.f("uq_screenshots_client_uuid_upload_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_screenshots_client_uuid_taken_at_id_kind"), "screenshots", ["client_uuid", "taken_at", "id", "kind"]
    )
    op.create_index(op.f("ix_screenshots_received_at"), "screenshots", ["received_at"])


def downgrade() -> None:
    op.drop_table("screenshots")
