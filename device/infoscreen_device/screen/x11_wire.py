"""The few questions to an X server for which a picture is not enough. Only a local server, and every wait has an end.

X protocol: https://www.x.org/releases/current/doc/xproto/x11protocol.html (appendix B has the encoding); DPMS:
…/doc/xextproto/dpms.html; MIT-SCREEN-SAVER: …/doc/scrnsaverproto/saver.html.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from infoscreen_device import session

_PEERCRED = struct.Struct("3i")
_GET_ATTRIBUTES, _GET_GEOMETRY, _QUERY_TREE, _INTERN_ATOM, _GET_PROPERTY, _QUERY_EXTENSION = 3, 14, 15, 16, 20, 98
_DPMS_INFO, _SAVER_INFO = 7, 1
_VIEWABLE, _INPUT_OUTPUT, _SAVER_ON = 2, 1, 1
_MAX_REPLY = 1_000_000
SMALLEST = 16
"""Pixels; programs keep windows of a pixel or ten for their own ends."""


class X11Error(Exception):
    """The server let us not in, hung up, or gave no such answer."""


class X11Wire:
    """Raises X11Error, and TimeoutError after `deadline` (monotonic)."""

    def __init__(self, number: str, environ: Mapping[str, str], deadline: float, x11: Path = session.X11) -> None:
        self._deadline = deadline
        self._atoms: dict[str, int] = {}
        for cookie in (*session.cookies(number, environ), None):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.settimeout(self._left())
                self._socket.connect(str(x11 / f"X{number}"))
                self._socket.sendall(session.greeting(cookie))
                setup = self._setup()
            except TimeoutError:
                self._socket.close()
                raise
            except OSError as error:
                self._socket.close()
                raise X11Error(error.strerror or str(error)) from None
            if setup is not None:
                self._begin(setup)
                return
            self._socket.close()
        raise X11Error("the X server does not let this user in")

    def close(self) -> None:
        self._socket.close()

    def server(self) -> str:
        """The name of the program that listens there; "" if that is not to be seen."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        pid: int = _PEERCRED.unpack(raw)[0]
        try:
            return Path(f"/proc/{pid}/comm").read_text().strip() if pid else ""
        except OSError:
            return ""

    def has(self, extension: str) -> bool:
        return self._extension(extension) is not None

    def dark(self) -> str:
        """Why nobody sees what is drawn; "" if nothing speaks against it."""
        dpms = self._extension("DPMS")
        if dpms is not None:
            level, enabled = struct.unpack_from("<H?", self._ask(struct.pack("<BBH", dpms, _DPMS_INFO, 1)), 8)
            if enabled and level:
                return "the X server has switched the screen off (DPMS)"
        saver = self._extension("MIT-SCREEN-SAVER")
        if saver is not None:
            answer = self._ask(struct.pack("<BBHI", saver, _SAVER_INFO, 2, self._root))
            if answer[1] == _SAVER_ON:
                return "the screen saver of the X server is on"
        return ""

    def windows(self) -> int:
        """How many programs' windows can be seen; panels and the desktop do not count."""
        clients = self._property(self._root, "_NET_CLIENT_LIST")
        if clients is None:
            # No window manager that says so: what lies on the root is a window, or the frame around one.
            tree = self._ask(struct.pack("<BBHI", _QUERY_TREE, 0, 2, self._root))
            clients = _numbers(tree[32:])
            return sum(self._shows(window) for window in clients)
        furniture = {self._atom(f"_NET_WM_WINDOW_TYPE_{kind}") for kind in ("DESKTOP", "DOCK")}
        return sum(
            self._shows(window) and not furniture & {*(self._property(window, "_NET_WM_WINDOW_TYPE") or ())}
            for window in clients
        )

    # --- requests -----------------------------------------------------------------------------------------------------

    def _shows(self, window: int) -> bool:
        try:
            attributes = self._ask(struct.pack("<BBHI", _GET_ATTRIBUTES, 0, 2, window))
            geometry = self._ask(struct.pack("<BBHI", _GET_GEOMETRY, 0, 2, window))
        except X11Error:
            return False  # it was closed just now
        (kind,) = struct.unpack_from("<H", attributes, 12)
        width, height = struct.unpack_from("<HH", geometry, 16)
        return kind == _INPUT_OUTPUT and attributes[26] == _VIEWABLE and min(width, height) >= SMALLEST

    def _property(self, window: int, name: str) -> tuple[int, ...] | None:
        """A property that is a list of numbers; None if it is not set."""
        asked = struct.pack("<BBHIIIII", _GET_PROPERTY, 0, 6, window, self._atom(name), 0, 0, 1024)
        try:
            answer = self._ask(asked)
        except X11Error:
            return None
        (length,) = struct.unpack_from("<I", answer, 16)
        return _numbers(answer[32 : 32 + 4 * length]) if answer[1] == 32 else None

    def _atom(self, name: str) -> int:
        if name not in self._atoms:
            answer = self._ask(_named(_INTERN_ATOM, name))
            (self._atoms[name],) = struct.unpack_from("<I", answer, 8)
        return self._atoms[name]

    def _extension(self, name: str) -> int | None:
        answer = self._ask(_named(_QUERY_EXTENSION, name))
        return answer[9] if answer[8] else None

    def _ask(self, request: bytes) -> bytes:
        try:
            self._socket.sendall(request)
            while True:
                head = self._read(32)
                if head[0] == 0:
                    raise X11Error(f"the X server refused: error {head[1]}")
                if head[0] == 1:
                    (more,) = struct.unpack_from("<I", head, 4)
                    return head + self._read(4 * more)
        except TimeoutError:
            raise
        except OSError as error:
            raise X11Error(error.strerror or str(error)) from None

    def _setup(self) -> bytes | None:
        """What the server tells of itself; None if it does not let us in."""
        head = self._read(8)
        (more,) = struct.unpack_from("<H", head, 6)
        body = self._read(4 * more)
        return body if head[0] == 1 else None

    def _begin(self, setup: bytes) -> None:
        vendor, _, _, formats = struct.unpack_from("<HHBB", setup, 16)
        at = 32 + vendor + -vendor % 4 + 8 * formats
        (self._root,) = struct.unpack_from("<I", setup, at)

    def _read(self, length: int) -> bytes:
        if length > _MAX_REPLY:
            raise X11Error("an answer is too long")
        data = b""
        while len(data) < length:
            self._socket.settimeout(self._left())
            more = self._socket.recv(length - len(data))
            if not more:
                raise X11Error("the X server hung up")
            data += more
        return data

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _named(opcode: int, name: str) -> bytes:
    """QueryExtension and InternAtom: of four bytes each, the name rounded up."""
    padded = name.encode() + bytes(-len(name) % 4)
    return struct.pack("<BBHHxx", opcode, 0, 2 + len(padded) // 4, len(name)) + padded


def _numbers(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])
