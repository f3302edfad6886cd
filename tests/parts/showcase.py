"""A fleet worth looking at: 40 screens at three sites and the week behind them, told through the real ingest.

Every state that a screen can be in is there at the end, and what leads to it: crash loops, dark and frozen pictures,
outages with their replay, noise. The same seed tells the same story. What people add (names, sites, tags) comes last.
"""

import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from PIL import Image, ImageDraw
from sqlalchemy import Engine, insert, update

from infoscreen_server import screenshots, store
from infoscreen_server.db import make_engine, upgrade, writing
from infoscreen_server.housekeeping import count_out
from infoscreen_server.models import Client, ClientTag, ScreenshotKind
from infoscreen_shared.messages import (
    Batch,
    Clock,
    EventType,
    Health,
    Heartbeat,
    Hello,
    LaneSpan,
    LogLevel,
    ProcessStatus,
    Record,
    ScreenHealthStatus,
)

SEED = 5
POLICY = store.Policy(debug_mode=True)
VERSION = "0.5.0"
LATE = timedelta(hours=24)
"""So long before the end states are told every SHORT, before that every LONG."""
SHORT, LONG = timedelta(minutes=15), timedelta(hours=1)
SITES = ("Wien Hauptbahnhof", "Graz Messe", "Linz Landesmuseum")
PLACES = ("Foyer", "Schaufenster", "Gleis", "Kassa", "Saal", "Café", "Garderobe", "Stiege")
TAGS = ("foyer", "shop window", "departures", "4k", "outdoor")
PLAYERS = (
    ("chromium", EventType.WEBSITE),
    ("mpv", EventType.VIDEO),
    ("vlc", EventType.VIDEO),
    ("zathura", EventType.PRESENTATION),
)
ENDS = {
    3: "crashed",
    7: "starting",
    11: "stopped",
    13: "black",
    17: "frozen",
    19: "unseen",
    23: "offline",
    24: "offline",
    29: "gave up",
    31: "silent",
    37: "behind",
}
"""How the story of some kiosks ends; all others play."""


@dataclass(slots=True)
class Kiosk:
    number: int
    process: str
    kind: EventType
    site: str
    name: str
    tags: tuple[str, ...]
    end: str
    epoch: str
    pid: int = 0

    @property
    def uuid(self) -> str:
        return f"{self.number:08x}-5c4e-4e00-8000-{self.number * 7919:012x}"

    @property
    def hostname(self) -> str:
        return f"kiosk-{self.site.split()[0].lower()}-{self.number:02d}"


class Said(NamedTuple):
    """A body, or a picture that goes in by the other door."""

    at: datetime
    uuid: str
    body: store.Body | screenshots.Upload


def fill(database_url: str, now: datetime, days: float = 7, count: int = 40, seed: int = SEED) -> list[Kiosk]:
    """Bring the database up to date and the story into it, so that it ends at `now`."""
    upgrade(database_url)
    engine = make_engine(database_url)
    try:
        kiosks = [_kiosk(number, random.Random(f"{seed} {number}")) for number in range(count)]
        _live(engine, kiosks, now - timedelta(days=days), now, random.Random(seed))
        _name(engine, kiosks)
        count_out(engine, now)
    finally:
        engine.dispose()
    return kiosks


def _kiosk(number: int, dice: random.Random) -> Kiosk:
    process, kind = PLAYERS[number % len(PLAYERS)]
    site = SITES[number % len(SITES)]
    name = f"{PLACES[number % len(PLACES)]} {number // len(PLACES) + 1}"
    tags = tuple(sorted(dice.sample(TAGS, dice.randrange(3))))
    return Kiosk(number, process, kind, site, name, tags, ENDS.get(number, "plays"), f"{dice.getrandbits(64):016x}")


def _live(engine: Engine, kiosks: Sequence[Kiosk], began: datetime, now: datetime, dice: random.Random) -> None:
    """All that the kiosks say, in the order of time, a group at a time as the ingest takes it."""
    said = sorted((each for kiosk in kiosks for each in _story(kiosk, began, now, dice)), key=lambda one: one.at)
    said.append(Said(now, kiosks[0].uuid, store.Refused("infoscreen/lobby/logs", "topic: no uuid", '{"hello": 1}')))
    group: list[Said] = []
    for each in _numbered(said):
        if group and each.at - group[0].at > SHORT / 3:
            _take(engine, group)
            group = []
        group.append(each)
    _take(engine, group)


def _take(engine: Engine, group: list[Said]) -> None:
    """Pictures first: they show that a kiosk lives, and the last word of one that is offline is that it is."""
    at = group[-1].at
    for _, uuid, body in group:
        if isinstance(body, screenshots.Upload):
            screenshots.keep(engine, uuid, body, at, POLICY)
    arrivals = [store.Arrival(uuid, body) for _, uuid, body in group if not isinstance(body, screenshots.Upload)]
    store.ingest(engine, arrivals, at, POLICY, "mqtt")


def _name(engine: Engine, kiosks: Sequence[Kiosk]) -> None:
    with writing(engine) as connection:
        for kiosk in kiosks:
            given = {"name": kiosk.name, "location": kiosk.site}
            connection.execute(update(Client).where(Client.uuid == kiosk.uuid).values(given))
            for tag in kiosk.tags:
                connection.execute(insert(ClientTag).values(client_uuid=kiosk.uuid, tag=tag))


# --- the story of one kiosk -------------------------------------------------------------------------------------------


def _story(kiosk: Kiosk, began: datetime, now: datetime, dice: random.Random) -> Iterator[Said]:
    kiosk.pid = dice.randrange(900, 30_000)
    if kiosk.end == "silent":
        # A client of another make, which sends plain records and tells no state.
        for hour in range(20):
            record = Record(now - timedelta(hours=hour), f"Slide {hour} shown", {"slide": hour})
            yield Said(record.timestamp, kiosk.uuid, Batch(LogLevel.INFO, None, None, [record], []))
        return
    yield from _hello(kiosk, began)
    trouble = _troubles(kiosk, began, now, dice)
    away = [(one.at, one.until) for one in trouble if one.kind == "away"]
    lasts = now - timedelta(hours=dice.uniform(3, 30)) if kiosk.end == "offline" else now
    turns = lasts if kiosk.end == "plays" else lasts - timedelta(minutes=dice.randrange(6, 50))
    for one in trouble:
        if one.until < turns:
            yield from one.told(kiosk, one.at, one.until, dice)
    at = began + dice.random() * SHORT
    while at < turns:
        hidden = any(start <= at < end for start, end in away)
        if not hidden and not any(one.at <= at < one.until for one in trouble):
            yield from _state(kiosk, at, dice)
            yield from _chatter(kiosk, at, dice)
        at += SHORT if now - at <= LATE else LONG
    yield from _pictures(kiosk, lasts, dice)
    yield from _ending(kiosk, turns, lasts, dice)


class Trouble(NamedTuple):
    kind: str
    at: datetime
    until: datetime
    told: Callable[[Kiosk, datetime, datetime, random.Random], Iterator[Said]]


def _troubles(kiosk: Kiosk, began: datetime, now: datetime, dice: random.Random) -> list[Trouble]:
    """A few of each week, more of them on some kiosks than on others; none while the last hours are told."""
    found = []
    clumsy = 1 + (kiosk.number % 5) * (kiosk.number % 3)
    for _ in range(dice.randrange(clumsy + 1)):
        kind, told, shortest, longest = dice.choice(_KINDS)
        at = began + dice.random() * (now - began - timedelta(hours=12))
        found.append(Trouble(kind, at, at + timedelta(minutes=dice.uniform(shortest, longest)), told))
    found.sort(key=lambda one: one.at)
    apart: list[Trouble] = []
    for one in found:
        if not apart or one.at > apart[-1].until + SHORT:
            apart.append(one)
    return apart


def _hello(kiosk: Kiosk, at: datetime) -> Iterator[Said]:
    yield Said(at, kiosk.uuid, Hello(kiosk.epoch, {level: LaneSpan(0, 1) for level in LogLevel}, VERSION))
    yield Said(at, kiosk.uuid, store.Presence(True))
    yield _record(kiosk, at, LogLevel.INFO, "The watchdog has started", "agent.started", pid=kiosk.pid - 90)


def _record(kiosk: Kiosk, at: datetime, level: LogLevel, text: str, code: str | None = None, **context: Any) -> Said:
    """Its number it gets when all are in order."""
    record = Record(at, text, context, code, kiosk.epoch, None, f"boot-{kiosk.number}", Clock.SYNCED)
    return Said(at, kiosk.uuid, Batch(level, kiosk.epoch, 0, [record], [], None))


def _numbered(said: list[Said]) -> Iterator[Said]:
    last: dict[tuple[str, LogLevel], int] = {}
    for one in said:
        if isinstance(one.body, Batch) and one.body.epoch is not None:
            lane = (one.uuid, one.body.level)
            seq = last[lane] = last.get(lane, 0) + 1
            records = [record._replace(seq=seq) for record in one.body.records]
            yield one._replace(body=replace(one.body, records=records, first=seq))
        else:
            yield one


def _state(
    kiosk: Kiosk,
    at: datetime,
    dice: random.Random,
    process: ProcessStatus = ProcessStatus.RUNNING,
    screen: ScreenHealthStatus = ScreenHealthStatus.OK,
    reason: str | None = None,
    pending: int = 0,
) -> Iterator[Said]:
    """A heartbeat, and half the time a health report behind it."""
    pid = kiosk.pid if process is ProcessStatus.RUNNING else None
    event = 100 + kiosk.number
    oldest = at - timedelta(minutes=pending) if pending else None
    beat = Heartbeat(kiosk.uuid, at, kiosk.process, pid, process, event, screen, pending, oldest, VERSION)
    yield Said(at, kiosk.uuid, beat)
    hour = at.hour + at.minute / 60
    system = {
        "hostname": kiosk.hostname,
        "boot_id": f"boot-{kiosk.number}",
        "uptime_s": 86_400 + kiosk.number * 3600,
        "cpu_temperature": round(48 + 9 * (1 - abs(hour - 14) / 14) + dice.gauss(0, 1.2) + kiosk.number % 4 * 4, 1),
        "load": [round(abs(dice.gauss(0.6, 0.25)), 2) for _ in range(3)],
        "disk_free": 9_000_000_000 - kiosk.number * 150_000_000,
        "memory_total": 3_980_000_000,
        "memory_available": round(1_900_000_000 + dice.gauss(0, 90_000_000) - kiosk.number % 3 * 500_000_000),
    }
    yield Said(
        at + timedelta(seconds=1),
        kiosk.uuid,
        Health(
            at + timedelta(seconds=1),
            event,
            kiosk.kind,
            kiosk.process,
            pid,
            process,
            screen,
            reason,
            f"{dice.getrandbits(64):016x}",
            at,
            system,
        ),
    )


def _chatter(kiosk: Kiosk, at: datetime, dice: random.Random) -> Iterator[Said]:
    """What players and event handlers write day by day."""
    roll = dice.random()
    if roll < 0.15:
        yield _record(kiosk, at, LogLevel.INFO, f"Playlist loaded, {dice.randrange(3, 40)} entries", source="handler")
    elif roll < 0.2:
        text = "The feed could not be fetched: timed out after 10 s"
        url = f"https://feeds.example.org/{kiosk.site.split()[0].lower()}/departures.json?platform={kiosk.number}"
        yield _record(kiosk, at, LogLevel.WARN, text, "feed.unreachable", url=url, tries=3, wait_s=10.0)
    elif roll < 0.22:
        yield _record(kiosk, at, LogLevel.WARN, "The picture is 4 s behind the sound", frames={"late": 96, "lost": 12})
    elif roll < 0.3:
        yield _record(kiosk, at, LogLevel.DEBUG, "Cycle took longer than usual", cycle_ms=dice.randrange(80, 900))
    elif roll < 0.305:
        trace = "Traceback (most recent call last):\n  File \"handler.py\", line 81, in show\nKeyError: 'slides'"
        yield _record(kiosk, at, LogLevel.ERROR, "The event handler failed", "handler.failed", trace=trace)


# --- troubles ---------------------------------------------------------------------------------------------------------


def _about(kiosk: Kiosk, **more: Any) -> dict[str, Any]:
    return {"process": kiosk.process, "event_id": 100 + kiosk.number, "pid": kiosk.pid} | more


def _crash(kiosk: Kiosk, at: datetime, dice: random.Random) -> Iterator[Said]:
    number = dice.choice((6, 9, 11))
    text = f"{kiosk.process} (pid {kiosk.pid}) was killed by signal {number}"
    evidence = {"memory_available": dice.randrange(10**8, 10**9), "cpu_temperature": round(dice.uniform(50, 80), 1)}
    facts = _about(kiosk, ran_s=round(dice.uniform(2, 90_000), 3), signal=number, **evidence)
    yield _record(kiosk, at, LogLevel.ERROR, text, "player.crashed", **facts)


def _crashes(kiosk: Kiosk, at: datetime, until: datetime, dice: random.Random) -> Iterator[Said]:
    """A loop of them, and the end of it."""
    tries = dice.choice((1, 1, 2, 3, 5))
    for number in range(1, tries + 1):
        yield from _crash(kiosk, at, dice)
        at += timedelta(seconds=2 * number)
        text = f"Restarting {kiosk.process} (restart {number} since it was last stable)"
        yield _record(kiosk, at, LogLevel.INFO, text, "player.restarting", **_about(kiosk, restart=number))
        kiosk.pid += 7
        at += timedelta(seconds=1)
        text = f"{kiosk.process} is running (pid {kiosk.pid})"
        yield _record(kiosk, at, LogLevel.INFO, text, "player.started", **_about(kiosk))
        at += timedelta(seconds=8)
    until = max(until, at)
    text = f"{kiosk.process} is stable again after an outage of {tries * 4}.0 s"
    facts = _about(kiosk, outage_s=tries * 4.0, restarts=tries)
    yield _record(kiosk, until, LogLevel.INFO, text, "player.recovered", **facts)


def _dark(kiosk: Kiosk, at: datetime, until: datetime, dice: random.Random) -> Iterator[Said]:
    yield from _wrong_picture(kiosk, at, dice, dice.choice((ScreenHealthStatus.BLACK, ScreenHealthStatus.FROZEN)))
    text = f"The screen shows {kiosk.process} again after {(until - at).total_seconds():.0f} s"
    facts = _about(kiosk, outage_s=(until - at).total_seconds(), reason="black")
    yield _record(kiosk, until, LogLevel.INFO, text, "screen.recovered", **facts)
    yield from _state(kiosk, until, dice)


def _wrong_picture(kiosk: Kiosk, at: datetime, dice: random.Random, status: ScreenHealthStatus) -> Iterator[Said]:
    black = status is ScreenHealthStatus.BLACK
    reason = "black" if black else "frozen"
    text = "The screen is black" if black else "The picture has not changed for 30 s"
    look = {"mean": 0.4, "spread": 0.2} if black else {"changed": 0.0003, "frames": 4}
    code = "screen.black" if black else "screen.frozen"
    yield _record(kiosk, at, LogLevel.ERROR, text, code, **_about(kiosk, reason=reason, look=look))
    yield from _state(kiosk, at, dice, screen=status, reason=text)
    yield _picture(kiosk, at, ScreenshotKind.INCIDENT, status, text)


def _away(kiosk: Kiosk, at: datetime, until: datetime, dice: random.Random) -> Iterator[Said]:
    """No network; what happened meanwhile comes afterwards, as old as it is."""
    yield Said(at, kiosk.uuid, store.Presence(False))
    middle = at + (until - at) / 2
    yield Said(until, kiosk.uuid, store.Presence(True))
    for each in _crash(kiosk, middle, dice):
        yield each._replace(at=until)
    text = "The outbox dropped 214 DEBUG records, the oldest it had (size bound)"
    yield _record(kiosk, until, LogLevel.WARN, text, "buffer.dropped", lane="DEBUG", count=214, reason="size")
    text = f"{kiosk.process} is stable again after an outage of 3.1 s"
    recovered = _record(kiosk, middle, LogLevel.INFO, text, "player.recovered", **_about(kiosk, outage_s=3.1))
    yield recovered._replace(at=until)


def _session(kiosk: Kiosk, at: datetime, until: datetime, dice: random.Random) -> Iterator[Said]:
    """Further up the ladder."""
    yield from _crash(kiosk, at, dice)
    at += timedelta(seconds=20)
    text = f"Restart of {kiosk.process} failed: not seen within 15 s"
    yield _record(kiosk, at, LogLevel.ERROR, text, "player.restart_failed", **_about(kiosk, error="not seen"))
    text = "Restarting greetd.service: 5 restarts within 300 s did not help"
    facts = _about(kiosk, unit="greetd.service")
    yield _record(kiosk, at + timedelta(seconds=5), LogLevel.ERROR, text, "session.restarting", **facts)
    text = f"{kiosk.process} is stable again after an outage of {(until - at).total_seconds():.1f} s"
    late = max(until, at + timedelta(seconds=40))
    yield _record(kiosk, late, LogLevel.INFO, text, "player.recovered", **_about(kiosk, restarts=6))


_KINDS = (
    ("crash", _crashes, 1, 3),
    ("crash", _crashes, 1, 8),
    ("dark", _dark, 2, 25),
    ("away", _away, 40, 300),
    ("up", _session, 2, 9),
)


# --- how it ends ------------------------------------------------------------------------------------------------------


def _ending(kiosk: Kiosk, before: datetime, at: datetime, dice: random.Random) -> Iterator[Said]:
    """Its last turn `before`, and its last word."""
    if kiosk.end == "crashed":
        yield from _crash(kiosk, before, dice)
        yield from _state(kiosk, at, dice, ProcessStatus.CRASHED, ScreenHealthStatus.UNKNOWN)
    elif kiosk.end == "gave up":
        for number in range(6):
            yield from _crash(kiosk, before + timedelta(seconds=20 * number), dice)
        text = f"{kiosk.process} does not stay up: 5 in 300 s; trying every 600 s from now on"
        yield _record(kiosk, before + timedelta(minutes=3), LogLevel.ERROR, text, "player.gave_up", **_about(kiosk))
        yield from _state(kiosk, at, dice, ProcessStatus.CRASHED, ScreenHealthStatus.BLACK, "The screen is black")
    elif kiosk.end == "starting":
        yield from _state(kiosk, at, dice, ProcessStatus.STARTING, ScreenHealthStatus.UNKNOWN)
    elif kiosk.end == "stopped":
        text = f"{kiosk.process} (pid {kiosk.pid}) was stopped by a signal"
        yield _record(kiosk, before, LogLevel.WARN, text, "player.stopped", **_about(kiosk))
        yield from _state(kiosk, at, dice, ProcessStatus.STOPPED, ScreenHealthStatus.OK)
    elif kiosk.end in ("black", "frozen"):
        status = ScreenHealthStatus.BLACK if kiosk.end == "black" else ScreenHealthStatus.FROZEN
        yield from _wrong_picture(kiosk, before, dice, status)
        text = "The screen is black" if kiosk.end == "black" else "The picture has not changed for 30 s"
        yield from _state(kiosk, at, dice, screen=status, reason=text)
    elif kiosk.end == "unseen":
        text = "The picture cannot be looked at: no capture program"
        yield _record(kiosk, before, LogLevel.WARN, text, "screen.unseen", reason="no capture program", detail="")
        yield from _state(kiosk, at, dice, screen=ScreenHealthStatus.UNKNOWN, reason=text)
    elif kiosk.end == "offline":
        yield Said(at, kiosk.uuid, store.Presence(False))
    elif kiosk.end == "behind":
        yield from _state(kiosk, at, dice, pending=18_412)
    else:
        yield from _state(kiosk, at, dice)


# --- pictures ---------------------------------------------------------------------------------------------------------


def _pictures(kiosk: Kiosk, last: datetime, dice: random.Random) -> Iterator[Said]:
    status = {"black": ScreenHealthStatus.BLACK, "gave up": ScreenHealthStatus.BLACK}
    for number in range(4):
        at = last - timedelta(minutes=15 * number + dice.randrange(5))
        shown = status.get(kiosk.end, ScreenHealthStatus.OK) if number == 0 else ScreenHealthStatus.OK
        yield _picture(kiosk, at, ScreenshotKind.PERIODIC, shown, None)


def _picture(kiosk: Kiosk, at: datetime, kind: ScreenshotKind, status: ScreenHealthStatus, reason: str | None) -> Said:
    black = status is ScreenHealthStatus.BLACK
    number = f"{kiosk.number}-{kind}-{at:%Y%m%dT%H%M%S}"
    picture = draw(kiosk.hostname, f"{at:%H:%M}", black=black)
    return Said(at, kiosk.uuid, screenshots.Upload(number, at, kind, status, reason, None, 320, 180, picture))


def draw(title: str, line: str, *, black: bool = False) -> bytes:
    """What a screen could show, 320 x 180."""
    picture = Image.new("RGB", (320, 180), "black" if black else (16, 42, 92))
    if not black:
        pen = ImageDraw.Draw(picture)
        pen.rectangle((0, 0, 320, 34), fill=(255, 205, 0))
        pen.text((10, 8), title, fill="black", font_size=18)
        for row in range(4):
            pen.line((10, 70 + 28 * row, 310, 70 + 28 * row), fill=(70, 110, 180))
            pen.text((10, 48 + 28 * row), f"{line}   Railjet {60 + row}", fill="white", font_size=14)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=60)
    return out.getvalue()
