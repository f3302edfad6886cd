"""No statement of the server reads through the whole log. On SQLite, whose planner goes by rules as long as nobody
gathers statistics; PostgreSQL plans by the sizes of the tables, so that it tells nothing here.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from infoscreen_server import housekeeping, reliability, removal
from infoscreen_server.config import ServerConfig
from infoscreen_server.models import Client, Role
from infoscreen_server.queries import Cursor
from infoscreen_shared.messages import LogLevel
from parts.api import Api
from parts.fleet import NOW, OTHER, UUID, Fleet, batch, finish_removals, of_items
from parts.person import with_user

WHOLE_LOG = re.compile(r"SCAN client_logs\b")
BY_ID = re.compile(r"ORDER BY client_logs\.id(?: DESC)?\s+LIMIT")
"""In the order in which they are kept, and not all of them."""


class Plans:
    """The statements that were run and would read all of the log."""

    def __init__(self, fleet: Fleet | Api) -> None:
        self.seen = 0
        self.whole: list[str] = []
        event.listen(fleet.engine, "before_cursor_execute", self._look)

    def _look(
        self, connection: Any, _cursor: object, statement: str, parameters: Any, _context: object, many: bool
    ) -> None:
        if statement.startswith(("PRAGMA", "BEGIN", "EXPLAIN")) or "client_logs" not in statement:
            return
        self.seen += 1
        driver = connection.connection.driver_connection
        given = parameters[0] if many else parameters
        plan = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", given)]
        if any(WHOLE_LOG.match(step) for step in plan) and not BY_ID.search(statement):
            self.whole.append(f"{statement}\n{plan}")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'server.db'}"


@pytest.fixture
def fleet(url: str) -> Iterator[Fleet]:
    with Fleet(url) as made:
        lines = [{"seq": 1, "timestamp": NOW.isoformat(), "message": "m", "code": "a.b", "context": {}}]
        made.say(batch(range(1, 50)), of_items(lines, level=LogLevel.ERROR), now=NOW)
        yield made


def test_housekeeping(fleet: Fleet) -> None:
    plans = Plans(fleet)
    for later in (timedelta(minutes=1), timedelta(hours=30), timedelta(days=100)):
        housekeeping.count_out(fleet.engine, NOW + later)
        housekeeping.mark_offline(fleet.engine, timedelta(seconds=45), NOW + later)
        housekeeping.fold_backlog(fleet.engine)
    assert housekeeping.prune(fleet.engine, ServerConfig(), NOW + timedelta(days=100)) == 50
    assert plans.seen > 5
    assert plans.whole == []


def test_a_removal(fleet: Fleet) -> None:
    assert removal.ask(fleet.engine, UUID, "anna", NOW)
    plans = Plans(fleet)
    finish_removals(fleet.engine)
    assert plans.seen > 1
    assert plans.whole == []
    assert fleet.messages() == []


def test_ingest(fleet: Fleet) -> None:
    plans = Plans(fleet)
    fleet.say(batch(range(50, 60)), now=NOW)
    assert plans.whole == []


def test_reliability_reads_an_index_alone(fleet: Fleet) -> None:
    """Looking up each incident in the table would take three times as long."""
    statements: list[tuple[str, Any]] = []
    event.listen(fleet.engine, "before_cursor_execute", lambda *given: statements.append((given[2], given[3])))
    with fleet.engine.connect() as connection:
        kept = timedelta(days=90)
        for conditions in ([], [Client.uuid.in_([UUID, OTHER])]):
            reliability.fleet_reliability(connection, NOW - kept, NOW, NOW, conditions, retention=kept)
        reliability.daily_availability(connection, [UUID, OTHER], 14, NOW, retention=kept)
        reads = [(statement, given) for statement, given in statements if "FROM incidents" in statement]
        plans = [
            [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)]
            for statement, given in reads
        ]
    assert len(plans) == 3
    assert not [plan for plan in plans if len(plan) != 1 or "USING COVERING INDEX" not in plan[0]]


QUERIES = (
    "",
    "level=ERROR",
    "level=ERROR&level=WARN",
    "q=m",
    "code=a.b",
    "since=2026-01-01",
    "until=2027-01-01&q=m&level=ERROR",
    f"before={Cursor(NOW, 5).text()}",
)


def test_every_address(fleet: Fleet, url: str) -> None:
    """Whatever has no parameters but a client, and the log by every filter."""
    api = Api(url)
    api.now = NOW
    try:
        someone = with_user(api, "anna", Role.SUPERADMIN)
        plans = Plans(api)
        paths = {
            rule.rule.replace("<uuid>", UUID)
            for rule in api.app.url_map.iter_rules()
            if "GET" in (rule.methods or ()) and rule.arguments <= {"uuid"} and rule.rule != "/api/stream"
        }
        assert {"/", f"/clients/{UUID}/logs", f"/api/client-logs/{UUID}/logs", "/system"} <= paths
        logs = [path for path in paths if path.endswith(("/logs", ".csv", ".ndjson"))]
        for path in sorted(paths) + [f"{path}?{query}" for path in logs for query in QUERIES]:
            answer = someone.get(path)
            assert answer.status_code in (200, 303, 400, 404, 405), path
            assert answer.data is not None
        assert plans.seen > 30
        assert plans.whole == []
    finally:
        api.close()
