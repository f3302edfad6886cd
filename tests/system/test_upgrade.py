"""Up by a version, back by one, away, and away for good."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infoscreen_shared import __version__
from parts.machine import ROOT, Machine
from parts.wait import wait_for

BEFORE = "0.0.9"
PLAYER_UNIT = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nUser=nobody\nExecStart=/usr/bin/sleep infinity\n"
CONFIG = """
# an admin was here
[player]
process = "sleep"
restart = "unit:player.service"
"""
MESSAGES = 'infoscreen-watchdog outbox export | grep -o \'"message":"[a-z]*"\''
OLD_SCHEMA = "0001"
"""The first migration: what a server of an earlier version may have left."""
UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"


@pytest.fixture
def machine(request: pytest.FixtureRequest, tmp_path: Path, repository: Path) -> Iterator[Machine]:
    with Machine(f"up-{request.param}", request.param, tmp_path, shared=repository) as made:
        yield made


def files(machine: Machine) -> set[str]:
    """All files, but for what programs of others keep for themselves."""
    found = machine.run("find / -xdev -path /proc -prune -o -path /run -prune -o -path /tmp -prune -o -print")
    passing = (
        "/var/lib/apt/",
        "/var/cache/",
        "/var/log/",
        "/var/lib/dpkg/",
        "/var/lib/systemd/",
        "/etc/.pwd.lock",
        "/var/tmp/",
    )
    backups = {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/var/lib/private"}
    return {line for line in found.splitlines() if not line.startswith(passing)} - backups


def is_version(machine: Machine, version: str) -> None:
    machine.run(f"infoscreen-watchdog version | grep -qF {version}")
    assert machine.run("systemctl is-active infoscreen-watchdog") == "active"


def log(machine: Machine, message: str) -> None:
    """A record, and on disk."""
    program = f'from infoscreen_device.client import Watchdog; Watchdog(strict=True).log("ERROR", "{message}", "x.y")'
    machine.run(f"python3 -c '{program}'")
    machine.until(f"{MESSAGES} | grep -wF {message}", f"{message} is on disk", 20)


def restarts(machine: Machine) -> object:
    """What of the restart budget is used, once the player runs."""

    def running() -> dict[str, Any] | None:
        status = json.loads(machine.ask("infoscreen-watchdog status --json") or "{}")
        return status if status.get("player", {}).get("status") == "running" else None

    return (wait_for(running, "the player runs", 40, 0.2) or {})["restarts"]["used"]


@pytest.mark.parametrize("machine", ["bookworm", "trixie"], indirect=True)
def test_the_agent_up_back_and_away(machine: Machine) -> None:
    """Records, restart budget, identity and settings stay, whichever way the version goes."""
    before = files(machine)
    machine.write("/etc/systemd/system/player.service", PLAYER_UNIT)
    machine.run("systemctl daemon-reload; systemctl start player.service")
    machine.install([f"infoscreen-watchdog={BEFORE}"])
    machine.run(f"cat >>/etc/infoscreen-watchdog/config.toml <<'END'\n{CONFIG}\nEND")
    machine.run("systemctl restart infoscreen-watchdog")
    is_version(machine, BEFORE)
    assert restarts(machine) == 0
    machine.run("systemctl kill --signal=KILL player.service")
    wait_for(lambda: restarts(machine) == 1, "a restart was used", 40, 0.2)
    log(machine, "one")
    uuid = machine.run("cat /var/lib/infoscreen-watchdog/uuid")

    machine.run("echo LANG=C.UTF-8 >/etc/default/infoscreen-capture; systemctl enable --now infoscreen-capture@nobody")
    helper = machine.run("systemctl show --property=MainPID --value infoscreen-capture@nobody")

    machine.install(["infoscreen-watchdog"])
    is_version(machine, __version__)
    assert machine.run("systemctl show --property=MainPID --value infoscreen-capture@nobody") != helper
    log(machine, "two")
    assert restarts(machine) == 1

    machine.install([f"infoscreen-watchdog={BEFORE}"], "--allow-downgrades")
    is_version(machine, BEFORE)
    assert restarts(machine) == 1
    kept = [line for line in machine.ask(MESSAGES).splitlines() if line in {'"message":"one"', '"message":"two"'}]
    assert kept == ['"message":"one"', '"message":"two"']
    assert machine.run("cat /var/lib/infoscreen-watchdog/uuid") == uuid
    assert "an admin was here" in machine.run("cat /etc/infoscreen-watchdog/config.toml")

    machine.run("apt-get -qy remove infoscreen-watchdog")
    assert machine.ask("systemctl is-active infoscreen-watchdog") in {"inactive", "unknown"}
    assert machine.ask("pgrep -u infoscreen-watchdog; pgrep -f '[i]nfoscreen-capture'") == ""
    assert machine.ask("systemctl is-active player.service") == "active"
    machine.run("test -e /var/lib/infoscreen-watchdog/outbox.db")
    machine.run("apt-get -qy purge infoscreen-watchdog")
    machine.run("systemctl stop player.service; rm /etc/systemd/system/player.service; systemctl daemon-reload")
    assert files(machine) - before == set()
    assert machine.ask("systemctl list-unit-files 'infoscreen*' --no-legend") == ""


def sql(machine: Machine, statement: str) -> str:
    """Done as the server's user; the first value of the answer."""
    program = (
        "import sqlite3, sys\n"
        "with sqlite3.connect('/var/lib/infoscreen-server/infoscreen.db') as db:\n"
        "    print(*(db.execute(sys.argv[1]).fetchone() or ()))"
    )
    return machine.run(f"runuser -u infoscreen-server -- python3 -c {shlex.quote(program)} {shlex.quote(statement)}")


@pytest.mark.parametrize("machine", ["trixie-server"], indirect=True)
def test_the_server_up_back_and_away(machine: Machine) -> None:
    """An older schema is copied before it is migrated; what was in it is there afterwards."""
    before = files(machine)
    machine.install([f"infoscreen-server={BEFORE}"])
    machine.until("curl -fsS http://127.0.0.1:8000/healthz", "it answers")
    machine.run("echo '# an admin was here' >>/etc/infoscreen-server/config.toml")
    machine.run("systemctl stop infoscreen-server")
    machine.run(f"runuser -u infoscreen-server -- infoscreen-server migrate --to {OLD_SCHEMA}")
    sql(machine, f"INSERT INTO clients (uuid, registered_at, online) VALUES ('{UUID}', '2026-01-01 00:00:00', 0)")

    machine.install(["infoscreen-server"])
    machine.until("curl -fsS http://127.0.0.1:8000/healthz", "it answers")
    assert machine.run("ls /var/lib/infoscreen-server").split().count(f"infoscreen.db.before-{OLD_SCHEMA}") == 1
    assert sql(machine, "SELECT uuid FROM clients") == UUID
    assert sql(machine, "SELECT count(*) FROM users") == "0", "a table of the second migration"
    assert "an admin was here" in machine.run("cat /etc/infoscreen-server/config.toml")

    machine.install([f"infoscreen-server={BEFORE}"], "--allow-downgrades")
    machine.until("curl -fsS http://127.0.0.1:8000/healthz", "it answers")
    assert sql(machine, "SELECT uuid FROM clients") == UUID

    machine.write("/root/autopkgtest", (ROOT / "packaging/debian/tests/server").read_text())
    machine.run("sh /root/autopkgtest; rm /root/autopkgtest")
    machine.run("apt-get -qy remove infoscreen-server")
    assert machine.ask("pgrep -u infoscreen-server") == ""
    machine.run("test -e /var/lib/infoscreen-server/infoscreen.db")
    machine.run("apt-get -qy purge infoscreen-server")
    assert files(machine) - before == set()
    assert machine.ask("systemctl list-unit-files 'infoscreen*' --no-legend") == ""
