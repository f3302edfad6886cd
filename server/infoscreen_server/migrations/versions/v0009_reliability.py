"""The ends of incidents beside their beginnings in an index: reliability reads nothing but that."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

OLD = ["client_uuid", "kind", "began_at"]
NEW = [*OLD, "ended_at"]


def upgrade() -> None:
    _replace(OLD, NEW)


def downgrade() -> None:
    _replace(NEW, OLD)


def _replace(old: list[str], new: list[str]) -> None:
    op.drop_index(op.f(f"ix_incidents_{'_'.join(old)}"), "incidents")
    op.create_index(op.f(f"ix_incidents_{'_'.join(new)}"), "incidents", new)
