"""One client's log, newest first: by level, code, time and text, a page at a time.

Levels and times are what the indexes know: such a page costs the same however long the log is. Codes and text are not
in any index, which would have to be written at every ingest. A search for them walks the client's log backwards in
portions, stops when its time is up, and says how far it came: no request takes long, and none leaves out a record
without saying so.

Databases differ in what they take for the same letter, so they only sort out what cannot match: by a part of the text
that is plain ASCII, in which they agree. What does match is decided here.
"""

import heapq
import json
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, collate, or_, select, tuple_

from infoscreen_server.db import is_sqlite
from infoscreen_server.models import ClientLog
from infoscreen_server.queries import Cursor, time_text
from infoscreen_shared.messages import LogLevel, clean, timestamp_text

STATEMENT_MS = 2_000
"""After which PostgreSQL gives up one portion: a backstop, a portion is made to take a fraction of it."""
SHORT_S, LONG_S = 0.025, 0.1
"""After a portion that took less the next is larger, after one that took more it is smaller: on SQLite the process does
nothing else meanwhile."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much one search may do."""

    seconds: float = 0.3
    """No further portion is begun that would take longer, going by the last one; the first one always is."""
    rows: int = 250
    """In the first portion, of each level, and at least in all: a slow disk reads so many before STATEMENT_MS is up."""
    most_rows: int = 1_000
    """In a later portion. Each may have to be fetched from elsewhere on the disk: measured 10 us where it is in memory,
    100 us where it is not."""


@dataclass(frozen=True, slots=True)
class LogPage:
    logs: list[dict[str, Any]]
    following: Cursor | None
    """Where the next page begins; None if there is nothing older."""
    searched_to: datetime | None = None
    """Where the search stopped because its time was up; the page may then be short, or empty, and is not the last."""


COLUMNS = (
    ClientLog.id,
    ClientLog.timestamp,
    ClientLog.level,
    ClientLog.code,
    ClientLog.message,
    ClientLog.context,
    ClientLog.received_at,
    ClientLog.device_timestamp,
    ClientLog.clock,
)


def log_of(row: Row[Any]) -> dict[str, Any]:
    """A row with COLUMNS, as the API shows it."""
    return {
        "id": row.id,
        "timestamp": timestamp_text(row.timestamp),
        "level": row.level,
        "message": row.message,
        "context": json.loads(row.context) if row.context else {},
        "code": row.code,
        "received_at": timestamp_text(row.received_at),
        "device_timestamp": time_text(row.device_timestamp),
        "clock": row.clock,
    }


def search(
    connection: Connection,
    uuid: str,
    *,
    levels: Collection[LogLevel] = (),
    codes: Collection[str] = (),
    text: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    before: Cursor | None = None,
    limit: int,
    effort: Effort | None = None,
) -> LogPage:
    """Records of these levels and codes (none: of all), with `text` in message, code or context.

    Not older than `since`, older than `until` and than the place `before`. Text is compared as it stands, wildcards
    have no meaning in it, without regard to case.
    """
    log = _Log(connection, uuid, levels)
    upper = Cursor(until, 0) if until is not None and (before is None or until <= before.timestamp) else before
    within = _Range(None if since is None else Cursor(since, 0), upper)
    wanted = Filter(codes, text)
    if wanted.lets_all_pass:
        return _page(log.rows(within, count=limit + 1), limit)
    return _walk(log, wanted, within, limit, effort or Effort())


def _walk(log: "_Log", wanted: "Filter", within: "_Range", limit: int, effort: Effort) -> LogPage:
    log.limit_statements()
    deadline = time.monotonic() + effort.seconds
    conditions = wanted.conditions(log.connection)
    size = effort.rows
    found: list[Row[Any]] = []
    while True:
        began = time.monotonic()
        end = log.portion_end(within, size)
        found += _matching(log, wanted, conditions, _Range(end or within.older, within.newer), limit + 1 - len(found))
        if end is None or len(found) > limit:
            return _page(found, limit)
        now = time.monotonic()
        took_s, last = now - began, size
        if took_s < SHORT_S:
            size = min(2 * size, max(effort.rows, effort.most_rows))
        elif took_s > LONG_S:
            size = max(effort.rows, size // 2)
        if now + took_s * size / last > deadline:
            return LogPage([log_of(row) for row in found], end, end.timestamp)
        within = _Range(within.older, end)
        time.sleep(0)  # Under gevent: the other requests of this process have their turn.


def _matching(
    log: "_Log", wanted: "Filter", conditions: Sequence[ColumnElement[bool]], within: "_Range", count: int
) -> list[Row[Any]]:
    """The newest `count` of a portion that match, or all. No more rows are fetched than have to be: each may lie
    elsewhere on the disk."""
    found: list[Row[Any]] = []
    asked = count
    while True:
        rows = log.rows(within, conditions, asked)
        found += [row for row in rows if wanted.matches(row)]
        if len(rows) < asked or len(found) >= count:
            return found[:count]
        within = _Range(within.older, Cursor(rows[-1].timestamp, rows[-1].id))
        asked *= 2  # The conditions let much pass that does not match.


def _page(rows: Sequence[Row[Any]], limit: int) -> LogPage:
    page = rows[:limit]
    following = Cursor(page[-1].timestamp, page[-1].id) if len(rows) > limit else None
    return LogPage([log_of(row) for row in page], following)


class _Range(NamedTuple):
    """Places in a log: from `older`, this one included, to just before `newer`; None where it has no bound."""

    older: Cursor | None
    newer: Cursor | None


class _Log:
    """One client's log along its indexes."""

    def __init__(self, connection: Connection, uuid: str, levels: Collection[LogLevel]) -> None:
        self.connection = connection
        of_client = ClientLog.client_uuid == uuid
        some = set() if set(levels) == set(LogLevel) else set(levels)
        self.walks: list[ColumnElement[bool]] = [of_client & (ClientLog.level == level) for level in sorted(some)]
        """One for each level, merged: one walk for all would pass thousands of INFO for one ERROR."""
        if not self.walks:
            self.walks = [of_client]

    def rows(
        self, within: _Range, conditions: Sequence[ColumnElement[bool]] = (), count: int | None = None
    ) -> list[Row[Any]]:
        """At most `count` rows of the range that meet the conditions, newest first."""
        runs = [
            self.connection.execute(_newest_first(select(*COLUMNS), walk, within).where(*conditions).limit(count)).all()
            for walk in self.walks
        ]
        return list(heapq.merge(*runs, key=lambda row: (row.timestamp, row.id), reverse=True))[:count]

    def portion_end(self, within: _Range, size: int) -> Cursor | None:
        """How far back one may go and pass at most `size` rows of each walk; None: to the range's end.

        Answered by an index alone.
        """
        ends = []
        for walk in self.walks:
            statement = _newest_first(select(ClientLog.timestamp, ClientLog.id), walk, within)
            row = self.connection.execute(statement.offset(size - 1).limit(1)).first()
            if row is not None:
                ends.append(Cursor(row.timestamp, row.id))
        return max(ends, default=None)

    def limit_statements(self) -> None:
        if not is_sqlite(self.connection):
            self.connection.exec_driver_sql(f"SET LOCAL statement_timeout = {STATEMENT_MS}")


def _newest_first(statement: Select[Any], walk: ColumnElement[bool], within: _Range) -> Select[Any]:
    place = tuple_(ClientLog.timestamp, ClientLog.id)
    statement = statement.where(walk).order_by(ClientLog.timestamp.desc(), ClientLog.id.desc())
    if within.older is not None:
        statement = statement.where(place >= within.older.bound)
    return statement if within.newer is None else statement.where(place < within.newer.bound)


# --- text -------------------------------------------------------------------------------------------------------------

_ALONE = re.compile("([\u017f\u212a\u0130\u0149\u01f0\u1e96-\u1e9a\ufb00-\ufb06])")
"""Long s, Kelvin sign, ligatures and the like: letters beyond ASCII that become ASCII ones when folded."""


def folded(text: str) -> str:
    """Text as it is compared: without regard to case, and ss for ß as its capitals have it.

    Ligatures and the like stand for themselves alone. So whatever is ASCII in here is that in the original, but for ss.

    >>> folded("GRÖSSE") == folded("Größe")
    True
    """
    if text.isascii():
        return text.lower()
    return "".join(part if number % 2 else part.casefold() for number, part in enumerate(_ALONE.split(text)))


_UNSURE = re.compile(r'ss+|^s|s$|[^\x20-\x7e]+|["\\]+')
"""Where a record may look otherwise: what may be ß or the half of one, all beyond ASCII, and what JSON escapes."""


class Filter:
    """Which records have one of these codes (none: any) and this text (none: any) in message, code or context."""

    def __init__(self, codes: Collection[str] = (), text: str = "") -> None:
        self.codes = frozenset(map(clean, codes))
        text = clean(text)
        self._text = folded(text)
        self._in_json = folded(json.dumps(text, ensure_ascii=False)[1:-1])
        self._sure = max(_UNSURE.split(self._text), key=len)
        """The longest part that a record which matches has just so, but for the case of A to Z."""

    @property
    def lets_all_pass(self) -> bool:
        return not self.codes and not self._text

    @property
    def database_decides(self) -> bool:
        """Whether all that meets `conditions` matches."""
        return self._sure == self._text

    def conditions(self, connection: Connection) -> list[ColumnElement[bool]]:
        """Met by all that matches, and by little else."""
        found: list[ColumnElement[bool]] = []
        if self.codes:
            found.append(ClientLog.code.in_(sorted(self.codes)))
        if self._sure:
            pattern = "%" + re.sub("([%_!])", r"!\1", self._sure) + "%"
            fields: list[Any] = [ClientLog.message, ClientLog.code, ClientLog.context]
            if is_sqlite(connection):
                found.append(or_(*(field.like(pattern, escape="!") for field in fields)))
            else:
                # With this collation ILIKE folds A to Z alone, whatever the database's own is. So does SQLite's LIKE.
                found.append(or_(*(collate(field, "C").ilike(pattern, escape="!") for field in fields)))
        return found

    def matches(self, row: Row[Any]) -> bool:
        if self.codes and row.code not in self.codes:
            return False
        if self._text in folded(row.message) or self._text in folded(row.code or ""):
            return True
        # A context is kept as JSON, where a quotation mark has a backslash before it; one may look for either.
        context = folded(row.context or "")
        return self._in_json in context or self._text in context
