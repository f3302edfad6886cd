"""Screens without a monitor, each with a user of its own: headless Wayland, Xvfb, and what is shown on them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from parts.wait import wait_for

ROOT = Path(__file__).parents[2]
USER = "nobody" if os.geteuid() == 0 else None
"""Who sees the screen; compositors do not run as root."""
AS_USER = ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups", "--"] if USER else []
PYTHON = f"{sys.base_prefix}/bin/python3"
NO_MONITOR = {"WLR_BACKENDS": "headless", "WLR_RENDERER": "pixman", "WLR_LIBINPUT_NO_DEVICES": "1"}


def copy_code(folder: Path, *libraries: str) -> Path:
    """The capture helper and what it imports, where any user may read it."""
    code = folder / "code"
    for package in ("device/infoscreen_device", "shared/infoscreen_shared"):
        shutil.copytree(ROOT / package, code / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
    for library in ("PIL", "pillow.libs", *libraries):
        source = next(Path(place) / library for place in sys.path if (Path(place) / library).is_dir())
        shutil.copytree(source, code / library)
    open_to_all(folder)
    return code


def open_to_all(folder: Path) -> None:
    """Others may go through to what they know the name of."""
    for above in (folder, *folder.parents):
        if above not in (Path("/tmp"), Path("/")):
            above.chmod(above.stat().st_mode | 0o011)


class Screen:
    """A session of `USER` and the programs in it. Its folder is short enough for the names of sockets."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="screen-", dir="/tmp"))
        self.run = self.folder / "run"
        self.run.mkdir()
        self.folder.chmod(0o755)
        self.run.chmod(0o700)
        if USER:
            shutil.chown(self.run, USER)
        self.programs: list[subprocess.Popen[bytes]] = []
        self.server: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return {**kept, "HOME": str(self.run), "XDG_RUNTIME_DIR": str(self.run), "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self, *argv: object, **more: str) -> "subprocess.Popen[bytes]":
        """A program of the session's user."""
        with (self.folder / "log").open("ab") as log:
            command = [*AS_USER, *map(str, argv)]
            program = subprocess.Popen(
                command, env=self.environment | more, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        self.programs.append(program)
        return program

    def done(self, *argv: object) -> bytes:
        """The output of a program of the session's user."""
        done = subprocess.run([*AS_USER, *map(str, argv)], env=self.environment, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def stop(self, program: "subprocess.Popen[bytes]") -> None:
        program.send_signal(signal.SIGCONT)
        program.kill()
        program.wait(10)
        self.programs.remove(program)

    def clear(self) -> None:
        """Ends everything that is shown."""
        for program in reversed([*self.programs]):
            if program is not self.server:
                self.stop(program)

    def play(self, *what: object, moves: bool = True) -> "subprocess.Popen[bytes]":
        """mpv with a door; returns when it plays."""
        output = "wlshm" if "WAYLAND_DISPLAY" in self.environment else "x11"
        path = self.run / "mpv.sock"
        path.unlink(missing_ok=True)
        options = ["--really-quiet", "--ao=null", f"--vo={output}", "--fullscreen", "--loop-file=inf"]
        player = self.start("mpv", *options, f"--input-ipc-server={path}", *what)
        wait_for(lambda: ask_mpv(path, "get_property", "vo-configured") is True, "mpv shows something")
        wait_for(lambda: not moves or (ask_mpv(path, "get_property", "time-pos") or 0) > 0.5, "mpv plays")
        return player

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for program in reversed([*self.programs]):
            self.stop(program)
        shutil.rmtree(self.folder, ignore_errors=True)


class Wayland(Screen):
    def __init__(self, *, size: str = "1280x720", outputs: int = 1) -> None:
        super().__init__()
        self.size, self.outputs = size, outputs
        self.boot()

    @property
    def environment(self) -> dict[str, str]:
        found = [path.name for path in self.run.glob("wayland-*") if path.suffix != ".lock"]
        control = [str(path) for path in self.run.glob("sway-ipc.*")]
        return (
            super().environment
            | {"WAYLAND_DISPLAY": found[0] if found else "wayland-0"}
            | ({"SWAYSOCK": control[0]} if control else {})
        )

    def boot(self) -> None:
        """sway, which Debian 12 and 13 have, with nothing on its screen."""
        for path in self.run.glob("*"):
            if path.name.startswith(("wayland-", "sway-ipc.")):
                path.unlink()
        config = self.folder / "sway"
        config.write_text(f"output HEADLESS-1 mode {self.size}\ndefault_border none\n")
        environment = {**super().environment, **NO_MONITOR, "WLR_HEADLESS_OUTPUTS": str(self.outputs)}
        with (self.folder / "log").open("ab") as log:
            argv = [*AS_USER, "sway", "-c", str(config)]
            self.server = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd="/")
        self.programs.append(self.server)
        wait_for(self._is_up, "sway is up")

    def _is_up(self) -> bool:
        done = subprocess.run(
            [*AS_USER, "swaymsg", "-t", "get_outputs"], env=self.environment, capture_output=True, timeout=20
        )
        return done.returncode == 0 and len(json.loads(done.stdout)) == self.outputs

    def kill(self) -> None:
        assert self.server is not None
        self.stop(self.server)


class X11(Screen):
    def __init__(self, *options: str, size: str = "1280x720") -> None:
        super().__init__()
        reading, writing = os.pipe()
        # Xvfb chooses a free display and says which. Without -noreset it forgets everything with its last client.
        command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{size}x24", "-nolisten", "tcp", "-noreset"]
        with (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen([*command, *options], pass_fds=[writing], stderr=log)
        os.close(writing)
        with os.fdopen(reading) as told:
            self.display = f":{told.readline().strip()}"
        self.programs.append(self.server)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DISPLAY": self.display}


def ask_mpv(path: Path, *command: object) -> Any:
    """What mpv answers on its socket; None if it does not."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command, "request_id": 1}).encode() + b"\n")
            for line in connection.makefile("rb"):
                answer = json.loads(line)
                if answer.get("request_id") == 1 and "error" in answer:
                    return answer.get("data")
        except OSError:
            return None
    return None


def make_film(path: Path, size: str = "640x360", seconds: int = 20) -> Path:
    """A test card in which most of the picture moves."""
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=10:duration={seconds}"]
    subprocess.run(["ffmpeg", "-loglevel", "error", *source, str(path)], check=True)
    return path
