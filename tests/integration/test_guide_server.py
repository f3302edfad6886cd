"""The broker as docs/server.md sets it up: who gets in, and who may say and hear what. Only paths and ports differ."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from parts.broker import SHIPPED
from parts.tls import Authority
from parts.wait import answers, free_port, wait_for

GUIDE = (Path(__file__).parents[2] / "docs/server.md").read_text()
SERVER = "infoscreen-server"
ONE, OTHER = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11", "11111111-2222-4333-8444-555555555555"


def block(path: str) -> str:
    found = re.search(rf"^`{re.escape(path)}`:\n\n```\w*\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None, path
    return found[1]


class Site:
    def __init__(self, folder: Path) -> None:
        self.plain, self.secure = free_port(), free_port()
        self.authority = Authority(folder / "tls")
        passwords, rules = folder / "passwd", folder / "acl"
        passwords.touch()
        for name in (SERVER, ONE, OTHER):
            subprocess.run(["mosquitto_passwd", "-b", passwords, name, f"secret of {name}"], check=True)
        rules.write_text(block("/etc/mosquitto/infoscreen.acl"))
        text = block("/etc/mosquitto/conf.d/site.conf")
        certificate = self.authority.folder / "server.pem"
        for told, here in (
            ("/etc/mosquitto/passwd", passwords),
            ("/etc/mosquitto/infoscreen.acl", rules),
            ("listener 1883", f"listener {self.plain}"),
            ("listener 8883", f"listener {self.secure}"),
            ("/etc/mosquitto/certs/fullchain.pem", certificate),
            ("/etc/mosquitto/certs/privkey.pem", certificate.with_suffix(".key")),
        ):
            assert told in text, told
            text = text.replace(told, str(here))
        config = folder / "mosquitto.conf"
        config.write_text(f"{SHIPPED.read_text()}\npersistence_location {folder}/\nuser root\n{text}")
        for path in (passwords, rules):
            path.chmod(0o600)
        with (folder / "mosquitto.log").open("wb") as log:
            self.process = subprocess.Popen(["mosquitto", "-c", config], stdout=log, stderr=log)
        wait_for(lambda: answers(self.plain) and answers(self.secure), "mosquitto answers")
        self.people: list[Person] = []

    def join(self, name: str | None, secret: str = "", client_id: str = "") -> "Person":
        person = Person(self, name, secret or f"secret of {name}", client_id)
        self.people.append(person)
        return person

    def close(self) -> None:
        for person in self.people:
            person.client.loop_stop()
        self.process.terminate()
        self.process.wait(10)


class Person:
    """Whoever has an account, or none; the server at the plain port, others through TLS."""

    def __init__(self, site: Site, name: str | None, secret: str, client_id: str) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id)
        self.heard: list[tuple[str, bytes]] = []
        self.code: int | None = None
        self.gone = self.listens = False
        if name is not None:
            self.client.username_pw_set(name, secret)
        if name != SERVER:
            self.client.tls_set_context(ssl.create_default_context(cafile=site.authority.ca))
        self.client.on_connect = self._connected
        self.client.on_disconnect = self._disconnected
        self.client.on_subscribe = self._subscribed
        self.client.on_message = lambda _client, _data, message: self.heard.append((message.topic, message.payload))
        self.client.connect("localhost", site.plain if name == SERVER else site.secure)
        self.client.loop_start()
        wait_for(lambda: self.code not in (None, 0) or self.listens, "the broker answers")

    def _connected(self, client: mqtt.Client, _data: object, _flags: object, code: object, _more: object) -> None:
        self.code = int(getattr(code, "value", 1))
        if self.code == 0:
            client.subscribe("#", 1)

    def _subscribed(self, *_: object) -> None:
        self.listens = True

    def _disconnected(self, *_: object) -> None:
        self.gone = True

    def say(self, topic: str, text: bytes) -> None:
        self.client.publish(topic, text, 1).wait_for_publish(10)

    def forge(self, topic: str) -> None:
        """Says what is not its to say; this Mosquitto hangs up on it, others only drop the message."""
        said = self.client.publish(topic, b"forged", 1)
        wait_for(lambda: self.gone or said.is_published(), "the broker has dealt with it")
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if shutil.which("mosquitto_passwd") is None:
        pytest.fail("mosquitto_passwd is missing: it comes with mosquitto")
    made = Site(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_only_accounts_get_in(site: Site) -> None:
    assert site.join(None).code != 0
    assert site.join(ONE, "a guess").code != 0
    assert site.join(ONE).code == 0


def test_a_kiosk_speaks_for_itself_alone_and_hears_what_is_for_it(site: Site) -> None:
    server = site.join(SERVER)
    for topic in (f"infoscreen/{OTHER}/logs/error", f"infoscreen/{OTHER}/status", "elsewhere"):
        site.join(ONE).forge(topic)
    one, other = site.join(ONE), site.join(OTHER)
    one.say(f"infoscreen/{ONE}/logs/error", b"mine")
    one.say(f"infoscreen/{ONE}/hello", b"mine")
    wait_for(lambda: len(server.heard) >= 2, "the server hears the kiosk")
    assert server.heard == [(f"infoscreen/{ONE}/logs/error", b"mine"), (f"infoscreen/{ONE}/hello", b"mine")]
    for uuid in (ONE, OTHER):
        for kind in ("ack", "commands"):
            server.say(f"infoscreen/{uuid}/{kind}", b"for you")
    for kiosk, uuid in ((one, ONE), (other, OTHER)):
        wait_for(lambda k=kiosk: len(k.heard) >= 2, "the kiosk hears the server")  # type: ignore[misc]
        assert kiosk.heard == [(f"infoscreen/{uuid}/{kind}", b"for you") for kind in ("ack", "commands")]


def test_a_kiosk_cannot_take_the_servers_session(site: Site) -> None:
    server = site.join(SERVER, client_id=SERVER)
    kiosk = site.join(ONE, client_id=SERVER)
    assert kiosk.code == 0
    kiosk.say(f"infoscreen/{ONE}/status", b"online")
    wait_for(lambda: server.heard, "the server still hears")
    assert not server.gone
