"""The agent's way to the broker: with either paho-mqtt that Debian ships, in the clear and by TLS with a password."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from parts.agent import Agent
from parts.broker import Broker
from parts.server import Server
from parts.tls import Authority
from parts.wait import free_port, wait_for

OLD_PAHO = Path(__file__).parents[2] / ".cache/paho-1.6"
PASSWORD = "correct horse battery staple"
NAME = "kiosk-17"


@pytest.fixture(params=["1.6.1", "2.1.0"])
def paho(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which an agent finds this release."""
    environment = {"PYTHONPATH": str(OLD_PAHO)} if request.param == "1.6.1" else {}
    asked = [sys.executable, "-c", "import paho.mqtt; print(paho.mqtt.__version__)"]
    found = subprocess.run(asked, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == request.param, "`./run test` installs it"
    return environment


class Link:
    """A broker with a second listener for TLS, a server, an agent."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "tls")
        self.tls_port = free_port()
        passwords = folder / "passwords"
        passwords.write_text(f"{NAME}:{PASSWORD}\n")
        subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
        extra = f"password_file {passwords}\n{self.authority.listener(self.tls_port)}"
        self.broker = Broker(folder / "broker", extra=extra).start()
        self.database = folder / "server.db"
        self.server = Server(folder, f"sqlite:///{self.database}", self.broker.url)
        self.password_file = folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")
        self.password_file.chmod(0o600)
        (folder / "agent").mkdir()
        self.agent = Agent(folder / "agent", self.broker.url)

    def by_tls(self, ca: Path | None = None, name: str = NAME, password: str = PASSWORD) -> None:
        self.password_file.write_text(f"{password}\n")
        url = f"mqtts://localhost:{self.tls_port}"
        secret = {"username": name, "password_file": str(self.password_file), "ca_file": str(ca or self.authority.ca)}
        self.agent.configure(broker={"url": url} | secret)

    def say(self, text: str) -> None:
        self.agent.client.log("ERROR", text, code="x.y")

    def stored(self) -> list[str]:
        with closing(sqlite3.connect(self.database)) as db:
            return [row[0] for row in db.execute("SELECT message FROM client_logs WHERE code = 'x.y' ORDER BY seq")]

    def connected(self) -> bool:
        return bool(self.agent.client.request({"op": "status"})["broker"]["connected"])

    def end(self) -> None:
        if self.agent.process is not None:
            self.agent.process.kill()
            self.agent.process.wait()
        self.server.__exit__()
        self.broker.stop()


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    made = Link(tmp_path)
    try:
        made.server.start()
        yield made
    finally:
        made.end()


def test_records_arrive_and_an_outage_is_made_up_for(link: Link, paho: dict[str, str]) -> None:
    link.agent.start(**paho)
    link.say("one")
    wait_for(lambda: link.stored() == ["one"], "the record is stored")
    link.broker.kill()
    wait_for(lambda: not link.connected(), "the agent knows that the broker is away")
    link.say("two")
    link.broker.wipe()
    link.broker.start()
    wait_for(lambda: link.stored() == ["one", "two"], "the record of the outage arrives", 60)


def test_records_arrive_by_tls_with_a_password(link: Link, paho: dict[str, str]) -> None:
    link.by_tls()
    link.agent.start(**paho)
    link.say("one")
    wait_for(lambda: link.stored() == ["one"], "the record is stored")
    assert PASSWORD not in link.agent.log.read_text()
    assert link.agent.process is not None
    command = Path(f"/proc/{link.agent.process.pid}/cmdline").read_bytes()
    assert PASSWORD.encode() not in command
    link.agent.process.send_signal(signal.SIGTERM)
    assert link.agent.process.wait(5) == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("ca", "certificate verify failed"), ("password", "refused by the broker: ")],
    ids=["another CA", "password"],
)
def test_a_broker_that_is_not_ours_or_refuses_gets_nothing(
    link: Link, tmp_path: Path, paho: dict[str, str], wrong: str, said: str
) -> None:
    if wrong == "ca":
        link.by_tls(ca=Authority(tmp_path / "other").ca)
    else:
        link.by_tls(password="wrong")
    link.agent.start(**paho)
    link.say("one")
    wait_for(lambda: said in link.agent.log.read_text(), f"the journal says {said}")
    assert not link.connected()
    assert link.stored() == []
    for secret in (PASSWORD, "wrong\n"):
        assert secret not in link.agent.log.read_text()
