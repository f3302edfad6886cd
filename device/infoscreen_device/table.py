"""Checked reading of a table that people wrote (TOML) or programs sent (JSON): problems are gathered, not raised.

What the fields mean is for the callers. A value that fails its check is reported under its dotted path and replaced by
the default, so that reading goes on and all problems come out at once.
"""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar, overload

E = TypeVar("E", bound=StrEnum)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
MAX_TEXT = 4_096


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """
    >>> did_you_mean("keep_alive", ["url", "keepalive_s"])
    ' (did you mean keepalive_s?)'
    >>> did_you_mean("zzz", ["url"])
    ''
    """
    spelt = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower()[:80], list(spelt), n=1, cutoff=0.6)
    return f" (did you mean {spelt[found[0]]}?)" if found else ""


def text_fault(value: object, limit: int = MAX_TEXT) -> str | None:
    """Why this is no usable text (a command's argument, a path, a name), or None if it is."""
    if not isinstance(value, str):
        return "expected text"
    if not value or len(value) > limit:
        return f"expected text of 1 to {limit} characters"
    if any(ord(character) < 32 or ord(character) == 127 or 0xD800 <= ord(character) < 0xE000 for character in value):
        return "contains a control character"
    return None


class Table:
    """One table at `path`. The names asked for are the names known: `finish` reports all others."""

    def __init__(self, data: Mapping[str, object], problems: list[str], path: str = "") -> None:
        self._data = data
        self._asked: set[str] = set()
        self.problems = problems
        self._path = path

    def where(self, name: str) -> str:
        shown = name if _BARE_KEY.fullmatch(name) else json.dumps(name[:80])
        return f"{self._path}.{shown}" if self._path else shown

    def fault(self, name: str, problem: str) -> None:
        self.problems.append(f"{self.where(name)}: {problem}")

    def has(self, name: str) -> bool:
        return name in self._data

    def names(self) -> list[str]:
        return list(self._data)

    def raw(self, name: str) -> object:
        """The value as it is, None if it is absent (TOML has no null, and JSON's null means absent here)."""
        self._asked.add(name)
        return self._data.get(name)

    def finish(self) -> None:
        """Reports every name that nobody asked for."""
        for name in self._data:
            if name not in self._asked:
                self.fault(name, "unknown setting" + did_you_mean(name, sorted(self._asked)))

    def table(self, name: str) -> "Table":
        """The table of this name, empty if it is absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, Mapping):
            self.fault(name, f"expected a table: write [{self.where(name)}]")
            value = None
        return Table(value or {}, self.problems, self.where(name))

    @overload
    def text(self, name: str, default: str, limit: int = MAX_TEXT) -> str: ...
    @overload
    def text(self, name: str, default: None = None, limit: int = MAX_TEXT) -> str | None: ...
    def text(self, name: str, default: str | None = None, limit: int = MAX_TEXT) -> str | None:
        value = self.raw(name)
        if value is None:
            return default
        problem = text_fault(value, limit)
        if problem is not None:
            self.fault(name, problem)
            return default
        return str(value)

    def texts(self, name: str, limit: int = 256) -> tuple[str, ...]:
        """A list of texts, empty if it is absent."""
        value = self.raw(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > limit:
            self.fault(name, f"expected a list of at most {limit} texts")
            return ()
        for position, item in enumerate(value):
            problem = text_fault(item)
            if problem is not None:
                self.fault(name, f"item {position + 1}: {problem}")
                return ()
        return tuple(value)

    def choice(self, name: str, kind: type[E]) -> E | None:
        value = self.raw(name)
        if value is None:
            return None
        words = [str(word) for word in kind]
        if isinstance(value, str) and value in words:
            return kind(value)
        hint = did_you_mean(value, words) if isinstance(value, str) else ""
        self.fault(name, f"expected one of {', '.join(words)}{hint}")
        return None

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(name, "expected true or false")
            return default
        return value

    @overload
    def integer(self, name: str, default: int, low: int, high: int) -> int: ...
    @overload
    def integer(self, name: str, default: None, low: int, high: int) -> int | None: ...
    def integer(self, name: str, default: int | None, low: int, high: int) -> int | None:
        value = self.raw(name)
        if value is None:
            return default
        if type(value) is not int or not low <= value <= high:
            self.fault(name, f"expected a whole number from {low} to {high}")
            return default
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(name, f"expected a number from {low:g} to {high:g}")
            return default
        if not math.isfinite(value) or not low <= value <= high:
            self.fault(name, f"expected a number from {low:g} to {high:g}")
            return default
        return float(value)

    @overload
    def path(self, name: str, default: Path) -> Path: ...
    @overload
    def path(self, name: str, default: None = None) -> Path | None: ...
    def path(self, name: str, default: Path | None = None) -> Path | None:
        """An absolute path: a service has no directory of its own that a relative one could start from."""
        value = self.text(name)
        if value is None:
            return default
        if not value.startswith("/"):
            self.fault(name, "expected an absolute path")
            return default
        return Path(value)
