"""What the watchdog remembers across its own restarts and reboots: expectation, player, budget. One small JSON file.

It is replaced as a whole, only when something changed, and by a thread of its own: a card that takes seconds for an
fsync must not hold up the next restart. A file that is damaged or cannot be written is an incident
to tell of, never a reason to stop: the agent then goes on with what it has in memory.
"""

import json
import logging
import os
import threading
import types
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from infoscreen_device.core.phases import State, holds_together, reboot_over, resume

log = logging.getLogger(__name__)

VERSION = 1
MAX_BYTES = 256_000


class StateFile:
    """Not for two processes at once."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        self.path = directory / "watchdog.json"
        self.writable = True
        """False after a write that failed, until one succeeds."""
        self.rebooted = False
        """What `load` gave is of an earlier boot."""
        self._boot_id = boot_id
        self._latest: tuple[State, float] | None = None
        self._written: State | None = None
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._write_on, name="state", daemon=True)

    def load(self, now: float) -> State:
        """The state to go on with at boottime `now`; a fresh one if there is none that can be used."""
        try:
            with self.path.open("rb") as file:
                document = json.loads(file.read(MAX_BYTES))
            state = _made(State, document["state"])
            saved_at, boot_id = _made(float, document["saved_at"]), _made(str, document["boot_id"])
            if not holds_together(state, saved_at):
                raise ValueError("its values contradict each other")
        except FileNotFoundError:
            return State(since=now)
        except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            log.warning("%s cannot be used and is begun afresh: %s", self.path, error)
            return State(since=now)
        assert isinstance(state, State)
        if boot_id == self._boot_id:
            return resume(state, now)
        self.rebooted = True
        return reboot_over(state, now - saved_at, now)

    def start(self) -> None:
        self._thread.start()

    def keep(self, state: State, now: float) -> None:
        """Has it written if it changed; returns at once."""
        with self._changed:
            if self._latest is None or self._latest[0] != state or not self.writable:
                self._latest = (state, now)
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Waits until what was last kept is on the disk; False if it is not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unwritten() or not self.writable, timeout_s)
            return not self._unwritten()

    def close(self, timeout_s: float) -> bool:
        on_disk = self.flush(timeout_s)
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return on_disk

    def _unwritten(self) -> bool:
        return self._latest is not None and self._latest[0] != self._written

    def _write_on(self) -> None:
        tried: tuple[State, float] | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or (self._unwritten() and self._latest is not tried))  # noqa: B023
                if self._ending:
                    return
                tried = self._latest
            assert tried is not None
            trouble = self._save(*tried)
            with self._changed:
                if trouble is None:
                    self._written = tried[0]
                elif self.writable:
                    log.warning("%s cannot be written, the budget is in memory only: %s", self.path, trouble)
                self.writable = trouble is None
                self._changed.notify_all()

    def _save(self, state: State, now: float) -> OSError | None:
        document = {"version": VERSION, "boot_id": self._boot_id, "saved_at": now, "state": _plain(state)}
        try:
            self._replace(json.dumps(document, separators=(",", ":")).encode())
        except OSError as error:
            return error
        return None

    def _replace(self, content: bytes) -> None:
        fresh = self.path.with_suffix(".new")
        # 0600: an expectation may carry a session's bus address or tokens in its environment.
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        # The new name reaches the disk with the directory.
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _made(kind: Any, value: Any) -> Any:
    """The reverse of `_plain`, led by the annotations. Raises ValueError, TypeError or KeyError for what does not fit.

    Unknown names are left out and missing ones get their default, so that the version before can read the file too.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [each for each in arguments if each is not type(None)]
        return None if value is None else _made(inner[0], value)
    if origin is tuple:
        return _tuple(arguments, value)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if kind is float:
        # Infinity and NaN are what `json` reads and writes besides numbers; a NaN is not below anything.
        if type(value) in (int, float) and abs(value) < 1e15:
            return float(value)
        raise ValueError("expected a time in seconds")
    if type(value) is not kind:
        raise ValueError(f"expected {kind}")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError("expected a list")
    if arguments[1:] == (...,):
        return tuple(_made(arguments[0], each) for each in value)
    if len(arguments) != len(value):
        raise ValueError(f"expected {len(arguments)} values")
    return tuple(_made(inner, each) for inner, each in zip(arguments, value, strict=True))


def _dataclass(kind: Callable[..., Any], value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("expected an object")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _made(hint, value[name]) for name, hint in hints.items() if name in value})
