"""Browsers that follow the live view: many event streams, read by one thread."""

import json
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from parts.wait import wait_for


@dataclass
class Event:
    name: str
    id: str
    """As a browser would have it behind this event: the newest that came up to here."""
    data: Any
    at: float


@dataclass
class Stream:
    connection: socket.socket
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    comments: int = 0
    last_id: str = ""
    retry: int = 0
    ended: bool = False
    body: bytes = b""
    """Of a refusal."""
    _rest: bytes = b""

    def feed(self, data: bytes, at: float) -> None:
        self._rest += data
        if not self.status:
            head, gap, rest = self._rest.partition(b"\r\n\r\n")
            if not gap:
                return
            self._rest = rest
            first, *lines = head.decode("latin-1").split("\r\n")
            self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            self.status = int(first.split()[1])
        if self.status != 200:
            self.body, self._rest = self.body + self._rest, b""
            return
        *blocks, self._rest = self._rest.split(b"\n\n")
        for block in blocks:
            self._block(block.decode(), at)

    def _block(self, block: str, at: float) -> None:
        """By the rules of the HTML standard, 9.2.6, for which also a lone CR ends a line."""
        name, data = "message", []
        for line in block.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
            if line.startswith(":"):
                self.comments += 1
                continue
            what, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if what == "event":
                name = value
            elif what == "data":
                data.append(value)
            elif what == "id":
                self.last_id = value
            elif what == "retry":
                self.retry = int(value)
        if data:
            self.events.append(Event(name, self.last_id, json.loads("\n".join(data)), at))

    def of(self, name: str) -> list[Any]:
        """The data of all events of this name so far."""
        return [event.data for event in list(self.events) if event.name == name]

    def messages(self) -> list[str]:
        return [line["message"] for line in self.of("log")]

    def waits_for(self, name: str, number: int = 1, timeout: float = 20.0) -> list[Any]:
        wait_for(lambda: len(self.of(name)) >= number, f"{number} {name} events", timeout)
        return self.of(name)


class Streams:
    """Opens streams to a port of this machine; all of them end with the block."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._opened: list[Stream] = []
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def open(self, query: str = "", token: str | None = None, *, reads: bool = True, **headers: str) -> Stream:
        """`reads`: or it never reads anything of what is sent to it. Returns when it is open, or refused."""
        lines = [f"GET /api/stream{query} HTTP/1.0", "Host: 127.0.0.1"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection = socket.socket()
        if not reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        stream = Stream(connection)
        self._opened.append(stream)
        if reads:
            connection.setblocking(False)
            with self._lock:
                self._selector.register(connection, selectors.EVENT_READ, stream)
            wait_for(lambda: stream.ended or stream.retry or (stream.status not in (0, 200)), "the stream is open")
        return stream

    def close(self, stream: Stream) -> None:
        with self._lock:
            if stream.connection in self._selector.get_map():
                self._selector.unregister(stream.connection)
            stream.connection.close()

    def _read(self) -> None:
        while not self._over.is_set():
            if not self._selector.get_map():
                time.sleep(0.005)
                continue
            for key, _ in self._selector.select(0.05):
                with self._lock:
                    self._take(key.data)

    def _take(self, stream: Stream) -> None:
        try:
            data = stream.connection.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            stream.feed(data, time.time())
            return
        stream.ended = True
        if stream.connection.fileno() >= 0:
            self._selector.unregister(stream.connection)

    def __enter__(self) -> "Streams":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for stream in self._opened:
            stream.connection.close()
        self._selector.close()
