"""The command `infoscreen-capture`: looks at the screen for the watchdog, with the rights of the kiosk's user.

The agent asks by its control socket and judges; this only looks, and only when it is asked. It stays small between
looks, each of which is a child (child.py). What goes over the socket is one JSON object a line; pictures are memory
files that are handed over with a line.
"""

import argparse
import contextlib
import json
import logging
import os
import select
import shlex
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from infoscreen_device.client import DEFAULT_SOCKET, SOCKET_VARIABLE
from infoscreen_device.core.picture import Blind, Blindness
from infoscreen_device.screen.backends import BACKENDS, Settings, find_screen
from infoscreen_device.screen.child import LookProcess, reap_the_rest
from infoscreen_device.screen.look import Ask, ask_of
from infoscreen_shared import __version__

log = logging.getLogger("infoscreen-capture")

RECONNECT_FIRST_S, RECONNECT_CAP_S = 0.1, 5.0
ANSWER_S = 5.0
"""For the agent to say yes, and for it to take an answer in."""
MAX_QUEUE = 8
"""Looks that wait; the agent asks for one after the other."""
MAX_LINE = 64_000
LOCK_EVERY_S = 30.0
"""logind is asked only so often: that costs as much as the rest of a look."""
LOGIND = Path("/run/systemd/seats")
VARIABLE = "INFOSCREEN_CAPTURE_"


class StopError(Exception):
    """Somebody ends the helper."""


class Helper:
    """Serves one agent after the other, until `stop_fd` is readable."""

    def __init__(self, path: str, settings: Settings, stop_fd: int) -> None:
        self._path = path
        self._settings = settings
        self._stop_fd = stop_fd
        self._agent: socket.socket | None = None
        self._received = bytearray()
        self._queue: deque[tuple[int, Ask]] = deque()
        self._running: tuple[int, LookProcess] | None = None
        self._lock_due = 0.0
        self._locked = False

    def run(self) -> None:
        wait_s, told = RECONNECT_FIRST_S, ""
        with contextlib.suppress(StopError):
            while True:
                try:
                    self._attach()
                    log.info("looks at the screen for %s", self._path)
                    wait_s, told = RECONNECT_FIRST_S, ""
                    while True:
                        self._turn()
                except OSError as error:
                    why = str(error.strerror or error)
                    if why != told:
                        log.warning("%s: %s", self._path, why)
                        told = why
                finally:
                    self._detach()
                self._wait([], wait_s)
                wait_s = min(2 * wait_s, RECONNECT_CAP_S)

    def _wait(self, fds: list[int], timeout: float | None) -> list[int]:
        """Those of `fds` that are readable. Raises StopError."""
        ready, _, _ = select.select([*fds, self._stop_fd], [], [], timeout)
        if self._stop_fd in ready:
            raise StopError
        return ready

    # --- the agent ----------------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Raises OSError if the agent is away or does not want us."""
        self._agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._agent.settimeout(ANSWER_S)
        self._agent.connect(self._path)
        screen = find_screen(self._settings, None) or {}
        session = screen.get("WAYLAND_DISPLAY") or screen.get("DISPLAY") or ""
        self._say({"op": "attach-screen", "session": session, "version": __version__}, [])
        deadline, lines = time.monotonic() + ANSWER_S, list[dict[str, Any]]()
        while not lines:
            if not self._wait([self._agent.fileno()], max(0.0, deadline - time.monotonic())):
                raise TimeoutError("no answer")
            lines = self._lines()
        if lines[0].get("ok") is not True:
            raise PermissionError(str(lines[0].get("error", "refused"))[:500])
        self._take(lines[1:])

    def _detach(self) -> None:
        """The agent is gone, and so is who would take answers."""
        self._queue.clear()
        self._received.clear()
        if self._running is not None:
            _close(self._running[1].finish()[1])
            self._running = None
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    def _lines(self) -> list[dict[str, Any]]:
        assert self._agent is not None
        data = self._agent.recv(MAX_LINE)
        if not data:
            raise ConnectionResetError("the watchdog is gone")
        *lines, rest = bytes(self._received + data).split(b"\n")
        if len(rest) > MAX_LINE:
            raise ConnectionAbortedError("a line is too long")
        self._received[:] = rest
        try:
            found = [json.loads(line) for line in lines if line.strip()]
        except (ValueError, RecursionError):
            raise ConnectionAbortedError("what listens there is no watchdog") from None
        return [each for each in found if isinstance(each, dict)]

    def _say(self, body: dict[str, Any], fds: list[int]) -> None:
        assert self._agent is not None
        line = json.dumps(body).encode() + b"\n"
        sent = socket.send_fds(self._agent, [line], fds) if fds else 0
        self._agent.sendall(line[sent:])

    # --- looks --------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Waits for the agent or for the look that is under way. Raises OSError if the agent is gone."""
        assert self._agent is not None
        if self._running is None and self._queue:
            self._start(*self._queue.popleft())
        waiting = [self._agent.fileno()]
        timeout: float | None = None
        if self._running is not None:
            waiting.append(self._running[1].fd)
            timeout = max(0.0, self._running[1].deadline - time.monotonic())
        ready = self._wait(waiting, timeout)
        if self._running is not None:
            self._attend(self._running, ready)
        if self._agent.fileno() in ready:
            self._take(self._lines())

    def _take(self, lines: Sequence[dict[str, Any]]) -> None:
        for body in lines:
            number = body.get("id")
            if body.get("op") != "look" or type(number) is not int:
                log.debug("not understood: %.200r", body)
            elif len(self._queue) >= MAX_QUEUE:
                self._refuse(number, f"{MAX_QUEUE} looks wait already")
            else:
                try:
                    self._queue.append((number, ask_of(body)))
                except ValueError as error:
                    self._refuse(number, str(error))

    def _start(self, number: int, ask: Ask) -> None:
        check_lock = LOGIND.exists() and (self._locked or time.monotonic() >= self._lock_due)
        if check_lock:
            self._lock_due = time.monotonic() + LOCK_EVERY_S
        try:
            self._running = number, LookProcess(ask, self._settings, check_lock=check_lock)
        except OSError as error:
            self._refuse(number, f"no process for a look: {error.strerror}")

    def _attend(self, running: tuple[int, LookProcess], ready: Sequence[int]) -> None:
        number, process = running
        if process.fd in ready:
            process.read()
        if not process.answered and time.monotonic() < process.deadline:
            return
        self._running = None
        answer, fds = process.finish()
        reap_the_rest()
        self._locked = answer.get("blind", {}).get("reason") == Blindness.LOCKED
        try:
            self._say({"id": number, **answer}, fds)
        finally:
            _close(fds)

    def _refuse(self, number: int, why: str) -> None:
        self._say({"id": number, "blind": asdict(Blind(Blindness.FAILED, why)), "pictures": []}, [])


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


# --- the command ------------------------------------------------------------------------------------------------------


def entry() -> NoReturn:
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(levelname)s: %(message)s")
    try:
        settings = _settings(options)
    except ValueError as error:
        parser.error(str(error))
    if options.once is not None:
        return once(settings, options.once, options.pid)
    Helper(options.socket or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET, settings, _stop_fd()).run()
    return 0


def _stop_fd() -> int:
    """Readable after SIGTERM or SIGINT: an exception from a handler could get lost in whatever goes on just then."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reading


def _parser() -> argparse.ArgumentParser:
    def told(name: str) -> str | None:
        return os.environ.get(VARIABLE + name) or None

    parser = argparse.ArgumentParser(
        prog="infoscreen-capture",
        description="Looks at the screen of this user's session when the watchdog asks for it.",
        epilog=f"{VARIABLE}BACKEND, _COMMAND, _DEVTOOLS and _OUTPUT in the environment stand for the options.",
    )
    parser.add_argument("--socket", metavar="PATH", help=f"the watchdog's control socket, by default {DEFAULT_SOCKET}")
    parser.add_argument("--backend", choices=BACKENDS, default=told("BACKEND") or "auto", help="the way to a picture")
    parser.add_argument("--command", metavar="LINE", default=told("COMMAND"), help="prints a PNG, PPM or JPEG")
    parser.add_argument("--devtools", metavar="PORT", default=told("DEVTOOLS"), help="of Chromium, if it does not say")
    parser.add_argument("--output", metavar="NAME", default=told("OUTPUT"), help="one monitor of several, as HDMI-A-1")
    parser.add_argument("--once", type=Path, metavar="FILE", help="one picture into FILE (.png or .jpg), and no agent")
    parser.add_argument("--pid", type=int, metavar="PID", help="with --once: ask this player, too")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    """Raises ValueError."""
    if options.backend not in BACKENDS:
        raise ValueError(f"{VARIABLE}BACKEND: expected one of {', '.join(BACKENDS)}")
    command = tuple(shlex.split(options.command or ""))
    if options.backend == "command" and not command:
        raise ValueError("--backend command needs --command")
    port = options.devtools
    if port is not None and not (port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError("--devtools: expected a port")
    return Settings(options.backend, command, None if port is None else int(port), options.output)


def once(settings: Settings, path: Path, pid: int | None = None) -> int:
    """Says what a look sees, and writes its picture. 1 if there is none."""
    kind = "jpeg" if path.suffix.lower() in (".jpg", ".jpeg") else "png"
    process = LookProcess(Ask(pictures=(kind,), pid=pid, frames=3 if pid else 1), settings, check_lock=LOGIND.exists())
    while not process.answered and (left := process.deadline - time.monotonic()) > 0:
        if select.select([process.fd], [], [], left)[0]:
            process.read()
    answer, fds = process.finish()
    sys.stdout.write(json.dumps(answer.get("burst") or answer["blind"], indent=1) + "\n")
    if not fds:
        return 1
    try:
        with os.fdopen(fds[0], "rb") as picture:
            path.write_bytes(picture.read())
    except OSError as error:
        log.error("%s: %s", path, error.strerror)
        return 1
    return 0
