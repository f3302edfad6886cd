"""Where a player finds the screen: sockets of sessions in folders of our own."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infoscreen_device import session

UID = os.getuid()


class Places:
    def __init__(self, folder: Path) -> None:
        self.run, self.x11 = folder / "run", folder / "x11"
        self.own = self.run / str(UID)
        for made in (self.own, self.x11):
            made.mkdir(parents=True)
        self.open = ExitStack()

    def listen(self, path: Path) -> None:
        self.open.enter_context(made := socket.socket(socket.AF_UNIX))
        made.bind(str(path))
        made.listen()

    def serve_x(self, number: str, cookie: bytes = b"") -> None:
        """An X server's first answer: yes to this cookie, or to everybody."""
        made = self.open.enter_context(socket.create_server(str(self.x11 / f"X{number}"), family=socket.AF_UNIX))

        def serve() -> None:
            while True:
                try:
                    connection, _ = made.accept()
                except OSError:
                    return
                with connection:
                    said = connection.recv(4096)
                    assert said[:6] == b"l\0\x0b\0\0\0"
                    name, data = (int.from_bytes(said[at : at + 2], "little") for at in (6, 8))
                    given = said[12 + name + -name % 4 :][:data]
                    connection.sendall(b"\x01" if given == cookie or not cookie else b"\0")

        thread = threading.Thread(target=serve)
        thread.start()
        self.open.callback(thread.join)
        self.open.callback(made.shutdown, socket.SHUT_RDWR)

    def leave(self, path: Path) -> None:
        """As a killed compositor does: the file without anybody behind it."""
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))

    def find(self, uid: int = UID, **environ: str) -> dict[str, str] | None:
        return session.find(environ, uid, self.run, self.x11)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    made = Places(tmp_path)
    with made.open:
        yield made


def test_no_session_is_no_screen(places: Places) -> None:
    assert places.find() is None
    places.own.rmdir()
    assert places.find() is None
    places.x11.rmdir()
    assert places.find() is None


def test_the_users_wayland_session(places: Places) -> None:
    (places.own / "wayland-0.lock").touch()
    assert places.find() is None
    places.listen(places.own / "wayland-0")
    wayland = {"WAYLAND_DISPLAY": "wayland-0", "XDG_RUNTIME_DIR": str(places.own), "XDG_SESSION_TYPE": "wayland"}
    assert places.find() == wayland
    # Xwayland's socket is there before Xwayland is; the other one is not the user's.
    places.leave(places.x11 / "X1")
    assert places.find() == wayland | {"DISPLAY": ":1"}
    assert places.find(UID + 1, XDG_RUNTIME_DIR=str(places.own)) == wayland


def test_what_a_killed_session_left_is_passed_over(places: Places) -> None:
    places.leave(places.own / "wayland-0")
    places.leave(places.x11 / "X0")
    (places.own / "wayland-2").touch()
    assert places.find() is None
    places.listen(places.own / "wayland-1")
    assert (places.find() or {})["WAYLAND_DISPLAY"] == "wayland-1"


def test_an_x_server_with_the_way_to_the_sound(places: Places) -> None:
    places.leave(places.x11 / "X0")
    places.serve_x("10")
    places.serve_x("9")
    (places.x11 / "Xnone").touch()
    x11 = {"DISPLAY": ":9", "XDG_SESSION_TYPE": "x11"}
    assert places.find() == x11 | {"XDG_RUNTIME_DIR": str(places.own)}
    places.own.rmdir()
    assert places.find() == x11


def entry(number: str, cookie: bytes, name: bytes = b"MIT-MAGIC-COOKIE-1", host: bytes = b"kiosk") -> bytes:
    """As XauWriteAuth(3) does; the family is the local one."""
    fields = (host, number.encode(), name, cookie)
    return b"\x01\x00" + b"".join(len(field).to_bytes(2, "big") + field for field in fields)


def test_an_x_server_lets_in_who_has_its_cookie(places: Places, tmp_path: Path) -> None:
    places.serve_x("0", b"0123456789abcdef")
    home = str(tmp_path)
    assert places.find(HOME=home) is None, "the greeter's, or before the user is signed in"
    mine = tmp_path / ".Xauthority"
    mine.write_bytes(entry("1", b"0123456789abcdef") + entry("0", b"an old one 16 by") + entry("0", b"x", b"XDM"))
    assert places.find(HOME=home) is None
    assert places.find(HOME=home, DISPLAY=":0") is None
    good = mine.read_bytes() + entry("0", b"0123456789abcdef")
    mine.write_bytes(good)
    assert (places.find(HOME=home) or {})["DISPLAY"] == ":0"
    assert places.find(HOME=home, DISPLAY=":0") is not None
    elsewhere = mine.rename(tmp_path / "elsewhere")
    assert places.find(HOME=home) is None
    assert places.find(HOME=home, XAUTHORITY=str(elsewhere)) is not None
    elsewhere.write_bytes(entry("", b"0123456789abcdef"))
    assert places.find(HOME=home, XAUTHORITY=str(elsewhere)) is not None, "one for every display"
    for length in range(len(good)):
        elsewhere.write_bytes(good[:length])
        places.find(HOME=home, XAUTHORITY=str(elsewhere))


def test_a_server_that_hangs_up_is_none(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ANSWER_S", 0.1)
    places.listen(places.x11 / "X0")  # nobody accepts
    assert places.find() is None


def test_what_is_told_holds_as_soon_as_it_is_there(places: Places) -> None:
    places.listen(places.own / "wayland-0")
    assert places.find(WAYLAND_DISPLAY="wayland-1") is None
    assert places.find(DISPLAY=":3") is None
    places.listen(places.own / "wayland-1")
    runtime = {"XDG_RUNTIME_DIR": str(places.own)}
    assert places.find(WAYLAND_DISPLAY="wayland-1") == runtime
    assert places.find(WAYLAND_DISPLAY=str(places.own / "wayland-1")) == runtime
    places.serve_x("3")
    assert places.find(DISPLAY=":3.0") == runtime
    assert places.find(DISPLAY=":3", WAYLAND_DISPLAY="wayland-7") == runtime


def test_another_machines_screen_is_believed(places: Places) -> None:
    assert places.find(DISPLAY="wall.example:0") == {"XDG_RUNTIME_DIR": str(places.own)}


def test_a_path_too_long_for_a_socket_is_nothing(places: Places) -> None:
    assert places.find(WAYLAND_DISPLAY="/" + "w" * 200) is None
