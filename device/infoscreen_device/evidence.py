"""Why did it die? Collected beside the restart, never before it, and never waited for longer than a moment.

Exit status or signal as soon as somebody tells, memory and temperature at once, the last journal lines of a unit from a
journalctl that has a time limit.
"""

import json
import math
import os
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO, Any

from infoscreen_device.core.actions import ReportDeath
from infoscreen_device.core.drafts import death_draft
from infoscreen_device.core.model import Death, Draft, Restart, Way
from infoscreen_device.probes import process as probe
from infoscreen_device.probes import system

EXIT_LIMIT_S = 1.0
"""How long the parent of a dead process gets to take note of it; the kernel tells us only then."""
JOURNAL_LIMIT_S = 2.0
JOURNAL_LINES = 12
JOURNAL_BYTES = 16_000
LINE_CHARS = 300


@dataclass(slots=True)
class _Case:
    report: ReportDeath
    pidfd: int | None
    began: float
    monotonic: float
    facts: dict[str, object]
    exit: probe.Exit | None = None
    journal: "subprocess.Popen[bytes] | None" = None
    output: bytearray = field(default_factory=bytearray)


class Deaths:
    """Deaths whose evidence is still coming in."""

    def __init__(self) -> None:
        self._cases: list[_Case] = []

    def add(self, report: ReportDeath, pidfd: int | None, now: float) -> None:
        """`pidfd` of the dead process is closed here in the end; None if it died while nobody held it."""
        case = _Case(report, pidfd, now, time.monotonic(), system.evidence())
        case.exit = None if pidfd is None else probe.exit_of(pidfd)
        case.journal = _journalctl(report.expectation.restart)
        self._cases.append(case)

    def collect(self, now: float, *, at_once: bool = False) -> list[Draft]:
        """The records of the deaths that are known well enough by now."""
        done = [case for case in self._cases if self._is_done(case, now) or at_once]
        self._cases = [case for case in self._cases if case not in done]
        return [self._close(case) for case in done]

    def children(self) -> set[int]:
        """Our children whose end is taken note of here: the dead, until their status is known, and journalctl."""
        waiting = {case.report.key.pid for case in self._cases if case.exit is None}
        return waiting | {case.journal.pid for case in self._cases if case.journal is not None}

    def wake_at(self, now: float) -> float | None:
        """Soon at first, later less often."""
        if not self._cases:
            return None
        return now + max(0.01, min(0.25, *(now - case.began for case in self._cases)))

    def _is_done(self, case: _Case, now: float) -> bool:
        if case.exit is None and case.pidfd is not None:
            case.exit = probe.exit_of(case.pidfd)
        if case.journal is None:
            return case.exit is not None or case.pidfd is None or now >= case.began + EXIT_LIMIT_S
        _read(case.journal.stdout, case.output)
        ended = case.journal.poll() is not None or len(case.output) >= JOURNAL_BYTES
        return ended or now >= case.began + JOURNAL_LIMIT_S

    def _close(self, case: _Case) -> Draft:
        if case.pidfd is not None:
            os.close(case.pidfd)
        facts = {name: value for name, value in case.facts.items() if value is not None}
        if case.journal is not None:
            _read(case.journal.stdout, case.output)
            _end(case.journal)
            entries = _entries(bytes(case.output))
            case.exit = case.exit or _unit_exit(entries, case.monotonic)
            facts["journal"] = [str(entry.get("MESSAGE", ""))[:LINE_CHARS] for entry in entries]
        code, number = case.exit or (None, None)
        # Rounded up: the record must not seem to tell of a death that came after what was done about it.
        facts["after_s"] = math.ceil((time.monotonic() - case.monotonic) * 1000) / 1000
        return death_draft(case.report, Death(case.report.key, code, number), facts)


def last_lines(restart: Restart) -> list[str]:
    """The player's last lines in the journal; none if it has no unit. Waits, at most JOURNAL_LIMIT_S."""
    command = _journal_command(restart)
    if command is None:
        return []
    try:
        done = subprocess.run(command, check=False, capture_output=True, timeout=JOURNAL_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(entry.get("MESSAGE", ""))[:LINE_CHARS] for entry in _entries(done.stdout[:JOURNAL_BYTES])]


def _journal_command(restart: Restart) -> list[str] | None:
    if restart.unit is None:
        return None
    flag = "--unit" if restart.way is Way.UNIT else "--user-unit"
    command = ["journalctl", flag, restart.unit, f"--lines={JOURNAL_LINES}", "--output=json", "--no-pager", "--quiet"]
    return [*command, "--output-fields=MESSAGE,EXIT_CODE,EXIT_STATUS"]


def _journalctl(restart: Restart) -> "subprocess.Popen[bytes] | None":
    command = _journal_command(restart)
    if command is None:
        return None
    try:
        journal = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    assert journal.stdout is not None
    os.set_blocking(journal.stdout.fileno(), False)
    return journal


def _read(pipe: IO[bytes] | None, into: bytearray) -> None:
    assert pipe is not None
    while len(into) < JOURNAL_BYTES:
        try:
            data = os.read(pipe.fileno(), JOURNAL_BYTES)
        except BlockingIOError:
            return
        if not data:
            return
        into += data


def _end(journal: "subprocess.Popen[bytes]") -> None:
    assert journal.stdout is not None
    journal.stdout.close()
    if journal.poll() is None:
        journal.kill()
        # Not waited for: one that hangs in the kernel must not hang us. `actions.reap` takes note of its end.
        journal.returncode = 0


def _entries(output: bytes) -> list[dict[str, Any]]:
    entries = []
    for line in output.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the last line may be cut
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _unit_exit(entries: list[dict[str, Any]], died: float) -> probe.Exit | None:
    """What systemd noted of the unit's main process (SD_MESSAGE_UNIT_PROCESS_EXIT), if it is about this death."""
    for entry in reversed(entries):
        kind, status = entry.get("EXIT_CODE"), entry.get("EXIT_STATUS")
        try:
            number, when = int(str(status)), int(str(entry.get("__MONOTONIC_TIMESTAMP"))) / 1e6
        except ValueError:
            continue
        if when >= died - 1.0:
            return probe.Exit(number, None) if kind == "exited" else probe.Exit(None, number)
    return None
