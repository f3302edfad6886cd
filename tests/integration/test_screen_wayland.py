"""Looks at a headless Wayland session (sway) of another user, with real players on it."""

import io
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from parts.capture import ENTRY, Capture, wait_gone
from parts.screens import NO_MONITOR, PYTHON, Screen, Wayland, ask_mpv
from parts.wait import wait_for


@pytest.fixture(scope="module")
def session() -> Iterator[Wayland]:
    with Wayland() as running:
        yield running


@pytest.fixture
def screen(session: Wayland) -> Iterator[Wayland]:
    yield session
    session.clear()


@pytest.fixture
def capture(screen: Wayland, code: Path) -> Iterator[Capture]:
    with Capture(screen, code) as attached:
        yield attached


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_it_says_who_it_is(capture: Capture, screen: Screen) -> None:
    assert capture.attached["op"] == "attach-screen"
    assert capture.attached["session"] == screen.environment["WAYLAND_DISPLAY"]


def test_a_film_that_plays(capture: Capture, screen: Screen, film: Path) -> None:
    player = screen.play(film)
    burst, (jpeg, thumbnail) = capture.look_with_pictures(
        pid=player.pid, pictures=["jpeg", "thumbnail"], hash=True, tiles=True
    )
    assert (burst["backend"], burst["width"], burst["height"], burst["windows"]) == ("wayland", 1280, 720, 1)
    assert len(burst["content"]) == 3
    assert min(burst["content"]) > 500
    assert burst["moved"] > 100
    assert len(burst["tiles_moved"]) == burst["moved"]
    assert len(burst["hash"]) == 32
    assert burst["span_s"] == pytest.approx(0.4, abs=0.2)
    assert burst["witness"]["kind"] == "mpv"
    assert burst["witness"]["advances"] is True
    assert opened(jpeg).size == (1280, 720)
    assert len(thumbnail) <= 20_000


def test_paused_stopped_and_gone(capture: Capture, screen: Screen, film: Path) -> None:
    player = screen.play(film)
    ask_mpv(screen.run / "mpv.sock", "set_property", "pause", True)
    paused = wait_for(lambda: (look := capture.look(pid=player.pid))["moved"] == 0 and look, "the film stands")
    assert (paused["witness"]["advances"], paused["windows"]) == (False, 1)
    ask_mpv(screen.run / "mpv.sock", "set_property", "pause", False)
    player.send_signal(signal.SIGSTOP)
    stopped = capture.look(pid=player.pid)
    assert (stopped["moved"], stopped["witness"]["answers"]) == (0, False)
    screen.stop(player)
    bare = capture.look(pid=player.pid)
    assert (bare["windows"], bare["moved"], bare["witness"]) == (0, 0, None)
    assert bare["digest"] == capture.look()["digest"]
    assert bare["hash"] is None


def test_a_player_without_a_door_is_judged_by_its_cpu_time(capture: Capture, screen: Screen, film: Path) -> None:
    options = ["--really-quiet", "--ao=null", "--vo=wlshm", "--fullscreen", "--loop-file=inf"]
    player = screen.start("mpv", *options, film)
    wait_for(lambda: capture.look()["windows"], "mpv has a window")
    witness = capture.look(pid=player.pid, interval_s=0.5)["witness"]
    assert (witness["kind"], witness["advances"], witness["answers"]) == ("cpu", None, True)
    player.send_signal(signal.SIGSTOP)
    witness = capture.look(pid=player.pid)["witness"]
    assert (witness["kind"], witness["advances"], witness["answers"]) == ("cpu", False, False)


TURNED = ["normal", "90", "180", "270", "flipped", "flipped-90", "flipped-180", "flipped-270"]


def test_the_picture_is_the_one_that_grim_takes(capture: Capture, screen: Screen, picture: Path) -> None:
    screen.play("--image-display-duration=inf", "--keepaspect=no", picture, moves=False)
    sizes = set()
    try:
        for turn in TURNED:
            screen.done("swaymsg", "output", "HEADLESS-1", "transform", turn)
            upright = (1280, 720) if turn in ("normal", "180", "flipped", "flipped-180") else (720, 1280)

            def settled(size: tuple[int, int] = upright) -> bool:
                burst = capture.look(frames=2)
                return (burst["width"], burst["height"]) == size and burst["moved"] == 0 and burst["content"][0] > 100

            wait_for(settled, f"the picture is turned: {turn}")
            ours = opened(capture.look_with_pictures(frames=1, pictures=["png"])[1][0])
            theirs = opened(screen.done("grim", "-t", "ppm", "-"))
            sizes.add(ours.size)
            assert ours.size == theirs.size
            assert ImageChops.difference(ours.convert("RGB"), theirs).getbbox() is None, turn
    finally:
        screen.done("swaymsg", "output", "HEADLESS-1", "transform", "normal")
    assert len(sizes) == 2


def test_by_grim_the_numbers_are_the_same(screen: Wayland, code: Path, picture: Path) -> None:
    screen.play("--image-display-duration=inf", picture, moves=False)
    with Capture(screen, code) as direct:
        wait_for(lambda: (look := direct.look())["moved"] == 0 and look["content"][0] > 100, "the picture stands")
        ours = direct.look()
    with Capture(screen, code, "--backend", "grim") as by_grim:
        theirs = by_grim.look()
    assert theirs["backend"] == "grim"
    assert theirs["windows"] is None
    for name in ("width", "height", "tiles", "changed", "colour"):
        assert ours[name] == theirs[name], name
    # Red and blue have changed places in the grey of a mapped buffer.
    assert ours["content"] == pytest.approx(theirs["content"], rel=0.1)


def test_an_explained_picture_is_as_large_as_the_screen(capture: Capture, screen: Screen, film: Path) -> None:
    screen.play(film)
    _, (explained,) = capture.look_with_pictures(pictures=["explain"], ignore=[[0.8, 0.0, 0.2, 0.1]])
    # Under it stands what the colours mean.
    assert opened(explained).width == 1280


def test_what_is_ignored_does_not_move(capture: Capture, screen: Screen, film: Path) -> None:
    player = screen.play(film)
    burst = capture.look(pid=player.pid, ignore=[[0, 0, 1, 1]])
    assert (burst["tiles"], burst["moved"]) == (0, 0)


def test_the_screen_of_another_name_is_not_there(screen: Wayland, code: Path) -> None:
    with Capture(screen, code, INFOSCREEN_CAPTURE_OUTPUT="HDMI-A-1") as capture:
        blind = capture.blind()
    assert blind["reason"] == "no output"
    assert "HEADLESS-1" in blind["detail"]
    with Capture(screen, code, "--output", "HEADLESS-1") as capture:
        assert capture.look()["width"] == 1280


def test_a_session_without_a_screen(code: Path) -> None:
    with Wayland(outputs=0) as screen, Capture(screen, code) as capture:
        assert capture.reason() == "no output"


def test_a_killed_compositor_and_the_next_one(code: Path, film: Path) -> None:
    with Wayland() as screen, Capture(screen, code) as capture:
        assert capture.look()["width"] == 1280
        screen.kill()
        assert capture.reason() == "no session"
        screen.boot()
        assert capture.look()["width"] == 1280
        assert capture.lives()


def test_a_compositor_that_hangs_is_waited_for_no_longer_than_allowed(code: Path) -> None:
    with Wayland() as screen, Capture(screen, code) as capture:
        assert screen.server is not None
        screen.server.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert capture.reason() == "capture timed out"
        assert time.monotonic() - began < 5
        assert capture.reason(deadline_s=0.5) == "capture timed out"
        screen.server.send_signal(signal.SIGCONT)
        assert capture.look()["width"] == 1280
        with Capture(screen, code, "--backend", "grim") as by_grim:
            screen.server.send_signal(signal.SIGSTOP)
            number = by_grim.ask(deadline_s=1)
            wait_for(by_grim.children, "a look is under way")
            (look,) = by_grim.children()
            grims = wait_for(
                lambda: Path(f"/proc/{look}/task/{look}/children").read_text().split(), "grim is under way"
            )
            answer, _ = by_grim.answer()
            assert (answer["id"], answer["blind"]["reason"]) == (number, "capture timed out")
            wait_gone(look, *map(int, grims))
            screen.server.send_signal(signal.SIGCONT)


def test_x11_is_refused_in_a_wayland_session(screen: Wayland, code: Path) -> None:
    with Capture(screen, code, "--backend", "x11") as capture:
        assert capture.reason() == "not capturable"


def test_the_x_server_of_a_wayland_session_is_refused_by_itself(screen: Wayland, code: Path) -> None:
    owner = screen.run.stat().st_uid
    displays = wait_for(
        lambda: [path for path in Path("/tmp/.X11-unix").glob("X*") if path.stat().st_uid == owner], "sway has X11"
    )
    for path in displays:
        display = f":{path.name[1:]}"
        # Without a word of the Wayland session: its socket is not below this folder.
        elsewhere = {"DISPLAY": display, "XDG_RUNTIME_DIR": "/nonexistent", "WAYLAND_DISPLAY": ""}
        with Capture(screen, code, "--backend", "x11", **elsewhere) as capture:
            assert capture.reason(deadline_s=20) in ("not capturable", "no session")


def test_a_player_on_x11_in_a_wayland_session_is_seen_by_wayland(screen: Wayland, code: Path, film: Path) -> None:
    """As with VLC on a Wayland desktop: its own environment names only the X server."""
    display = _display_of(screen)
    player = screen.start(
        "mpv",
        "--really-quiet",
        "--ao=null",
        "--vo=x11",
        "--fullscreen",
        "--loop-file=inf",
        film,
        DISPLAY=display,
        WAYLAND_DISPLAY="",
    )
    with Capture(screen, code, WAYLAND_DISPLAY="") as capture:
        wait_for(lambda: capture.look(pid=player.pid)["windows"], "mpv has a window", 20)
        wait_for(lambda: capture.look(pid=player.pid)["moved"] > 100, "the film is seen")
        assert capture.look(pid=player.pid)["backend"] == "wayland"


def _display_of(screen: Wayland) -> str:
    """sway tells its children only."""
    said = screen.folder / "run" / "display"
    screen.done("swaymsg", "exec", f"printenv DISPLAY >{said}")
    return wait_for(lambda: said.read_text().strip() if said.exists() else "", "sway told its display")


def test_once_for_people_who_set_up_a_kiosk(screen: Wayland, code: Path, film: Path) -> None:
    player = screen.play(film)
    path = screen.run / "once.jpg"
    program = screen.start(PYTHON, "-c", ENTRY, "--once", path, "--pid", player.pid, PYTHONPATH=str(code))
    assert program.wait(20) == 0
    assert opened(path.read_bytes()).size == (1280, 720)
    said = (screen.folder / "log").read_text()
    assert json.loads(said[said.rindex('{\n "width"') :])["witness"]["advances"] is True


def test_cage_as_a_kiosk_of_one_program(code: Path, film: Path) -> None:
    with Cage(film) as screen, Capture(screen, code, WAYLAND_DISPLAY="") as capture:
        burst = wait_for(lambda: (look := capture.look())["moved"] > 100 and look, "the film is seen")
        assert burst["backend"] == "wayland"


class Cage(Screen):
    def __init__(self, film: Path) -> None:
        super().__init__()
        options = ["--really-quiet", "--ao=null", "--vo=wlshm", "--fullscreen", "--loop-file=inf"]
        self.server = self.start("cage", "--", "mpv", *options, film, **NO_MONITOR)
        wait_for(lambda: list(self.run.glob("wayland-?")), "cage is up")


def test_without_any_session(code: Path) -> None:
    with Screen() as screen, Capture(screen, code, DISPLAY=":4242") as capture:
        assert capture.reason() == "no session"
        assert capture.attached["session"] == ""
