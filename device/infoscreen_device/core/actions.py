"""What the rules see (`Observation`) and what they ask for (`Action`). Data only; agent.py is between."""

from dataclasses import dataclass

from infoscreen_device.core.model import Draft, Expectation, ProcessKey


@dataclass(frozen=True, slots=True)
class CommandEnd:
    """The end of a restart command or the event handler's answer."""

    error: str | None = None
    """What went wrong, in words for a record; None if all went well."""


@dataclass(frozen=True, slots=True)
class Observation:
    player: ProcessKey | None = None
    """The expected player's process if it lives; a zombie does not."""
    stopped: bool = False
    """It lives but was stopped by a signal."""
    gone: bool = False
    """Nothing is to be waited for: the process that was registered lives no more and none was found by name, or nobody
    but the watchdog is going to start this player."""
    fault: str | None = None
    """It lives, and its picture is known to be wrong: why, in a word (core.screen). Doubt is None."""
    command: CommandEnd | None = None
    jitter: float = 0.0
    """Chance, from 0 to below 1."""
    may_restart: bool = True
    """False with WATCHDOG_ENABLED=false: all is watched and reported, nothing is done."""
    may_reboot: bool = True
    """False while the budget cannot be written: a kiosk that forgets its reboots could reboot for ever."""


@dataclass(frozen=True, slots=True)
class StartRestart:
    """Bring the player back in the way that the expectation names."""

    expectation: Expectation
    number: int


@dataclass(frozen=True, slots=True)
class RestartSession:
    unit: str


@dataclass(frozen=True, slots=True)
class Reboot:
    pass


@dataclass(frozen=True, slots=True)
class StopCommand:
    """Whatever restart is under way is not waited for any more: kill its command, forget its answer."""


@dataclass(frozen=True, slots=True)
class KillPlayer:
    """SIGTERM, and SIGKILL after `stop_timeout_s`."""

    key: ProcessKey


@dataclass(frozen=True, slots=True)
class KillLeftovers:
    """Kill what a dead player left behind."""

    key: ProcessKey


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """Record the death with its evidence (`death_draft`), which may come in later than the restart goes out."""

    expectation: Expectation
    key: ProcessKey
    ran_s: float


@dataclass(frozen=True, slots=True)
class Emit:
    draft: Draft


Action = StartRestart | RestartSession | Reboot | StopCommand | KillPlayer | KillLeftovers | ReportDeath | Emit
