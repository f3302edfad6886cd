"""One message on its way in a process of its own: started, watched, killed. What it does there is in sender.

The URL goes through the standard input: arguments and environment of a process can be read by others.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from infoscreen_server.i18n import lazy

DEADLINE_S = 30.0
ARGV = (sys.executable, "-m", "infoscreen_server.alerts.sender")


@dataclass(frozen=True, slots=True)
class Errand:
    url: str = field(repr=False)
    title: str = ""
    body: str = ""
    tone: str = "info"
    """One of Apprise's notification types: the colour of it."""
    cut: str = "…"
    """A line instead of what is too long for the service."""
    allow_local: bool = False
    send: bool = True
    """False: only look whether the URL is one that it could be sent to."""


@dataclass(frozen=True, slots=True)
class Failure:
    """`text` with `values`, for gettext."""

    text: str
    values: dict[str, Any] = field(default_factory=dict)
    unwanted: bool = False
    """It is this message that was refused, so that it will hardly be taken later."""

    def __str__(self) -> str:
        return self.text % self.values if self.values else self.text


TOO_SLOW = Failure(lazy("it took too long"))


class Child:
    def __init__(self, errand: Errand) -> None:
        # A file in memory: writing to a pipe could wait for the child.
        with os.fdopen(os.memfd_create("errand"), "wb+") as said:
            said.write(json.dumps(asdict(errand) | {"parent": os.getpid()}).encode())
            said.seek(0)
            # What Apprise or a crash prints may hold the URL.
            self.process = subprocess.Popen(
                ARGV, stdin=said, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0, cwd="/"
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def result(self, timeout: float | None = None) -> Failure | None:
        """How it ended, None if well. One that does not within `timeout` seconds is killed."""
        try:
            told, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return TOO_SLOW
        try:
            answer = json.loads(told)
            return None if answer is None else Failure(**answer)
        except (ValueError, TypeError):
            return Failure(lazy("the sending process ended with exit code %(code)s"), {"code": self.process.returncode})

    def kill(self) -> None:
        # What it may have started goes with it.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def run(errand: Errand, timeout: float = DEADLINE_S) -> Failure | None:
    return Child(errand).result(timeout)
