"""What Chromium and VLC say of themselves beside the picture: pages, errors, crashes, positions."""

import http.server
import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from parts.capture import Capture
from parts.screens import PYTHON, X11, make_film
from parts.wait import free_port, wait_for

PAGES = {
    "/slide": b"<title>slide</title><body style='background:#246'><h1>Welcome</h1><p>Room 12, second floor</p>",
    "/white": b"",
    "/film": b"<body style='margin:0'><video src=film.webm autoplay muted loop style='width:100vw'></video>",
    "/busy": b"<h1>busy</h1><script>setTimeout(() => { while (true); }, 1000)</script>",
}


class Handler(http.server.BaseHTTPRequestHandler):
    film = b""

    def do_GET(self) -> None:
        body = self.film if self.path == "/film.webm" else PAGES.get(self.path, b"<h1>nothing here</h1>")
        self.send_response(200 if self.path in PAGES or self.path == "/film.webm" else 503)
        self.send_header("Content-Type", "video/webm" if self.path == "/film.webm" else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(code: Path) -> Iterator[str]:
    Handler.film = make_film(code / "film.webm", seconds=10).read_bytes()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def screen() -> Iterator[X11]:
    with X11() as running:
        yield running


class Browser:
    """Chromium as infoscreen-player starts it, and a helper that is asked about it."""

    def __init__(self, screen: X11, code: Path, address: str, *options: object) -> None:
        self.screen = screen
        self.profile = screen.run / f"profile-{free_port()}"
        chromium = ["chromium", "--kiosk", "--no-first-run", "--disable-gpu", f"--user-data-dir={self.profile}"]
        # There is no window manager that would give it all of the screen.
        chromium += ["--window-position=0,0", "--window-size=1280,720"]
        self.process = screen.start(*chromium, "--remote-debugging-port=0", address)
        self.capture = Capture(screen, code, *options)

    def look(self, **asked: object) -> dict[str, object]:
        return self.capture.look(pid=self.process.pid, **asked)

    def page(self, wanted: str) -> dict[str, object]:
        """The look in which the page is this."""

        def look() -> dict[str, object] | None:
            found = self.look(frames=2)
            witness = found["witness"]
            assert isinstance(witness, dict)
            return found if witness["kind"] == "devtools" and witness["page"] == wanted else None

        found = wait_for(look, f"the page is: {wanted}", 30)
        assert found is not None
        return found

    def renderers(self) -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if (
                b"--type=renderer" in words
                and b"--extension-process" not in words
                and str(self.profile).encode() in words
            ):
                found.append(int(folder.name))
        return found

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.capture.__exit__(None, None, None)
        self.screen.clear()


def test_a_page_is_fine_and_then_its_renderer_crashes(screen: X11, code: Path, site: str) -> None:
    with Browser(screen, code, f"{site}/slide") as browser:
        look = browser.page("fine")
        witness = look["witness"]
        assert isinstance(witness, dict)
        assert (witness["advances"], witness["answers"], witness["detail"]) == (None, True, f"{site}/slide")
        wait_for(lambda: browser.look()["windows"] == 1, "it has a window")
        for pid in wait_for(browser.renderers, "the page has a renderer"):
            os.kill(pid, signal.SIGKILL)
        browser.page("page crashed")


@pytest.mark.parametrize(
    ("path", "words"),
    [("/nothing", "HTTP status 503"), ("refused", "chrome-error://chromewebdata/")],
)
def test_an_error_page(screen: X11, code: Path, site: str, path: str, words: str) -> None:
    with Browser(screen, code, f"http://127.0.0.1:{free_port()}/" if path == "refused" else site + path) as browser:
        witness = browser.page("error page")["witness"]
        assert isinstance(witness, dict)
        assert words in witness["detail"]


def test_a_white_page(screen: X11, code: Path) -> None:
    with Browser(screen, code, "about:blank") as browser:
        browser.page("fine")

        def is_white() -> bool:
            look = browser.capture.look(pid=browser.process.pid, frames=2)
            return bool(look["median"] == [255, 255] and max(look["content"]) <= 4)

        wait_for(is_white, "the screen is white")


def test_a_film_in_a_page(screen: X11, code: Path, site: str) -> None:
    with Browser(screen, code, f"{site}/film") as browser:

        def advances() -> bool:
            witness = browser.look()["witness"]
            return isinstance(witness, dict) and witness["kind"] == "devtools" and witness["advances"] is True

        wait_for(advances, "the film goes on", 30)
        browser.process.send_signal(signal.SIGSTOP)
        witness = browser.look(frames=2)["witness"]
        assert isinstance(witness, dict)
        assert (witness["kind"], witness["answers"]) == ("devtools", False)


def test_a_page_that_hangs(screen: X11, code: Path, site: str) -> None:
    with Browser(screen, code, f"{site}/busy") as browser:
        witness = browser.page("page crashed")["witness"]
        assert isinstance(witness, dict)
        assert "has not answered" in witness["detail"]


def test_the_page_itself_as_the_picture(screen: X11, code: Path, site: str) -> None:
    with Browser(screen, code, f"{site}/slide", "--backend", "devtools") as browser:

        def look() -> tuple[dict[str, object], list[bytes]] | None:
            number = browser.capture.ask(pid=browser.process.pid, frames=2, pictures=["png"])
            answer, pictures = browser.capture.answer()
            assert answer["id"] == number
            seen = "burst" in answer and answer["burst"]["colour"][2] > 80
            return (answer["burst"], pictures) if seen else None

        found = wait_for(look, "the page is seen", 30)
        assert found is not None
        burst, (png,) = found
        assert burst["backend"] == "devtools"
        width, height = Image.open(io.BytesIO(png)).size
        assert (width, height) == (burst["width"], burst["height"])


def test_what_infoscreen_player_plays_has_a_witness(screen: X11, code: Path, site: str) -> None:
    entry = "from infoscreen_device.player import entry; entry()"
    away = ["--socket", screen.run / "no-watchdog.sock"]
    handler = screen.start(PYTHON, "-c", entry, "--type", "video", *away, code / "film.webm", PYTHONPATH=str(code))

    def mpv() -> int:
        children = Path(f"/proc/{handler.pid}/task/{handler.pid}/children").read_text().split()
        return next((int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "mpv\n"), 0)

    try:
        pid = wait_for(mpv, "it plays")
        with Capture(screen, code) as capture:

            def advances() -> bool:
                witness = capture.look(pid=pid)["witness"]
                return witness is not None and witness["kind"] == "mpv" and witness["advances"] is True

            wait_for(advances, "mpv's position goes on")
    finally:
        handler.terminate()
        handler.wait(20)
        screen.clear()


def test_vlc_by_its_socket(screen: X11, code: Path, site: str) -> None:
    rc = screen.run / "vlc.sock"
    options = ["--aout=dummy", "--fullscreen", "--loop", "--no-video-title-show", "--no-osd"]
    doors = ["--extraintf=oldrc", "--rc-fake-tty", f"--rc-unix={rc}"]
    player = screen.start("cvlc", *options, *doors, code / "film.webm")
    try:
        with Capture(screen, code) as capture:

            def advances() -> bool:
                witness = capture.look(pid=player.pid, interval_s=1)["witness"]
                return witness is not None and witness["kind"] == "vlc" and witness["advances"] is True

            wait_for(advances, "VLC's position goes on", 30)
            player.send_signal(signal.SIGSTOP)
            witness = capture.look(pid=player.pid)["witness"]
            assert (witness["kind"], witness["answers"]) == ("vlc", False)
    finally:
        screen.clear()
