"""The schema's history on both databases: up, down, with data in it, and by two processes at once."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, insert, inspect, select, text
from sqlalchemy.orm import Session

from infoscreen_server import db
from infoscreen_server.models import (
    Base,
    Client,
    ClientLog,
    Counter,
    CounterMark,
    Daily,
    Gap,
    Lane,
    Screenshot,
    ScreenshotKind,
    User,
    UtcTime,
)
from infoscreen_server.models_history import Incident, IssueCount, RecordDrop, StateSpan
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def database_url(empty_database_url: str) -> str:
    """Here the migrations are what is looked at."""
    return empty_database_url


def tables(url: str) -> set[str]:
    engine = db.make_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def constraints(url: str) -> dict[str, set[str | None]]:
    engine = db.make_engine(url)
    try:
        return {
            table: {each["name"] for each in inspect(engine).get_check_constraints(table)}
            for table in Base.metadata.tables
        }
    finally:
        engine.dispose()


def fill(url: str) -> None:
    engine = db.make_engine(url)
    with db.writing(engine) as connection, Session(connection) as session:
        session.add(Client(uuid=UUID, registered_at=NOW, online=True))
        session.flush()
        lane = Lane(client_uuid=UUID, epoch="e", level=LogLevel.INFO, first_seen=NOW, last_seen=NOW, cursor=3, gap=3)
        session.add(lane)
        session.flush()
        session.add_all(
            [
                Gap(lane_id=lane.id, first=1, last=3, recorded_at=NOW),
                ClientLog(client_uuid=UUID, timestamp=NOW, received_at=NOW, level=LogLevel.WARN, message="kept"),
                Counter(client_uuid=UUID, warn=1),
                Daily(client_uuid=UUID, day=NOW.date(), level=LogLevel.WARN, n=1),
                User(name="ada", password_hash="x", role="admin", created_at=NOW),
            ]
        )
        session.flush()
        if "screenshots" in inspect(connection).get_table_names():
            session.add(screenshot())
            session.flush()
    engine.dispose()


def screenshot() -> Screenshot:
    return Screenshot(
        client_uuid=UUID,
        upload_id="picture-1",
        taken_at=NOW,
        received_at=NOW,
        kind=ScreenshotKind.INCIDENT,
        status=ScreenHealthStatus.BLACK,
        width=1,
        height=1,
        size=3,
        picture=b"\0\xff\n",
    )


def messages(url: str) -> list[tuple[str, datetime, LogLevel]]:
    engine = db.make_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(ClientLog.message, ClientLog.timestamp, ClientLog.level)).all()
    engine.dispose()
    return [tuple(row) for row in rows]


def test_the_models_equal_the_newest_schema(database_url: str) -> None:
    db.upgrade(database_url)
    engine = db.make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert db.revision(engine) == db.head()
    engine.dispose()
    # Alembic does not compare CHECK constraints.
    expected: dict[str, set[str | None]] = {
        name: {str(each.name) for each in table.constraints if isinstance(each, CheckConstraint)}
        for name, table in Base.metadata.tables.items()
    }
    assert constraints(database_url) == expected


def test_down_one_and_up_again_keeps_the_fleet(database_url: str) -> None:
    db.upgrade(database_url)
    fill(database_url)
    db.downgrade(database_url, "0001")
    assert "users" not in tables(database_url)
    assert messages(database_url) == [("kept", NOW, LogLevel.WARN)]
    db.upgrade(database_url)
    assert {"users", "tokens"} <= tables(database_url)
    assert messages(database_url) == [("kept", NOW, LogLevel.WARN)]


def test_pictures_are_added_to_a_fleet_and_taken_away_again(database_url: str) -> None:
    db.upgrade(database_url)
    fill(database_url)
    db.downgrade(database_url, "0002")
    db.upgrade(database_url)
    engine = db.make_engine(database_url)
    with db.writing(engine) as connection, Session(connection) as session:
        session.add(screenshot())
        session.flush()
        assert connection.execute(select(Screenshot.picture, Screenshot.taken_at)).one() == (b"\0\xff\n", NOW)
    engine.dispose()
    db.downgrade(database_url, "0002")
    assert "screenshots" not in tables(database_url)
    assert messages(database_url) == [("kept", NOW, LogLevel.WARN)]
    db.upgrade(database_url)
    assert "screenshots" in tables(database_url)


def test_a_fleet_begins_its_history_with_what_is_known_now(database_url: str) -> None:
    db.upgrade(database_url)
    engine = db.make_engine(database_url)
    now = datetime.now(UTC).replace(microsecond=0)
    log = {"client_uuid": UUID, "received_at": now}
    rows = [
        ("ERROR", None, now - timedelta(hours=25), "counted out"),
        ("ERROR", None, now - timedelta(hours=2), "older"),
        ("ERROR", "", now - timedelta(hours=1), "n" * 400),
        ("WARN", "screen.unseen", now - timedelta(hours=1), "unseen"),
        ("INFO", "player.started", now - timedelta(hours=1), "started"),
    ]
    with db.writing(engine) as connection, Session(connection) as session:
        told = {"process_status": "crashed", "screen_health_status": "OK", "state_at": now}
        session.add(Client(uuid=UUID, registered_at=NOW, last_alive=now, online=True, **told))
        session.add(Client(uuid=UUID[:-1] + "2", registered_at=NOW, last_alive=NOW, online=False))
        session.add(Client(uuid=UUID[:-1] + "3", registered_at=NOW))
        session.flush()
        session.add(Counter(client_uuid=UUID, error=2, warn=1, info=1))
        for level, code, when, message in rows:
            session.add(ClientLog(level=LogLevel(level), code=code, timestamp=when, message=message, **log))
        session.flush()
    for _ in range(2):
        db.downgrade(database_url, "0004")
        assert not {"state_spans", "incidents", "issue_counts"} & tables(database_url)
        db.upgrade(database_url)
    with engine.connect() as connection:
        spans = connection.execute(
            select(StateSpan.client_uuid, StateSpan.kind, StateSpan.state, StateSpan.began_at, StateSpan.ended_at)
        ).all()
        lasting = connection.execute(select(Incident.client_uuid, Incident.began_at, Incident.ended_at)).all()
        counted = connection.execute(select(*IssueCount.__table__.columns)).all()
    engine.dispose()
    assert sorted(tuple(span) for span in spans) == [
        (UUID, "link", "online", now, None),
        (UUID, "process", "crashed", now, None),
        (UUID, "screen", "OK", now, None),
        (UUID[:-1] + "2", "link", "offline", NOW, None),
    ]
    assert [tuple(row) for row in lasting] == [(UUID[:-1] + "2", NOW, None)]
    assert sorted(tuple(row) for row in counted) == [
        (UUID, "ERROR", "", 2, now - timedelta(hours=1), "n" * 300),
        (UUID, "WARN", "screen.unseen", 1, now - timedelta(hours=1), "unseen"),
    ]


def test_what_issues_know_of_dropped_records_goes_on_to_count(database_url: str) -> None:
    db.upgrade(database_url)
    fill(database_url)
    engine = db.make_engine(database_url)
    issues = [
        {"client_uuid": UUID, "level": level, "code": code, "n": 2, "last_at": NOW, "last_message": f"{level} {code}"}
        for level, code in (("WARN", "buffer.dropped"), ("ERROR", "buffer.dropped"), ("WARN", "screen.black"))
    ]
    with db.writing(engine) as connection:
        connection.execute(insert(IssueCount), issues)
        drop = {"received_at": NOW + timedelta(hours=8), "message": "by its own time"}
        connection.execute(insert(RecordDrop).values(client_uuid=UUID, **drop))
    db.downgrade(database_url, "0009")
    assert "record_drops" not in tables(database_url)
    db.upgrade(database_url)
    with db.writing(engine) as connection:
        kept = connection.execute(select(*RecordDrop.__table__.columns)).one()
        assert tuple(kept) == (UUID, NOW, "WARN buffer.dropped")
    engine.dispose()
    assert messages(database_url) == [("kept", NOW, LogLevel.WARN)]


def test_down_to_nothing_and_up_again_with_data_in_it(database_url: str) -> None:
    db.upgrade(database_url)
    fill(database_url)
    db.downgrade(database_url, "base")
    assert tables(database_url) == {"alembic_version"}
    db.upgrade(database_url)
    assert messages(database_url) == []
    engine = db.make_engine(database_url)
    with engine.connect() as connection:
        mark = connection.execute(select(CounterMark.counted_out_to)).scalar_one()
    engine.dispose()
    assert mark.tzinfo is not None


def test_two_processes_may_migrate_at_once(database_url: str) -> None:
    program = "import sys; from infoscreen_server import db; db.upgrade(sys.argv[1])"
    running = [subprocess.Popen([sys.executable, "-c", program, database_url]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert "tokens" in tables(database_url)


def test_a_failed_migration_leaves_nothing_behind(database_url: str) -> None:
    engine = db.make_engine(database_url)
    with db.writing(engine) as connection:
        connection.execute(text("CREATE TABLE daily (in_the_way integer)"))
    engine.dispose()
    with pytest.raises(Exception, match="daily"):
        db.upgrade(database_url)
    assert tables(database_url) == {"daily"}


def test_wrong_urls_say_what_to_mend(tmp_path: Path) -> None:
    for url, words in (
        (f"sqlite:///{tmp_path}/missing/server.db", "does not exist"),
        ("sqlite://", "needs a file"),
        ("mysql://root:secret@localhost/x", "not supported"),
        ("no url", "expected sqlite"),
    ):
        with pytest.raises(db.DatabaseError, match=words) as caught:
            db.make_engine(url)
        assert "secret" not in str(caught.value)


def test_an_unknown_revision_is_named(database_url: str) -> None:
    with pytest.raises(db.DatabaseError, match="9999"):
        db.upgrade(database_url, "9999")


def test_the_sqlite_file_is_not_for_everyone(tmp_path: Path) -> None:
    db.upgrade(f"sqlite:///{tmp_path}/server.db")
    assert (tmp_path / "server.db").stat().st_mode & 0o007 == 0


def test_sqlite_is_set_up_to_lose_nothing(tmp_path: Path) -> None:
    engine = db.make_engine(f"sqlite:///{tmp_path}/server.db")
    with engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    engine.dispose()
    assert found == ["wal", 2]


def test_a_time_without_a_zone_is_refused() -> None:
    engine = db.make_engine("postgresql://nobody@localhost/none")
    with pytest.raises(ValueError, match="zone"):
        UtcTime().process_bind_param(datetime(2026, 1, 2), engine.dialect)  # noqa: DTZ001 - the point of the test
    engine.dispose()
