"""What only a machine with its own kernel can show: the hardware watchdog, and the limits of the agent's service."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts.figures import Figure
from parts.packages import build, repository_of
from parts.rootfs import APT, ROOT
from parts.vm import VirtualMachine

pytestmark = pytest.mark.timeout(900)
AGENT = "infoscreen-watchdog.service"
DROP_IN = "/usr/share/doc/infoscreen-watchdog/examples/hardware-watchdog.conf"
OVERRIDE = f"/run/systemd/system/{AGENT}.d/hog.conf"
HOG = """[Service]
Type=exec
ExecStartPre=
ExecStart=
ExecStart=/usr/bin/python3 -c "b'x' * {bytes}"
Restart=no
WatchdogSec=0
"""
"""Takes the place of the agent."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed apt repository of this checkout's packages."""
    if os.geteuid() != 0:
        pytest.fail("tests/vm makes a disk for a machine and has to run as root: sudo ./run test vm")
    folder = tmp_path_factory.mktemp("packages")
    build(folder)
    return repository_of(folder)


@pytest.fixture(scope="module")
def kiosk(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[VirtualMachine]:
    """A kiosk image with the agent, installed by apt, and the documented drop-in; booted, without a network."""
    machine = VirtualMachine("kiosk", tmp_path_factory.mktemp("vm"), repository)
    try:
        machine.prepare(f"apt-get -q update && {APT} install infoscreen-watchdog")
        machine.prepare(f"mkdir -p /etc/systemd/system.conf.d && cp {DROP_IN} /etc/systemd/system.conf.d/")
        yield machine.boot()
    finally:
        machine.close()


def promised(name: str) -> str:
    """A setting of the service as this checkout has it."""
    (found,) = re.findall(rf"^{name}=(.+)$", (ROOT / "device/systemd" / AGENT).read_text(), re.MULTILINE)
    return str(found)


def in_bytes(size: str) -> int:
    assert size.endswith("M"), size
    return int(size[:-1]) << 20


def value(machine: VirtualMachine, name: str) -> str:
    return machine.run(f"systemctl show --property={name} --value {AGENT}")


def of_group(machine: VirtualMachine, name: str) -> str:
    """A file of the cgroup that the service is in."""
    return machine.run(f"cat /sys/fs/cgroup{value(machine, 'ControlGroup')}/{name}")


def number(text: str, name: str) -> int:
    """One line of what cgroups and /proc/PID/status consist of: name, blank, number."""
    (found,) = re.findall(rf"^{name}:?\s+(\d+)", text, re.MULTILINE)
    return int(found)


def until_active(machine: VirtualMachine) -> None:
    """Waits for the agent; a failure shows the journal. Nothing else may have failed either."""
    machine.until(f"systemctl is-active {AGENT}", "the agent is active")
    assert machine.run("systemctl --failed --no-legend") == ""


def test_after_the_boot_the_agent_is_active(kiosk: VirtualMachine) -> None:
    until_active(kiosk)
    assert value(kiosk, "NRestarts") == "0"
    kiosk.run("infoscreen-watchdog status")


def test_its_limits_are_in_the_kernel(kiosk: VirtualMachine) -> None:
    assert of_group(kiosk, "memory.max") == str(in_bytes(promised("MemoryMax")))
    assert of_group(kiosk, "pids.max") == promised("TasksMax")
    allowed, period = of_group(kiosk, "cpu.max").split()
    assert f"{int(allowed) * 100 // int(period)}%" == promised("CPUQuota")


def test_it_needs_much_less_than_its_limits(kiosk: VirtualMachine, figure: Figure) -> None:
    def used_us() -> int:
        return number(of_group(kiosk, "cpu.stat"), "usage_usec")

    before, began = used_us(), time.monotonic()
    time.sleep(20)  # what is measured is a time
    share = (used_us() - before) / (time.monotonic() - began) / 1e6
    status = kiosk.run(f"cat /proc/{value(kiosk, 'MainPID')}/status")
    current, peak = (int(of_group(kiosk, f"memory.{name}")) for name in ("current", "peak"))
    anonymous = number(of_group(kiosk, "memory.stat"), "anon")
    megabytes = ", ".join(
        f"{name} {size / 2**20:.1f} MB"
        for name, size in {
            "RSS": number(status, "VmRSS") << 10,
            "memory.current": current,
            "of that anonymous": anonymous,
            "memory.peak": peak,
        }.items()
    )
    figure("service at rest in the emulated machine", f"{megabytes}, {share:.2%} of an emulated core")
    assert number(of_group(kiosk, "memory.events"), "max") == 0
    assert anonymous < in_bytes(promised("MemoryMax")) / 3
    assert peak < in_bytes(promised("MemoryMax")) / 2
    assert int(of_group(kiosk, "pids.peak")) <= int(promised("TasksMax")) / 2


def test_a_hog_in_its_place_is_killed(kiosk: VirtualMachine) -> None:
    limit = in_bytes(promised("MemoryMax"))
    kiosk.write(OVERRIDE, HOG.format(bytes=2 * limit))
    kiosk.run(f"systemctl daemon-reload; systemctl restart {AGENT}")
    kiosk.until(f"systemctl is-failed {AGENT}", "the hog is ended")
    assert value(kiosk, "Result") == "oom-kill"
    kiosk.run(f"journalctl -k | grep 'memory: usage .*limit {limit >> 10}kB'")
    kiosk.run(f"rm {OVERRIDE}; systemctl daemon-reload; systemctl restart {AGENT}")
    until_active(kiosk)


def test_a_kernel_that_panics_is_brought_back_by_the_hardware(kiosk: VirtualMachine, figure: Figure) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    used = kiosk.run("journalctl -b _PID=1 -o cat | grep -i 'hardware watchdog\\|hardware timeout'")
    print(used)
    assert "i6300ESB" in used
    first = kiosk.run(boot)
    kiosk.panic()
    panicked = time.monotonic()
    assert kiosk.event("WATCHDOG", 60) == {"action": "reset"}
    figure("panic to reset by the hardware watchdog, s", round(time.monotonic() - panicked, 1))
    kiosk.up()
    figure("panic to all services up again, emulated, s", round(time.monotonic() - panicked, 1))
    assert kiosk.run(boot) != first
    until_active(kiosk)
