"""The control socket: rights, stale sockets, limits, and clients that are slow, silent, broken or hostile."""

import json
import os
import random
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infoscreen_device.control import (
    MAX_AT_ONCE,
    MAX_CONNECTIONS,
    MAX_LINE,
    MAX_PER_USER,
    ControlServer,
)
from infoscreen_device.core.model import Expectation
from infoscreen_device.settings import ControlConfig
from parts.control_loop import ControlLoop
from parts.wait import wait_for


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[ControlLoop]:
    with ControlLoop(tmp_path / "control.sock") as running:
        yield running


class Line:
    """A client that speaks the protocol by hand."""

    def __init__(self, loop: ControlLoop) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(loop.path))
        self.socket.settimeout(10)
        self.file = self.socket.makefile("rb")

    def send(self, body: object) -> None:
        self.raw(json.dumps(body).encode() + b"\n")

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.file.readline())
        return answer

    def ask(self, body: object) -> dict[str, Any]:
        self.send(body)
        return self.answer()

    def is_closed(self) -> bool:
        try:
            return self.file.readline() == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def works(loop: ControlLoop) -> bool:
    with Line(loop) as line:
        return line.ask({"op": "status"})["ok"] is True


def test_a_request_comes_with_who_sent_it(loop: ControlLoop) -> None:
    with Line(loop) as line:
        assert line.ask({"op": "status"}) == {"ok": True} | loop.status
        assert line.ask({"op": "expect", "process": "mpv"}) == {"ok": True}
    peer = loop.requests[0].peer
    assert (peer.uid, peer.gid, peer.pid) == (os.geteuid(), os.getegid(), os.getpid())
    assert loop.expectations == [Expectation("mpv", source=f"uid:{os.geteuid()}")]


def test_only_owner_and_group_may_connect(loop: ControlLoop) -> None:
    assert stat.S_IMODE(loop.path.stat().st_mode) == 0o660
    assert [path.name for path in loop.path.parent.iterdir()] == ["control.sock"]


def test_the_group_is_the_configured_one(tmp_path: Path) -> None:
    with ControlLoop(tmp_path / "control.sock", group="daemon") as loop:
        assert loop.path.group() == "daemon"


def test_a_socket_left_behind_is_replaced_and_the_own_one_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ControlLoop(path) as loop:
        assert works(loop)
    assert not path.exists()


def test_a_running_agent_is_not_pushed_aside(loop: ControlLoop) -> None:
    second = ControlServer(ControlConfig(loop.path))
    with pytest.raises(OSError, match="another agent listens there"):
        second.open()
    second.close()
    assert works(loop)


def test_something_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        ControlServer(ControlConfig(path)).open()
    assert path.read_text() == "mine"


def test_a_socket_that_somebody_else_made_meanwhile_is_not_removed(tmp_path: Path) -> None:
    server = ControlServer(ControlConfig(tmp_path / "control.sock"))
    server.open()
    (tmp_path / "control.sock").unlink()
    (tmp_path / "control.sock").write_text("other")
    server.close()
    assert (tmp_path / "control.sock").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"nonsense", "expected one JSON object a line: payload is not JSON"),
        (b"[]", "expected one JSON object a line"),
        (b"\xff\xfe", "expected one JSON object a line"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"op":"expct"}', "(did you mean expect?)"),
        (b'{"op":1}', "op: expected one of expect, clear, status, log, screen"),
        (b'{"op":"log","level":"INFO","message":"\\ud800","context":{"a":NaN}}', "NaN and Infinity are not JSON"),
        (b'{"id":1,"pid":2}', "no restart of this number has been asked for"),
    ],
)
def test_a_bad_line_is_answered_and_the_next_one_served(loop: ControlLoop, line: bytes, expected: str) -> None:
    with Line(loop) as client:
        client.raw(line + b"\n")
        answer = client.answer()
        assert answer["ok"] is False
        assert expected in answer["error"]
        assert client.ask({"op": "clear"}) == {"ok": True}


@pytest.mark.parametrize("flood", [b"x" * (MAX_LINE + 1), b"{}\n" * (MAX_AT_ONCE + 1)])
def test_too_much_at_once_ends_the_connection(loop: ControlLoop, flood: bytes) -> None:
    with Line(loop) as client:
        client.raw(flood)
        assert "requests at once" in client.answer()["error"]
        assert client.is_closed()
    assert works(loop)


def test_a_line_in_single_bytes_is_one_line(loop: ControlLoop) -> None:
    with Line(loop) as client:
        for byte in b'{"op":"status"}\n':
            client.raw(bytes([byte]))
        assert client.answer()["ok"] is True


def test_who_stops_sending_still_gets_the_answer(loop: ControlLoop) -> None:
    with Line(loop) as client:
        client.raw(b'{"op":"status"}\n')
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer()["ok"] is True
        assert client.is_closed()


def test_who_never_reads_costs_a_bounded_buffer(loop: ControlLoop) -> None:
    loop.status = {"long": "x" * 60_000}
    with Line(loop) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with pytest.raises(ConnectionError):
            for _ in range(1_000):
                client.send({"op": "status"})
        assert works(loop)


def test_silent_connections_lock_nobody_out(loop: ControlLoop) -> None:
    silent = [Line(loop) for _ in range(3 * MAX_CONNECTIONS)]
    assert works(loop)
    held = len(loop.server._connections)
    assert held <= MAX_PER_USER
    for line in silent:
        line.close()


def test_the_event_handlers_connection_outlives_a_flood_of_others(loop: ControlLoop) -> None:
    with Line(loop) as handler:
        assert handler.ask({"op": "attach"}) == {"ok": True}
        for _ in range(2 * MAX_CONNECTIONS):
            Line(loop).close()
        silent = [Line(loop) for _ in range(2 * MAX_CONNECTIONS)]
        assert works(loop)
        loop.ask_restart(Expectation("mpv", 7), 1)
        assert handler.answer() == {"op": "restart", "id": 1, "event_id": 7, "type": None, "process": "mpv"}
        for line in silent:
            line.close()


def test_the_event_handler_answers_with_the_new_pid(loop: ControlLoop) -> None:
    with Line(loop) as handler:
        handler.ask({"op": "attach"})
        loop.ask_restart(Expectation("mpv", 7, source=f"uid:{os.geteuid()}"), 3)
        assert handler.answer()["id"] == 3
        handler.send({"id": 3, "pid": os.getpid()})
        wait_for(lambda: loop.of("restarted"), "the answer came in")
        handler.send({"id": 3, "pid": os.getpid()})
        assert handler.answer()["ok"] is False, "an answer counts once"
    assert [request.body for request in loop.of("restarted")] == [{"id": 3, "pid": os.getpid()}]


def test_a_handlers_error_and_a_bad_pid_are_errors(loop: ControlLoop) -> None:
    with Line(loop) as handler:
        handler.ask({"op": "attach"})
        answers: list[dict[str, object]] = [{"error": "no screen"}, {"pid": "x"}, {"pid": 4_194_304}]
        for request_id, answer in enumerate(answers, 1):
            loop.ask_restart(Expectation("mpv"), request_id)
            handler.answer()
            handler.send({"id": request_id, **answer})
        wait_for(lambda: len(loop.of("restarted")) == 3, "the answers came in")
    assert [request.body["error"] for request in loop.of("restarted")] == [
        "no screen",
        "pid: expected a number",
        "there is no process 4194304",
    ]


def test_a_handler_that_dies_when_asked_is_an_error_at_once(loop: ControlLoop) -> None:
    with Line(loop) as handler:
        handler.ask({"op": "attach"})
        loop.ask_restart(Expectation("mpv"), 9)
        handler.answer()
    wait_for(lambda: loop.of("restarted"), "the agent learns that there will be no answer")
    assert loop.of("restarted")[0].body == {"id": 9, "error": "the event handler went away"}


def test_a_restart_goes_to_the_user_who_registered(loop: ControlLoop) -> None:
    with Line(loop) as handler:
        handler.ask({"op": "attach"})
        loop.ask_restart(Expectation("mpv", source="uid:54321"), 1)
        loop.ask_restart(Expectation("mpv", source=f"uid:{os.geteuid()}"), 2)
        assert handler.answer()["id"] == 2
    wait_for(lambda: len(loop.asked) == 2, "both were asked")
    assert loop.asked == [False, True]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_kernel_says_who_is_there(loop: ControlLoop) -> None:
    """Another user claims to be root in every way that the protocol knows."""
    loop.path.chmod(0o666)
    for folder in [loop.path.parent, *loop.path.parent.parents]:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    body = {"op": "expect", "process": "mpv", "user": "root", "restart": ["id"], "pid": os.getpid()}
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        "s.sendall(sys.argv[2].encode() + b'\\n')\n"
        "print(s.makefile().readline())"
    )
    command = [f"{sys.base_prefix}/bin/python3", "-Sc", program, str(loop.path), json.dumps(body)]
    answer = json.loads(subprocess.run(command, user=65534, check=True, capture_output=True, cwd="/").stdout)
    assert answer["ok"] is False
    assert "only root may have processes of another user watched; you are nobody" in answer["error"]
    assert "belongs to another user" in answer["error"]
    assert loop.requests[0].peer.uid == 65534


def test_no_bytes_at_all_harm_the_server(loop: ControlLoop) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    words = [
        b'{"op":',
        b'"attach"',
        b'"expect"',
        b"}",
        b"\n",
        b'"id":1',
        b",",
        b"[" * 100,
        b"\0",
        b"{}\n",
        b'"status"}\n',
    ]
    for _ in range(150):
        with Line(loop) as client:
            client.socket.setblocking(False)
            for _ in range(rng.randrange(6)):
                piece = rng.choice([rng.randbytes(rng.randrange(300)), b"".join(rng.choices(words, k=8))])
                try:
                    client.socket.send(piece)
                except OSError:
                    break
    assert works(loop), f"seed {seed}"
    wait_for(lambda: len(loop.server._connections) <= 1, f"no connection is left over, seed {seed}")
    assert loop.error is None, f"seed {seed}"


def test_a_request_is_answered_within_a_few_milliseconds(loop: ControlLoop) -> None:
    """An event handler calls this in its own loop; median of many, far above what it takes (some 0.1 ms)."""
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        assert works(loop)
        times.append(time.perf_counter() - begin)
    assert sorted(times)[25] < 0.02


def test_files_that_nobody_asked_for_end_the_connection(loop: ControlLoop, tmp_path: Path) -> None:
    """Not even a capture helper may fill the agent with them, and what is no memory file is not taken at all."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    picture = os.memfd_create("picture")
    reading, writing = os.pipe()
    for first in (b'{"op":"status"}\n', b'{"op":"attach-screen"}\n'):
        for fds in ([picture] * 100, [reading], [picture]):
            with socket.socket(socket.AF_UNIX) as hostile:
                hostile.settimeout(10)
                hostile.connect(str(loop.path))
                hostile.sendall(first)
                assert hostile.recv(1000)
                socket.send_fds(hostile, [b"\n"], fds)
                assert hostile.recv(1000) == b"", "hung up on"
    for fd in (picture, reading, writing):
        os.close(fd)
    wait_for(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, "all of them are closed")
