"""A made-up fleet of 1,000 kiosks and what they logged in 90 days, the same at every run but for the times."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

CLIENTS, DAYS = 1_000, 90
NOISY, NOISE = 5, 0.1
"""So many clients write such a share of all records."""
BLOCK = 100_000
SHARES = {"ERROR": 1, "WARN": 4, "INFO": 95}
"""Percent of the records."""

SHOWS = (
    *("sommerfest", "Stadtführung", "lift status", "Wetterbericht", "breakfast menu", "Abendkarte", "Konzerthalle"),
    *("snow report", "Ausstellung", "welcome loop", "Fahrplan Süd", "Fahrplan Nord", "museum tour", "Winterzauber"),
    *("town news", "Kinoprogramm", "bus departures", "Öffnungszeiten", "spa offers", "Straßenfest"),
)
"""What is shown: one or another in every third message. Words to search for."""
PLACES = ("foyer", "Speisesaal", "platform 2", "Kassa", "lift", "Eingang Süd", "window", "bar", "Garage", "stairs")
_MESSAGES: dict[str, tuple[tuple[str | None, str], ...]] = {
    "INFO": (
        ("player.frame", "player answered in {n} ms, frame {m} of many shown"),
        ("playlist.item", "now playing {show}, item {n} of {m}, on the screen in the {place}"),
        ("playlist.item", "Wiedergabe von {show} läuft, Beitrag {n} von {m}"),
        ("content.synced", "content is up to date: {n} files checked, {show} took {m} ms"),
        ("screen.checked", "the picture in the {place} moves: {n} percent differ from the one before"),
        ("network.checked", "the gateway answers after {n} ms, the server after {m} ms"),
        (None, "housekeeping removed {n} old files, {m} kB are free now"),
        (None, "temperature {n} degrees, {m} MB of memory are free"),
    ),
    "WARN": (
        ("network.slow", "the network is slow: {m} ms to the server in the last {n} minutes"),
        ("disk.filling", "the disk is filling up: {n} percent are free"),
        ("clock.stepped", "the clock was set by {n} s"),
        ("content.late", "{show} is not there yet, the version before is shown in the {place}"),
        ("player.slow", "der Player braucht {m} ms für ein Bild von {show}"),
        (None, "the sensor in the {place} gave no answer for {n} s"),
    ),
    "ERROR": (
        ("player.crashed", "the player crashed with signal {n} while showing {show}"),
        ("content.missing", "Störung: {show} fehlt, nichts zu zeigen im Bereich {place}"),
        ("screen.black", "the screen in the {place} is black for {n} s"),
        ("player.hung", "the player did not answer for {n} s and was killed"),
        (None, "unexpected: [Errno {n}] while reading {show}"),
    ),
}
_VARIANTS = {"INFO": 6_000, "WARN": 1_200, "ERROR": 600}

Text = tuple[str | None, str, str | None]
"""code, message, context as JSON."""
Row = tuple[str, str, str, str, str | None, str, str | None, int, int, str]
"""In the order of COLUMNS."""
COLUMNS = ("client_uuid", "timestamp", "received_at", "level", "code", "message", "context", "lane_id", "seq", "clock")
LEVELS = tuple(SHARES)


@dataclass(frozen=True, slots=True)
class Kiosk:
    uuid: str
    hostname: str
    name: str | None
    location: str
    tags: list[str]
    weight: float
    """Its share of the records, of which all together are 1."""


@dataclass(slots=True)
class Fleet:
    kiosks: list[Kiosk] = field(default_factory=list)
    texts: dict[str, list[Text]] = field(default_factory=dict)

    @property
    def noisy(self) -> list[Kiosk]:
        return self.kiosks[:NOISY]

    @property
    def usual(self) -> list[Kiosk]:
        return self.kiosks[NOISY:]


def make_fleet(seed: int = 5) -> Fleet:
    chance = random.Random(seed)
    usual = [chance.uniform(0.4, 1.6) for _ in range(CLIENTS - NOISY)]
    scale = (1 - NOISE) / sum(usual)
    weights = [*[NOISE / NOISY] * NOISY, *(weight * scale for weight in usual)]
    return Fleet(
        [_kiosk(chance, number, weight) for number, weight in enumerate(weights)],
        {level: [_text(chance, level) for _ in range(count)] for level, count in _VARIANTS.items()},
    )


def _kiosk(chance: random.Random, number: int, weight: float) -> Kiosk:
    site = f"Site {number // 25 + 1:02d}"
    name = f"{chance.choice(PLACES)} {number:03d}" if number % 3 else None
    tags = chance.sample(("lobby", "outdoor", "menu", "vertical", "winter", "pilot", "4k", "rented"), number % 3)
    uuid = UUID(int=chance.getrandbits(128), version=4)
    return Kiosk(str(uuid), f"kiosk-{number:04d}", name, site, tags, weight)


def _text(chance: random.Random, level: str) -> Text:
    code, pattern = chance.choice(_MESSAGES[level])
    values = {"n": chance.randrange(2, 99), "m": chance.randrange(100, 9_000)}
    message = pattern.format(show=chance.choice(SHOWS), place=chance.choice(PLACES), **values)
    context = None
    if chance.random() < 0.7:
        facts: dict[str, object] = {
            "pid": chance.randrange(700, 9_000),
            "event_id": chance.randrange(1, 500),
            "load": values["n"] / 50,
        }
        facts |= {"note": chance.choice(SHOWS)} if values["n"] % 4 == 0 else {}
        context = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
    return code, message, context


def blocks(fleet: Fleet, count: int, now: datetime) -> Iterator[list[Row]]:
    """`count` records of the last DAYS, in the order in which they came in, a block at a time.

    Each lane (a client's level, in the order of LEVELS) is numbered from 1.
    """
    chance = random.Random(count)
    clock = _clock(count, now)
    numbers = range(len(fleet.kiosks))
    weights = _summed([kiosk.weight for kiosk in fleet.kiosks])
    shares = _summed(list(SHARES.values()))
    uuids = [kiosk.uuid for kiosk in fleet.kiosks]
    issued = [0] * (len(uuids) * len(LEVELS))
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        rows: list[Row] = []
        levels = chance.choices(range(len(LEVELS)), cum_weights=shares, k=size)
        whose = chance.choices(numbers, cum_weights=weights, k=size)
        places = [chance.random() for _ in range(size)]
        for level, client, place in zip(levels, whose, places, strict=True):
            name = LEVELS[level]
            texts = fleet.texts[name]
            code, message, context = texts[int(place * len(texts))]
            lane = client * len(LEVELS) + level
            issued[lane] += 1
            when, received = next(clock)
            rows.append((uuids[client], when, received, name, code, message, context, lane + 1, issued[lane], "synced"))
        yield rows


def _summed(values: list[float] | list[int]) -> list[float]:
    found, total = [], 0.0
    for value in values:
        total += value
        found.append(total)
    return found


def _clock(count: int, now: datetime) -> Iterator[tuple[str, str]]:
    """`count` times over the last DAYS, evenly, up to 10 s before `now`, and when each came in. As text: no time to
    lose with ten million of them."""
    length = timedelta(days=DAYS) - timedelta(minutes=10)
    begin = now - length
    step = int((length.total_seconds() - 10) * 1e6 / count)
    minute, text, micros = None, "", int(begin.timestamp() * 1e6)
    for _ in range(count):
        micros += step
        if minute != micros // 60_000_000:
            minute = micros // 60_000_000
            text = datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M:")
        rest = micros % 60_000_000
        second, part = divmod(rest, 1_000_000)
        # It came in a moment later; near the end of a minute at once.
        later = second + 1 if second < 59 else second
        yield f"{text}{second:02d}.{part:06d}Z", f"{text}{later:02d}.{part:06d}Z"
