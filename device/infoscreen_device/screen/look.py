"""One look at the screen, from the request to the numbers and the picture. Runs in a child that ends with it."""

import io
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from infoscreen_device.core.picture import Blind, Blindness, Burst, Region
from infoscreen_device.looks import Picture
from infoscreen_device.screen import measure, outputs
from infoscreen_device.screen.backends import Settings, open_camera
from infoscreen_device.screen.camera import BlindError
from infoscreen_device.screen.measure import Frame, upright
from infoscreen_device.screen.witness import Observer

PICTURES = tuple(Picture)
MAX_FRAMES, MAX_INTERVAL_S, MAX_DEADLINE_S = 30, 10.0, 120.0
MAX_IGNORED = 64
MAX_PICTURES = 2
JPEG_QUALITY = 85
PNG_LEVEL = 1
"""Of zlib: a screen at 1920x1080 takes a fifth of the time of level 6 and some tenths more room."""
HASHABLE = 4
"""Tiles with content that a picture has to have more of: plain colours all have the same hash."""
VENDOR = Path("/usr/share/infoscreen-watchdog/vendor")
"""Where the package keeps what Debian does not have: imagehash."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the agent wants to know."""

    frames: int = 3
    interval_s: float = 1.0
    ignore: tuple[Region, ...] = ()
    pid: int | None = None
    """The player's."""
    pictures: tuple[str, ...] = ()
    """Of PICTURES."""
    blur: bool = False
    """The thumbnail shows shapes only."""
    hash: bool = False
    tiles: bool = False
    deadline_s: float = 10.0


def ask_of(body: Mapping[str, Any]) -> Ask:
    """Raises ValueError with the field that is wrong."""
    ignore = body.get("ignore") or []
    if not isinstance(ignore, list) or len(ignore) > MAX_IGNORED:
        raise ValueError(f"ignore: expected at most {MAX_IGNORED} regions")
    pid, wanted = body.get("pid"), body.get("pictures") or []
    if pid is not None and (type(pid) is not int or pid < 1):
        raise ValueError("pid: expected a number")
    if not isinstance(wanted, list) or len(wanted) > MAX_PICTURES or any(kind not in PICTURES for kind in wanted):
        raise ValueError(f"pictures: expected at most {MAX_PICTURES} of {', '.join(PICTURES)}")
    return Ask(
        frames=int(_number(body, "frames", 3, 1, MAX_FRAMES)),
        interval_s=_number(body, "interval_s", 1.0, 0, MAX_INTERVAL_S),
        ignore=tuple(_region(each) for each in ignore),
        pid=pid,
        pictures=tuple(wanted),
        blur=body.get("blur") is True,
        hash=body.get("hash") is True,
        tiles=body.get("tiles") is True,
        deadline_s=_number(body, "deadline_s", 10.0, 0.1, MAX_DEADLINE_S),
    )


def _number(body: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{name}: expected a number from {least:g} to {most:g}")
    return value


def _region(value: object) -> Region:
    if isinstance(value, list) and len(value) == 4 and all(isinstance(each, int | float) for each in value):
        left, top, width, height = map(float, value)
        if all(0 <= each <= 1 for each in (left, top, width, height)):
            return left, top, width, height
    raise ValueError("ignore: expected regions of four fractions each")


def take(ask: Ask, settings: Settings, *, check_lock: bool = False) -> tuple[Burst | Blind, list[bytes]]:
    """What was seen, and the pictures that were asked for. Never raises; may take longer than the deadline."""
    try:
        if check_lock and outputs.is_locked(os.getuid()):
            return Blind(Blindness.LOCKED, "the session says so"), []
        return _look(ask, settings)
    except BlindError as error:
        return error.blind, []
    except Exception as error:  # noqa: BLE001 - whatever a picture or a player did, it is an answer
        return Blind(Blindness.FAILED, f"{type(error).__name__}: {error}"[:500]), []


def _look(ask: Ask, settings: Settings) -> tuple[Burst, list[bytes]]:
    meter = measure.Meter(ask.ignore)
    kept: list[Frame] = []
    with open_camera(settings, ask.pid) as camera:
        observer = Observer(ask.pid, settings.devtools_port)
        began = time.monotonic()
        for number in range(ask.frames):
            time.sleep(max(0.0, began + number * ask.interval_s - time.monotonic()))
            frame = camera.frame()
            meter.add(frame)
            # The buffer of a frame is the next one's as well.
            kept = [*kept, _copy(frame)] if "explain" in ask.pictures else [frame]
            if meter.decided and not ask.tiles and "explain" not in ask.pictures:
                break
        witness = observer.verdict()
        seen = meter.result(tiles=ask.tiles)
        last = kept[-1]
        found = None
        if ask.hash and seen.content[-1] > HASHABLE:
            sys.path.append(str(VENDOR))
            # One thread is enough, and each more would take memory of its own.
            os.environ["OPENBLAS_NUM_THREADS"] = "1"
            found = measure.perceptual_hash(upright(last))
        numbers = {name: getattr(seen, name) for name in seen.__slots__}
        burst = Burst(**numbers, backend=camera.name, hash=found, windows=camera.windows, witness=witness)
        return burst, [_picture(kind, ask, kept) for kind in ask.pictures]


def _copy(frame: Frame) -> Frame:
    return Frame(upright(frame).copy(), frame.at)


def _picture(kind: str, ask: Ask, kept: list[Frame]) -> bytes:
    if kind == "thumbnail":
        return measure.thumbnail(upright(kept[-1]), ask.blur)
    if kind == "explain":
        return measure.explain(kept, ask.ignore)
    return _encoded(upright(kept[-1]), kind)


def _encoded(image: Image.Image, kind: str) -> bytes:
    into = io.BytesIO()
    if kind == "png":
        image.save(into, "PNG", compress_level=PNG_LEVEL)
    else:
        image.save(into, "JPEG", quality=JPEG_QUALITY)
    return into.getvalue()


def said(found: Burst | Blind) -> dict[str, Any]:
    """As it goes over the wire."""
    return {"burst" if isinstance(found, Burst) else "blind": asdict(found)}
