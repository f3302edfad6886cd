"""The table behind the figures of the System monitor: what the doors had counted, minute by minute, for a day."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from infoscreen_server.models import Base


class IngestSample(Base):
    __tablename__ = "ingest_samples"

    at: Mapped[datetime] = mapped_column(primary_key=True)
    newest_log: Mapped[int]
    """The highest id of the log: its growth is the number of records stored, and costs nothing to know."""
    counts: Mapped[str]
    """ingest_stats as it stood: JSON, {"mqtt": {"duplicate": 3}}."""
