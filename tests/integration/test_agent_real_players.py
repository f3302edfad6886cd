"""The programs that kiosks really show: Chromium, a PDF viewer, mpv and VLC on Xvfb, played by `infoscreen-player`."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts.agent import PLAYER_USER, Agent
from parts.wait import wait_for

ROOT = Path(__file__).parents[2]
PLAYER = [f"{sys.base_prefix}/bin/python3", "-c", "from infoscreen_device.player import entry; entry()"]
AS_PLAYER_USER = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
PDF = b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 200 100]>> endobj
trailer <</Root 1 0 R>>
"""


class Kiosk:
    """A screen, an agent and an event handler; what is played belongs to another user than the agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for above in (folder, *folder.parents):
            if above != Path("/tmp") and above != Path("/"):
                above.chmod(above.stat().st_mode | 0o011)
        self.home = folder / "home"
        self.home.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self.home, PLAYER_USER)
        reading, writing = os.pipe()
        # Xvfb chooses a free display and says which.
        command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "640x360x24", "-nolisten", "tcp"]
        self.screen = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
        os.close(writing)
        with os.fdopen(reading) as told:
            self.display = f":{told.readline().strip()}"
        # The player's user may not be allowed to look into the checkout.
        self.code = folder / "code"
        for package in ("device/infoscreen_device", "shared/infoscreen_shared"):
            shutil.copytree(ROOT / package, self.code / Path(package).name)
        self.agent = Agent(folder, control={"group": "nogroup"} if os.geteuid() == 0 else {})
        self.agent.start()
        self.handler: subprocess.Popen[bytes] | None = None

    def play(self, kind: str, source: str, *more: str) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DBUS_", "WAYLAND_"))},
            "HOME": str(self.home),
            "PYTHONPATH": str(self.code),
            "DISPLAY": self.display,
        }
        arguments = ["--type", kind, "--event-id", "42", "--socket", str(self.agent.socket), *more, source]
        with (self.folder / "handler.log").open("wb") as log:
            self.handler = subprocess.Popen(
                [*AS_PLAYER_USER, *PLAYER, *arguments], env=environment, stdout=log, stderr=log, cwd="/"
            )

    def end(self) -> None:
        if self.handler is not None:
            self.handler.terminate()
            self.handler.wait(20)
        self.agent.__exit__(None, None, None)
        self.screen.terminate()
        self.screen.wait(10)


@pytest.fixture
def kiosk(tmp_path: Path) -> Iterator[Kiosk]:
    made = Kiosk(tmp_path)
    try:
        yield made
    finally:
        made.end()


def session(sid: int) -> set[int]:
    """The living processes of a player's session."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _ppid, _group, their = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(their) == sid and state not in "ZX":
                found.add(int(entry.name))
    return found


def _video(folder: Path) -> Path:
    film = folder / "film.mkv"
    make = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=10:duration=20", str(film)]
    subprocess.run(make, check=True)
    return film


@pytest.mark.parametrize(
    ("kind", "name", "children", "line"),
    [
        ("website", "chromium", 2, None),
        ("presentation", "zathura", 0, None),
        ("video", "mpv", 0, "mpv --really-quiet --ao=null --vo=x11 --loop-file=inf {source}"),
        ("video", "vlc", 0, "vlc --intf=dummy --aout=dummy --no-video-title-show --loop {source}"),
    ],
    ids=["chromium", "zathura", "mpv", "vlc"],
)
def test_a_real_player_is_seen_restarted_and_leaves_no_orphans(
    kiosk: Kiosk, tmp_path: Path, kind: str, name: str, children: int, line: str | None
) -> None:
    if kind == "website":
        source = (tmp_path / "page.html").as_uri()
        (tmp_path / "page.html").write_text("<!doctype html><title>Departures</title><h1>Departures</h1>")
    elif kind == "presentation":
        (tmp_path / "slides.pdf").write_bytes(PDF)
        source = str(tmp_path / "slides.pdf")
    else:
        source = str(_video(tmp_path))
    kiosk.play(kind, source, *(["--command", line] if line else []))
    try:
        first = kiosk.agent.plays()
    except AssertionError:
        print((tmp_path / "handler.log").read_text())
        raise
    player = kiosk.agent.status()["player"]
    assert player["process"] == name
    wait_for(lambda: len(session(first)) > children, "its children are there")
    os.kill(first, signal.SIGKILL)
    (death,) = kiosk.agent.said("player.crashed")
    assert death["level"] == "ERROR"
    second = wait_for(
        lambda: pid if (pid := kiosk.agent.status()["player"]["pid"]) not in (None, first) else 0, "another one runs"
    )
    assert kiosk.agent.plays() == second
    wait_for(lambda: not session(first), "nothing of the first is left")
    assert session(second)
