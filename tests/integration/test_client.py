"""The Python client: what it sends, and that an agent that is away, silent or mad never breaks the event handler."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infoscreen_device import client as module
from infoscreen_device.client import Watchdog, WatchdogAwayError, WatchdogError
from infoscreen_device.core.model import Draft, Expectation, Restart, Way
from infoscreen_shared.messages import EventType, LogLevel
from parts.control_loop import STATUS, ControlLoop
from parts.wait import wait_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def loop(path: Path) -> Iterator[ControlLoop]:
    with ControlLoop(path) as running:
        yield running


def serving(watchdog: Watchdog, on_restart: Any) -> threading.Thread:
    thread = threading.Thread(target=watchdog.serve, args=(on_restart,))
    thread.start()
    return thread


def test_every_call_arrives(loop: ControlLoop, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in module.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":7")
    watchdog = Watchdog(str(path))
    assert watchdog.expect("vlc", event_id=42, type="video", pid=os.getpid(), restart="handler", cmdline=["vlc", "a"])
    assert watchdog.clear()
    assert watchdog.log("WARN", "no signal", "tv.off", {"input": 2})
    assert watchdog.status() == STATUS
    assert loop.expectations == [
        Expectation(
            "vlc",
            42,
            EventType.VIDEO,
            os.getpid(),
            ("vlc", "a"),
            restart=Restart(Way.HANDLER, environment=(("DISPLAY", ":7"),)),
            source=f"uid:{os.geteuid()}",
        ),
        None,
    ]
    assert loop.drafts == [Draft(LogLevel.WARN, "tv.off", "no signal", {"input": 2})]


def test_a_refusal_is_false_and_said_in_the_log(
    loop: ControlLoop, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Watchdog(str(path)).expect("mpv", type="vidoe") is False
    assert "did you mean video?" in caplog.text
    with pytest.raises(WatchdogError, match="did you mean video"):
        Watchdog(str(path), strict=True).expect("mpv", type="vidoe")


def test_an_agent_that_is_away_is_false_at_once(path: Path) -> None:
    watchdog = Watchdog(str(path))
    begin = time.monotonic()
    assert watchdog.expect("mpv") is False
    assert watchdog.clear() is False
    assert watchdog.log("INFO", "hello") is False
    assert watchdog.status() is None
    assert time.monotonic() - begin < 1
    with pytest.raises(WatchdogAwayError, match="No such file"):
        Watchdog(str(path), strict=True).clear()


def test_what_is_no_json_is_false(loop: ControlLoop, path: Path) -> None:
    context: dict[str, Any] = {"when": object()}
    assert Watchdog(str(path)).log("INFO", "m", context=context) is False


def test_a_silent_agent_costs_the_time_limit_and_no_more(loop: ControlLoop, path: Path) -> None:
    loop.unanswered = True
    begin = time.monotonic()
    assert Watchdog(str(path), timeout_s=0.1).clear() is False
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("said", [b"", b"nonsense\n", b"\xff\n", b'{"ok": fal', b"[]\n"])
def test_a_mad_agent_is_false(path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(1_000)
                connection.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        assert Watchdog(str(path), timeout_s=1).clear() is False
        thread.join()


def test_a_restart_request_is_served(loop: ControlLoop, path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def restart(request: dict[str, Any]) -> int:
        asked.append(request)
        if len(asked) == 2:
            raise RuntimeError("no screen")
        return os.getpid()

    with Watchdog(str(path)) as watchdog:
        thread = serving(watchdog, restart)
        wait_for(lambda: watchdog.connected, "the handler is attached")
        loop.ask_restart(Expectation("mpv", 7, EventType.VIDEO), 1)
        wait_for(lambda: len(loop.of("restarted")) == 1, "the answer came in")
        loop.ask_restart(Expectation("mpv", 7, EventType.VIDEO), 2)
        wait_for(lambda: len(loop.of("restarted")) == 2, "the answer came in")
    thread.join(5)
    assert not thread.is_alive()
    assert asked[0] == {"event_id": 7, "type": "video", "process": "mpv"}
    bodies = [request.body for request in loop.of("restarted")]
    assert bodies == [{"id": 1, "pid": os.getpid()}, {"id": 2, "error": "RuntimeError: no screen"}]


def test_after_a_restart_of_the_agent_it_is_told_again(path: Path) -> None:
    """What was said while the agent was away is said when it comes; after a restart request with the new pid."""
    with Watchdog(str(path)) as watchdog, subprocess.Popen(["sleep", "60"]) as player:
        thread = serving(watchdog, lambda _: player.pid)
        assert watchdog.expect("mpv", event_id=1, pid=os.getpid(), restart="handler") is False
        assert not watchdog.expected
        with ControlLoop(path) as first:
            wait_for(lambda: first.expectations, "the expectation is registered")
            wait_for(lambda: watchdog.expected, "and known to be, without a second word")
            assert first.expectations[0] is not None
            assert first.expectations[0].pid == os.getpid()
            first.ask_restart(first.expectations[0], 1)
            wait_for(lambda: first.of("restarted"), "the answer came in")
            assert watchdog.expected, "the new player instead of the old one"
        wait_for(lambda: not watchdog.connected, "the loss is noticed")
        assert not watchdog.expected
        with ControlLoop(path) as second:
            wait_for(lambda: second.expectations, "the expectation is registered again")
            assert second.expectations[0] is not None
            assert second.expectations[0].pid == player.pid
        watchdog.close()
        thread.join(5)
        player.kill()


def test_it_is_known_whether_the_agent_asks_for_restarts(loop: ControlLoop, path: Path) -> None:
    with Watchdog(str(path)) as watchdog:
        assert watchdog.expect("mpv", restart="handler")
        assert not watchdog.expected, "it could not ask: nobody serves"
        thread = serving(watchdog, lambda _: 0)
        wait_for(lambda: watchdog.expected, "attached, and expected before")
        assert watchdog.clear()
        assert not watchdog.expected
        assert watchdog.expect("mpv", restart="handler")
        assert watchdog.expected
        loop.refuse = True
        assert not watchdog.expect("vlc", restart="handler")
        assert not watchdog.expected, "the agent still expects another one"
    thread.join(5)


def test_close_ends_serve_whether_or_not_the_agent_is_there(path: Path) -> None:
    watchdog = Watchdog(str(path))
    thread = serving(watchdog, lambda _: 0)
    watchdog.close()
    thread.join(5)
    assert not thread.is_alive()


def test_the_file_works_on_its_own(loop: ControlLoop, path: Path, tmp_path: Path) -> None:
    """Copied beside an event handler, with a bare Python."""
    (tmp_path / "watchdog.py").write_bytes(Path(module.__file__).read_bytes())
    program = "from watchdog import Watchdog; print(Watchdog().clear())"
    environment = {"INFOSCREEN_WATCHDOG_SOCKET": str(path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-Sc", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert loop.expectations == [None]


def test_nothing_secret_of_the_environment_is_sent(
    loop: ControlLoop, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with caplog.at_level(logging.DEBUG):
        Watchdog(str(path)).expect("mpv")
    assert set(loop.requests[0].body["environment"]) <= set(module.ENVIRONMENT)
