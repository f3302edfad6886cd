"""A real mosquitto on a free port, with the configuration that we ship."""

import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from parts.wait import answers, free_port, wait_for

SHIPPED = Path(__file__).parents[2] / "packaging/mosquitto/infoscreen.conf"


class Broker:
    def __init__(self, directory: Path, port: int | None = None, extra: str = "") -> None:
        self.port = port or free_port()
        self.directory = directory
        self.store = directory / "mosquitto"
        self.extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> "Broker":
        self.store.mkdir(parents=True, exist_ok=True)
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"{SHIPPED.read_text()}\nlistener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence_location {self.store}/\nuser root\n{self.extra}\n"
        )
        with (self.directory / "mosquitto.log").open("ab") as log:
            self.process = subprocess.Popen(["mosquitto", "-c", config], stdout=log, stderr=log)
        wait_for(lambda: answers(self.port), "mosquitto answers")
        return self

    def kill(self) -> None:
        """kill -9: what it held in memory is gone."""
        self._end(hard=True)

    def stop(self) -> None:
        self._end(hard=False)

    def wipe(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)

    def _end(self, *, hard: bool) -> None:
        if self.process is not None:
            self.process.kill() if hard else self.process.terminate()
            self.process.wait(10)
            self.process = None

    def __enter__(self) -> "Broker":
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()
