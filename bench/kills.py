"""Replay with kill -9 of each process in turn: what is lost, what is doubled; beside mosquitto's bridge and rsyslog.

The peers run with the settings that lose least: queues without bound, saved every second or at every message.
"""

import random
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from bench.backlog import COUNT, KIOSK, kiosk
from bench.restart import SEED
from bench.table import US, Row, verdict
from parts.broker import Broker
from parts.server import COMMAND, Server
from parts.wait import answers, free_port, wait_for

KILLS_EACH = 3
PEER_COUNT = 20_000
QUIET_S = 5.0
"""Nothing came for so long: the rest is lost."""


def run(folder: Path, quick: bool) -> list[Row]:
    folder.chmod(0o711)
    parts = 10 if quick else 1
    return [
        _row(*result)
        for result in (
            _ours(folder, COUNT // parts),
            _bridge(folder, PEER_COUNT // parts),
            _relp(folder, PEER_COUNT // parts),
        )
    ]


def _row(program: str, count: int, seen: Counter[int], kills: str) -> Row:
    lost, doubled = count - len(seen), seen.total() - len(seen)
    aim = verdict("0 and 0", met=not lost and not doubled) if program == US else ""
    return Row(
        f"replay under kill -9 of {kills}, {KILLS_EACH} times each",
        program,
        f"{lost:,} lost, {doubled:,} doubled of {count:,}",
        "",
        aim,
    )


def _killed(targets: list[Callable[[], None]], count: int, arrived: Callable[[], int]) -> None:
    """Kill each in turn, at moments spread over the replay."""
    rng = random.Random(SEED)
    order = targets * KILLS_EACH
    for number, kill in enumerate(order, 1):
        goal = int(count * (number - rng.random() * 0.8) / (len(order) + 1))
        deadline = time.monotonic() + QUIET_S
        while arrived() < goal and time.monotonic() < deadline:
            time.sleep(0.001)
        kill()


def _until_quiet(arrived: Callable[[], int], count: int) -> None:
    last, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET_S:
        if (now := arrived()) != last:
            last, since = now, time.monotonic()
        time.sleep(0.05)
    assert last, f"nothing of {count} arrived"


# --- ours -------------------------------------------------------------------------------------------------------------


def _ours(folder: Path, count: int) -> tuple[str, int, Counter[int], str]:
    folder = folder / "ours"
    folder.mkdir()
    database = folder / "server.db"
    with Broker(folder) as broker:
        server = Server(folder, f"sqlite:///{database}", broker.url)
        server.call("migrate")
        kiosk("fill", folder / "state", count)
        output = (folder / "output").open("wb")
        run: dict[str, subprocess.Popen[bytes]] = {}

        def start(name: str) -> None:
            command = [*KIOSK, "drain", str(folder / "state"), str(broker.port)]
            if name == "ingest":
                command = [*COMMAND, "ingest", "--config", str(server.config)]
            run[name] = subprocess.Popen(command, stdout=output, stderr=output, env=server.environment)

        def kill(name: str) -> None:
            run[name].kill()
            run[name].wait()
            start(name)

        def kill_broker() -> None:
            broker.kill()
            broker.start()

        def arrived() -> int:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
                return int(db.execute("SELECT COALESCE(SUM(cursor), 0) FROM lanes").fetchone()[0])

        start("ingest")
        start("kiosk")
        try:
            _killed([lambda: kill("kiosk"), kill_broker, lambda: kill("ingest")], count, arrived)
            wait_for(lambda: run["kiosk"].poll() == 0, "all is acknowledged", 120)
        finally:
            for process in run.values():
                process.kill()
                process.wait()
            output.close()
    with closing(sqlite3.connect(database)) as db:
        texts = db.execute("SELECT message FROM client_logs WHERE code = 'bench.record'").fetchall()
    return US, count, Counter(int(text.split()[5]) for (text,) in texts), "agent, broker, ingest"


# --- mosquitto's bridge -----------------------------------------------------------------------------------------------


def _bridge(folder: Path, count: int) -> tuple[str, int, Counter[int], str]:
    port = free_port()
    keep = "autosave_interval 1\nmax_queued_messages 0\n"
    near, far = folder / "near", folder / "far"
    near.mkdir()
    far.mkdir()
    bridge = f"connection up\naddress 127.0.0.1:{port}\ntopic bench/# out 1\n"
    sender = Broker(near, extra=f"{keep}{bridge}cleansession false\nrestart_timeout 1 1\n")
    receiver = Broker(far, port, keep)
    seen: Counter[int] = Counter()
    listener = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
    listener.reconnect_delay_set(1, 1)
    listener.on_connect = lambda client, *_: client.subscribe("bench/#", qos=1)
    listener.on_message = lambda _client, _userdata, message: seen.update((int(message.payload.split()[5]),))
    with sender, receiver:
        listener.connect("127.0.0.1", port)
        listener.loop_start()
        wait_for(listener.is_connected, "the listener is connected")
        wait_for(lambda: "New bridge connected" in (far / "mosquitto.log").read_text(), "the bridge is connected")
        receiver.kill()
        _publish(sender.port, count)
        time.sleep(3)  # saved
        receiver.start()

        def kill(one: Broker) -> None:
            one.kill()
            one.start()

        _killed([lambda: kill(sender), lambda: kill(receiver)], count, lambda: len(seen))
        _until_quiet(seen.total, count)
        listener.disconnect()
        listener.loop_stop()
    return "mosquitto bridge", count, seen, "both brokers"


def _publish(port: int, count: int) -> None:
    publisher = mqtt.Client(CallbackAPIVersion.VERSION2)
    publisher.connect("127.0.0.1", port)
    publisher.loop_start()
    sent = [publisher.publish("bench/r", _text(number), qos=1) for number in range(count)]
    for one in sent:
        one.wait_for_publish(60)
    publisher.disconnect()
    publisher.loop_stop()


def _text(number: int) -> str:
    return f"player answered in time, frame {number:6d} of many shown"


# --- rsyslog over RELP ------------------------------------------------------------------------------------------------


class _Rsyslog:
    def __init__(self, folder: Path, port: int, text: str) -> None:
        folder.mkdir()
        self.folder, self.port = folder, port
        (folder / "conf").write_text(f'global(workDirectory="{folder}")\n{text}')
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A killed one leaves its pid file behind, and would not start with it.
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                ["rsyslogd", "-n", "-f", self.folder / "conf", "-i", self.folder / "pid"], stdout=output, stderr=output
            )
        wait_for(lambda: answers(self.port), f"rsyslog answers: {(self.folder / 'output').read_text()}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def _relp(folder: Path, count: int) -> tuple[str, int, Counter[int], str]:
    entry, relp, log = free_port(), free_port(), folder / "received"
    log.touch()
    sender = _Rsyslog(
        folder / "sender",
        entry,
        f'module(load="imptcp")\nmodule(load="omrelp")\ninput(type="imptcp" port="{entry}" address="127.0.0.1")\n'
        f'main_queue(queue.type="direct")\n'
        f'action(type="omrelp" target="127.0.0.1" port="{relp}" queue.type="disk" queue.filename="q" '
        f'queue.size="200000" queue.maxDiskSpace="1g" queue.saveOnShutdown="on" '
        f'queue.syncQueueFiles="on" queue.checkpointInterval="1" '
        f'queue.timeoutEnqueue="60000" action.resumeRetryCount="-1" action.resumeInterval="1")\n',
    )
    receiver = _Rsyslog(
        folder / "receiver",
        relp,
        f'module(load="imrelp")\ninput(type="imrelp" port="{relp}" address="127.0.0.1")\n'
        f'template(name="plain" type="string" string="%msg%\\n")\n'
        f'action(type="omfile" file="{log}" template="plain")\n',
    )
    sender.start()
    try:
        with socket.create_connection(("127.0.0.1", entry)) as feed:
            for number in range(count):
                feed.sendall(f"<14>Nov 24 00:00:00 kiosk bench: {_text(number)}\n".encode())
        wait_for(lambda: _queued(sender.folder), "the queue takes it all", 120, 0.5)
        receiver.start()

        def kill(one: _Rsyslog) -> None:
            one.kill()
            one.start()

        _killed([lambda: kill(sender), lambda: kill(receiver)], count, lambda: log.read_bytes().count(b"\n"))
        _until_quiet(lambda: log.stat().st_size, count)
    finally:
        sender.kill()
        receiver.kill()
    whole = [line.split() for line in log.read_text().splitlines()]
    return (
        "rsyslog RELP, disk queue, synced",
        count,
        Counter(int(words[5]) for words in whole if len(words) > 5),
        "both daemons",
    )


def _queued(folder: Path) -> bool:
    """The queue's files have stopped to grow."""
    size = _size(folder)
    time.sleep(1)
    return size > 0 and size == _size(folder)


def _size(folder: Path) -> int:
    total = 0
    for file in folder.glob("q.*"):
        with suppress(FileNotFoundError):  # it is renamed once it is written
            total += file.stat().st_size
    return total
