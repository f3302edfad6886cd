"""The statements of an ingest transaction: read and lock what it builds on, write what the ledger says.

Locks are taken in one order everywhere, so that the doors cannot hold each other up: counter mark, clients by uuid,
lanes by id. Rows of the log go in beside SQLAlchemy: many rows per statement on SQLite, COPY on PostgreSQL. What of it
all is history is written by chronicle.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from sqlalchemy import Connection, bindparam, exists, func, insert, select, text, update

from infoscreen_server import chronicle
from infoscreen_server.db import insert_or, is_sqlite, portions
from infoscreen_server.ledger import (
    LETTERS_AN_HOUR,
    UNKNOWN_CLIENT,
    Dead,
    Known,
    LaneKey,
    LaneState,
    Ledger,
    SectionKey,
)
from infoscreen_server.models import (
    Client,
    ClientLog,
    Counter,
    CounterMark,
    Daily,
    DeadLetter,
    Gap,
    IngestStat,
    Lane,
    time_text,
)
from infoscreen_server.rows import COLUMNS, Row
from infoscreen_shared.messages import LogLevel
from infoscreen_shared.topics import topic

COUNTER_LOCK = 0x1F05C0C7
"""Key of the PostgreSQL advisory lock under which rows are counted in (shared) and counted out (alone). A row lock
would do the same, but writes to the row at every ingest and lets a stream of readers keep the other side waiting."""
HOUR = timedelta(hours=1)
ROWS_A_STATEMENT = 100
"""Of a SQLite insert: measured 2.3 us a row, 4.5 us one by one; more gain nothing."""


def counter_mark(connection: Connection, *, alone: bool = False) -> datetime:
    """Where the sliding window begins; it cannot move until this transaction ends. `alone`: in order to move it."""
    if not is_sqlite(connection):
        function = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        connection.execute(text(f"SELECT {function}(:key)"), {"key": COUNTER_LOCK})
    return connection.execute(select(CounterMark.counted_out_to)).scalar_one()


def lock_clients(
    connection: Connection,
    uuids: set[str],
    registered_at: datetime,
    *,
    create: bool,
    named: Set[str] = frozenset(),
) -> dict[str, Known]:
    """Lock these clients, after creating those that are new if `create` says so. Returns what they were, by uuid.

    Of `named` those that are there are locked with them, and none is created.
    """
    columns = [getattr(Client, name) for name in Known._fields]
    statement = select(Client.uuid, *columns).order_by(Client.uuid).with_for_update(key_share=True)
    found: dict[str, Known] = {}
    # Twice: one that was there may be removed while its lock is waited for, and is a new one then.
    wanted = uuids | named
    for _attempt in range(2 if create else 1):
        if create:
            _create_missing(connection, sorted(uuids - found.keys()), registered_at)
        for some in portions(sorted(wanted)):
            for uuid, *values in connection.execute(statement.where(Client.uuid.in_(some))):
                found[uuid] = Known(*values)
        wanted = uuids - found.keys()
    return found


def _create_missing(connection: Connection, wanted: list[str], registered_at: datetime) -> None:
    """Before any is locked: one that waits here for another's new client must hold nothing that the other waits for."""
    known: set[str] = set()
    for some in portions(wanted):
        known.update(connection.scalars(select(Client.uuid).where(Client.uuid.in_(some))))
    rows = [{"uuid": uuid, "registered_at": registered_at, "online": False} for uuid in wanted if uuid not in known]
    if rows:
        connection.execute(insert_or(connection, Client).on_conflict_do_nothing(), rows)


def lock_lanes(connection: Connection, keys: Iterable[LaneKey], seen_at: datetime) -> dict[LaneKey, LaneState]:
    """Lock these lanes of locked clients, after creating those that are new."""
    wanted = sorted(keys)
    found: dict[LaneKey, LaneState] = {}
    for _attempt in range(2):
        missing = [key for key in wanted if key not in found]
        if not missing:
            break
        if _attempt:
            rows = [_new_lane(key, seen_at) for key in missing]
            connection.execute(insert_or(connection, Lane).on_conflict_do_nothing(), rows)
        for some in portions(missing):
            found.update(_lanes(connection, set(some)))
    return found


def _lanes(connection: Connection, keys: set[LaneKey]) -> dict[LaneKey, LaneState]:
    statement = (
        select(
            Lane.client_uuid,
            Lane.epoch,
            Lane.level,
            Lane.id,
            Lane.cursor,
            Lane.stored,
            Lane.unwanted,
            Lane.dead,
            Lane.gap,
            Lane.boot_id,
        )
        .where(Lane.client_uuid.in_({key[0] for key in keys}), Lane.epoch.in_({key[1] for key in keys}))
        .order_by(Lane.id)
        .with_for_update()
    )
    found = {(row[0], row[1], row[2]): LaneState(*row[3:]) for row in connection.execute(statement)}
    return {key: state for key, state in found.items() if key in keys}


def _new_lane(key: LaneKey, seen_at: datetime) -> dict[str, Any]:
    uuid, epoch, level = key
    zeros = dict.fromkeys(("cursor", "stored", "unwanted", "dead", "gap"), 0)
    return {"client_uuid": uuid, "epoch": epoch, "level": level, "first_seen": seen_at, "last_seen": seen_at, **zeros}


# --- writing ----------------------------------------------------------------------------------------------------------


def write(connection: Connection, ledger: Ledger, source: str) -> None:
    """All that the ledger says but for the log's rows, in the transaction that locked what it builds on."""
    at = ledger.received_at
    _write_lanes(connection, ledger.lanes.values(), at)
    if ledger.gaps:
        rows = [{"lane_id": lane, "first": gap.first, "last": gap.last, "recorded_at": at} for lane, gap in ledger.gaps]
        connection.execute(insert(Gap), rows)
    _write_dead(connection, ledger)
    _write_clients(connection, ledger.changes)
    _write_counts(connection, ledger)
    chronicle.write(connection, ledger.past, at)
    count(connection, source, ledger.stats)


Sink = Callable[[Mapping[SectionKey, list[Row]]], None]


@contextmanager
def log_sink(connection: Connection, received_at: datetime) -> Iterator[Sink]:
    """Takes rows of the log, portion after portion. Until the block ends the connection is good for nothing else.

    PostgreSQL works on a portion while the next one is prepared.
    """
    driver: Any = connection.connection.driver_connection
    received = time_text(received_at)
    if is_sqlite(connection):
        yield lambda sections: _insert_many(driver, sections, received)
        return
    copies: list[Any] = []
    with ExitStack() as stack:

        def write(sections: Mapping[SectionKey, list[Row]]) -> None:
            if not copies:
                cursor = stack.enter_context(driver.cursor())
                names = f"COPY {ClientLog.__tablename__} ({_NAMES}) FROM STDIN"
                copies.append(stack.enter_context(cursor.copy(names)))
            copies[0].write(_copy_text(sections, received).encode())

        yield write


_HEAD = ("client_uuid", "received_at", "level", "lane_id")
_NAMES = ",".join((*_HEAD, *COLUMNS))


def _insert_statement(rows: int) -> str:
    """The head is given once, ?1 to ?4; each row brings its own further values."""
    width = len(COLUMNS)
    bodies = (",".join(f"?{5 + row * width + column}" for column in range(width)) for row in range(rows))
    start = f"INSERT INTO {ClientLog.__tablename__} ({_NAMES}) VALUES "  # noqa: S608 - names of ours only
    return start + ",".join(f"(?1,?2,?3,?4,{b})" for b in bodies)


_FULL, _SINGLE = _insert_statement(ROWS_A_STATEMENT), _insert_statement(1)


def _insert_many(driver: Any, sections: Mapping[SectionKey, list[Row]], received_at: str) -> None:
    for (uuid, level, lane_id), rows in sections.items():
        # Plain text: sqlite3 binds a value of its own types three times as fast as one of a class made from them.
        head = (uuid, received_at, str(level), lane_id)
        whole = len(rows) - len(rows) % ROWS_A_STATEMENT
        for start in range(0, whole, ROWS_A_STATEMENT):
            values = chain(head, chain.from_iterable(rows[start : start + ROWS_A_STATEMENT]))
            driver.execute(_FULL, tuple(values))
        if whole < len(rows):
            driver.executemany(_SINGLE, [head + row for row in rows[whole:]])


def _copy_text(sections: Mapping[SectionKey, list[Row]], received_at: str) -> str:
    """PostgreSQL's text format: tab between fields, backslash before what has a meaning, \\N for NULL."""
    lines: list[str] = []
    add = lines.append
    for (uuid, level, lane_id), rows in sections.items():
        head = f"{uuid}\t{received_at}\t{level}\t{_NULL if lane_id is None else lane_id}\t"
        for when, device_when, code, message, context, seq, clock in rows:
            if not message.isprintable() or "\\" in message:
                message = _escape(message)  # noqa: PLW2901 - from here on the escaped one is meant
            # JSON text has no control characters.
            shown = _NULL if context is None else context.replace("\\", "\\\\")
            coded = _NULL if code is None else _escape(code)
            number = _NULL if seq is None else seq
            add(f"{head}{when}\t{device_when or _NULL}\t{coded}\t{message}\t{shown}\t{number}\t{clock or _NULL}\n")
    return "".join(lines)


_NULL = "\\N"


def _escape(field: str) -> str:
    return field.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _write_lanes(connection: Connection, lanes: Iterable[LaneState], seen_at: datetime) -> None:
    names = ("cursor", "stored", "unwanted", "dead", "gap", "boot_id")
    rows = [
        {"of_id": lane.id, "seen_at": seen_at, **{f"new_{name}": getattr(lane, name) for name in names}}
        for lane in lanes
        if lane.changed
    ]
    if rows:
        connection.execute(_UPDATE_LANES, rows)


_UPDATE_LANES = (
    update(Lane)
    .where(Lane.id == bindparam("of_id"))
    .values(
        last_seen=bindparam("seen_at"),
        **{name: bindparam(f"new_{name}") for name in ("cursor", "stored", "unwanted", "dead", "gap", "boot_id")},
    )
)


def _write_dead(connection: Connection, ledger: Ledger) -> None:
    at = ledger.received_at
    rows = [
        {
            "client_uuid": letter.uuid,
            "topic": letter.topic,
            "received_at": at,
            "reason": letter.reason,
            "payload": letter.payload,
            "lane_id": letter.lane_id,
            "seq": letter.seq,
        }
        for letter in _kept(connection, ledger.dead, at)
    ]
    for uuid in sorted(ledger.unknown):
        if not _told_lately(connection, uuid, at):
            name = topic(uuid, "#")
            rows.append(
                {"client_uuid": uuid, "topic": name, "received_at": at, "reason": UNKNOWN_CLIENT, "payload": ""}
            )
    for row in rows:
        row.setdefault("lane_id", None)
        row.setdefault("seq", None)
    if rows:
        connection.execute(insert(DeadLetter), rows)


def _kept(connection: Connection, letters: list[Dead], at: datetime) -> list[Dead]:
    """Without those that are more than LETTERS_AN_HOUR.

    Exact for clients that are locked; of what names none, two doors at once may keep some more.
    """
    bounded = {letter.uuid for letter in letters if not letter.stays}
    if not bounded:
        return letters
    told = Tally[tuple[str | None, str]]()
    columns = (DeadLetter.client_uuid, DeadLetter.reason, func.count())
    lately = select(*columns).where(DeadLetter.received_at > at - HOUR).group_by(*columns[:2])
    which = [DeadLetter.client_uuid.in_(some) for some in portions(sorted(filter(None, bounded)))]
    for condition in [*which, DeadLetter.client_uuid.is_(None)] if None in bounded else which:
        for uuid, reason, number in connection.execute(lately.where(condition)):
            told[uuid, reason] = number
    kept: list[Dead] = []
    for letter in letters:
        key = letter.uuid, letter.reason
        if letter.stays or told[key] < LETTERS_AN_HOUR:
            kept.append(letter)
            told[key] += 1
    return kept


def _told_lately(connection: Connection, uuid: str, at: datetime) -> bool:
    """A client that is not let in keeps trying; one letter an hour says so."""
    same = (DeadLetter.client_uuid == uuid) & (DeadLetter.reason == UNKNOWN_CLIENT)
    found = exists().where(same, DeadLetter.received_at > at - HOUR)
    return bool(connection.execute(select(found)).scalar())


def _write_clients(connection: Connection, changes: dict[str, dict[str, Any]]) -> None:
    """One UPDATE for all clients of which the same columns change."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for uuid in sorted(changes):
        values = changes[uuid]
        row = {f"new_{name}": value for name, value in values.items()}
        groups.setdefault(tuple(sorted(values)), []).append({"of_uuid": uuid, **row})
    for names, rows in groups.items():
        statement = update(Client).where(Client.uuid == bindparam("of_uuid"))
        connection.execute(statement.values({name: bindparam(f"new_{name}") for name in names}), rows)


def _write_counts(connection: Connection, ledger: Ledger) -> None:
    if ledger.counts:
        rows = [
            {"client_uuid": uuid} | {level.lower(): counts.get(level, 0) for level in LogLevel}
            for uuid, counts in sorted(ledger.counts.items())
        ]
        _add(connection, Counter, ("client_uuid",), tuple(level.lower() for level in LogLevel), rows)
    if ledger.days:
        days = [
            {"client_uuid": uuid, "day": datetime.fromisoformat(day).date(), "level": level, "n": number}
            for (uuid, day, level), number in sorted(ledger.days.items())
        ]
        _add(connection, Daily, ("client_uuid", "day", "level"), ("n",), days)


def subtract(connection: Connection, left: Iterable[Sequence[Any]]) -> None:
    """Take rows out of the counters, by client and level: they left the window, or go before that."""
    gone: dict[str, dict[LogLevel, int]] = {}
    for uuid, level, number in left:
        gone.setdefault(uuid, {})[level] = number
    for uuid, numbers in sorted(gone.items()):
        values = {level.lower(): getattr(Counter, level.lower()) - number for level, number in numbers.items()}
        connection.execute(update(Counter).where(Counter.client_uuid == uuid).values(values))


def count(connection: Connection, source: str, stats: dict[str, int]) -> None:
    """Add to ingest_stats."""
    if stats:
        rows = [{"source": source, "name": name, "n": number} for name, number in sorted(stats.items())]
        _add(connection, IngestStat, ("source", "name"), ("n",), rows)


def _add(
    connection: Connection,
    model: type[Any],
    key: tuple[str, ...],
    summed: tuple[str, ...],
    rows: list[dict[str, Any]],
) -> None:
    """Insert rows, or add their numbers to those that are there."""
    statement = insert_or(connection, model)
    sums = {name: getattr(model, name) + statement.excluded[name] for name in summed}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=sums), rows)
