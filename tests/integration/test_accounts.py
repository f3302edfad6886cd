from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, update

from infoscreen_server.accounts import AccountError, add_token, add_user, revoke_token, sign_in
from infoscreen_server.db import make_engine, writing
from infoscreen_server.models import Base, Role, TokenRole, User
from parts.api import NOW, UUID


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url)
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def test_a_user_signs_in_with_the_right_password_only(engine: Engine) -> None:
    add_user(engine, "anna", "correct horse", Role.ADMIN, NOW)
    found = sign_in(engine, "anna", "correct horse")
    assert found is not None
    assert (found.name, found.role) == ("anna", Role.ADMIN)
    assert sign_in(engine, "anna", "wrong horse!") is None
    assert sign_in(engine, "otto", "correct horse") is None


def test_a_disabled_user_does_not(engine: Engine) -> None:
    add_user(engine, "anna", "correct horse", Role.ADMIN, NOW)
    with writing(engine) as connection:
        connection.execute(update(User).values(disabled=True))
    assert sign_in(engine, "anna", "correct horse") is None


def test_passwords_are_kept_as_argon2id_with_bounded_memory(engine: Engine) -> None:
    add_user(engine, "anna", "correct horse", Role.USER, NOW)
    with engine.connect() as connection:
        kept = connection.execute(select(User.password_hash)).scalar_one()
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    ("name", "password", "expected"),
    [
        ("", "correct horse", "name: expected"),
        ("a\nb", "correct horse", "name: expected"),
        ("anna", "short", "password: expected 10 to 1024 characters"),
        ("anna", "x" * 1025, "password: expected 10 to 1024 characters"),
        ("taken", "correct horse", "name: there is a user taken already"),
    ],
)
def test_users_that_cannot_be(engine: Engine, name: str, password: str, expected: str) -> None:
    add_user(engine, "taken", "correct horse", Role.USER, NOW)
    with pytest.raises(AccountError, match=expected):
        add_user(engine, name, password, Role.USER, NOW)


@pytest.mark.parametrize(
    ("role", "uuid"),
    [(TokenRole.DEVICE, None), (TokenRole.ADMIN, UUID), (TokenRole.DEVICE, "x"), (TokenRole.DEVICE, "")],
)
def test_tokens_that_cannot_be(engine: Engine, role: TokenRole, uuid: str | None) -> None:
    with pytest.raises(AccountError, match="client: "):
        add_token(engine, "t", role, now=NOW, client_uuid=uuid)


def test_a_token_is_revoked_once(engine: Engine) -> None:
    prefix = add_token(engine, "t", TokenRole.USER, now=NOW)[:16]
    revoke_token(engine, prefix, NOW)
    with pytest.raises(AccountError, match="no token in force"):
        revoke_token(engine, prefix, NOW)
