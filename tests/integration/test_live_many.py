"""The live view with many: writers at once, viewers that go from one web process to another, some that never read."""

import random
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from infoscreen_server.accounts import add_token
from infoscreen_server.db import is_sqlite, make_engine, writing
from infoscreen_server.models import ClientLog, TokenRole
from infoscreen_shared.messages import LogLevel
from parts.fleet import UUID, Fleet, batch, item, of_items, uuid_of
from parts.server import Server
from parts.stream import Stream, Streams
from parts.wait import wait_for

WRITERS, ROUNDS = 4, 40


@pytest.fixture
def servers(tmp_path: Path, database_url: str) -> Iterator[list[Server]]:
    """Two web processes on one database."""
    with ExitStack() as stack:
        made = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            made.append(stack.enter_context(Server(tmp_path / name, database_url, debug_mode=True)))
        made[0].call("migrate")
        yield [each.start("web") for each in made]


def tokens(database_url: str, number: int) -> list[str]:
    engine = make_engine(database_url)
    now = datetime.now(UTC)
    made = [add_token(engine, f"viewer {n}", TokenRole.ADMIN, now=now) for n in range(number)]
    engine.dispose()
    return made


def write(url: str, writer: int, seed: int) -> None:
    """Transactions of all sizes. Some stay open while others take later ids and commit; some of these roll back."""
    chance = random.Random(f"{seed} {writer}")
    seq = 1
    with Fleet(url, migrated=False) as fleet:
        for _ in range(ROUNDS):
            rows = chance.choice((1, 1, 2, 5, 20))
            if chance.random() < 0.2:
                # On SQLite nobody else could write meanwhile.
                pause = 0.0 if is_sqlite(fleet.engine) else chance.random() * 0.6
                stay_open(fleet, rows, pause, commit=chance.random() < 0.5)
            fleet.say(batch(range(seq, seq + rows)), uuid=uuid_of(writer + 1))
            seq += rows
            time.sleep(chance.random() * 0.08)


def stay_open(fleet: Fleet, rows: int, pause: float, *, commit: bool) -> None:
    now = datetime.now(UTC)
    row = {"client_uuid": UUID, "timestamp": now, "received_at": now, "level": LogLevel.INFO, "message": "late"}
    with suppress(ZeroDivisionError), writing(fleet.engine) as connection:
        connection.execute(insert(ClientLog), [row] * rows)
        time.sleep(pause)
        if not commit:
            raise ZeroDivisionError


def test_whoever_leaves_and_comes_back_misses_nothing_and_gets_nothing_twice(
    servers: list[Server], database_url: str
) -> None:
    """From one web process to the other and back, in the middle of what four writers do at once."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    (token,) = tokens(database_url, 1)
    got: list[int] = []
    with (
        Streams(servers[0].port) as one,
        Streams(servers[1].port) as other,
        Fleet(database_url, migrated=False) as fleet,
    ):
        at = chance.choice((one, other))
        stream = at.open("?clients=false", token)
        writers = [threading.Thread(target=write, args=(database_url, n, seed)) for n in range(WRITERS)]
        for each in writers:
            each.start()
        visits = 0
        while any(each.is_alive() for each in writers):
            time.sleep(chance.random() * 0.4)
            place = take(at, stream, got)
            at = chance.choice((one, other))
            stream = at.open("?clients=false", token, Last_Event_ID=place)
            visits += 1
        wait_for(lambda: len(got) + len(stream.of("log")) >= len(fleet.messages()), "all that was committed")
        take(at, stream, got)
        assert sorted(got) == fleet.rows("SELECT id FROM client_logs ORDER BY id")
        assert visits > 5


def take(at: Streams, stream: Stream, got: list[int]) -> str:
    """What came, and where it breaks off."""
    at.close(stream)
    assert stream.of("dropped") == []
    got += [line["id"] for line in stream.of("log")]
    return stream.last_id


def test_one_that_does_not_read_costs_the_others_nothing(servers: list[Server], database_url: str) -> None:
    """200 viewers, pages meanwhile, and some that never read: lines come in time, and memory stays what it is."""
    server = servers[0]
    (worker,) = [each for each in server.family() if not each.children()]
    keys = tokens(database_url, 22)
    with Streams(server.port) as streams, Fleet(database_url, migrated=False) as fleet:
        viewers = [streams.open("?clients=false", key) for key in keys[:20] for _ in range(10)]
        for key in keys[20:]:
            for _ in range(5):
                streams.open("?clients=false", key, reads=False)
        padding = "x" * 1000
        delays: list[float] = []
        for number in range(1, 61):
            said = [item(seq, message=f"{time.time()} {padding}") for seq in range(10 * number, 10 * number + 10)]
            fleet.say(of_items(said, base=9 if number == 1 else 0))
            began = time.monotonic()
            assert server.request("/api/clients", keys[0])[0] == 200
            delays.append(time.monotonic() - began)
            time.sleep(0.05)
        for viewer in viewers:
            viewer.waits_for("log", 600)
        late = [
            event.at - float(event.data["message"].split()[0])
            for viewer in viewers
            for event in viewer.events
            if event.name == "log"
        ]
        memory = worker.memory_info().rss / 1e6
        cuts = statistics.quantiles(late, n=20)
        figures = f"p50 {cuts[9]:.3f} s, p95 {cuts[18]:.3f} s, pages {max(delays):.3f} s, {memory:.0f} MB"
        print(figures)
        assert cuts[18] < 2, figures
        assert max(delays) < 2, figures
        assert memory < 150, figures


def test_a_viewer_that_never_reads_is_left_after_a_while(servers: list[Server], database_url: str) -> None:
    """Its connection is closed, and with it goes all that was kept for it."""
    server = servers[0]
    (token,) = tokens(database_url, 1)
    with Streams(server.port) as streams, Fleet(database_url, migrated=False) as fleet:
        for _ in range(10):
            streams.open("?clients=false", token, reads=False)
        seq = 1

        def let_in() -> bool:
            nonlocal seq
            fleet.say(of_items([item(n, message="x" * 2000) for n in range(seq, seq + 100)]))
            seq += 100
            return streams.open("?clients=false", token).status == 200

        wait_for(let_in, "room for another stream", timeout=90, interval=1)
