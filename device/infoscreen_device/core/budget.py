"""How much has been tried: restarts in the window, the growing wait, the rungs taken. Times are boottime seconds."""

from dataclasses import dataclass, replace

from infoscreen_device.core.policy import RestartPolicy

JITTER = 0.25
"""A wait is shortened by up to this share, so that kiosks that fell together do not rise together."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What has been tried. Kept on disk, so that neither an agent restart nor a reboot refills it."""

    player: str = ""
    """Whose budget this is, see `player_name`."""
    restarts: tuple[float, ...] = ()
    """When restarts of the last window were started."""
    streak: int = 0
    """Restarts since the player was last stable; the wait grows with it."""
    gave_up: bool = False
    rungs: tuple[tuple[str, float], ...] = ()
    """When a session restart or a reboot was last asked for; survives a change of player."""
    grant: bool = False
    """One restart outside the budget: somebody has to start the player after a session restart or a boot."""


def pruned(budget: Budget, now: float, policy: RestartPolicy) -> Budget:
    start = now - policy.window_s
    return replace(
        budget,
        restarts=tuple(when for when in budget.restarts if when > start),
        rungs=tuple((rung, when) for rung, when in budget.rungs if when > start),
    )


def used(budget: Budget, now: float, policy: RestartPolicy) -> int:
    """How many restarts count against the budget now."""
    return len(pruned(budget, now, policy).restarts)


def backoff(streak: int, jitter: float, policy: RestartPolicy) -> float:
    """Seconds to wait before restart number `streak` + 1: none, then doubling up to the cap, less the jitter."""
    if streak == 0:
        return 0.0
    # The exponent is bounded because 2.0 ** 1100 is an error, and a streak has no bound.
    wait = min(policy.backoff_cap_s, policy.backoff_first_s * 2.0 ** min(streak - 1, 40))
    return wait * (1.0 - JITTER * jitter)


def next_rung(budget: Budget, policy: RestartPolicy, may_reboot: bool) -> str | None:
    """The lowest rung above the player that was not taken within the window."""
    taken = {rung for rung, _ in budget.rungs}
    if "session" in policy.ladder and policy.session_unit is not None and "session" not in taken:
        return "session"
    if "reboot" in policy.ladder and "reboot" not in taken and may_reboot:
        return "reboot"
    return None
