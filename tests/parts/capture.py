"""The capture helper as a process, and the agent's side of the socket for it, without an agent."""

import json
import os
import re
import select
import signal
import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from parts.screens import PYTHON, Screen
from parts.wait import wait_for

ENTRY = "from infoscreen_device.screen.helper import entry; entry()"


class Capture:
    """A helper of the screen's user that is attached, and whoever asks it for looks."""

    def __init__(self, screen: Screen, code: Path, *options: object, **environment: str) -> None:
        self.screen, self.code = screen, code
        self.path = screen.folder / "control.sock"
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.path.chmod(0o666)
        self.listener.listen(5)
        self.listener.settimeout(20)
        self.helper = screen.start(
            *(PYTHON, "-c", ENTRY, "--socket", self.path, *options), PYTHONPATH=str(code), **environment
        )
        self.number = 0
        self.agent: socket.socket | None = None
        try:
            self.attached = self.attach()
        except OSError:
            self.listener.close()
            raise AssertionError((screen.folder / "log").read_text()) from None

    def attach(self, answer: dict[str, Any] | None = None) -> dict[str, Any]:
        """Takes the helper in; returns its first words."""
        self.hang_up()
        self.agent, _ = self.listener.accept()
        self.agent.settimeout(30)
        self.received, self.fds = b"", list[int]()
        said = self.line()
        self.say(answer or {"ok": True})
        return said

    def hang_up(self) -> None:
        if self.agent is not None:
            self.agent.close()
            self.agent = None

    def say(self, body: object) -> None:
        assert self.agent is not None
        self.agent.sendall(json.dumps(body).encode() + b"\n")

    def line(self) -> dict[str, Any]:
        assert self.agent is not None
        while b"\n" not in self.received:
            try:
                data, fds, _flags, _address = socket.recv_fds(self.agent, 65_536, 4)
            except TimeoutError:
                raise AssertionError((self.screen.folder / "log").read_text()) from None
            self.fds += fds
            assert data, "the helper hung up"
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        body: dict[str, Any] = json.loads(line)
        return body

    def ask(self, **asked: Any) -> int:
        self.number += 1
        self.say({"op": "look", "id": self.number, "interval_s": 0.2, **asked})
        return self.number

    def has_answered(self) -> bool:
        assert self.agent is not None
        return bool(self.received) or bool(select.select([self.agent], [], [], 0)[0])

    def answer(self) -> tuple[dict[str, Any], list[bytes]]:
        """The next answer and its pictures."""
        answer = self.line()
        pictures = []
        for told in answer["pictures"]:
            with os.fdopen(self.fds.pop(0), "rb") as file:
                pictures.append(file.read())
            assert len(pictures[-1]) == told["bytes"]
        return answer, pictures

    def look(self, **asked: Any) -> dict[str, Any]:
        """What was seen: the fields of a Burst."""
        burst, _ = self.look_with_pictures(**asked)
        return burst

    def look_with_pictures(self, **asked: Any) -> tuple[dict[str, Any], list[bytes]]:
        number = self.ask(**asked)
        answer, pictures = self.answer()
        assert answer["id"] == number
        assert "burst" in answer, answer
        return answer["burst"], pictures

    def blind(self, **asked: Any) -> dict[str, str]:
        """Why nothing was seen."""
        number = self.ask(**asked)
        answer, pictures = self.answer()
        assert answer["id"] == number
        assert "blind" in answer, answer
        assert pictures == []
        found: dict[str, str] = answer["blind"]
        return found

    def reason(self, **asked: Any) -> str:
        return self.blind(**asked)["reason"]

    def lives(self) -> bool:
        return self.helper.poll() is None

    def children(self) -> list[int]:
        return [
            int(pid) for pid in Path(f"/proc/{self.helper.pid}/task/{self.helper.pid}/children").read_text().split()
        ]

    def rss_kb(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.helper.pid}/status").read_text())
        assert found
        return int(found[1])

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.helper.pid}/fd").iterdir()))

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.hang_up()
        self.listener.close()
        if self.lives():
            self.helper.send_signal(signal.SIGTERM)
            assert self.helper.wait(10) == 0
        self.screen.programs.remove(self.helper)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(*pids: int) -> None:
    wait_for(lambda: all(map(is_gone, pids)), "they are gone", 5)
