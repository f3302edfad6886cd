"""What the kernel knows about processes, to the microsecond where it can: when one died, when another began.

Nothing here asks the agent, which is the one that is measured.
"""

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
IN_OPEN = 0x20  # inotify(7)
_libc = ctypes.CDLL(None, use_errno=True)


def now() -> float:
    """Seconds since boot, as the start times in /proc count them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def started(pid: int) -> float:
    """When `pid` began, in seconds since boot, rounded down to the clock tick (10 ms). Raises OSError if it is gone."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19]) / TICKS


def mentions(text: str) -> list[int]:
    """The processes with `text` in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass  # it ended while we looked
    return found


@contextmanager
def _first_in_line() -> Iterator[None]:
    """Realtime scheduling where that is allowed: who wakes late writes down late times."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Kill:
    """kill -9, and the moments that follow: `sent`, `died`, and each time that somebody opened `program` to run it."""

    def __init__(self, pid: int, program: Path) -> None:
        self.opened: list[float] = []
        self._pidfd = os.pidfd_open(pid)
        self._inotify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0 or _libc.inotify_add_watch(self._inotify, os.fsencode(program.resolve()), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), f"inotify cannot watch {program}")
        self._poll = select.poll()
        self._poll.register(self._pidfd, select.POLLIN)
        self._poll.register(self._inotify, select.POLLIN)
        self.died: float | None = None
        self.sent = now()
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def watch(self, seconds: float) -> None:
        """Notes what happens in the next `seconds`, until the player has died and its program was opened again."""
        end = now() + seconds
        with _first_in_line():
            while (self.died is None or not self.opened) and (left := end - now()) > 0:
                for descriptor, _ in self._poll.poll(left * 1_000):
                    if descriptor == self._pidfd:
                        self.died = now()
                        self._poll.unregister(self._pidfd)
                    else:
                        self.opened.append(now())
                        os.read(self._inotify, 65_536)

    def latency(self, successor: int) -> float | None:
        """Seconds from the death to the start of the successor's program; None if the kernel's facts do not fit."""
        began = started(successor)
        opened = [moment for moment in self.opened if began <= moment < began + 0.5]
        return None if self.died is None or not opened else max(0.0, opened[0] - self.died)

    def close(self) -> None:
        os.close(self._pidfd)
        os.close(self._inotify)
