"""What systemd is told (sd_notify(3)). Without NOTIFY_SOCKET nothing is told, and nothing is missing."""

import logging
from collections.abc import Mapping
from importlib import import_module
from typing import Any

daemon: Any
try:
    # By name, for a type checker takes the folder of our unit files (device/systemd) for this package.
    daemon = import_module("systemd.daemon")
except ImportError:  # pragma: no cover - Debian has python3-systemd, and the agent depends on it
    daemon = None

log = logging.getLogger(__name__)

OWN_VARIABLES = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "SYSTEMD_EXEC_PID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "CREDENTIALS_DIRECTORY",
        "STATE_DIRECTORY",
        "RUNTIME_DIRECTORY",
        "MAINPID",
    }
)
"""What systemd gives to this service alone. A player that inherited NOTIFY_SOCKET could speak in the agent's name."""


class Notifier:
    """`watchdog_s` is how often systemd wants to hear from us at the least, None for never."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._active = daemon is not None and bool(environ.get("NOTIFY_SOCKET"))
        self._status = ""
        self.watchdog_s = _watchdog_s(environ, pid) if self._active else None

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Asks for so much more time to start or stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def status(self, line: str) -> None:
        """One line for `systemctl status`; sent when it changed."""
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def _send(self, message: str) -> None:
        if not self._active:
            return
        try:
            # The variable stays in our own environment for the next message; `child_environment` leaves it out.
            daemon.notify(message)
        except OSError as error:
            log.debug("systemd was not told %s: %s", message, error)


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """WatchdogSec= of the unit in seconds (sd_watchdog_enabled(3))."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or int(microseconds) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / 1e6
