"""One-time links by which people choose a password: the first superadmin, new users, those who forgot theirs.

A link is a random token in an address, the table has its SHA-256. Whoever uses it takes the row away in the transaction
that sets the password, so that of two at once one comes too late.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, delete, insert, or_, select

from infoscreen_server.accounts import AccountError, check_name, digest, hash_password, insert_user, no_password
from infoscreen_server.i18n import lazy
from infoscreen_server.models import Role, SetUpLink, User
from infoscreen_server.users import changing, has_superadmin, put_password

LIFETIME = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Link:
    """One in force."""

    user_id: int | None
    name: str | None
    """None: its holder chooses one, and becomes the first superadmin."""


def address(base: str, token: str) -> str:
    return f"{base}/set-up/{token}"


def for_first(engine: Engine, now: datetime) -> str:
    """The token of a link that makes the first superadmin. Raises AccountError if there is one."""
    with changing(engine) as connection:
        if has_superadmin(connection):
            raise AccountError(
                "set-up", lazy("there is a super administrator already; for a new password name them with --reset")
            )
        connection.execute(delete(SetUpLink).where(SetUpLink.user_id.is_(None)))
        return _make(connection, None, Role.SUPERADMIN, now)


def for_user(engine: Engine, user_id: int, now: datetime, by: int | None = None) -> str:
    """The token of a link to a new password; an older one of this user's is void. Raises AccountError.

    `by`: the superadmin who makes it, as for `changing`.
    """
    with changing(engine, by) as connection:
        enabled = connection.execute(select(User.id).where(User.id == user_id, User.disabled.is_(False))).first()
        if enabled is None:
            raise AccountError("user", lazy("there is no such user, or they are disabled"))
        connection.execute(delete(SetUpLink).where(SetUpLink.user_id == user_id))
        return _make(connection, user_id, None, now)


def for_new_user(engine: Engine, name: str, role: Role, now: datetime, by: int | None = None) -> str:
    """Add a user who cannot sign in before they chose a password by this link. Raises AccountError and Busy."""
    check_name(name)
    password_hash = no_password()
    with changing(engine, by) as connection:
        return _make(connection, insert_user(connection, name, password_hash, role, now), None, now)


def _make(connection: Connection, user_id: int | None, role: Role | None, now: datetime) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(delete(SetUpLink).where(SetUpLink.expires_at <= now))
    row = {"user_id": user_id, "role": role, "created_at": now, "expires_at": now + LIFETIME}
    connection.execute(insert(SetUpLink).values(token_hash=digest(token), **row))
    return token


def find(engine: Engine, token: str, now: datetime) -> Link | None:
    """None for one that is unknown, used or expired, or of no use any more."""
    with engine.connect() as connection:
        statement = select(SetUpLink.user_id, User.name).outerjoin(User, User.id == SetUpLink.user_id)
        usable = or_(SetUpLink.user_id.is_(None), User.disabled.is_(False))
        row = connection.execute(
            statement.where(SetUpLink.token_hash == digest(token), SetUpLink.expires_at > now, usable)
        ).first()
        if row is None or (row.user_id is None and has_superadmin(connection)):
            return None
    return Link(row.user_id, row.name)


def use(engine: Engine, token: str, name: str, password: str, now: datetime) -> tuple[int, str] | None:
    """Set the password, once; returns the user's id and the password's hash, which begins a session.

    None if the link is void. `name` is for the first superadmin.

    Raises AccountError, after which the link is as good as before, and Busy.
    """
    link = find(engine, token, now)
    if link is None:
        return None
    if link.user_id is None:
        check_name(name)
    password_hash = hash_password(password)
    with changing(engine) as connection:
        statement = delete(SetUpLink).where(SetUpLink.token_hash == digest(token), SetUpLink.expires_at > now)
        if connection.execute(statement).rowcount == 0:
            return None
        if link.user_id is not None:
            put_password(connection, link.user_id, password_hash)
            return link.user_id, password_hash
        if has_superadmin(connection):
            return None
        return insert_user(connection, name, password_hash, Role.SUPERADMIN, now), password_hash
