"""The rules of recovery against a small world in which players live, die, hang and come back, on a clock of its own."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_device.core import phases, recovery
from infoscreen_device.core.actions import (
    Action,
    CommandEnd,
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
from infoscreen_device.core.budget import Budget, used
from infoscreen_device.core.model import Draft, Expectation, ProcessKey, Restart, Way
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.core.policy import RestartPolicy
from infoscreen_shared.messages import LogLevel, ProcessStatus

ARGV = Restart(Way.ARGV, argv=("vlc", "film.mkv"), user="kiosk")
CONFIGURED = Expectation("vlc", restart=ARGV)
ANNOUNCED = Expectation("vlc", event_id=42, restart=Restart(Way.HANDLER), source="uid:1000")
WATCHED = Expectation("vlc", source="uid:1000")
EXAMPLES = 400
SURE_S = 0.5
LITTLE = 1e-6
"""Times are floats, and a reboot moves them."""


class World:
    """Does what the rules ask for, as well as `outcomes` allow, and holds them to their promises at every turn.

    An outcome is (what, after): the restart's command "runs" the player, which is seen `after` seconds; "forks", which
    is the same but the command ends well at once; "fails" then; "vanishes", ends well then and no player is seen; or
    "hangs". `jitter` as in Observation.
    """

    def __init__(
        self, policy: RestartPolicy, outcomes: Iterable[tuple[str, float]] = (("runs", 0.0),), jitter: float = 0.0
    ) -> None:
        self.policy, self.jitter = policy, jitter
        self.outcomes = cycle(outcomes)
        self.now = 1000.0
        self.state = State(since=self.now)
        self.may_restart = True
        self.drafts: list[Draft] = []
        self.actions: list[Action] = []
        self.starts: list[float] = []
        """When restarts went out; the first start of a configured player is none."""
        self.player: ProcessKey | None = None
        self.stopped = False
        self.fault: str | None = None
        """What is wrong with the picture of any player that lives, as is known SURE_S after it came to life."""
        self._sure_at = self.now
        self.well_since: float | None = None
        """Since when a player is seen that was never stopped; the test's own idea of stability."""
        self.gave_up = False
        """It was said, and the player was not stable since."""
        self.alive_or_tried = self.now
        self._born: tuple[float, ProcessKey] | None = None
        self._command: tuple[float, CommandEnd] | None = None
        self._pids = 100

    # --- what happens to it -------------------------------------------------------------------------------------------

    def expect(self, expectation: Expectation, player: ProcessKey | None = None) -> None:
        self.alive_or_tried = self.now
        self._take(recovery.expect(self.state, expectation, player, self.now))
        self.turn()

    def appear(self) -> ProcessKey:
        self._pids += 1
        self.player, self.stopped = ProcessKey(self._pids, self._pids), False
        return self.player

    def die(self) -> None:
        self.player, self.stopped = None, False
        self.turn()

    def stop(self, stopped: bool) -> None:
        self.stopped = stopped and self.player is not None
        self.turn()

    def look(self, fault: str | None) -> None:
        self.fault = fault
        self.turn()

    def agent_restarts(self, after: float = 0.0) -> None:
        """What the agent had under way goes on without it."""
        self._command = None
        self.now += after
        self._let_be_born()
        self.state = phases.resume(self.state, self.now)
        self.alive_or_tried = self.now
        self.turn()

    def reboot(self, now: float) -> None:
        """To a boot clock that says `now`; how long it was off nobody knows."""
        offset = now - self.now
        self.now = self.alive_or_tried = now
        self.starts = [when + offset for when in self.starts]
        self._command = self._born = self.well_since = None
        self._sure_at = now
        self.player, self.stopped = None, False
        self.state = phases.reboot_over(self.state, offset, now)
        self.turn()

    def wait(self, seconds: float) -> None:
        """Calls `decide` when something happens and when the rules want to be called, and not otherwise."""
        end = self.now + seconds
        for _ in range(10_000):
            times = [recovery.wake_at(self.state, self.policy)]
            times += [self._sure_at if self._sure_at > self.now else None]
            times += [self._born and self._born[0], self._command and self._command[0]]
            upcoming = min((when for when in times if when is not None), default=math.inf)
            if upcoming > end:
                break
            # A selector may wake a moment too late, and never too early.
            self.now = max(self.now, upcoming)
            self.turn()
        else:
            raise AssertionError("the rules want to be called without end")
        self.now = end
        self.turn()

    # --- the turn of the loop -----------------------------------------------------------------------------------------

    def turn(self) -> None:
        for _ in range(8):
            self._let_be_born()
            before = self.state
            self._take(recovery.decide(self.state, self._observe(), self.now, self.policy))
            if self.state == before and (self._born is None or self._born[0] > self.now):
                break
        else:
            raise AssertionError(f"does not come to rest: {self.state}")
        self._check()

    def _let_be_born(self) -> None:
        if self._born is not None and self.now >= self._born[0]:
            self.player, self.stopped, self._born = self._born[1], False, None
            self._sure_at = self.now + SURE_S

    def _observe(self) -> Observation:
        expected, command = self.state.expectation, None
        if self._command is not None and self.now >= self._command[0]:
            command, self._command = self._command[1], None
        hopeless = expected is not None and (expected.pid is not None or recovery.starts_itself(expected))
        return Observation(
            player=self.player,
            stopped=self.stopped,
            fault=None if self.player is None or self.stopped or self.now < self._sure_at else self.fault,
            gone=hopeless and self.player is None,
            command=command,
            jitter=self.jitter,
            may_restart=self.may_restart,
        )

    def _take(self, step: recovery.Step) -> None:
        before = self.state
        self.state, actions = step
        self.actions += actions
        for action in actions:
            match action:
                case StartRestart(_, number):
                    self._start(before, number)
                case RestartSession() | Reboot():
                    self.alive_or_tried = self.now
                    self._command = (self.now, CommandEnd())
                case StopCommand():
                    self._command = None
                case KillPlayer(key) if key == self.player:
                    assert self.may_restart
                    assert before.expectation is not None
                    assert before.expectation.restart.way is not Way.NONE, "killed, and nobody brings it back"
                    self.player, self.stopped = None, False
                case Emit(draft):
                    self._hear(draft)

    def _start(self, before: State, number: int) -> None:
        assert self.player in (None, self.state.replaced), "a second player is started beside the first"
        assert self.may_restart
        if number:
            recent = [when for when in self.starts if when > self.now - self.policy.window_s + LITTLE]
            waited = self.now - max(self.starts, default=-math.inf)
            # Before anything greater than the player is restarted for a picture, one slow retry comes in between.
            patient = self.fault is not None and waited >= self.policy.slow_retry_s - LITTLE
            if before.budget.gave_up and not before.budget.grant:
                assert waited >= self.policy.slow_retry_s - LITTLE, "a slow retry came early"
            elif not before.budget.grant:
                assert patient or len(recent) < self.policy.max_restarts, "more restarts than allowed"
            self.starts.append(self.now)
        self.alive_or_tried = self.now
        self._pids += 1
        key = ProcessKey(self._pids, self._pids)
        what, after = next(self.outcomes)
        self._born = (self.now + after, key) if what in ("runs", "forks") else None
        ends = {"forks": (self.now, CommandEnd()), "vanishes": (self.now + after, CommandEnd())}
        self._command = ends.get(what, (self.now + after, CommandEnd("status 1")) if what == "fails" else None)

    def _hear(self, draft: Draft) -> None:
        self.drafts.append(draft)
        if draft.code in {"player.gave_up", "screen.gave_up"}:
            assert not self.gave_up, "said twice"
            assert draft.level is LogLevel.ERROR
            assert draft.message.startswith("Max restart attempts exceeded") or draft.code == "screen.gave_up"
            self.gave_up = True

    def _check(self) -> None:
        well = not self.stopped and (self.fault is None or self.now < self._sure_at)
        seen = self.player is not None and well and self.state.player == self.player
        if not seen:
            self.well_since = None
        elif self.well_since is None or self.state.since > self.well_since:
            self.well_since = self.now
        if self.well_since is not None and self.now >= self.well_since + self.policy.stable_s + LITTLE:
            assert not used(self.state.budget, self.now, self.policy), "stable, and the budget is not full"
            assert not self.state.budget.gave_up
            self.gave_up = False
        elif self.well_since is not None and self.now >= self.well_since + self.policy.stable_s - LITTLE:
            self.gave_up = self.state.budget.gave_up  # within the tolerance it may be either
        recent = [when for when in self.starts if when > self.now - self.policy.window_s + LITTLE]
        if self.well_since is None or self.now < self.well_since + self.policy.stable_s - LITTLE:
            assert used(self.state.budget, self.now, self.policy) >= len(recent), "the budget was given back too early"
            assert self.state.budget.gave_up == self.gave_up
        else:
            self.starts.clear()
        self._check_not_stuck()

    def _check_not_stuck(self) -> None:
        policy = self.policy
        overdue = self.stopped and policy.stopped_after_s == 0
        if self.player is not None and self.player != self.state.replaced and (not self.stopped or overdue):
            self.alive_or_tried = self.now
        if not self.may_restart or self.state.expectation is None or self.state.expectation.restart.way is Way.NONE:
            return
        # What is under way may take its limits; then the next try comes after the longer of the two waits.
        limits = policy.command_timeout_s + policy.start_timeout_s
        limits += policy.stopped_after_s + policy.stop_timeout_s + recovery.KILL_GRACE_S if self.stopped else 0.0
        longest = limits + max(policy.slow_retry_s, policy.backoff_cap_s)
        assert self.now - self.alive_or_tried <= longest + LITTLE, f"nothing was tried for too long: {self.state}"

    def codes(self) -> list[str | None]:
        return [draft.code for draft in self.drafts]

    def of(self, kind: type[Action]) -> list[Action]:
        return [action for action in self.actions if isinstance(action, kind)]


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def policies(draw: st.DrawFn) -> RestartPolicy:
    first = draw(seconds(0.01, 5))
    return RestartPolicy(
        max_restarts=draw(st.integers(1, 5)),
        window_s=draw(seconds(1, 900)),
        backoff_first_s=first,
        backoff_cap_s=first * draw(seconds(1, 100)),
        slow_retry_s=draw(seconds(1, 400)),
        stable_s=draw(seconds(0.1, 300)),
        stopped_after_s=draw(st.just(0.0) | seconds(0.1, 60)),
        start_timeout_s=draw(seconds(0.1, 30)),
        command_timeout_s=draw(seconds(0.1, 40)),
        stop_timeout_s=draw(seconds(0, 10)),
        ladder=draw(
            st.sampled_from([("player",), ("player", "session"), ("player", "session", "reboot"), ("session",)])
        ),
        session_unit="lightdm.service",
    )


OUTCOMES = st.lists(
    st.tuples(st.sampled_from(["runs", "runs", "forks", "fails", "hangs", "vanishes"]), seconds(0, 50)),
    min_size=1,
    max_size=8,
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["wait", "wait", "die", "die"]), seconds(0, 1500))
    | st.tuples(
        st.sampled_from(
            ["die", "stop", "go on", "wrong", "right", "expect", "agent", "boot", "appear", "clear", "off", "on"]
        ),
        seconds(0, 99),
    ),
    max_size=30,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    policies(), OUTCOMES, STEPS, st.sampled_from([CONFIGURED, ANNOUNCED, WATCHED]), seconds(0, 0.99), seconds(0.001, 5)
)
def test_whatever_happens(
    policy: RestartPolicy,
    outcomes: list[tuple[str, float]],
    steps: list[tuple[str, float]],
    expectation: Expectation,
    jitter: float,
    gap: float,
) -> None:
    """The promises that `World` checks hold in every life of a kiosk."""
    world = World(policy, outcomes, jitter)
    world.expect(expectation)
    for what, number in steps:
        match what:
            case "wait":
                world.wait(number)
            case "die":
                world.die()
            case "stop":
                world.stop(True)
            case "go on":
                world.stop(False)
            case "wrong" | "right":
                world.look("frozen" if what == "wrong" else None)
            case "expect":
                world.expect(expectation)
            case "agent":
                world.agent_restarts(number)
            case "boot":
                world.reboot(number)
            case "off" | "on":
                world.may_restart = what == "on"
                world.agent_restarts()
            case "appear" if world.player is None:
                world.appear()
                world.turn()
            case "clear":
                world._take(recovery.clear(world.state, world.now))
                world.expect(expectation)
        world.wait(gap)
    deaths = [action.key for action in world.actions if isinstance(action, ReportDeath)]
    assert len(deaths) == len(set(deaths)), "a death was told twice"
    assert {action.key for action in world.actions if isinstance(action, KillLeftovers)} >= set(deaths)


# --- one rule at a time -----------------------------------------------------------------------------------------------


def crash_loop(world: World, times: int, runs_s: float = 1.0) -> None:
    """The player dies `times` times, each time `runs_s` after it came."""
    for _ in range(times):
        while world.player is None:
            upcoming = recovery.wake_at(world.state, world.policy)
            assert upcoming is not None
            world.wait(max(0.0, upcoming - world.now))
        world.wait(runs_s)
        world.die()


def test_at_once_then_doubling_waits_then_slow_retries() -> None:
    policy = RestartPolicy(max_restarts=5, backoff_first_s=1, backoff_cap_s=3, slow_retry_s=300)
    world = World(policy)
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 8)
    waits = [later - earlier for earlier, later in pairwise([world.starts[0] - 1, *world.starts])]
    # Each started player ran for a second; the slow retries are counted from the moment of giving up.
    assert waits == pytest.approx([1, 2, 3, 4, 4, 301, 300])
    assert world.codes().count("player.gave_up") == 1
    assert world.codes().count("player.restarting") == len(world.starts) == 7
    assert len(world.of(ReportDeath)) == 8


def test_jitter_only_shortens_and_by_a_quarter_at_most() -> None:
    plain, early = (World(RestartPolicy(), jitter=jitter) for jitter in (0.0, 0.999))
    for world in (plain, early):
        world.expect(ANNOUNCED, world.appear())
        crash_loop(world, 3, runs_s=0.0)
        world.wait(60)
    spans = [world.starts[2] - world.starts[0] for world in (plain, early)]
    assert spans[0] == pytest.approx(3)
    assert 0.75 * 3 <= spans[1] < 0.76 * 3


def test_the_budget_is_full_again_after_the_stable_time_and_not_before() -> None:
    world = World(RestartPolicy(stable_s=120))
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 2)
    world.wait(10)
    assert world.player is not None
    assert used(world.state.budget, world.now, world.policy) == 2
    world.wait(109)
    assert used(world.state.budget, world.now, world.policy) == 2
    assert "player.recovered" not in world.codes()
    assert recovery.wake_at(world.state, world.policy) == pytest.approx(world.now + 2), "it asks to be called for that"
    world.wait(2)
    assert world.state.budget == Budget(player=world.state.budget.player)
    (recovered,) = [draft for draft in world.drafts if draft.code == "player.recovered"]
    assert recovered.context["restarts"] == 2
    assert recovered.context["outage_s"] == pytest.approx(2), "from the first death to the last start"
    world.wait(1000)
    assert world.codes().count("player.recovered") == 1


def test_a_stopped_player_is_not_stable() -> None:
    world = World(RestartPolicy(stable_s=120, stopped_after_s=30))
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 1)
    world.wait(110)
    world.stop(True)
    world.wait(20)
    world.stop(False)
    world.wait(119)
    assert used(world.state.budget, world.now, world.policy) == 1
    world.wait(2)
    assert used(world.state.budget, world.now, world.policy) == 0


def test_the_window_alone_does_not_end_an_episode() -> None:
    """A player that dies every 100 s is broken however long that takes."""
    world = World(RestartPolicy(max_restarts=3, window_s=150, slow_retry_s=300, stable_s=120))
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 20, runs_s=100)
    assert "player.gave_up" not in world.codes(), "never more than three in the window"
    world = World(RestartPolicy(max_restarts=3, window_s=600, slow_retry_s=300, stable_s=120))
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 20, runs_s=100)
    assert world.codes().count("player.gave_up") == 1


@pytest.mark.parametrize("outcome", ["fails", "hangs", "vanishes"])
def test_a_restart_that_brings_no_player_counts(outcome: str) -> None:
    world = World(RestartPolicy(), [(outcome, 0.0)])
    world.expect(ANNOUNCED, world.appear())
    world.die()
    world.wait(3600)
    assert world.codes().count("player.gave_up") == 1
    assert world.codes().count("player.restart_failed") == len(world.starts) > 10
    assert len(world.of(ReportDeath)) == 1, "nothing new has died"
    if outcome == "hangs":
        assert len(world.of(StopCommand)) == len(world.starts), "the hanging command is ended"


def test_a_configured_player_that_does_not_run_yet_is_started_without_an_incident() -> None:
    world = World(RestartPolicy())
    world.expect(CONFIGURED)
    world.wait(1)
    assert world.codes() == ["expectation.set", "player.restarting", "player.started"]
    assert not world.starts
    assert used(world.state.budget, world.now, world.policy) == 0


def test_a_player_that_was_announced_and_never_came_is_missing_and_then_restarted() -> None:
    world = World(RestartPolicy(start_timeout_s=20))
    world.expect(ANNOUNCED)
    world.wait(19.9)
    assert world.codes() == ["expectation.set"]
    world.wait(0.2)
    assert sorted(map(str, world.codes()[1:])) == ["player.missing", "player.restarting", "player.started"]


def test_stopped_is_said_once_and_the_player_replaced_after_a_while() -> None:
    world = World(RestartPolicy(stopped_after_s=30))
    first = world.appear()
    world.expect(ANNOUNCED, first)
    world.stop(True)
    assert recovery.view(world.state).status is ProcessStatus.STOPPED
    world.wait(29)
    assert world.codes().count("player.stopped") == 1
    assert world.player == first
    world.wait(2)
    assert world.of(KillPlayer) == [KillPlayer(first)]
    assert world.of(KillLeftovers) == [KillLeftovers(first)]
    assert world.player not in (None, first)
    assert len(world.starts) == 1


def test_a_stopped_player_that_nobody_brings_back_is_not_killed() -> None:
    world = World(RestartPolicy(stopped_after_s=30))
    world.expect(WATCHED, world.appear())
    world.stop(True)
    world.wait(60)
    assert not world.of(KillPlayer)


def test_a_stopped_player_that_may_not_be_restarted_is_no_reason_to_be_called_without_end() -> None:
    world = World(RestartPolicy(stopped_after_s=30))
    world.may_restart = False
    world.expect(ANNOUNCED, world.appear())
    world.stop(True)
    world.wait(60)
    assert recovery.wake_at(world.state, world.policy) is None
    world.may_restart = True
    world.turn()
    assert world.of(KillPlayer), "it still is, once it may be"


def test_a_stopped_player_that_goes_on_is_left_alone() -> None:
    world = World(RestartPolicy(stopped_after_s=30))
    world.expect(ANNOUNCED, world.appear())
    for _ in range(5):
        world.stop(True)
        world.wait(29)
        world.stop(False)
        world.wait(1)
    assert not world.of(KillPlayer)
    assert world.codes().count("player.stopped") == 5


def test_a_player_that_no_signal_kills_does_not_hold_up_its_restart_for_ever() -> None:
    policy = RestartPolicy(stopped_after_s=30, stop_timeout_s=5)
    player = ProcessKey(7, 7)
    step = recovery.expect(State(), ANNOUNCED, player, 0.0)
    for now in (0.0, 30.0, 39.9):
        state, actions = recovery.decide(step[0], Observation(player=player, stopped=True), now, policy)
        step = (state, actions)
        assert not any(isinstance(action, StartRestart) for action in actions)
    _, actions = recovery.decide(step[0], Observation(player=player, stopped=True), 40.1, policy)
    assert any(isinstance(action, StartRestart) for action in actions)


def test_another_player_gets_its_own_budget_and_the_same_one_keeps_its_own() -> None:
    world = World(RestartPolicy())
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 4)
    world.expect(ANNOUNCED)
    assert world.state.phase is Phase.GAVE_UP, "saying it again is no way around the budget"
    world.expect(replace(ANNOUNCED, pid=4711))
    assert used(world.state.budget, world.now, world.policy) == 3
    world.starts.clear()
    world.gave_up = False
    world.expect(replace(ANNOUNCED, event_id=43))
    assert used(world.state.budget, world.now, world.policy) == 0


def test_the_rungs_of_the_ladder_are_taken_once_each_and_then_it_gives_up() -> None:
    ladder = ("player", "session", "reboot")
    policy = RestartPolicy(max_restarts=2, ladder=ladder, session_unit="lightdm.service", window_s=3600)
    world = World(policy)
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 2)
    world.wait(1)
    world.die()
    assert len(world.of(RestartSession)) == 1
    assert "player.gave_up" not in world.codes()
    crash_loop(world, 1)
    world.wait(1)
    world.die()
    assert len(world.of(Reboot)) == 1
    world.reboot(5.0)
    crash_loop(world, 3)
    world.wait(1)
    assert world.codes().count("player.gave_up") == 1
    crash_loop(world, 5)
    assert len(world.of(Reboot)) == len(world.of(RestartSession)) == 1, "never again within the window"
    assert world.codes().count("player.gave_up") == 1


def test_no_reboot_while_it_cannot_be_remembered() -> None:
    policy = RestartPolicy(max_restarts=1, ladder=("player", "reboot"))
    state, _ = recovery.expect(State(), ANNOUNCED, ProcessKey(7, 7), 0.0)
    state = replace(state, budget=replace(state.budget, restarts=(0.0,), streak=1))
    _, forgetful = recovery.decide(state, Observation(may_reboot=False), 1.0, policy)
    _, mindful = recovery.decide(state, Observation(), 1.0, policy)
    assert not any(isinstance(action, Reboot) for action in forgetful)
    assert any(isinstance(action, Emit) and action.draft.code == "player.gave_up" for action in forgetful)
    assert any(isinstance(action, Reboot) for action in mindful)


@pytest.mark.parametrize("world_of", ["nothing to do it with", "disabled"])
def test_what_may_not_be_restarted_is_told_and_watched_on(world_of: str) -> None:
    world = World(RestartPolicy())
    world.may_restart = world_of != "disabled"
    world.expect(ANNOUNCED if world_of == "disabled" else WATCHED, world.appear())
    world.die()
    assert world.of(ReportDeath)
    world.wait(3600)
    assert not world.starts
    assert recovery.view(world.state).status is ProcessStatus.CRASHED
    new = world.appear()
    world.turn()
    assert recovery.view(world.state).pid == new.pid


def test_a_lost_player_is_brought_back_once_there_is_a_way() -> None:
    world = World(RestartPolicy())
    world.expect(WATCHED, world.appear())
    world.die()
    world.expect(replace(WATCHED, restart=ARGV))
    world.wait(RestartPolicy().start_timeout_s)
    assert len(world.starts) == 1, "named again, now with a restart"
    world = World(RestartPolicy())
    world.may_restart = False
    world.expect(ANNOUNCED, world.appear())
    world.die()
    world.may_restart = True
    world.agent_restarts()
    world.wait(RestartPolicy().start_timeout_s)
    assert len(world.starts) == 1, "WATCHDOG_ENABLED is true again"


def test_nothing_is_expected_any_more() -> None:
    world = World(RestartPolicy(), [("hangs", 0.0)])
    world.expect(ANNOUNCED, world.appear())
    world.die()
    world._take(recovery.clear(world.state, world.now))
    assert world.of(StopCommand), "what is under way is ended"
    world.wait(3600)
    assert len(world.starts) == 1
    assert recovery.view(world.state).status is ProcessStatus.STOPPED


# --- across the agent's own end and a reboot --------------------------------------------------------------------------


def test_the_agents_restart_neither_harms_nor_doubles_a_player() -> None:
    world = World(RestartPolicy())
    world.expect(ANNOUNCED, world.appear())
    world.agent_restarts(after=30)
    assert world.state.phase is Phase.RUNNING
    assert not world.starts
    assert not world.of(KillPlayer)


def test_a_player_that_died_while_the_agent_was_away_is_restarted_at_once() -> None:
    world = World(RestartPolicy())
    world.expect(ANNOUNCED, world.appear())
    world.player = None
    world.agent_restarts(after=30)
    assert len(world.starts) == 1
    assert world.of(ReportDeath)


def test_neither_the_agents_restart_nor_a_reboot_refills_the_budget() -> None:
    world = World(RestartPolicy())
    world.expect(ANNOUNCED, world.appear())
    crash_loop(world, 4)
    assert world.state.budget.gave_up
    world.agent_restarts()
    assert world.state.phase is Phase.GAVE_UP
    world.reboot(10.0)
    assert used(world.state.budget, world.now, world.policy) == 3
    crash_loop(world, 6)
    assert world.codes().count("player.gave_up") == 1
    waits = [later - earlier for earlier, later in pairwise(world.starts[-4:])]
    assert all(wait >= RestartPolicy().slow_retry_s for wait in waits)


@given(st.lists(seconds(0, 5000), max_size=5), seconds(0, 5000), seconds(0, 1e6))
def test_a_reboot_moves_all_times_of_the_budget_alike(ages: list[float], saved_at: float, now: float) -> None:
    restarts = tuple(saved_at - age for age in ages)
    budget = Budget("vlc", restarts, len(ages), True, (("reboot", saved_at - 1),))
    before = State(Phase.RUNNING, ANNOUNCED, ProcessKey(7, 7), saved_at, budget=budget, outage_since=saved_at - 3)
    after = phases.reboot_over(before, now - saved_at, now)
    assert [now - when for when in after.budget.restarts] == pytest.approx(ages, abs=LITTLE)
    assert after.budget.rungs[0][1] == pytest.approx(now - 1)
    assert after.outage_since == pytest.approx(now - 3)
    assert after.budget == replace(budget, restarts=after.budget.restarts, rungs=after.budget.rungs, grant=True)
    assert (after.player, after.phase) == (None, Phase.STARTING)


# --- a wrong picture --------------------------------------------------------------------------------------------------

WRONG = RestartPolicy(ladder=("player", "session"), session_unit="lightdm.service")
BY_UNIT = Expectation("vlc", restart=Restart(Way.UNIT, unit="player.service"))


def playing(expectation: Expectation, policy: RestartPolicy = WRONG) -> World:
    world = World(policy)
    world.expect(expectation, world.appear())
    assert world.state.phase is Phase.RUNNING
    return world


@pytest.mark.parametrize(("expectation", "killed"), [(BY_UNIT, 0), (ANNOUNCED, 0), (CONFIGURED, 1)])
def test_a_player_with_a_wrong_picture_is_replaced(expectation: Expectation, killed: int) -> None:
    """By a command that starts a new one it is ended first; a unit or an event handler ends it itself."""
    world = playing(expectation)
    first = world.player
    world.look("frozen")
    assert len(world.of(KillPlayer)) == killed
    assert world.player != first
    assert world.state.player == world.player
    assert world.of(ReportDeath) == []
    world.look(None)
    world.wait(WRONG.stable_s)
    assert world.codes()[-1] == "player.recovered"


def test_a_wrong_picture_costs_the_budget_and_is_patient_before_the_session_goes() -> None:
    world = playing(BY_UNIT)
    world.look("black")
    world.wait(60)
    assert len(world.starts) == 3
    assert world.of(RestartSession) == []
    world.wait(WRONG.slow_retry_s)
    assert len(world.starts) == 4, "one slow retry"
    assert len(world.of(RestartSession)) == 1
    world.wait(2 * WRONG.slow_retry_s)
    assert len(world.of(RestartSession)) == 1
    assert world.codes().count("screen.gave_up") == 1
    assert world.player is not None, "a player with a wrong picture is better than none"


def test_a_replaced_player_that_lives_on_is_the_player_again() -> None:
    """The unit restarted well, and was not what shows the picture."""
    world = World(WRONG, [("vanishes", 0.0)])
    world.expect(BY_UNIT, first := world.appear())
    world.look("frozen")
    assert world.state.player is None
    world.look(None)
    world.wait(WRONG.start_timeout_s)
    assert world.state.player == first
    assert "player.restart_failed" in world.codes()


def test_nothing_is_replaced_that_nobody_brings_back() -> None:
    world = playing(WATCHED)
    world.look("frozen")
    world.wait(3600)
    assert world.of(KillPlayer) == []
    world = playing(BY_UNIT)
    world.may_restart = False
    world.look("frozen")
    world.wait(3600)
    assert world.starts == []


def test_what_was_to_be_replaced_is_the_player_again_after_an_agent_restart() -> None:
    """The restart may have gone out or not; whoever lives is looked at afresh, and gets no second one beside it."""
    world = World(WRONG, [("vanishes", 100.0)])
    world.expect(BY_UNIT, first := world.appear())
    world.look("frozen")
    assert world.state.replaced == first
    world.fault = None
    world.agent_restarts()
    assert world.state.player == first
    assert len(world.starts) == 1


def test_that_it_was_given_up_is_said_however_short_the_slow_retry() -> None:
    world = playing(BY_UNIT, replace(WRONG, slow_retry_s=0.1))
    world.look("black")
    world.wait(30)
    assert world.codes().count("screen.gave_up") == 1
    assert len(world.starts) > 10, "and it is tried on"
