"""A server (Debian 13, mosquitto) and kiosks (12 and 13) on one bridge: whatever fails, each record arrives once."""

import json
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts.machine import ROOT, Machine
from parts.wait import wait_for

SERVER = 10
CONFIG = """[broker]
url = "mqtt://198.51.100.10:1883"
keepalive_s = 5
[clock]
trusted = true
[outbox]
deadline_s = { error = 0, warn = 0, info = 0, debug = 0 }
"""


class Fleet:
    def __init__(self, folder: Path, repository: Path) -> None:
        self.server = Machine("server", "trixie", folder, SERVER, repository)
        self.kiosks = [
            Machine(f"k-{suite}", suite, folder, number, repository)
            for number, suite in ((11, "bookworm"), (12, "trixie"))
        ]
        self.sent: dict[str, list[str]] = {machine.name: [] for machine in self.kiosks}

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

    def say(self, kiosk: Machine, count: int = 20) -> None:
        """So many records by the event handler's door; they are on the kiosk's disk when this returns."""
        texts = [secrets.token_hex(6) for _ in range(count)]
        program = (
            "import sys\nfrom infoscreen_device.client import Watchdog\nlog = Watchdog(strict=True).log\n"
            "for text in sys.argv[1:]: log('ERROR', text, 'x.y')"
        )
        kiosk.run(f"python3 -c {shlex.quote(program)} {' '.join(texts)}")
        self.sent[kiosk.name] += texts

    def uuid(self, kiosk: Machine) -> str:
        return kiosk.run("cat /var/lib/infoscreen-watchdog/uuid")

    def stored(self, kiosk: Machine) -> list[str]:
        """The records of this kiosk in the server's database, in their order."""
        query = f"SELECT message FROM client_logs WHERE code = 'x.y' AND client_uuid = '{self.uuid(kiosk)}' ORDER BY id"
        program = (
            "import sqlite3, sys, json\n"
            "db = sqlite3.connect('file:/var/lib/infoscreen-server/infoscreen.db?mode=ro', uri=True)\n"
            "print(json.dumps([row[0] for row in db.execute(sys.argv[1])]))"
        )
        return list(json.loads(self.server.ask(f"python3 -c {shlex.quote(program)} {shlex.quote(query)}") or "[]"))

    def arrived(self) -> None:
        """Waits until all that was said is stored, then holds what is stored against it."""
        for kiosk in self.kiosks:
            wait_for(lambda k=kiosk: len(self.stored(k)) >= len(self.sent[k.name]), f"all of {kiosk.name}", 120, 0.5)  # type: ignore[misc]
            assert self.stored(kiosk) == self.sent[kiosk.name], "once each, in order"

    def online(self, kiosk: Machine) -> bool:
        query = f"SELECT online FROM clients WHERE uuid = '{self.uuid(kiosk)}'"
        program = (
            "import sqlite3, sys\n"
            "db = sqlite3.connect('file:/var/lib/infoscreen-server/infoscreen.db?mode=ro', uri=True)\n"
            "print(db.execute(sys.argv[1]).fetchone()[0])"
        )
        return self.server.ask(f"python3 -c {shlex.quote(program)} {shlex.quote(query)}") == "1"

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


def test_the_server_answers_after_install(fleet: Fleet) -> None:
    assert fleet.server.ask("systemctl --failed --no-legend") == ""
    fleet.server.until("curl -fsS http://127.0.0.1:8000/healthz", "it answers")
    assert "answers on" in fleet.server.run("systemctl status infoscreen-server")
    last = fleet.server.run("systemd-analyze security --no-pager infoscreen-server | tail -1")
    print(last)
    assert float(last.split(":")[1].split()[0]) <= 1.5


def test_records_arrive(fleet: Fleet) -> None:
    for kiosk in fleet.kiosks:
        fleet.say(kiosk)
    fleet.arrived()


@pytest.mark.parametrize("way", ["cable", "black hole"])
def test_an_outage_of_the_line(fleet: Fleet, way: str) -> None:
    for kiosk in fleet.kiosks:
        wait_for(lambda k=kiosk: fleet.online(k), f"{kiosk.name} is online", 60, 0.5)  # type: ignore[misc]
        kiosk.cut() if way == "cable" else kiosk.blacken()
    for kiosk in fleet.kiosks:
        fleet.say(kiosk, 50)
        wait_for(lambda k=kiosk: not fleet.online(k), f"{kiosk.name} is told to be offline", 60, 0.5)  # type: ignore[misc]
        fleet.say(kiosk, 50)
    for kiosk in fleet.kiosks:
        kiosk.mend() if way == "cable" else kiosk.brighten()
    fleet.arrived()


def test_the_broker_restarts(fleet: Fleet) -> None:
    for kiosk in fleet.kiosks:
        fleet.say(kiosk)
    fleet.server.run("systemctl kill -s KILL mosquitto; systemctl restart mosquitto")
    for kiosk in fleet.kiosks:
        fleet.say(kiosk)
    fleet.arrived()


def test_the_servers_power_fails(fleet: Fleet) -> None:
    for kiosk in fleet.kiosks:
        fleet.say(kiosk)
    fleet.server.kill()
    for kiosk in fleet.kiosks:
        fleet.say(kiosk, 100)
    fleet.server.boot()
    fleet.arrived()


def test_a_kiosks_power_fails_in_mid_write(fleet: Fleet) -> None:
    for kiosk in fleet.kiosks:
        kiosk.cut()
        fleet.say(kiosk, 100)
        kiosk.kill()
        kiosk.boot()
        kiosk.until("infoscreen-watchdog status", "the agent is back")
    fleet.arrived()
