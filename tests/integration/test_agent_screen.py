"""The agent sees the screen: a real compositor, real players, the capture helper of their user, and what is done."""

import json
import signal
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from parts.agent import COMMAND
from parts.screens import Wayland, ask_mpv, open_to_all
from parts.seen import LOOKING, SeenKiosk
from parts.server import Server
from parts.wait import free_port, wait_for


@pytest.fixture(scope="module")
def session() -> Iterator[Wayland]:
    running = Wayland()
    with running:
        yield running


@pytest.fixture
def kiosk(tmp_path: Path, session: Wayland, code: Path) -> Iterator[SeenKiosk]:
    made = SeenKiosk(tmp_path, session, code)
    open_to_all(tmp_path)
    yield made
    made.close()


def test_a_film_that_plays_is_ok(kiosk: SeenKiosk, film: Path) -> None:
    kiosk.start(film, **LOOKING)
    found = kiosk.shows("OK", "ok")
    assert found["hash"]
    assert (datetime.now(UTC) - datetime.fromisoformat(found["analyzed_at"])).total_seconds() < 30
    assert kiosk.agent.records("screen.frozen") == []


def test_a_frozen_film_is_replaced_with_its_evidence_kept(kiosk: SeenKiosk, film: Path) -> None:
    kiosk.start(film, **LOOKING)
    kiosk.shows("OK", "ok")
    first = kiosk.agent.plays()
    ask_mpv(kiosk.door, "set_property", "pause", True)
    (frozen,) = kiosk.agent.said("screen.frozen")
    assert frozen["level"] == "ERROR"
    assert frozen["context"]["reason"] == "frozen"
    assert frozen["context"]["look"]["witness"]["advances"] is False
    wait_for(lambda: kiosk.agent.plays() != first, "another player runs")
    (recovered,) = kiosk.agent.said("screen.recovered")
    assert 1 < recovered["context"]["outage_s"] < 30
    kiosk.shows("OK", "ok")
    (folder,) = wait_for(kiosk.evidence, "evidence is kept")
    with Image.open(folder / "screen.jpg") as picture:
        assert picture.size == (1280, 720)
    assert (folder / "thumbnail.jpg").stat().st_size <= 20_000
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["look"]["moved"] == 0
    assert facts["player"]["rss"] > 1_000_000
    assert kiosk.agent.records("player.crashed") == [], "it was replaced, it did not crash"


def test_a_stopped_player_is_found_frozen(kiosk: SeenKiosk, film: Path) -> None:
    """Long before a stopped process is replaced for that alone."""
    kiosk.start(film, **LOOKING)
    kiosk.shows("OK", "ok")
    first = kiosk.agent.plays()
    subprocess.run(["kill", "-STOP", str(first)], check=True)
    kiosk.agent.said("player.stopped")
    subprocess.run(["kill", "-CONT", str(first)], check=True)
    kiosk.shows("OK", "ok")
    assert kiosk.agent.records("player.restarting")[1:] == [], "it went on by itself"


def test_a_slide_stands_still_and_is_well(kiosk: SeenKiosk, picture: Path) -> None:
    kiosk.start("--image-display-duration=inf", picture, kind="presentation", **LOOKING)
    kiosk.shows("OK", "ok")
    seen = {kiosk.agent.status()["screen"]["analyzed_at"]}
    wait_for(lambda: len(seen.add(kiosk.agent.status()["screen"]["analyzed_at"]) or seen) > 5, "it was looked at")  # type: ignore[func-returns-value]
    assert kiosk.agent.status()["screen"]["status"] == "OK"
    assert [record["code"] for record in kiosk.agent.records() if str(record["code"]).startswith("screen.")] == []


def test_an_empty_screen_with_a_player_that_lives(kiosk: SeenKiosk, film: Path) -> None:
    """mpv without a window: the bare desktop is seen, and the player replaced, again and again, up to the bound."""
    kiosk.start("--vo=null", "--pause", film, **LOOKING)
    (found,) = kiosk.agent.said("screen.frozen")
    assert found["context"]["reason"] == "bare desktop"
    (gave_up,) = kiosk.agent.said("screen.gave_up", timeout=60)
    assert gave_up["level"] == "ERROR"
    kiosk.agent.plays()  # a player with a wrong picture is better than none
    assert len(kiosk.agent.records("screen.frozen")) == 1, "one outage, told once"


def test_nothing_is_restarted_where_that_is_not_wanted(kiosk: SeenKiosk, film: Path) -> None:
    kiosk.start(film, restart=False, **LOOKING)
    kiosk.shows("OK", "ok")
    first = kiosk.agent.plays()
    ask_mpv(kiosk.door, "set_property", "pause", True)
    kiosk.shows("FROZEN", "frozen")
    ask_mpv(kiosk.door, "set_property", "pause", False)
    kiosk.agent.said("screen.recovered")
    assert kiosk.agent.plays() == first


def test_who_cannot_see_restarts_nothing(kiosk: SeenKiosk, film: Path) -> None:
    """The helper hangs, the helper is dead: UNKNOWN, with the reason."""
    kiosk.start(film, **LOOKING)
    kiosk.shows("OK", "ok")
    first = kiosk.agent.plays()
    screen = kiosk.screen
    assert kiosk.helper is not None
    kiosk.helper.send_signal(signal.SIGSTOP)
    kiosk.shows("UNKNOWN", "capture timed out", 30)
    screen.stop(kiosk.helper)
    kiosk.shows("UNKNOWN", "no capture helper")
    (unseen,) = kiosk.agent.said("screen.unseen")
    assert unseen["context"]["reason"] in ("no capture helper", "capture timed out")
    kiosk.look_out()
    kiosk.shows("OK", "ok")
    assert kiosk.agent.plays() == first


def test_at_night_the_screen_may_show_anything(kiosk: SeenKiosk, film: Path) -> None:
    kiosk.start(film, quiet=["00:00-24:00"], **LOOKING)
    kiosk.shows("UNKNOWN", "quiet hours")


def test_people_ask_what_is_seen(kiosk: SeenKiosk, film: Path, tmp_path: Path) -> None:
    kiosk.start(film, **LOOKING)
    kiosk.shows("OK", "ok")
    said = kiosk.call("screen")
    assert said.startswith("OK · ok\n")
    assert "seen by wayland, 1280 x 720; expected motion: video" in said
    assert "the player's own word (mpv): its position advances" in said
    numbers = json.loads(kiosk.call("screen", "--json"))
    assert numbers["look"]["moved"] > 100
    kiosk.call("screenshot", "-o", str(tmp_path / "shot.png"))
    kiosk.call("screenshot", "-o", str(tmp_path / "shot.jpg"))
    kiosk.call("screen", "--explain", str(tmp_path / "why.png"))
    for name, kind, height in (("shot.png", "PNG", 720), ("shot.jpg", "JPEG", 720), ("why.png", "PNG", 783)):
        with Image.open(tmp_path / name) as picture:
            assert (picture.format, picture.size) == (kind, (1280, height)), "a legend stands below what is explained"
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, "the screen may show what is not meant for everyone"
    assert "screen OK" in kiosk.call("status") or "OK" in kiosk.call("status")


def test_without_a_helper_people_are_told_what_to_do(kiosk: SeenKiosk, film: Path) -> None:
    kiosk.start(film, **LOOKING)
    assert kiosk.helper is not None
    kiosk.screen.stop(kiosk.helper)
    done = subprocess.run([*COMMAND, "screen", "--config", str(kiosk.agent.config)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "systemctl enable --now infoscreen-capture@USER" in done.stderr


def test_a_picture_that_is_known_to_be_wrong(kiosk: SeenKiosk, picture: Path) -> None:
    """As a desktop is: remembered once, and from then on a fault, though it stands as still as any slide."""
    kiosk.start("--image-display-duration=inf", picture, kind="presentation", **LOOKING)
    kiosk.shows("OK", "ok")
    said = tomllib.loads(kiosk.call("screen", "--remember", "desktop"))
    kiosk.close()
    kiosk.start("--image-display-duration=inf", picture, kind="presentation", **LOOKING, known=said["screen"]["known"])
    (found,) = kiosk.agent.said("screen.frozen")
    assert found["context"]["reason"] == "desktop"


def test_a_browsers_error_page_is_no_page(kiosk: SeenKiosk) -> None:
    """The server is away, then there: the browser is started again, and what it shows is its page."""
    port = free_port()
    chromium = ["chromium", "--kiosk", "--no-first-run", "--disable-gpu", "--ozone-platform=wayland"]
    chromium += [f"--user-data-dir={kiosk.screen.run}/profile", "--remote-debugging-port=0"]
    kiosk.start_as("chromium", [*chromium, f"http://127.0.0.1:{port}/"], "website", **LOOKING)
    (found,) = kiosk.agent.said("screen.frozen", timeout=40)
    assert found["context"]["reason"] == "error page"
    with HTTPServer(("127.0.0.1", port), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            kiosk.agent.said("screen.recovered", timeout=60)
            kiosk.shows("OK", "ok")
        finally:
            server.shutdown()
            thread.join()


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<body style='background:#246;color:white'><h1>Welcome</h1><p>Room 12, second floor</p>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_where_a_clock_is_can_be_learned(kiosk: SeenKiosk, code: Path) -> None:
    """In the upper right corner something blinks; the rest stands still."""
    blinking = "drawbox=x=580:y=10:w=40:h=20:color=white:t=fill:enable='lt(mod(t,1),0.5)'"
    source = ["-f", "lavfi", "-i", f"color=c=0x224466:size=640x360:rate=10,drawgrid=w=40:h=40:color=gray,{blinking}"]
    film = code / "clock.mkv"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *source, "-t", "10", "-c:v", "ffv1", film], check=True)
    kiosk.start(film, kind="presentation", **LOOKING)
    kiosk.shows("OK", "ok")
    (region,) = tomllib.loads(kiosk.call("screen", "--learn", "8"))["screen"]["ignore"]
    left, top, width, height = region
    assert left <= 580 / 640
    assert left + width >= 620 / 640
    assert top <= 10 / 360
    assert top + height >= 30 / 360
    assert width * height < 0.05


def test_the_server_gets_small_pictures(tmp_path: Path, session: Wayland, code: Path, film: Path) -> None:
    """One now and then, and one of each incident; people with the right to see the logs see them."""
    with Server(tmp_path, f"sqlite:///{tmp_path}/server.db") as server:
        server.call("migrate")
        door = {"url": f"http://127.0.0.1:{server.port}", "token_file": str(tmp_path / "token")}
        uuid = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
        (tmp_path / "token").write_text(server.token("device", uuid))
        (tmp_path / "token").chmod(0o640)
        admin = server.token("admin")
        server.start()
        kiosk = SeenKiosk(tmp_path, session, code, http=door, client={"uuid": uuid}, pictures={"thumbnail_s": 1})
        open_to_all(tmp_path)
        try:
            kiosk.start(film, **LOOKING)
            kiosk.shows("OK", "ok")
            ask_mpv(kiosk.door, "set_property", "pause", True)
            kiosk.agent.said("screen.frozen")

            def kinds() -> set[tuple[str, str]]:
                shown = server.request(f"/api/clients/{uuid}/screenshots", admin)[1].get("screenshots", [])
                return {(each["kind"], each["status"]) for each in shown}

            wait_for(lambda: kinds() >= {("periodic", "OK"), ("incident", "FROZEN")}, "both came")
        finally:
            kiosk.close()
