"""The dashboard: names, places and tags of clients, sign-in sessions, scopes of tokens, the key that signs cookies."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.TIMESTAMP(timezone=True).with_variant(sa.String(27), "sqlite")
BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("clients", sa.Column("name", sa.String(100)))
    op.add_column("clients", sa.Column("location", sa.String(100)))
    op.add_column("tokens", sa.Column("scope", sa.String(16), nullable=False, server_default="all"))
    op.add_column("tokens", sa.Column("created_by", sa.BigInteger))
    op.create_table(
        "client_tags",
        sa.Column("client_uuid", sa.String(36), nullable=False),
        sa.Column("tag", sa.String(50), nullable=False),
        sa.PrimaryKeyConstraint("client_uuid", "tag", name=op.f("pk_client_tags")),
        sa.ForeignKeyConstraint(
            ["client_uuid"], ["clients.uuid"], name=op.f("fk_client_tags_client_uuid"), ondelete="CASCADE"
        ),
    )
    op.create_index(op.f("ix_client_tags_tag"), "client_tags", ["tag"])
    op.create_table(
        "sign_ins",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used", TIME, nullable=False),
        sa.Column("browser", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_sign_ins")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_ins_user_id"), ondelete="CASCADE"),
    )
    op.create_index(op.f("ix_sign_ins_user_id"), "sign_ins", ["user_id"])
    op.create_table(
        "sign_in_failures",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_failures")),
    )
    op.create_index(op.f("ix_sign_in_failures_who_at"), "sign_in_failures", ["who", "at"])
    op.create_index(op.f("ix_sign_in_failures_at"), "sign_in_failures", ["at"])
    op.create_table(
        "set_up_links",
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("user_id", sa.BigInteger),
        sa.Column("role", sa.String(16)),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_set_up_links")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_set_up_links_user_id"), ondelete="CASCADE"),
    )
    key = op.create_table(
        "app_key",
        sa.Column("id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_app_key")),
        sa.CheckConstraint("id = 1", name=op.f("ck_app_key_one_row")),
    )
    op.bulk_insert(key, [{"id": 1, "secret": secrets.token_hex(32)}])


def downgrade() -> None:
    for table in ("app_key", "set_up_links", "sign_in_failures", "sign_ins", "client_tags"):
        op.drop_table(table)
    op.drop_column("tokens", "created_by")
    op.drop_column("tokens", "scope")
    op.drop_column("clients", "location")
    op.drop_column("clients", "name")
