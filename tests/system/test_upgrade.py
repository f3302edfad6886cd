"""Up by a version, back by one, away, and away for good."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infoscreen_shared import __version__
from parts.machine import Machine
from parts.wait import wait_for

BEFORE = "0.0.9"


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, repository: Path) -> Iterator[Machine]:
    with Machine(f"up-{request.param}", request.param, tmp_path, shared=repository) as made:
        yield made


def files(machine: Machine) -> set[str]:
    """All files, but for what programs of others keep for themselves."""
    found = machine.run("find / -xdev -path /proc -prune -o -path /run -prune -o -path /tmp -prune -o -print")
    passing = ("/var/lib/apt/", "/var/cache/", "/var/log/", "/var/lib/dpkg/", "/var/lib/systemd/", "/etc/.pwd.lock")
    backups = {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/var/lib/private"}
    return {line for line in found.splitlines() if not line.startswith(passing)} - backups


def test_up_back_away(machine: Machine) -> None:
    before = files(machine)
    machine.install([f"infoscreen-watchdog={BEFORE}"])
    machine.run("infoscreen-watchdog version | grep -q " + BEFORE)
    machine.run("echo '# an admin was here' >>/etc/infoscreen-watchdog/config.toml")
    say = "from infoscreen_device.client import Watchdog; Watchdog(strict=True).log"
    machine.run(f'python3 -c \'{say}("ERROR", "one", "x.y")\'')

    def kept() -> list[str]:
        return machine.ask('infoscreen-watchdog outbox export | grep -o \'"message":"[a-z]*"\'').splitlines()

    wait_for(lambda: '"message":"one"' in kept(), "it is on disk", 20, 0.2)
    uuid = machine.run("cat /var/lib/infoscreen-watchdog/uuid")

    machine.install(["infoscreen-watchdog"])
    machine.run("infoscreen-watchdog version | grep -q " + __version__)
    assert machine.run("systemctl is-active infoscreen-watchdog") == "active"
    machine.run(f'python3 -c \'{say}("ERROR", "two", "x.y")\'')
    wait_for(lambda: '"message":"two"' in kept(), "it is on disk", 20, 0.2)

    machine.install([f"infoscreen-watchdog={BEFORE}"], "--allow-downgrades")
    machine.run("infoscreen-watchdog version | grep -q " + BEFORE)
    assert machine.run("systemctl is-active infoscreen-watchdog") == "active"
    assert [line for line in kept() if line in {'"message":"one"', '"message":"two"'}] == [
        '"message":"one"',
        '"message":"two"',
    ]
    assert machine.run("cat /var/lib/infoscreen-watchdog/uuid") == uuid
    assert "an admin was here" in machine.run("cat /etc/infoscreen-watchdog/config.toml")

    machine.run("apt-get -qy remove infoscreen-watchdog")
    assert machine.ask("systemctl is-active infoscreen-watchdog") in {"inactive", "unknown"}
    assert machine.ask("pgrep -u infoscreen-watchdog") == ""
    machine.run("test -e /var/lib/infoscreen-watchdog/outbox.db")
    machine.run("apt-get -qy purge infoscreen-watchdog")
    assert files(machine) - before == set()
    assert machine.ask("systemctl list-unit-files 'infoscreen*' --no-legend") == ""
