"""Who issued which record, and what the server's database has of it: counted apart from agent and server."""

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

CODE = "demo.record"


@dataclass(frozen=True)
class Count:
    lost: int
    doubled: int
    disordered: int


def stored(database: Path, uuid: str) -> int:
    """How many of the demo's own records the database has."""
    with closing(_reader(database)) as connection:
        query = "SELECT count(*) FROM client_logs WHERE client_uuid = ? AND code = ?"
        return int(connection.execute(query, (uuid, CODE)).fetchone()[0])


def answered(database: Path, uuid: str) -> datetime:
    """When the agent last heard the server again after it had been out of reach, by the agent's own record."""
    with closing(_reader(database)) as connection:
        query = "SELECT max(timestamp) FROM client_logs WHERE client_uuid = ? AND code = 'broker.connected'"
        return datetime.fromisoformat(connection.execute(query, (uuid,)).fetchone()[0])


def count(database: Path, uuid: str, issued: list[tuple[str, str]]) -> Count:
    """Compares `issued` (level, message; in order) with what was stored."""
    with closing(_reader(database)) as connection:
        query = "SELECT level, message FROM client_logs WHERE client_uuid = ? AND code = ? ORDER BY id"
        rows: list[tuple[str, str]] = connection.execute(query, (uuid, CODE)).fetchall()
    expected, found = Counter(issued), Counter(rows)
    disordered = 0
    for level in {level for level, _ in issued}:
        arrived = list(dict.fromkeys(row for row in rows if row[0] == level))
        disordered += arrived != [item for item in issued if item[0] == level]
    return Count((expected - found).total(), (found - expected).total(), disordered)


def disagreements(database: Path, uuid: str, lanes: dict[str, Any], epoch: str) -> list[str]:
    """Where the server's books and the agent's differ. `lanes` and `epoch`: from the agent's status."""
    with closing(_reader(database)) as connection:
        query = "SELECT level, cursor, stored, unwanted, dead, gap FROM lanes WHERE client_uuid = ? AND epoch = ?"
        books = {row[0].lower(): row[1:] for row in connection.execute(query, (uuid, epoch))}
    found = []
    for level, (_base, upcoming, _durable) in lanes.items():
        cursor, kept, unwanted, dead, gap = books.get(level, (0, 0, 0, 0, 0))
        if cursor != upcoming - 1:
            found.append(f"{level}: {upcoming - 1} issued, {cursor} acknowledged")
        if cursor != kept + unwanted or dead or gap:
            found.append(f"{level}: {cursor} = {kept} stored + {unwanted} unwanted + {dead} dead + {gap} missing")
    return found


def _reader(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
