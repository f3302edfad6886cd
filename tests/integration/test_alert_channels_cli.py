"""`infoscreen-server channel`: with a real receiver, and without a secret in what is printed."""

import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from parts.server import COMMAND, Server


class Receiver(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.titles: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.titles.append(body["title"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def fails(server: Server, *argv: str, said: str = "") -> str:
    done = subprocess.run(
        [*COMMAND, *argv, "--config", server.config],
        input=said,
        capture_output=True,
        env=server.environment,
        text=True,
    )
    assert done.returncode == 1
    return done.stderr


def test_add_test_list_remove(tmp_path: Path, receiver: Receiver) -> None:
    server = Server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}", alert_allow_local=True)
    server.call("migrate")
    url = f"json://anna:s3cret-word@127.0.0.1:{receiver.server_port}/hook"
    said = [server.call("channel", "add", "ops", said=url), server.call("channel", "list")]
    assert server.call("channel", "test", "ops") == "delivered"
    assert receiver.titles == ["Test of the channel ops"]
    assert "there is a channel" in fails(server, "channel", "add", "ops", said=url)
    assert server.call("channel", "set-url", "ops", said=url + "-2") == "channel ops changed, json://127.0.0.1"
    assert server.call("channel", "test", "ops") == "delivered"
    assert "url:" in fails(server, "channel", "set-url", "ops", said="nonsense-s3cret")
    assert "no such channel" in fails(server, "channel", "set-url", "nobody", said=url)
    assert not any("s3cret" in each or "hook" in each for each in said)
    assert server.call("channel", "remove", "ops") == "channel ops removed"
    assert "no such channel" in fails(server, "channel", "test", "ops")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "json://127.0.0.1/x", "json://[::1]/x", "json://169.254.169.254/x", "", "nonsense"]
)
def test_what_is_no_channel_is_refused(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}")
    server.call("migrate")
    assert "url:" in fails(server, "channel", "add", "ops", said=url)
    assert server.call("channel", "list") == ""
