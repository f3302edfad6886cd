"""The agent: where the parts are put together, and THE loop.

Each turn: what the selector reported -> observe -> `core.recovery.decide` -> act -> records -> reports -> systemd's
watchdog. Nothing in a turn waits: slow work is for the delivery thread, the state file's thread and child processes.
"""

import contextlib
import logging
import os
import random
import selectors
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType

from infoscreen_device import journal, report
from infoscreen_device.actor import Actor
from infoscreen_device.clock import Clocks, system_clocks
from infoscreen_device.control import ControlServer, Request, draft_from_request, expectation_from_request
from infoscreen_device.core import recovery
from infoscreen_device.core.actions import Emit, Observation, Reboot
from infoscreen_device.core.model import Draft
from infoscreen_device.core.phases import State
from infoscreen_device.delivery import Delivery
from infoscreen_device.identity import resolve_uuid
from infoscreen_device.incidents import Incidents
from infoscreen_device.probes import process as probe
from infoscreen_device.probes import system
from infoscreen_device.screen_watch import ScreenWatch
from infoscreen_device.settings import Config
from infoscreen_device.state import StateFile
from infoscreen_device.systemd import Notifier
from infoscreen_device.watch import Watch
from infoscreen_shared import __version__
from infoscreen_shared.messages import LogLevel

log = logging.getLogger(__name__)

DELIVERY_LIMIT_S = 120.0
"""A delivery thread that completed no cycle for so long is stuck, not slow: systemd may then restart the agent."""
STOP_S = 1.5
"""What is left for delivery of the two seconds in which SIGTERM is obeyed."""
RETRY_STATE_S = 60.0
SWITCH_S = 0.001
FAILED_TURN_S = 1.0
"""After a turn that failed by a defect: the loop goes on, but not at full speed."""


def run(config: Config, environ: Mapping[str, str]) -> int:
    """Runs until SIGTERM. The exit status: 0, or 1 if another agent runs already."""
    journal.set_up(environ)
    # The interpreter's default of 5 ms is how long a busy delivery thread could hold up a restart.
    sys.setswitchinterval(SWITCH_S)
    clocks = system_clocks(trusted=config.clock.trusted)
    control = ControlServer(config.control)
    trouble = _open(control)
    if trouble is not None and "another agent" in trouble:
        log.error("%s: %s", config.control.socket, trouble)
        return 1
    with _signals() as wake:
        agent = Agent(config, environ, clocks, control)
        try:
            agent.start(wake, trouble)
            agent.loop()
        finally:
            agent.stop()
    return 0


def _open(control: ControlServer) -> str | None:
    """What is wrong with the control socket. Without it a configured player is still watched."""
    try:
        control.open()
    except OSError as error:
        return error.strerror or str(error)
    return None


class Agent:
    def __init__(self, config: Config, environ: Mapping[str, str], clocks: Clocks, control: ControlServer) -> None:
        self.config, self.clocks, self.control = config, clocks, control
        self.stopping = False
        self._selector = selectors.DefaultSelector()
        self._identity = report.Identity(resolve_uuid(config), __version__)
        self._delivery = Delivery(config, self._identity.uuid, clocks, self._identity.version)
        self._file = StateFile(config.state_dir, clocks.boot_id)
        self._notifier = Notifier(environ, os.getpid())
        self._watch = Watch(self._selector)
        self._incidents = Incidents(config.state_dir / "evidence", config.pictures, config.http, self._identity.uuid)
        self._screen = ScreenWatch(config, control, self._incidents)
        self._actor = Actor(config.restart, environ, self._selector, control, self._watch)
        self._started = clocks.boottime()
        self.state = State()
        self._health_at = self._heartbeat_at = self._watchdog_at = self._state_at = 0.0
        self._told: object = None
        """The view of the player that the last health report gave."""
        self._ready = False

    # --- begin and end ------------------------------------------------------------------------------------------------

    def start(self, wake: int, trouble: str | None) -> None:
        """`wake` becomes readable with each signal; `trouble` is what is wrong with the control socket."""
        now = self.clocks.boottime()
        self._selector.register(wake, selectors.EVENT_READ, "signal")
        if trouble is None:
            self.control.register(self._selector)
        probe.become_subreaper()
        with contextlib.suppress(OSError):
            self.config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.state = self._file.load(now)
        self._file.start()
        self._delivery.start()
        self._incidents.start()
        self._submit(Draft(LogLevel.INFO, "agent.started", "The watchdog has started", {"pid": os.getpid()}))
        if trouble is not None:
            log.error("%s: %s; 'expect' and 'status' do not work", self.config.control.socket, trouble)
        self._expect_configured(now)
        self._watch.search_soon(now)

    def _expect_configured(self, now: float) -> None:
        """[player] holds unless an event handler has said something else in this boot."""
        configured, kept = self.config.player, self.state.expectation
        if configured is None:
            if kept is not None and kept.source == "config":
                self._take(recovery.clear(self.state, now), now)
        elif kept is None or (kept.source == "config" and kept != configured) or self._file.rebooted:
            self._take(recovery.expect(self.state, configured, None, now), now)

    def stop(self) -> None:
        """Within two seconds; players go on."""
        self._notifier.stopping()
        now = self.clocks.boottime()
        for draft in self._actor.deaths.collect(now, at_once=True):
            self._submit(draft)
        self._submit(Draft(LogLevel.INFO, "agent.stopped", "The watchdog stops; players go on", {}))
        self._file.keep(self.state, now)
        if not self._delivery.stop(STOP_S):
            log.warning("delivery did not end in time; what was not yet due on disk may be lost")
        self._file.close(0.2)
        self._incidents.close(0.2)
        self._actor.close()
        self._watch.drop()
        self.control.close()
        self._selector.close()

    # --- the loop -----------------------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Turns until SIGTERM."""
        events: list[tuple[selectors.SelectorKey, int]] = []
        while not self.stopping:
            try:
                self.turn(events)
                # SIGTERM came with this turn's events: nothing would wake the next select for it.
                wait = 0.0 if self.stopping else max(0.0, self._wake_at() - self.clocks.boottime())
                events = self._selector.select(wait)
            except Exception:
                # A defect must not end the watch. systemd's watchdog is not fed, in case it never gets better.
                log.exception("a turn of the loop failed")
                events = []
                signal.sigtimedwait((), FAILED_TURN_S)

    def turn(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        """One cycle. `events` is what the selector reported."""
        now = self.clocks.boottime()
        for key, _ in events:
            if key.data is self.control:
                for request in self.control.handle(key):
                    self._answer(request, now)
            elif key.data == "signal":
                self._drain(key.fd)
        while True:
            before = self.state
            self._take(recovery.decide(self.state, self._observe(now), now, self.config.restart), now)
            if self.state == before:
                break
        self._actor.look_after(now)
        for draft in (*self._actor.deaths.collect(now), *self._screen.turn(self.state, now, self.clocks.utc())):
            self._submit(draft)
        self._tell(now)

    def _observe(self, now: float) -> Observation:
        state = self.state
        # Before the command's end is asked for: a player that is seen makes that end unimportant.
        player, stopped = self._watch.see(state, now, self._actor.candidate(), self._actor.not_players)
        expected = state.expectation
        hopeless = expected is not None and (expected.pid is not None or recovery.starts_itself(expected))
        return Observation(
            player=player,
            stopped=stopped,
            fault=self._screen.fault(state),
            gone=hopeless and player is None and self._watch.searched,
            command=self._actor.command_end(),
            jitter=random.random(),
            may_restart=self.config.enabled,
            may_reboot=self._file.writable,
        )

    def _take(self, step: recovery.Step, now: float) -> None:
        """Goes to the next state and does what it asks for: commands first, words later."""
        state, actions = step
        changed, self.state = state != self.state, state
        deeds = [action for action in actions if not isinstance(action, Emit)]
        # Writing costs the restart a millisecond; only a reboot must not come before it is noted.
        noted_first = changed and any(isinstance(action, Reboot) for action in deeds)
        if noted_first:
            self._file.keep(state, now)
        for deed in deeds:
            self._actor.perform(deed, now, self._file)
        if changed and not noted_first:
            self._file.keep(state, now)
        for action in actions:
            if isinstance(action, Emit):
                self._submit(action.draft)

    def _wake_at(self) -> float:
        now = self.clocks.boottime()
        times = [
            self._watch.wake_at(self.state),
            recovery.wake_at(self.state, self.config.restart),
            self._actor.wake_at(now),
            self._screen.wake_at(),
            self._health_at,
            self._heartbeat_at,
            self._watchdog_at if self._notifier.watchdog_s is not None else None,
        ]
        return min(when for when in times if when is not None)

    # --- what is told -------------------------------------------------------------------------------------------------

    def _submit(self, draft: Draft) -> None:
        self._delivery.submit(draft)
        journal.log_draft(draft)

    def _tell(self, now: float) -> None:
        delivery = self._delivery.status()
        told = (recovery.view(self.state), self._screen.view.status, self._screen.view.reason)
        if told != self._told or now >= self._health_at:
            self._told, self._health_at = told, now + self.config.report.health_s
            facts = system.system_facts(self.config.state_dir, self.clocks.boot_id, now)
            self._delivery.publish("health", report.health(self.state, self._screen.view, facts, self.clocks.utc()))
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self.config.report.heartbeat_s
            beat = report.heartbeat(self.state, self._screen.view, delivery, self._identity, self.clocks.utc())
            self._delivery.publish("heartbeat", beat)
        if not self._file.writable and now >= self._state_at:
            self._state_at = now + RETRY_STATE_S
            self._file.keep(self.state, now)
        self._notifier.status(report.status_line(self.state, self._screen.view, delivery))
        if not self._ready:
            self._ready = True
            self._notifier.ready()
        if self._notifier.watchdog_s is not None and now >= self._watchdog_at:
            self._watchdog_at = now + self._notifier.watchdog_s / 3
            if now - delivery.beat <= DELIVERY_LIMIT_S:
                self._notifier.alive()
            else:
                log.error("the delivery thread is stuck; systemd's watchdog is not fed")

    # --- who asks for something ---------------------------------------------------------------------------------------

    def _answer(self, request: Request, now: float) -> None:
        """Every request is answered, whatever is wrong with it."""
        try:
            if request.op == "screen":
                # Answered once the helper has looked.
                self._screen.demand(request, now)
                return
            answer = self._do(request, now)
        except ValueError as error:
            answer = {"ok": False, "error": str(error)}
            if request.op == "expect":
                context = {"uid": request.peer.uid, "pid": request.peer.pid, "error": str(error)}
                text = f"An expectation was refused: {error}"
                self._submit(Draft(LogLevel.WARN, "expectation.rejected", text, context))
        request.reply(answer)

    def _do(self, request: Request, now: float) -> dict[str, object]:
        """Raises ValueError with a text for the answer."""
        match request.op:
            case "expect":
                units = self.config.control.units
                asked = expectation_from_request(request.body, request.peer, os.geteuid(), units)
                player = None if asked.pid is None else probe.key_of(asked.pid)
                self._take(recovery.expect(self.state, asked, player, now), now)
                self._watch.search_soon(now)
            case "clear":
                self._take(recovery.clear(self.state, now), now)
            case "log":
                self._submit(draft_from_request(request.body))
            case "looked":
                for draft in self._screen.answer(request, now, self.clocks.utc()):
                    self._submit(draft)
            case "status":
                return {"ok": True} | self._status(now)
            case "attach":
                self._actor.not_players.add(request.peer.pid)
            case "restarted":
                self._actor.handler_answered(request.body)
                self._watch.search_soon(now)
        return {"ok": True}

    def _status(self, now: float) -> dict[str, object]:
        return report.status_document(
            self.state,
            self._screen.view,
            self._delivery.status(),
            self._identity,
            enabled=self.config.enabled,
            broker_url=self.config.broker.url,
            policy=self.config.restart,
            now=now,
            started=self._started,
        )

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if set(os.read(fd, 4096)) & {signal.SIGTERM, signal.SIGINT}:
                self.stopping = True


@contextlib.contextmanager
def _signals() -> Iterator[int]:
    """Signals become bytes in a pipe, whose reading end this yields. SIGCHLD too: orphans are to be reaped."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    before = {number: signal.signal(number, _nothing) for number in numbers}
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(former)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass
