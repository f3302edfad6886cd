"""The Wayland protocol's wire: objects, requests, events, and files handed over. Every wait ends at the deadline.

Format and the core interfaces: https://wayland.freedesktop.org/docs/html/ (chapter 4, and appendix A for the numbers of
requests and events). What is drawn or captured is for wayland.py.
"""

import array
import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

DISPLAY = 1
"""The object that every connection begins with."""
_SYNC, _GET_REGISTRY = 0, 1
_ERROR = 0
_GLOBAL, _GLOBAL_REMOVE = 0, 1
_HEADER = struct.Struct("=IHH")
_WORD = struct.Struct("=I")

Handler = Callable[[int, "Arguments"], None]
"""Gets an event's number and what it carries."""


class WaylandError(Exception):
    """The compositor refused, hung up, or speaks no Wayland."""


class Arguments:
    """What an event carries, taken one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def word(self) -> int:
        try:
            (value,) = _WORD.unpack_from(self._data, self._at)
        except struct.error:
            raise WaylandError("an event is too short") from None
        self._at += 4
        return int(value)

    def text(self) -> str:
        length = self.word()
        raw = self._data[self._at : self._at + length]
        self._at += length + -length % 4
        return raw.rstrip(b"\0").decode("utf-8", "replace")

    def words(self) -> tuple[int, ...]:
        """An array of numbers."""
        length = self.word()
        raw = self._data[self._at : self._at + length]
        self._at += length + -length % 4
        return tuple(array.array("I", raw[: length - length % 4]))


def text(value: str) -> bytes:
    """A string as an argument."""
    raw = value.encode() + b"\0"
    return _WORD.pack(len(raw)) + raw + bytes(-len(raw) % 4)


class Connection:
    """Raises WaylandError, and TimeoutError after `deadline` (monotonic)."""

    def __init__(self, path: Path, deadline: float) -> None:
        self.deadline = deadline
        self._handlers: dict[int, Handler] = {DISPLAY: self._on_display}
        self._last = DISPLAY
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(self._left())
            self._socket.connect(str(path))
        except BlockingIOError:
            # Its queue is full (connect(2)): it has taken nobody in for a long time.
            self.close()
            raise TimeoutError from None
        except OSError as error:
            self.close()
            raise WaylandError(f"{path}: {error.strerror or error}") from None

    def close(self) -> None:
        self._socket.close()

    def new(self, handler: Handler | None = None) -> int:
        """A fresh object's id, and who hears its events."""
        self._last += 1
        self.listen(self._last, handler)
        return self._last

    def listen(self, target: int, handler: Handler | None) -> None:
        if handler is not None:
            self._handlers[target] = handler

    def request(self, target: int, number: int, arguments: bytes = b"", *, fd: int | None = None) -> None:
        message = _HEADER.pack(target, number, 8 + len(arguments)) + arguments
        try:
            self._socket.settimeout(self._left())
            if fd is None:
                self._socket.sendall(message)
            elif socket.send_fds(self._socket, [message], [fd]) != len(message):
                raise WaylandError("a request was sent only in part")
        except (BrokenPipeError, ConnectionError):
            # Its last words may say why.
            self.pump(lambda: False)

    def globals(self) -> tuple[int, dict[str, list[tuple[int, int]]]]:
        """The registry's object, and of each interface that is offered the names and versions."""
        found: dict[str, list[tuple[int, int]]] = {}

        def heard(number: int, arguments: Arguments) -> None:
            if number == _GLOBAL:
                name, interface, version = arguments.word(), arguments.text(), arguments.word()
                found.setdefault(interface, []).append((name, version))

        registry = self.new(heard)
        self.request(DISPLAY, _GET_REGISTRY, words(registry))
        self.roundtrip()
        return registry, found

    def bind(self, registry: int, name: int, interface: str, version: int, handler: Handler | None = None) -> int:
        made = self.new(handler)
        self.request(registry, 0, words(name) + text(interface) + words(version, made))
        return made

    def roundtrip(self) -> None:
        """Until the compositor has answered all that was asked."""
        answered = False

        def heard(_number: int, _arguments: Arguments) -> None:
            nonlocal answered
            answered = True

        self.request(DISPLAY, _SYNC, words(self.new(heard)))
        self.pump(lambda: answered)

    def pump(self, done: Callable[[], bool]) -> None:
        """Hands out events until `done`."""
        while not done():
            self._socket.settimeout(self._left())
            try:
                # Files may come along (keyboard layouts); recv without room for them drops them.
                data = self._socket.recv(65_536)
            except ConnectionError:
                data = b""
            if not data:
                raise WaylandError("the compositor hung up")
            self._received += data
            self._hand_out()

    def _hand_out(self) -> None:
        while len(self._received) >= _HEADER.size:
            target, number, size = _HEADER.unpack_from(self._received)
            if size < _HEADER.size:
                raise WaylandError("that is no Wayland")
            if len(self._received) < size:
                return
            arguments = Arguments(bytes(self._received[_HEADER.size : size]))
            del self._received[:size]
            handler = self._handlers.get(target)
            if handler is not None:
                handler(number, arguments)

    def _on_display(self, number: int, arguments: Arguments) -> None:
        if number == _ERROR:
            target, code, message = arguments.word(), arguments.word(), arguments.text()
            raise WaylandError(f"the compositor refused: {message} (object {target}, error {code})")

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def words(*values: int) -> bytes:
    """Numbers, objects and new ids as arguments."""
    return struct.pack(f"={len(values)}I", *values)


def version_of(offered: Mapping[str, list[tuple[int, int]]], interface: str, wanted: int) -> tuple[int, int] | None:
    """Name and version to bind of the first such global; None if there is none."""
    if interface not in offered:
        return None
    name, version = offered[interface][0]
    return name, min(version, wanted)
