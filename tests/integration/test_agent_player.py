"""The main promise, on real processes: however a player ends, it is seen, told once, and brought back within bounds."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from infoscreen_device.client import Watchdog
from infoscreen_device.probes.process import key_of
from infoscreen_device.watch import POLL_S
from infoscreen_shared.messages import parse_timestamp
from parts.agent import LIVES, PLAYER_USER, Agent, Player, is_named, lives
from parts.wait import wait_for

PR_SET_NAME = 15
NEVER = 3600


@pytest.fixture
def player() -> Iterator[Player]:
    with Player() as made:
        yield made


def restarted(agent: Agent, player: Player, number: int = 2) -> int:
    """Waits for this start of the player, and until the agent sees it running; its pid."""
    return agent.plays(player.run(number).pid)


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        ("kill -KILL $$", "player.crashed", {"signal": 9}),
        ("kill -SEGV $$", "player.crashed", {"signal": 11}),
        ("exit 1", "player.crashed", {"exit_code": 1}),
        ("exit 0", "player.exited", {"exit_code": 0}),
    ],
)
def test_an_end_is_told_as_what_it_was(
    tmp_path: Path, player: Player, end: str, code: str, told: dict[str, Any]
) -> None:
    gate = player.folder / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    player.write(f"started\nread -r _ <{gate}\n{end}")
    with Agent(tmp_path, player=player.expected(event_id=42, type="video")) as agent:
        first = agent.plays(player.run(1).pid)
        gate.write_text("now\n")
        second = restarted(agent, player)
        (record,) = agent.said(code)
        context = record["context"]
        assert context["pid"] == first
        assert context["event_id"] == 42
        assert {name: context.get(name) for name in told} == told
        assert second != first
        _first_start, restarting = agent.records("player.restarting")
        died_at = parse_timestamp(record["timestamp"]) - timedelta(seconds=context["after_s"])
        assert died_at <= parse_timestamp(restarting["timestamp"]), "whenever the record of it was made"
        assert agent.records()[-1]["timestamp"] >= record["timestamp"]


def test_children_of_the_player_do_not_survive_it(tmp_path: Path, player: Player) -> None:
    """One in its process group, one in a session of its own, as Chromium's zygote and a player's helper are."""
    other = player.folder / "other"
    player.write(f"setsid sleep 600 & echo $! >{other}; {LIVES}")
    other.touch()
    other.chmod(0o666)
    with Agent(tmp_path, player=player.expected()) as agent:
        first = player.run(1)
        agent.plays(first.pid)
        seen = agent.status()["uptime_s"]
        # Who its children are is looked at when it is found, and again then: only a living process can be asked.
        wait_for(lambda: agent.status()["uptime_s"] > seen + POLL_S + 0.5, "the agent has looked at it once more")
        stranger = int(other.read_text())
        os.kill(first.pid, signal.SIGKILL)
        restarted(agent, player)
        wait_for(lambda: not is_named(first.child, "sleep"), "the child in its group is gone")
        wait_for(lambda: not is_named(stranger, "sleep"), "so is the one in another session")
        second = player.run(2)
        assert is_named(second.child, "sleep"), "the new player's child is left alone"


def test_a_zombie_is_dead(tmp_path: Path, player: Player) -> None:
    """Its parent never takes note of its end, as some kiosk scripts do; it is replaced all the same."""
    pids: list[int] = []

    def negligent_parent() -> None:
        pids.append(os.posix_spawn(str(player.program), [str(player.program)], os.environ))

    player.write(LIVES)
    with Agent(tmp_path) as agent:
        negligent_parent()
        first = player.run(1)
        agent.client.expect(player.name, pid=first.pid, user=PLAYER_USER, restart=[str(player.program)])
        agent.plays(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        state = Path(f"/proc/{first.pid}/stat")
        wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z", "it is a zombie")
        restarted(agent, player)
        assert state.exists(), "it was replaced while it was still a zombie"
    os.waitpid(pids[0], 0)


def test_a_stopped_player_is_told_and_replaced_after_its_time(tmp_path: Path, player: Player) -> None:
    with Agent(tmp_path, player=player.expected(), restart={"stopped_after_s": 1}) as agent:
        first = player.run(1)
        agent.plays(first.pid)
        os.kill(first.pid, signal.SIGSTOP)
        agent.explained(lambda: agent.status()["player"]["status"] == "stopped", "it is seen as stopped")
        (record,) = agent.said("player.stopped")
        assert record["level"] == "WARN"
        restarted(agent, player)
        wait_for(lambda: not lives(first.pid), "the stopped one is gone")
        wait_for(lambda: not is_named(first.child, "sleep"), "and its child")


def test_a_stopped_player_that_goes_on_is_the_same_player(tmp_path: Path, player: Player) -> None:
    with Agent(tmp_path, player=player.expected(), restart={"stopped_after_s": NEVER}) as agent:
        first = agent.plays(player.run(1).pid)
        os.kill(first, signal.SIGSTOP)
        agent.said("player.stopped")
        os.kill(first, signal.SIGCONT)
        agent.plays(first)
        assert len(player.runs()) == 1


# --- which process it is ----------------------------------------------------------------------------------------------


def test_a_recycled_pid_is_not_the_same_player(tmp_path: Path, player: Player) -> None:
    """While the agent is away the player dies, and the number that it noted is given to another program."""
    with Agent(tmp_path, player=player.expected()) as agent:
        first = agent.plays(player.run(1).pid)
        key = key_of(first)
        assert key is not None
        wait_for(lambda: f'"pid":{first}' in state_of(agent), "what it holds is on disk")
        agent.kill()
        os.kill(first, signal.SIGKILL)
        # Two processes of one number differ in when they began, which the kernel tells in hundredths of a second.
        wait_for(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) * 100 > key.started + 1, "the next of them")
        stranger = subprocess.Popen(["sleep", "600"])
        try:
            noted = state_of(agent).replace(f'"pid":{first}', f'"pid":{stranger.pid}')
            (agent.state_dir / "watchdog.json").write_text(noted)
            agent.start()
            restarted(agent, player)
            (told,) = agent.said("player.exited")
            assert told["context"]["pid"] == stranger.pid
            assert stranger.poll() is None, "whoever has the number now is left alone"
        finally:
            stranger.kill()
            stranger.wait()


def test_a_name_that_is_part_of_another_ones_is_not_it(tmp_path: Path, player: Player) -> None:
    """`mpv` is neither `mpv-helper` nor a shell that speaks of mpv; beyond 15 characters a name counts whole."""
    longer = player.folder / f"{player.name}-helper"
    shutil.copy("/bin/sleep", longer)
    near = subprocess.Popen([longer, "600"])
    speaks_of_it = subprocess.Popen(["sh", "-c", "sleep 600; : $0", player.name])
    try:
        with Agent(tmp_path, restart={"start_timeout_s": 0.5}) as agent:
            agent.client.expect(player.name)
            agent.said("player.missing")
            assert agent.status()["player"]["pid"] is None
            agent.client.expect(longer.name)
            agent.plays(near.pid)
    finally:
        for process in (near, speaks_of_it):
            process.kill()
            process.wait()


def test_a_player_that_renames_itself_is_still_held(tmp_path: Path) -> None:
    """Held by its pidfd, not by its name: some players set thread titles."""
    libc = ctypes.CDLL(None)
    assert libc is not None
    program = (
        "import ctypes, sys\n"
        "sys.stdin.readline()\n"
        f"ctypes.CDLL(None).prctl({PR_SET_NAME}, b'another', 0, 0, 0)\n"
        "print('done', flush=True)\n"
        "sys.stdin.readline()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with Agent(tmp_path) as agent:
            agent.client.expect("python3", pid=process.pid)
            agent.plays(process.pid)
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"done\n"
            agent.plays(process.pid)
            process.kill()
            process.wait()
            agent.said("player.crashed")
    finally:
        process.kill()
        process.communicate()


# --- restarts that go wrong -------------------------------------------------------------------------------------------


def test_a_crash_loop_uses_up_its_budget_is_told_once_and_tried_slowly(tmp_path: Path, player: Player) -> None:
    player.write("started\nexit 3")
    with Agent(tmp_path, player=player.expected(), restart={"max_restarts": 3, "slow_retry_s": 1}) as agent:
        player.run(7)
        # How it is told depends on whether it lived long enough to be seen; that it is, does not.
        agent.explained(lambda: len(ends(agent)) >= 6, "each end is told")
        assert all("status 3" in record["message"] for record in ends(agent))
        (gave_up,) = agent.records("player.gave_up")
        assert gave_up["level"] == "ERROR"
        assert gave_up["message"].startswith(f"Max restart attempts exceeded for {player.name} (3 in ")
        starts = [run.uptime for run in player.runs()]
        slow = [later - sooner for sooner, later in pairwise(starts[4:])]
        assert all(wait > 0.95 for wait in slow), starts
        player.write(LIVES)
        living = restarted(agent, player, len(player.runs()) + 1)
        assert lives(living), "it is mended, and the slow retry finds out"
        assert len(agent.records("player.gave_up")) == 1


def ends(agent: Agent) -> list[dict[str, Any]]:
    return [record for record in agent.records() if record.get("code") in {"player.crashed", "player.restart_failed"}]


def test_a_budget_that_is_used_up_stays_so_over_a_restart_of_the_agent(tmp_path: Path, player: Player) -> None:
    player.write("started\nexit 3")
    slow = {"max_restarts": 2, "slow_retry_s": NEVER}
    with Agent(tmp_path, player=player.expected(), restart=slow) as agent:
        agent.said("player.gave_up")
        count = len(player.runs())
        for number in (signal.SIGTERM, signal.SIGKILL):
            agent.explained(lambda: '"gave_up":true' in state_of(agent), "the budget is on disk")
            agent.stop(number)
            agent.start()
            agent.explained(lambda: agent.status()["player"]["status"] == "crashed", "it still holds it for crashed")
        assert len(player.runs()) == count
        assert len(agent.records("player.gave_up")) == 1


def state_of(agent: Agent) -> str:
    path = agent.state_dir / "watchdog.json"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/bin/false"], "/bin/false ended with status 1"),
        (["/bin/sh", "-c", "kill -9 $$"], "ended with signal 9"),
        (["/no/such/player"], "/no/such/player"),
        (["/bin/sleep", "600"], "did not start within 1 s"),
        (["/bin/true"], "was not seen within 1 s"),
    ],
    ids=["fails", "is killed", "is not there", "hangs", "starts nothing"],
)
def test_a_restart_command_that_does_not_help(tmp_path: Path, player: Player, command: list[str], why: str) -> None:
    """Each attempt is told with its reason and counted; nothing of it stays behind."""
    short = {"max_restarts": 2, "slow_retry_s": NEVER, "command_timeout_s": 1, "start_timeout_s": 1}
    with Agent(tmp_path, player=player.expected(restart=command), restart=short) as agent:
        failed = agent.said("player.restart_failed", 2)
        assert all(why in record["message"] for record in failed), failed
        agent.said("player.gave_up")
        assert not children_of(agent.pid), "no command is left running"


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split() if lives(int(child))]


def test_a_restart_command_that_forks_away(tmp_path: Path, player: Player) -> None:
    """As `player &` in a script and every daemon does: the command ends, and the player is found by its name."""
    command = ["/bin/sh", "-c", f"setsid {player.program} & exit 0"]
    with Agent(tmp_path, player=player.expected(restart=command)) as agent:
        first = agent.plays(player.run(1).pid)
        os.kill(first, signal.SIGKILL)
        second = restarted(agent, player)
        os.kill(second, signal.SIGTERM)
        restarted(agent, player, 3)
        assert [record["context"]["pid"] for record in agent.said("player.crashed", 2)] == [first, second]


def test_the_whole_tree_of_a_hung_command_is_ended(tmp_path: Path, player: Player) -> None:
    noted = player.folder / "noted"
    noted.touch()
    noted.chmod(0o666)
    command = ["/bin/sh", "-c", f"sleep 600 & echo $! >{noted}; wait"]
    short = {"max_restarts": 1, "slow_retry_s": NEVER, "command_timeout_s": 0.5}
    with Agent(tmp_path, player=player.expected(restart=command), restart=short) as agent:
        agent.said("player.restart_failed")
        wait_for(lambda: not is_named(int(noted.read_text()), "sleep"), "what it had started is gone")


# --- the agent's own restarts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_the_agents_restart_does_not_harm_the_player(tmp_path: Path, player: Player, number: int) -> None:
    with Agent(tmp_path, player=player.expected()) as agent:
        first = player.run(1)
        agent.plays(first.pid)
        wait_for(lambda: f'"pid":{first.pid}' in state_of(agent), "what it holds is on disk")
        agent.stop(number)
        assert lives(first.pid)
        agent.start()
        agent.plays(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        restarted(agent, player)
        wait_for(lambda: not is_named(first.child, "sleep"), "its child is known to the new agent too")
        assert len(player.runs()) == 2


def test_a_player_that_died_while_the_agent_was_away_comes_back(tmp_path: Path, player: Player) -> None:
    with Agent(tmp_path, player=player.expected()) as agent:
        first = agent.plays(player.run(1).pid)
        wait_for(lambda: f'"pid":{first}' in state_of(agent), "what it holds is on disk")
        agent.kill()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: not lives(first), "it is dead")
        agent.start()
        restarted(agent, player)
        assert agent.said("player.exited")[0]["context"]["pid"] == first, "how it ended nobody knows any more"


def test_an_announced_expectation_survives_the_agent(tmp_path: Path, player: Player) -> None:
    with Agent(tmp_path) as agent:
        command = [str(player.program)]
        agent.client.expect(player.name, event_id=7, type="website", user=PLAYER_USER, restart=command)
        first = restarted(agent, player, 1)
        wait_for(lambda: f'"pid":{first}' in state_of(agent), "it is on disk")
        agent.kill()
        agent.start()
        agent.plays(first)
        status = agent.status()
        assert status["expectation"]["event_id"] == 7
        os.kill(first, signal.SIGKILL)
        restarted(agent, player)


# --- whose rights, and who restarts -----------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a player as somebody else")
def test_a_player_has_its_users_rights_and_none_of_the_agents_settings(tmp_path: Path, player: Player) -> None:
    agent = Agent(tmp_path, player=player.expected())
    with agent.start(MQTT_BROKER="mqtt://127.0.0.1:1", CLIENT_UUID="5d0b6a0e-8a43-4c5e-9d0f-0f3b1c2d4e5f"):
        pid = agent.plays(player.run(1).pid)
        facts = Path(f"/proc/{pid}/status").read_text()
        assert "\nUid:\t65534\t65534\t65534\t65534\n" in facts
        assert "\nGid:\t65534\t65534\t65534\t65534\n" in facts
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"MQTT_BROKER" not in environment
        assert b"CLIENT_UUID" not in environment
        assert b"USER=nobody\0" in environment
        open_files = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [path for path in open_files if str(tmp_path / "state") in path], "none of its files either"


def test_a_connected_event_handler_is_asked_and_answers_with_the_new_pid(tmp_path: Path, player: Player) -> None:
    asked: list[dict[str, Any]] = []
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        started.append(subprocess.Popen([player.program]))
        return started[-1].pid

    def on_restart(request: dict[str, Any]) -> int:
        asked.append(request)
        return start()

    with Agent(tmp_path) as agent, Watchdog(str(agent.socket)) as handler:
        serving = threading.Thread(target=handler.serve, args=(on_restart,))
        serving.start()
        try:
            wait_for(lambda: handler.connected, "the handler is connected")
            first = start()
            assert handler.expect(player.name, event_id=9, pid=first, restart="handler")
            agent.plays(first)
            # It is seen as soon as it is there; killed before it has noted its start, the next would be the first.
            assert player.run(1).pid == first
            os.kill(first, signal.SIGKILL)
            started[0].wait()
            second = restarted(agent, player)
            assert second == started[1].pid
            assert asked[0]["event_id"] == 9
        finally:
            handler.close()
            serving.join(10)
            for process in started:
                process.kill()
                process.wait()


def test_restarting_nothing_is_watching_and_telling(tmp_path: Path, player: Player) -> None:
    process = subprocess.Popen([player.program])
    try:
        with Agent(tmp_path).start(WATCHDOG_ENABLED="false") as agent:
            agent.client.expect(player.name, pid=process.pid, user=PLAYER_USER, restart=[str(player.program)])
            agent.plays(process.pid)
            process.kill()
            process.wait()
            agent.said("player.crashed")
            assert agent.status()["player"]["status"] == "crashed"
            assert not agent.records("player.restarting")
    finally:
        process.kill()
        process.wait()


def test_max_restarts_of_the_environment_wins(tmp_path: Path, player: Player) -> None:
    player.write("started\nexit 3")
    tight = {"max_restarts": 9, "slow_retry_s": NEVER}
    with Agent(tmp_path, player=player.expected(), restart=tight).start(MAX_RESTARTS="1") as agent:
        (gave_up,) = agent.said("player.gave_up")
        assert "(1 in " in gave_up["message"]
