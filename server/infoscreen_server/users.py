"""The people who sign in, as superadmins and the command change them: role, password, disabled or not.

One rule holds for all of it: there is always a superadmin who is not disabled, once there was one. And what someone may
no longer do ends at once: sessions, links, tokens that they made. Kiosks' tokens stay, a screen is not to go dark with
whoever once set it up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, select, text, update

from infoscreen_server import sessions, throttle
from infoscreen_server.accounts import AccountError, hash_password, up_to
from infoscreen_server.db import is_sqlite, writing
from infoscreen_server.i18n import lazy
from infoscreen_server.models import Role, SetUpLink, SignIn, Token, TokenRole, User, UtcTime


@dataclass(frozen=True, slots=True)
class Person:
    id: int
    name: str
    role: Role
    disabled: bool
    created_at: datetime
    last_used: datetime | None
    """Of the newest of their sessions that are still there."""
    waiting: bool
    """There is a link by which they can choose a password."""


def everyone(engine: Engine, now: datetime) -> list[Person]:
    """By name."""
    with engine.connect() as connection:
        return _people(connection, now)


def named(engine: Engine, name: str, now: datetime) -> Person:
    """Raises AccountError if there is none."""
    with engine.connect() as connection:
        return _one(_people(connection, now, User.name == name))


def with_id(engine: Engine, user_id: int, now: datetime) -> Person:
    """Raises AccountError if there is none."""
    with engine.connect() as connection:
        return _one(_people(connection, now, User.id == user_id))


def _one(found: list[Person]) -> Person:
    if not found:
        raise AccountError("user", lazy("there is no such user"))
    return found[0]


def _people(connection: Connection, now: datetime, *conditions: ColumnElement[bool]) -> list[Person]:
    used = func.max(SignIn.last_used, type_=UtcTime())
    last = select(SignIn.user_id, used.label("last_used")).group_by(SignIn.user_id).subquery()
    link = select(SetUpLink.token_hash).where(SetUpLink.user_id == User.id, SetUpLink.expires_at > now).exists()
    statement = (
        select(User.id, User.name, User.role, User.disabled, User.created_at, last.c.last_used, link)
        .outerjoin(last, last.c.user_id == User.id)
        .where(*conditions)
        .order_by(func.lower(User.name), User.name)
    )
    return [Person(*row) for row in connection.execute(statement)]


def is_anybody(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.execute(select(User.id).limit(1)).first() is not None


def has_superadmin(connection: Connection, *which: ColumnElement[bool]) -> bool:
    enabled = and_(User.role == Role.SUPERADMIN, User.disabled.is_(False), *which)
    return connection.execute(select(User.id).where(enabled).limit(1)).first() is not None


# --- changes ----------------------------------------------------------------------------------------------------------


@contextmanager
def changing(engine: Engine, by: int | None = None) -> Iterator[Connection]:
    """A transaction that nobody else changes users beside: two superadmins cannot demote each other at once.

    `by`: the user who does it, None where nobody is asked. Raises AccountError if they are no superadmin any more.
    """
    with writing(engine) as connection:
        if not is_sqlite(connection):
            connection.execute(text("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"))
        if by is not None and not has_superadmin(connection, User.id == by):
            raise AccountError("user", lazy("you are no super administrator any more"))
        yield connection


def set_role(engine: Engine, user_id: int, role: Role, now: datetime, by: int | None = None) -> None:
    """Raises AccountError."""
    with changing(engine, by) as connection:
        _change(connection, user_id, role=role)
        _revoke_tokens(connection, user_id, [*up_to(role), TokenRole.DEVICE], now)


def set_disabled(engine: Engine, user_id: int, disabled: bool, now: datetime, by: int | None = None) -> None:
    """Raises AccountError."""
    with changing(engine, by) as connection:
        _change(connection, user_id, disabled=disabled)
        if disabled:
            _revoke_tokens(connection, user_id, [TokenRole.DEVICE], now)


def _change(connection: Connection, user_id: int, **values: object) -> None:
    before, was_one = has_superadmin(connection), has_superadmin(connection, User.id == user_id)
    if connection.execute(update(User).where(User.id == user_id).values(**values)).rowcount == 0:
        raise AccountError("user", lazy("there is no such user"))
    if before and not has_superadmin(connection):
        raise AccountError("user", lazy("the last super administrator has to stay one, and enabled"))
    sessions.end_all(connection, user_id)
    links = delete(SetUpLink)
    if not was_one or has_superadmin(connection, User.id == user_id):
        links = links.where(SetUpLink.user_id == user_id)
    # Else all: who made one is not kept, and whoever holds one to another's password is as good as that other.
    connection.execute(links)


def _revoke_tokens(connection: Connection, user_id: int, but: list[TokenRole], now: datetime) -> None:
    mine = and_(Token.created_by == user_id, Token.revoked_at.is_(None), Token.role.not_in(but))
    connection.execute(update(Token).where(mine).values(revoked_at=now))


def set_password(engine: Engine, user_id: int, password: str, but: str | None = None, was: str | None = None) -> None:
    """Ends all sessions `but` one, and what was tried against the old password. Raises AccountError and Busy.

    `was`: the hash that the old password was checked against. That takes time, and whatever was set meanwhile stays.
    """
    password_hash = hash_password(password)
    with writing(engine) as connection:
        put_password(connection, user_id, password_hash, but, was)


def put_password(
    connection: Connection, user_id: int, password_hash: str, but: str | None = None, was: str | None = None
) -> None:
    statement = update(User).where(User.id == user_id).values(password_hash=password_hash).returning(User.name)
    if was is not None:
        statement = statement.where(User.password_hash == was)
    name = connection.execute(statement).scalar()
    if name is None and was is not None:
        raise AccountError("current", lazy("This is not your password."))
    if name is None:
        raise AccountError("user", lazy("there is no such user"))
    sessions.end_all(connection, user_id, but)
    connection.execute(delete(SetUpLink).where(SetUpLink.user_id == user_id))
    throttle.forget_name(connection, name)
