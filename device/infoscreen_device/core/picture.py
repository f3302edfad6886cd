"""What a look at the screen says: the words that capture, rules and agent share. Data only.

A look is a burst of frames, reduced to numbers where it was taken (in the kiosk user's session); no picture is needed
to judge it. What follows from the numbers is for core.screen.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from infoscreen_shared.messages import EventType

Region = tuple[float, float, float, float]
"""Left, top, width, height as fractions (0 to 1) of the screen."""


class Motion(StrEnum):
    """How much of the picture is expected to change by itself."""

    NONE = "none"
    """A slide, a PDF page: never frozen."""
    CLOCK = "clock"
    """Something changes at least once a minute."""
    TICKER = "ticker"
    """A line of text runs through all the time."""
    VIDEO = "video"
    WITHIN = "within"
    """Something changes at least every `Expected.within_s` (a slide show)."""


@dataclass(frozen=True, slots=True)
class Expected:
    motion: Motion = Motion.NONE
    within_s: float | None = None
    """For WITHIN: seconds."""


def usual(event_type: EventType | None) -> Expected:
    """What is expected where nobody says it: pages and slides may stand still.

    To take one that does for frozen would restart a healthy player; not to know better only sees less.
    """
    return Expected(Motion.VIDEO if event_type is EventType.VIDEO else Motion.NONE)


class Blindness(StrEnum):
    """Why nothing can be said about the picture. Never a reason to restart anything."""

    NO_HELPER = "no capture helper"
    NO_SESSION = "no session"
    DISPLAY_OFF = "display off"
    NO_OUTPUT = "no output"
    LOCKED = "session locked"
    QUIET_HOURS = "quiet hours"
    TIMEOUT = "capture timed out"
    FAILED = "capture failed"
    NOT_CAPTURABLE = "not capturable"
    """The way that is there cannot be trusted: X11 tools on Xwayland see black whatever is shown."""
    SETTLING = "settling"
    """The player was just started, or what it plays has just changed."""


@dataclass(frozen=True, slots=True)
class Blind:
    reason: Blindness
    detail: str = ""


class Page(StrEnum):
    """What a browser says of its page, asked by DevTools."""

    FINE = "fine"
    ERROR = "error page"
    """chrome-error://, or an HTTP status of 400 and more of the document."""
    CRASHED = "page crashed"
    """Aw, Snap: the renderer answers no more while the browser does."""


@dataclass(frozen=True, slots=True)
class Witness:
    """What the player itself says, beside the picture."""

    kind: str
    """mpv, vlc, devtools, cpu."""
    advances: bool | None = None
    """Its position (mpv, vlc, a page's video) went on during the burst; None if it has none to tell.

    For cpu: False if it used next to nothing, None otherwise: a busy process proves no picture.
    """
    answers: bool = True
    """False: the door is there and nobody answered in time, as of a stopped process."""
    page: Page | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Burst:
    """The numbers of a burst of frames. Tiles lie wholly or partly outside of the ignored regions, or do not count."""

    width: int
    height: int
    tiles: int
    """How many tiles count."""
    span_s: float
    """From the first to the last frame."""
    content: tuple[int, ...]
    """For each frame, tiles that differ from an empty screen."""
    median: tuple[int, ...]
    """For each frame, the grey level (0 to 255) that half of the picture lies below."""
    changed: tuple[int, ...]
    """For each frame but the first, tiles in which any pixel differs from the frame before."""
    moved: int
    """Tiles that changed at any time in the burst."""
    digest: str
    """The same for the same last frame, ignored regions apart; tells "nothing changed since the last look"."""
    colour: tuple[int, int, int] = (0, 0, 0)
    """Mean red, green, blue of the last frame."""
    backend: str = ""
    hash: str | None = None
    """Perceptual hash (imagehash's dhash and phash, hex) where it was asked for and the picture has content."""
    known: str | None = None
    """The name of the reference picture (console, desktop, error page) that this one looks like."""
    windows: int | None = None
    """Windows or surfaces of programs on the screen, where the session tells; 0 is a bare desktop."""
    witness: Witness | None = None
    tiles_moved: tuple[int, ...] = field(default=(), repr=False)
    """Indices (row by row) of the tiles in `moved`, where they were asked for: to learn where a clock is."""


Look = Burst | Blind
