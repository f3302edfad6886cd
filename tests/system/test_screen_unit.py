"""The packaged capture helper in booted Debian 13, with all that its unit keeps it from: a Wayland session (labwc) of
the kiosk's user, whose monitor is switched off, unplugged and locked; only the monitor itself is not real.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts.machine import Machine

SESSION = """[Service]
User=kiosk
PAMName=login
Environment=XDG_SESSION_TYPE=wayland WLR_BACKENDS=headless WLR_RENDERER=pixman WLR_LIBINPUT_NO_DEVICES=1
ExecStart=labwc
"""
FILM = "/srv/film.mkv"
PLAYER = f"mpv --really-quiet --ao=null --vo=wlshm --fullscreen --loop-file=inf {FILM}"
POWER = """
import sys, time
from pathlib import Path
from infoscreen_device.screen.wayland import POWER
from infoscreen_device.screen.wayland_wire import Connection, version_of, words

wayland = Connection(Path(sys.argv[1]), time.monotonic() + 5)
registry, offered = wayland.globals()
output = wayland.bind(registry, offered["wl_output"][0][0], "wl_output", 1)
manager = wayland.bind(registry, version_of(offered, POWER, 1)[0], POWER, 1)
power = wayland.new()
wayland.request(manager, 0, words(power, output))
wayland.request(power, 0, words(int(sys.argv[2])))
wayland.roundtrip()
"""


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Iterator[Machine]:
    made = Machine("capture", "trixie-desktop", tmp_path, shared=repository)
    source = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=10:duration=20"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *source, tmp_path / "film.mkv"], check=True)
    shutil.copy(tmp_path / "film.mkv", made.root / FILM.lstrip("/"))
    with made:
        yield made


def until(machine: Machine, script: str, what: str) -> None:
    machine.until(f"infoscreen-watchdog screen --json >/tmp/look; {script}", what)


def test_the_unit_sees_the_session_of_its_user(machine: Machine) -> None:
    machine.install(["infoscreen-watchdog"])
    machine.run("useradd --create-home kiosk")
    machine.write("/etc/systemd/system/session.service", SESSION)
    machine.run("systemctl daemon-reload; systemctl start infoscreen-capture@kiosk")
    until(machine, "grep 'no session' /tmp/look", "there is no session yet")

    machine.run("systemctl start session")
    until(machine, 'grep \'"backend": *"wayland"\' /tmp/look', "the session is seen")
    found = json.loads(machine.run("cat /tmp/look"))
    assert found["look"]["windows"] == 0

    runtime = machine.run("echo /run/user/$(id -u kiosk)")
    environment = f"-E XDG_RUNTIME_DIR={runtime} -E WAYLAND_DISPLAY=wayland-0"
    machine.run(f"systemd-run --unit=player --uid=kiosk {environment} {PLAYER}")
    until(machine, "grep '\"windows\": *1' /tmp/look && ! grep '\"moved\": *0' /tmp/look", "the film is seen")

    machine.write("/tmp/power.py", POWER)
    machine.run(f"python3 /tmp/power.py {runtime}/wayland-0 0")
    until(machine, "grep 'display off' /tmp/look", "the monitor is off")
    machine.run(f"python3 /tmp/power.py {runtime}/wayland-0 1")
    until(machine, "grep '\"windows\": *1' /tmp/look", "the monitor is on again")

    path = (
        "/org/freedesktop/login1/session/$(loginctl show-user kiosk -p Display --value | sed 's/^\\([0-9]\\)/_3\\1/')"
    )
    name = "org.freedesktop.login1"
    machine.run(f"setpriv --reuid=kiosk --clear-groups busctl call {name} {path} {name}.Session SetLockedHint b true")
    until(machine, "grep 'session locked' /tmp/look", "the session is locked")
    machine.run(f"setpriv --reuid=kiosk --clear-groups busctl call {name} {path} {name}.Session SetLockedHint b false")
    until(machine, "grep '\"windows\": *1' /tmp/look", "the session is open again")

    assert machine.run("systemctl show -p NRestarts --value infoscreen-capture@kiosk") == "0"
    exposure = machine.run("systemd-analyze security --no-pager infoscreen-capture@kiosk | tail -n 1")
    assert "OK" in exposure, exposure
