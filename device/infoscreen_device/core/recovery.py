"""When a player is brought back, how often, and what is said about it: one table over frozen data.

`decide` is called once a turn of the loop with what was seen and answers with what to do. It does no I/O and reads no
clock: `now` is boottime in seconds, and chance arrives as `Observation.jitter`. agent.py performs the actions.

    phase        means                                               leaves when
    IDLE         nothing is expected                                 something is (`expect`)
    STARTING     the player was announced and is looked for          seen -> RUNNING; start_timeout_s -> next attempt
    RUNNING      the player lives (or is stopped by SIGSTOP)         dead -> next attempt; stopped_after_s -> STOPPING;
                                                                     wrong picture -> RESTARTING or STOPPING
    STOPPING     a stopped player is being killed                    dead -> next attempt
    BACKOFF      dead; waits for the next restart                    due -> RESTARTING; seen -> RUNNING
    RESTARTING   a restart command (or request) is under way         seen -> RUNNING; failed or due -> next attempt
    GAVE_UP      dead, budget spent; waits for the next slow retry   due -> RESTARTING; seen -> RUNNING
    LOST         dead, and there is no way to bring it back          seen -> RUNNING

"Next attempt" (`_next_attempt`): at once the first time, then after a growing wait, at most `max_restarts` in any
`window_s`; then each further rung of the ladder once; then one ERROR record and slow retries. The budget is full again
when the player has run for `stable_s`, and by nothing else.
"""

from collections.abc import Callable
from dataclasses import replace

from infoscreen_device.core.actions import (
    Action,
    Emit,
    KillLeftovers,
    KillPlayer,
    Observation,
    Reboot,
    ReportDeath,
    RestartSession,
    StartRestart,
    StopCommand,
)
from infoscreen_device.core.budget import Budget, backoff, next_rung, pruned
from infoscreen_device.core.drafts import about, expectation_draft
from infoscreen_device.core.model import Draft, Expectation, PlayerView, ProcessKey, Way
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.core.policy import RestartPolicy
from infoscreen_shared.messages import LogLevel, ProcessStatus

KILL_GRACE_S = 5.0
"""How long after SIGKILL a player that does not go (it hangs in the kernel) still holds up its restart."""


Step = tuple[State, tuple[Action, ...]]


def decide(state: State, observation: Observation, now: float, policy: RestartPolicy) -> Step:
    """The next state and what to do, in order. Calling it again with the same observation changes nothing more."""
    if state.expectation is None:
        return state, ()
    if state.replaced is not None and observation.player == state.replaced:
        observation = replace(observation, player=None, stopped=False, fault=None)
    return _TABLE[state.phase](state, observation, now, policy)


def wake_at(state: State, policy: RestartPolicy) -> float | None:
    """The latest time by which `decide` wants to be called even if nothing is seen."""
    if state.phase is Phase.STARTING:
        return state.since + policy.start_timeout_s
    if state.phase is Phase.RUNNING:
        if state.stopped_since is not None or state.fault_since is not None:
            return state.due
        return state.since + policy.stable_s if _has_history(state) else None
    return state.due


def player_name(expectation: Expectation) -> str:
    """Two expectations with the same name are the same player: its budget goes on."""
    parts = (expectation.process, str(expectation.event_id or ""), expectation.user or "", *expectation.cmdline)
    return "\x1f".join(parts)


# --- what is expected -------------------------------------------------------------------------------------------------


def expect(state: State, expectation: Expectation, player: ProcessKey | None, now: float) -> Step:
    """Something is to play from now on. `player` is its living process if the expectation names one by pid."""
    old, same = state.expectation, state.budget.player == player_name(expectation)
    budget = state.budget if same else Budget(player=player_name(expectation), rungs=state.budget.rungs)
    actions: list[Action] = []
    if old is None or replace(expectation, pid=None) != replace(old, pid=None):
        actions.append(Emit(expectation_draft(expectation)))
    way_out = state.phase is Phase.LOST and old is not None and expectation.restart != old.restart
    goes_on = same and not way_out and expectation.pid is None
    if old is not None and goes_on and (player is None or player == state.player):
        # Announced again without a pid: whatever is going on with the player goes on.
        return replace(state, expectation=expectation, budget=budget), tuple(actions)
    if state.phase is Phase.RESTARTING:
        actions.append(StopCommand())
    fresh = State(expectation=expectation, budget=budget, since=now, phase=Phase.STARTING)
    if same:
        fresh = replace(fresh, outage_since=state.outage_since, outage_s=state.outage_s)
    if player is None:
        return fresh, tuple(actions)
    if same and player == state.player and state.phase is Phase.RUNNING:
        return replace(state, expectation=expectation, budget=budget), tuple(actions)
    running, started = _running(fresh, player, now)
    return running, (*actions, *started)


def clear(state: State, now: float) -> Step:
    """Nothing is expected any more. The budget stays, in case the same player is announced again."""
    if state.expectation is None:
        return state, ()
    message = f"{state.expectation.process} is no longer expected"
    actions: tuple[Action, ...] = (StopCommand(),) if state.phase is Phase.RESTARTING else ()
    emit = Emit(Draft(LogLevel.INFO, "expectation.cleared", message, about(state.expectation)))
    return State(budget=state.budget, since=now), (*actions, emit)


# --- the table --------------------------------------------------------------------------------------------------------


def _idle(state: State, _seen: Observation, _now: float, _policy: RestartPolicy) -> Step:
    return state, ()


def _starting(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    if seen.player is not None:
        return _running(state, seen.player, now)
    if not seen.gone and now < state.since + policy.start_timeout_s:
        return state, ()
    assert state.expectation is not None
    if seen.gone and starts_itself(state.expectation) and not state.budget.streak and _can_restart(state, seen):
        return _first_start(state, now, policy)
    why = "its process is gone" if seen.gone else f"not seen within {policy.start_timeout_s:g} s"
    text = f"{state.expectation.process} is missing: {why}"
    missing = Emit(Draft(LogLevel.ERROR, "player.missing", text, about(state.expectation)))
    after, actions = _next_attempt(_dead(state, now), seen, now, policy)
    return after, (*actions, missing) if _acts(actions) else (missing, *actions)


def _running_phase(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    if seen.player is None:
        assert state.player is not None
        report = ReportDeath(state.expectation, state.player, now - state.since)
        after, actions = _next_attempt(_dead(state, now), seen, now, policy)
        return after, (KillLeftovers(state.player), *actions, report)
    if seen.player != state.player:
        return _running(state, seen.player, now)
    if seen.stopped:
        return _stopped(state, seen, now, policy)
    if state.stopped_since is not None:
        return replace(state, stopped_since=None, due=None, since=now), ()
    if seen.fault is not None:
        return _wrong_picture(state, seen, now, policy)
    if state.fault_since is not None:
        return replace(state, fault_since=None, due=None, since=now), ()
    if _has_history(state) and now >= state.since + policy.stable_s:
        return _stable(state)
    return state, ()


def _stopped(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    assert state.player is not None
    if state.stopped_since is None:
        text = f"{state.expectation.process} (pid {state.player.pid}) was stopped by a signal"
        draft = Draft(LogLevel.WARN, "player.stopped", text, about(state.expectation, state.player))
        due = now + policy.stopped_after_s if policy.stopped_after_s > 0 else None
        return replace(state, stopped_since=now, due=due), (Emit(draft),)
    overdue = policy.stopped_after_s > 0 and now >= state.stopped_since + policy.stopped_after_s
    if not overdue:
        return state, ()
    if not _can_restart(state, seen):
        # A time that has passed would have the loop turn without a pause.
        return replace(state, due=None), ()
    due = now + policy.stop_timeout_s + KILL_GRACE_S
    return replace(_dead(state, now), phase=Phase.STOPPING, player=state.player, due=due), (KillPlayer(state.player),)


def _wrong_picture(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    """It is replaced as if it had died, by the same budget, and with one slow retry more before a greater step.

    A player that lives is better than none: when the budget is spent it is left as it is until the next slow retry.
    """
    if state.fault_since is None:
        state = replace(state, fault_since=now, due=now)
    if state.due is None or now < state.due:
        return state, ()
    if not _can_restart(state, seen):
        # A time that has passed would have the loop turn without a pause.
        return replace(state, due=None), ()
    budget = pruned(state.budget, now, policy)
    state = replace(state, budget=budget)
    if "player" in policy.ladder and len(budget.restarts) < policy.max_restarts and not budget.gave_up:
        return _replace_player(state, seen, now, policy)
    patient = "player" in policy.ladder and budget.streak <= policy.max_restarts
    rung = None if patient or budget.gave_up else next_rung(budget, policy, seen.may_reboot)
    if rung is not None:
        return _take_rung(replace(_dead(state, now), replaced=state.player), rung, now, policy)
    retry_at = (budget.restarts[-1] if budget.restarts else now) + policy.slow_retry_s
    if not patient and not budget.gave_up:
        return _leave_picture(replace(state, due=max(retry_at, now)), seen, policy)
    if "player" in policy.ladder and now >= retry_at:
        return _replace_player(state, seen, now, policy)
    return replace(state, due=max(retry_at, now + policy.slow_retry_s / 10)), ()


def _replace_player(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    assert state.player is not None
    dead = _dead(state, now)
    if state.expectation.restart.way is Way.ARGV:
        # The command would start a second one beside it; the other ways end the old one themselves.
        due = now + policy.stop_timeout_s + KILL_GRACE_S
        granted = replace(dead, budget=replace(dead.budget, grant=True))
        return replace(granted, phase=Phase.STOPPING, player=state.player, due=due), (KillPlayer(state.player),)
    return _restart(replace(dead, replaced=state.player), now, policy, f"its picture is wrong ({seen.fault})")


def _leave_picture(state: State, seen: Observation, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    tried = f"after {state.budget.streak} restarts"
    text = f"The picture of {state.expectation.process} is still wrong ({seen.fault}) {tried}"
    draft = Draft(
        LogLevel.ERROR,
        "screen.gave_up",
        f"{text}; trying every {policy.slow_retry_s:g} s from now on",
        about(state.expectation, state.player) | {"reason": seen.fault, "restarts": state.budget.streak},
    )
    return replace(state, budget=replace(state.budget, gave_up=True)), (Emit(draft),)


def _stopping(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    assert state.player is not None
    assert state.due is not None
    if seen.player == state.player and now < state.due:
        return state, ()
    if seen.player not in (None, state.player):
        return _running(state, seen.player, now)
    after, actions = _next_attempt(replace(state, player=None), seen, now, policy)
    return after, (KillLeftovers(state.player), *actions)


def _waiting(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    """BACKOFF and GAVE_UP."""
    if seen.player is not None:
        return _running(state, seen.player, now)
    if state.due is not None and now < state.due:
        return state, ()
    if not _can_restart(state, seen):
        return replace(state, phase=Phase.LOST, due=None), ()
    return _restart(state, now, policy)


def _restarting(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    if seen.player is not None:
        return _running(state, seen.player, now)
    if seen.command is not None and seen.command.error is not None:
        return _restart_failed(state, seen, now, policy, seen.command.error)
    if seen.command is not None and not state.command_done:
        return replace(state, command_done=True, due=now + policy.start_timeout_s), ()
    if state.due is None or now < state.due:
        return state, ()
    waited = policy.start_timeout_s if state.command_done else policy.command_timeout_s
    what = "was not seen" if state.command_done else "did not start"
    after, actions = _restart_failed(
        state, seen, now, policy, f"{state.expectation.process} {what} within {waited:g} s"
    )
    return after, (StopCommand(), *actions)


def _lost(state: State, seen: Observation, now: float, _policy: RestartPolicy) -> Step:
    return (state, ()) if seen.player is None else _running(state, seen.player, now)


_TABLE: dict[Phase, Callable[[State, Observation, float, RestartPolicy], Step]] = {
    Phase.IDLE: _idle,
    Phase.STARTING: _starting,
    Phase.RUNNING: _running_phase,
    Phase.STOPPING: _stopping,
    Phase.BACKOFF: _waiting,
    Phase.RESTARTING: _restarting,
    Phase.GAVE_UP: _waiting,
    Phase.LOST: _lost,
}


# --- the budget -------------------------------------------------------------------------------------------------------


def _next_attempt(state: State, seen: Observation, now: float, policy: RestartPolicy) -> Step:
    """The player is dead: plan its restart, or take the next rung, or give up. `state.player` is None by now."""
    if not _can_restart(state, seen):
        return replace(state, phase=Phase.LOST, since=now, due=None), ()
    budget = pruned(state.budget, now, policy)
    state = replace(state, budget=budget, since=now, command_done=False)
    if budget.grant:
        return _restart(state, now, policy)
    if budget.gave_up:
        last = budget.restarts[-1] if budget.restarts else now
        return replace(state, phase=Phase.GAVE_UP, due=max(now, last + policy.slow_retry_s)), ()
    if "player" in policy.ladder and len(budget.restarts) < policy.max_restarts:
        wait = backoff(budget.streak, seen.jitter, policy)
        waiting = replace(state, phase=Phase.BACKOFF, due=now + wait)
        return (waiting, ()) if wait else _restart(waiting, now, policy)
    rung = next_rung(budget, policy, seen.may_reboot)
    return _give_up(state, now, policy) if rung is None else _take_rung(state, rung, now, policy)


def _restart(state: State, now: float, policy: RestartPolicy, why: str = "") -> Step:
    assert state.expectation is not None
    spent = pruned(state.budget, now, policy)
    budget = replace(spent, restarts=(*spent.restarts, now), streak=spent.streak + 1, grant=False)
    number, process = budget.streak, state.expectation.process
    text = f"Restarting {process} (restart {number} since it was last stable)" + (why and f": {why}")
    draft = Draft(LogLevel.INFO, "player.restarting", text, about(state.expectation) | {"restart": number})
    after = replace(
        state,
        phase=Phase.RESTARTING,
        since=now,
        due=now + policy.command_timeout_s,
        command_done=False,
        stopped_since=None,
        budget=budget,
    )
    return after, (StartRestart(state.expectation, number), Emit(draft))


def _first_start(state: State, now: float, policy: RestartPolicy) -> Step:
    """The configuration's own player at boot: that it does not run yet is no incident and costs no restart."""
    assert state.expectation is not None
    text = f"Starting {state.expectation.process}"
    draft = Draft(LogLevel.INFO, "player.restarting", text, about(state.expectation) | {"restart": 0})
    after = replace(state, phase=Phase.RESTARTING, since=now, due=now + policy.command_timeout_s, command_done=False)
    return after, (StartRestart(state.expectation, 0), Emit(draft))


def starts_itself(expectation: Expectation) -> bool:
    """Nobody but the watchdog starts this player: a [player] section with a command."""
    return expectation.source == "config" and expectation.restart.way is Way.ARGV


def _restart_failed(state: State, seen: Observation, now: float, policy: RestartPolicy, why: str) -> Step:
    assert state.expectation is not None
    text = f"Restart of {state.expectation.process} failed: {why}"
    draft = Draft(LogLevel.ERROR, "player.restart_failed", text, about(state.expectation) | {"error": why})
    if state.replaced is not None:
        # If it still lives it is the player again, and must not get a second one beside it.
        return replace(state, phase=Phase.STARTING, replaced=None, since=now, due=None), (Emit(draft),)
    after, actions = _next_attempt(state, seen, now, policy)
    return after, (Emit(draft), *actions)


def _take_rung(state: State, rung: str, now: float, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    budget = replace(state.budget, rungs=(*state.budget.rungs, (rung, now)), grant=True)
    after = replace(state, phase=Phase.RESTARTING, due=now + policy.command_timeout_s, budget=budget)
    reason = f"{len(budget.restarts)} restarts of {state.expectation.process} did not help"
    if rung == "session":
        assert policy.session_unit is not None
        context = about(state.expectation) | {"unit": policy.session_unit}
        draft = Draft(LogLevel.ERROR, "session.restarting", f"Restarting {policy.session_unit}: {reason}", context)
        return after, (RestartSession(policy.session_unit), Emit(draft))
    draft = Draft(LogLevel.ERROR, "system.rebooting", f"Rebooting: {reason}", about(state.expectation))
    return after, (Emit(draft), Reboot())


def _give_up(state: State, now: float, policy: RestartPolicy) -> Step:
    assert state.expectation is not None
    tries = f"{policy.max_restarts} in {policy.window_s:g} s"
    text = f"Max restart attempts exceeded for {state.expectation.process} ({tries}); trying every"
    draft = Draft(
        LogLevel.ERROR,
        "player.gave_up",
        f"{text} {policy.slow_retry_s:g} s from now on",
        about(state.expectation) | {"max_restarts": policy.max_restarts, "window_s": policy.window_s},
    )
    budget = replace(state.budget, gave_up=True)
    return replace(state, phase=Phase.GAVE_UP, due=now + policy.slow_retry_s, budget=budget), (Emit(draft),)


# --- small steps ------------------------------------------------------------------------------------------------------


def _running(state: State, player: ProcessKey, now: float) -> Step:
    assert state.expectation is not None
    down = 0.0 if state.outage_since is None else now - state.outage_since
    after = replace(
        state,
        phase=Phase.RUNNING,
        player=player,
        since=now,
        due=None,
        command_done=False,
        stopped_since=None,
        fault_since=None,
        replaced=None,
        outage_s=down,
    )
    text = f"{state.expectation.process} is running (pid {player.pid})"
    return after, (Emit(Draft(LogLevel.INFO, "player.started", text, about(state.expectation, player))),)


def _dead(state: State, now: float) -> State:
    outage = now if state.outage_since is None else state.outage_since
    return replace(state, player=None, stopped_since=None, fault_since=None, outage_since=outage)


def _stable(state: State) -> Step:
    assert state.expectation is not None
    restarts = state.budget.streak
    after = replace(
        state,
        budget=Budget(player=state.budget.player, rungs=state.budget.rungs),
        outage_since=None,
        outage_s=0.0,
    )
    if state.outage_since is None:
        return after, ()
    text = f"{state.expectation.process} is stable again after an outage of {state.outage_s:.1f} s"
    context = about(state.expectation, state.player) | {"outage_s": round(state.outage_s, 3), "restarts": restarts}
    return after, (Emit(Draft(LogLevel.INFO, "player.recovered", text, context)),)


def _has_history(state: State) -> bool:
    budget = state.budget
    return state.outage_since is not None or bool(budget.restarts or budget.streak or budget.gave_up or budget.grant)


def _can_restart(state: State, seen: Observation) -> bool:
    assert state.expectation is not None
    return seen.may_restart and state.expectation.restart.way is not Way.NONE


def _acts(actions: tuple[Action, ...]) -> bool:
    return any(isinstance(action, StartRestart) for action in actions)


# --- what is told -----------------------------------------------------------------------------------------------------


_STATUS = {
    Phase.IDLE: ProcessStatus.STOPPED,
    Phase.STARTING: ProcessStatus.STARTING,
    Phase.RUNNING: ProcessStatus.RUNNING,
    Phase.STOPPING: ProcessStatus.STOPPED,
    Phase.BACKOFF: ProcessStatus.CRASHED,
    Phase.RESTARTING: ProcessStatus.STARTING,
    Phase.GAVE_UP: ProcessStatus.CRASHED,
    Phase.LOST: ProcessStatus.CRASHED,
}


def view(state: State) -> PlayerView:
    """What is told about the player."""
    status = ProcessStatus.STOPPED if state.stopped_since is not None else _STATUS[state.phase]
    process = None if state.expectation is None else state.expectation.process
    return PlayerView(state.expectation, process, None if state.player is None else state.player.pid, status)
