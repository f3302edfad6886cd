"""Whatever befalls the disk, players are restarted throughout, and what can be told is told."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infoscreen_device.outbox_file import stats
from parts.agent import Agent, Player
from parts.wait import wait_for

WIDE = {"max_restarts": 100}


@pytest.fixture
def player() -> Iterator[Player]:
    with Player() as made:
        yield made


def keeps_restarting(agent: Agent, player: Player, times: int = 3) -> None:
    for _ in range(times):
        count = len(player.runs())
        os.kill(agent.plays(), signal.SIGKILL)
        agent.plays(player.run(count + 1).pid)


def fill(agent: Agent, count: int) -> None:
    """Records of an event handler that talks a lot."""
    for number in range(count):
        agent.client.log("ERROR", f"{number} {os.urandom(300).hex()}", "handler.noise")


class SmallDisk:
    """A file system of its own, of 2 MB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs", folder], check=True)

    def fill(self) -> None:
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            for size in (65_536, 512):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def set(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "disk")
    yield small
    subprocess.run(["umount", "--lazy", small.folder], check=True)


def test_outbox_at_its_bound(tmp_path: Path, player: Player) -> None:
    """The most important lane alone fills it; the oldest go, and that is told with a count."""
    with Agent(tmp_path, player=player.expected(), restart=WIDE, outbox={"max_size": "1MiB"}) as agent:
        agent.plays()
        fill(agent, 4000)
        keeps_restarting(agent, player)
        agent.said("player.crashed", 3)
        agent.said("buffer.dropped")
        (errors,) = [lane for lane in stats(agent.state_dir)["lanes"] if lane["level"] == "ERROR"]
        kept = [record for record in agent.records() if record["level"] == "ERROR"]
        assert 0 < len(kept) == errors["records"] == errors["next"] - 1 - errors["base"]
        assert errors["next"] - 1 >= 4000
        assert (agent.state_dir / "outbox.db").stat().st_size <= 2**20 * 1.1


def test_disk_full_while_it_runs_and_room_again(tmp_path: Path, player: Player, disk: SmallDisk) -> None:
    state = disk.folder / "state"
    with Agent(tmp_path, state_dir=state, player=player.expected(), restart=WIDE) as agent:
        agent.plays()
        disk.fill()
        fill(agent, 200)
        keeps_restarting(agent, player)
        assert agent.status()["outbox"]["trouble"], "status tells of it"
        (disk.folder / "ballast").unlink()
        keeps_restarting(agent, player)
        agent.said("player.crashed", 6, timeout=60)
        agent.explained(lambda: not agent.status()["outbox"]["trouble"], "status tells that it is over")


def test_disk_full_from_the_start(tmp_path: Path, player: Player, disk: SmallDisk) -> None:
    state = disk.folder / "state"
    state.mkdir()
    disk.fill()
    with Agent(tmp_path, state_dir=state, player=player.expected(), restart=WIDE) as agent:
        keeps_restarting(agent, player)


@pytest.mark.parametrize("when", ["from the start", "while it runs"])
def test_read_only(tmp_path: Path, player: Player, disk: SmallDisk, when: str) -> None:
    """As the kernel leaves a card that went bad, and as an image is that has no writable partition."""
    state = disk.folder / "state"
    state.mkdir()
    agent = Agent(tmp_path, state_dir=state, player=player.expected(), restart=WIDE)
    if when == "from the start":
        disk.set("ro")
    with agent.start():
        agent.plays()
        if when == "while it runs":
            # A file open for writing would keep the file system writable; the kernel does not ask after an I/O error.
            agent.kill()
            disk.set("ro")
            agent.start()
        keeps_restarting(agent, player)
        assert agent.status()["outbox"]["trouble"]
        agent.stop()
    disk.set("rw")
    with agent:
        keeps_restarting(agent, player, 1)
        agent.said("player.restarting")


def harm(path: Path, damage: str) -> None:
    if damage == "removed":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size // 3)
    else:
        with path.open("r+b") as file:
            for place in range(100, path.stat().st_size, 4096):
                file.seek(place)
                file.write(b"\x5a" * 500)


@pytest.mark.parametrize("damage", ["overwritten", "truncated", "removed"])
def test_outbox_damaged_under_the_running_agent(tmp_path: Path, player: Player, damage: str) -> None:
    with Agent(tmp_path, player=player.expected(), restart=WIDE) as agent:
        agent.plays()
        fill(agent, 200)
        files = [agent.state_dir / name for name in ("outbox.db", "outbox.db-wal")]
        wait_for(lambda: sum(file.stat().st_size for file in files) > 100_000, "there is something to damage")
        for path in files:
            harm(path, damage)
        fill(agent, 50)
        keeps_restarting(agent, player)
        agent.kill()
        agent.start()
        keeps_restarting(agent, player)
        agent.said("player.crashed")


def test_state_file_that_cannot_be_written(tmp_path: Path, player: Player) -> None:
    """The budget is in memory then, and just as strict."""
    agent = Agent(tmp_path, player=player.expected(), restart={"max_restarts": 2, "slow_retry_s": 3600})
    (agent.state_dir / "watchdog.json").mkdir(parents=True)
    with agent:
        agent.plays()
        keeps_restarting(agent, player, 2)
        os.kill(agent.plays(), signal.SIGKILL)
        agent.said("player.gave_up")
        assert "watchdog.json cannot be written" in agent.journal()
        assert json.loads(json.dumps(agent.status()))["player"]["status"] == "crashed"
        assert agent.journal().count("cannot be written") == 1
