"""What the player itself says beside the picture: asked when a burst begins and when it ends.

The door to it is found in the player's own command line: mpv's --input-ipc-server, VLC's --rc-unix or --rc-host,
Chromium's --remote-debugging-port. Without one there is only the CPU time that it used.
"""

import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infoscreen_device.core.picture import Page, Witness
from infoscreen_device.screen import devtools, processes

ANSWER_S = 1.0
"""For mpv and VLC, which need some milliseconds or are stopped."""
MAX_ANSWER = 100_000
MOVED_S = 0.01
"""A position that differs by less is the same."""
VLC_SPAN_S = 1.5
"""VLC tells its position in whole seconds."""
BUSY = 0.005
"""Share of one core. A film, even one decoded in hardware, takes several times as much; a paused mpv less."""
MPV_ASKED = ("time-pos", "pause", "core-idle", "idle-active", "paused-for-cache", "current-tracks/video/image")
HTTP_ERROR = 400
"""HTTP status from which on a document is an error page (RFC 9110, section 15)."""


class NoDoorError(Exception):
    """Nobody listens there, or somebody else than expected."""


@dataclass(frozen=True, slots=True)
class Said:
    """One answer of a player."""

    position: float | None = None
    """Seconds, or anything that grows while it plays; None if it has none to tell."""
    halted: bool = False
    """It says itself that it does not play on."""
    page: Page | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Door:
    kind: str
    """As in Witness.kind."""
    ask: Callable[[], Said]
    """Raises NoDoorError, TimeoutError."""
    coarse_s: float = 0.0
    """Positions are told in steps of so many seconds."""
    devtools_port: int | None = None


class Observer:
    """Made when a burst begins; `verdict` at its end. Neither raises, and both together take a few seconds at most."""

    def __init__(self, pid: int | None, devtools_port: int | None = None) -> None:
        self._began = time.monotonic()
        self._family = processes.family(pid) if pid is not None and processes.lives(pid) else []
        self._cpu_s = processes.cpu_s(self._family)
        self._door = find_door(self._family, devtools_port)
        self._first = _asked(self._door)

    def verdict(self) -> Witness | None:
        """None if there is nobody to ask."""
        last = _asked(self._door)
        if self._door is None or isinstance(last, NoDoorError):
            return self._by_cpu(str(last) if isinstance(last, NoDoorError) else "")
        if isinstance(last, TimeoutError) or last is None:
            return self._silent(self._door)
        first = self._first if isinstance(self._first, Said) else None
        return Witness(
            kind=self._door.kind,
            advances=self._advances(self._door, first, last),
            page=last.page,
            detail=last.detail,
        )

    def _silent(self, door: Door) -> Witness:
        if isinstance(self._first, Said):
            # It spoke a moment ago: too soon to say that it does not.
            return Witness(door.kind, detail="answered at first only", page=self._first.page)
        stopped = " (stopped)" if any(map(processes.is_stopped, self._family)) else ""
        return Witness(door.kind, answers=False, detail=f"no answer{stopped}")

    def _advances(self, door: Door, first: Said | None, last: Said) -> bool | None:
        if last.halted:
            return False
        if first is None or first.position is None or last.position is None:
            return None
        if abs(last.position - first.position) >= MOVED_S:
            return True
        return False if time.monotonic() - self._began >= door.coarse_s else None

    def _by_cpu(self, why: str) -> Witness | None:
        if not self._family or not processes.lives(self._family[0]):
            return None
        if processes.is_stopped(self._family[0]):
            return Witness("cpu", advances=False, answers=False, detail="the player is stopped")
        span_s = time.monotonic() - self._began
        # Also what the family got in the meantime; what left it is counted with its parent.
        used_s = processes.cpu_s(processes.family(self._family[0])) - self._cpu_s
        # One tick of the clock is as exact as this is.
        idle = used_s <= max(processes.TICK_S, BUSY * span_s)
        detail = f"{used_s:.2f} s of CPU time in {span_s:.1f} s"
        return Witness("cpu", advances=False if idle else None, detail=f"{detail}; {why}" if why else detail)


def _asked(door: Door | None) -> Said | NoDoorError | TimeoutError | None:
    if door is None:
        return None
    try:
        return door.ask()
    except (NoDoorError, TimeoutError) as error:
        return error


# --- which door -------------------------------------------------------------------------------------------------------


def find_door(family: Sequence[int], devtools_port: int | None = None) -> Door | None:
    """The first that any process of the player was started with; a port that was set by hand wins."""
    if devtools_port is not None:
        return _devtools_door(devtools_port)
    for pid in family:
        arguments = processes.arguments(pid)
        door = _door_of(arguments, processes.directory(pid)) if len(arguments) > 1 else None
        if door is not None:
            return door
    return None


def _door_of(arguments: Sequence[str], folder: Path) -> Door | None:
    if path := option(arguments, "input-ipc-server"):
        return Door("mpv", lambda: ask_mpv(folder / path))
    if path := option(arguments, "rc-unix"):
        return Door("vlc", lambda: ask_vlc(str(folder / path)), VLC_SPAN_S)
    # Only of this machine: whoever answers elsewhere is not the player.
    if host := re.fullmatch(r"(?:127\.0\.0\.1|localhost|\*)?:(\d{1,5})", option(arguments, "rc-host")):
        return Door("vlc", lambda: ask_vlc(int(host[1])), VLC_SPAN_S)
    port = option(arguments, "remote-debugging-port")
    if port.isdecimal() and int(port) == 0:
        port = _active_port(folder / option(arguments, "user-data-dir"))
    return _devtools_door(int(port)) if port.isdecimal() and 0 < int(port) < 65_536 else None


def _devtools_door(port: int) -> Door:
    return Door("devtools", lambda: ask_page(port), devtools_port=port)


def option(arguments: Sequence[str], name: str) -> str:
    """--name=VALUE or --name VALUE; "" if it is not there."""
    for at, word in enumerate(arguments[1:], 1):
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
        if word == f"--{name}" and at + 1 < len(arguments):
            return arguments[at + 1]
    return ""


def _active_port(profile: Path) -> str:
    """Chromium writes into its profile which port it took, in the first line."""
    try:
        return (profile / "DevToolsActivePort").read_text("ascii", "replace").partition("\n")[0].strip()
    except OSError:
        return ""


# --- asking -----------------------------------------------------------------------------------------------------------


def ask_mpv(path: Path) -> Said:
    """https://mpv.io/manual/stable/#json-ipc: one JSON object a line, events between the answers."""
    asked = [{"command": ["get_property", name], "request_id": at} for at, name in enumerate(MPV_ASKED, 1)]
    text = "".join(json.dumps(each) + "\n" for each in asked)
    found: dict[int, Any] = {}

    def all_answered(received: bytes) -> bool:
        for line in received.split(b"\n")[:-1]:
            try:
                answer = json.loads(line)
            except (ValueError, RecursionError):
                raise NoDoorError("what listens there is no mpv") from None
            if isinstance(answer, dict) and isinstance(answer.get("request_id"), int) and "error" in answer:
                found[answer["request_id"]] = answer.get("data")
        return all(at in found for at, _ in enumerate(MPV_ASKED, 1))

    _talk(str(path), text.encode(), all_answered)
    position, paused, idle, nothing, buffers, still = (found[at] for at, _ in enumerate(MPV_ASKED, 1))
    why = "nothing to play" if nothing else "paused" if paused else "buffering" if buffers else ""
    if still or not isinstance(position, int | float):
        # A picture has no position that could go on.
        return Said(None, halted=bool(nothing) and not still, detail="a picture" if still else why)
    detail = f"position {position:.1f} s" + (f", {why}" if why else ", idle" if idle else "")
    return Said(float(position), halted=bool(paused), detail=detail)


def ask_vlc(address: str | int) -> Said:
    """VLC's rc interface: a line is a command, and each of these answers with one number."""
    numbers: list[bytes] = []

    def both_answered(received: bytes) -> bool:
        # A prompt may stand before the number; other lines tell what goes on.
        numbers[:] = re.findall(rb"(?m)^(?:> )*(\d{1,9})\r?$", received)
        return len(numbers) >= 2

    _talk(address, b"is_playing\nget_time\n", both_answered)
    playing, position = numbers[0] != b"0", float(numbers[1])
    detail = f"position {position:.0f} s" + ("" if playing else ", does not play")
    return Said(position, halted=not playing, detail=detail)


def ask_page(port: int) -> Said:
    try:
        with devtools.Page(port) as page:
            state = page.state()
    except devtools.DevToolsError as error:
        raise NoDoorError(f"DevTools: {error}") from None
    except devtools.CrashedError as error:
        return Said(page=Page.CRASHED, detail=str(error))
    address, status, films = (state.get(name) for name in ("address", "status", "films"))
    detail = str(address)[:200]
    failed = isinstance(address, str) and address.startswith("chrome-error:")
    if isinstance(status, int) and status >= HTTP_ERROR:
        failed, detail = True, f"HTTP status {status} of {detail}"
    position = _position(films)
    return Said(position, page=Page.ERROR if failed else Page.FINE, detail=detail)


def _position(films: object) -> float | None:
    """Of all videos together: it stands still only if all of them do."""
    if not isinstance(films, list) or not films:
        return None
    positions = [film[1] for film in films if isinstance(film, list) and len(film) == 2]
    # An endless live stream has a position too; what is no number is not from our question.
    numbers = [float(each) for each in positions if isinstance(each, int | float) and abs(each) < 1e12]
    return sum(numbers) if numbers else None


def _talk(address: str | int, said: bytes, enough: Callable[[bytes], bool]) -> None:
    """Says it and hands all that comes back to `enough` until that is true. Raises NoDoorError, TimeoutError."""
    deadline = time.monotonic() + ANSWER_S
    received = b""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(ANSWER_S)
            connection.connect(address if isinstance(address, str) else (devtools.HOST, address))
            connection.sendall(said)
            while not enough(received):
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                data = connection.recv(65_536)
                received += data
                if not data or len(received) > MAX_ANSWER:
                    raise NoDoorError("the player hung up")
                if time.monotonic() > deadline:
                    raise TimeoutError
        except (TimeoutError, BlockingIOError):
            # A stopped process takes nobody in, and then its queue is full (connect(2)).
            raise TimeoutError from None
        except OSError as error:
            raise NoDoorError(f"{address}: {error.strerror or error}") from None
