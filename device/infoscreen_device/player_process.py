"""One player as a process: started in a session of its own, ended with all its descendants.

When it is started, ended or restarted is for player.py.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRACE_S = 3.0
"""From SIGTERM to SIGKILL."""
_EXEC_S = 2.0


class PlayerProcess:
    """Raises OSError if the program cannot be started. Make and end it in the main thread only.

    (The kernel ends the player when the thread that started it ends: PR_SET_PDEATHSIG of prctl(2).)
    """

    def __init__(
        self, argv: Sequence[str], directory: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        # setpriv (util-linux) sets the signal and becomes the player: a handler that was killed leaves no player
        # behind that the next one would start a second one beside. Code between fork and exec is not safe with threads.
        wrapper = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        self.name = Path(argv[0]).name
        self._popen = subprocess.Popen(
            [*wrapper, *argv], stdin=subprocess.DEVNULL, start_new_session=True, cwd=directory, env=environment
        )
        self.pid = self._popen.pid
        self.started = time.monotonic()
        if wrapper:
            self._await_exec(Path(shutil.which("setpriv") or "").resolve())

    def _await_exec(self, wrapper: Path) -> None:
        """Until the process is the player itself, so that nobody sees the wrapper under its pid (some 2 ms)."""
        while not self.ended() and time.monotonic() < self.started + _EXEC_S:
            try:
                if Path(f"/proc/{self.pid}/exe").readlink() != wrapper:
                    return
            except OSError:
                return
            time.sleep(0.0005)

    def ended(self) -> bool:
        """It ended; it stays a zombie until `stop`, so that its pid and session are nobody else's meanwhile."""
        if self._popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def stop(self) -> None:
        """Ends the player and all that it started, also what outlived it or left its process group."""
        if self._popen.returncode is not None:
            return
        family = {self.pid, *_family(self.pid)}
        _signal(family, signal.SIGTERM)
        # A stopped process (SIGSTOP) would not hear SIGTERM.
        _signal(family, signal.SIGCONT)
        deadline = time.monotonic() + GRACE_S
        while (family := {pid for pid in family | set(_family(self.pid)) if _lives(pid)}) and (
            time.monotonic() < deadline
        ):
            time.sleep(0.02)
        _signal(family, signal.SIGKILL)
        self._popen.wait()


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def _family(leader: int) -> Iterator[int]:
    """All descendants of `leader`, and all of its session: those whose parents died are only found that way."""
    parents: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := _stat(int(folder.name))) is not None:
            parents[int(folder.name)] = (stat[0], stat[1])
    found = {leader}
    grew = True
    while grew:
        more = {pid for pid, (parent, session) in parents.items() if parent in found or session == leader} - found
        found |= more
        grew = bool(more)
    yield from found - {leader}


def _stat(pid: int) -> tuple[int, int, str] | None:
    """Parent, session and state: fields 4, 6 and 3 of /proc/PID/stat (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[1]), int(fields[3]), fields[0].decode()
    except (OSError, ValueError, IndexError):
        return None


def _lives(pid: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[2] not in "ZX"
