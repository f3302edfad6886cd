"""A server (Debian 13, mosquitto) and kiosks (12 and 13) on one bridge: whatever fails, each record arrives once."""

import json
import os
import random
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts.figures import Figure
from parts.machine import ROOT, Machine
from parts.wait import wait_for

SERVER = 10
CONFIG = '[broker]\nurl = "mqtt://198.51.100.10:1883"\n[clock]\ntrusted = true\n'
OUTAGE_S = float(os.environ.get("INFOSCREEN_OUTAGE_S", "120"))
"""How long a line is down at the least: several keepalives, and reconnections at their longest interval."""
SEED = int(os.environ.get("INFOSCREEN_SEED", "0")) or secrets.randbelow(2**31) + 1
ON_CARD_S = 1.0
"""What a kiosk took for this long before its power failed must not be lost (ERROR: on the card at once)."""
WRITER = """
import sys, time
from infoscreen_device.client import Watchdog
watchdog = Watchdog(strict=True)
for number in range(int(sys.argv[2])):
    text = f"{sys.argv[1]}-{number}"
    watchdog.log("ERROR", text, "x.y")
    print(text, flush=True)
    time.sleep(float(sys.argv[3]))
"""
QUERY = """
import json, sqlite3, sys
db = sqlite3.connect("file:/var/lib/infoscreen-server/infoscreen.db?mode=ro", uri=True)
print(json.dumps([row[0] for row in db.execute(sys.argv[1])]))
"""


class Writer:
    """An event handler on the kiosk that logs one record after the other, and what it was told to be taken."""

    def __init__(self, kiosk: Machine, count: int, interval_s: float = 0.0) -> None:
        words = [secrets.token_hex(4), str(count), str(interval_s)]
        command = kiosk.inside(f"exec python3 -c {shlex.quote(WRITER)} {shlex.join(words)}")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.taken: list[tuple[float, str]] = []
        """With the time (monotonic) at which the host heard of it."""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.taken.append((time.monotonic(), line.strip()))

    def end(self) -> list[str]:
        """All that was taken, once the writer has ended."""
        status = self.process.wait(300)
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert status == 0, f"the writer ended with {status}"
        return [text for _, text in self.taken]

    def lost(self) -> list[tuple[float, str]]:
        """The machine under it was killed."""
        self.process.wait(30)
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.taken


class Fleet:
    def __init__(self, folder: Path, repository: Path) -> None:
        self.server = Machine("server", "trixie-server", folder, SERVER, repository)
        self.kiosks = [
            Machine(f"k-{suite}", suite, folder, number, repository)
            for number, suite in ((11, "bookworm"), (12, "trixie"))
        ]
        self.sent: dict[str, list[str]] = {machine.name: [] for machine in self.kiosks}
        self._uuids: dict[str, str] = {}

    def start(self) -> None:
        server = self.server.boot()
        conf = (ROOT / "packaging/mosquitto/infoscreen.conf").read_text()
        server.write("/etc/mosquitto/conf.d/infoscreen.conf", f"{conf}\nlistener 1883\nallow_anonymous true\n")
        server.run("systemctl enable -q mosquitto; systemctl restart mosquitto")
        server.install(["infoscreen-server"])
        for kiosk in self.kiosks:
            kiosk.boot().install(["infoscreen-watchdog"])
            kiosk.write("/etc/infoscreen-watchdog/config.toml", CONFIG)
            kiosk.run("systemctl restart infoscreen-watchdog")
            self._uuids[kiosk.name] = kiosk.until("cat /var/lib/infoscreen-watchdog/uuid", "it has a uuid")

    def say(self, kiosk: Machine, count: int = 20) -> None:
        self.sent[kiosk.name] += Writer(kiosk, count).end()

    def select(self, query: str) -> list[object]:
        """The first column of what the server's database answers."""
        answer = self.server.ask(f"python3 -c {shlex.quote(QUERY)} {shlex.quote(query)}")
        return list(json.loads(answer or "[]"))

    def stored(self, kiosk: Machine) -> list[str]:
        """The records of this kiosk in the server's database, in their order."""
        uuid = self._uuids[kiosk.name]
        query = f"SELECT message FROM client_logs WHERE code = 'x.y' AND client_uuid = '{uuid}' ORDER BY id"
        return [str(text) for text in self.select(query)]

    def until_stored(self, kiosk: Machine, count: int) -> None:
        wait_for(lambda: len(self.stored(kiosk)) >= count, f"{count} records of {kiosk.name} are stored", 120, 0.3)

    def arrived(self) -> None:
        """Waits until all that was said is stored, then holds what is stored against it."""
        for kiosk in self.kiosks:
            sent = self.sent[kiosk.name]
            self.until_stored(kiosk, len(sent))
            assert self.stored(kiosk) == sent, "once each, in order"

    def online(self, kiosk: Machine) -> bool:
        return self.select(f"SELECT online FROM clients WHERE uuid = '{self._uuids[kiosk.name]}'") == [1]

    def until_online(self, kiosk: Machine) -> None:
        wait_for(lambda: self.online(kiosk), f"{kiosk.name} is online", 60, 0.3)

    def close(self) -> None:
        for machine in (*self.kiosks, self.server):
            machine.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, repository: Path, bridge: None) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"), repository)
    try:
        made.start()
        yield made
    finally:
        made.close()


def test_the_server_answers_after_install(fleet: Fleet, figure: Figure) -> None:
    assert fleet.server.ask("systemctl --failed --no-legend") == ""
    fleet.server.until("curl -fsS http://127.0.0.1:8000/healthz", "it answers")
    assert "answers on" in fleet.server.run("systemctl status infoscreen-server")
    last = fleet.server.run("systemd-analyze security --no-pager infoscreen-server | tail -1")
    exposure = float(last.split(":")[1].split()[0])
    figure("exposure of infoscreen-server", exposure)
    assert exposure <= 1.5


def test_records_arrive(fleet: Fleet) -> None:
    for kiosk in fleet.kiosks:
        fleet.say(kiosk)
    fleet.arrived()


@pytest.mark.parametrize("ways", [("cable", "black hole"), ("black hole", "cable")])
def test_an_outage_of_minutes(fleet: Fleet, ways: tuple[str, str], figure: Figure) -> None:
    """Each kiosk in its own way: the cable is pulled, or packets vanish while the link seems up. Records go on."""
    for kiosk in fleet.kiosks:
        fleet.until_online(kiosk)
    began = time.monotonic()
    for kiosk, way in zip(fleet.kiosks, ways, strict=True):
        kiosk.cut() if way == "cable" else kiosk.blacken()
    writers = [Writer(kiosk, round(OUTAGE_S), 1.0) for kiosk in fleet.kiosks]
    missing = dict(zip(fleet.kiosks, ways, strict=True))
    while missing:
        assert time.monotonic() < began + 120, f"still online: {[kiosk.name for kiosk in missing]}"
        for kiosk in [kiosk for kiosk in missing if not fleet.online(kiosk)]:
            figure(f"{missing.pop(kiosk)} cut to offline, {kiosk.name}, s", round(time.monotonic() - began, 1))
    for kiosk, writer in zip(fleet.kiosks, writers, strict=True):
        fleet.sent[kiosk.name] += writer.end()
    assert all(len(fleet.stored(kiosk)) < len(fleet.sent[kiosk.name]) for kiosk in fleet.kiosks), "the line was down"
    mended = time.monotonic()
    for kiosk, way in zip(fleet.kiosks, ways, strict=True):
        kiosk.mend() if way == "cable" else kiosk.brighten()
    fleet.arrived()
    figure("line mended to all records stored, s", round(time.monotonic() - mended, 1))
    for kiosk in fleet.kiosks:
        fleet.until_online(kiosk)


def test_the_broker_dies_while_records_flow(fleet: Fleet) -> None:
    writers = [Writer(kiosk, 300, 0.01) for kiosk in fleet.kiosks]
    wait_for(lambda: all(len(writer.taken) > 100 for writer in writers), "records flow", 60)
    fleet.server.run("systemctl kill -s KILL mosquitto; systemctl restart mosquitto")
    for kiosk, writer in zip(fleet.kiosks, writers, strict=True):
        fleet.sent[kiosk.name] += writer.end()
    fleet.arrived()


def test_the_servers_power_fails_while_records_flow(fleet: Fleet) -> None:
    """Twice: the second time in the replay of what gathered meanwhile."""
    before = len(fleet.stored(fleet.kiosks[0]))
    writers = [Writer(kiosk, 1500, 0.01) for kiosk in fleet.kiosks]
    wait_for(lambda: all(len(writer.taken) > 100 for writer in writers), "records flow", 60)
    fleet.server.kill()
    wait_for(lambda: all(len(writer.taken) > 800 for writer in writers), "records gather", 60)
    fleet.server.boot()
    fleet.until_stored(fleet.kiosks[0], before + 200)
    fleet.server.kill()
    for kiosk, writer in zip(fleet.kiosks, writers, strict=True):
        fleet.sent[kiosk.name] += writer.end()
    fleet.server.boot()
    fleet.arrived()
    assert fleet.server.ask("systemctl --failed --no-legend") == ""


@pytest.mark.parametrize("number", [0, 1])
def test_a_kiosks_power_fails_in_mid_write(fleet: Fleet, number: int) -> None:
    """Cut off from the server, in the middle of a write; the same disk is booted again."""
    print(f"seed {SEED} (INFOSCREEN_SEED)")
    kiosk, dice = fleet.kiosks[number], random.Random(SEED + number)
    for _ in range(3):
        kiosk.cut()
        writer, size = Writer(kiosk, 100_000, 0.002), dice.randrange(600, 2000)
        wait_for(lambda w=writer, n=size: len(w.taken) >= n, "records gather", 60)  # type: ignore[misc]
        time.sleep(dice.uniform(0.0, 0.05))
        killed = time.monotonic()
        kiosk.kill()
        taken = writer.lost()
        kiosk.boot()
        kiosk.until("infoscreen-watchdog status", "the agent is back")
        safe = [text for when, text in taken if when < killed - ON_CARD_S]
        said = [text for _, text in taken]
        assert safe
        before = len(fleet.sent[kiosk.name])
        fleet.until_stored(kiosk, before + len(safe))
        # An ERROR of ours, later than all that survived: once it is there, so is all before it.
        fleet.say(kiosk, 1)
        last = fleet.sent[kiosk.name].pop()
        wait_for(lambda t=last: t in fleet.stored(kiosk), "the line is drained", 60, 0.3)  # type: ignore[misc]
        survived = fleet.stored(kiosk)[before:-1]
        # The last one may have been taken without the writer living to say so.
        assert survived[: len(said)] == said[: len(survived)], "in order, none doubled, no hole"
        assert len(safe) <= len(survived) <= len(said) + 1
        fleet.sent[kiosk.name] += [*survived, last]
        assert kiosk.ask("systemctl --failed --no-legend") == ""
    fleet.arrived()
