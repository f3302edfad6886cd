"""The kiosk's clocks, read at the edge: everything else gets time as an argument.

A Raspberry Pi has no clock battery: until the first time sync of a boot its wall clock is a guess, while the boot clock
(CLOCK_BOOTTIME, seconds since boot, suspend included) is right from the start.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# adjtimex(2): the kernel clears STA_UNSYNC when a time daemon (timesyncd, chrony, ntpd) has set the clock;
# while it is set the call returns TIME_ERROR.
_TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than sizeof(struct timex) on every architecture; with modes = 0 the call only reads."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What the composition root hands on; a test hands on its own."""

    utc: Callable[[], datetime]
    boottime: Callable[[], float]
    synced: Callable[[], bool]
    boot_id: str


def system_clocks(*, trusted: bool) -> Clocks:
    """The machine's clocks. `trusted`: the wall clock is right without a sync (a battery, a virtual machine)."""
    return Clocks(
        utc=lambda: datetime.now(UTC),
        boottime=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        synced=(lambda: True) if trusted else _kernel_says_synced,
        boot_id=read_boot_id(),
    )


def read_boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _kernel_says_synced() -> bool:
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return state not in (-1, _TIME_ERROR)
