"""Processes: found by name, held by pidfd, never confused with a later one of the same number.

What the answers mean for the player is for core.recovery. Linux only; numbers from proc(5) and pidfd_open(2).
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil

from infoscreen_device.core.model import Expectation, ProcessKey

PR_SET_CHILD_SUBREAPER = 36
# linux/pidfd.h: PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info) with its first published size of 64 bytes.
_PIDFD_GET_INFO = (3 << 30) | (64 << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3
_INFO = struct.Struct("QQ11Ii")
_INFO_BYTES = 64
COMM_CHARS = 15
"""TASK_COMM_LEN less its NUL: the kernel cuts a process name here."""


class Stat(NamedTuple):
    """The part of /proc/PID/stat that is used here."""

    state: str
    parent: int
    group: int
    session: int
    started: int


class Exit(NamedTuple):
    """How a process ended: a status from 0 to 255, or the signal that killed it."""

    code: int | None
    signal: int | None


def read_stat(pid: int) -> Stat | None:
    """None if there is no such process."""
    try:
        # os.open costs a third of what open() does, and this is read every two seconds for ever.
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 1024)
    except OSError:
        return None
    finally:
        os.close(fd)
    # The name stands in brackets and may hold brackets and spaces itself; what follows the last one is numbers.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def is_dead(stat: Stat | None) -> bool:
    """A zombie is dead."""
    return stat is None or stat.state in "ZXx"


def key_of(pid: int) -> ProcessKey | None:
    """The living process with this number."""
    stat = read_stat(pid)
    return None if stat is None or is_dead(stat) else ProcessKey(pid, stat.started)


def lives(key: ProcessKey) -> bool:
    return key_of(key.pid) == key


def is_stopped(key: ProcessKey) -> bool:
    """By SIGSTOP and its like (state T). One that a debugger holds (t) is not."""
    stat = read_stat(key.pid)
    return stat is not None and stat.started == key.started and stat.state == "T"


def hold(key: ProcessKey) -> int | None:
    """A pidfd of exactly this process, to be closed by the caller; None if it lives no more."""
    try:
        pidfd = os.pidfd_open(key.pid)
    except OSError:
        return None
    # Checked after opening: from now on the number cannot mean another process behind our back.
    if lives(key):
        return pidfd
    os.close(pidfd)
    return None


def has_ended(pidfd: int) -> bool:
    """Also true of a zombie."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send(key: ProcessKey, number: signal.Signals) -> bool:
    """A signal to exactly this process; False if it lives no more or is not ours to signal."""
    pidfd = hold(key)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def exit_of(pidfd: int) -> Exit | None:
    """How a dead process ended. None if nobody tells, or not yet: for one that is not our child the kernel tells since
    Linux 6.15, and only once its parent has taken note. Our own child is reaped by this.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return _exit_info(pidfd)
    except OSError:
        return None
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return Exit(result.si_status, None)
    return Exit(None, result.si_status)


def _exit_info(pidfd: int) -> Exit | None:
    info = bytearray(_INFO_BYTES)
    struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, *_ids, status = _INFO.unpack_from(info)
    if not mask & _PIDFD_INFO_EXIT:
        return None
    if os.WIFSIGNALED(status):
        return Exit(None, os.WTERMSIG(status))
    return Exit(os.WEXITSTATUS(status), None)


# --- finding by name --------------------------------------------------------------------------------------------------


def matches(pid: int, expectation: Expectation) -> bool:
    """Its name (or the file name of its program or of its first argument), cmdline and user; all in full."""
    try:
        return _matches(psutil.Process(pid), expectation)
    except psutil.Error:
        return False


def _matches(process: psutil.Process, expectation: Expectation) -> bool:
    if not _has_name(process, expectation.process):
        return False
    if expectation.cmdline and tuple(process.cmdline()) != expectation.cmdline:
        return False
    if expectation.user is not None and expectation.user not in (process.username(), str(process.uids().real)):
        return False
    return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _has_name(process: psutil.Process, name: str) -> bool:
    if process.name() == name:
        return True
    # A kernel thread has no program, and only root may see that of others.
    with contextlib.suppress(psutil.AccessDenied):
        if Path(process.exe()).name == name:
            return True
    with contextlib.suppress(psutil.AccessDenied):
        first = process.cmdline()[:1]
        return bool(first) and Path(first[0]).name == name
    return False


def find(expectation: Expectation, never: Iterable[int] = ()) -> ProcessKey | None:
    """The living process that is the player: of several the topmost ancestor, of several such the youngest.

    Processes numbered in `never` (the agent, the event handler) are not it, whatever their name.
    """
    excluded = {os.getpid(), *never}
    found: dict[int, tuple[int, int]] = {}
    for pid in psutil.pids():
        if pid in excluded or not matches(pid, expectation):
            continue
        stat = read_stat(pid)
        if stat is not None and not is_dead(stat):
            found[pid] = (stat.parent, stat.started)
    top = [ProcessKey(pid, started) for pid, (_, started) in found.items() if not _is_below(pid, found)]
    return max(top, key=lambda key: (key.started, key.pid), default=None)


def _is_below(pid: int, found: dict[int, tuple[int, int]]) -> bool:
    seen = {pid}
    stat = read_stat(pid)
    while stat is not None and stat.parent > 1 and stat.parent not in seen:
        if stat.parent in found:
            return True
        seen.add(stat.parent)
        stat = read_stat(stat.parent)
    return False


# --- families ---------------------------------------------------------------------------------------------------------


def children(pid: int) -> Iterator[int]:
    """Direct children, of every thread (/proc/PID/task/TID/children, CONFIG_PROC_CHILDREN)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (names suffice, and it is done often)
    except OSError:
        return
    for thread in threads:
        try:
            fd = os.open(f"/proc/{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            yield from map(int, os.read(fd, 65_536).split())
        except OSError:
            continue
        finally:
            os.close(fd)


def descendants(pid: int) -> frozenset[ProcessKey]:
    """All living processes below this one."""
    found: dict[int, ProcessKey] = {}
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            if child not in found and (key := key_of(child)) is not None:
                found[child] = key
                todo.append(child)
    return frozenset(found.values())


@dataclass(slots=True)
class Held:
    """A living player held by its pidfd, with what it would leave behind."""

    key: ProcessKey
    pidfd: int
    leads_session: bool = False
    leads_group: bool = False
    family: frozenset[ProcessKey] = field(default_factory=frozenset)

    def refresh(self) -> None:
        """Looks at its descendants again: once it is dead nobody can say whose they were."""
        stat = read_stat(self.key.pid)
        if stat is None or stat.started != self.key.started:
            return
        self.leads_session = stat.session == self.key.pid
        self.leads_group = stat.group == self.key.pid
        found = descendants(self.key.pid)
        if not is_dead(read_stat(self.key.pid)):
            self.family = found

    def close(self) -> None:
        os.close(self.pidfd)


def held(key: ProcessKey) -> Held | None:
    """None if it lives no more."""
    pidfd = hold(key)
    if pidfd is None:
        return None
    player = Held(key, pidfd)
    player.refresh()
    return player


def relatives(player: Held) -> list[ProcessKey]:
    """What still lives in the session or process group that a dead player led. Reads all of /proc."""
    if not (player.leads_session or player.leads_group) or key_of(player.key.pid) is not None:
        # While a group lives its number is not given to a new process; if it is, this group is over.
        return []
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        stat = read_stat(int(name)) if name.isdigit() else None
        if stat is None or is_dead(stat) or stat.started < player.key.started:
            continue
        if (player.leads_session and stat.session == player.key.pid) or (
            player.leads_group and stat.group == player.key.pid
        ):
            found.append(ProcessKey(int(name), stat.started))
    return found


def become_subreaper() -> bool:
    """Orphans of our children become ours: their exit status is then told, and none stays a zombie."""
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def facts(key: ProcessKey) -> dict[str, object]:
    """Evidence of a living player: its memory in bytes, its threads, and CPU seconds that it has used."""
    try:
        status = Path(f"/proc/{key.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        times = Path(f"/proc/{key.pid}/stat").read_text().rsplit(")", 1)[1].split()
        cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        resident = int(fields["VmRSS"].split()[0]) * 1024
        return {
            "player": {"state": fields["State"], "rss": resident, "threads": int(fields["Threads"]), "cpu_s": cpu_s}
        }
    except (OSError, ValueError, KeyError, IndexError):
        return {}
