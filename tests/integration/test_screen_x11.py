"""Looks at an X server of another user's, and by a command that may fail in every way."""

import io
import signal
import struct
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from parts.capture import Capture, is_gone, wait_gone
from parts.screens import X11, Screen, ask_mpv
from parts.wait import wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[X11]:
    with X11() as running:
        yield running


@pytest.fixture
def screen(server: X11) -> Iterator[X11]:
    yield server
    server.clear()


@pytest.fixture
def capture(screen: X11, code: Path) -> Iterator[Capture]:
    with Capture(screen, code) as attached:
        yield attached


def test_a_film_that_plays_and_then_does_not(capture: Capture, screen: Screen, film: Path) -> None:
    assert capture.attached["session"] == screen.environment["DISPLAY"]
    bare = capture.look()
    assert (bare["backend"], bare["windows"], bare["moved"]) == ("x11", 0, 0)
    player = screen.play(film)
    burst, (png,) = capture.look_with_pictures(pid=player.pid, pictures=["png"])
    assert (burst["width"], burst["height"], burst["windows"]) == (1280, 720, 1)
    assert burst["moved"] > 100
    assert burst["witness"]["advances"] is True
    assert Image.open(io.BytesIO(png)).size == (1280, 720)
    ask_mpv(screen.run / "mpv.sock", "set_property", "pause", True)
    paused = wait_for(lambda: (look := capture.look(pid=player.pid))["moved"] == 0 and look, "the film stands")
    assert paused["witness"]["advances"] is False


def test_the_screen_is_found_by_the_players_own_environment(screen: Screen, code: Path, film: Path) -> None:
    player = screen.play(film)
    with Capture(screen, code, DISPLAY="", XDG_RUNTIME_DIR="/nonexistent") as capture:
        burst = capture.look(pid=player.pid)
    assert (burst["backend"], burst["width"]) == ("x11", 1280)
    assert burst["moved"] > 100


def test_covered_by_a_screen_saver(capture: Capture, screen: Screen) -> None:
    screen.done("xset", "s", "activate")
    assert capture.reason() == "display off"
    screen.done("xset", "s", "reset")
    assert capture.look()["width"] == 1280


def test_a_server_that_hangs(code: Path) -> None:
    with X11() as screen, Capture(screen, code) as capture:
        assert screen.server is not None
        assert capture.look()["width"] == 1280
        screen.server.send_signal(signal.SIGSTOP)
        # It is not told apart from one that lets nobody in.
        assert capture.reason() in ("capture timed out", "no session")
        screen.server.send_signal(signal.SIGCONT)
        number = capture.ask(frames=10, interval_s=0.3, deadline_s=8)
        (look,) = wait_for(capture.children, "a look is under way")
        time.sleep(0.5)  # it is between two pictures, or in one
        screen.server.send_signal(signal.SIGSTOP)
        answer, _ = capture.answer()
        assert (answer["id"], answer["blind"]["reason"]) == (number, "capture timed out")
        wait_gone(look)
        screen.server.send_signal(signal.SIGCONT)
        assert capture.look()["width"] == 1280


def test_only_who_has_the_cookie_sees_anything(code: Path, tmp_path: Path) -> None:
    cookies, cookie = tmp_path / "cookies", bytes(range(16))
    fields = [b"", b"", b"MIT-MAGIC-COOKIE-1", cookie]
    # FamilyWild, and each field with its length before it: Xau(3).
    cookies.write_bytes(b"\xff\xff" + b"".join(struct.pack(">H", len(each)) + each for each in fields))
    with X11("-auth", str(cookies)) as screen:
        with Capture(screen, code) as capture:
            assert capture.reason() == "no session"
        theirs = screen.folder / "cookies"
        theirs.write_bytes(cookies.read_bytes())
        with Capture(screen, code, XAUTHORITY=str(theirs)) as capture:
            assert capture.look()["width"] == 1280


def test_a_wayland_camera_without_wayland(screen: X11, code: Path) -> None:
    for backend in ("wayland", "grim"):
        with Capture(screen, code, "--backend", backend) as capture:
            assert capture.reason() == "no session"


# --- a command of the kiosk's own -------------------------------------------------------------------------------------


def png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def real_picture() -> bytes:
    into = io.BytesIO()
    Image.effect_noise((640, 360), 60).convert("RGB").save(into, "PNG")
    return into.getvalue()


PICTURE = real_picture()
BROKEN = {
    "empty": b"",
    "text": b"cannot open display\n",
    "cut short": PICTURE[: len(PICTURE) // 2],
    "damaged": PICTURE[:5000] + b"\x00" * 500 + PICTURE[5500:],
    "a bomb": png(60_000, 60_000),
    "a small bomb": png(20_000, 2_000, bytes(1000)),
    "no pixels": png(0, 0),
    "tiny": png(1, 1, b"\0\1\2\3"),
    "PPM that lies": b"P6 100000 100000 255\n" + bytes(1000),
}


def test_a_command_prints_a_picture(screen: Screen, code: Path) -> None:
    (code / "good.png").write_bytes(PICTURE)
    with Capture(screen, code, "--command", f"cat {code}/good.png") as capture:
        burst = capture.look()
        assert (burst["backend"], burst["width"], burst["height"]) == ("command", 640, 360)
        assert burst["windows"] is None


@pytest.mark.parametrize("kind", BROKEN)
def test_a_command_prints_no_picture(screen: Screen, code: Path, kind: str) -> None:
    (code / "broken").write_bytes(BROKEN[kind])
    with Capture(screen, code, "--command", f"cat {code}/broken") as capture:
        blind = capture.blind()
        assert blind["reason"] == "capture failed"
        assert blind["detail"]
        assert capture.lives()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("false", "capture failed"),
        ("/no/such/program", "capture failed"),
        ("sh -c 'kill -SEGV $$'", "capture failed"),
        ("yes", "capture failed"),
        ("sh -c 'yes >&2'", "capture timed out"),
        ("sh -c 'sleep 1000 & sleep 1000'", "capture timed out"),
        ("sh -c 'exec >&- 2>&-; sleep 1000'", "capture timed out"),
    ],
)
def test_a_command_that_misbehaves(screen: Screen, code: Path, line: str, reason: str) -> None:
    with Capture(screen, code, "--command", line) as capture:
        number = capture.ask(deadline_s=8)
        # One that fails at once may be over before anybody saw it.
        wait_for(lambda: capture.children() or capture.has_answered(), "a look is under way, or over", interval=0.001)
        looks = capture.children()
        answer, _ = capture.answer()
        assert (answer["id"], answer["blind"]["reason"]) == (number, reason), answer
        assert looks or reason == "capture failed", "what hangs is seen"
        wait_for(lambda: not capture.children(), "it is gone", 5)
        for look in looks:
            wait_gone(look)
            # The group of the look, with all that it started, is gone as well.
            left = subprocess.run(["pgrep", "-g", str(look)], capture_output=True, check=False).stdout.split()
            wait_gone(*map(int, left))


def test_what_a_command_says_is_told(screen: Screen, code: Path) -> None:
    with Capture(screen, code, "--command", "sh -c 'echo the camera is unplugged >&2; exit 3'") as capture:
        assert "the camera is unplugged" in capture.blind()["detail"]


# --- the helper -------------------------------------------------------------------------------------------------------


def test_a_hundred_looks_leave_nothing_behind(screen: Screen, code: Path, film: Path) -> None:
    player = screen.play(film)
    (code / "broken").write_bytes(BROKEN["cut short"])
    asked = {"frames": 2, "interval_s": 0.01}
    with Capture(screen, code) as good, Capture(screen, code, "--command", f"cat {code}/broken") as bad:
        before = []
        for round_ in range(110):
            good.look_with_pictures(pid=player.pid, pictures=["thumbnail"], **asked)
            bad.blind(pictures=["jpeg"], **asked)
            if round_ == 9:
                before = [(each.rss_kb(), each.open_files()) for each in (good, bad)]
        for each, (rss_kb, files) in zip((good, bad), before, strict=True):
            assert each.rss_kb() <= rss_kb + 200
            assert each.open_files() == files
            assert each.children() == []


def test_the_agent_comes_back(capture: Capture) -> None:
    capture.ask(frames=5, interval_s=1)
    (look,) = wait_for(capture.children, "a look is under way")
    capture.hang_up()
    wait_gone(look)
    assert capture.attach()["op"] == "attach-screen"
    assert capture.look()["width"] == 1280


def test_an_agent_that_refuses_is_asked_again(capture: Capture) -> None:
    for _ in range(3):
        capture.attach({"ok": False, "error": "no"})
    capture.attach()
    assert capture.look()["width"] == 1280


def test_a_request_that_comes_with_the_welcome(screen: Screen, code: Path) -> None:
    with Capture(screen, code) as capture:
        capture.hang_up()
        capture.agent, _ = capture.listener.accept()
        capture.received = b""
        assert capture.line()["op"] == "attach-screen"
        capture.agent.sendall(b'{"ok": true}\n{"op": "look", "id": 5, "frames": 1}\n{"op": "unheard of"}\n')
        assert capture.answer()[0]["id"] == 5


@pytest.mark.parametrize(
    "asked",
    [
        {"frames": 0},
        {"frames": "3"},
        {"frames": 10_000},
        {"interval_s": -1},
        {"deadline_s": 10_000},
        {"pid": "1"},
        {"pictures": ["jpeg", "png", "explain"]},
        {"pictures": ["tiff"]},
        {"ignore": [[0, 0, 2, 1]]},
        {"ignore": 5},
    ],
)
def test_a_question_that_makes_no_sense(capture: Capture, asked: dict[str, object]) -> None:
    blind = capture.blind(**asked)
    assert blind["reason"] == "capture failed"
    assert next(iter(asked)) in blind["detail"]


def test_one_look_at_a_time_and_at_most_eight_wait(capture: Capture) -> None:
    first = capture.ask(frames=2, interval_s=1)
    wait_for(capture.children, "a look is under way")
    numbers = [capture.ask(frames=1) for _ in range(10)]
    answers = [capture.answer()[0] for _ in range(11)]
    refused = [answer["id"] for answer in answers if "blind" in answer]
    seen = [answer["id"] for answer in answers if "burst" in answer]
    assert refused == numbers[8:]
    assert seen == [first, *numbers[:8]]


def test_a_look_that_is_killed(capture: Capture) -> None:
    number = capture.ask(frames=5, interval_s=1)
    (look,) = wait_for(capture.children, "a look is under way")
    subprocess.run(["kill", "-KILL", str(look)], check=True)
    answer, _ = capture.answer()
    assert (answer["id"], answer["blind"]["reason"]) == (number, "capture failed")
    assert capture.look()["width"] == 1280


def test_the_end_of_the_helper_is_the_end_of_its_look(capture: Capture) -> None:
    capture.ask(frames=5, interval_s=1)
    (look,) = wait_for(capture.children, "a look is under way")
    capture.helper.send_signal(signal.SIGTERM)
    assert capture.helper.wait(10) == 0
    assert is_gone(look)
