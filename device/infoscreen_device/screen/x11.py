"""Pictures of an X11 session, by Pillow. Refused where it would see black whatever is shown."""

import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from PIL import ImageGrab

from infoscreen_device import session
from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen import outputs
from infoscreen_device.screen.camera import CAPTURE_S, BlindError
from infoscreen_device.screen.tilemaps import Frame
from infoscreen_device.screen.x11_wire import X11Error, X11Wire

HARDWARE = ("Xorg", "X")
"""These drive a monitor of this machine; Xvfb, Xvnc and the like draw into memory."""


class X11Camera:
    name = "x11"

    def __init__(self, environ: Mapping[str, str], x11: Path = session.X11, drm: Path = outputs.DRM) -> None:
        """`environ`: DISPLAY, and XAUTHORITY if the cookie is not in ~/.Xauthority. Raises BlindError."""
        self._display = environ.get("DISPLAY", "")
        local = re.fullmatch(r":(\d+)(?:\.\d+)?", self._display)
        if local is None:
            raise BlindError(Blindness.NOT_CAPTURABLE, f"{self._display!r} is not an X server of this machine")
        self._drm = drm
        try:
            self._wire = X11Wire(local[1], environ, time.monotonic() + CAPTURE_S, x11)
        except X11Error as error:
            raise BlindError(Blindness.NO_SESSION, f"{self._display}: {error}") from None
        except TimeoutError:
            raise BlindError(Blindness.TIMEOUT, f"{self._display}: the X server does not answer") from None
        try:
            self._look_around()
        except X11Error as error:
            self._wire.close()
            raise BlindError(Blindness.FAILED, f"{self._display}: {error}") from None
        except TimeoutError:
            self._wire.close()
            raise BlindError(Blindness.TIMEOUT, f"{self._display}: the X server does not answer") from None
        except BaseException:
            self._wire.close()
            raise

    def __enter__(self) -> "X11Camera":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._wire.close()

    @property
    def windows(self) -> int | None:
        return self._windows

    def _look_around(self) -> None:
        server = self._wire.server()
        # Xwayland is started by the compositor, which may itself be the one that listens there.
        if not server.startswith("X") or server == "Xwayland" or self._wire.has("XWAYLAND"):
            what = f"is made by {server}" if server else "is of an unknown make"
            raise BlindError(Blindness.NOT_CAPTURABLE, f"{self._display} {what}: not all that is shown is seen there")
        if server in HARDWARE:
            outputs.refuse_if_dark(self._drm)
        dark = self._wire.dark()
        if dark:
            raise BlindError(Blindness.DISPLAY_OFF, dark)
        self._windows: int | None = self._wire.windows()

    def frame(self) -> Frame:
        """Raises BlindError. A server that hangs ends this process by SIGALRM: libxcb waits for ever."""
        # Never without a display: Pillow would then try other programs.
        left, _ = signal.setitimer(signal.ITIMER_REAL, CAPTURE_S)
        try:
            return Frame(ImageGrab.grab(xdisplay=self._display), time.monotonic())
        except OSError as error:
            raise BlindError(Blindness.FAILED, f"{self._display}: {error}") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, left)
