"""Which program plays an event: the commands for each type, built in or from player.toml.

    profile_dir = "/home/kiosk/.cache/kiosk-chromium"

    [commands]
    video = ["vlc", "--fullscreen", "--loop", "{source}"]

`{source}` is the event's file or URL and `{profile}` the browser's own directory.
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


class CommandError(Exception):
    """There is no command to play this event with; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Commands:
    profile_dir: Path
    own: Mapping[EventType, tuple[str, ...]] = field(default_factory=dict)

    def argv(self, event: Event, base: Path) -> list[str]:
        """The command line for this event; a relative file starts from `base`. Raises CommandError."""
        choices = [self.own[event.type]] if event.type in self.own else BUILT_IN[event.type]
        chosen = next((command for command in choices if shutil.which(command[0])), None)
        if chosen is None:
            programs = " or ".join(command[0] for command in choices)
            raise CommandError(f"no program for a {event.type}: install {programs}, or name another in {DEFAULT_PATH}")
        source = event.source if "://" in event.source else str(base / event.source)
        return [word.replace("{source}", source).replace("{profile}", str(self.profile_dir)) for word in chosen]


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
    table = root.table("commands")
    own = {kind: words for kind in EventType if (words := table.texts(str(kind)))}
    for kind, words in own.items():
        if not any("{source}" in word for word in words):
            table.fault(str(kind), "does not say where {source} goes")
    table.finish()
    root.finish()
    if root.problems:
        raise ConfigError(root.problems)
    return Commands(profile_dir, own)
