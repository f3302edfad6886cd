"""For event handlers: tell the watchdog what should be playing.

    from infoscreen_device.client import Watchdog

    Watchdog().expect("mpv", event_id=42, type="video", pid=player.pid, restart="handler")

Standard library only, and nothing else of this package: the file may be copied into an event handler. It never breaks
the event handler that the watchdog is away: calls take at most a moment and return False (None for `status`).
"""

import contextlib
import json
import logging
import os
import socket as sockets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)

DEFAULT_SOCKET = "/run/infoscreen-watchdog/control.sock"
SOCKET_VARIABLE = "INFOSCREEN_WATCHDOG_SOCKET"
ENVIRONMENT = (
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "HOME",
    "LANG",
    "PATH",
)
"""What a player needs to find the screen; sent along, so that a restart finds it too."""
RECONNECT_FIRST_S, RECONNECT_CAP_S = 0.1, 2.0
MAX_LINE = 1_000_000


class WatchdogError(Exception):
    """The watchdog is away, or it refused; raised only with `strict`."""


class WatchdogAwayError(WatchdogError):
    pass


class Watchdog:
    """The agent, by its control socket. Safe to use from several threads.

    `socket`: path, by default $INFOSCREEN_WATCHDOG_SOCKET or the one of the package. `timeout_s`: what a call takes at
    most. `strict`: raise WatchdogError where False or None would be returned; its text names the field and the mend.
    """

    def __init__(self, socket: str | None = None, *, timeout_s: float = 2.0, strict: bool = False) -> None:
        self._path = socket or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
        self._timeout_s = timeout_s
        self._strict = strict
        self._lock = threading.Lock()
        self._wanted: dict[str, Any] | None = None
        """The last `expect` or `clear`, said again when the agent comes back while `serve` runs."""
        self._taken = False
        """The agent has `_wanted`, and has not been away since."""
        self._attached: sockets.socket | None = None
        self._stop = threading.Event()
        self._connected = threading.Event()

    def expect(
        self,
        process: str,
        *,
        event_id: int | None = None,
        type: str | None = None,
        pid: int | None = None,
        restart: str | Sequence[str] | None = None,
        cmdline: Sequence[str] | None = None,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        motion: str | None = None,
    ) -> bool:
        """From now on this process should be running, until the next `expect` or `clear`; True if the agent took it.

        `type`: video, website or presentation. `restart`: "unit:NAME", "user-unit:NAME", ["program", "argument", …],
        "handler" (see `serve`) or "none". `environment` is added to what finds the screen. `motion`: how much of the
        picture moves: "none", "clock", "ticker", "video" or "within: 30 s"; by default video for videos, else none.
        """
        body: dict[str, Any] = {"op": "expect", "process": process, "event_id": event_id, "type": type, "pid": pid}
        body |= {"cmdline": cmdline and list(cmdline), "user": user, "directory": directory, "motion": motion}
        body["restart"] = restart if restart is None or isinstance(restart, str) else list(restart)
        body["environment"] = {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}
        body["environment"] |= environment or {}
        body = {name: value for name, value in body.items() if value is not None}
        return self._want(body)

    def clear(self) -> bool:
        """Nothing should be playing any more."""
        return self._want({"op": "clear"})

    def log(self, level: str, message: str, code: str | None = None, context: Mapping[str, Any] | None = None) -> bool:
        """A record of the event handler's own (ERROR, WARN, INFO, DEBUG); it reaches the server like the agent's."""
        body: dict[str, Any] = {"op": "log", "level": level, "message": message, "code": code}
        body["context"] = None if context is None else dict(context)
        return self._done({name: value for name, value in body.items() if value is not None})

    def status(self) -> dict[str, Any] | None:
        """All that `infoscreen-watchdog status --json` shows; None if the agent is away."""
        try:
            answer = self.request({"op": "status"})
        except WatchdogError:
            if self._strict:
                raise
            return None
        return {name: value for name, value in answer.items() if name != "ok"}

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """One request and its answer. Raises WatchdogError, WatchdogAwayError if there is no answer."""
        deadline = time.monotonic() + self._timeout_s
        try:
            line = json.dumps(body).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise WatchdogError(f"not to be written as JSON: {error}") from None
        try:
            with self._connect() as connection:
                connection.sendall(line)
                answer = next(_lines(connection, deadline), None)
        except OSError as error:
            raise WatchdogAwayError(f"{self._path}: {error.strerror or 'no answer in time'}") from error
        if answer is None:
            raise WatchdogAwayError(f"{self._path}: hung up without an answer")
        if answer.get("ok") is not True:
            raise WatchdogError(str(answer.get("error", "refused")))
        return answer

    def _want(self, body: dict[str, Any]) -> bool:
        with contextlib.suppress(TypeError, ValueError), self._lock:
            json.dumps(body)
            self._wanted, self._taken = body, False
        done = self._done(body)
        if done:
            self._took(body)
        return done

    def _took(self, body: dict[str, Any]) -> None:
        with self._lock:
            if self._wanted is body:
                self._taken = True

    def _done(self, body: Mapping[str, Any]) -> bool:
        try:
            self.request(body)
        except WatchdogError as error:
            if self._strict:
                raise
            log.warning("watchdog: %s", error)
            return False
        return True

    def _connect(self) -> sockets.socket:
        connection = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        deadline = time.monotonic() + self._timeout_s
        try:
            connection.settimeout(self._timeout_s)
            while True:
                try:
                    connection.connect(self._path)
                    return connection
                except BlockingIOError:
                    # The agent's queue is full, and then a Unix socket with a time limit does not wait (connect(2)).
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
        except BaseException:
            connection.close()
            raise

    # --- for event handlers that restart their player themselves ------------------------------------------------------

    @property
    def connected(self) -> bool:
        """`serve` is attached: the agent can ask for a restart."""
        return self._connected.is_set()

    @property
    def expected(self) -> bool:
        """`serve` is attached, and the agent took the last `expect`: it asks for every restart that is needed."""
        with self._lock:
            wanted = self._wanted if self._taken and self.connected else None
            return wanted is not None and wanted["op"] == "expect"

    def serve(self, on_restart: Callable[[dict[str, Any]], int]) -> None:
        """Waits for restart requests until `close`; run it in a thread of its own.

        `on_restart` gets {"event_id", "type", "process"}, starts the player anew and returns its pid; an exception is
        told to the agent as the reason why it failed. When the agent was away, the last `expect` or `clear` is said
        again as soon as it is back.
        """
        wait = RECONNECT_FIRST_S
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    connection.settimeout(None)
                    self._serve_connection(connection, on_restart)
            except OSError:
                pass
            finally:
                wait = RECONNECT_FIRST_S if self._connected.is_set() else min(2 * wait, RECONNECT_CAP_S)
                self._connected.clear()
            self._stop.wait(wait)

    def _serve_connection(self, connection: sockets.socket, on_restart: Callable[[dict[str, Any]], int]) -> None:
        with self._lock:
            self._attached = connection
            wanted, self._taken = self._wanted, False
        if self._stop.is_set():
            return
        unanswered = [{"op": "attach"}, *([wanted] if wanted else [])]
        try:
            connection.sendall(b"".join(json.dumps(body).encode() + b"\n" for body in unanswered))
            for said in _lines(connection, None):
                if said.get("op") == "restart":
                    answer = {"id": said.get("id")} | self._restarted(said, on_restart)
                    connection.sendall(json.dumps(answer).encode() + b"\n")
                else:
                    self._answered(unanswered.pop(0) if unanswered else None, said)
        finally:
            with self._lock:
                self._attached = None

    def _answered(self, request: dict[str, Any] | None, answer: dict[str, Any]) -> None:
        if answer.get("ok") is not True:
            log.warning("watchdog: %s", answer.get("error"))
        elif request is not None and request["op"] == "attach":
            self._connected.set()
        elif request is not None:
            self._took(request)

    def _restarted(self, asked: dict[str, Any], on_restart: Callable[[dict[str, Any]], int]) -> dict[str, Any]:
        try:
            pid = on_restart({name: value for name, value in asked.items() if name not in ("op", "id")})
        except Exception as error:  # noqa: BLE001 - whatever went wrong in the event handler, the agent is told
            return {"error": f"{type(error).__name__}: {error}"}
        with self._lock:
            if self._wanted is not None and "pid" in self._wanted:
                self._wanted = {**self._wanted, "pid": pid}
        return {"pid": pid}

    def close(self) -> None:
        """Ends `serve`. What was expected stays expected: the player may well outlive the event handler."""
        self._stop.set()
        with self._lock:
            if self._attached is not None:
                with contextlib.suppress(OSError):
                    self._attached.shutdown(sockets.SHUT_RDWR)

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _lines(connection: sockets.socket, deadline: float | None) -> Iterator[dict[str, Any]]:
    """The objects that arrive until the other end closes. Raises OSError, TimeoutError after `deadline` (monotonic)."""
    received = b""
    while True:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        data = connection.recv(65_536)
        if not data or len(received) > MAX_LINE:
            return
        *lines, received = (received + data).split(b"\n")
        for line in lines:
            try:
                body = json.loads(line)
            except ValueError:
                return
            if isinstance(body, dict):
                yield body
