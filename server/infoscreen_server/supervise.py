"""`run`: keeps the server's parts alive as child processes and takes all of them down with itself.

Knows commands and processes only; what a part does is its own affair. Imports nothing heavy: this process stays.
"""

import ctypes
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from infoscreen_server.config import ServerConfig

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STABLE_AFTER = 60.0
"""Seconds after which an earlier death no longer counts."""
STOP_WITHIN = 2.5
"""Seconds from SIGTERM to SIGKILL; all is gone within 3."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def pause_before_restart(deaths: int) -> float:
    """Seconds to wait after so many deaths in a row.

    >>> [pause_before_restart(n) for n in (1, 2, 3, 50)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(deaths - 1, 10))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone, however that came about.

    Exits at once where the parent died before this could be said.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


def notify(state: str) -> None:
    """Tell systemd, where it asks for it (sd_notify(3)): a datagram to the socket in NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError as error:
            log.warning("NOTIFY_SOCKET: %s", error.strerror)


def command(part: str, config_file: Path | None, *, bound: bool = False) -> list[str]:
    """The argv that runs one part with this very interpreter; a bound one dies with this process."""
    argv = [sys.executable, "-m", "infoscreen_server", part]
    if config_file is not None:
        argv += ["--config", str(config_file)]
    return [*argv, "--parent", str(os.getpid())] if bound else argv


@dataclass(slots=True)
class Part:
    name: str
    argv: Sequence[str]
    process: "subprocess.Popen[bytes] | None" = None
    pidfd: int = -1
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0

    def start(self, now: float) -> None:
        # A group of its own: Ctrl-C in a terminal reaches this process alone, which then stops the parts in good order.
        # systemd hears from this process only: gunicorn would say READY on its own account, and too early.
        environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, process_group=0, env=environment)
        self.pidfd = os.pidfd_open(self.process.pid)
        self.started = now

    def reap(self, now: float) -> int | None:
        """The exit code, if it has ended; then it is due again after a pause."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        os.close(self.pidfd)
        self.process, self.pidfd = None, -1
        self.deaths = 1 if now - self.started >= STABLE_AFTER else self.deaths + 1
        self.due = now + pause_before_restart(self.deaths)
        return code


@dataclass(slots=True)
class Supervisor:
    parts: list[Part]
    address: tuple[str, int]
    stopping: bool = False
    ready: bool = field(default=False)

    def run(self) -> int:
        """Until SIGTERM or SIGINT. Returns the exit code of `run`."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            while not self.stopping:
                now = time.monotonic()
                for part in self.parts:
                    self._tend(part, now)
                self._announce()
                self._wait(wake_read, self._pause(now))
            notify("STOPPING=1")
            self._stop_all()
        finally:
            signal.set_wakeup_fd(-1)
            os.close(wake_read)
            os.close(wake_write)
        return 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _tend(self, part: Part, now: float) -> None:
        code = part.reap(now)
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            log.error("%s ended with %s, it starts again in %.1f s", part.name, how, part.due - now)
        if part.process is None and now >= part.due:
            part.start(now)

    def _announce(self) -> None:
        """READY once the web part answers, not only listens: its worker takes half a second to come up."""
        if self.ready:
            return
        self.ready = _answers(self.address)
        if self.ready:
            log.info("answers on http://%s:%d", *self.address)
            notify(f"READY=1\nSTATUS=answers on http://{self.address[0]}:{self.address[1]}")

    def _pause(self, now: float) -> float | None:
        due = [max(0.0, part.due - now) for part in self.parts if part.process is None]
        return min([*due, *([] if self.ready else [0.1])], default=None)

    def _wait(self, wake: int, timeout: float | None) -> None:
        watched = [part.pidfd for part in self.parts if part.process is not None]
        readable, _, _ = select.select([wake, *watched], [], [], timeout)
        if wake in readable:
            os.read(wake, 64)

    def _stop_all(self) -> None:
        running = [part.process for part in self.parts if part.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_WITHIN
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("process %d did not stop in %.1f s and is killed", process.pid, STOP_WITHIN)
                process.kill()
                process.wait()
        for part in self.parts:
            if part.process is not None:
                os.close(part.pidfd)
                part.process = None


def _answers(address: tuple[str, int]) -> bool:
    # By hand: an HTTP library would be most of the memory of this process.
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as probe:
        probe.settimeout(0.5)
        try:
            probe.connect(address)
            probe.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return probe.recv(5) == b"HTTP/"
        except OSError:
            return False


def run(config: ServerConfig, config_file: Path | None, *, migrate: bool) -> int:
    """Bring the database up to date, then run all parts until told to stop. Returns an exit code."""
    if migrate:
        # In a process of its own, so that this one stays small.
        code = subprocess.run(
            command("migrate", config_file, bound=True), stdin=subprocess.DEVNULL, check=False
        ).returncode
        if code != 0:
            return code if code > 0 else 1
    names = ["web", *([] if config.mqtt is None else ["ingest"]), "alerts", "housekeeping"]
    parts = [Part(name, command(name, config_file, bound=True)) for name in names]
    return Supervisor(parts, (config.listen_host, config.listen_port)).run()
