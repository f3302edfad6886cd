"""The live view with a real server process: from a commit in one process to a browser at another."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infoscreen_server.store import Presence
from infoscreen_shared.messages import LogLevel
from parts.fleet import OTHER, UUID, Fleet, batch, item, of_items
from parts.postgres import Postgres
from parts.server import Server
from parts.stream import Streams
from parts.wait import wait_for


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Server]:
    """`web` alone: what is committed comes from elsewhere."""
    with Server(tmp_path, database_url, debug_mode=True) as made:
        made.call("migrate")
        yield made.start("web")


@pytest.fixture
def fleet(server: Server, database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url, migrated=False) as made:
        yield made


@pytest.fixture
def admin(server: Server) -> str:
    return server.token("admin")


@pytest.fixture
def streams(server: Server) -> Iterator[Streams]:
    with Streams(server.port) as made:
        yield made


def test_a_record_is_there_in_a_moment(fleet: Fleet, streams: Streams, admin: str) -> None:
    stream = streams.open(token=admin)
    assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
    assert 2000 <= stream.retry <= 5000
    began = time.time()
    fleet.say(of_items([item(1, code="player.crashed", message="gone")], level=LogLevel.ERROR))
    (line,) = stream.waits_for("log")
    assert stream.events[-1].at - began < 1
    assert (line["client_uuid"], line["client_label"]) == (UUID, UUID)
    assert (line["level"], line["code"], line["message"], line["context"]) == (
        "ERROR",
        "player.crashed",
        "gone",
        {"n": 1},
    )
    assert line["cut"] is False


def test_filters(fleet: Fleet, streams: Streams, admin: str) -> None:
    by_filter = {
        f"?uuid={OTHER.upper()}": ["other"],
        "?level=error&level=WARN": ["crash", "Größe"],
        "?code=player.crashed&code=x.y": ["crash"],
        "?q=GR%C3%96SSE": ["Größe"],
        "?level=&q=&uuid=": ["crash", "Größe", "other", "end"],
        "?q=%25": [],
        "?logs=false": [],
    }
    opened = {query: streams.open(query, admin) for query in by_filter}
    fleet.say(of_items([item(1, message="crash", code="player.crashed")], level=LogLevel.ERROR))
    fleet.say(of_items([item(1, message="Größe")], level=LogLevel.WARN))
    fleet.say(of_items([item(1, message="other")]), uuid=OTHER)
    fleet.say(of_items([item(1, message="end")]))
    for query, expected in by_filter.items():
        if expected:
            opened[query].waits_for("log", len(expected))
    assert {query: stream.messages() for query, stream in opened.items()} == by_filter


def test_a_client_whose_state_changed_is_told(server: Server, fleet: Fleet, streams: Streams, admin: str) -> None:
    """As /api/clients has it; to everyone. Logs are for admins, whoever asks for them."""
    user = streams.open("?logs=true", server.token("user"))
    one = streams.open(f"?uuid={UUID}&logs=false", admin)
    fleet.say(batch([1]), Presence(online=True), uuid=OTHER)
    fleet.say(batch([1]), Presence(online=True))
    wait_for(lambda: {each["uuid"] for each in user.of("client")} == {UUID, OTHER}, "both clients")
    (told,) = one.waits_for("client")
    listed = server.request(f"/api/clients/{UUID}", admin)[1]
    assert told == {name: value for name, value in listed.items() if name != "delivery"}
    assert user.of("log") == []


def test_a_client_that_was_heard_of_once_is_told_to_be_offline(fleet: Fleet, streams: Streams, admin: str) -> None:
    """What says so changes the one state that there is, from its beginning on."""
    stream = streams.open("?logs=false", admin)
    fleet.say(Presence(online=True))
    stream.waits_for("client")
    fleet.say(Presence(online=False))
    assert stream.waits_for("client", 2)[-1]["online"] is False


def test_text_cannot_forge_events(fleet: Fleet, streams: Streams, admin: str) -> None:
    evil = "a\n\nevent: end\ndata: {}\n\nid: 99/9\r\rretry: 1\r\n\r\n: b\u2028data: x\u0085"
    stream = streams.open(token=admin)
    records = [item(1, message=evil, context={evil: evil}), item(2, message="behind")]
    fleet.say(of_items(records))
    first, second = stream.waits_for("log", 2)
    assert (first["message"], first["context"]) == (evil, {evil: evil})
    assert second["message"] == "behind"
    assert {event.name for event in stream.events} <= {"log", "client", "place"}
    assert stream.retry >= 2000
    assert stream.last_id.startswith("2/")


def test_long_texts_are_cut(fleet: Fleet, streams: Streams, admin: str) -> None:
    stream = streams.open(token=admin)
    fleet.say(of_items([item(1, message="x" * 8000), item(2, context={"a": "y" * 10_000})]))
    first, second = stream.waits_for("log", 2)
    assert (len(first["message"]), first["cut"]) == (2000, True)
    assert (second["context"], second["cut"]) == ({}, True)


def test_whoever_comes_back_gets_what_was_missed(fleet: Fleet, streams: Streams, admin: str) -> None:
    stream = streams.open("?level=ERROR", admin)
    fleet.say(batch([1, 2], level=LogLevel.ERROR), Presence(online=True))
    stream.waits_for("log", 2)
    last = wait_for(lambda: stream.last_id, "a place")
    streams.close(stream)
    fleet.say(batch([3], level=LogLevel.ERROR), batch(range(1, 50)))
    fleet.say(batch([1]), Presence(online=True), uuid=OTHER)
    again = streams.open("?level=ERROR", admin, Last_Event_ID=last)
    fleet.say(batch([4], level=LogLevel.ERROR))
    again.waits_for("log", 2)
    assert again.messages() == ["m3", "m4"]
    assert [each["uuid"] for each in again.of("client")] == [OTHER]
    assert again.of("dropped") == []
    # The header is the newer one: a browser sends it with the address that it began with.
    assert streams.open(f"?level=ERROR&after={last}", admin, Last_Event_ID=again.last_id).messages() == []
    assert streams.open(f"?level=ERROR&after={last}", admin).waits_for("log", 2)


def test_how_far_it_is_is_an_event(fleet: Fleet, streams: Streams, admin: str) -> None:
    """Also where nothing was for this one: a browser tells its script no `id` that comes alone."""
    stream = streams.open("?level=ERROR", admin)
    (event,) = stream.events
    assert (event.name, event.id, event.data) == ("place", stream.last_id, {})
    fleet.say(batch([1, 2]), batch([1], level=LogLevel.ERROR), batch([3]))
    stream.waits_for("log")
    fleet.say(batch(range(4, 9)))
    # Within the time after which a quiet stream says that it lives.
    wait_for(lambda: stream.events[-1].id.startswith("9/"), "the newest place", timeout=25)
    assert [event.name for event in stream.events if event.name != "client"][:3] == ["place", "log", "place"]
    assert stream.events[-1].name == "place"


def test_of_much_that_was_missed_comes_the_newest(fleet: Fleet, streams: Streams, admin: str) -> None:
    stream = streams.open(token=admin)
    fleet.say(batch([1]))
    stream.waits_for("log")
    place = stream.events[-1].id
    for start in range(2, 902, 300):
        fleet.say(batch(range(start, start + 300)))
    # From here on none of it is still on its way to those who watch.
    wait_for(lambda: stream.messages()[-1] == "m901", "the hub has read it all")
    again = streams.open(token=admin, Last_Event_ID=place)
    again.waits_for("log", 500)
    assert again.messages() == [f"m{n}" for n in range(402, 902)]
    assert again.events[0].name == "dropped"
    assert sum(each["logs"] for each in again.of("dropped")) == 400


def test_a_place_of_another_database_is_no_place(fleet: Fleet, streams: Streams, admin: str) -> None:
    stream = streams.open(token=admin, Last_Event_ID="5000/5000")
    fleet.say(batch([1]))
    assert stream.waits_for("log")[0]["message"] == "m1"


def test_a_burst_is_cut_and_its_size_is_told(server: Server, fleet: Fleet, streams: Streams, admin: str) -> None:
    """10,000 rows in one transaction: the newest come, the number of the others is told, pages are answered."""
    stream, other = streams.open(token=admin), streams.open("?level=ERROR", admin)
    slowest = 0.0

    def asked() -> bool:
        nonlocal slowest
        began = time.monotonic()
        assert server.request("/api/clients", admin)[0] == 200
        slowest = max(slowest, time.monotonic() - began)
        return "last" in stream.messages()

    records = [item(n) for n in range(1, 10_000)]
    fleet.say(
        *(of_items(records[start : start + 500]) for start in range(0, 9999, 500)),
        of_items([item(10_000, message="last")]),
    )
    wait_for(asked, "the newest line")
    dropped = sum(each["logs"] for each in stream.of("dropped"))
    assert len(stream.of("log")) + dropped == 10_000
    assert len(stream.of("log")) >= 500
    assert other.of("dropped")[0]["about"] is True
    assert slowest < 1


@pytest.mark.parametrize(
    "query", ["?after=x", "?after=1", "?after=-1/1", "?level=LOUD", "?uuid=x", "?x=1", "?logs=0&clients=0"]
)
def test_wrong_parameters(server: Server, admin: str, query: str) -> None:
    status, answer = server.request(f"/api/stream{query}", admin)
    assert status == 400
    assert answer["error"].partition(":")[0] in ("after", "level", "uuid", "x", "clients")


def test_a_wrong_header(server: Server, admin: str) -> None:
    answer = server.request("/api/stream", admin, Last_Event_ID="1/1~")
    assert answer == (400, {"error": "Last-Event-ID: expected the `id` of an event"})


def test_ten_streams_for_one_caller(server: Server, streams: Streams, admin: str) -> None:
    """Those whose browser has left do not count, however little was sent to them since."""
    opened = [streams.open(token=admin) for _ in range(10)]
    refused = streams.open(token=admin)
    assert (refused.status, refused.headers["retry-after"]) == (429, "30")
    wait_for(lambda: refused.ended, "the refusal is over")
    assert json.loads(refused.body) == {"error": "streams: 10 of yours are open, which is the most for one caller"}
    assert streams.open(token=server.token("user")).status == 200
    streams.close(opened[0])
    wait_for(lambda: streams.open(token=admin).status == 200, "a stream in place of the closed one")


def test_a_stream_ends_when_the_token_does(server: Server, fleet: Fleet, streams: Streams, admin: str) -> None:
    stream, other = streams.open(token=admin), streams.open(token=server.token("user"))
    server.call("token", "revoke", admin[:16])
    wait_for(lambda: stream.ended, "the end", timeout=30)
    assert stream.of("end") == [{"reason": "no longer allowed"}]
    fleet.say(batch([1]), Presence(online=True))
    assert other.waits_for("client")


def test_streams_end_when_the_server_does(server: Server, streams: Streams, admin: str) -> None:
    opened = [streams.open(token=admin) for _ in range(5)]
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3
    wait_for(lambda: all(each.ended for each in opened), "all have ended")
    assert "graceful timeout" not in server.log.read_text()


def test_the_view_goes_on_when_the_database_was_away(tmp_path: Path, postgres: Postgres) -> None:
    """Whoever watches keeps the stream, and misses nothing of what was committed before the hub was back."""
    url = postgres.new_database()
    with Server(tmp_path, url, debug_mode=True) as server, ExitStack() as stack:
        server.call("migrate")
        server.start("web")
        streams = stack.enter_context(Streams(server.port))
        stream = streams.open(token=server.token("admin"))
        fleet = stack.enter_context(Fleet(url, migrated=False))
        fleet.say(batch([1]))
        stream.waits_for("log")
        listening = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
        of_others = "datname = current_database() AND pid <> pg_backend_pid()"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of_others}"
        assert fleet.one(listening) == 1
        fleet.rows(end)
        fleet.say(batch([2]))
        assert [line["message"] for line in stream.waits_for("log", 2)] == ["m1", "m2"]
        wait_for(lambda: fleet.one(listening) == 1, "it listens again")
        assert "live view, again in 0.5 s" in server.log.read_text()
