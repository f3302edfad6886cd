"""The agent on the processors of a Raspberry Pi: in Debian 13 for arm64, booted, and in Debian 12 for armhf, installed.

The kernel is the host's and the processor is emulated, so this shows that everything the agent needs is there and works
on that architecture: Debian's Python packages, systemd's notifications and its watchdog, pidfds, polkit, SQLite. Not
shown here, for the emulator lacks it: the sandbox of the service, and by which signal a player of another user ended.
tests/system has both, on the host's own architecture.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infoscreen_shared import __version__
from parts.emulated import EmulatedMachine, emulation
from parts.machine import Machine
from parts.packages import build, repository_of
from parts.rootfs import in_root
from parts.wait import wait_for

pytestmark = pytest.mark.timeout(2400)
"""For a test with its fixtures: the first one of each architecture makes a root file system, in ten minutes or so."""
AGENT = "infoscreen-watchdog.service"
PLAYER_UNIT = """[Unit]
StartLimitIntervalSec=0
[Service]
User=nobody
ExecStart=/usr/bin/sleep infinity
"""
CONFIG = """[broker]
url = ""
[player]
process = "sleep"
event_id = 42
type = "video"
restart = "unit:player.service"
[restart]
backoff_first_s = 0.2
backoff_cap_s = 0.5
[clock]
trusted = true
[outbox]
deadline_s = { error = 0, warn = 0, info = 0, debug = 0 }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed apt repository of this checkout's packages."""
    if os.geteuid() != 0:
        pytest.fail("tests/arm64 boots a machine and has to run as root: sudo ./run test arm64")
    folder = tmp_path_factory.mktemp("packages")
    build(folder)
    return repository_of(folder)


@pytest.fixture(scope="module")
def emulated(repository: Path) -> Iterator[None]:
    with emulation():
        yield


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory, repository: Path, emulated: None) -> Iterator[Machine]:
    """A booted kiosk image for arm64, on which the agent was installed by apt."""
    machine = EmulatedMachine("kiosk-arm64", "arm64", tmp_path_factory.mktemp("machine"), repository)
    try:
        machine.boot()
        machine.install(["infoscreen-watchdog"])
        yield machine
    finally:
        machine.close()


@pytest.fixture
def player(kiosk: Machine) -> Machine:
    """The agent looks after a unit of another user."""
    kiosk.write("/etc/systemd/system/player.service", PLAYER_UNIT)
    kiosk.write("/etc/infoscreen-watchdog/config.toml", CONFIG)
    kiosk.run(f"systemctl daemon-reload; systemctl restart player.service {AGENT}")
    running(kiosk)
    return kiosk


def value(machine: Machine, unit: str, name: str) -> str:
    return machine.ask(f"systemctl show --property={name} --value {unit}")


def running(machine: Machine, other_than: int = 0) -> int:
    """Waits until the agent sees the unit's process running; its pid."""

    def seen() -> int:
        status = json.loads(machine.ask("infoscreen-watchdog status --json") or "{}").get("player", {})
        pid = value(machine, "player.service", "MainPID")
        runs = status.get("status") == "running" and str(status.get("pid")) == pid != str(other_than)
        return int(pid) if runs else 0

    try:
        return wait_for(seen, "the player runs and is seen", 120, 0.5)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{machine.ask('journalctl --no-pager -n 60 -o short-precise')}") from None


def told(machine: Machine) -> list[tuple[str, object]]:
    """What the outbox has: the code of each record, and the pid that it is about."""
    records = [json.loads(line) for line in machine.run("infoscreen-watchdog outbox export").splitlines()]
    return [(record.get("code"), record["context"].get("pid")) for record in records]


def test_it_is_another_architecture(kiosk: Machine) -> None:
    assert kiosk.run("dpkg --print-architecture") == "arm64"
    assert kiosk.run("python3 -c 'import platform; print(platform.machine())'") == "aarch64"
    # An extension module says for which architecture it was built.
    assert "aarch64-linux-gnu" in kiosk.run("python3 -c 'import numpy._core._multiarray_umath as m; print(m.__file__)'")


def test_after_install_it_runs_and_says_what_to_do_next(kiosk: Machine) -> None:
    kiosk.until(f"systemctl is-active {AGENT}", "the agent is ready", 120)
    kiosk.until(f"systemctl status {AGENT} | grep 'Status:.*expect'", "the status line tells the next step", 120)
    assert kiosk.run("infoscreen-watchdog version").endswith(__version__)
    kiosk.run("infoscreen-watchdog check-config && infoscreen-player --help")
    assert json.loads(kiosk.run("infoscreen-watchdog status --json"))["version"] == __version__


def test_a_killed_player_comes_back_by_its_unit(player: Machine) -> None:
    """Noticed by its pidfd, restarted by polkit's leave, and on record (how it ended, the emulator hides)."""
    first = running(player)
    player.run(f"kill -KILL {first}")
    second = running(player, other_than=first)
    wanted = {("player.exited", first), ("player.restarting", None), ("player.started", second)}
    wait_for(lambda: wanted <= set(told(player)), f"the outbox has {wanted}", 60, 0.5)


def test_stopped_it_is_restarted_by_systemd_and_the_player_does_not_notice(player: Machine) -> None:
    first, agent = running(player), value(player, AGENT, "MainPID")
    assert value(player, AGENT, "WatchdogUSec") == "10s"
    began = time.monotonic()
    player.run(f"kill -STOP {agent}")
    wait_for(lambda: value(player, AGENT, "MainPID") not in {agent, "0"}, "another agent runs", 120, 0.2)
    wait_for(lambda: value(player, AGENT, "ActiveState") == "active", "it is ready", 120, 0.2)
    print(f"figure: agent stopped to READY again, arm64: {time.monotonic() - began:.1f} s")
    assert "watchdog" in player.run(f"journalctl -u {AGENT} --no-pager | grep -i 'watchdog timeout'").lower()
    assert running(player) == first


def test_it_installs_on_armhf(tmp_path: Path, repository: Path, emulated: None) -> None:
    machine = EmulatedMachine("kiosk-armhf", "armhf", tmp_path, repository)
    try:
        machine.install_unbooted("infoscreen-watchdog")
        assert in_root(machine.root, "dpkg --print-architecture") == "armhf"
        in_root(machine.root, "infoscreen-watchdog check-config && infoscreen-player --help")
        in_root(machine.root, "python3 -c 'import infoscreen_device.agent, numpy, PIL.Image, systemd.daemon'")
    finally:
        machine.close()
