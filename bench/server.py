"""The dashboard at size: 1,000 clients, 1 and 10 million records, while 1,000 records a second come in.

The whole of `infoscreen-server run` on SQLite and on PostgreSQL with its usual, durable settings, a real mosquitto
before it, requests over HTTP from a user who is signed in. One worker process, all on this one machine. PostgreSQL has
256 MB of shared_buffers, SQLite no statistics, as in the field.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from bench import ROOT, server_data, server_peers
from bench.server_data import Database
from bench.server_fleet import Fleet, make_fleet
from bench.server_load import BY_API, NOISIEST, NOTHING, Caller, Paths, Timing, measure, routes, stopped_share
from bench.table import US, Row, percentile, verdict
from infoscreen_server import db
from infoscreen_server.accounts import add_token
from infoscreen_server.models import TokenRole
from parts.broker import Broker
from parts.server import Server

SIZES = (1_000_000, 10_000_000)
KINDS = ("sqlite", "postgresql")
REQUESTS = 200
"""Of each kind."""
VIEWERS, VIEWING_S = 200, 40.0
POLLING_S = 8.0
OF_ONE = 10
"""Streams that one caller may have open."""
WARM_S = 15.0
"""A heartbeat of every client; and what is read often is in memory."""
AIM_GROWTH = 1.5
AIMS_MS = {
    "Clients page": 100,
    "log page of a client": 100,
    "text search": 500,
    NOTHING: 500,
    NOISIEST: 500,
    "API: summary": 100,
}
"""At most, for 95 of 100 requests. What is not here is measured beside it."""
UNBOUNDED = (NOTHING, NOISIEST)
"""No growth is promised: who finds nothing in the time that a search has is told how far back that was."""
PASSWORD = "a bench needs no secrets"


@dataclass(slots=True)
class Found:
    """What one database gave."""

    database: Database
    timings: dict[str, Timing] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    """The share of searches that did not come to the end of the log in their time."""
    feed: dict[str, Any] = field(default_factory=dict)
    viewing: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, float] = field(default_factory=dict)
    """Seconds."""

    @property
    def back(self) -> int:
        """How many records lie before the page that is called far back: nobody pages there by hand, a program that
        reads all does."""
        return min(5_000, self.database.rows // 100)


@dataclass(frozen=True, slots=True)
class Setting:
    folder: Path
    """For this run."""
    fleet: Fleet
    quick: bool

    def times(self, usual: float) -> float:
        return usual / 10 if self.quick else usual


BASE = ROOT / ".cache/bench"


def run(folder: Path, quick: bool, sizes: Sequence[int] = SIZES, kinds: Sequence[str] = KINDS) -> list[Row]:
    server_data.remove_old(BASE)
    setting = Setting(folder, make_fleet(), quick)
    say(f"load of the machine before: {os.getloadavg()[0]:.1f}")
    rows: list[Row] = []
    for kind in kinds:
        found = list(_of_kind(setting, kind, sizes))
        rows += _request_rows(found)
        rows += _other_rows(found[-1])
    return rows


def _of_kind(setting: Setting, kind: str, sizes: Sequence[int]) -> Iterator[Found]:
    if kind == "sqlite":
        for size in sizes:
            database = server_data.sqlite_database(BASE, setting.fleet, size)
            yield _measured(setting, database, last=size == sizes[-1])
        return
    postgres = server_data.postgres_server(BASE)
    postgres.start()
    try:
        for size in sizes:
            database = server_data.postgres_database(setting.fleet, size, postgres)
            yield _measured(setting, database, last=size == sizes[-1])
    finally:
        postgres.stop()


def _measured(setting: Setting, database: Database, *, last: bool) -> Found:
    say(f"{database.engine_name}, {database.rows:,} rows")
    found = Found(database)
    fleet, place = setting.fleet, setting.folder / f"{database.engine_name}-{database.rows}"
    place.mkdir()
    with (
        Broker(place) as broker,
        Server(place, database.url, broker.url, debug_mode=True) as server,
        _stopped(server.start()),
        _feeding(broker.port, found),
    ):
        # What the server does first after a pause of hours: count out, delete what is too old.
        time.sleep(WARM_S)
        caller, paths = _signed_in(server), Paths(fleet, database.rows)
        wanted = routes(caller, paths)
        measure(caller, paths, wanted, 5)
        found.timings = measure(caller, paths, wanted, round(setting.times(REQUESTS)))
        found.stopped = {name: stopped_share(caller, paths, name) for name in UNBOUNDED}
        if last:
            found.timings[_DEEP] = _deep(caller, found, fleet)
            _view(server, setting, caller, found)
            _poll(server, setting, caller, found)
    if last:
        _ask_peers(place, fleet, found)
    say(f"  {json.dumps(found.feed)} {json.dumps(found.viewing)}")
    return found


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """In good order, so that a database which is used again is whole."""
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _feeding(port: int, found: Found) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.server_feed", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield
        said, _ = process.communicate(timeout=60)
        found.feed = json.loads(said)
    finally:
        process.kill()
        process.wait()


def _signed_in(server: Server) -> Caller:
    name = f"bench-{time.time_ns()}"
    server.call("user", "add", name, "--role", "superadmin", said=f"{PASSWORD}\n{PASSWORD}\n")
    caller = Caller(server.port)
    caller.sign_in(name, PASSWORD)
    return caller


# --- what else is measured --------------------------------------------------------------------------------------------


def _deep(caller: Caller, found: Found, fleet: Fleet) -> Timing:
    """A page of the API far back, by the places that the pages before gave."""
    timing = Timing()
    for kiosk in fleet.noisy:
        path, following = f"/api/client-logs/{kiosk.uuid}/logs", ""
        for _ in range(found.back // 500):
            _, body = caller.request("GET", f"{path}?limit=500{following}")
            following = f"&before={json.loads(body)['next']}"
        for _ in range(server_peers.TIMES):
            caller.timed(f"{path}?limit=50{following}", timing)
    return timing


_DEEP = "API: log page far back"
_WATCHED = "Clients page, 200 viewers watching"


def _view(server: Server, setting: Setting, caller: Caller, found: Found) -> None:
    """200 viewers for a while; meanwhile somebody reads the Clients page twice a second."""
    usual, seconds = setting.fleet.usual, max(5.0, setting.times(VIEWING_S))
    queries = [*["level=ERROR&level=WARN"] * 60, *[f"uuid={kiosk.uuid}" for kiosk in usual[:120]]]
    queries += [*["logs=false"] * 10, *["clients=false"] * 10]
    assert len(queries) == VIEWERS
    tokens = _tokens(found.database, VIEWERS // OF_ONE)
    viewers = [(tokens[number // OF_ONE], query) for number, query in enumerate(queries)]
    worker = _worker(server)
    before, began = worker.cpu_times(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.server_viewers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"port": server.port, "seconds": seconds, "viewers": viewers}).encode())
    process.stdin.close()
    timing, most = Timing(), 0
    try:
        while process.poll() is None:
            caller.timed("/", timing)
            most = max(most, worker.memory_info().rss)
            time.sleep(0.5)
        found.viewing = json.loads(process.stdout.read())
    finally:
        process.kill()
        process.wait()
    after, took = worker.cpu_times(), time.monotonic() - began
    found.timings[_WATCHED] = timing
    found.viewing["rss_mb"] = most / 1e6
    found.viewing["cpu"] = (after.user + after.system - before.user - before.system) / took


def _tokens(database: Database, count: int) -> list[str]:
    engine = db.make_engine(database.url)
    now = datetime.now(UTC)
    try:
        kept = now + timedelta(hours=1)
        return [add_token(engine, "bench", TokenRole.ADMIN, now=now, expires_at=kept) for _ in range(count)]
    finally:
        engine.dispose()


def _worker(server: Server) -> psutil.Process:
    """The process that answers: gunicorn's worker below the part `web`."""
    (worker,) = server.part("web").children()
    return worker


def _poll(server: Server, setting: Setting, caller: Caller, found: Found) -> None:
    """What a viewer costs who asks for the newest lines again and again."""
    worker, paths, timing = _worker(server), Paths(setting.fleet, 1), Timing()
    before, until = worker.cpu_times(), time.monotonic() + setting.times(POLLING_S)
    while time.monotonic() < until:
        caller.timed(paths.any("/api/client-logs/{uuid}/logs?limit=20"), timing)
    after = worker.cpu_times()
    found.viewing["poll_cpu"] = (after.user + after.system - before.user - before.system) / len(timing.seconds)


def _ask_peers(place: Path, fleet: Fleet, found: Found) -> None:
    database = found.database
    engine = db.make_engine(database.url)
    try:
        found.peers["GROUP BY over the log"] = server_peers.counted_anew(engine)
        found.peers["OFFSET"] = server_peers.by_offset(engine, fleet, found.back)
    finally:
        engine.dispose()
    if db.is_sqlite(engine):
        file = server_peers.text_file(server_data.folder_of(BASE), fleet, database.rows)
        found.peers["grep, one file of all clients"] = server_peers.grep_all(file, fleet)
        found.peers["grep, a file of each client"] = server_peers.grep_own(file, fleet, place)


# --- the table --------------------------------------------------------------------------------------------------------


def _request_rows(found: list[Found]) -> list[Row]:
    sizes = " / ".join(_size(one.database.rows) for one in found)
    names = [name for name in found[0].timings if name not in (_DEEP, _WATCHED)]
    return [_request_row(name, found, sizes) for name in names]


def _request_row(name: str, found: list[Found], sizes: str) -> Row:
    seconds = [one.timings[name].seconds for one in found]
    half, most = ([percentile(each, share) * 1000 for each in seconds] for share in (50, 95))
    figure = f"p50 {_list(half)} ms, p95 {_list(most)} ms"
    name, by_api = name.removesuffix(BY_API), name.endswith(BY_API)
    aim = AIMS_MS.get(name)
    text, met = f"p95 < {aim} ms", aim is not None and most[-1] < aim
    if len(found) > 1:
        growth = most[-1] / most[0]
        figure += f", {growth:.2f} times"
        if name not in UNBOUNDED:
            text, met = f"{text}, < {AIM_GROWTH} times", met and growth < AIM_GROWTH
    seen = "" if aim is None else verdict(text, met=met)
    if name in UNBOUNDED:
        figure += f", {_list([100 * one.stopped[name] for one in found])} % stopped on the way"
    where = f"{found[-1].database.engine_name}, {sizes} rows"
    return Row(f"{name}{BY_API if by_api else ''}, {where}", US, figure, "", seen)


def _list(values: list[float]) -> str:
    return " / ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in values)


def _size(rows: int) -> str:
    return f"{rows / 1e6:g} M"


def _other_rows(found: Found) -> list[Row]:
    """What was measured on the largest database alone."""
    where = f"{found.database.engine_name}, {_size(found.database.rows)} rows"
    feed, viewing = found.feed, found.viewing
    p50 = {name: percentile(timing.seconds, 50) for name, timing in found.timings.items()}
    rows = [
        Row(
            f"records taken meanwhile, {where}",
            US,
            f"{feed['rate']:.0f}/s, sent to acknowledged p50 {feed['p50_ms']:.0f} ms, p95 {feed['p95_ms']:.0f} ms",
            "",
            verdict("1,000/s, all acknowledged", met=feed["rate"] > 990 and not feed["outstanding"]),
        ),
        Row(
            f"{viewing['viewers']} live viewers, {where}",
            US,
            f"received to seen p50 {viewing['p50_ms']:.0f} ms, p95 {viewing['p95_ms']:.0f} ms, "
            f"{viewing['lines'] / viewing['seconds']:,.0f} lines/s to all, {viewing['dropped']} times some dropped, "
            f"{viewing['cpu'] * 100:.0f} % of a core",
            "",
            verdict(
                "p95 < 1 s, nothing dropped",
                met=viewing["p95_ms"] < 1000 and not viewing["dropped"] and not viewing["ended"],
            ),
        ),
        Row(
            f"web process with them, {where}",
            US,
            f"{viewing['rss_mb']:.0f} MB",
            "",
            verdict("< 150 MB", met=viewing["rss_mb"] < 150),
        ),
        Row(
            f"200 who ask once a second, {where}",
            "polling",
            f"{viewing['poll_cpu'] * VIEWERS * 100:.0f} % of a core",
            f"{viewing['poll_cpu'] * VIEWERS / viewing['cpu']:.1f}",
        ),
    ]
    timing = found.timings[_WATCHED]
    half, most = (percentile(timing.seconds, share) * 1000 for share in (50, 95))
    rows.append(Row(f"{_WATCHED}, {where}", US, f"p50 {half:.0f} ms, p95 {most:.0f} ms", "", ""))
    search = next(name for name in p50 if name.startswith("text search"))
    ours = {"GROUP BY over the log": "API: summary", "OFFSET": _DEEP}
    deep = f"{_DEEP}, {found.back:,} records, {where}"
    rows.append(Row(deep, US, f"p50 {p50[_DEEP] * 1000:.1f} ms"))
    for peer, seconds in found.peers.items():
        beside = ours.get(peer, search)
        ratio = f"{seconds / p50[beside]:.2g}"
        rows.append(Row(f"{beside}, {where}, without HTTP and page", peer, f"{seconds * 1000:.1f} ms", ratio))
    return rows
