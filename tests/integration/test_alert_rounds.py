"""Rounds of evaluation on what kiosks said, with the time in the test's hand: who is told what, and how often."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from infoscreen_server.alerts import evaluate
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import writing
from infoscreen_server.ledger import Arrival
from infoscreen_server.models import Client, ClientTag
from infoscreen_server.models_alerts import AlertChannel, AlertRule, AlertSilence, OpeningHours
from infoscreen_server.store import ingest
from infoscreen_shared.messages import Heartbeat, LogLevel, ProcessStatus, ScreenHealthStatus, timestamp_text
from parts.fleet import ALL, NOW, Fleet, of_items, uuid_of

MINUTE = timedelta(minutes=1)
STEP = timedelta(seconds=10)


class Watch(Fleet):
    """A fleet, and rounds every ten seconds."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url)
        self.config = ServerConfig(database_url=url, heartbeat_seconds=15, **settings)
        self.now = NOW
        self.alive: dict[str, ScreenHealthStatus] = {}
        self.seqs: dict[str, int] = {}
        with writing(self.engine) as connection:
            connection.execute(insert(AlertChannel).values(name="ops", url="json://ops.example", created_at=NOW))

    def __enter__(self) -> "Watch":
        return self

    def turn(self, span: timedelta) -> None:
        """Let time go by: heartbeats of the living, then a round, every ten seconds."""
        end = self.now + span
        while self.now < end:
            self.now += STEP
            if self.alive:
                said = [Arrival(uuid, self.beat(status)) for uuid, status in self.alive.items()]
                ingest(self.engine, said, self.now, ALL, "mqtt")
            evaluate.round(self.engine, self.config, self.now)

    def beat(self, status: ScreenHealthStatus) -> Heartbeat:
        return Heartbeat("", self.now, "vlc", 1, ProcessStatus.RUNNING, 1, status, 0, None, "1")

    def start(self, *numbers: int, site: str | None = None, tag: str | None = None) -> None:
        uuids = [uuid_of(number) for number in numbers]
        self.alive.update(dict.fromkeys(uuids, ScreenHealthStatus.OK))
        self.turn(STEP)
        with writing(self.engine) as connection:
            for number, uuid in zip(numbers, uuids, strict=True):
                connection.execute(
                    update(Client).where(Client.uuid == uuid).values(name=f"Screen {number}", location=site)
                )
                if tag:
                    connection.execute(insert(ClientTag).values(client_uuid=uuid, tag=tag))
        self.turn(MINUTE)

    def record(self, number: int, level: LogLevel, code: str, count: int = 1) -> None:
        uuid = uuid_of(number)
        for _ in range(count):
            seq = self.seqs[f"{uuid} {level}"] = self.seqs.get(f"{uuid} {level}", 0) + 1
            item = {"timestamp": timestamp_text(self.now), "message": code, "context": {}, "seq": seq, "code": code}
            ingest(self.engine, [Arrival(uuid, of_items([item], level=level))], self.now, ALL, "mqtt")

    def titles(self) -> list[str]:
        return self.rows("SELECT title FROM alert_messages ORDER BY id")

    def rule(self, kind: str, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(AlertRule).where(AlertRule.kind == kind).values(**values))


@pytest.fixture
def watch(database_url: str) -> Iterator[Watch]:
    with Watch(database_url, public_url="https://screens.example.org") as running:
        yield running


def test_offline_is_told_once_and_so_is_its_end(watch: Watch) -> None:
    watch.start(1, 2, 3)
    del watch.alive[uuid_of(1)]
    watch.turn(9 * MINUTE)
    assert watch.titles() == []
    watch.turn(2 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]"]
    watch.turn(20 * MINUTE)
    watch.alive[uuid_of(1)] = ScreenHealthStatus.OK
    watch.turn(3 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]", "RECOVERED Screen 1: online again [#1-2]"]
    bodies = watch.rows("SELECT body FROM alert_messages ORDER BY id")
    assert f"https://screens.example.org/clients/{uuid_of(1)}" in bodies[0]
    assert "for 3" in bodies[1]
    watch.turn(20 * MINUTE)
    assert len(watch.titles()) == 2


def test_one_that_was_never_heard_of_is_not_offline(watch: Watch) -> None:
    watch.start(1)
    watch.record(9, LogLevel.INFO, "x.y")
    watch.run("UPDATE clients SET last_alive = NULL, online = false WHERE name IS NULL")
    watch.turn(30 * MINUTE)
    assert watch.titles() == []


def test_a_site_that_goes_dark_is_one_message(watch: Watch) -> None:
    watch.rule("outage", enabled=False)
    watch.start(*range(40), site="Linz")
    watch.start(*range(40, 100))
    for number in range(40):
        del watch.alive[uuid_of(number)]
        if number % 20 == 19:
            watch.turn(STEP)
    watch.turn(13 * MINUTE)
    assert watch.titles() == ["ALERT 40 screens, Linz: offline [#1-1]"]
    watch.alive.update({uuid_of(number): ScreenHealthStatus.OK for number in range(40)})
    watch.turn(5 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED 40 screens, Linz: online again [#1-2]"]


def test_when_many_fall_silent_it_is_the_server(watch: Watch) -> None:
    watch.start(*range(20))
    for number in range(8):
        del watch.alive[uuid_of(number)]
    watch.turn(15 * MINUTE)
    (title,) = watch.titles()
    assert title.startswith("ALERT All screens: many screens fell silent at once")
    watch.alive.update({uuid_of(number): ScreenHealthStatus.OK for number in range(8)})
    watch.turn(5 * MINUTE)
    assert [each.partition(" ")[0] for each in watch.titles()] == ["ALERT", "RECOVERED"]


def test_a_server_that_was_away_does_not_blame_the_screens(watch: Watch) -> None:
    watch.start(1, 2, 3)
    watch.now += timedelta(hours=2)
    watch.turn(10 * MINUTE)
    assert watch.titles() == []


def test_black_and_frozen(watch: Watch) -> None:
    watch.start(1, 2)
    watch.alive[uuid_of(1)] = ScreenHealthStatus.BLACK
    watch.turn(4 * MINUTE)
    assert watch.titles() == []
    watch.turn(2 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: picture wrong [#1-1]"]
    # That it cannot be seen is no recovery.
    watch.alive[uuid_of(1)] = ScreenHealthStatus.UNKNOWN
    watch.turn(10 * MINUTE)
    assert len(watch.titles()) == 1
    watch.alive[uuid_of(1)] = ScreenHealthStatus.OK
    watch.turn(3 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: picture right again [#1-2]"]


def test_errors_have_two_thresholds(watch: Watch) -> None:
    watch.start(1)
    watch.record(1, LogLevel.ERROR, "x.failed", 10)
    watch.turn(MINUTE)
    assert watch.titles() == []
    watch.record(1, LogLevel.ERROR, "x.failed", 1)
    watch.turn(MINUTE)
    assert watch.titles() == ["ALERT Screen 1: many errors [#1-1]"]
    watch.turn(10 * MINUTE)
    watch.record(1, LogLevel.ERROR, "x.failed", 5)
    watch.turn(10 * MINUTE)
    assert len(watch.titles()) == 1, "five are more than the two below which it is over"
    watch.turn(10 * MINUTE)
    assert watch.titles()[1:] == ["RECOVERED Screen 1: no longer many errors [#1-2]"]


def test_a_crash_loop_and_dropped_records(watch: Watch) -> None:
    watch.rule("errors", enabled=False)
    watch.start(1)
    for _ in range(4):
        watch.record(1, LogLevel.ERROR, "player.crashed")
        watch.turn(MINUTE)
    assert watch.titles() == ["ALERT Screen 1: player crashes again and again [#1-1]"]
    watch.record(1, LogLevel.WARN, "buffer.dropped")
    watch.turn(MINUTE)
    assert watch.titles()[1:] == ["ALERT Screen 1: records dropped [#2-1]"]


def test_a_silence_keeps_quiet_and_forgets_nothing(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6)
    silence = {"scope": "client", "target": uuid_of(1), "note": "", "by": "anna", "created_at": NOW}
    with writing(watch.engine) as connection:
        values = {"starts_at": NOW, "ends_at": watch.now + timedelta(hours=1), **silence}
        connection.execute(insert(AlertSilence).values(**values))
    del watch.alive[uuid_of(1)]
    watch.turn(50 * MINUTE)
    assert watch.titles() == []
    assert watch.one("SELECT count(*) FROM alerts") == 1
    watch.turn(15 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]"]


def test_outside_opening_hours_nothing_fires(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6, tag="school")
    opens = (watch.now + timedelta(hours=2)).replace(second=0, microsecond=0)
    begin = opens.hour * 60 + opens.minute
    week = str([[[begin, (begin + 480) % 1440]]] * 7)
    with writing(watch.engine) as connection:
        connection.execute(insert(OpeningHours).values(tag="school", zone="UTC", week=week, closed="[]"))
    del watch.alive[uuid_of(1)]
    watch.turn(timedelta(hours=1))
    assert watch.titles() == []
    watch.turn(opens - watch.now + 8 * MINUTE)
    assert watch.titles() == [], "ten minutes of open time have to go by"
    watch.turn(4 * MINUTE)
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]"]


def test_on_and_off_is_said_once(watch: Watch) -> None:
    watch.rule("screen", hold=0, keep=0)
    watch.start(1)
    for _ in range(8):
        watch.alive[uuid_of(1)] = ScreenHealthStatus.BLACK
        watch.turn(2 * MINUTE)
        watch.alive[uuid_of(1)] = ScreenHealthStatus.OK
        watch.turn(2 * MINUTE)
    heads = [title.partition(" ")[0] for title in watch.titles()]
    assert heads[-1] == "FLAPPING"
    assert heads.count("FLAPPING") == 1
    watch.turn(35 * MINUTE)
    assert [title.partition(" ")[0] for title in watch.titles()] == [*heads, "STEADY"]


def test_a_reminder_after_twelve_hours(watch: Watch) -> None:
    watch.rule("offline", repeat=3600)
    watch.start(1, 2, 3, 4, 5, 6)
    del watch.alive[uuid_of(1)]
    watch.turn(timedelta(minutes=80))
    assert [title.partition(" ")[0] for title in watch.titles()] == ["ALERT", "STILL"]


def test_a_rule_that_is_switched_off_ends_without_a_word(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6)
    del watch.alive[uuid_of(1)]
    watch.turn(12 * MINUTE)
    watch.rule("offline", enabled=False)
    watch.turn(MINUTE)
    assert watch.one("SELECT count(*) FROM alerts WHERE closed_at IS NULL") == 0
    watch.rule("offline", enabled=True)
    watch.turn(12 * MINUTE)
    assert [title.partition(" ")[0] for title in watch.titles()] == ["ALERT", "ALERT"]


def test_two_processes_at_once_say_it_once(watch: Watch) -> None:
    watch.start(1, 2, 3, 4, 5, 6)
    del watch.alive[uuid_of(1)]
    watch.turn(9 * MINUTE)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(12):
            watch.now += STEP
            said = [Arrival(uuid, watch.beat(status)) for uuid, status in watch.alive.items()]
            ingest(watch.engine, said, watch.now, ALL, "mqtt")
            moment: datetime = watch.now
            list(pool.map(lambda _: evaluate.round(watch.engine, watch.config, moment), range(4)))  # noqa: B023
    assert watch.titles() == ["ALERT Screen 1: offline [#1-1]"]
    assert watch.one("SELECT count(*) FROM alerts") == 1


def test_german_and_names_that_try_to_be_headers(database_url: str) -> None:
    with Watch(database_url, language="de") as watch:
        watch.start(1, 2, 3, 4, 5, 6)
        watch.run("UPDATE clients SET name = 'Halle\r\nBcc: all@example.org' WHERE name = 'Screen 1'")
        del watch.alive[uuid_of(1)]
        watch.turn(12 * MINUTE)
        assert watch.titles() == ["ALARM Halle Bcc: all@example.org: offline [#1-1]"]
