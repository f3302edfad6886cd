"""The agent as a real process, and a player for it to look after."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from infoscreen_device.actions import NEVER_INHERITED
from infoscreen_device.admission import user_name
from infoscreen_device.client import Watchdog
from infoscreen_device.outbox_file import OutboxFileError, export
from infoscreen_device.probes.process import key_of
from parts.wait import T, wait_for

COMMAND = [sys.executable, "-c", "from infoscreen_device.cli import entry; entry()"]
PLAYER_USER = "nobody" if os.geteuid() == 0 else user_name(os.geteuid())
"""Whose rights players have here: never root's, and as somebody else one can only act for oneself."""
DEFAULTS: dict[str, Any] = {
    "clock": {"trusted": True},
    "outbox": {"deadline_s": dict.fromkeys(("error", "warn", "info", "debug"), 0)},
    "restart": {
        "backoff_first_s": 0.05,
        "backoff_cap_s": 0.2,
        "slow_retry_s": 1,
        "start_timeout_s": 5,
        "command_timeout_s": 5,
        "stop_timeout_s": 0.5,
    },
}
"""Short, and every record on disk at once, where `Agent.records` finds it."""


def toml(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Lines with dotted keys, which need no tables."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from toml(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name} = {json.dumps(value)}"


class Agent:
    """`infoscreen-watchdog run` with everything it has in `folder`; its journal is in `folder`/journal.

    Settings are tables: Agent(folder, restart={"stable_s": 1}); those of DEFAULTS that they do not name stay. Without a
    `broker` (a URL) there is no MQTT.
    """

    def __init__(self, folder: Path, broker: str = "", state_dir: Path | None = None, **settings: Any) -> None:
        self.folder = folder
        self.state_dir = state_dir or folder / "state"
        self.socket = folder / "control.sock"
        self.log = folder / "journal"
        self.config = folder / "config.toml"
        self.client = Watchdog(str(self.socket), strict=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.broker = broker
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Holds from the next start."""
        places = {"state_dir": str(self.state_dir), "broker": {"url": self.broker}}
        tables = places | DEFAULTS | {"control": {"socket": str(self.socket)}}
        for name, value in settings.items():
            tables[name] = tables.get(name, {}) | value if isinstance(value, Mapping) else value
        self.config.write_text("\n".join(toml(tables)) + "\n")

    def start(self, **environment: str) -> "Agent":
        """Returns when it answers."""
        self.spawn(**environment)
        wait_for(self._answers, "the agent answers", timeout=20)
        return self

    def spawn(self, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in NEVER_INHERITED}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run", "--config", str(self.config)], stderr=log, env=kept | environment
            )

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.journal()
        return Watchdog(str(self.socket)).status() is not None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # --- what it says -------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        found = self.client.status()
        assert found is not None
        return found

    def plays(self, pid: int | None = None) -> int:
        """Waits until it sees a player running (this one, if a pid is given); its pid."""

        def seen() -> int:
            player = self.status()["player"]
            runs = player["status"] == "running" and pid in (None, player["pid"])
            return int(player["pid"]) if runs else 0

        return self.explained(seen, f"player {pid or ''} is seen running")

    def journal(self) -> str:
        return self.log.read_text()

    def records(self, code: str | None = None) -> list[dict[str, Any]]:
        """What is in the outbox's file (with this code), in the order of acceptance."""
        try:
            found = [json.loads(line) for line in export(self.state_dir)]
        except OutboxFileError:
            return []
        found.sort(key=lambda record: str(record["timestamp"]))
        return [record for record in found if code in (None, record.get("code"))]

    def codes(self) -> list[str]:
        return [str(record.get("code")) for record in self.records()]

    def said(self, code: str, count: int = 1, timeout: float = 20.0) -> list[dict[str, Any]]:
        """Waits until there are `count` records with this code."""
        return self.explained(
            lambda: found if len(found := self.records(code)) >= count else [], f"{count} records {code}", timeout
        )

    def explained(self, condition: Callable[[], T], what: str, timeout: float = 20.0) -> T:
        """As `wait_for`, with the journal in the error."""
        try:
            return wait_for(condition, what, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    # --- its end ------------------------------------------------------------------------------------------------------

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def __enter__(self) -> "Agent":
        return self if self.process is not None else self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process is not None:
            self.kill()


class Run(NamedTuple):
    """One start of the player."""

    pid: int
    child: int
    uptime: float
    """When, in seconds of the boot clock, in hundredths."""


LIVES = "sleep 600 & started $!; wait"


class Player:
    """A program under a name that nothing else on the machine has, in a folder that its user may enter.

    It writes down each of its starts. `script` is what it does: `started CHILD` says that it runs, and with what child.
    """

    def __init__(self, script: str = LIVES) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="player-"))
        self.folder.chmod(0o755)
        self.name = f"p{secrets.token_hex(5)}"
        self.program = self.folder / self.name
        self.book = self.folder / "started"
        self.book.touch()
        if os.geteuid() == 0:
            shutil.chown(self.book, PLAYER_USER)
        self.write(script)

    def write(self, script: str) -> None:
        """Holds from its next start; replaced as a whole, for one that runs is still reading the old."""
        book = f'started() {{ read -r up _ </proc/uptime; echo "$$ ${{1:-0}} $up" >>{self.book}; }}'
        fresh = self.folder / "fresh"
        fresh.write_text(f"#!/bin/sh\n{book}\n{script}\n")
        fresh.chmod(0o755)
        fresh.replace(self.program)

    def expected(self, **more: Any) -> dict[str, Any]:
        """The [player] section for it: started and restarted by the agent."""
        return {"process": self.name, "user": PLAYER_USER, "restart": [str(self.program)]} | more

    def runs(self) -> list[Run]:
        lines = [line.split() for line in self.book.read_text().splitlines()]
        return [Run(int(pid), int(child), float(uptime)) for pid, child, uptime in lines]

    def run(self, number: int, timeout: float = 20.0) -> Run:
        """Waits for its start number `number`, from 1."""
        return wait_for(lambda: self.runs()[number - 1 : number], f"start {number} of the player", timeout)[0]

    def living(self) -> list[int]:
        """All processes that run its program, children included that did not take another one."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is(path)]

    def _is(self, process: Path) -> bool:
        with suppress(OSError):
            return (process / "comm").read_text().strip() == self.name and lives(int(process.name))
        return False

    def close(self) -> None:
        for _ in range(100):
            pids = [*self.living(), *(run.child for run in self.runs() if is_named(run.child, "sleep"))]
            if not pids:
                break
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def is_named(pid: int, name: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == name and lives(pid)
    return False


def lives(pid: int) -> bool:
    """A zombie does not."""
    return pid > 0 and key_of(pid) is not None
