"""Health, heartbeat and presence as they cross a real broker."""

import json
import os
import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from parts.agent import Agent, Player
from parts.broker import Broker
from parts.wait import wait_for


class Ear:
    """Hears everything that kiosks say."""

    def __init__(self, port: int) -> None:
        self._heard: queue.SimpleQueue[tuple[str, bytes, bool]] = queue.SimpleQueue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("infoscreen/#", 1)
        self._client.on_message = lambda _client, _data, message: self._heard.put(
            (message.topic, message.payload, message.retain)
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._all: list[tuple[str, bytes]] = []

    def all(self, kind: str) -> list[Any]:
        while not self._heard.empty():
            topic, payload, _ = self._heard.get()
            self._all.append((topic.split("/", 2)[2], payload))
        raw = [payload for what, payload in self._all if what == kind]
        return [payload.decode() for payload in raw] if kind == "status" else [json.loads(payload) for payload in raw]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def ear(broker: Broker) -> Iterator[Ear]:
    listening = Ear(broker.port)
    yield listening
    listening.close()


@pytest.fixture
def player() -> Iterator[Player]:
    with Player() as made:
        yield made


def test_health_at_once_on_every_change(tmp_path: Path, broker: Broker, ear: Ear, player: Player) -> None:
    expected = player.expected(event_id=42, type="video")
    slow = {"health_s": 3600, "heartbeat_s": 3600}
    with Agent(tmp_path, broker.url, player=expected, report=slow) as agent:
        first = player.run(1).pid
        wait_for(lambda: pids(ear)[-1:] == [first], "the player is told of, an hour before health is due")
        wait_for(lambda: "online" in ear.all("status"), "the kiosk is told to be online")
        os.kill(first, signal.SIGKILL)
        second = player.run(2).pid
        wait_for(lambda: pids(ear)[-1:] == [second], "so is the next one")
        told = ear.all("health")[-1]
        assert told["expected_state"] == {"event_id": 42, "event_type": "video"}
        assert told["actual_state"] == {"process": player.name, "pid": second, "status": "running"}
        assert told["screen"]["status"] == "UNKNOWN"
        facts = told["system"]
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert facts["boot_id"] == boot_id
        assert facts["memory_total"] > facts["memory_available"] > 0
        assert facts["disk_free"] > 0
        assert facts["uptime_s"] > 0
        agent.kill()
        wait_for(lambda: ear.all("status")[-1] == "offline", "the broker gives the last will out")


def test_heartbeats_have_the_original_flat_fields(tmp_path: Path, broker: Broker, ear: Ear, player: Player) -> None:
    expected = player.expected(event_id=42, type="video")
    with Agent(tmp_path, broker.url, player=expected, report={"heartbeat_s": 1}) as agent:
        pid = player.run(1).pid
        wait_for(lambda: len([beat for beat in ear.all("heartbeat") if beat["process_pid"] == pid]) >= 2, "it beats")
        beat = ear.all("heartbeat")[-1]
        assert beat["current_process"] == player.name
        assert beat["process_status"] == "running"
        assert beat["current_event_id"] == 42
        assert beat["screen_health_status"] == "UNKNOWN"
        assert beat["uuid"] == agent.status()["uuid"]


def pids(ear: Ear) -> list[int | None]:
    return [told["actual_state"]["pid"] for told in ear.all("health")]
