"""A browser's own word about its page, and the page's picture, by Chromium's DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/: a list of pages by HTTP, then one WebSocket (RFC 6455) to a page.
Both are small enough here to be done by hand: a library for each would cost every look more than the look itself.
"""

import base64
import binascii
import json
import os
import re
import socket
import struct
import time
from types import TracebackType
from typing import Any

from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen.camera import CAPTURE_S, MAX_PICTURE_BYTES, BlindError
from infoscreen_device.screen.pictures import open_picture
from infoscreen_device.screen.tilemaps import Frame

HOST = "127.0.0.1"
MAX_ANSWER = 1_000_000
LIST_S = 1.0
"""The browser itself answers within some milliseconds, or is stopped."""
EVALUATE_S = 2.0
"""What a page may take for a word; a page that is busy with its own work for longer is as good as hung."""
_TEXT, _CLOSE, _CONTINUED, _FINAL, _MASKED = 1, 8, 0, 0x80, 0x80

STATE = """(() => {
  const visit = performance.getEntriesByType("navigation")[0];
  const films = [...document.querySelectorAll("video")].map((film) => {
    const box = film.getBoundingClientRect();
    return [box.width * box.height, film.currentTime];
  });
  return JSON.stringify({
    address: location.href.slice(0, 200),
    status: (visit && visit.responseStatus) || 0,
    films: films.filter((film) => film[0] > 0).slice(0, 16),
  });
})()"""
"""Where the page is, its HTTP status (Chromium 109), and area and position of its videos that are shown."""


class DevToolsError(Exception):
    """There is no such door, or what is behind it is no browser."""


class CrashedError(Exception):
    """The page's renderer is gone, or answers no more, while the browser does."""


class Page:
    """The connection to a browser's page. Raises DevToolsError; TimeoutError if the browser does not answer."""

    def __init__(self, port: int) -> None:
        self._left_over = b""
        self._last_id = 0
        self._socket = _connect(port, time.monotonic() + LIST_S)
        try:
            path = _page_path(port)
            self._shake_hands(port, path)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()

    def state(self) -> dict[str, Any]:
        """What STATE says. Raises CrashedError too."""
        deadline = time.monotonic() + EVALUATE_S
        try:
            # The browser answers this with Inspector.targetCrashed if there is no renderer any more.
            self.call("Inspector.enable", {}, deadline)
            asked = {"expression": STATE, "returnByValue": True, "silent": True}
            answer = self.call("Runtime.evaluate", asked, deadline)
        except TimeoutError:
            raise CrashedError(f"the page has not answered for {EVALUATE_S:g} s") from None
        value = answer.get("result", {}).get("value")
        try:
            state = json.loads(value if isinstance(value, str) else "{}")
        except (ValueError, RecursionError):
            state = {}
        return state if isinstance(state, dict) else {}

    def picture(self) -> bytes:
        """PNG of what the page draws. Raises CrashedError, and TimeoutError after CAPTURE_S."""
        asked = {"format": "png", "optimizeForSpeed": True}
        answer = self.call("Page.captureScreenshot", asked, time.monotonic() + CAPTURE_S, 2 * MAX_PICTURE_BYTES)
        try:
            return base64.b64decode(answer.get("data", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise DevToolsError("no picture in the answer") from None

    def call(self, method: str, asked: dict[str, Any], deadline: float, limit: int = MAX_ANSWER) -> dict[str, Any]:
        """Raises TimeoutError after `deadline` (monotonic)."""
        self._last_id += 1
        self._send(json.dumps({"id": self._last_id, "method": method, "params": asked}).encode(), deadline)
        while True:
            try:
                said = json.loads(self._message(deadline, limit))
            except (ValueError, RecursionError):
                raise DevToolsError("an answer is no JSON") from None
            if not isinstance(said, dict):
                raise DevToolsError("an answer is no JSON object")
            if said.get("method") == "Inspector.targetCrashed":
                raise CrashedError("the page's renderer has crashed")
            if said.get("id") == self._last_id:
                if not isinstance(said.get("result"), dict):
                    raise DevToolsError(f"{method}: {str(said.get('error'))[:200]}")
                result: dict[str, Any] = said["result"]
                return result

    # --- WebSocket ----------------------------------------------------------------------------------------------------

    def _shake_hands(self, port: int, path: str) -> None:
        deadline = time.monotonic() + LIST_S
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        _send_all(self._socket, "\r\n".join(lines).encode(), deadline)
        head = b""
        while b"\r\n\r\n" not in head:
            head += _receive(self._socket, deadline)
            if len(head) > MAX_ANSWER:
                raise DevToolsError("that is no browser")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise DevToolsError(f"no WebSocket: {head[:100]!r}")
        self._left_over = head.partition(b"\r\n\r\n")[2]

    def _send(self, data: bytes, deadline: float) -> None:
        assert len(data) < 65_536
        mask = os.urandom(4)
        length = bytes([_MASKED | len(data)]) if len(data) < 126 else struct.pack(">BH", _MASKED | 126, len(data))
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        _send_all(self._socket, bytes([_FINAL | _TEXT]) + length + mask + masked, deadline)

    def _message(self, deadline: float, limit: int) -> bytes:
        message = bytearray()
        while True:
            first, length = self._take(2, deadline)
            if length == 126:
                (length,) = struct.unpack(">H", self._take(2, deadline))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._take(8, deadline))
            if length + len(message) > limit:
                raise DevToolsError("an answer is too long")
            data = self._take(length, deadline)
            kind = first & 0x0F
            if kind == _CLOSE:
                raise DevToolsError("the browser has closed the page")
            if kind in (_TEXT, _CONTINUED):
                message += data
                if first & _FINAL:
                    return bytes(message)

    def _take(self, length: int, deadline: float) -> bytes:
        data = bytearray(self._left_over)
        while len(data) < length:
            data += _receive(self._socket, deadline)
        self._left_over = bytes(data[length:])
        return bytes(data[:length])


class DevToolsCamera:
    """The page as the browser draws it: whether it reaches the screen is not seen."""

    name = "devtools"
    windows: int | None = None

    def __init__(self, port: int) -> None:
        """Raises BlindError."""
        try:
            self._page = Page(port)
        except DevToolsError as error:
            raise BlindError(Blindness.FAILED, f"DevTools: {error}") from None
        except TimeoutError:
            raise BlindError(Blindness.TIMEOUT, "DevTools: the browser does not answer") from None

    def __enter__(self) -> "DevToolsCamera":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._page.__exit__()

    def frame(self) -> Frame:
        """Raises BlindError."""
        try:
            return Frame(open_picture(self._page.picture()), time.monotonic())
        except (DevToolsError, CrashedError, ValueError) as error:
            raise BlindError(Blindness.FAILED, f"DevTools: {error}") from None
        except TimeoutError:
            raise BlindError(Blindness.TIMEOUT, f"DevTools: no picture within {CAPTURE_S:g} s") from None


def _page_path(port: int) -> str:
    """Of the page that was shown last, in the list of all."""
    deadline = time.monotonic() + LIST_S
    with _connect(port, deadline) as connection:
        _send_all(connection, f"GET /json/list HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode(), deadline)
        received = b""
        while (body := _body(received)) is None:
            received += _receive(connection, deadline)
            if len(received) > MAX_ANSWER:
                raise DevToolsError("that is no browser")
    try:
        pages = [page for page in json.loads(body) if page.get("type") == "page"]
        address: str = pages[0]["webSocketDebuggerUrl"]
    except (ValueError, RecursionError, TypeError, AttributeError, LookupError):
        raise DevToolsError("the browser has no page") from None
    path = re.fullmatch(r"ws://[^/]+(/[\w/.-]+)", address)
    if path is None:
        raise DevToolsError("that is no browser")
    return path[1]


def _body(received: bytes) -> bytes | None:
    """The body of an HTTP answer; None as long as it is not whole."""
    head, ended, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d{1,7})", head, re.IGNORECASE)
    if not ended or (length is not None and len(body) < int(length[1])):
        return None
    if length is None:
        raise DevToolsError("that is no browser")
    return body


def _connect(port: int, deadline: float) -> socket.socket:
    try:
        return socket.create_connection((HOST, port), _left(deadline))
    except TimeoutError:
        raise
    except OSError as error:
        raise DevToolsError(f"port {port}: {error.strerror or error}") from None


def _send_all(connection: socket.socket, data: bytes, deadline: float) -> None:
    try:
        connection.settimeout(_left(deadline))
        connection.sendall(data)
    except TimeoutError:
        raise
    except OSError as error:
        raise DevToolsError(error.strerror or str(error)) from None


def _receive(connection: socket.socket, deadline: float) -> bytes:
    try:
        connection.settimeout(_left(deadline))
        data = connection.recv(1_000_000)
    except TimeoutError:
        raise
    except OSError as error:
        raise DevToolsError(error.strerror or str(error)) from None
    if not data:
        raise DevToolsError("the browser hung up")
    return data


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
