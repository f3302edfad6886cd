"""Slows down those who guess passwords: how long to wait before the next try, kept in the database.

Three things are counted, each with a rule of its own:

    name and address   5 wrong tries within an hour are free, then 30 s, doubling up to 15 min after each
    address            30 within 15 min, whatever the names, then the same
    name               20 within 15 min, from wherever, then 5 s, doubling up to 30 s

One address never gets to the third: its own pause holds it back long before. Many who guess together at one name are
slowed down by it, and so is everyone else with that name, for as long as that goes on; but not a browser in which that
very user has signed in before (`known`). Whether there is such a user makes no difference. A try counts before the
password is looked at and is forgiven when that was right: however many come at once, no more get through.

Whoever is locked out nevertheless gets in by a set-up link of the command's, which needs no password.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine, delete, insert, or_, select, text

from infoscreen_server.db import is_sqlite, writing
from infoscreen_server.models import SignInFailure

LOCK = 0x1F05C4E2
"""Key of the PostgreSQL advisory lock under which tries are counted; on SQLite only one writes at a time anyway."""
_SKEW = timedelta(minutes=1)
"""How far apart the clocks of two web hosts may be. What lies further ahead was written before a clock was put back."""


class Rule(NamedTuple):
    free: int
    """Failures within `window` after which the pauses begin."""
    window: timedelta
    first: timedelta
    longest: timedelta


PAIR = Rule(5, timedelta(hours=1), timedelta(seconds=30), timedelta(minutes=15))
ADDRESS = Rule(30, timedelta(minutes=15), timedelta(seconds=30), timedelta(minutes=15))
NAME = Rule(20, timedelta(minutes=15), timedelta(seconds=5), timedelta(seconds=30))
KEPT = max(rule.window for rule in (PAIR, ADDRESS, NAME))
NO_PAUSE = timedelta()


def pause(failures: Sequence[datetime], rule: Rule, now: datetime) -> timedelta:
    """How long after `now` the next try has to wait, by the times of those that failed.

    >>> from datetime import UTC
    >>> now = datetime(2026, 1, 2, tzinfo=UTC)
    >>> [pause([now] * number, PAIR, now).seconds for number in (4, 5, 6, 30)]
    [0, 30, 60, 900]
    """
    counted = [when for when in failures if now - rule.window < when <= now + _SKEW]
    if len(counted) < rule.free:
        return NO_PAUSE
    doubled: int = 2 ** min(len(counted) - rule.free, 20)
    ends = min(max(counted), now) + min(rule.first * doubled, rule.longest)
    return max(ends - now, NO_PAUSE)


class Attempt(NamedTuple):
    """A try that was let through, and counts as failed until it is forgiven."""

    name: str
    pair: str
    address_row: int
    rows: tuple[int, ...]


class Paused(Exception):  # noqa: N818  # an answer to the caller, not a fault of ours
    def __init__(self, wait: timedelta) -> None:
        super().__init__(wait)
        self.wait = wait


def begin(engine: Engine, name: str, address: str, now: datetime, *, known: bool = False) -> Attempt:
    """Count a try to sign in. Raises Paused if it comes too soon; such a one does not count.

    `known`: this user has signed in with this browser before. What others do with the name does not hold it back.
    """
    of_name, of_address = name_key(name), _address_key(address)
    keys = {of_address: ADDRESS, of_name + of_address: PAIR}
    if not known:
        keys[of_name] = NAME
    with engine.connect() as connection:
        # A look first: those who are held back shall not queue for the one write lock of SQLite.
        _check(connection, keys, now)
    with writing(engine) as connection:
        if not is_sqlite(connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        _check(connection, keys, now)
        gone = or_(SignInFailure.at < now - KEPT, SignInFailure.at > now + KEPT)
        connection.execute(delete(SignInFailure).where(gone))
        rows = [_count(connection, who, now) for who in (of_name, of_name + of_address, of_address)]
    return Attempt(of_name, of_name + of_address, rows[-1], tuple(rows))


def _count(connection: Connection, who: str, now: datetime) -> int:
    row = connection.execute(insert(SignInFailure).values(who=who, at=now)).inserted_primary_key
    assert row is not None
    number: int = row[0]
    return number


def _check(connection: Connection, keys: dict[str, Rule], now: datetime) -> None:
    failures: dict[str, list[datetime]] = {who: [] for who in keys}
    statement = select(SignInFailure.who, SignInFailure.at).where(SignInFailure.who.in_(keys))
    for who, at in connection.execute(statement.where(SignInFailure.at > now - KEPT)):
        failures[who].append(at)
    wait = max(pause(failures[who], rule, now) for who, rule in keys.items())
    if wait > NO_PAUSE:
        raise Paused(wait)


def forgive(engine: Engine, attempt: Attempt) -> None:
    """The password was right: the name begins anew here, the address's other failures stay."""
    mine = or_(SignInFailure.who.in_([attempt.name, attempt.pair]), SignInFailure.id == attempt.address_row)
    with writing(engine) as connection:
        connection.execute(delete(SignInFailure).where(mine))


def withdraw(engine: Engine, attempt: Attempt) -> None:
    """Nobody looked at the password: the try counts neither way."""
    with writing(engine) as connection:
        connection.execute(delete(SignInFailure).where(SignInFailure.id.in_(attempt.rows)))


def forget_name(connection: Connection, name: str) -> None:
    """The name has a new password: what was tried before, from wherever, no longer counts against it."""
    connection.execute(delete(SignInFailure).where(SignInFailure.who.startswith(name_key(name), autoescape=True)))


# --- who it counts against --------------------------------------------------------------------------------------------


def name_key(name: str) -> str:
    """Stands for the name, whichever way it is spelt."""
    return _digest(f"name:{name.casefold()}")


def _address_key(address: str) -> str:
    return _digest(f"address:{network_of(address)}")


def _digest(plain: str) -> str:
    """Half a SHA-256, so that two fit in one column."""
    return hashlib.sha256(plain.encode(errors="replace")).hexdigest()[:32]


def network_of(address: str) -> str:
    """What one person may have many of counts as one: an IPv6 network of 64 bits.

    >>> [network_of(each) for each in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1:2", "fe80::1%eth0", "unix")]
    ['192.0.2.7', '192.0.2.7', '2001:db8::/64', 'fe80::/64', 'unix']
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def client_address(peer: str | None, forwarded_for: str | None) -> str:
    """Who asks: the peer, or whom a reverse proxy on this machine names last, where the peer is that.

    >>> client_address("127.0.0.1", "10.0.0.1, 192.0.2.7"), client_address("192.0.2.9", "10.0.0.1")
    ('192.0.2.7', '192.0.2.9')
    """
    peer = peer or "unknown"
    try:
        near = ipaddress.ip_address(peer).is_loopback
    except ValueError:
        near = False
    if not near or not forwarded_for:
        return peer
    last = forwarded_for.rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return peer
