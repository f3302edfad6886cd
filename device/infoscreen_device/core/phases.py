"""What the rules of recovery remember: the phase a player is in and what goes with it, over restarts and reboots too.

Data, and what becomes of it when the agent or the machine was restarted in between. The rules are in core.recovery.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from infoscreen_device.core.budget import Budget
from infoscreen_device.core.model import Expectation, ProcessKey


class Phase(StrEnum):
    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    RESTARTING = "restarting"
    GAVE_UP = "gave_up"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class State:
    phase: Phase = Phase.IDLE
    expectation: Expectation | None = None
    player: ProcessKey | None = None
    since: float = 0.0
    """When the phase began; in RUNNING, from when on stability is counted."""
    due: float | None = None
    """When the phase ends by itself; in RUNNING, when a player that stays stopped is to be replaced."""
    command_done: bool = False
    """In RESTARTING: the command ended well, and the player is waited for."""
    stopped_since: float | None = None
    outage_since: float | None = None
    """When the player was first found dead, until it is stable again."""
    outage_s: float = 0.0
    """How long the screen was without its player in this outage, up to its last start."""
    fault_since: float | None = None
    """In RUNNING: since when the player lives and its picture is known to be wrong."""
    replaced: ProcessKey | None = None
    """A living player with a wrong picture that is being replaced: seen no more, whatever it does."""
    budget: Budget = field(default_factory=Budget)


def resume(state: State, now: float) -> State:
    """The state of an earlier agent run of the same boot. What it had under way is unknown, and looked for afresh.

    A lost player too: that run may have been one that was to restart nothing. What was to be replaced is the player
    again if it lives, and its picture judged anew.
    """
    state = replace(state, replaced=None, fault_since=None)
    if state.phase in (Phase.RESTARTING, Phase.STOPPING, Phase.LOST):
        return replace(state, phase=Phase.STARTING, player=None, since=now, due=None, command_done=False)
    return state


def holds_together(state: State, saved_at: float) -> bool:
    """False for a state that the rules were never in, as a damaged file may give it: they would not find out of it."""
    phase, budget = state.phase, state.budget
    past = (state.since, *budget.restarts, *(when for _, when in budget.rungs))
    return (
        (phase is Phase.IDLE) == (state.expectation is None)
        and not (phase in (Phase.RUNNING, Phase.STOPPING) and state.player is None)
        and not (phase is Phase.IDLE and state.player is not None)
        and not (phase in (Phase.STOPPING, Phase.BACKOFF, Phase.RESTARTING, Phase.GAVE_UP) and state.due is None)
        and all(when <= saved_at for when in past)
    )


def reboot_over(state: State, offset: float, now: float) -> State:
    """The state of an earlier boot: no process of it lives, and its times are moved by `offset` onto this boot's clock.

    How long the machine was off is not known; it counts as no time at all, so a budget is rather kept too long.
    """

    def moved(when: float | None) -> float | None:
        return None if when is None else when + offset

    budget = replace(
        state.budget,
        restarts=tuple(when + offset for when in state.budget.restarts),
        rungs=tuple((rung, when + offset) for rung, when in state.budget.rungs),
        grant=True,
    )
    if state.expectation is None:
        return State(budget=budget, since=now)
    expectation = replace(state.expectation, pid=None)
    outage = moved(state.outage_since)
    return State(Phase.STARTING, expectation, since=now, outage_since=outage, outage_s=state.outage_s, budget=budget)
