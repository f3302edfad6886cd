"""Performs what core.recovery asks for, and remembers what is under way: the restart command, kills, evidence.

At most one restart is under way. Nothing here waits, but for the one write that must be on disk before a reboot.
"""

import logging
import os
import selectors
from collections.abc import Mapping
from typing import Any

from infoscreen_device import actions
from infoscreen_device.control import ControlServer
from infoscreen_device.core.actions import (
    Action,
    CommandEnd,
    KillLeftovers,
    KillPlayer,
    Reboot,
    ReportDeath,
    RestartSession,
    StartRestart,
    StopCommand,
)
from infoscreen_device.core.model import ProcessKey, Restart, Way
from infoscreen_device.core.policy import RestartPolicy
from infoscreen_device.evidence import Deaths
from infoscreen_device.probes import process as probe
from infoscreen_device.state import StateFile
from infoscreen_device.watch import Watch

log = logging.getLogger(__name__)

SAVE_LIMIT_S = 5.0


class Actor:
    def __init__(
        self,
        policy: RestartPolicy,
        environ: Mapping[str, str],
        selector: selectors.BaseSelector,
        control: ControlServer,
        watch: Watch,
    ) -> None:
        self._policy, self._environ, self._selector = policy, environ, selector
        self._control, self._watch = control, watch
        self._child: actions.Child | None = None
        self._is_player = False
        """The command under way is an argv: the process it starts may be the player itself."""
        self._end: CommandEnd | None = None
        self._asked = 0
        """Number of the last request to the event handler."""
        self._answered: ProcessKey | None = None
        self._terminations = actions.Terminations()
        self._late: list[probe.Held] = []
        """Dead players whose session is still to be looked through, after the restart went out."""
        self._dead: dict[ProcessKey, probe.Held] = {}
        self.deaths = Deaths()
        self.not_players: set[int] = set()
        """Event handlers: whatever they are called, they are not the player, and they are never killed."""

    # --- what the rules ask for ---------------------------------------------------------------------------------------

    def perform(self, action: Action, now: float, file: StateFile) -> None:
        match action:
            case KillLeftovers(key):
                self._kill_leftovers(key)
            case ReportDeath():
                self._report(action, now)
            case StartRestart(expectation):
                self._stop_command()
                if expectation.restart.way is Way.HANDLER:
                    self._asked += 1
                    if not self._control.ask_restart(expectation, self._asked):
                        self._end = CommandEnd("no event handler is connected that may restart it")
                else:
                    self._start_restart(expectation.restart)
                self._watch.search_soon(now)
            case RestartSession(unit):
                self._stop_command()
                self._start(actions.session_command(unit), Restart())
                self._watch.search_soon(now)
            case Reboot():
                self._reboot(file)
            case KillPlayer(key):
                self._terminations.ask(key, now, self._policy.stop_timeout_s)
            case StopCommand():
                self._stop_command()

    def _start_restart(self, restart: Restart) -> None:
        try:
            command = actions.restart_command(restart, os.geteuid())
        except (LookupError, OSError) as error:
            self._end = CommandEnd(str(error))
            return
        self._start(command, restart)
        self._is_player = restart.way is Way.ARGV

    def _start(self, command: tuple[str, ...], restart: Restart) -> None:
        try:
            self._child = actions.start(command, restart, self._environ, os.geteuid())
        except (OSError, LookupError, ValueError) as error:
            # SubprocessError is for preexec_fn, which is not used.
            self._end = CommandEnd(f"{command[0]}: {error}")
            return
        self._is_player = False
        self._selector.register(self._child.pidfd, selectors.EVENT_READ)

    def _reboot(self, file: StateFile) -> None:
        self._stop_command()
        # A reboot that is not remembered could be followed by another one, for ever.
        if file.flush(SAVE_LIMIT_S):
            self._start(actions.REBOOT_COMMAND, Restart())
        else:
            self._end = CommandEnd("no reboot, since it could not be noted on disk")

    def _stop_command(self) -> None:
        self._end = self._answered = None
        child, self._child = self._child, None
        if child is not None:
            self._selector.unregister(child.pidfd)
            actions.stop_child(child)

    def _kill_leftovers(self, key: ProcessKey) -> None:
        """Descendants at once, for they may hold the screen or a profile that the new player needs."""
        player = self._watch.held
        if player is None or player.key != key:
            return
        self._watch.let_go()
        killed = actions.kill_leftovers(player, list(player.family), self._spared())
        log.debug("killed %d leftovers of pid %d", len(killed), key.pid)
        self._dead[key] = player
        self._late.append(player)

    def _report(self, action: ReportDeath, now: float) -> None:
        player = self._dead.get(action.key)
        self.deaths.add(action, None if player is None else os.dup(player.pidfd), now)

    def _spared(self) -> set[int]:
        return {os.getpid(), os.getppid(), 1, *self.not_players}

    # --- what came of it ----------------------------------------------------------------------------------------------

    def candidate(self) -> ProcessKey | None:
        """The process that may be the player by how it came about."""
        if self._answered is not None:
            return self._answered
        return self._child.key if self._child is not None and self._is_player else None

    def command_end(self) -> CommandEnd | None:
        """The end of what is under way, told once."""
        end, self._end = self._end, None
        if end is not None or self._child is None:
            return end
        child = self._child
        status = child.poll()
        if status is None:
            return None
        self._forget_child()
        if status == 0:
            return CommandEnd()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return CommandEnd(f"{child.what} ended with {how}")

    def handler_answered(self, body: dict[str, Any]) -> None:
        """`body` is {"id", "pid"} or {"id", "error"}; an answer to an older question is not listened to."""
        if body["id"] != self._asked:
            return
        if "error" in body:
            self._end = CommandEnd(f"the event handler says: {body['error']}")
            return
        self._answered = probe.key_of(body["pid"])
        self._end = CommandEnd(None if self._answered is not None else f"there is no process {body['pid']}")

    def look_after(self, now: float) -> None:
        """What is not urgent: sessions of dead players, overdue kills, orphans to reap, a child that is the player."""
        for player in self._late:
            actions.kill_leftovers(player, probe.relatives(player), self._spared())
            del self._dead[player.key]
            player.close()
        self._late.clear()
        self._terminations.insist(now)
        held = self._watch.held
        if self._child is not None and held is not None and self._child.key == held.key:
            # It is the player now; the watch has its own pidfd.
            self._forget_child()
        known = {held.key.pid} if held is not None else set()
        if self._child is not None:
            known.add(self._child.popen.pid)
        actions.reap(known | self.deaths.children())

    def _forget_child(self) -> None:
        assert self._child is not None
        self._selector.unregister(self._child.pidfd)
        self._child.release()
        self._child = None

    def wake_at(self, now: float) -> float | None:
        times = (self._terminations.wake_at(), self.deaths.wake_at(now))
        return min((when for when in times if when is not None), default=None)

    def close(self) -> None:
        """Whatever is under way goes on without us."""
        if self._child is not None:
            self._forget_child()
