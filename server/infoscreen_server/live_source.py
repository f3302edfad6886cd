"""What the live view reads: rows that were not read before, and what someone missed who comes back.

When to look is said by live_signal, who gets what by live.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, func, or_, select

from infoscreen_server.db import is_sqlite
from infoscreen_server.log_search import COLUMNS, Filter
from infoscreen_server.models import Client, ClientLog
from infoscreen_server.models_history import StateSpan
from infoscreen_server.queries import label_of
from infoscreen_server.tail import Span, Tail
from infoscreen_shared.messages import LogLevel

MAX_LOGS, MAX_STATES = 1_000, 5_000
"""Read at a time, the newest; a burst of more is cut."""
RECALLED = 1_000
"""Newest rows among which a reader that begins looks for gaps."""
MAX_CLIENTS = 500
"""Whose change is told one by one; of more at a time a viewer only hears that there were many."""
MISSED_LOGS, MISSED_IDS = 500, 50_000
"""What someone who comes back gets of what was missed, and how many ids are looked through for it."""
_PORTION = 5_000


# --- reading ----------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    columns: tuple[Any, ...]
    limit: int

    @property
    def id(self) -> Any:
        return self.columns[0]


LOGS = Table((*COLUMNS, ClientLog.client_uuid), MAX_LOGS)
STATES = Table((StateSpan.id, StateSpan.client_uuid), MAX_STATES)


def begin(connection: Connection, table: Table, now: float) -> Tail:
    """Where the table ends. Of the newest rows also what is not visible yet and may come."""
    in_order = is_sqlite(connection)
    newest = select(table.id).order_by(table.id.desc()).limit(1 if in_order else RECALLED)
    ids = connection.scalars(newest).all()[::-1]
    tail = Tail(ids[0] if ids else 0, in_order=in_order)
    for number in ids:
        tail.see(number, now)
    tail.given_up = 0
    return tail


def highest(connection: Connection) -> int:
    """The highest id of the log."""
    return connection.execute(select(func.max(LOGS.id))).scalar() or 0


def position(connection: Connection) -> str:
    """For a page: what it reads after this, and a stream that begins here, leave nothing out between them."""
    return "/".join(begin(connection, table, 0.0).position.text() for table in (LOGS, STATES))


@dataclass(frozen=True, slots=True)
class News:
    """Rows that were not read before, in the order in which they are to be noted; ids up to `skipped_to` are not among
    them because there were too many."""

    rows: list[Row[Any]] = field(default_factory=list)
    skipped_to: int = 0
    held: bool = False
    """There are more, which are to be read in a moment."""


def news(connection: Connection, table: Table, tail: Tail, now: float) -> News:
    # Gaps are read last: where both are there, what was committed first must not be missed beside what came after it.
    statement = select(*table.columns).where(table.id > tail.high).order_by(table.id.desc()).limit(table.limit + 1)
    rows = list(connection.execute(statement))[::-1]
    skipped_to = 0
    if len(rows) > table.limit:
        skipped_to, rows = rows[0].id, rows[1:]
    ready = len(rows) if skipped_to else tail.ready([row.id for row in rows], now)
    filled = _in_spans(connection, table, tail.position.gaps)
    return News([*filled, *rows[:ready]], skipped_to, ready < len(rows))


def _in_spans(connection: Connection, table: Table, spans: Collection[Span]) -> list[Row[Any]]:
    if not spans:
        return []
    statement = select(*table.columns).where(_within(table, spans)).order_by(table.id)
    return list(connection.execute(statement))


def _within(table: Table, spans: Iterable[Span]) -> ColumnElement[bool]:
    return or_(*(table.id.between(first, last) for first, last in spans))


def labels(connection: Connection, uuids: Collection[str]) -> dict[str, str]:
    """What people call these clients."""
    if not uuids:
        return {}
    statement = select(Client.uuid, Client.name, Client.hostname).where(Client.uuid.in_(uuids))
    return {uuid: label_of(name, hostname, uuid) for uuid, name, hostname in connection.execute(statement)}


# --- what one viewer wants --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What a viewer is to be shown; no uuid, level or code: of all."""

    logs: bool = True
    clients: bool = True
    uuid: str | None = None
    levels: frozenset[LogLevel] = frozenset()
    codes: frozenset[str] = frozenset()
    text: str = ""

    def filter(self) -> Callable[[Row[Any]], bool]:
        """Whether a row of LOGS is wanted."""
        content = Filter(self.codes, self.text)

        def wanted(row: Row[Any]) -> bool:
            return (
                self.logs
                and (self.uuid is None or row.client_uuid == self.uuid)
                and (not self.levels or row.level in self.levels)
                and (content.lets_all_pass or content.matches(row))
            )

        return wanted

    def conditions(self, connection: Connection) -> list[ColumnElement[bool]]:
        """Met by all log rows that are wanted, and by few others."""
        found = Filter(self.codes, self.text).conditions(connection)
        if self.uuid is not None:
            found.append(ClientLog.client_uuid == self.uuid)
        if self.levels:
            found.append(ClientLog.level.in_(sorted(self.levels)))
        return found


class Missed(NamedTuple):
    rows: list[Row[Any]]
    """In the order of their ids."""
    more: int
    """Records at most that are not among them: nobody looked further back."""


def missed_logs(connection: Connection, spans: Sequence[Span], wish: Wish, limit: int = MISSED_LOGS) -> Missed:
    """The newest rows in these spans that are wanted, within bounds."""
    wanted, conditions = wish.filter(), wish.conditions(connection)
    exact = Filter(wish.codes, wish.text).database_decides
    found: list[Row[Any]] = []
    looked_to = 0
    for first, last in _windows(spans):
        statement = select(*LOGS.columns).where(LOGS.id.between(first, last), *conditions)
        rows = connection.execute(statement.order_by(LOGS.id.desc()).limit(limit + 1 - len(found) if exact else None))
        found += [row for row in rows if wanted(row)]
        looked_to = first
        if len(found) > limit:
            looked_to = found[limit - 1].id
            break
        time.sleep(0)  # Under gevent: the other requests of this process have their turn.
    more = sum(max(0, min(last, looked_to - 1) - first + 1) for first, last in spans) if looked_to else 0
    return Missed(found[:limit][::-1], more)


def newest_logs(connection: Connection, wish: Wish, limit: int) -> Missed:
    """The newest rows that are wanted, as far as they are among the newest of all."""
    return missed_logs(connection, [(1, highest(connection))], wish, limit)


def _windows(spans: Sequence[Span]) -> Iterator[Span]:
    """From the newest ids to older ones, in portions, until enough was looked through."""
    left = MISSED_IDS
    for first, last in reversed(spans):
        while last >= first and left > 0:
            begin = max(first, last - min(left, _PORTION) + 1)
            yield begin, last
            left -= last - begin + 1
            last = begin - 1  # noqa: PLW2901 - what is left of this span


def missed_clients(connection: Connection, spans: Sequence[Span], uuid: str | None) -> list[str] | None:
    """Whose state changed; None where that are too many to be told one by one."""
    windows = list(_windows(spans))
    if sum(last - first + 1 for first, last in windows) < sum(last - first + 1 for first, last in spans):
        return None
    if not windows:
        return []
    statement = select(StateSpan.client_uuid).where(_within(STATES, windows)).distinct().limit(MAX_CLIENTS + 1)
    if uuid is not None:
        statement = statement.where(StateSpan.client_uuid == uuid)
    uuids = connection.scalars(statement).all()
    return None if len(uuids) > MAX_CLIENTS else sorted(uuids)
