"""`infoscreen-server` as real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

from infoscreen_shared.messages import from_json
from parts.wait import answers, free_port, wait_for

COMMAND = [sys.executable, "-m", "infoscreen_server"]


class Server:
    """One verb of the command on an own port; its output is in `directory`/server.log."""

    def __init__(self, directory: Path, database_url: str, broker: str = "none", **settings: Any) -> None:
        self.port = free_port()
        self.directory = directory
        self.config = directory / "server.toml"
        self.log = directory / "server.log"
        lines = [
            f"{name} = {str(value).lower() if isinstance(value, bool) else value!r}" for name, value in settings.items()
        ]
        self.config.write_text("\n".join([f"listen_port = {self.port}", *lines]))
        self.config.chmod(0o600)
        self.environment = os.environ | {"DATABASE_URL": database_url, "MQTT_BROKER": broker}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, verb: str = "run", **environment: str) -> "Server":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, verb, "--config", self.config], stdout=log, stderr=log, env=self.environment | environment
            )
        wait_for(self._answers, "the server answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return answers(self.port) and self.request("/healthz")[0] in (200, 503)

    def call(self, *argv: str, said: str = "") -> str:
        """A short verb on the same settings, with `said` on its standard input; its standard output."""
        done = subprocess.run(
            [*COMMAND, *argv, "--config", self.config], input=said, capture_output=True, env=self.environment, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def token(self, role: str, client: str | None = None) -> str:
        return self.call("token", "add", role, "--role", role, *(["--client", client] if client else []))

    def request(
        self, path: str, token: str | None = None, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON of a GET, or of a POST where there is a body."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(f"http://127.0.0.1:{self.port}{path}", data=body, headers=named)
        try:
            with urlopen(request, timeout=20) as answer:
                return answer.status, from_json(answer.read())
        except HTTPError as error:
            with error:
                return error.code, from_json(error.read())

    def family(self) -> list[psutil.Process]:
        """All processes below the one that was started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def part(self, name: str) -> psutil.Process:
        """The process of one part of `run`."""
        assert self.process is not None
        (found,) = [each for each in psutil.Process(self.process.pid).children() if name in each.cmdline()[3:4]]
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process is not None:
            self.stop(signal.SIGKILL)
