"""The command `infoscreen-player`: the reference event handler. It plays one event, or what a schedule says is due.

It starts the player, tells the watchdog what should be playing, and restarts the player when the watchdog asks. Only
while no watchdog is there that took the expectation does it restart a dead player by itself: two that restart would
fight. The rules of the schedule are in schedule.py, the watchdog's side in client.py, the way to the screen in
session.py.
"""

import argparse
import logging
import os
import queue
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from infoscreen_device import schedule, session
from infoscreen_device.client import Watchdog
from infoscreen_device.config import ConfigError
from infoscreen_device.player_commands import DEFAULT_PATH, CommandError, Commands, load_commands
from infoscreen_device.player_process import PlayerProcess
from infoscreen_device.schedule import Event, ScheduleError, parse_schedule
from infoscreen_shared.messages import EventType

log = logging.getLogger("infoscreen-player")

EX_CONFIG = 78
LOOK_S = 2.0
"""How often the schedule's file and the clock on the wall are looked at: it may be set at any time."""
BACKOFF_FIRST_S, BACKOFF_CAP_S, STABLE_S = 1.0, 60.0, 60.0
"""For restarts of our own, without a watchdog; the wait doubles until a player ran for STABLE_S."""
JUST_STARTED_S = 2.0
"""A player this young is the answer to a restart request: request and start of our own have crossed."""
RESTART_WAIT_S = 30.0
SCREEN_LOOK_S, SCREEN_PATIENCE_S = 1.0, 30.0
"""How often a missing screen is looked for, and when the server is told: a session takes its time to come up."""
NO_SCREEN = "there is no screen: neither a Wayland nor an X11 session of this user"


@dataclass(slots=True)
class _RestartRequest:
    """From the thread that listens to the watchdog, for the main thread."""

    done: threading.Event = field(default_factory=threading.Event)
    pid: int | None = None
    error: str = "the event handler is busy"


class Handler:
    """The state of the event handler. All methods but `ask_restart` belong to the main thread."""

    def __init__(
        self,
        events: Callable[[], tuple[Event, ...]],
        commands: Commands,
        base: Path,
        watchdog: Watchdog,
        find_screen: Callable[[], Mapping[str, str] | None],
    ) -> None:
        """`find_screen`: what a player needs in its environment; None as long as it has to wait for a screen."""
        self._events = events
        self._commands = commands
        self._base = base
        self._watchdog = watchdog
        self._find_screen = find_screen
        self.inbox: queue.SimpleQueue[int | _RestartRequest] = queue.SimpleQueue()
        """Signals and restart requests; may be filled from signal handlers and threads."""
        self._current: Event | None = None
        self._process: PlayerProcess | None = None
        self._retry_at: float | None = None
        self._backoff_s = BACKOFF_FIRST_S
        self._dark_since: float | None = None
        """From when on the player has waited for a screen: its start is then our own business."""
        self._dark_told = False

    def run(self, wall_clock: Callable[[], datetime]) -> None:
        """Until SIGTERM or SIGINT."""
        while True:
            wait_s = self._turn(wall_clock())
            try:
                message = self.inbox.get(timeout=wait_s)
            except queue.Empty:
                continue
            if isinstance(message, _RestartRequest):
                self._serve(message)
            elif message in (signal.SIGTERM, signal.SIGINT):
                break
        self._watchdog.clear()
        self._stop()

    def ask_restart(self, _asked: dict[str, Any]) -> int:
        """Called by the client's thread. Raises RuntimeError with the reason for the watchdog's record."""
        request = _RestartRequest()
        self.inbox.put(request)
        request.done.wait(RESTART_WAIT_S)
        if request.pid is None:
            raise RuntimeError(request.error)
        return request.pid

    def _turn(self, now: datetime) -> float:
        """Brings what plays in line with what is due; returns the seconds until there is something to look at."""
        events = self._events()
        event = schedule.due(events, now)
        if event != self._current:
            self._switch(event)
        self._look_after_player()
        change = schedule.next_change(events, now)
        waits = [LOOK_S]
        if change is not None:
            waits.append((change - now).total_seconds())
        if self._retry_at is not None:
            waits.append(self._retry_at - time.monotonic())
        return max(0.01, min(waits))

    def _switch(self, event: Event | None) -> None:
        if event is None or self._process is not None or self._watchdog.expected:
            # First the word, then the deed: the watchdog must not take the end of the old player for a crash.
            self._watchdog.clear()
        self._stop()
        self._current = event
        self._backoff_s = BACKOFF_FIRST_S
        self._dark_since = None
        if event is None:
            log.info("nothing is due")
        else:
            self._start()

    def _start(self) -> str | None:
        """Why the player could not be started; None if it runs."""
        assert self._current is not None
        self._retry_at = None
        screen = self._find_screen()
        if screen is None:
            self._wait_for_screen()
            return NO_SCREEN
        self._dark_since = None
        try:
            environment = os.environ | screen
            argv = self._commands.argv(self._current, self._base, environment.get("XDG_RUNTIME_DIR"))
            self._commands.profile_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._process = PlayerProcess(argv, environment=environment)
        except (OSError, CommandError) as error:
            log.error("event %s cannot be played: %s", self._current.id, error)
            self._watchdog.log("ERROR", f"event {self._current.id} cannot be played: {error}")
            self._schedule_retry()
            return str(error)
        log.info("event %s: %s runs, pid %d", self._current.id, self._process.name, self._process.pid)
        self._tell()
        return None

    def _wait_for_screen(self) -> None:
        """Without a screen a player would only die, and use up the restarts that the watchdog has for it."""
        now = time.monotonic()
        self._retry_at = now + SCREEN_LOOK_S
        if self._dark_since is None:
            log.warning("%s; the player waits for it", NO_SCREEN)
            self._dark_since, self._dark_told = now, False
            if not self._watchdog.expected:
                # What it remembers from before the machine started cannot play yet either.
                self._watchdog.clear()
        elif not self._dark_told and now - self._dark_since > SCREEN_PATIENCE_S:
            self._dark_told = self._watchdog.log("WARN", NO_SCREEN, "player.no_screen")

    def _tell(self) -> None:
        assert self._current is not None
        assert self._process is not None
        self._watchdog.expect(
            self._process.name,
            event_id=self._current.id,
            type=str(self._current.type),
            pid=self._process.pid,
            restart="handler",
        )

    def _stop(self) -> None:
        self._retry_at = None
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _look_after_player(self) -> None:
        if self._current is None:
            return
        if self._process is not None and not self._process.ended():
            if self._watchdog.connected and not self._watchdog.expected:
                self._tell()
            if time.monotonic() - self._process.started > STABLE_S:
                self._backoff_s = BACKOFF_FIRST_S
        elif self._watchdog.expected and self._dark_since is None:
            # The watchdog saw it too, and asks when it is time.
            self._retry_at = None
        elif self._retry_at is None:
            self._schedule_retry()
        elif time.monotonic() >= self._retry_at:
            self._stop()
            self._start()

    def _schedule_retry(self) -> None:
        log.warning("the player is dead and no watchdog cares for it: next start in %g s", self._backoff_s)
        self._retry_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_CAP_S)

    def _serve(self, request: _RestartRequest) -> None:
        if self._current is None:
            request.error = "no event is due"
        elif self._is_young():
            assert self._process is not None
            request.pid = self._process.pid
        else:
            self._stop()
            error = self._start()
            if error is not None or self._process is None:
                request.error = error or "the player did not start"
            else:
                request.pid = self._process.pid
        request.done.set()

    def _is_young(self) -> bool:
        process = self._process
        if process is None or process.ended():
            return False
        return time.monotonic() - process.started < JUST_STARTED_S


class ScheduleFile:
    """The schedule as its file says it now; while that is wrong, as it said before."""

    def __init__(self, path: Path) -> None:
        """Raises ScheduleError."""
        self._path = path
        self._seen: object = None
        self._events = self._read()

    def __call__(self) -> tuple[Event, ...]:
        if self._mark() != self._seen:
            try:
                self._events = self._read()
                log.info("%s: %d events", self._path, len(self._events))
            except ScheduleError as error:
                for problem in error.problems:
                    log.error("%s: %s; the old schedule stays", self._path, problem)
        return self._events

    def _read(self) -> tuple[Event, ...]:
        self._seen = self._mark()
        try:
            return parse_schedule(self._path.read_bytes())
        except OSError as error:
            raise ScheduleError([str(error.strerror)]) from None

    def _mark(self) -> object:
        try:
            stat = self._path.stat()
        except OSError as error:
            return error.errno
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def forget(self) -> None:
        """The next look reads the file, changed or not."""
        self._seen = None


# --- the command ------------------------------------------------------------------------------------------------------


def entry() -> NoReturn:
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(levelname)s: %(message)s")
    if (options.schedule is None) == (options.source is None):
        parser.error("give either a FILE or URL with --type, or --schedule FILE")
    if options.source is not None and options.type is None:
        parser.error("--type video, website or presentation is missing")
    try:
        events, base = _events(options)
        commands = _commands(options)
    except (ConfigError, ScheduleError) as error:
        for problem in error.problems:
            print(f"infoscreen-player: {problem}", file=sys.stderr)
        return EX_CONFIG
    watchdog = Watchdog(options.socket)
    _play(Handler(events, commands, base, watchdog, _screen_finder(options.await_screen)), events, watchdog)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="infoscreen-player",
        description="Plays an event on this kiosk's screen and lets the watchdog look after the player.",
        epilog=f"{schedule.__doc__}\nSIGHUP reads the schedule again; a changed file is noticed anyway.\n\n"
        "Without DISPLAY and WAYLAND_DISPLAY the player is shown the Wayland or X11 session that this user has.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", metavar="FILE_OR_URL", help="what to play")
    parser.add_argument("--type", choices=[str(kind) for kind in EventType])
    parser.add_argument("--event-id", type=int, metavar="N", help="the event's number at the server")
    parser.add_argument("--schedule", type=Path, metavar="FILE", help="play what this JSON file says (see below)")
    parser.add_argument("--command", metavar="LINE", help='the player, such as "vlc --fullscreen {source}"')
    parser.add_argument("--settings", type=Path, metavar="FILE", help=f"players by type, by default {DEFAULT_PATH}")
    parser.add_argument(
        "--await-screen", action="store_true", help="start no player before the user's session is there"
    )
    parser.add_argument("--socket", metavar="PATH", help="the watchdog's control socket")
    return parser


def _events(options: argparse.Namespace) -> tuple[Callable[[], tuple[Event, ...]], Path]:
    if options.schedule is not None:
        path: Path = options.schedule.absolute()
        try:
            return ScheduleFile(path), path.parent
        except ScheduleError as error:
            raise ScheduleError([f"{path}: {problem}" for problem in error.problems]) from None
    if options.source.startswith("-"):
        raise ScheduleError(["the source must not begin with a dash: write ./-name"])
    events = (Event(options.event_id, EventType(options.type), options.source),)
    return lambda: events, Path.cwd()


def _commands(options: argparse.Namespace) -> Commands:
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    commands = load_commands(options.settings, state / "infoscreen-player/profile")
    if options.command is None:
        return commands
    try:
        words = tuple(shlex.split(options.command))
    except ValueError as error:
        raise ConfigError([f"--command: {error}"]) from None
    if not any("{source}" in word for word in words):
        raise ConfigError(["--command: does not say where {source} goes"])
    return Commands(commands.profile_dir, dict.fromkeys(EventType, words), commands.doors)


def _screen_finder(wait: bool) -> Callable[[], Mapping[str, str] | None]:
    """Without waiting, what is not found is not needed: a player may draw without a session."""

    def find() -> Mapping[str, str] | None:
        found = session.find(os.environ, os.getuid())
        return found if found is not None or wait else {}

    return find


def _play(handler: Handler, events: Callable[[], tuple[Event, ...]], watchdog: Watchdog) -> None:
    def on_signal(number: int, _frame: object) -> None:
        if number == signal.SIGHUP and isinstance(events, ScheduleFile):
            events.forget()
        handler.inbox.put(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, on_signal)
    listener = threading.Thread(target=watchdog.serve, args=(handler.ask_restart,), name="watchdog", daemon=True)
    listener.start()
    try:
        handler.run(lambda: datetime.now().astimezone().replace(tzinfo=None))
    finally:
        watchdog.close()
        listener.join(2)
