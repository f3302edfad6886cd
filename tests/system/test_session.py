"""The recipes of docs/kiosk.md as they stand there, in booted Debian 13: a session, the player's unit, a picture.

Only the monitor is not real: labwc draws into memory, and an X server without hardware stands in for X.
"""

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from parts.figures import Figure
from parts.machine import ROOT, Machine
from parts.wait import wait_for

T = TypeVar("T")

GUIDE = (ROOT / "docs/kiosk.md").read_text()
BLOCK = re.compile(r"(?:^`(?P<path>/[^`]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILM = "/srv/films/welcome.mkv"

NO_MONITOR = "WLR_BACKENDS=headless\nWLR_RENDERER=pixman\nWLR_LIBINPUT_NO_DEVICES=1\n"
NO_SEAT = "[LightDM]\nlogind-check-graphical=false\n"
X = """#!/bin/sh
# Xvfb instead of X: it knows nothing of seats and terminals.
for word; do
    shift
    case $word in
        -seat) skip=1 ;;
        vt* | -novtswitch) ;;
        *) [ "$skip" = 1 ] || set -- "$@" "$word"; skip=0 ;;
    esac
done
exec Xvfb "$@" -screen 0 640x360x24
"""


def follow(machine: Machine, section: int) -> None:
    """Does what a section of the guide says: writes its files, runs its commands, in their order."""
    text = re.split(r"^## ", GUIDE, flags=re.MULTILINE)[section]
    assert text.startswith(f"{section}. ")
    done = 0
    for block in BLOCK.finditer(text):
        if block["path"]:
            # A container has no virtual terminals.
            machine.write(block["path"], block["text"].replace("vt = 7", 'vt = "none"'))
        elif block["kind"] == "sh":
            # There is no hardware to drive, and no network to fetch that from.
            machine.run("set -e\n" + block["text"].replace(" xserver-xorg", ""))
        else:
            continue
        done += 1
    assert done


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "welcome.mkv"
    source = ["-f", "lavfi", "-i", "testsrc=size=320x180:rate=10:duration=10"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *source, path], check=True)
    return path


class Screen:
    """A machine by the guide, up to and with the player's unit."""

    def __init__(self, machine: Machine, kind: str, session: str, section: int) -> None:
        self.machine, self.kind, self.session, self.section = machine, kind, session, section

    def follow(self) -> None:
        self.machine.install(["infoscreen-watchdog"])
        follow(self.machine, 1)
        if self.section == 4:
            self.machine.run("sed -i s/greetd/lightdm/ /etc/infoscreen-watchdog/config.toml")
            self.machine.run("systemctl restart infoscreen-watchdog")
        follow(self.machine, 2)
        follow(self.machine, self.section)

    def until(self, condition: Callable[[], T], what: str) -> T:
        try:
            return wait_for(condition, f"{self.kind}: {what}", 60, 0.3)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.machine.ask('journalctl --no-pager -b -n 150')}") from None

    def player(self, *but: str) -> str:
        """The pid of a player that the agent sees running, and that is none of these."""

        def seen() -> str:
            status = json.loads(self.machine.ask("infoscreen-watchdog status --json") or "{}").get("player") or {}
            pid = str(status.get("pid"))
            return pid if status.get("status") == "running" and pid not in but else ""

        return self.until(seen, "a player is watched")

    def colours(self) -> int:
        """How many there are in what the kiosk's user sees."""
        if self.kind == "labwc":
            grab = "XDG_RUNTIME_DIR=/run/user/$(id -u kiosk) WAYLAND_DISPLAY=wayland-0 grim /tmp/picture.png"
        else:
            program = "from PIL import ImageGrab; ImageGrab.grab(xdisplay=':0').save('/tmp/picture.png')"
            grab = f"HOME=/home/kiosk python3 -c {shlex.quote(program)}"
        count = "from PIL import Image; print(len(Image.open('/tmp/picture.png').convert('RGB').getcolors(2**24)))"
        as_kiosk = f"setpriv --reuid=kiosk --regid=kiosk --init-groups env {grab}"
        taken = f"rm -f /tmp/picture.png; {as_kiosk} && python3 -c {shlex.quote(count)}"
        return int(self.machine.ask(taken) or "0")

    def shows_the_film(self) -> None:
        """The test card has thousands; a desktop without a player has a handful."""
        self.until(lambda: self.colours() > 1000, "the film is seen")

    def looks(self, status: str, reason: str) -> None:
        """Waits until the agent says so of the picture."""

        def seen() -> bool:
            found = json.loads(self.machine.ask("infoscreen-watchdog status --json") or "{}").get("screen") or {}
            return (found.get("status"), found.get("reason")) == (status, reason)

        self.until(seen, f"the screen is {status} ({reason})")

    def as_kiosk(self, script: str) -> str:
        environment = "XDG_RUNTIME_DIR=/run/user/$(id -u kiosk) WAYLAND_DISPLAY=wayland-0"
        return self.machine.run(f"setpriv --reuid=kiosk --regid=kiosk --init-groups env {environment} {script}")


@pytest.fixture(params=["labwc", "x11"])
def screen(request: pytest.FixtureRequest, tmp_path: Path, repository: Path, film: Path) -> Iterator[Screen]:
    machine = Machine(f"screen-{request.param}", "trixie-desktop", tmp_path, shared=repository)
    (machine.root / "srv/films").mkdir()
    shutil.copy(film, machine.root / FILM.lstrip("/"))
    if request.param == "labwc":
        # Both display managers are in this root file system.
        (machine.root / "etc/systemd/system/display-manager.service").unlink()
        machine.write("/etc/environment", NO_MONITOR)
    else:
        machine.write("/etc/lightdm/lightdm.conf.d/no-seat.conf", NO_SEAT)
        machine.write("/usr/bin/X", X)
        (machine.root / "usr/bin/X").chmod(0o755)
    with machine:
        yield Screen(machine, request.param, *(("labwc", 3) if request.param == "labwc" else ("openbox", 4)))


def test_the_guide_makes_a_screen_that_comes_back(
    screen: Screen, record_property: Callable[[str, object], None]
) -> None:
    machine = screen.machine
    screen.follow()
    first = screen.player()
    assert machine.run(f"ps -o user=,comm= -p {first}").split() == ["kiosk", "mpv"]
    screen.shows_the_film()

    machine.run(f"kill -KILL {first}")
    second = screen.player(first)
    screen.shows_the_film()

    machine.run(f"pkill -KILL -u kiosk -x {screen.session}")
    began = time.monotonic()
    screen.player(first, second)
    screen.shows_the_film()
    record_property(f"{screen.session} killed -> the film is seen again", f"{time.monotonic() - began:.1f} s")

    machine.kill()
    began = time.monotonic()
    machine.boot()
    screen.player()
    screen.shows_the_film()
    record_property(f"power on -> the film is seen ({screen.kind})", f"{time.monotonic() - began:.1f} s")
    assert machine.ask("journalctl --no-pager -b --grep 'ordering cycle' -q") == ""
    assert machine.ask("systemctl --failed --no-legend") == ""


PAUSE = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as mpv:
    mpv.connect(sys.argv[1])
    mpv.sendall(json.dumps({"command": ["set_property", "pause", True]}).encode() + b"\\n")
    mpv.recv(1000)
"""


def test_the_picture_is_watched_from_outside_the_session(screen: Screen, figure: Figure) -> None:
    """Agent, capture helper and player are three services; the agent's user has no way to the screen."""
    machine = screen.machine
    screen.follow()
    machine.run("printf '[screen]\\nfast = true\\nsettle_s = 2\\n' >>/etc/infoscreen-watchdog/config.toml")
    machine.run("systemctl restart infoscreen-watchdog")
    first = screen.player()
    screen.shows_the_film()
    screen.looks("OK", "ok")
    assert machine.run("systemctl is-active infoscreen-capture@kiosk") == "active"
    said = json.loads(machine.run("infoscreen-watchdog screen --json"))
    assert said["look"]["witness"]["kind"] == "mpv"
    assert said["look"]["witness"]["advances"] is True
    assert said["look"]["hash"]

    began = time.monotonic()
    words = machine.run(f"tr '\\0' '\\n' </proc/{first}/cmdline").splitlines()
    (door,) = [word.partition("=")[2] for word in words if word.startswith("--input-ipc-server=")]
    screen.as_kiosk(f"python3 -c {shlex.quote(PAUSE)} {door}")
    screen.player(first)
    figure(f"frozen -> another player, fast, {screen.kind}, s", round(time.monotonic() - began, 1))
    screen.looks("OK", "ok")
    assert "screen.frozen" in machine.run("infoscreen-watchdog outbox export")
    assert machine.run("ls /var/lib/infoscreen-watchdog/evidence/*/screen.jpg")

    if screen.kind == "labwc":
        screen.as_kiosk("wlopm --off '*'")
        screen.looks("UNKNOWN", "display off")
        screen.as_kiosk("wlopm --on '*'")
        screen.looks("OK", "ok")
    last = machine.run("systemd-analyze security --no-pager infoscreen-capture@kiosk.service | tail -1")
    figure(f"exposure of infoscreen-capture, {screen.kind}", float(last.split(":")[1].split()[0]))
    assert machine.ask("systemctl --failed --no-legend") == ""
