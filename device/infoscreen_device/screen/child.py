"""A look as a child process: forked, since everything is imported already, with limits, and ended with all it started.

Whatever happens in it, a crash in a decoder or a tool that hangs, is an answer here and never the end of the helper.
"""

import contextlib
import fcntl
import gc
import json
import os
import resource
import signal
import time
from dataclasses import asdict
from typing import Any, NoReturn

from infoscreen_device.core.picture import Blind, Blindness
from infoscreen_device.screen import look
from infoscreen_device.screen.backends import Settings
from infoscreen_device.screen.look import Ask

MEMORY = 768 << 20
"""Bytes of address space: three frames of 4096x2160, numpy for a hash, and grim, each several times over."""
LARGEST_FILE = 256 << 20
"""Bytes of a memory file: a frame of 40 million pixels, or a picture of it."""
CPU_S = 20
NICE = 5
"""The player comes first."""
MAX_ANSWER = 60_000
"""Bytes; the agent takes no longer lines."""
SETTLE_S = 0.5
"""For a killed child to be gone. One that the kernel holds in a driver may stay longer."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class LookProcess:
    """One look that is under way. `finish` has to be called once, at the latest at `deadline`."""

    def __init__(self, ask: Ask, settings: Settings, *, check_lock: bool = False) -> None:
        """Raises OSError if there can be no further process."""
        self.deadline = time.monotonic() + ask.deadline_s
        self.answered = False
        """It has said all that it will say."""
        self._ask = ask
        self._said = bytearray()
        self._pictures: list[int] = []
        ends: tuple[int, ...] = ()
        try:
            for kind in ask.pictures:
                self._pictures.append(os.memfd_create(kind, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            ends = self.fd, writing = os.pipe()
            """Readable when there is something for `read`."""
            os.set_blocking(self.fd, False)
            self._pid = os.fork()
        except OSError:
            self._close_pictures()
            for end in ends:
                os.close(end)
            raise
        if self._pid == 0:
            _run(ask, settings, check_lock, writing, self._pictures)
        os.close(writing)
        # In both processes, so that it holds before either goes on.
        with contextlib.suppress(OSError):
            os.setpgid(self._pid, self._pid)

    def read(self) -> None:
        """What it has said since, without waiting."""
        try:
            data = os.read(self.fd, MAX_ANSWER)
        except BlockingIOError:
            return
        self._said += data
        self.answered = not data or len(self._said) > MAX_ANSWER

    def finish(self) -> tuple[dict[str, Any], list[int]]:
        """Its answer, and the files that belong to it: the caller has to close them. Ends it if it has not ended."""
        in_time = self.answered
        os.close(self.fd)
        status = self._end()
        answer = _checked(self._said) if in_time else None
        if answer is None or "burst" not in answer:
            self._close_pictures()
            return answer or {"blind": asdict(self._failure(in_time, status)), "pictures": []}, []
        for kind, fd in zip(self._ask.pictures, self._pictures, strict=True):
            # It is read from the start, and whoever reads it can rely on its length.
            os.lseek(fd, 0, os.SEEK_SET)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            answer["pictures"].append({"kind": kind, "bytes": os.fstat(fd).st_size})
        return answer, self._pictures

    def _failure(self, in_time: bool, status: int | None) -> Blind:
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
        if not in_time or number == signal.SIGALRM:
            return Blind(Blindness.TIMEOUT, "the screen gave no picture in time")
        if number == signal.SIGXCPU:
            return Blind(Blindness.TIMEOUT, f"a look used more than {CPU_S} s of CPU time")
        return Blind(Blindness.FAILED, f"a look ended by signal {number}" if number else "a look ended without a word")

    def _end(self) -> int | None:
        """Its status from wait(2); None if it cannot be ended."""
        until = time.monotonic() + SETTLE_S
        if not self.answered or not _has_ended(self._pid, until):
            _kill(self._pid)
        # What it started may still be there. As long as nobody has waited for it, its group is no one else's.
        _kill(-self._pid)
        if not _has_ended(self._pid, until):
            return None
        return os.waitpid(self._pid, 0)[1]

    def _close_pictures(self) -> None:
        while self._pictures:
            os.close(self._pictures.pop())


def reap_the_rest() -> None:
    """Children that the kernel let go of only after `finish`."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _has_ended(pid: int, until: float) -> bool:
    """Waits for it, but leaves it a zombie."""
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _checked(said: bytes | bytearray) -> dict[str, Any] | None:
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    found = isinstance(answer, dict) and any(isinstance(answer.get(name), dict) for name in ("burst", "blind"))
    return {**answer, "pictures": []} if found else None


# --- in the child -----------------------------------------------------------------------------------------------------


def _run(ask: Ask, settings: Settings, check_lock: bool, writing: int, into: list[int]) -> NoReturn:
    try:
        _confine(ask, {writing, *into})
        found, pictures = look.take(ask, settings, check_lock=check_lock)
        for fd, picture in zip(into, pictures, strict=False):
            _write(fd, picture)
        _write(writing, json.dumps(look.said(found)).encode())
    finally:
        os._exit(0)


def _confine(ask: Ask, keep: set[int]) -> None:
    # It lives for a moment: looking through what it has of its parent would cost it more than all its garbage.
    gc.disable()
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    # Nothing of the helper's: neither its connection to the agent nor its standard output is for programs run here.
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)
    os.nice(NICE)
    for limit, value in [
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ]:
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    # A helper that was killed ends nobody: then the child ends itself.
    signal.setitimer(signal.ITIMER_REAL, ask.deadline_s + SETTLE_S)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
