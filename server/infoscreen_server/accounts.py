"""Who may do what: users and their passwords, tokens, roles.

Keeps no secret: of a password the argon2 hash, of a token the SHA-256 of its random part (256 bits need no slow hash).
Which route asks for what is for the API, and so is the answer to someone who may not.
"""

import hashlib
import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHash, VerificationError
from sqlalchemy import Engine, Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from infoscreen_server.db import writing
from infoscreen_server.models import Role, Scope, Token, TokenRole, User
from infoscreen_shared.topics import is_uuid

log = logging.getLogger(__name__)

MIN_PASSWORD, MAX_PASSWORD = 10, 1024
"""Characters. The upper bound keeps a sign-in from costing more than one hash should."""
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


class AccountError(ValueError):
    """A user or token cannot be made; the text says why and is fit to be shown."""


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


def hash_password(password: str) -> str:
    """Raises AccountError for a length out of bounds."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise AccountError(f"password: expected {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return _hasher().hash(password)


def password_fits(password_hash: str | None, password: str) -> bool:
    """Takes as long for a user that does not exist (None) as for a wrong password."""
    try:
        _hasher().verify(password_hash or _nobodys_hash(), password[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHash):
        return False
    return password_hash is not None


def add_user(engine: Engine, name: str, password: str, role: Role, now: datetime) -> None:
    """Raises AccountError."""
    values = {"name": _checked_name(name), "password_hash": hash_password(password), "role": role, "created_at": now}
    try:
        with writing(engine) as connection:
            connection.execute(insert(User).values(disabled=False, **values))
    except IntegrityError:
        raise AccountError(f"name: there is a user {name} already") from None


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    name: str
    role: Role


def sign_in(engine: Engine, name: str, password: str) -> Account | None:
    """The user, if there is one of this name who is not disabled, and the password is right."""
    with engine.connect() as connection:
        row = connection.execute(
            select(User.id, User.name, User.password_hash, User.role, User.disabled).filter_by(name=name)
        ).first()
    if not password_fits(row.password_hash if row else None, password) or row is None or row.disabled:
        return None
    return Account(row.id, row.name, Role(row.role))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise AccountError("name: expected 1 to 64 letters, digits, spaces or . _ @ -, a letter or digit first")
    return name


# --- tokens -----------------------------------------------------------------------------------------------------------


def add_token(
    engine: Engine,
    name: str,
    role: TokenRole,
    *,
    now: datetime,
    client_uuid: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Make a token and return its text, which is kept nowhere. Raises AccountError."""
    _checked_name(name)
    if (role is TokenRole.DEVICE) != (client_uuid is not None):
        raise AccountError("client: a device token needs the uuid of its client, and no other token has one")
    if client_uuid is not None and not is_uuid(client_uuid):
        raise AccountError("client: expected a uuid in lower case")
    prefix = f"{'isd' if role is TokenRole.DEVICE else 'ist'}_{secrets.token_hex(6)}"
    secret = secrets.token_urlsafe(32)
    row = {
        "name": name,
        "prefix": prefix,
        "secret_hash": _digest(secret),
        "role": role,
        "client_uuid": client_uuid,
        "created_at": now,
        "expires_at": expires_at,
    }
    with writing(engine) as connection:
        connection.execute(insert(Token).values(**row))
    return f"{prefix}_{secret}"


def _digest(secret: str) -> str:
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
    right = hmac.compare_digest(row.secret_hash if row else "", _digest(secret))
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
    except OperationalError:
        # A busy or full database must not shut out a caller who only reads.
        log.warning("the last use of a token could not be written")


def revoke_token(engine: Engine, prefix: str, now: datetime) -> None:
    """End a token at once. Raises AccountError if there is none in force with this prefix."""
    with writing(engine) as connection:
        statement = update(Token).where(Token.prefix == prefix, Token.revoked_at.is_(None)).values(revoked_at=now)
        if connection.execute(statement).rowcount == 0:
            raise AccountError("prefix: there is no token in force with this prefix")


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
