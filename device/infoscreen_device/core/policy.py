"""How patiently and how far the watchdog goes to bring a player back. Data only; config.py reads and checks it."""

from dataclasses import dataclass

STEPS = ("player", "session", "reboot")
"""The rungs a ladder may have, in the order in which they may be taken."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Durations are seconds. `core.recovery` says what each is used for."""

    max_restarts: int = 3
    """At most this many restarts of the player in any `window_s`."""
    window_s: float = 600.0
    backoff_first_s: float = 1.0
    """The wait before the second restart; the first goes out at once, each later wait is twice the one before."""
    backoff_cap_s: float = 60.0
    slow_retry_s: float = 300.0
    """The wait between tries once the budget is spent."""
    stable_s: float = 120.0
    """A player that ran this long without dying is well again: the budget is full again."""
    stopped_after_s: float = 30.0
    """A player that stays stopped (SIGSTOP) this long is restarted; 0 means never."""
    start_timeout_s: float = 20.0
    """How long a player may take to be seen, after it was announced without a pid or after a restart."""
    command_timeout_s: float = 30.0
    """How long a restart command may take before it is killed and counted as failed."""
    stop_timeout_s: float = 5.0
    """From SIGTERM to SIGKILL."""
    ladder: tuple[str, ...] = ("player",)
    """What may be done at all, out of STEPS: the next rung is taken when the budget of the player is spent."""
    session_unit: str | None = None
    """The unit that the rung `session` restarts, for instance lightdm.service."""
