"""nginx with the configuration that we ship in front of the real server: what kiosks and people get through TLS.

Only names, ports and the certificate are replaced.
"""

import gzip
import json
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from infoscreen_device import http_door
from infoscreen_device.backlog import Batch
from infoscreen_device.settings import HttpConfig
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES, LogLevel
from parts.api import UUID
from parts.server import Server
from parts.tls import Authority
from parts.wait import answers, free_port, wait_for

SHIPPED = Path(__file__).parents[2] / "packaging/nginx/infoscreen.conf"
MAIN = """daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/infoscreen.conf;
}}
"""
RECORD = {"timestamp": "2026-01-02T03:04:05Z", "message": "hello", "context": {}}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Front:
    def __init__(self, folder: Path, server: Server) -> None:
        folder.mkdir()
        self.plain, self.secure = free_port(), free_port()
        self.authority = Authority(folder / "tls")
        self.server = server
        certificate = self.authority.folder / "server.pem"
        text = SHIPPED.read_text()
        for shipped, here in (
            ("infoscreen.example;", "localhost;"),
            ("listen 80;", f"listen 127.0.0.1:{self.plain};"),
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{self.secure} ssl http2;"),
            ("    listen [::]:80;\n", ""),
            ("    listen [::]:443 ssl http2;\n", ""),
            ("/etc/letsencrypt/live/infoscreen.example/fullchain.pem", str(certificate)),
            ("/etc/letsencrypt/live/infoscreen.example/privkey.pem", str(certificate.with_suffix(".key"))),
            ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
        ):
            assert shipped in text, shipped
            text = text.replace(shipped, here)
        (folder / "infoscreen.conf").write_text(text)
        # Its workers would be another user, who may not look into our folder.
        user = "user root;" if folder.owner() == "root" else ""
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
        self.log = folder / "error.log"
        self.process = subprocess.Popen(["/usr/sbin/nginx", "-c", folder / "nginx.conf", "-e", self.log])
        wait_for(lambda: answers(self.secure), "nginx answers")
        context = ssl.create_default_context(cafile=self.authority.ca)
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect())

    def ask(self, path: str, token: str = "", body: bytes | None = None, **headers: str) -> tuple[int, Message, bytes]:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._open(urllib.request.Request(f"https://localhost:{self.secure}{path}", body, named))

    def ask_plainly(self, path: str) -> tuple[int, Message, bytes]:
        return self._open(urllib.request.Request(f"http://localhost:{self.plain}{path}"))

    def _open(self, request: urllib.request.Request) -> tuple[int, Message, bytes]:
        answer: Any
        try:
            answer = self.opener.open(request, timeout=20)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.headers, answer.read()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Server(tmp_path, f"sqlite:///{tmp_path / 'server.db'}") as server:
        made = Front(tmp_path / "nginx", server.start())
        try:
            yield made
        finally:
            made.close()


def test_people_and_monitors(front: Front) -> None:
    status, headers, body = front.ask("/healthz")
    assert (status, json.loads(body)["database"]) == (200, "ok")
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert front.ask("/api/clients")[0] == 401
    status, _, body = front.ask("/api/clients", front.server.token("admin"))
    assert (status, json.loads(body)["clients"]) == (200, [])


def test_plain_http_is_sent_to_tls(front: Front) -> None:
    status, headers, _ = front.ask_plainly("/api/clients?limit=5")
    assert (status, headers["Location"]) == (301, "https://localhost/api/clients?limit=5")


def test_a_kiosk_delivers(front: Front) -> None:
    token = front.server.token("device", UUID)
    config = HttpConfig(f"https://localhost:{front.secure}", token, front.authority.ca)
    payload = json.dumps({"epoch": "e", "base": 0, "records": [RECORD | {"epoch": "e", "seq": 1}]}).encode()
    acks = http_door.post(config, UUID, None, [Batch(LogLevel.ERROR, "e", 1, 1, payload)])
    assert acks[0].lanes == {LogLevel.ERROR: 1}
    _, _, body = front.ask(f"/api/client-logs/{UUID}/logs", front.server.token("admin"))
    assert [log["message"] for log in json.loads(body)["logs"]] == ["hello"]


def test_bodies_up_to_the_servers_own_bound(front: Front) -> None:
    token, path = front.server.token("device", UUID), f"/api/ingest/{UUID}/logs"

    def post(size: int, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        text = json.dumps({"level": "error", "records": [RECORD | {"message": "x" * 900}] * (size // 1000)})
        status, _, answer = front.ask(path, token, body or text.encode(), Content_Type="application/json", **headers)
        return status, answer

    assert post(MAX_PAYLOAD_BYTES - 50_000)[0] == 200
    status, answer = post(0, b" " * (MAX_PAYLOAD_BYTES + 1))
    assert (status, json.loads(answer)["error"]) == (413, "body: larger than 1000000 bytes")
    assert post(0, b" " * (2 * MAX_PAYLOAD_BYTES))[0] == 413
    small = json.dumps({"level": "error", "records": [RECORD]}).encode()
    assert post(0, gzip.compress(small), Content_Encoding="gzip")[0] == 200


def test_without_the_server_there_is_an_answer_and_with_it_all_is_well_again(front: Front) -> None:
    front.server.stop()
    status, _, body = front.ask("/healthz")
    assert status == 502
    assert b"502 Bad Gateway" in body
    front.server.start()
    assert front.ask("/healthz")[0] == 200
