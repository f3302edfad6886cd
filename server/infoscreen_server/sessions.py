"""Who is signed in: sessions in the database, so that they can be ended, and the key that signs their cookies.

The cookie holds a random token, the table its SHA-256. Checking a password is for accounts, slowing guesses down is for
throttle.
"""

import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flask import Flask, request
from flask.sessions import SecureCookieSessionInterface
from sqlalchemy import Connection, Engine, Row, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from infoscreen_server.accounts import Caller, digest
from infoscreen_server.db import writing
from infoscreen_server.models import AppKey, SignIn, TokenRole, User

log = logging.getLogger(__name__)

SESSION = "sign_in"
"""The token's name in the cookie."""
IDLE = timedelta(days=7)
"""Without a request for so long a session ends; a dashboard on a wall asks every 30 s."""
LONGEST = timedelta(days=90)
USED_EVERY = timedelta(minutes=5)
"""How often a session's last use is written at most."""
MAX_BROWSER = 200


@dataclass(frozen=True, slots=True)
class Signed:
    """A session in force."""

    caller: Caller
    user_id: int
    token_hash: str


def begin(engine: Engine, user_id: int, password_hash: str, browser: str, now: datetime) -> str | None:
    """A new session; returns its token, which is kept nowhere. Old ones of anybody go at the same time.

    None, and no session, if the user is disabled by now, or has another password than the one that was checked: that
    took time, and `end_all` may have passed meanwhile.
    """
    token = secrets.token_urlsafe(32)
    row = {"user_id": user_id, "created_at": now, "last_used": now, "browser": browser[:MAX_BROWSER]}
    same = (User.id == user_id) & (User.password_hash == password_hash) & User.disabled.is_(False)
    with writing(engine) as connection:
        # Locked before any session, in the order of those who change users, and against them: they find this session.
        if connection.execute(select(User.id).where(same).with_for_update(read=True)).first() is None:
            return None
        connection.execute(delete(SignIn).where((SignIn.last_used < now - IDLE) | (SignIn.created_at < now - LONGEST)))
        connection.execute(insert(SignIn).values(token_hash=digest(token), **row))
    return token


def signed_in(engine: Engine, token: str, now: datetime) -> Signed | None:
    """Whose session this is; None for one that is unknown or over, or of a user who was disabled."""
    key = digest(token)
    statement = select(User.id, User.name, User.role, SignIn.last_used).join(SignIn, SignIn.user_id == User.id)
    in_force = (SignIn.last_used >= now - IDLE) & (SignIn.created_at >= now - LONGEST) & User.disabled.is_(False)
    with engine.connect() as connection:
        row = connection.execute(statement.where(SignIn.token_hash == key, in_force)).first()
    if row is None:
        return None
    if now - row.last_used >= USED_EVERY:
        _note_use(engine, key, now)
    return Signed(Caller(row.name, TokenRole(row.role)), row.id, key)


def _note_use(engine: Engine, key: str, now: datetime) -> None:
    try:
        with writing(engine) as connection:
            connection.execute(update(SignIn).where(SignIn.token_hash == key).values(last_used=now))
    except (DBAPIError, PoolTimeout):
        # A busy, full or read-only database must not shut out someone who only reads.
        log.warning("the last use of a session could not be written")


def end(engine: Engine, token_hash: str) -> None:
    with writing(engine) as connection:
        connection.execute(delete(SignIn).where(SignIn.token_hash == token_hash))


def end_all(connection: Connection, user_id: int, but: str | None = None) -> None:
    """End a user's sessions, all `but` one: after a new password, another role, a disabled account."""
    statement = delete(SignIn).where(SignIn.user_id == user_id)
    connection.execute(statement if but is None else statement.where(SignIn.token_hash != but))


def end_some(engine: Engine, user_id: int, token_hash: str | None, but: str | None = None) -> None:
    """End the one session of a user that has this hash, or with None all `but` one."""
    with writing(engine) as connection:
        if token_hash is None:
            end_all(connection, user_id, but)
        else:
            connection.execute(delete(SignIn).where(SignIn.user_id == user_id, SignIn.token_hash == token_hash))


def of_user(engine: Engine, user_id: int, now: datetime) -> list[Row[Any]]:
    """A user's sessions in force, the one used last first."""
    in_force = (SignIn.last_used >= now - IDLE) & (SignIn.created_at >= now - LONGEST)
    statement = select(*SignIn.__table__.columns).where(SignIn.user_id == user_id, in_force)
    with engine.connect() as connection:
        return list(connection.execute(statement.order_by(SignIn.last_used.desc(), SignIn.token_hash)))


class Cookies(SecureCookieSessionInterface):
    """Flask's signed cookies, with a key out of the database: nothing to set up, and all web processes share it.

    While the database cannot be read there is no session.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure

    def get_signing_serializer(self, app: Flask) -> Any:
        if not app.secret_key:
            try:
                with self.engine.connect() as connection:
                    app.secret_key = connection.execute(select(AppKey.secret)).scalar()
            except SQLAlchemyError as error:
                log.error("the key for cookies cannot be read: %s", type(error).__name__)
        return super().get_signing_serializer(app)
