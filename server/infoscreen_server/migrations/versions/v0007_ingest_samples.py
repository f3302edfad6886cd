"""Samples of what the doors counted, for figures over time."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")


def upgrade() -> None:
    op.create_table(
        "ingest_samples",
        sa.Column("at", TIME, nullable=False),
        sa.Column("newest_log", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("at", name=op.f("pk_ingest_samples")),
    )


def downgrade() -> None:
    op.drop_table("ingest_samples")
