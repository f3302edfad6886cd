"""1,000 kiosks that send 1,000 records a second over MQTT, until standard input ends; then what became of them.

python -m bench.server_feed PORT [records a second]

As agents send: half of the records alone and at once, half in batches of 50 as after an hour without connection. Of all
kiosks a heartbeat every 15 s and a health message every minute. All over one connection: the broker is not measured.
"""

import json
import random
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from bench.server_fleet import LEVELS, SHARES, Fleet, make_fleet
from bench.table import percentile
from infoscreen_shared.messages import Clock, LogLevel, Record, encode_batch, encode_record, timestamp_text, to_json
from infoscreen_shared.topics import logs_topic, topic

TICK_S = 0.1
BATCH = 50
HEARTBEAT_S, HEALTH_S = 15.0, 60.0
SETTLE_S = 30.0
"""How long the last acknowledgements are waited for."""

Lane = tuple[str, str]


class Feeder:
    def __init__(self, port: int, fleet: Fleet) -> None:
        self.fleet = fleet
        self.chance = random.Random(port)
        self.epoch = f"live-{time.time_ns()}"
        self.issued: dict[Lane, int] = {}
        self.pending: dict[Lane, deque[tuple[int, float]]] = {}
        """The last number of each message that is not acknowledged, and when it was sent."""
        self.sent = 0
        self.delays: list[float] = []
        self.lock = threading.Lock()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.epoch)
        self.client.max_inflight_messages_set(1_000)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("infoscreen/+/ack")
        self.client.loop_start()

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        now, uuid = time.monotonic(), message.topic.split("/")[1]
        body = json.loads(message.payload)
        if body["epoch"] != self.epoch:
            return
        with self.lock:
            for level, number in body["lanes"].items():
                waiting = self.pending.get((uuid, level.upper()), deque())
                while waiting and waiting[0][0] <= number:
                    _, sent = waiting.popleft()
                    self.delays.append(now - sent)

    def send(self, uuid: str, level: str, count: int) -> None:
        lane = uuid, level
        first = self.issued.get(lane, 0) + 1
        self.issued[lane] = last = first + count - 1
        records = [encode_record(self._record(level, seq)) for seq in range(first, last + 1)]
        with self.lock:
            self.pending.setdefault(lane, deque()).append((last, time.monotonic()))
        self.client.publish(logs_topic(uuid, LogLevel(level)), encode_batch(self.epoch, 0, records), qos=1)
        self.sent += count

    def _record(self, level: str, seq: int) -> Record:
        code, message, context = self.chance.choice(self.fleet.texts[level])
        facts = json.loads(context) if context else {}
        return Record(datetime.now(UTC), message, facts, code, None, seq, "boot", Clock.SYNCED)

    def tick(self, number: int, records: int) -> None:
        """What is sent in one tick."""
        levels = self.chance.choices(LEVELS, list(SHARES.values()), k=records // 2)
        for level in levels:
            self.send(self.chance.choice(self.fleet.kiosks).uuid, level, 1)
        for _ in range((records - records // 2) // BATCH):
            self.send(self.chance.choice(self.fleet.kiosks).uuid, "INFO", BATCH)
        for every, tell in ((HEARTBEAT_S, self._heartbeat), (HEALTH_S, self._health)):
            ticks = round(every / TICK_S)
            for kiosk in self.fleet.kiosks[number % ticks :: ticks]:
                tell(kiosk.uuid)

    def _heartbeat(self, uuid: str) -> None:
        state = {"current_process": "mpv", "process_pid": 812, "process_status": "running", "current_event_id": 42}
        body = {"uuid": uuid, "timestamp": timestamp_text(datetime.now(UTC)), **state, "screen_health_status": "OK"}
        self.client.publish(topic(uuid, "heartbeat"), to_json(body), qos=1)

    def _health(self, uuid: str) -> None:
        system = {"cpu_temperature": 51.5, "load": [0.4, 0.3, 0.3], "memory_available": 2_100_000_000}
        body: dict[str, Any] = {
            "timestamp": timestamp_text(datetime.now(UTC)),
            "expected_state": {"event_id": 42, "event_type": "video"},
            "actual_state": {"process": "mpv", "pid": 812, "status": "running"},
            "screen": {"status": "OK", "hash": "ffee"},
            "system": system | {"memory_total": 4_000_000_000, "disk_free": 9_000_000_000, "uptime_s": 512_000},
        }
        self.client.publish(topic(uuid, "health"), to_json(body), qos=1)

    def outstanding(self) -> int:
        with self.lock:
            return sum(map(len, self.pending.values()))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def main() -> None:
    port, rate = int(sys.argv[1]), int((sys.argv[2:] or ["1000"])[0])
    feeder = Feeder(port, make_fleet())
    ended = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    began, number = time.monotonic(), 0
    while not ended.wait(max(0.0, began + number * TICK_S - time.monotonic())):
        feeder.tick(number, round(rate * TICK_S))
        number += 1
    seconds = time.monotonic() - began
    deadline = time.monotonic() + SETTLE_S
    while feeder.outstanding() and time.monotonic() < deadline:
        time.sleep(0.05)
    feeder.close()
    delays = feeder.delays or [float("inf")]
    found = {
        "sent": feeder.sent,
        "rate": feeder.sent / seconds,
        "outstanding": feeder.outstanding(),
        "p50_ms": percentile(delays, 50) * 1000,
        "p95_ms": percentile(delays, 95) * 1000,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
