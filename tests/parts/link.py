"""A TCP way to the broker that a test can hold: what one side sends stays in here, and is lost with the connection."""

import contextlib
import socket
import threading
from types import TracebackType


class Link:
    """Passes bytes both ways. Held, it still takes what the client sends and passes none of it on."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.sent = bytearray()
        """All that the client has sent, passed on or not."""
        self.passing = threading.Event()
        self.passing.set()
        self.lock = threading.Lock()
        self.ends: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def hold(self) -> None:
        self.passing.clear()

    def drop(self) -> None:
        """End all connections, with what they held, and pass on what new ones bring."""
        with self.lock:
            for end in self.ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.passing.set()

    def _accept(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self.lock:
                self.ends += [client, broker]
                for source, sink, up in ((client, broker, True), (broker, client, False)):
                    self.threads.append(threading.Thread(target=self._pump, args=(source, sink, up)))
                    self.threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if up:
                    self.sent += data
                    self.passing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.threads[0].join(10)
        self.drop()
        for thread in self.threads:
            thread.join(10)
        for end in self.ends:
            end.close()
