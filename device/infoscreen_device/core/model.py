"""The words that the rules, the probes and the actions share. Data only."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from infoscreen_device.core.picture import Expected
from infoscreen_shared.messages import EventType, LogLevel, ProcessStatus


class Way(StrEnum):
    """How a player is brought back."""

    UNIT = "unit"
    """A systemd system unit is restarted."""
    USER_UNIT = "user-unit"
    """A unit of the registering user's own systemd instance is restarted."""
    ARGV = "argv"
    """A command is run with the rights of the user who registered it."""
    HANDLER = "handler"
    """The connected event handler is asked, and answers with the new pid."""
    NONE = "none"
    """The player is only watched."""


@dataclass(frozen=True, slots=True)
class Restart:
    way: Way = Way.NONE
    unit: str | None = None
    argv: tuple[str, ...] = ()
    user: str | None = None
    """Whose rights `argv` and `USER_UNIT` run with: the name of the registering user, checked by the kernel's word."""
    environment: tuple[tuple[str, str], ...] = ()
    """What the player needs to find the screen (DISPLAY, WAYLAND_DISPLAY, XDG_RUNTIME_DIR, …)."""
    directory: str | None = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """What should be playing now (an "event" in the field's words)."""

    process: str
    """The player's process name in full, as `ps -o comm` or the base name of its program gives it."""
    event_id: int | None = None
    event_type: EventType | None = None
    pid: int | None = None
    """The player's process if the event handler knows it; otherwise it is looked for by name, cmdline and user."""
    cmdline: tuple[str, ...] = ()
    """If not empty: the player's full argument vector."""
    user: str | None = None
    """If set: the name of the user who owns the player's process."""
    restart: Restart = field(default_factory=Restart)
    source: str = "config"
    """Who said so: `config`, or `uid:1000` for one registered over the socket."""
    motion: Expected | None = None
    """How much of the picture is to move; None: what is usual for the type of event (`core.picture.usual`)."""


@dataclass(frozen=True, slots=True)
class ProcessKey:
    """A process that cannot be confused with a later one of the same number."""

    pid: int
    started: int
    """Start time in clock ticks since boot, field 22 of /proc/PID/stat (proc(5))."""


@dataclass(frozen=True, slots=True)
class Death:
    key: ProcessKey
    code: int | None = None
    """Exit status 0 to 255, where the kernel gives it."""
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A log record before it is accepted into a lane, where it gets its time and number."""

    level: LogLevel
    code: str | None
    message: str
    context: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlayerView:
    """What the agent tells about the player in health, heartbeat, STATUS and `status`."""

    expectation: Expectation | None
    process: str | None
    pid: int | None
    status: ProcessStatus
