"""Databases with the made-up fleet's records in them: made once, used again for some hours, then made anew.

Filled beside the server, as fast as the database takes it, and left as the server would have left it: counters, daily,
issues, lanes, states and incidents agree with the log. Each run adds what it ingests.
"""

import hashlib
import json
import random
import shutil
import sqlite3
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Engine, insert, select, text, update

from bench import server_fleet
from bench.server_fleet import COLUMNS, DAYS, LEVELS, Fleet, Kiosk, Row, blocks
from infoscreen_server import db
from infoscreen_server.models import Client, ClientLog, ClientTag, Counter, CounterMark, Daily, Lane
from infoscreen_server.models_history import (
    Incident,
    IncidentEvent,
    IncidentKind,
    IssueCount,
    SpanKind,
    StateSpan,
)
from infoscreen_shared.messages import LogLevel, ProcessStatus, ScreenHealthStatus, timestamp_text
from parts.postgres import Postgres

FORM = 2
"""Of what is made here."""
FRESH_FOR = timedelta(hours=20)
"""Then too little of it would lie in the last 24 hours."""
GROWN = 0.2
"""By such a share of records added by runs it is no longer the size that it says."""
WINDOW = timedelta(hours=24)
EPOCH = "past"


@dataclass(frozen=True, slots=True)
class Database:
    url: str
    engine_name: str
    rows: int


def folder_of(base: Path) -> Path:
    """Another one for another schema, and for other data."""
    made_by = [Path(server_fleet.__file__), *sorted((db.MIGRATIONS / "versions").glob("*.py"))]
    content = hashlib.sha256(b"".join(path.read_bytes() for path in made_by)).hexdigest()
    return base / f"fleet-{db.head()}-{content[:8]}-{FORM}"


def sqlite_database(base: Path, fleet: Fleet, rows: int) -> Database:
    folder = folder_of(base) / "sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{rows}.db"
    url = f"sqlite:///{path}"
    if not _usable(url, path.with_suffix(".made"), rows):
        for old in folder.glob(f"{rows}.*"):
            old.unlink()
        _make(url, fleet, rows)
        path.with_suffix(".made").touch()
    return Database(url, "SQLite", rows)


def postgres_server(base: Path) -> Postgres:
    """Not started yet."""
    folder = folder_of(base) / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    return Postgres(folder)


def postgres_database(fleet: Fleet, rows: int, server: Postgres) -> Database:
    name = f"bench_{rows}"
    address = f"postgres@127.0.0.1:{server.port}"
    url = f"postgresql+psycopg://{address}/{name}"
    made = server.directory / f"{rows}.made"
    if not (made.exists() and _usable(url, made, rows)):
        made.unlink(missing_ok=True)
        with psycopg.connect(f"postgresql://{address}/postgres", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        _make(url, fleet, rows)
        made.touch()
    return Database(url, "PostgreSQL", rows)


def _usable(url: str, made: Path, rows: int) -> bool:
    if not made.exists() or time.time() - made.stat().st_mtime > FRESH_FOR.total_seconds():
        return False
    engine = db.make_engine(url)
    try:
        with engine.connect() as connection:
            last = connection.execute(select(ClientLog.id).order_by(ClientLog.id.desc()).limit(1)).scalar() or 0
        return rows <= last < rows * (1 + GROWN) + 200_000
    finally:
        engine.dispose()


def _make(url: str, fleet: Fleet, rows: int) -> None:
    db.upgrade(url)
    engine = db.make_engine(url)
    now = datetime.now(UTC)
    try:
        begin = now - timedelta(days=DAYS)
        figures = Figures(timestamp_text(now - WINDOW))
        histories = [_History(kiosk, number, begin, now) for number, kiosk in enumerate(fleet.kiosks)]
        fill = _fill_sqlite if db.is_sqlite(engine) else _fill_postgres
        fill(engine, "client_logs", COLUMNS, figures.of(blocks(fleet, rows, now)))
        with db.writing(engine) as connection:
            for table, values in _rest(fleet, figures, histories, now):
                for start in range(0, len(values), 50_000):
                    connection.execute(insert(table), values[start : start + 50_000])
            connection.execute(update(CounterMark).values(counted_out_to=now - WINDOW))
            if not db.is_sqlite(connection):
                connection.execute(text("SELECT setval('lanes_id_seq', max(id)) FROM lanes"))
        engine.dispose()  # SQLite leaves WAL for nobody who is not alone.
        fill(engine, "fact_samples", FACTS, (history.facts() for history in histories))
        if not db.is_sqlite(engine):
            # As autovacuum would after a while. The server asks SQLite for no statistics, so there are none here.
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM (ANALYZE)"))
                connection.execute(text("CHECKPOINT"))
    finally:
        engine.dispose()


# --- the large tables -------------------------------------------------------------------------------------------------


Rows = Iterable[Sequence[tuple[Any, ...]]]
"""In portions."""


def _fill_sqlite(engine: Engine, table: str, columns: Sequence[str], portions: Rows) -> None:
    places = ",".join("?" * len(columns))
    with closing(sqlite3.connect(engine.url.database or "", isolation_level=None)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-500000", "temp_store=FILE"):
            connection.execute(f"PRAGMA {pragma}")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL", (table,)
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.execute("BEGIN")
        for rows in portions:
            connection.executemany(f"INSERT INTO {table} ({','.join(columns)}) VALUES ({places})", rows)
        connection.execute("COMMIT")
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("PRAGMA journal_mode=WAL")


def _fill_postgres(engine: Engine, table: str, columns: Sequence[str], portions: Rows) -> None:
    plain = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as connection, connection.cursor() as cursor:
        cursor.execute("SET maintenance_work_mem = '1GB'")
        cursor.execute(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indrelid = %s::regclass AND NOT indisprimary",
            (table,),
        )
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        with cursor.copy(f"COPY {table} ({','.join(columns)}) FROM STDIN") as copy:
            for rows in portions:
                # Nothing in here has to be escaped but what is not there.
                lines = ["\t".join("\\N" if value is None else str(value) for value in row) for row in rows]
                copy.write("\n".join(lines) + "\n")
        for _, sql in indexes:
            cursor.execute(sql)


@dataclass(slots=True)
class Figures:
    """What the server would have counted of the records that passed."""

    mark: str
    days: "Tally[tuple[str, str, str]]" = field(default_factory=Tally)
    levels: "Tally[tuple[str, str]]" = field(default_factory=Tally)
    """Of the last 24 hours, as are the issues."""
    issues: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)
    """How many, the last one's time and its message."""

    def of(self, log: Iterator[list[Row]]) -> Iterator[list[Row]]:
        for rows in log:
            self.days.update((row[0], row[1][:10], row[3]) for row in rows)
            if rows[-1][1] > self.mark:
                self._count([row for row in rows if row[1] > self.mark])
            yield rows

    def _count(self, rows: list[Row]) -> None:
        self.levels.update((row[0], row[3]) for row in rows)
        for uuid, when, _received, level, code, message, *_ in rows:
            if level in ("ERROR", "WARN"):
                found = self.issues.setdefault((uuid, level, code or ""), [0, "", ""])
                found[0] += 1
                found[1], found[2] = when, message


# --- the others -------------------------------------------------------------------------------------------------------

_Tables = Iterator[tuple[type[Any], list[dict[str, Any]]]]


def _rest(fleet: Fleet, figures: Figures, histories: list["_History"], now: datetime) -> _Tables:
    begin = now - timedelta(days=DAYS)
    yield Client, [history.client() for history in histories]
    yield ClientTag, [{"client_uuid": kiosk.uuid, "tag": tag} for kiosk in fleet.kiosks for tag in kiosk.tags]
    yield Lane, list(_lanes(fleet, figures, begin, now))
    yield (
        Counter,
        [
            {"client_uuid": kiosk.uuid, "debug": 0}
            | {level.lower(): figures.levels[kiosk.uuid, level] for level in LEVELS}
            for kiosk in fleet.kiosks
        ],
    )
    yield (
        Daily,
        [
            {"client_uuid": uuid, "day": date.fromisoformat(day), "level": level, "n": n}
            for (uuid, day, level), n in figures.days.items()
        ],
    )
    yield (
        IssueCount,
        [
            {"client_uuid": uuid, "level": level, "code": code, "n": n, "last_message": message}
            | {"last_at": datetime.fromisoformat(when)}
            for (uuid, level, code), (n, when, message) in figures.issues.items()
        ],
    )
    for history in histories:
        history.write()
    yield StateSpan, [span for history in histories for span in history.spans]
    yield Incident, [incident for history in histories for incident in history.incidents]
    yield IncidentEvent, [one for history in histories for one in history.events]


def _lanes(fleet: Fleet, figures: Figures, begin: datetime, now: datetime) -> Iterator[dict[str, Any]]:
    stored: Tally[tuple[str, str]] = Tally()
    for (uuid, _day, level), n in figures.days.items():
        stored[uuid, level] += n
    seen = {"epoch": EPOCH, "first_seen": begin, "last_seen": now, "unwanted": 0, "dead": 0, "gap": 0}
    for client, kiosk in enumerate(fleet.kiosks):
        for place, level in enumerate(LEVELS):
            n = stored[kiosk.uuid, level]
            lane = client * len(LEVELS) + place + 1
            yield {"id": lane, "client_uuid": kiosk.uuid, "level": level, "cursor": n, "stored": n} | seen


FACTS = ("client_uuid", "at", "cpu_temperature", "load", "memory_available", "memory_total", "disk_free")


class _Trouble(NamedTuple):
    kind: SpanKind
    well: str
    ill: str
    incident: IncidentKind
    code: str
    message: str
    times: tuple[int, int]
    """From so many to so many in 90 days."""
    seconds: float
    """How long on average."""


_TROUBLES = (
    _Trouble(
        SpanKind.PROCESS,
        "running",
        "crashed",
        IncidentKind.PLAYER,
        "player.crashed",
        "the player crashed",
        (5, 40),
        30,
    ),
    _Trouble(
        SpanKind.SCREEN, "OK", "FROZEN", IncidentKind.SCREEN, "screen.frozen", "the picture stands still", (2, 20), 300
    ),
    _Trouble(SpanKind.LINK, "online", "offline", IncidentKind.LINK, "link.offline", "", (2, 30), 1_200),
)


class _History:
    """One kiosk's states and incidents: some of each kind in 90 days, and a few that still last."""

    def __init__(self, kiosk: Kiosk, number: int, begin: datetime, now: datetime) -> None:
        self.kiosk, self.begin, self.now = kiosk, begin, now
        self.chance = random.Random(number)
        self.crashed, self.frozen, self.offline = number % 50 == 7, number % 70 == 9, number % 60 == 11
        """Whether it is so now."""
        self.spans: list[dict[str, Any]] = []
        self.incidents: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def client(self) -> dict[str, Any]:
        kiosk = self.kiosk
        system = {"hostname": kiosk.hostname, "cpu_temperature": 51.5, "load": [0.4, 0.3, 0.3], "uptime_s": 512_000}
        return {
            "uuid": kiosk.uuid,
            "hostname": kiosk.hostname,
            "name": kiosk.name,
            "location": kiosk.location,
            "registered_at": self.begin,
            "last_alive": self.now - timedelta(hours=3 if self.offline else 0),
            "online": not self.offline,
            "version": "0.1.0",
            "current_event_id": 42,
            "current_event_type": "video",
            "current_process": "mpv",
            "process_status": ProcessStatus.CRASHED if self.crashed else ProcessStatus.RUNNING,
            "process_pid": 812,
            "screen_health_status": ScreenHealthStatus.FROZEN if self.frozen else ScreenHealthStatus.OK,
            "system": json.dumps(system),
            "state_at": self.now - timedelta(hours=3),
        }

    def write(self) -> None:
        for trouble, lasts in zip(_TROUBLES, (self.crashed, self.frozen, self.offline), strict=True):
            self._times(trouble, lasts)

    def _times(self, trouble: "_Trouble", lasts: bool) -> None:
        """Bad times apart from each other, and perhaps one that lasts."""
        count = self.chance.randrange(*trouble.times)
        length = (self.now - self.begin) / (count + 1)
        reached = self.begin
        for number in range(1, count + 1):
            began = self.begin + number * length
            still = lasts and number == count
            ended = (
                None
                if still
                else began + min(length / 2, timedelta(seconds=self.chance.expovariate(1 / trouble.seconds)))
            )
            self._span(trouble.kind, trouble.well, reached, began)
            self._span(trouble.kind, trouble.ill, began, ended)
            self._incident(trouble, began, ended)
            reached = ended or self.now
        if not lasts:
            self._span(trouble.kind, trouble.well, reached, None)

    def _span(self, kind: SpanKind, state: str, began: datetime, ended: datetime | None) -> None:
        span = {"client_uuid": self.kiosk.uuid, "kind": kind, "state": state, "began_at": began, "ended_at": ended}
        self.spans.append(span)

    def _incident(self, trouble: "_Trouble", began: datetime, ended: datetime | None) -> None:
        kind, mine = trouble.incident, {"client_uuid": self.kiosk.uuid}
        what = {"code": trouble.code, "message": trouble.message}
        last = {"restarts": 1, "last_event_at": ended or began}
        self.incidents.append(mine | what | last | {"kind": kind, "began_at": began, "ended_at": ended})
        if kind is IncidentKind.LINK:
            return
        self.events.append(mine | what | {"at": began, "level": LogLevel.ERROR, "detail": None})
        if ended is not None:
            code = "player.started" if kind is IncidentKind.PLAYER else "screen.recovered"
            end = {"code": code, "message": "", "at": ended, "level": LogLevel.INFO, "detail": '{"pid":812}'}
            self.events.append(mine | end)

    def facts(self) -> list[tuple[Any, ...]]:
        """In the order of FACTS, every five minutes of a week."""
        first = self.now.replace(minute=0, second=0, microsecond=0) - timedelta(days=7) + timedelta(hours=1)
        times = (first + number * timedelta(minutes=5) for number in range((self.now - first) // timedelta(minutes=5)))
        draw, uuid = self.chance.random, self.kiosk.uuid
        return [
            (uuid, timestamp_text(at), 40 + 20 * draw(), draw(), int(2e9 + 5e8 * draw()), 4_000_000_000, 9_000_000_000)
            for at in times
        ]


def remove_old(base: Path) -> None:
    """What other schemas left behind."""
    for old in base.glob("fleet-*"):
        if old != folder_of(base):
            shutil.rmtree(old, ignore_errors=True)
