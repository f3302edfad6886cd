"""Who may do what: passwords, tokens, roles. Changes of users are for users, slowing guesses down for throttle.

Keeps no secret: of a password the argon2 hash, of a token the SHA-256 of its random part (256 bits need no slow hash).
Which route asks for what is for the API, and so is the answer to someone who may not.
"""

import hashlib
import hmac
import logging
import re
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHash, VerificationError
from sqlalchemy import Connection, Engine, Row, insert, or_, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from infoscreen_server.db import writing
from infoscreen_server.i18n import lazy
from infoscreen_server.models import Role, Scope, Token, TokenRole, User
from infoscreen_server.wording import FieldError
from infoscreen_shared.topics import is_uuid

log = logging.getLogger(__name__)

T = TypeVar("T")

MIN_PASSWORD, MAX_PASSWORD = 10, 1024
"""Characters. The upper bound keeps a sign-in from costing more than one hash should."""
HASHES_AT_ONCE = 2
"""In one process: each takes 19 MiB and a core for some 50 ms."""
HASH_WAIT_S = 5.0
LAST_USED_EVERY = timedelta(minutes=1)
"""How often a token's last use is written at most; a write at every request would queue behind ingest."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")
_TOKEN = re.compile(r"(is[td]_[0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class Access(StrEnum):
    """What a route asks for. user < admin < superadmin; a kiosk's own token stands apart, good for its ingest only."""

    PUBLIC = "public"
    USER_OR_HIGHER = "user_or_higher"
    ADMIN_OR_HIGHER = "admin_or_higher"
    SUPERADMIN = "superadmin"
    OWN_DEVICE = "own_device"
    """A device token that is bound to the uuid in the path."""


_ENOUGH = {
    Access.USER_OR_HIGHER: (TokenRole.USER, TokenRole.ADMIN, TokenRole.SUPERADMIN),
    Access.ADMIN_OR_HIGHER: (TokenRole.ADMIN, TokenRole.SUPERADMIN),
    Access.SUPERADMIN: (TokenRole.SUPERADMIN,),
}


class AccountError(FieldError):
    """A user or token cannot be made or changed."""


class Busy(Exception):  # noqa: N818  # an answer to the caller, not a fault of ours
    """More passwords are to be checked than this process does at a time."""


@dataclass(frozen=True, slots=True)
class Caller:
    name: str
    role: TokenRole
    client_uuid: str | None = None
    scope: Scope = Scope.ALL


def allowed(access: Access, caller: Caller, client_uuid: str | None) -> bool:
    """Whether `caller` may use a route, `client_uuid` being the one in its path."""
    if access is Access.PUBLIC:
        return True
    if access is Access.OWN_DEVICE:
        return caller.role is TokenRole.DEVICE and client_uuid is not None and caller.client_uuid == client_uuid
    return caller.role in _ENOUGH[access]


# --- passwords --------------------------------------------------------------------------------------------------------


@cache
def _hasher() -> PasswordHasher:
    # The first of OWASP's parameter sets: argon2-cffi's own default takes 100 MiB for each sign-in at a time.
    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_hex(16))


def check_password(password: str) -> None:
    """Whether it may be one. Raises AccountError."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise AccountError(
            "password", lazy("expected %(low)s to %(high)s characters"), low=MIN_PASSWORD, high=MAX_PASSWORD
        )


def hash_password(password: str) -> str:
    """Raises AccountError for a length out of bounds, and Busy."""
    check_password(password)
    return _one_of_few(lambda: _hasher().hash(password))


def no_password() -> str:
    """A hash that no password fits, and that takes as long to try as any."""
    return hash_password(secrets.token_hex(32))


def password_fits(password_hash: str | None, password: str) -> bool:
    """Takes as long for a user that does not exist (None) as for a wrong password. Raises Busy."""
    try:
        _one_of_few(lambda: _hasher().verify(password_hash or _nobodys_hash(), password[: MAX_PASSWORD + 1]))
    except (VerificationError, InvalidHash):
        return False
    return password_hash is not None


_gate = threading.BoundedSemaphore(HASHES_AT_ONCE)


def _one_of_few(work: Callable[[], T]) -> T:
    if not _gate.acquire(timeout=HASH_WAIT_S):
        raise Busy
    try:
        return _beside(work)
    finally:
        _gate.release()


def _beside(work: Callable[[], T]) -> T:
    """Where threads are gevent's, in a real one: else all that this process serves would stand still meanwhile."""
    if "gevent.monkey" not in sys.modules:
        return work()
    import gevent.monkey

    if not gevent.monkey.is_module_patched("threading"):
        return work()
    found: T = gevent.get_hub().threadpool.apply(work)
    return found


def add_user(engine: Engine, name: str, password: str, role: Role, now: datetime) -> None:
    """Raises AccountError."""
    check_name(name)
    password_hash = hash_password(password)
    with writing(engine) as connection:
        insert_user(connection, name, password_hash, role, now)


def insert_user(connection: Connection, name: str, password_hash: str, role: Role, now: datetime) -> int:
    """Returns the id. Raises AccountError for a name that is taken; then the transaction is to be given up."""
    values = {"name": name, "password_hash": password_hash, "role": role, "created_at": now, "disabled": False}
    try:
        row = connection.execute(insert(User).values(**values)).inserted_primary_key
    except IntegrityError:
        raise AccountError("name", lazy("there is a user %(name)s already"), name=name) from None
    assert row is not None
    number: int = row[0]
    return number


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    name: str
    role: Role
    password_hash: str = field(repr=False)
    """The one that was checked: a session begins only while it is still the user's."""


def sign_in(engine: Engine, name: str, password: str) -> Account | None:
    """The user, if there is one of this name who is not disabled, and the password is right. Raises Busy."""
    columns = (User.id, User.name, User.password_hash, User.role, User.disabled)
    row = None
    # No user has another name; PostgreSQL would not even take a NUL in one.
    if _NAME.fullmatch(name):
        with engine.connect() as connection:
            row = connection.execute(select(*columns).where(User.name == name)).first()
    if not password_fits(row.password_hash if row else None, password) or row is None or row.disabled:
        return None
    return Account(row.id, row.name, Role(row.role), row.password_hash)


def check_name(name: str) -> None:
    """Raises AccountError."""
    if not _NAME.fullmatch(name):
        raise AccountError("name", lazy("expected 1 to 64 letters, digits, spaces or . _ @ -, a letter or digit first"))


# --- tokens -----------------------------------------------------------------------------------------------------------


def add_token(
    engine: Engine,
    name: str,
    role: TokenRole,
    *,
    now: datetime,
    client_uuid: str | None = None,
    expires_at: datetime | None = None,
    scope: Scope = Scope.ALL,
    created_by: int | None = None,
) -> str:
    """Make a token and return its text, which is kept nowhere. Raises AccountError.

    `created_by`: the user who makes it, whose role has to allow it at that moment; None where nobody is asked.
    """
    check_name(name)
    if (role is TokenRole.DEVICE) != (client_uuid is not None):
        raise AccountError("client", lazy("a device token needs the uuid of its client, and no other token has one"))
    if client_uuid is not None and not is_uuid(client_uuid):
        raise AccountError("client", lazy("expected a uuid in lower case"))
    if role is TokenRole.DEVICE and scope is not Scope.ALL:
        raise AccountError("scope", lazy("a device token only sends, it has no other scope than all"))
    prefix = f"{'isd' if role is TokenRole.DEVICE else 'ist'}_{secrets.token_hex(6)}"
    secret = secrets.token_urlsafe(32)
    row = {
        "name": name,
        "prefix": prefix,
        "secret_hash": digest(secret),
        "role": role,
        "client_uuid": client_uuid,
        "created_at": now,
        "expires_at": expires_at,
        "scope": scope,
        "created_by": created_by,
    }
    with writing(engine) as connection:
        if created_by is not None and role not in may_give(_present_role(connection, created_by)):
            raise AccountError("role", lazy("choose a role that you may give"))
        connection.execute(insert(Token).values(**row))
    return f"{prefix}_{secret}"


def _present_role(connection: Connection, user_id: int) -> TokenRole | None:
    """Of a user who is not disabled. Locked: whoever takes it away finds the token that is made now."""
    statement = select(User.role).where(User.id == user_id, User.disabled.is_(False)).with_for_update(read=True)
    role = connection.execute(statement).scalar()
    return None if role is None else TokenRole(role)


def may_give(role: TokenRole | None) -> tuple[TokenRole, ...]:
    """The roles of tokens that a person of this role may make: none that may do more than they themselves.

    Kiosks' are for superadmins.

    >>> [str(each) for each in may_give(TokenRole.ADMIN)]
    ['user', 'admin']
    """
    return _GIVES.get(role, ()) if role is not None else ()


_RANK = (TokenRole.USER, TokenRole.ADMIN, TokenRole.SUPERADMIN)


def up_to(role: Role) -> tuple[TokenRole, ...]:
    """The roles that include no more than this one."""
    return _RANK[: _RANK.index(TokenRole(role)) + 1]


_GIVES = {
    TokenRole.ADMIN: up_to(Role.ADMIN),
    TokenRole.SUPERADMIN: (*up_to(Role.SUPERADMIN), TokenRole.DEVICE),
}


def prefix_of(text: str) -> str:
    """The part of a token that may be shown."""
    return "_".join(text.split("_")[:2])


def digest(secret: str) -> str:
    """What is kept of a random secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def caller_of(engine: Engine, text: str, now: datetime) -> Caller | None:
    """Whose token this is; None for one that is malformed, unknown, expired or revoked."""
    parts = _TOKEN.fullmatch(text)
    if parts is None:
        return None
    prefix, secret = parts.groups()
    with engine.connect() as connection:
        row = connection.execute(select(*Token.__table__.columns).where(Token.prefix == prefix)).first()
    # Compared also where there is nothing to compare with, so that the time tells nothing about the prefix.
    right = hmac.compare_digest(row.secret_hash if row else "", digest(secret))
    if row is None or not right or row.revoked_at is not None:
        return None
    if row.expires_at is not None and row.expires_at <= now:
        return None
    if row.last_used is None or now - row.last_used >= LAST_USED_EVERY:
        _note_use(engine, row.id, now)
    return Caller(row.name, TokenRole(row.role), row.client_uuid, Scope(row.scope))


def _note_use(engine: Engine, token_id: int, now: datetime) -> None:
    late = or_(Token.last_used.is_(None), Token.last_used <= now - LAST_USED_EVERY)
    try:
        with writing(engine) as connection:
            connection.execute(update(Token).where(Token.id == token_id, late).values(last_used=now))
    except (DBAPIError, PoolTimeout):
        # A busy, full or read-only database must not shut out a caller who only reads.
        log.warning("the last use of a token could not be written")


def revoke_token(engine: Engine, prefix: str, now: datetime, created_by: int | None = None) -> None:
    """End a token at once. Raises AccountError if there is none in force with this prefix, or made by that user."""
    # No prefix has a NUL, and PostgreSQL would not even take one.
    statement = update(Token).where(Token.prefix == prefix.replace("\0", ""), Token.revoked_at.is_(None))
    if created_by is not None:
        statement = statement.where(Token.created_by == created_by)
    with writing(engine) as connection:
        if connection.execute(statement.values(revoked_at=now)).rowcount == 0:
            raise AccountError("prefix", lazy("there is no token in force with this prefix"))


def token_rows(engine: Engine, created_by: int | None = None) -> list[Row[Any]]:
    """All tokens, or those that a user made: newest first, those in force before the revoked ones."""
    columns = [column for column in Token.__table__.columns if column.name != "secret_hash"]
    statement = select(*columns, User.name.label("maker")).outerjoin(User, User.id == Token.created_by)
    if created_by is not None:
        statement = statement.where(Token.created_by == created_by)
    with engine.connect() as connection:
        return list(connection.execute(statement.order_by(Token.revoked_at.is_not(None), Token.id.desc())))


def tokens(engine: Engine) -> list[tuple[str, str, str, str, str, str]]:
    """Prefix, name, role, client, last use and state of every token, as text."""
    with engine.connect() as connection:
        rows = connection.execute(select(*Token.__table__.columns).order_by(Token.id)).all()
    return [(row.prefix, row.name, row.role, row.client_uuid or "-", *_use_and_end(row)) for row in rows]


def _use_and_end(row: Row[Any]) -> tuple[str, str]:
    used = "never used" if row.last_used is None else f"used {row.last_used:%Y-%m-%d %H:%M}"
    if row.revoked_at is not None:
        return used, f"revoked {row.revoked_at:%Y-%m-%d %H:%M}"
    return used, "no end" if row.expires_at is None else f"until {row.expires_at:%Y-%m-%d %H:%M}"
