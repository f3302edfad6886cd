"""What every way to a picture has in common."""

from contextlib import AbstractContextManager
from typing import Protocol

from infoscreen_device.core.picture import Blind, Blindness
from infoscreen_device.screen.tilemaps import Frame

CAPTURE_S = 3.0
"""What one picture may take; grim and X11 need some 20 ms, DevTools up to 1.5 s where they answer at all."""
MAX_PICTURE_BYTES = 130_000_000
"""Of a picture from a program: 40 million pixels of three bytes, and its header."""


class BlindError(Exception):
    """There is no picture, or none that could be trusted."""

    def __init__(self, reason: Blindness, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.blind = Blind(reason, detail)


class Camera(AbstractContextManager["Camera"], Protocol):
    """Is open from its making to its end as a context. Raises BlindError."""

    name: str
    """As in Burst.backend."""

    @property
    def windows(self) -> int | None:
        """As in Burst.windows."""

    def frame(self) -> Frame:
        """The screen as it is now, as people see it, without the pointer. It is good until the next one is taken."""
