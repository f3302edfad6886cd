"""The hub and the route in this process, under plain threads: who is let in, for how long, and when nothing is done."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from infoscreen_server import accounts, api_live, live, sessions
from infoscreen_server.accounts import Access, add_user
from infoscreen_server.app import access_of
from infoscreen_server.db import writing
from infoscreen_server.live import FullError, Hub
from infoscreen_server.live_source import MISSED_LOGS, Wish
from infoscreen_server.live_viewer import Place, Viewer
from infoscreen_server.models import Role, TokenRole, User
from infoscreen_server.sessions import SESSION
from infoscreen_server.tail import MAX_PLACE_GAPS, Position
from parts.api import Api
from parts.fleet import Fleet, batch
from parts.wait import wait_for


@pytest.fixture
def api(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(api_live, "RECHECK_S", 0.0)
    monkeypatch.setattr(api_live, "LOOK_S", 0.02)
    running = Api(database_url)
    yield running
    running.close()


@pytest.fixture
def hub(api: Api) -> Hub:
    found: Hub = api.app.extensions["infoscreen_live"]
    return found


def sign_in(api: Api, role: Role) -> int:
    """Put a session's cookie into the browser; returns the user's id."""
    add_user(api.engine, "anna", "correct horse battery", role, api.now)
    user = accounts.sign_in(api.engine, "anna", "correct horse battery")
    assert user is not None
    with api.client.session_transaction() as session:
        session[SESSION] = sessions.begin(api.engine, user.id, user.password_hash, "browser", api.now)
    return user.id


def read_to_the_end(lines: Iterator[bytes]) -> bytes:
    """In time: what does not end fails the test."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(lines), daemon=True)
    reader.start()
    reader.join(20)
    assert not reader.is_alive()
    return b"".join(found)


def test_a_session_may_follow_until_it_is_ended(api: Api, hub: Hub) -> None:
    user = sign_in(api, Role.ADMIN)
    with api.client.get("/api/stream") as answer:
        lines = answer.iter_encoded()
        next(lines)
        with writing(api.engine) as connection:
            sessions.end_all(connection, user)
        assert b'event: end\ndata: {"reason":"no longer allowed"}' in read_to_the_end(lines)
    assert hub.watched == 0
    assert api.client.get("/api/stream").status_code == 401


def test_a_stream_ends_with_another_role(api: Api) -> None:
    user = sign_in(api, Role.ADMIN)
    with api.client.get("/api/stream") as answer:
        lines = answer.iter_encoded()
        next(lines)
        with writing(api.engine) as connection:
            connection.execute(update(User).where(User.id == user).values(role=Role.USER))
        assert b"event: end" in read_to_the_end(lines)


def test_a_stream_does_not_live_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "LIFE_S", 0.1)
    with api.get("/api/stream", TokenRole.ADMIN) as answer:
        assert b"event: end" not in read_to_the_end(answer.iter_encoded())


def test_a_quiet_stream_says_that_it_lives_and_where_it_is(
    api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one who comes back after a quiet hour has not to look through what was not for him."""
    monkeypatch.setattr(api_live, "BEAT_S", 0.05)
    with Fleet(database_url, migrated=False) as fleet:
        fleet.say(batch(range(1, 8)))
    with api.get("/api/stream?level=ERROR", TokenRole.ADMIN) as answer:
        lines = answer.iter_encoded()
        next(lines)
        assert next(lines).startswith(b": still here\nevent: place\nid: 7/")


def test_head_opens_no_stream(api: Api, hub: Hub) -> None:
    header = {"Authorization": f"Bearer {api.token(TokenRole.ADMIN)}"}
    with api.client.head("/api/stream", headers=header) as answer:
        assert answer.status_code == 200
    assert hub.watched == 0


def test_streams_are_bounded_for_one_process(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_VIEWERS", 3)
    viewers = [hub.join(f"user {n}", Wish()) for n in range(3)]
    with pytest.raises(FullError, match="3 are open, which is the most for one server process"):
        hub.join("user 4", Wish())
    viewers[1].is_gone = lambda: True
    hub.join("user 4", Wish())
    assert viewers[1].closed
    for viewer in viewers:
        hub.leave(viewer)


def test_without_viewers_nothing_is_done(api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REST_AFTER_S", 0.0)

    def threads() -> int:
        return sum(each.name == "live" for each in threading.enumerate())

    before = threads()
    viewer = hub.join("one", Wish())
    assert threads() == before + 1
    hub.leave(viewer)
    wait_for(lambda: threads() == before, "the hub rests")
    again = hub.join("one", Wish())
    with Fleet(str(api.engine.url.render_as_string(hide_password=False)), migrated=False) as fleet:
        fleet.say(batch([1]))
    assert b'"message":"m1"' in hub.take(again, 20)[0]
    hub.leave(again)


def test_a_slow_viewer_loses_the_oldest_lines_and_is_told(api: Api, hub: Hub) -> None:
    viewer, other = hub.join("one", Wish(clients=False)), hub.join("other", Wish(logs=False))
    with Fleet(str(api.engine.url.render_as_string(hide_password=False)), migrated=False) as fleet:
        for start in range(1, 701, 100):
            fleet.say(batch(range(start, start + 100)))
    wait_for(lambda: hub.take(other, 1)[1].startswith("700"), "all was handed out")
    text, place = hub.take(viewer, 1)
    assert text.endswith(f"event: place\nid: {place}\ndata: {{}}\n\n".encode())
    assert text.startswith(b'event: dropped\ndata: {"logs":200,"about":false,"clients":false}\n\n')
    assert text.count(b"event: log") == 500
    assert b'"message":"m200"' not in text
    assert b'"message":"m201"' in text
    assert hub.take(viewer, 0) == (b"", place)


def test_what_was_missed_is_kept_once(api: Api, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as a slow browser takes to read it, up to a megabyte for each."""
    with Fleet(str(api.engine.url.render_as_string(hide_password=False)), migrated=False) as fleet:
        fleet.say(batch(range(1, 4)))
    opened: list[Viewer] = []
    join = hub.join

    def noted(owner: str, wish: Wish, has_seen: Place | None) -> Viewer:
        opened.append(join(owner, wish, has_seen))
        return opened[-1]

    monkeypatch.setattr(hub, "join", noted)
    with api.get("/api/stream?after=0/0", TokenRole.ADMIN) as answer:
        first = next(answer.iter_encoded())
        assert first.count(b"event: log") == 3
        assert opened[0].opening == []


def test_a_place_with_many_gaps_stalls_nobody(api: Api, hub: Hub) -> None:
    """As many as are accepted, and as many missed lines as are sent: a minute when each is compared with each."""
    gaps = MAX_PLACE_GAPS
    with Fleet(str(api.engine.url.render_as_string(hide_password=False)), migrated=False) as fleet:
        for start in range(1, 2 * gaps, 200):
            fleet.say(batch(range(start, start + 200)))
    seen = Place(Position(2 * gaps, tuple((n, n) for n in range(1, 2 * gaps, 2))), Position(0))
    began = time.process_time()
    viewer = hub.join("one", Wish(clients=False), Place.parse(seen.text()))
    took = time.process_time() - began
    hub.leave(viewer)
    assert sum(event.startswith(b"event: log") for event in viewer.opening) == MISSED_LOGS
    assert took < 10


def test_the_document_says_what_it_is(api: Api) -> None:
    document: Any = api.client.get("/api/openapi.json").json
    operation = document["paths"]["/api/stream"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"logs", "clients", "uuid", "level", "code", "q", "after", "Last-Event-ID"}
    assert access_of(api.app, "live.stream") is Access.USER_OR_HIGHER


def test_a_token_that_is_over_ends_the_stream(api: Api) -> None:
    token = accounts.add_token(
        api.engine, "short", TokenRole.USER, now=api.now, expires_at=api.now + timedelta(minutes=1)
    )
    with api.client.get("/api/stream", headers={"Authorization": f"Bearer {token}"}) as answer:
        lines = answer.iter_encoded()
        next(lines)
        api.now += timedelta(minutes=2)
        assert b"event: end" in read_to_the_end(lines)
