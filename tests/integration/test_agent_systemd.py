"""What the agent tells systemd, read from the other end of a real NOTIFY_SOCKET."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parts.agent import Agent, Player
from parts.wait import free_port, wait_for

WATCHDOG_US = 300_000


class Systemd:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._told: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": str(WATCHDOG_US)}

    def told(self) -> list[str]:
        """All messages until now."""
        while True:
            try:
                self._told += self._socket.recv(65_536).decode().splitlines()
            except BlockingIOError:
                return self._told

    def status(self) -> str:
        return next((line for line in reversed(self.told()) if line.startswith("STATUS=")), "")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listening = Systemd(tmp_path / "notify")
    yield listening
    listening.close()


@contextmanager
def running(agent: Agent, systemd: Systemd) -> Iterator[Agent]:
    try:
        yield agent.start(**systemd.environment)
    finally:
        agent.__exit__(None, None, None)


@pytest.fixture
def player() -> Iterator[Player]:
    with Player() as made:
        yield made


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield f"mqtt://127.0.0.1:{listening.getsockname()[1]}"


def test_ready_without_a_broker_then_fed_and_a_useful_status(tmp_path: Path, systemd: Systemd, player: Player) -> None:
    with running(Agent(tmp_path, f"mqtt://127.0.0.1:{free_port()}", player=player.expected()), systemd) as agent:
        wait_for(lambda: "READY=1" in systemd.told(), "READY")
        pid = player.run(1).pid
        line = re.compile(
            rf"STATUS={player.name} running \(pid {pid}\) · screen settling · broker away · \d+ records waiting"
        )
        wait_for(lambda: line.match(systemd.status()), "STATUS tells of the player")
        fed = systemd.told().count("WATCHDOG=1")
        wait_for(lambda: systemd.told().count("WATCHDOG=1") >= fed + 3, "it is fed again and again")
        os.kill(agent.pid, signal.SIGSTOP)
        systemd.told()
        fed = systemd.told().count("WATCHDOG=1")
        silent_until = time.monotonic() + 2 * WATCHDOG_US / 1e6
        wait_for(lambda: time.monotonic() > silent_until, "twice systemd's patience is over")
        assert systemd.told().count("WATCHDOG=1") == fed, "a hung agent is not fed"
        os.kill(agent.pid, signal.SIGCONT)


def test_a_loop_that_hangs_feeds_nobody(tmp_path: Path, systemd: Systemd) -> None:
    """The state file is a fifo that nobody reads: what hangs there must not be the loop, or systemd has to know."""
    with running(Agent(tmp_path), systemd) as agent:
        wait_for(lambda: "READY=1" in systemd.told(), "READY")
        fed = systemd.told().count("WATCHDOG=1")
        state = agent.state_dir / "watchdog.json"
        state.unlink(missing_ok=True)
        os.mkfifo(state.with_suffix(".new"))
        agent.client.expect("nothing-of-this-name", event_id=1, type="video")
        wait_for(lambda: systemd.told().count("WATCHDOG=1") >= fed + 3, "the loop goes on beside a file that hangs")
        assert agent.status()["player"]["process"] == "nothing-of-this-name"


@pytest.mark.parametrize("broker", ["none", "silent"])
def test_sigterm_ends_it_within_two_seconds_and_loses_nothing(
    tmp_path: Path, systemd: Systemd, silent_broker: str, player: Player, broker: str
) -> None:
    url = silent_broker if broker == "silent" else ""
    slow = dict.fromkeys(("warn", "info", "debug"), 600)
    with running(Agent(tmp_path, url, player=player.expected(), outbox={"deadline_s": slow}), systemd) as agent:
        player.run(1)
        for number in range(20):
            agent.client.log("WARN", f"late {number}", code="x.y")
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < 2, "DESIGN: SIGTERM stops within 2 s"
        assert "STOPPING=1" in systemd.told()
        assert [record["message"] for record in agent.records("x.y")] == [f"late {number}" for number in range(20)]
        assert agent.codes()[-1] == "agent.stopped"
        assert player.living(), "the player plays on"
        assert json.loads((agent.state_dir / "watchdog.json").read_text())
