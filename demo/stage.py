"""Starts and ends the demo's parts: broker, server, screen, kiosk. Knows nothing of the story that is played on it."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from string import Template
from typing import TypeVar

from demo import kernel

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "demo"
SHIPPED_BROKER = ROOT / "packaging/mosquitto/infoscreen.conf"


class StepError(Exception):
    """A step did not come true; the text is for the person in front of the screen."""


def wait(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true value of `condition`. Raises StepError with `what`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise StepError(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def player_user() -> str:
    """Who owns the player: whoever called sudo, or nobody; never root."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    caller = os.environ.get("SUDO_USER", "root")
    return caller if caller != "root" else "nobody"


class Stage:
    """All parts in one temporary directory; `close` leaves neither a process nor a file behind."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.directory = Path(tempfile.mkdtemp(prefix="infoscreen-demo-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.directory.chmod(0o711)
        self.user = player_user()
        self.uuid = str(uuid.uuid4())
        self.broker_port, self.api_port = free_port(), free_port()
        self.display = ""
        self.mpv = Path(shutil.which("mpv") or "/usr/bin/mpv")

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def database(self) -> Path:
        return self.directory / "server.db"

    @property
    def control(self) -> Path:
        return self.directory / "control.socket"

    @property
    def broker_url(self) -> str:
        return f"mqtt://127.0.0.1:{self.broker_port}"

    def close(self) -> None:
        self._stack.close()

    # --- parts --------------------------------------------------------------------------------------------------------

    def start_broker(self) -> None:
        config = self.directory / "mosquitto.conf"
        if not config.exists():
            self._folder("broker", "mosquitto")
            config.write_text(f"{SHIPPED_BROKER.read_text()}\n{self._filled('mosquitto.conf')}")
        # Where it is for administrators, /usr/sbin is not in everybody's PATH.
        self._start("broker", [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(config)])
        self._wait_while("broker", lambda: answers(self.broker_port), "the broker answers")

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL for one that does not hear it."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_server(self) -> None:
        config = self.directory / "server.toml"
        config.write_text(self._filled("server.toml"))
        self._start("server", [self._program("infoscreen-server"), "run", "--config", str(config)])
        self._wait_while("server", lambda: answers(self.api_port), "the API answers")
        # A hello that nobody hears yet is said again after 10 s; here the kiosk waits until the server listens.
        log = self.directory / "server.log"
        self._wait_while("server", lambda: b"listening on mqtt" in log.read_bytes(), "the server listens to the broker")

    def make_token(self) -> Path:
        """A file with the header that opens the log routes, so that no token is ever in a process list."""
        header = self.directory / "token"
        header.touch(mode=0o600)
        token = self._ask_server("token", "add", "demo", "--role", "admin")
        header.write_text(f"Authorization: Bearer {token}\n")
        return header

    def make_link(self) -> str:
        """The address at which the first user of the dashboard chooses a name and a password."""
        return self._ask_server("set-up")

    def _ask_server(self, *verb: str) -> str:
        argv = [self._program("infoscreen-server"), *verb, "--config", str(self.directory / "server.toml")]
        made = subprocess.run(argv, text=True, capture_output=True, check=False, timeout=60)
        if made.returncode != 0 or not made.stdout.split():
            raise StepError(f"infoscreen-server {verb[0]}: {made.stderr.strip()}")
        return made.stdout.split()[-1]

    def start_screen(self) -> None:
        """A virtual X display with a number that is free."""
        reading, writing = os.pipe()
        argv = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x720x24", "-nolisten", "tcp", "-ac"]
        with os.fdopen(reading, encoding="ascii") as numbers:
            try:
                self._start("screen", argv, pass_fds=(writing,))
            finally:
                os.close(writing)
            number = numbers.readline().strip()
        if not number:
            raise StepError("the virtual display did not start")
        self.display = f":{number}"

    def start_kiosk(self) -> None:
        folder = self._folder("player", self.user)
        shutil.copy(video(), folder / "video.mp4")
        (folder / "video.mp4").chmod(0o644)
        config = self.directory / "agent.toml"
        config.write_text(self._filled("agent.toml"))
        # The agent leaves its player running when it stops, as it should; the demo does not.
        self._stack.callback(self._end_players)
        self._start("agent", [self._program("infoscreen-watchdog"), "run", "--config", str(config)])
        self._wait_while("agent", self.control.exists, "the agent answers")

    def check(self) -> None:
        """Raises StepError if a part ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise StepError(f"the {name} ended by itself (status {process.returncode})")

    def keep_logs(self) -> Path:
        """Copies the logs to where they outlive the temporary directory."""
        kept = CACHE / "logs"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for log in self.directory.glob("*.log"):
            shutil.copy(log, kept)
        return kept

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _filled(self, name: str) -> str:
        words = {
            "api_port": self.api_port,
            "broker_port": self.broker_port,
            "broker_url": self.broker_url,
            "directory": self.directory,
            "display": self.display,
            "player_argv": json.dumps(self._player_argv()),
            "player_user": self.user,
            "uuid": self.uuid,
        }
        return Template((ROOT / "demo" / name).read_text().partition("\n")[2]).substitute(words)

    def _player_argv(self) -> list[str]:
        folder = self.directory / "player"
        quiet = ["--no-config", "--really-quiet", "--no-input-terminal", "--no-audio"]
        video = ["--fs", "--loop-file=inf", "--vo=x11", "--hwdec=no", str(folder / "video.mp4")]
        return [str(self.mpv), *quiet, f"--input-ipc-server={folder / 'mpv.socket'}", *video]

    def _folder(self, name: str, owner: str) -> Path:
        folder = self.directory / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.getuid() == 0:
            shutil.chown(folder, owner)
        return folder

    def _program(self, name: str) -> str:
        return str(Path(sys.executable).parent / name)

    def _start(self, name: str, argv: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        # Each in a session of its own, so that Ctrl-C reaches the demo alone, which then ends them in order; and with
        # the kernel's order to end when the demo does, should it be killed.
        argv = ["setpriv", "--pdeathsig", "TERM", *argv]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=pass_fds
            )
        self._stack.callback(self.stop, name)

    def _wait_while(self, name: str, condition: Callable[[], bool], what: str) -> None:
        """Waits for `condition`, but not for one that ended by itself."""

        def come_true() -> bool:
            self.check()
            return condition()

        wait(come_true, f"{what}")

    def _end_players(self) -> None:
        for pid in kernel.mentions(str(self.directory / "player")):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def video() -> Path:
    """Ten seconds of a moving test picture, made once. Raises StepError."""
    made = CACHE / "video.mp4"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = CACHE / f"video.{os.getpid()}.mp4"
        source = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=10"]
        argv = ["ffmpeg", "-v", "error", "-y", *source, "-pix_fmt", "yuv420p", str(fresh)]
        done = subprocess.run(argv, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=120)
        if done.returncode != 0:
            raise StepError(f"ffmpeg made no video: {done.stderr.strip()}")
        fresh.rename(made)
    return made
