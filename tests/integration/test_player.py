"""The event handler infoscreen-player with real processes as players, beside a watchdog and without one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infoscreen_device import player
from infoscreen_device.client import Watchdog
from infoscreen_device.core.model import Expectation, Way
from infoscreen_device.player_commands import BUILT_IN, Commands
from infoscreen_device.schedule import Event
from infoscreen_shared.messages import EventType
from parts.control_loop import ControlLoop
from parts.wait import wait_for

SOURCE = "film one.mkv"


class Stage:
    """A player that writes down its pid and what it plays, with a child of its own, and a handler that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "control.sock"
        self.player = folder / "player.sh"
        self.started = folder / "started"
        self.started.touch()
        self.write_player("sleep 600 & echo $$ $! $1 >$0.tmp; cat $0.tmp >>${0%/*}/started; rm $0.tmp; wait")
        self.handlers: list[subprocess.Popen[bytes]] = []

    def write_player(self, script: str) -> None:
        self.player.write_text(f"#!/bin/sh\n{script}\n")
        self.player.chmod(0o755)

    def start(self, *arguments: object) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", "from infoscreen_device.player import entry; entry()", "--socket", self.socket]
        environment = os.environ | {"HOME": str(self.folder), "TZ": "UTC"}
        with (self.folder / "log").open("ab") as log:
            handler = subprocess.Popen([*map(str, [*command, *arguments])], stderr=log, env=environment)
        self.handlers.append(handler)
        return handler

    def play(self, *more: object) -> "subprocess.Popen[bytes]":
        command = f"{self.player} {{source}}"
        return self.start("--type", "video", "--event-id", 42, "--command", command, *more, f"/srv/{SOURCE}")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def plays(self, number: int) -> tuple[int, int, str]:
        """Pid, pid of the child, source of the player that was started as the `number`th (from 1)."""

        def line() -> list[str]:
            lines = self.started.read_text().splitlines()
            return lines[number - 1].split(maxsplit=2) if len(lines) >= number else []

        try:
            pid, child, source = wait_for(line, f"player {number} is started")
        except AssertionError:
            print(self.log())
            raise
        return int(pid), int(child), source

    def count(self) -> int:
        return len(self.started.read_text().splitlines())

    def end(self) -> None:
        for handler in self.handlers:
            handler.terminate()
            handler.wait(10)
        for line in self.started.read_text().splitlines():
            for pid in line.split()[:2]:
                if lives(int(pid)):
                    os.kill(int(pid), signal.SIGKILL)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(*pids: int) -> Callable[[], bool]:
    return lambda: not any(map(lives, pids))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    try:
        yield stage
    finally:
        stage.end()


@pytest.fixture
def watchdog(stage: Stage) -> Iterator[ControlLoop]:
    with ControlLoop(stage.socket) as loop:
        yield loop


def last(loop: ControlLoop, count: int) -> Expectation:
    """The expectation after `count` messages."""
    wait_for(lambda: len(loop.expectations) >= count, f"the watchdog was told {count} times")
    expectation = loop.expectations[count - 1]
    assert expectation is not None
    return expectation


def test_it_plays_and_tells_the_watchdog(stage: Stage, watchdog: ControlLoop) -> None:
    stage.play()
    pid, _, source = stage.plays(1)
    assert source == f"/srv/{SOURCE}"
    told = last(watchdog, 1)
    assert (told.process, told.event_id, told.event_type, told.pid) == ("player.sh", 42, EventType.VIDEO, pid)
    assert told.restart.way is Way.HANDLER
    assert Path(f"/proc/{pid}/comm").read_text() == "player.sh\n", "the wrapper is not to be seen"
    assert os.getsid(pid) == pid


def test_sigterm_ends_the_player_and_its_children_and_nothing_is_expected(stage: Stage, watchdog: ControlLoop) -> None:
    handler = stage.play()
    pid, child, _ = stage.plays(1)
    last(watchdog, 1)
    handler.terminate()
    assert handler.wait(5) == 0
    assert gone(pid, child)()
    assert watchdog.expectations[-1] is None


def test_the_watchdog_asks_for_a_restart(stage: Stage, watchdog: ControlLoop) -> None:
    stage.play()
    pid, child, _ = stage.plays(1)
    told = last(watchdog, 1)
    wait_for(lambda: watchdog.of("attach"), "the handler is attached")
    os.kill(pid, signal.SIGKILL)
    wait_for(gone(pid), "the player is dead")
    watchdog.ask_restart(told, 7)
    new, _, _ = stage.plays(2)
    wait_for(lambda: watchdog.of("restarted"), "the handler answers")
    assert watchdog.of("restarted")[0].body == {"id": 7, "pid": new}
    assert gone(child)(), "the dead player's child is no orphan"
    assert last(watchdog, len(watchdog.expectations)).pid == new
    watchdog.ask_restart(told, 8)
    wait_for(lambda: len(watchdog.of("restarted")) == 2, "the handler answers")
    assert watchdog.of("restarted")[1].body == {"id": 8, "pid": new}, "a request that crossed starts no second player"


def test_a_stopped_player_is_replaced_when_the_watchdog_asks(stage: Stage, watchdog: ControlLoop) -> None:
    stage.play()
    pid, child, _ = stage.plays(1)
    told = last(watchdog, 1)
    wait_for(lambda: watchdog.of("attach"), "the handler is attached")
    os.kill(pid, signal.SIGSTOP)
    old_enough = time.monotonic() + player.JUST_STARTED_S
    wait_for(lambda: time.monotonic() > old_enough, "the player is no longer new")
    watchdog.ask_restart(told, 1)
    stage.plays(2)
    wait_for(gone(pid, child), "the old player is gone")


def test_it_does_not_restart_what_the_watchdog_looks_after(stage: Stage, watchdog: ControlLoop) -> None:
    stage.play()
    pid, _, _ = stage.plays(1)
    last(watchdog, 1)
    wait_for(lambda: watchdog.of("attach"), "the handler is attached")
    os.kill(pid, signal.SIGKILL)
    # Longer than the handler's own first wait.
    with pytest.raises(AssertionError):
        wait_for(lambda: stage.count() > 1, "", timeout=1.6)


def test_without_a_watchdog_it_restarts_by_itself_and_tells_it_when_it_comes(stage: Stage) -> None:
    stage.play()
    first, child, _ = stage.plays(1)
    os.kill(first, signal.SIGKILL)
    second, _, _ = stage.plays(2)
    assert gone(first, child)()
    with ControlLoop(stage.socket) as loop:
        assert last(loop, 1).pid == second


def test_a_refused_expectation_leaves_the_restarts_to_the_handler(stage: Stage, watchdog: ControlLoop) -> None:
    watchdog.refuse = True
    stage.play()
    pid, _, _ = stage.plays(1)
    wait_for(lambda: watchdog.of("attach"), "the handler is attached")
    os.kill(pid, signal.SIGKILL)
    stage.plays(2)


def test_a_killed_handler_leaves_no_player_behind(stage: Stage) -> None:
    handler = stage.play()
    pid, _, _ = stage.plays(1)
    handler.kill()
    handler.wait()
    wait_for(gone(pid), "the player ended with its handler")


def event(number: int, source: str, **more: object) -> dict[str, object]:
    return {"id": number, "type": "video", "source": source} | more


def write(path: Path, *events: dict[str, object]) -> Path:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"events": events}))
    return fresh.replace(path)


def scheduled(stage: Stage, *events: dict[str, object]) -> "subprocess.Popen[bytes]":
    path = write(stage.folder / "schedule.json", *events)
    return stage.start("--schedule", path, "--command", f"{stage.player} {{source}}")


def test_the_schedule_switches_and_the_old_player_is_gone_before(stage: Stage, watchdog: ControlLoop) -> None:
    start = datetime.now(UTC) + timedelta(seconds=2)
    end = start + timedelta(hours=1)
    times = {"start": start.time().isoformat("seconds"), "end": end.time().isoformat("seconds")}
    scheduled(stage, event(2, "/srv/b", **times), event(1, "/srv/a"))
    pid, child, source = stage.plays(1)
    assert source == "/srv/a"
    new, _, source = stage.plays(2)
    assert source == "/srv/b"
    assert gone(pid, child)()
    wait_for(lambda: len(watchdog.expectations) >= 3, "the watchdog was told")
    ids = [told and told.event_id for told in watchdog.expectations]
    assert ids == [1, None, 2], "the old one is called off before it ends"
    assert last(watchdog, 3).pid == new


def test_a_changed_file_is_noticed_a_wrong_one_told_and_nothing_due_is_nothing_playing(stage: Stage) -> None:
    handler = scheduled(stage, event(1, "/srv/a"))
    path = stage.folder / "schedule.json"
    pid, child, _ = stage.plays(1)
    path.write_text("{")
    handler.send_signal(signal.SIGHUP)
    wait_for(lambda: "the old schedule stays" in stage.log(), "the mistake is told")
    assert lives(pid)
    write(path, event(1, "relative"))
    handler.send_signal(signal.SIGHUP)
    assert stage.plays(2)[2] == str(stage.folder / "relative")
    write(path)
    wait_for(lambda: "nothing is due" in stage.log(), "the change is noticed without a signal")
    wait_for(gone(pid, child, stage.plays(2)[0]), "nothing plays")
    assert handler.poll() is None


def test_a_player_that_cannot_be_started_is_told_to_the_server_and_tried_again(
    stage: Stage, watchdog: ControlLoop
) -> None:
    stage.player.chmod(0o644)
    stage.play()
    wait_for(lambda: watchdog.drafts, "the record arrives")
    assert watchdog.drafts[0].level == "ERROR"
    assert "event 42 cannot be played" in watchdog.drafts[0].message
    stage.player.chmod(0o755)
    stage.plays(1)


def test_an_event_whose_player_cannot_be_started_is_tried_again_after_another_one(
    stage: Stage, watchdog: ControlLoop
) -> None:
    """The watchdog took the event before, and looks after nothing now."""
    handler = scheduled(stage, event(1, "/srv/a"))
    pid, _, _ = stage.plays(1)
    last(watchdog, 1)
    wait_for(lambda: watchdog.of("attach"), "the handler is attached")
    stage.player.chmod(0o644)
    write(stage.folder / "schedule.json", event(2, "/srv/b"))
    handler.send_signal(signal.SIGHUP)
    wait_for(lambda: "event 2 cannot be played" in stage.log(), "it says so")
    assert gone(pid)()
    stage.player.chmod(0o755)
    assert stage.plays(2)[2] == "/srv/b"
    wait_for(lambda: (told := watchdog.expectations[-1]) and told.event_id == 2, "it is expected")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "give either a FILE or URL with --type, or --schedule FILE"),
        (["a.mkv"], 2, "--type video, website or presentation is missing"),
        (["--type", "video", "--schedule", "x", "a.mkv"], 2, "give either"),
        (["--schedule", "/none"], 78, "/none: No such file or directory"),
        (["--type", "video", "--command", "mpv", "a.mkv"], 78, "--command: does not say where {source} goes"),
        (["--type", "video", "--settings", "/none", "a.mkv"], 78, "/none: No such file"),
    ],
)
def test_wrong_arguments_are_told(stage: Stage, arguments: Sequence[str], code: int, expected: str) -> None:
    handler = stage.start(*arguments)
    assert handler.wait(10) == code
    assert expected in stage.log()


def test_a_wrong_schedule_is_told_with_file_and_place(stage: Stage) -> None:
    handler = scheduled(stage, {"id": 1, "type": "vidoe"})
    assert handler.wait(10) == 78
    path = stage.folder / "schedule.json"
    assert f"{path}: events[0].type: expected one of video, website, presentation (did you mean video?)" in stage.log()
    assert f"{path}: events[0].source: is missing" in stage.log()


def test_help_explains_the_schedule(stage: Stage) -> None:
    command = [sys.executable, "-c", "from infoscreen_device.player import main; main(['--help'])"]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    for word in ("--schedule", "--command", "--await-screen", "{source}", '"weekdays"', "SIGHUP"):
        assert word in text


def test_beside_the_real_agent(stage: Stage) -> None:
    """kill -9 of the player: the agent notices, asks, and watches the new one; no broker is there."""
    config = stage.folder / "config.toml"
    config.write_text(
        f'state_dir = "{stage.folder}/state"\nbroker.url = ""\ncontrol.socket = "{stage.socket}"\n'
        "restart.backoff_first_s = 0.1\n"
    )
    program = "from infoscreen_device.cli import entry; entry()"
    command = [sys.executable, "-c", program, "run", "--config", str(config)]
    with (stage.folder / "agent.log").open("wb") as log:
        agent = subprocess.Popen(command, stderr=log)
    try:
        client = Watchdog(str(stage.socket))
        stage.play()
        first, child, _ = stage.plays(1)

        def watched(pid: int) -> Callable[[], bool]:
            def is_watched() -> bool:
                seen = (client.status() or {}).get("player") or {}
                return seen.get("pid") == pid and seen.get("status") == "running"

            return is_watched

        wait_for(watched(first), "the agent watches the player")
        os.kill(first, signal.SIGKILL)
        second, _, _ = stage.plays(2)
        wait_for(watched(second), "the agent watches the new player")
        assert gone(first, child)()
    finally:
        agent.terminate()
        agent.wait(10)


class Compositor:
    """No picture, only the socket that tells a session."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "wayland-0"

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen(100)

    def kill(self) -> None:
        self.socket.close()


@pytest.fixture
def compositor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compositor]:
    made = Compositor(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DISPLAY", raising=False)
    # Without it an X server of this machine would be taken.
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    yield made
    if hasattr(made, "socket"):
        made.kill()


def test_it_waits_for_the_screen_and_nothing_is_expected_meanwhile(
    stage: Stage, watchdog: ControlLoop, compositor: Compositor
) -> None:
    stage.play("--await-screen")
    wait_for(lambda: "the player waits for it" in stage.log(), "it says so")
    wait_for(lambda: watchdog.expectations, "what was expected before cannot play either")
    assert stage.count() == 0
    compositor.start()
    pid, _, _ = stage.plays(1)
    wait_for(lambda: watchdog.expectations[-1], "the player is expected")
    assert [told and told.pid for told in watchdog.expectations if told] == [pid]


def test_a_session_that_comes_back_gets_its_player_back(
    stage: Stage, watchdog: ControlLoop, compositor: Compositor
) -> None:
    compositor.start()
    stage.play("--await-screen")
    pid, _, _ = stage.plays(1)
    told = last(watchdog, 1)
    wait_for(lambda: watchdog.of("attach"), "the handler is attached")
    compositor.kill()
    os.kill(pid, signal.SIGKILL)
    wait_for(gone(pid), "the player dies with its session")
    watchdog.ask_restart(told, 7)
    wait_for(lambda: watchdog.of("restarted"), "the handler answers")
    assert "there is no screen" in str(watchdog.of("restarted")[0].body["error"])
    assert None not in watchdog.expectations, "it is still expected: the screen should not be dark"
    compositor.start()
    new, _, _ = stage.plays(2)
    wait_for(lambda: (told := watchdog.expectations[-1]) and told.pid == new, "the new player is expected")


def test_a_screen_that_stays_away_is_told_to_the_server_once(
    stage: Stage, watchdog: ControlLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(player, "SCREEN_LOOK_S", 0.0)
    monkeypatch.setattr(player, "SCREEN_PATIENCE_S", 0.5)
    client = Watchdog(str(stage.socket))
    events = (Event(42, EventType.VIDEO, "a"),)
    handler = player.Handler(lambda: events, Commands(stage.folder), stage.folder, client, lambda: None)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        handler._turn(datetime(2026, 1, 1))  # noqa: DTZ001  # the clock on the wall
        assert time.monotonic() > end - 0.5 or not watchdog.drafts, "a session takes its time to come up"
    assert [(draft.level, draft.code) for draft in watchdog.drafts] == [("WARN", "player.no_screen")]


def test_without_waiting_a_player_needs_no_screen(stage: Stage, compositor: Compositor) -> None:
    stage.play()
    stage.plays(1)


def position(mpv: Path) -> float:
    """Seconds that mpv has played, 0 while it does not answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.settimeout(2)
            connection.connect(str(mpv))
            connection.sendall(b'{"command": ["get_property", "playback-time"]}\n')
            answer = json.loads(connection.makefile().readline())
        except (OSError, ValueError):
            return 0
    return float(answer.get("data") or 0)


def test_a_real_mpv_plays_a_real_video(stage: Stage, watchdog: ControlLoop) -> None:
    """The built-in command, on a virtual screen; one more option lets us ask how far it is."""
    mpv, settings = stage.folder / "mpv.sock", stage.folder / "player.toml"
    words = [BUILT_IN[EventType.VIDEO][0][0], f"--input-ipc-server={mpv}", *BUILT_IN[EventType.VIDEO][0][1:]]
    settings.write_text(f"commands.video = {json.dumps(words)}")
    film = stage.folder / "film.mkv"
    generate: list[str | Path] = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=320x180:rate=5:duration=2",
        film,
    ]
    subprocess.run(generate, check=True)
    reading, writing = os.pipe()
    screen = subprocess.Popen(["Xvfb", "-displayfd", str(writing), "-screen", "0", "320x180x24"], pass_fds=[writing])
    os.close(writing)
    try:
        with os.fdopen(reading) as numbers:
            display = f":{numbers.readline().strip()}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISPLAY", display)
            handler = stage.start("--type", "video", "--event-id", 1, "--settings", settings, film)
        told = last(watchdog, 1)
        assert told.process == "mpv"
        assert told.pid is not None
        wait_for(lambda: position(mpv) > 0, "mpv plays")
        handler.terminate()
        assert handler.wait(10) == 0
        assert gone(told.pid)()
    finally:
        screen.terminate()
        screen.wait(10)
