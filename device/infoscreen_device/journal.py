"""The local log: the journal with fields under systemd, plain lines on stderr elsewhere."""

import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from infoscreen_device.core.model import Draft
from infoscreen_shared.messages import LogLevel

journal: Any
try:
    # By name, for a type checker takes the folder of our unit files (device/systemd) for this package.
    journal = import_module("systemd.journal")
except ImportError:  # pragma: no cover - Debian has python3-systemd, and the agent depends on it
    journal = None

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_LEVELS = {
    LogLevel.ERROR: logging.ERROR,
    LogLevel.WARN: logging.WARNING,
    LogLevel.INFO: logging.INFO,
    LogLevel.DEBUG: logging.DEBUG,
}
_records = logging.getLogger("infoscreen.records")


class JournalHandler(logging.Handler):
    """Records with their code and context as fields, so that `journalctl INFOSCREEN_CODE=player.crashed` finds them."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = getattr(record, "fields", {})
            priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
            journal.send(self.format(record), PRIORITY=priority, SYSLOG_IDENTIFIER="infoscreen-watchdog", **fields)
        except Exception:  # noqa: BLE001 - what logging does with a handler's errors, whatever they are
            self.handleError(record)


def set_up(environ: Mapping[str, str], level: int = logging.INFO) -> None:
    """Sends all logging of this process to the journal if stderr is one, else to stderr."""
    under_systemd = journal is not None and _is_journal(environ.get("JOURNAL_STREAM", ""))
    handler: logging.Handler = JournalHandler() if under_systemd else logging.StreamHandler()
    # The journal has the level as a field of its own.
    handler.setFormatter(logging.Formatter("%(message)s" if under_systemd else "%(levelname)s %(message)s"))
    # A log that cannot be written (a closed pipe) must not write tracebacks about itself either.
    logging.raiseExceptions = False
    logging.basicConfig(level=level, handlers=[handler], force=True)


def log_draft(draft: Draft) -> None:
    """One record as the server gets it, for whoever looks on the kiosk itself."""
    fields = {f"INFOSCREEN_{name.upper()}": str(value) for name, value in draft.context.items() if _is_field(name)}
    if draft.code is not None:
        fields["INFOSCREEN_CODE"] = draft.code
    _records.log(_LEVELS[draft.level], "%s", draft.message, extra={"fields": fields})


def _is_field(name: str) -> bool:
    """systemd.journal-fields(7): capital letters, digits and underscores."""
    return name.isascii() and name.replace("_", "").isalnum()


def _is_journal(stream: str) -> bool:
    """JOURNAL_STREAM names the device and inode of the journal's socket; stderr may since have been redirected."""
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return stream == f"{stat.st_dev}:{stat.st_ino}"
