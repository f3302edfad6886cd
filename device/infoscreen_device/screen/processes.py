"""The player's processes: their command lines, environment, state and CPU time, from proc(5)."""

import os
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and all below it (CONFIG_PROC_CHILDREN), it first."""
    found = [pid]
    for each in found:
        for thread in _names(f"/proc/{each}/task"):
            children = _read(f"/proc/{each}/task/{thread}/children").split()
            found += [child for child in map(int, children) if child not in found]
    return found


def arguments(pid: int) -> list[str]:
    return [os.fsdecode(each) for each in _read(f"/proc/{pid}/cmdline").split(b"\0")[:-1]]


def environment(pid: int) -> dict[str, str]:
    """Empty for another user's process."""
    pairs = (os.fsdecode(each).partition("=") for each in _read(f"/proc/{pid}/environ").split(b"\0"))
    return {name: value for name, is_set, value in pairs if is_set}


def directory(pid: int) -> Path:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return Path("/")


def lives(pid: int) -> bool:
    """A zombie does not."""
    return _stat(pid)[:1] not in ([], [b"Z"], [b"X"])


def is_stopped(pid: int) -> bool:
    """By SIGSTOP or its like."""
    return _stat(pid)[:1] == [b"T"]


def cpu_s(pids: list[int]) -> float:
    """Seconds that they and the children they have seen the end of have used so far."""
    # Fields 14 to 17 of proc(5): utime, stime, cutime, cstime.
    return TICK_S * sum(int(ticks) for pid in pids for ticks in _stat(pid)[11:15])


def _stat(pid: int) -> list[bytes]:
    """From field 3 on; the name before may hold brackets and spaces."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208 (names suffice)
    except OSError:
        return []
