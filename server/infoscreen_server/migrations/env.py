"""Run by alembic for each command; db hands over a connection that is in a transaction already."""

from alembic import context

from infoscreen_server import models_alerts, models_history, models_live  # noqa: F401  # known to Base once they are imported
from infoscreen_server.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
    compare_type=True,
)
context.run_migrations()
