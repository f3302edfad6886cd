"""Records from the agent's delivery thread to the server's database: real broker, real server, real files."""

import dataclasses
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from infoscreen_device.clock import Clocks, system_clocks
from infoscreen_device.core.model import Draft
from infoscreen_device.delivery import Delivery
from infoscreen_device.settings import BrokerConfig, ClockConfig, Config, HttpConfig
from infoscreen_shared import topics
from infoscreen_shared.messages import DEFAULT_WANTED, Ack, LogLevel, encode_ack
from parts.broker import Broker
from parts.server import Server
from parts.wait import wait_for

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"


def begin(folder: Path, broker: Broker, clocks: Clocks | None = None, **more: Any) -> Delivery:
    """A kiosk's delivery."""
    config = Config(
        state_dir=folder / "kiosk",
        broker=BrokerConfig(url=broker.url, host="127.0.0.1", port=broker.port),
        clock=ClockConfig(trusted=clocks is None, max_wait_s=3600.0),
    )
    started = Delivery(dataclasses.replace(config, **more), UUID, clocks or system_clocks(trusted=True), "0.0-test")
    started.start()
    return started


class Setup:
    """A broker and a server, and kiosks to start."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder = folder
        self.broker = broker
        self.database = folder / "server.db"
        self.server = Server(folder, f"sqlite:///{self.database}", broker.url).start()

    def delivery(self, clocks: Clocks | None = None, **more: Any) -> Delivery:
        return begin(self.folder, self.broker, clocks, **more)

    def rows(self, sql: str = "SELECT message FROM client_logs WHERE code = 'x.y' ORDER BY lane_id, seq") -> list[Any]:
        db = sqlite3.connect(self.database)
        try:
            return [row[0] if len(row) == 1 else row for row in db.execute(sql)]
        finally:
            db.close()

    def accounts_agree(self) -> bool:
        return not self.rows("SELECT 1 FROM lanes WHERE cursor <> stored + unwanted + dead + gap")


@pytest.fixture
def setup(tmp_path: Path, broker: Broker) -> Iterator[Setup]:
    made = Setup(tmp_path, broker)
    yield made
    made.server.__exit__()


def submit(delivery: Delivery, first: int, last: int, level: LogLevel = LogLevel.ERROR) -> list[str]:
    texts = [f"record {number:05}" for number in range(first, last + 1)]
    for text in texts:
        delivery.submit(Draft(level, "x.y", text))
    return texts


def test_live_records_arrive_once_in_order_and_never_touch_the_card(setup: Setup) -> None:
    delivery = setup.delivery()
    wait_for(lambda: delivery.status().connected, "the server answers")
    texts = submit(delivery, 1, 50, LogLevel.INFO)
    wait_for(lambda: setup.rows() == texts, "all records are stored")
    wait_for(lambda: delivery.status().pending == 0, "all are acknowledged")
    assert delivery.stop(5)
    assert not Path(setup.folder / "kiosk/outbox.db-wal").exists()
    assert setup.accounts_agree()


def test_a_broker_that_is_killed_and_forgets_loses_nothing(setup: Setup) -> None:
    delivery = setup.delivery()
    texts = submit(delivery, 1, 3000)
    setup.broker.kill()
    setup.broker.wipe()
    texts += submit(delivery, 3001, 6000)
    setup.broker.start()
    wait_for(lambda: setup.rows() == texts, "all are stored, once and in order", 40)
    wait_for(lambda: delivery.status().pending == 0, "all are acknowledged")
    assert setup.accounts_agree()
    assert delivery.stop(5)


def test_what_waits_at_a_stop_is_sent_by_the_next_run_first(setup: Setup) -> None:
    setup.broker.stop()
    first = setup.delivery()
    texts = submit(first, 1, 700)
    assert first.stop(5)
    setup.broker.start()
    second = setup.delivery()
    texts += submit(second, 701, 800)
    in_order_of_arrival = "SELECT message FROM client_logs WHERE code = 'x.y' ORDER BY id"
    wait_for(lambda: setup.rows(in_order_of_arrival) == texts, "all are stored, the older first", 40)
    assert second.stop(5)


def test_the_http_door_serves_when_the_broker_does_not(setup: Setup) -> None:
    token = setup.server.token("device", UUID)
    setup.broker.stop()
    door = HttpConfig(url=f"http://127.0.0.1:{setup.server.port}", token=token, after_failures=1)
    delivery = setup.delivery(http=door)
    texts = submit(delivery, 1, 1200)
    wait_for(lambda: setup.rows() == texts, "all records are stored over HTTP", 40)
    assert delivery.stop(5)
    assert setup.accounts_agree()


def test_a_lost_server_database_is_a_recorded_gap_and_not_a_stall(setup: Setup) -> None:
    delivery = setup.delivery()
    submit(delivery, 1, 10)
    wait_for(lambda: len(setup.rows()) == 10 and delivery.status().pending == 0, "stored and acknowledged")
    setup.server.stop()
    for file in setup.folder.glob("server.db*"):
        file.unlink()
    setup.server.start()
    texts = submit(delivery, 11, 20)
    wait_for(lambda: setup.rows() == texts, "the later records are stored", 40)
    assert setup.rows("SELECT first, last FROM gaps WHERE lane_id IN (SELECT id FROM lanes WHERE level = 'ERROR')") == [
        (1, 10)
    ]
    assert delivery.stop(5)


class Wall:
    """A kiosk's clocks, to be set by the test: it starts in 1970, as a Pi without a clock battery does."""

    def __init__(self) -> None:
        self.real = system_clocks(trusted=True)
        self.offset = timedelta()
        self.synced = False
        self.start = self.real.utc()
        self.offset = datetime(1970, 1, 1, tzinfo=UTC) - self.start

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.real.utc() + self.offset, self.real.boottime, lambda: self.synced, "boot-1")


def test_a_kiosk_that_starts_in_1970_has_its_times_corrected_before_they_are_sent(setup: Setup) -> None:
    wall = Wall()
    delivery = setup.delivery(wall.clocks())
    texts = submit(delivery, 1, 5)
    wait_for(lambda: delivery.status().lanes[LogLevel.ERROR].durable == 5, "on disk")
    assert not setup.rows()
    wall.offset = timedelta()  # the clock is set ...
    wall.synced = True  # ... and the kernel says so
    texts += submit(delivery, 6, 8)
    wait_for(lambda: setup.rows() == texts, "all records are stored", 40)
    rows = setup.rows("SELECT timestamp, clock, device_timestamp FROM client_logs WHERE code = 'x.y' ORDER BY seq")
    times = [datetime.fromisoformat(row[0]) for row in rows]
    assert [row[1] for row in rows] == ["corrected"] * 5 + ["synced"] * 3
    assert all(wall.start - timedelta(seconds=1) <= when <= datetime.now(UTC) for when in times)
    assert times == sorted(times)
    assert {row[2] for row in rows} == {None}, "nothing had to be clamped"
    wall.offset = timedelta(hours=-2)  # someone sets it back
    texts += submit(delivery, 9, 9)
    wait_for(lambda: setup.rows() == texts, "order holds by number")
    wait_for(lambda: "clock.stepped" in setup.rows("SELECT code FROM client_logs"), "the step is a record")
    assert delivery.stop(5)


def test_a_loss_that_the_server_does_not_take_note_of_is_told_without_haste(tmp_path: Path, broker: Broker) -> None:
    """Its hello is not answered, as one that is refused; those of later openings are, and that is no reason for more.

    The boot clock stands still: whatever is said again in here is said at once.
    """
    broker.stop()
    real = system_clocks(trusted=True)
    moment = real.boottime()
    clocks = Clocks(real.utc, lambda: moment, lambda: True, "boot-1")
    first = begin(tmp_path, broker, clocks)
    submit(first, 1, 5)
    lost = first.status().epoch
    assert first.stop(5)
    with closing(sqlite3.connect(tmp_path / "kiosk/outbox.db")) as file, file:
        file.execute("DELETE FROM segments")
        file.execute("UPDATE lanes SET base = next - 1")
    broker.start()
    hellos: list[str] = []
    beats: list[bytes] = []

    def hear(client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/heartbeat"):
            beats.append(message.payload)
        elif message.topic.endswith("/hello"):
            hellos.append(json.loads(message.payload)["epoch"])
            if hellos[-1] != lost:
                client.publish(topics.topic(UUID, "ack"), encode_ack(Ack(hellos[-1], {}, dict(DEFAULT_WANTED))), qos=1)

    server = mqtt.Client(CallbackAPIVersion.VERSION2)
    listens = threading.Event()
    server.on_message = hear
    server.on_connect = lambda client, *_: client.subscribe("infoscreen/#", qos=1)
    server.on_subscribe = lambda *_: listens.set()
    server.connect("127.0.0.1", broker.port)
    server.loop_start()
    assert listens.wait(10)
    second = begin(tmp_path, broker, clocks)
    try:
        for turn in range(30):
            second.publish("heartbeat", str(turn).encode())
            wait_for(lambda turn=turn: len(beats) > turn, "a turn of delivery")  # type: ignore[misc]
    finally:
        assert second.stop(5)
        server.disconnect()
        server.loop_stop()
    assert 1 <= hellos.count(lost) <= 2
