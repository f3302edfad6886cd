"""When the server last heard that a client dropped records: alerts go by that, not by the device's time.

It begins with what issues know of it, by the device's time: what was told within the last minutes goes on to count.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")


def upgrade() -> None:
    op.create_table(
        "record_drops",
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("client_uuid", name=op.f("pk_record_drops")),
        sa.ForeignKeyConstraint(
            ["client_uuid"], ["clients.uuid"], name=op.f("fk_record_drops_client_uuid"), ondelete="CASCADE"
        ),
    )
    op.execute(
        "INSERT INTO record_drops (client_uuid, received_at, message) SELECT client_uuid, last_at, last_message"
        " FROM issue_counts WHERE level = 'WARN' AND code = 'buffer.dropped'"
    )


def downgrade() -> None:
    op.drop_table("record_drops")
