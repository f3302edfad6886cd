"""From a picture that stands still, or is black, to the restart of the player: all parts are real."""

import random
import time
from pathlib import Path
from typing import Any

from bench.table import US, Row, median, verdict
from parts.screens import Wayland, ask_mpv, copy_code, make_film, open_to_all
from parts.seen import SeenKiosk
from parts.wait import wait_for

TIMES = 5
SETTLED_S = 2.0
"""Instead of the 20 s after a start in which nothing is judged."""
MODES: dict[str, tuple[dict[str, Any], float]] = {"defaults": ({}, 30.0), "fast": ({"fast": True}, 6.0)}


def run(folder: Path, quick: bool) -> list[Row]:
    """Seconds from the moment that mpv is told to pause, or to be dark and to pause, until the restart goes out."""
    open_to_all(folder)
    code = copy_code(folder, "numpy", "numpy.libs", "imagehash")
    film = make_film(code / "film.mkv")
    rows = []
    with Wayland(size="1920x1080") as screen:
        for name, (settings, aim) in MODES.items():
            kiosk = SeenKiosk(_made(folder / name), screen, code)
            kiosk.start(film, settle_s=SETTLED_S, **settings)
            try:
                for fault, dark in (("frozen", False), ("black", True)):
                    waits = [_wait(kiosk, dark=dark) for _ in range(2 if quick else TIMES)]
                    figure = f"{median(waits):.1f} s, at most {max(waits):.1f} ({len(waits)} times)"
                    aimed = verdict(f"under {aim:g}", met=max(waits) < aim)
                    rows.append(Row(f"{fault} screen -> restart, {name}", US, figure, "", aimed))
            finally:
                kiosk.close()
    return rows


def _made(folder: Path) -> Path:
    folder.mkdir()
    open_to_all(folder)
    return folder


def _wait(kiosk: SeenKiosk, *, dark: bool) -> float:
    kiosk.shows("OK", "ok", 60)
    before = kiosk.agent.plays()
    time.sleep(random.uniform(0, 10))  # at any moment between two looks
    if dark:
        ask_mpv(kiosk.door, "set_property", "brightness", -100)
    ask_mpv(kiosk.door, "set_property", "pause", True)
    began = time.monotonic()
    wait_for(lambda: kiosk.agent.status()["player"]["pid"] != before, "the player is restarted", 120, 0.02)
    waited = time.monotonic() - began
    # A fresh budget for the next time.
    kiosk.agent.client.clear()
    kiosk.agent.kill()
    (kiosk.agent.state_dir / "watchdog.json").unlink()
    kiosk.end_player()
    kiosk.agent.start()
    kiosk.agent.socket.chmod(0o666)
    return waited
