"""An outbox of 50,000 records -> all of them committed and acknowledged, beside a listener that commits each message.

From the start of the kiosk's delivery: opening the outbox, connecting and the hello are in it.
"""

import json
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as mqtt
import psutil
from paho.mqtt.enums import CallbackAPIVersion

from bench import ROOT
from bench.table import US, Row, median, verdict
from parts.broker import Broker
from parts.postgres import Postgres
from parts.server import COMMAND, Server
from parts.wait import wait_for

COUNT = 50_000
NAIVE_COUNT = 3_000
RUNS = 5
KIOSK = [sys.executable, str(ROOT / "bench/kiosk.py")]


def kiosk(*arguments: object) -> dict[str, float]:
    done = subprocess.run([*KIOSK, *map(str, arguments)], check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout)
    return told


def run(folder: Path, quick: bool) -> list[Row]:
    folder.chmod(0o711)
    rows: list[Row] = []
    with Postgres(folder) as postgres, Broker(folder) as broker:
        for name, ours, naive in (
            ("SQLite", f"sqlite:///{folder}/server.db", f"sqlite:///{folder}/naive.db"),
            ("PostgreSQL", postgres.new_database(), postgres.new_database()),
        ):
            runs = 1 if quick else RUNS
            replays = _replays(folder / name, ours, broker, runs, postgres)
            rows += _rows(name, replays, [_naive(naive, broker.port) for _ in range(min(runs, 3))])
    return rows


def _replays(folder: Path, url: str, broker: Broker, runs: int, postgres: Postgres) -> list[dict[str, float]]:
    folder.mkdir()
    server = Server(folder, url, broker.url)
    server.call("migrate")
    with server.log.open("ab") as log:
        command = [*COMMAND, "ingest", "--config", str(server.config)]
        ingest = subprocess.Popen(command, stdout=log, stderr=log, env=server.environment)
    try:
        kiosk("fill", folder / "first", 100)
        kiosk("drain", folder / "first", broker.port)
        return [_replay(folder / str(number), ingest.pid, broker, postgres) for number in range(runs)]
    finally:
        ingest.terminate()
        ingest.wait(20)


def _rows(name: str, ours: list[dict[str, float]], naive: list[dict[str, float]]) -> list[Row]:
    rate, naive_rate = median([one["rate"] for one in ours]), median([one["rate"] for one in naive])
    cpu = ", ".join(f"{part} {median([one[part] for one in ours]):.1f}" for part in ("agent", "server", "database"))
    times, naive_cpu = rate / naive_rate, median([one["cpu"] for one in naive]) / NAIVE_COUNT * 1e6
    measured = f"{COUNT:,} records -> {name}"
    return [
        Row(
            measured,
            US,
            f"{rate:,.0f}/s (CPU us a record: {cpu})",
            "",
            verdict("60,000/s, 50 times the naive one", met=rate >= 60_000 and times >= 50),
        ),
        Row(
            measured,
            "listener, a commit a message",
            f"{naive_rate:,.0f}/s (CPU us a record: {naive_cpu:.0f})",
            f"1/{times:,.0f} of the rate",
        ),
    ]


def _replay(folder: Path, ingest: int, broker: Broker, postgres: Postgres) -> dict[str, float]:
    kiosk("fill", folder, COUNT)
    before = _cpu(ingest), _family_cpu(postgres)
    took = kiosk("drain", folder, broker.port)
    server, database = _cpu(ingest) - before[0], _family_cpu(postgres) - before[1]
    a_record = 1e6 / COUNT
    return {
        "rate": COUNT / took["seconds"],
        "agent": took["cpu"] * a_record,
        "server": server * a_record,
        "database": database * a_record,
    }


def _cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _family_cpu(postgres: Postgres) -> float:
    first = int((postgres.data / "postmaster.pid").read_text().split()[0])
    return sum(_cpu(process.pid) for process in psutil.Process(first).children())


def _naive(url: str, port: int) -> dict[str, float]:
    script = ROOT / "bench/peers/naive_listener.py"
    with subprocess.Popen(
        [sys.executable, script, url, str(port), str(NAIVE_COUNT)], stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        publisher = mqtt.Client(CallbackAPIVersion.VERSION2)
        publisher.max_inflight_messages_set(100)
        publisher.connect("127.0.0.1", port)
        publisher.loop_start()
        for number in range(NAIVE_COUNT):
            body = {"message": f"player answered in time, frame {number:6d} of many shown", "context": {"n": number}}
            publisher.publish("bench/naive", json.dumps(body), qos=1)
        told = json.loads(listener.stdout.readline())
        wait_for(lambda: listener.poll() is not None, "the listener ends")
        publisher.disconnect()
        publisher.loop_stop()
    return {"rate": NAIVE_COUNT / told["seconds"], "cpu": told["cpu"]}
