"""Evidence of wrong pictures on a real disk, and its way to a real server, which is away at first."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infoscreen_device.core.model import Restart
from infoscreen_device.incidents import Incident, Incidents, Periodic, kept, prune, read_picture
from infoscreen_device.settings import HttpConfig, PicturesConfig
from parts.jpegs import jpeg
from parts.server import Server
from parts.wait import wait_for

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
NOW = datetime.now(UTC)
SMALL = jpeg(64, 36)


def memory(data: bytes) -> int:
    fd = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    return fd


def incident(number: int = 0, size: int = 1000) -> Incident:
    at = NOW + timedelta(seconds=number)
    return Incident(at, "FROZEN", "frozen", {"n": number}, Restart(), memory(b"x" * size), memory(SMALL), "d:0f")


def settled(incidents: Incidents) -> None:
    incidents.close(10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, f"sqlite:///{tmp_path}/server.db") as made:
        made.call("migrate")
        yield made


def test_an_incident_is_kept_with_its_picture_and_facts(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    incidents = Incidents(tmp_path / "evidence", PicturesConfig(), HttpConfig(), UUID)
    incidents.start()
    incidents.keep(incident(3))
    settled(incidents)
    (path,) = kept(tmp_path / "evidence")
    assert path.name.endswith("Z-frozen")
    assert (path / "screen.jpg").read_bytes() == b"x" * 1000
    assert (path / "thumbnail.jpg").read_bytes() == SMALL
    facts = json.loads((path / "facts.json").read_text())
    assert facts | {"n": 3, "status": "FROZEN", "reason": "frozen", "journal": []} == facts
    assert path.stat().st_mode & 0o007 == 0, "the screen may show what is not meant for everyone"
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("config", "left"),
    [
        (PicturesConfig(max_count=2), 2),
        (PicturesConfig(max_bytes=25_000), 2),
        (PicturesConfig(max_age_s=0.0), 0),
        (PicturesConfig(), 5),
    ],
)
def test_the_folder_has_bounds(tmp_path: Path, config: PicturesConfig, left: int) -> None:
    incidents = Incidents(tmp_path, PicturesConfig(), HttpConfig(), UUID)
    incidents.start()
    for number in range(5):
        incidents.keep(incident(number, 10_000))
    settled(incidents)
    names = [path.name for path in kept(tmp_path)]
    assert len(names) == 5
    prune(tmp_path, config, datetime.now(UTC).timestamp() + 1)
    assert [path.name for path in kept(tmp_path)] == names[5 - left :], "the newest stay"


def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "evidence").write_text("in the way")
    incidents = Incidents(tmp_path / "evidence", PicturesConfig(), HttpConfig(), UUID)
    incidents.start()
    incidents.keep(incident())
    incidents.keep(incident())
    settled(incidents)
    assert (tmp_path / "evidence").read_text() == "in the way"


def test_only_memory_is_read(tmp_path: Path) -> None:
    """A pipe, or a file on a file system of the sender's, could make the reader wait for ever."""
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Invalid"):
        read_picture(reading, 10)
    large = memory(b"x" * 11)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        read_picture(large, 10)
    for fd in (reading, writing, large):
        os.close(fd)


def test_incidents_wait_for_the_server_and_arrive_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infoscreen_device.incidents.RETRY_S", 0.05)
    token, admin = server.token("device", UUID), server.token("admin")
    door = HttpConfig(url=f"http://127.0.0.1:{server.port}", token=token)
    incidents = Incidents(tmp_path / "evidence", PicturesConfig(), door, UUID)
    incidents.start()
    incidents.keep(incident(1))
    incidents.keep(incident(2))
    incidents.keep(Periodic(NOW, "OK", "ok", memory(SMALL)))
    wait_for(lambda: len(kept(tmp_path / "evidence")) == 2, "both are on the disk")
    assert not list((tmp_path / "evidence").glob("*/sent"))
    server.start()
    wait_for(lambda: len(list((tmp_path / "evidence").glob("*/sent"))) == 2, "both were sent")
    incidents.keep(Periodic(NOW + timedelta(seconds=9), "OK", "ok", memory(SMALL), "d:0f"))
    settled(incidents)
    again = Incidents(tmp_path / "evidence", PicturesConfig(), door, UUID)
    again.start()
    again.keep(Periodic(NOW + timedelta(seconds=9), "OK", "ok", memory(SMALL), "d:0f"))
    settled(again)
    status, body = server.request(f"/api/clients/{UUID}/screenshots", admin)
    assert status == 200
    shown = [(each["kind"], each["status"], each["hash"]) for each in body["screenshots"]]
    assert sorted(shown) == [
        ("incident", "FROZEN", "d:0f"),
        ("incident", "FROZEN", "d:0f"),
        ("periodic", "OK", "d:0f"),
    ], "the periodic one that found no door was let go of, the later one came once"


def test_what_the_server_refuses_is_not_sent_for_ever(tmp_path: Path, server: Server) -> None:
    token = server.token("device", UUID)
    server.start()
    door = HttpConfig(url=f"http://127.0.0.1:{server.port}", token=token)
    incidents = Incidents(tmp_path / "evidence", PicturesConfig(), door, UUID)
    incidents.start()
    bad = Incident(NOW, "FROZEN", "frozen", {}, Restart(), None, memory(b"no JPEG"))
    incidents.keep(bad)
    settled(incidents)
    (path,) = kept(tmp_path / "evidence")
    assert (path / "sent").read_text().startswith("refused: the server answered 400")


def test_any_name_of_a_known_picture_is_a_folder_and_what_failed_leaves_none(tmp_path: Path) -> None:
    incidents = Incidents(tmp_path / "evidence", PicturesConfig(), HttpConfig(), UUID)
    incidents.start()
    reading, writing = os.pipe()
    incidents.keep(Incident(NOW, "FROZEN", "frozen", {}, Restart(), reading))
    incidents.keep(Incident(NOW, "FROZEN", "Aw, Snap!/../näher", {}, Restart(), memory(b"x")))
    settled(incidents)
    os.close(writing)
    assert [path.name.partition("Z-")[2] for path in (tmp_path / "evidence").iterdir()] == ["Aw-Snap-n-her"]
