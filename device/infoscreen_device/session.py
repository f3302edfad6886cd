"""Where a program finds the screen: the Wayland or X11 session of its user that runs now. Looks, and starts nothing.

A system service has no session of its own, and the session may begin after it and come and go while it runs.
"""

import re
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

RUNTIME = Path("/run/user")
"""logind makes a folder for each user who is signed in (pam_systemd(8)); no one else may look into it."""
X11 = Path("/tmp/.X11-unix")  # noqa: S108  # X(7) names it
ANSWER_S = 1.0
_COOKIE = b"MIT-MAGIC-COOKIE-1"


def find(environ: Mapping[str, str], uid: int, runtime: Path = RUNTIME, x11: Path = X11) -> dict[str, str] | None:
    """What to add to the environment of a player of this user; None while there is no screen.

    DISPLAY and WAYLAND_DISPLAY of `environ` hold: then only whether one of them is there is looked at. Without them it
    is the user's Wayland session, or else the first X server that lets this user in.
    """
    own = Path(environ.get("XDG_RUNTIME_DIR") or runtime / str(uid))
    # Also for X11: the way to the sound is in there.
    found = {"XDG_RUNTIME_DIR": str(own)} if own.is_dir() else {}
    if environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY"):
        return found if _told_is_there(environ, own, x11) else None
    return _wayland(own, found, uid, x11) or _x11(found, x11, environ)


def _told_is_there(environ: Mapping[str, str], own: Path, x11: Path) -> bool:
    name, display = environ.get("WAYLAND_DISPLAY"), environ.get("DISPLAY")
    if name and _answers(own / name):
        return True
    local = re.fullmatch(r":(\d+)(?:\.\d+)?", display or "")
    # Another machine's screen is not looked at from here.
    return _lets_in(x11, local[1], environ) if local else bool(display)


def _wayland(own: Path, found: dict[str, str], uid: int, x11: Path) -> dict[str, str] | None:
    names = (path.name for path in sorted(own.glob("wayland-*")) if path.suffix != ".lock")
    name = next((name for name in names if _answers(own / name)), None)
    if name is None:
        return None
    # Its way for X11 programs is only looked at: a call would start Xwayland.
    xwayland = next((number for number in _numbers(x11) if _owner(x11 / f"X{number}") == uid), None)
    found = found if xwayland is None else {**found, "DISPLAY": f":{xwayland}"}
    return {**found, "WAYLAND_DISPLAY": name, "XDG_SESSION_TYPE": "wayland"}


def _answers(path: Path) -> bool:
    """Somebody listens there: the socket of a killed session stays behind."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


# --- X11 --------------------------------------------------------------------------------------------------------------


def _x11(found: dict[str, str], x11: Path, environ: Mapping[str, str]) -> dict[str, str] | None:
    number = next((number for number in _numbers(x11) if _lets_in(x11, number, environ)), None)
    return None if number is None else {**found, "DISPLAY": f":{number}", "XDG_SESSION_TYPE": "x11"}


def _numbers(x11: Path) -> list[str]:
    return sorted((path.name[1:] for path in x11.glob("X*") if path.name[1:].isdecimal()), key=int)


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _lets_in(x11: Path, number: str, environ: Mapping[str, str]) -> bool:
    """The server takes us for one of its own: while somebody else is signed in, or nobody yet, it does not.

    It is asked, since a player that is turned away may well go on without a picture.
    """
    return any(_greets(x11 / f"X{number}", cookie) for cookie in (*cookies(number, environ), None))


def _greets(path: Path, cookie: bytes | None) -> bool:
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(ANSWER_S)
        try:
            server.connect(str(path))
            server.sendall(greeting(cookie))
            return server.recv(1) == b"\x01"
        except OSError:
            return False


def greeting(cookie: bytes | None) -> bytes:
    """The first words of the X11 protocol, version 11.0, little endian; a 1 is the server's yes."""
    name, data = (b"", b"") if cookie is None else (_COOKIE, cookie)
    padded = b"".join(part + bytes(-len(part) % 4) for part in (name, data))
    return struct.pack("<cxHHHHxx", b"l", 11, 0, len(name), len(data)) + padded


def cookies(number: str, environ: Mapping[str, str]) -> set[bytes]:
    """What the user has for this display (Xau(3)); of whatever host, for hosts are renamed."""
    try:
        data = Path(environ.get("XAUTHORITY") or Path(environ.get("HOME", "/")) / ".Xauthority").read_bytes()
    except OSError:
        return set()
    entries = list(_fields(data))
    return {
        cookie
        for _, for_number, name, cookie in zip(*(entries[at::4] for at in range(4)), strict=False)
        if name == _COOKIE and for_number in (b"", number.encode())
    }


def _fields(data: bytes) -> Iterator[bytes]:
    """Address, number, name and data of each entry, which all have their length before them; the family is skipped."""
    at, count = 0, 0
    while at + 2 <= len(data):
        if count % 4 == 0:
            at += 2
        length = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + length]
        at, count = at + 2 + length, count + 1
