"""Since when the server was away, and since when a channel has its address: what happened before counts otherwise."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")


def upgrade() -> None:
    op.add_column("alert_mark", sa.Column("away_since", TIME))
    op.add_column("alert_channels", sa.Column("url_changed_at", TIME))


def downgrade() -> None:
    op.drop_column("alert_channels", "url_changed_at")
    op.drop_column("alert_mark", "away_since")
