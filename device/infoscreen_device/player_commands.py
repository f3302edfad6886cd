"""Which program plays an event: the commands for each type, built in or from player.toml.

    profile_dir = "/home/kiosk/.cache/kiosk-chromium"
    doors = true

    [commands]
    video = ["vlc", "--fullscreen", "--loop", "{source}"]

`{source}` is the event's file or URL and `{profile}` the browser's own directory. With `doors` the built-in commands
open a way for the watchdog to ask the player whether it plays; one's own commands say that themselves.
"""

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infoscreen_device.config import ConfigError
from infoscreen_device.schedule import Event
from infoscreen_device.table import Table
from infoscreen_shared.messages import EventType

DEFAULT_PATH = Path("/etc/infoscreen-watchdog/player.toml")

BUILT_IN: Mapping[EventType, Sequence[tuple[str, ...]]] = {
    EventType.VIDEO: (
        (
            "mpv",
            "--fullscreen",
            # Without its window mpv ends; otherwise it would play on unseen.
            "--force-window=immediate",
            "--loop-file=inf",
            "--no-osc",
            "--no-input-terminal",
            "--really-quiet",
            "{source}",
        ),
        ("cvlc", "--fullscreen", "--loop", "--no-video-title-show", "--no-osd", "{source}"),
    ),
    EventType.WEBSITE: tuple(
        (
            program,
            "--kiosk",
            "--no-first-run",
            "--noerrdialogs",
            "--disable-infobars",
            "--disable-session-crashed-bubble",
            "--user-data-dir={profile}",
            "{source}",
        )
        for program in ("chromium", "chromium-browser")
    ),
    EventType.PRESENTATION: (
        ("impressive", "--nologo", "--auto", "15", "--wrap", "{source}"),
        ("evince", "--presentation", "{source}"),
        ("zathura", "--mode=fullscreen", "{source}"),
    ),
}
"""For each type, in order of preference: the first whose program is installed is taken."""

_CHROMIUM_DOOR = ("--remote-debugging-port=0",)
DOORS: Mapping[str, tuple[str, ...]] = {
    "mpv": ("--input-ipc-server={runtime}/infoscreen-mpv.sock",),
    # VLC looks for a terminal before it looks at the socket.
    "cvlc": ("--extraintf=oldrc", "--rc-fake-tty", "--rc-unix={runtime}/infoscreen-vlc.sock"),
    "chromium": _CHROMIUM_DOOR,
    "chromium-browser": _CHROMIUM_DOOR,
}
"""How the capture helper gets to the player (screen/witness.py).

The sockets lie in the user's runtime folder, where nobody else comes in. Chromium has no such door: its port is open to
every program on this machine (not from outside, and not to web pages, which it tells by their Origin), and whoever uses
it can do in the browser what the kiosk's user can. A kiosk has no other users, and without the port an error page or
"Aw, Snap!" looks as good as any page; where that is no good trade, `doors = false`. --remote-debugging-pipe is not
open to others, but only to the program that started the browser: the helper would have to ask by way of that one.
"""


class CommandError(Exception):
    """There is no command to play this event with; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Commands:
    profile_dir: Path
    own: Mapping[EventType, tuple[str, ...]] = field(default_factory=dict)
    doors: bool = True

    def argv(self, event: Event, base: Path, runtime: str | None = None) -> list[str]:
        """The command line for this event; a relative file starts from `base`. Raises CommandError.

        `runtime`: the user's runtime folder. An X server may be there before it is; then doors are in `profile_dir`.
        """
        choices = [self.own[event.type]] if event.type in self.own else BUILT_IN[event.type]
        chosen = next((command for command in choices if shutil.which(command[0])), None)
        if chosen is None:
            programs = " or ".join(command[0] for command in choices)
            raise CommandError(f"no program for a {event.type}: install {programs}, or name another in {DEFAULT_PATH}")
        source = event.source if "://" in event.source else str(base / event.source)
        words = [word.replace("{source}", source).replace("{profile}", str(self.profile_dir)) for word in chosen]
        if not self.doors or event.type in self.own:
            return words
        doors = DOORS.get(chosen[0], ())
        place = runtime or str(self.profile_dir)
        return [*words[:-1], *(word.replace("{runtime}", place) for word in doors), words[-1]]


def load_commands(path: Path | None, profile_dir: Path) -> Commands:
    """Reads player.toml (without `path`: the default one if there is one). Raises ConfigError."""
    if path is None:
        if not DEFAULT_PATH.exists():
            return Commands(profile_dir)
        path = DEFAULT_PATH
    try:
        root = Table(tomllib.loads(path.read_text("utf-8")), [])
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([f"{path}: {error}"]) from None
    profile_dir = root.path("profile_dir", profile_dir)
    doors = root.flag("doors", True)
    table = root.table("commands")
    own = {kind: words for kind in EventType if (words := table.texts(str(kind)))}
    for kind, words in own.items():
        if not any("{source}" in word for word in words):
            table.fault(str(kind), "does not say where {source} goes")
    table.finish()
    root.finish()
    if root.problems:
        raise ConfigError(root.problems)
    return Commands(profile_dir, own, doors)
