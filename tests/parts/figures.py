"""The type of the fixture `figure` (conftest.py)."""

from collections.abc import Callable

Figure = Callable[[str, object], None]
