"""Those who receive alerts: a webhook's web server and a mail server, which do what the test tells them to."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Webhook:
    """Takes what is posted to it, or answers with `status`; with `hangs` it does not answer before it is left."""

    def __init__(self, status: int = 200, location: str | None = None, *, hangs: bool = False) -> None:
        self.status, self.location, self.hangs = status, location, hangs
        self.asked: list[str] = []
        """Method and path of every request, answered or not."""
        self.taken: list[dict[str, Any]] = []
        self.left = threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.take()

            def do_POST(self) -> None:
                self.take()

            def take(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                webhook.asked.append(f"{self.command} {self.path}")
                if webhook.hangs:
                    # One byte a second: no timeout of the other side helps against that.
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                    while not webhook.left.wait(1):
                        self.wfile.write(b"x")
                    return
                if webhook.status < 300 and body:
                    webhook.taken.append(json.loads(body))
                self.send_response(webhook.status)
                if webhook.location is not None:
                    self.send_header("Location", webhook.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64

            def handle_error(self, *_args: object) -> None:
                """Those who send are killed, as they should be."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def titles(self) -> list[str]:
        return [each["title"] for each in self.taken]

    def url(self, path: str = "hook") -> str:
        return f"json://127.0.0.1:{self.port}/{path}"

    def __enter__(self) -> "Webhook":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.left.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Mailbox:
    """A mail server that keeps what it is given; with `refuses` it takes no recipient, with `hangs_up` it leaves
    without a word when it is told goodbye.
    """

    def __init__(self, *, refuses: bool = False, hangs_up: bool = False) -> None:
        self.refuses, self.hangs_up = refuses, hangs_up
        self.mails: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def url(self) -> str:
        return f"mailto://127.0.0.1:{self.port}?from=watchdog@example.org&to=admin@example.org"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                self._talk(stream)

    def _talk(self, stream: Any) -> None:
        def say(text: str) -> None:
            stream.write(f"{text}\r\n".encode())
            stream.flush()

        say("220 mailbox")
        for line in iter(stream.readline, b""):
            verb = line.split()[0].upper() if line.strip() else b""
            if verb == b"DATA":
                say("354 go on")
                self.mails.append(b"".join(iter(stream.readline, b".\r\n")).decode())
                say("250 taken")
            elif verb == b"QUIT":
                if not self.hangs_up:
                    say("221 bye")
                return
            elif verb == b"RCPT" and self.refuses:
                say("550 s3cret is not known here")
            else:
                say("250 fine")

    def __enter__(self) -> "Mailbox":
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
