"""How the server opens its database, and how the schema gets there.

Knows SQLite and PostgreSQL by their differences and nothing of what is kept in them; the tables are in models.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, create_engine, delete, event, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

T = TypeVar("T")

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
"""How long a SQLite connection waits for the one writer; housekeeping's and ingest's transactions are far shorter."""
CHUNK_ROWS = 2_000
"""Deleted in one transaction: about 100 ms of SQLite's one write lock on a slow disk."""
PAUSE_S = 0.12
"""Between two such transactions: longer than the 100 ms that SQLite lets a writer sleep before it looks for the lock
again, else ingest would find it taken time after time."""
MIGRATION_LOCK = 0x1F05C4E1
"""Key of the PostgreSQL advisory lock that lets one process migrate at a time."""


_URL_FORM = (
    "DATABASE_URL: expected sqlite:////path or postgresql://user:password@host/name, "
    "with %40, %3A and %2F for @, : and / in the password"
)


class DatabaseError(Exception):
    """The database that the settings name cannot be used. The text says why and never repeats a password."""


def make_engine(url: str, *, busy_s: float = BUSY_SECONDS, **options: Any) -> Engine:
    """An engine for a DATABASE_URL. Connects to nothing yet.

    A plain connection reads; `writing` opens one that writes. On SQLite each waits for the one writer for `busy_s`.
    Raises DatabaseError for a URL that cannot work.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed, busy_s, options)
    except (ArgumentError, ValueError):
        raise DatabaseError(_URL_FORM) from None
    if "@" in (parsed.host or ""):
        raise DatabaseError(_URL_FORM)
    backend = parsed.get_backend_name()
    if backend != "postgresql":
        raise DatabaseError(f"DATABASE_URL: {backend} is not supported, use sqlite or postgresql")
    return create_engine(parsed.set(drivername="postgresql+psycopg"), connect_args=dict(_POSTGRES), **options)


_POSTGRES = {
    "options": "-c timezone=UTC",
    "connect_timeout": 5,
    "application_name": "infoscreen-server",
    # A database host that loses power says nothing: after 30 s of silence, or 20 s (in ms) in which it took nothing of
    # what was sent, the connection is given up. The kernel alone would wait for two hours.
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's parameters, in seconds where nothing else is said (PostgreSQL manual, 34.1.2). Those of TCP mean nothing to a
socket in the file system."""


def _sqlite(url: URL, busy_s: float, options: dict[str, Any]) -> Engine:
    if not url.database or url.database == ":memory:":
        raise DatabaseError("DATABASE_URL: SQLite needs a file, sqlite:////path, that all processes can open")
    path = Path(url.database)
    if not path.parent.is_dir():
        raise DatabaseError(f"DATABASE_URL: the folder {path.parent} does not exist; create it, or name another path")
    engine = create_engine(url, connect_args={"timeout": busy_s, "check_same_thread": False}, **options)

    @event.listens_for(engine, "do_connect")
    def create_private(_dialect: object, _record: object, _args: object, _kwargs: object) -> None:
        # The file holds password hashes: not for everyone. SQLite gives its side files the same mode. One that is there
        # is not even opened: closing it would drop the locks of all connections that this process has (POSIX), and the
        # next process to leave would take away the log that they go on using.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640))

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        # sqlite3 would begin and commit on its own account; `begin` below does it instead.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock at once: one that only later turned from reader to writer could be refused.
        writer = connection.get_execution_options().get("writing")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-16000",
    "temp_store=MEMORY",
    # Longer runs of the log between checkpoints: fewer pages are written twice during a replay.
    "wal_autocheckpoint=4000",
    "journal_size_limit=67108864",
)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes: committed at the end of the block, rolled back if it raises."""
    with engine.connect() as connection:
        connection.execution_options(writing=True)
        with connection.begin():
            yield connection


def insert_or(connection: Connection, table: type[Any]) -> Any:
    """An INSERT that knows ON CONFLICT."""
    return sqlite.insert(table) if is_sqlite(connection) else postgresql.insert(table)


_PORTION = 5_000
"""Values in one IN list; far below what either database takes."""


def portions(values: list[T], size: int = _PORTION) -> Iterator[list[T]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def delete_some(connection: Connection, table: Any, which: ColumnElement[bool], limit: int) -> int:
    """Delete at most `limit` of these rows of a table with an `id`. Returns how many those were."""
    some = select(table.id).where(which).limit(limit)
    # Once more: PostgreSQL may wait for someone who changes a row, and looks again only at what is asked for out here.
    return connection.execute(delete(table).where(table.id.in_(some), which)).rowcount


def driver_of(engine: Engine) -> Any:
    """The database's driver (PEP 249). The other database's need not be installed."""
    return engine.dialect.loaded_dbapi


def faults(engine: Engine) -> tuple[type[Exception], ...]:
    """What is raised when the database fails, through SQLAlchemy or beside it."""
    return (DBAPIError, driver_of(engine).Error)


def is_sqlite(bind: Engine | Connection) -> bool:
    return bind.dialect.name == "sqlite"


# --- schema -----------------------------------------------------------------------------------------------------------


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema up to a revision: all of it or nothing. A second process that does the same waits its turn.

    Raises DatabaseError for an unknown revision or an unusable URL.
    """
    _migrate(url, "upgrade", revision)


def back_up(engine: Engine) -> Path | None:
    """Before a migration: copy the SQLite file beside itself, as `<file>.before-<revision>`, in place of older copies.

    None where there is nothing to copy or to migrate, and for PostgreSQL, whose people have backups of their own.
    """
    database, current = engine.url.database, revision(engine)
    if not is_sqlite(engine) or database is None or current in (None, head()):
        return None
    path = Path(database)
    copy, fresh = path.with_name(f"{path.name}.before-{current}"), path.with_name(f"{path.name}.copy")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(fresh)) as target:
        source.backup(target)
    for old in path.parent.glob(f"{path.name}.before-*"):
        old.unlink()
    fresh.replace(copy)
    return copy


def downgrade(url: str, revision: str) -> None:
    """Take the schema back to a revision, `base` for an empty database. What newer tables held is gone."""
    _migrate(url, "downgrade", revision)


def _migrate(url: str, verb: str, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    engine = make_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    try:
        with writing(engine) as connection:
            if not is_sqlite(connection):
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            getattr(command, verb)(config, revision)
    except CommandError as error:
        raise DatabaseError(f"migrate: {error}") from None
    finally:
        engine.dispose()


def revision(engine: Engine) -> str | None:
    """The revision that the database is at; None where it is empty."""
    from alembic.runtime.migration import MigrationContext

    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    """The revision that this version of the server needs."""
    from alembic.script import ScriptDirectory

    found = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert found is not None
    return found
