"""What an outage costs the card: bytes a record when many come at once."""

from pathlib import Path

from bench.backlog import COUNT, kiosk
from bench.table import US, Row, verdict


def run(folder: Path, quick: bool) -> list[Row]:
    count = COUNT // (10 if quick else 1)
    told = kiosk("fill", folder / "state", count)
    stored, written = told["stored"] / count, told["written"] / count
    return [
        Row(
            f"{count:,} records in an outage",
            US,
            f"{stored:.0f} B a record on disk, {written:.0f} B written; {count / told['seconds']:,.0f} records/s",
            "",
            verdict("300 B a record", met=stored <= 300),
        )
    ]
