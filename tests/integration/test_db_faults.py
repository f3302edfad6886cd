"""A database that fails while the application works: whoever asks is told to come back, and none of it is our fault."""

from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from infoscreen_server import persist
from infoscreen_server.accounts import Access
from infoscreen_server.app import create_app
from infoscreen_server.config import ServerConfig
from infoscreen_server.context import access
from infoscreen_server.db import is_sqlite, make_engine, writing
from infoscreen_server.models import TokenRole
from parts.api import NOW, UUID, Api
from parts.fleet import item
from parts.person import PASSWORD, with_user

MANY = [item(None, NOW, message="x" * 2_000) for _ in range(400)]


def is_asked_to_come_back(answer: Any) -> None:
    assert (answer.status_code, answer.json) == (503, {"error": "the database does not answer"})
    assert int(answer.headers["Retry-After"]) > 0


def elsewhere(engine: Engine, sql: str) -> None:
    other = make_engine(engine.url.render_as_string(hide_password=False))
    with writing(other) as connection:
        connection.execute(text(sql))
    other.dispose()


def test_a_database_that_fails_while_rows_are_copied(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the log go past SQLAlchemy: it is the driver's own error that comes out."""
    assert api.post(json={"level": "ERROR", "records": MANY[:1]}).status_code == 200
    if is_sqlite(api.engine):
        # No room for more, as on a full disk.
        event.listen(api.engine, "connect", lambda driver, _record: driver.execute("PRAGMA max_page_count = 1"))
        api.engine.dispose()
    else:
        shape = persist._copy_text

        def cut_off(*given: Any) -> str:
            elsewhere(
                api.engine,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE 'COPY%'",
            )
            return shape(*given)

        monkeypatch.setattr(persist, "_copy_text", cut_off)
    is_asked_to_come_back(api.post(json={"level": "ERROR", "records": MANY}))
    monkeypatch.undo()
    assert api.get(f"/api/client-logs/{UUID}/logs").json["count"] == 1, "nothing of it was stored"


def test_all_connections_are_taken(api: Api) -> None:
    token = api.token(TokenRole.ADMIN)
    pool: Any = api.engine.pool
    pool._timeout = 0.1
    with ExitStack() as stack:
        for _ in range(pool.size() + pool._max_overflow):
            stack.enter_context(api.engine.connect())
        is_asked_to_come_back(api.client.get("/api/clients", headers={"Authorization": f"Bearer {token}"}))
    assert api.get("/api/clients").status_code == 200


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_is_only_to_be_read(api: Api) -> None:
    """As after a failover: what only reads goes on, even where the last use of a token or session is to be noted."""
    anna = with_user(api, "anna")
    api.token(TokenRole.DEVICE, UUID)
    api.token(TokenRole.ADMIN)
    elsewhere(api.engine, f"ALTER DATABASE {api.engine.url.database} SET default_transaction_read_only = on")
    api.engine.dispose()
    is_asked_to_come_back(api.post(json={"level": "ERROR", "records": MANY[:1]}))
    assert api.get("/api/clients").status_code == 200
    api.now += timedelta(hours=1)
    assert anna.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/sign-in", "/", "/nothing", "/set-up/x"])
def test_a_database_that_was_away_from_the_beginning(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The key of cookies was never read, so that there are no sessions and no forms."""
    app = create_app(ServerConfig(database_url="postgresql://u@127.0.0.1:1/x"))
    visitor = app.test_client()
    for answer in (visitor.get(path), visitor.post(path, data={"name": "anna", "password": PASSWORD})):
        assert answer.status_code == 503
        assert "The database does not answer" in answer.text
        assert int(answer.headers["Retry-After"]) > 0
    is_asked_to_come_back(visitor.get("/api/clients", headers={"Cookie": "infoscreen=x"}))
    with visitor.get("/static/app.css") as asset:
        assert asset.status_code == 200
    assert "Traceback" not in caplog.text
    app.extensions["infoscreen_live"].close()


def test_a_statement_that_is_wrong_is_our_fault(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    @access(Access.PUBLIC)
    def wrong() -> str:
        with api.engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1", (7,))
        return ""

    api.app.add_url_rule("/api/wrong", "wrong", wrong)
    answer: Any = api.client.get("/api/wrong")
    assert (answer.status_code, answer.json) == (500, {"error": "internal error"})
    assert "Traceback" in caplog.text
