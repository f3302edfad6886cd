"""What the demo says: short aligned lines, coloured on a terminal only."""

import os
import sys
import time


class Screen:
    def __init__(self) -> None:
        self._began = time.monotonic()
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def title(self, text: str) -> None:
        print(f"\n{self._paint('1', text)}", flush=True)

    def fact(self, name: str, value: str) -> None:
        print(f"  {name:<9} {value}", flush=True)

    def step(self, subject: str, text: str, *, good: bool = False) -> None:
        since = f"{time.monotonic() - self._began:6.1f} s"
        print(f"{self._paint('2', since)}  {subject:<8} {self._paint('32', text) if good else text}", flush=True)

    def failure(self, text: str) -> None:
        print(f"{self._paint('31', 'failed:')} {text}", file=sys.stderr, flush=True)
