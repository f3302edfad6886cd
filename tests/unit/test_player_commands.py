"""Which program plays what."""

from pathlib import Path

import pytest

from infoscreen_device.config import ConfigError
from infoscreen_device.player_commands import BUILT_IN, CommandError, Commands, load_commands
from infoscreen_device.schedule import Event
from infoscreen_shared.messages import EventType

BASE = Path("/srv/films")


def installed(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name if name in programs else None)


def test_the_first_installed_program_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "cvlc", "zathura", "chromium")
    commands = Commands(Path("/profile"))
    assert commands.argv(Event(1, EventType.VIDEO, "a.mkv"), BASE)[0] == "cvlc"
    argv = commands.argv(Event(1, EventType.PRESENTATION, "a.pdf"), BASE)
    assert argv == ["zathura", "--mode=fullscreen", "/srv/films/a.pdf"]
    argv = commands.argv(Event(1, EventType.WEBSITE, "https://a.example/?q={profile}"), BASE)
    assert argv[:2] == ["chromium", "--kiosk"]
    assert "--user-data-dir=/profile" in argv


def test_a_url_stays_and_an_absolute_path_too(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "mpv")
    commands = Commands(Path("/profile"))
    for source in ("https://a.example/film.mkv", "rtsp://camera/1", "/tmp/a b.mkv"):
        assert commands.argv(Event(1, EventType.VIDEO, source), BASE)[-1] == source


def test_no_program_is_told_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(CommandError, match="no program for a video: install mpv or cvlc, or name another in /etc/"):
        Commands(Path("/profile")).argv(Event(1, EventType.VIDEO, "a"), BASE)


def test_every_type_has_a_command_with_a_place_for_the_source() -> None:
    for kind in EventType:
        assert BUILT_IN[kind]
        assert all(any("{source}" in word for word in command) for command in BUILT_IN[kind])


def test_the_capture_helper_gets_a_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "mpv", "chromium")
    commands = Commands(Path("/profile"))
    film, page = Event(1, EventType.VIDEO, "a.mkv"), Event(1, EventType.WEBSITE, "https://a.example/")
    argv = commands.argv(film, BASE, "/run/user/1000")
    assert argv[-2:] == ["--input-ipc-server=/run/user/1000/infoscreen-mpv.sock", "/srv/films/a.mkv"]
    assert "--input-ipc-server=/profile/infoscreen-mpv.sock" in commands.argv(film, BASE), "before there is a session"
    assert "--remote-debugging-port=0" in commands.argv(page, BASE)
    path = tmp_path / "player.toml"
    path.write_text("doors = false\n")
    closed = load_commands(path, Path("/profile"))
    assert "--remote-debugging-port=0" not in closed.argv(page, BASE)
    assert not [word for word in closed.argv(film, BASE, "/run/user/1000") if "ipc" in word]


def test_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "vlc")
    path = tmp_path / "player.toml"
    path.write_text('profile_dir = "/p"\n[commands]\nvideo = ["vlc", "--sub={source}.srt", "{source}"]\n')
    commands = load_commands(path, Path("/other"))
    assert commands.profile_dir == Path("/p")
    argv = commands.argv(Event(1, EventType.VIDEO, "a"), BASE)
    assert argv == ["vlc", "--sub=/srv/films/a.srt", "/srv/films/a"]


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "player.toml"
    path.write_text('profile_dir = "p"\n[commands]\nvidoe = ["vlc"]\nwebsite = ["chromium"]\npresentation = "evince"\n')
    with pytest.raises(ConfigError) as caught:
        load_commands(path, Path("/other"))
    assert caught.value.problems == [
        "profile_dir: expected an absolute path",
        "commands.presentation: expected a list of at most 256 texts",
        "commands.website: does not say where {source} goes",
        "commands.vidoe: unknown setting (did you mean video?)",
    ]
    for text in ("[", "\0", "a = " + "[" * 10_000):
        path.write_text(text)
        with pytest.raises(ConfigError):
            load_commands(path, Path("/other"))
    with pytest.raises(ConfigError, match="No such file"):
        load_commands(tmp_path / "none", Path("/other"))
