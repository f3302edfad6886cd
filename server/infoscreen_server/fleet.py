"""The fleet as people look at it: who needs someone first, found by state, tag, place and text, and how many there are.

One statement finds and orders a page of clients out of their newest states; no log is read. Which names and tags a
client was given is for labels, how it is drawn for pages.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    String,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    tuple_,
)

from infoscreen_server import queries
from infoscreen_server.db import is_sqlite
from infoscreen_server.i18n import lazy
from infoscreen_server.models import Client, ClientTag, Counter, UtcTime
from infoscreen_server.models_history import Incident
from infoscreen_server.wording import FieldError
from infoscreen_shared.messages import ProcessStatus, ScreenHealthStatus, clean

PAGE = 50
MAX_TEXT = 100
MOST_KNOWN = 100


class State(StrEnum):
    """What one may look for. A client is in one of the first three, and in others beside that; of one that is offline
    nothing else counts."""

    PROBLEM = "problem"
    """Needs someone: offline, or crashed, black, frozen, in an incident."""
    IDLE = "idle"
    """Neither fails nor plays, as far as is known: starting, stopped, unknown, never seen."""
    FINE = "fine"
    RUNNING = "running"
    CRASHED = "crashed"
    STARTING = "starting"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    """Tells no state of its player."""
    BLACK = "black"
    FROZEN = "frozen"
    UNSEEN = "unseen"
    """Its screen cannot be looked at."""
    OFFLINE = "offline"
    """Not heard of for three heartbeats, though it was before."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which clients; None and empty text ask for nothing."""

    state: State | None = None
    tag: str | None = None
    location: str | None = None
    text: str = ""
    """In name, hostname, uuid, location or process, as it stands, without regard to case."""


class Place(NamedTuple):
    """Behind this client in the order of the page. Opaque to callers."""

    rank: int
    name: str
    uuid: str

    def encoded(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(list(self)).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises ValueError.

        >>> Place.parse(Place(0, "foyer", "0b6c").encoded())
        Place(rank=0, name='foyer', uuid='0b6c')
        """
        try:
            found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        except (binascii.Error, ValueError, RecursionError):
            found = None
        if isinstance(found, list) and len(found) == 3:
            rank, name, uuid = found
            if rank in (0, 1, 2) and isinstance(name, str) and isinstance(uuid, str):
                return cls(int(rank), clean(name), clean(uuid))
        raise ValueError("expected the `next` of an earlier answer")


@dataclass(frozen=True, slots=True)
class At:
    """When, and for how long a client may be silent until it counts as offline."""

    now: datetime
    silence: float


@dataclass(frozen=True, slots=True)
class FleetPage:
    clients: list[dict[str, Any]]
    """As the API shows them, and beside that: label, seen, needs_someone, incident, errors, warnings."""
    following: Place | None


# --- what is asked ----------------------------------------------------------------------------------------------------


_SEEN = Client.last_alive.is_not(None)
_CRASHED = Client.process_status == ProcessStatus.CRASHED
_BLANK = Client.screen_health_status.in_((ScreenHealthStatus.BLACK, ScreenHealthStatus.FROZEN))
_IN_INCIDENT = exists().where(
    Incident.client_uuid == Client.uuid, Incident.ended_at.is_(None), Incident.kind.in_(("player", "screen"))
)


def _is(state: State, online: ColumnElement[bool]) -> ColumnElement[bool]:
    broken = or_(func.coalesce(or_(_CRASHED, _BLANK), false()), _IN_INCIDENT)
    runs = func.coalesce(Client.process_status == ProcessStatus.RUNNING, false())
    match state:
        case State.PROBLEM:
            return and_(_SEEN, or_(not_(online), broken))
        case State.FINE:
            return and_(online, not_(broken), runs)
        case State.IDLE:
            return and_(not_(_is(State.PROBLEM, online)), not_(_is(State.FINE, online)))
        case State.OFFLINE:
            return and_(_SEEN, not_(online))
        case State.NEVER:
            return not_(_SEEN)
        case State.UNKNOWN:
            return and_(online, Client.process_status.is_(None))
        case State.BLACK | State.FROZEN:
            return and_(online, Client.screen_health_status == ScreenHealthStatus(state.upper()))
        case State.UNSEEN:
            untold = Client.screen_health_status.is_(None)
            return and_(online, or_(untold, Client.screen_health_status == ScreenHealthStatus.UNKNOWN))
        case _:
            return and_(online, Client.process_status == ProcessStatus(state))


def _rank(at: At) -> ColumnElement[int]:
    online = queries.is_online(at.now, at.silence)
    return case((_is(State.PROBLEM, online), 0), (_is(State.FINE, online), 2), else_=1)


_NAME: ColumnElement[str] = func.lower(func.coalesce(Client.name, Client.hostname, Client.uuid), type_=String())


def conditions(connection: Connection, wanted: Wanted, at: At) -> list[ColumnElement[bool]]:
    """What a client has to meet; for every list of clients that can be filtered."""
    found = _beside_state(connection, wanted)
    if wanted.state is not None:
        found.append(_is(wanted.state, queries.is_online(at.now, at.silence)))
    return found


def _beside_state(connection: Connection, wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.tag:
        found.append(exists().where(ClientTag.client_uuid == Client.uuid, ClientTag.tag == clean(wanted.tag)))
    if wanted.location:
        found.append(Client.location == clean(wanted.location))
    text = clean(wanted.text.strip()[:MAX_TEXT])
    if text:
        fields = (Client.name, Client.hostname, Client.uuid, Client.location, Client.current_process)
        found.append(or_(*(_contains(connection, field, text) for field in fields)))
    return found


def _contains(connection: Connection, field: Any, text: str) -> ColumnElement[bool]:
    """LIKE knows only the capitals of ASCII on SQLite, and on PostgreSQL those of the database's language. A class of
    both letters, `[öÖ]`, means the same everywhere."""
    if is_sqlite(connection):
        pattern = "*" + "".join(_either(letter) or _IN_GLOB.get(letter, letter) for letter in text) + "*"
        return and_(field.is_not(None), field.op("GLOB", is_comparison=True)(pattern))
    pattern = "".join(_either(letter) or re.escape(letter) for letter in text)
    return and_(field.is_not(None), field.op("~", is_comparison=True)(pattern))


_IN_GLOB = {"*": "[*]", "?": "[?]", "[": "[[]"}


def _either(letter: str) -> str | None:
    """
    >>> _either("ö"), _either("ß"), _either("%")
    ('[Öö]', None, None)
    """
    both = sorted({each for each in (letter, letter.lower(), letter.upper()) if len(each) == 1})
    return f"[{''.join(both)}]" if len(both) > 1 else None


# --- what is answered -------------------------------------------------------------------------------------------------


def page(connection: Connection, wanted: Wanted, at: At, after: Place | None = None, limit: int = PAGE) -> FleetPage:
    """Clients, those first that need someone, then those that neither play nor fail, within that by name.

    A client whose rank or name changes between two pages may be met twice or not at all; no other is.
    """
    rank = _rank(at)
    columns = [rank.label("rank"), _NAME.label("sort_name"), _IN_INCIDENT.label("incident")]
    counts = [func.coalesce(Counter.error, 0).label("errors"), func.coalesce(Counter.warn, 0).label("warnings")]
    statement = (
        select(*queries.CLIENT_COLUMNS, *columns, *counts)
        .outerjoin(Counter, Counter.client_uuid == Client.uuid)
        .where(*conditions(connection, wanted, at))
        .order_by(rank, _NAME, Client.uuid)
        .limit(limit + 1)
    )
    if after is not None:
        place: tuple[Any, ...] = (
            bindparam(None, after.rank, Integer()),
            bindparam(None, after.name),
            bindparam(None, after.uuid),
        )
        statement = statement.where(tuple_(rank, _NAME, Client.uuid) > tuple_(*place))
    rows = connection.execute(statement).all()
    shown = rows[:limit]
    tags = queries.tags_of(connection, [row.uuid for row in shown])
    clients = [
        queries.client_of(row, at.now, at.silence, tags.get(row.uuid, []))
        | {
            "label": queries.label_of(row.name, row.hostname, row.uuid),
            "seen": row.last_alive is not None,
            "needs_someone": row.rank == 0,
            "incident": bool(row.incident),
            "errors": row.errors,
            "warnings": row.warnings,
        }
        for row in shown
    ]
    last = shown[-1] if len(rows) > limit else None
    return FleetPage(clients, None if last is None else Place(last.rank, last.sort_name, last.uuid))


def counts(connection: Connection, wanted: Wanted, at: At) -> dict[str, int]:
    """How many clients are in each state, and `all`; the state that is wanted does not count, all else does."""
    statement = _COUNTS.where(*_beside_state(connection, wanted))
    row = connection.execute(statement, {"heard_since": at.now - timedelta(seconds=at.silence)}).one()
    return {name: int(number) for name, number in row._mapping.items()}


_HEARD = Client.online.is_(True) & (Client.last_alive >= bindparam("heard_since", type_=UtcTime()))
_COUNTS = select(
    func.count().label("all"),
    *(func.coalesce(func.sum(case((_is(state, _HEARD), 1), else_=0)), 0).label(state) for state in State),
).select_from(Client)
"""Put together once: that takes longer than to run it on a thousand clients."""


def log_counts(connection: Connection, uuid: str) -> dict[str, int]:
    """Of one client, by level, its records of the last 24 hours."""
    columns = (Counter.error.label("ERROR"), Counter.warn.label("WARN"), Counter.info.label("INFO"))
    row = connection.execute(select(*columns).where(Counter.client_uuid == uuid)).first()
    return dict(row._mapping) if row else dict.fromkeys(("ERROR", "WARN", "INFO"), 0)


def called(connection: Connection, asked: str) -> list[str]:
    """The uuids of the clients that have this as their uuid, name or hostname. Two at most: one is meant."""
    text = clean(asked)
    same = or_(Client.uuid == text.lower(), Client.name == text, Client.hostname == text)
    return list(connection.scalars(select(Client.uuid).where(same).limit(2)))


def meant(connection: Connection, asked: str, field: str) -> str:
    """The uuid of the one client that is called so. Raises FieldError, about `field`."""
    found = called(connection, asked)
    if not found:
        raise FieldError(field, lazy("there is no such client; expected its name, hostname or uuid"))
    if len(found) > 1:
        raise FieldError(field, lazy("there are several clients of this name; take the uuid"))
    return found[0]


class Known(NamedTuple):
    tags: list[str]
    locations: list[str]


def known(connection: Connection) -> Known:
    """What people may choose from: all that is in use, or the most used."""
    return Known(_most_used(connection, ClientTag.tag), _most_used(connection, Client.location))


def _most_used(connection: Connection, column: Any) -> list[str]:
    statement = select(column).where(column.is_not(None)).group_by(column).order_by(func.count().desc(), column)
    return sorted(connection.scalars(statement.limit(MOST_KNOWN)), key=str.casefold)
