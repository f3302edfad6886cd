"""Pictures of a Wayland session by wlr-screencopy, without any other program: labwc, cage, sway, wayfire.

The protocols are wlr-screencopy-unstable-v1, wlr-output-power-management-unstable-v1 and
wlr-foreign-toplevel-management-unstable-v1 of https://gitlab.freedesktop.org/wlroots/wlr-protocols; the numbers below
are the order of requests and events in them.
"""

import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen.camera import CAPTURE_S, MAX_PICTURE_BYTES, BlindError
from infoscreen_device.screen.tilemaps import Frame
from infoscreen_device.screen.wayland_wire import Arguments, Connection, WaylandError, version_of, words

SCREENCOPY = "zwlr_screencopy_manager_v1"
POWER = "zwlr_output_power_manager_v1"
TOPLEVELS = "zwlr_foreign_toplevel_manager_v1"
_CAPTURE_OUTPUT, _COPY, _DESTROY_FRAME = 0, 0, 1
_BUFFER, _FLAGS, _READY, _FAILED, _BUFFER_DONE = 0, 1, 2, 3, 6
_BUFFER_DONE_SINCE = 3
_Y_INVERT = 1
_GET_OUTPUT_POWER, _POWER_OFF = 0, 0
_TOPLEVEL, _STATE, _CLOSED, _MINIMIZED = 0, 4, 6, 1
_GEOMETRY, _NAME = 0, 4
_CREATE_POOL, _CREATE_BUFFER = 0, 0
_RETRY_S = 0.2
"""Before a failed copy is called a failure: the mode of the output may have changed just then."""

FORMATS = {
    0: ("BGRX", 4),
    1: ("BGRX", 4),
    0x34324258: ("RGBX", 4),
    0x34324241: ("RGBX", 4),
    0x34324742: ("RGB", 3),
    0x34324752: ("BGR", 3),
}
"""ARGB8888 and XRGB8888 of wl_shm; XBGR8888, ABGR8888, BGR888 and RGB888 of drm_fourcc.h: the bytes, and how many."""
TURNS = {
    1: (Image.Transpose.ROTATE_270,),
    2: (Image.Transpose.ROTATE_180,),
    3: (Image.Transpose.ROTATE_90,),
    4: (Image.Transpose.FLIP_LEFT_RIGHT,),
    5: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90),
    6: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180),
    7: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_270),
}
"""wl_output's transforms: how to turn the buffer so that it is as people see it."""


class NotOfferedError(BlindError):
    """This compositor has no wlr-screencopy."""


@dataclass(slots=True)
class Output:
    id: int
    name: str = ""
    transform: int = 0
    off: bool = False

    def heard(self, number: int, arguments: Arguments) -> None:
        if number == _GEOMETRY:
            for _ in range(5):
                arguments.word()
            arguments.text()
            arguments.text()
            self.transform = arguments.word()
        elif number == _NAME:
            self.name = arguments.text()

    def heard_power(self, number: int, arguments: Arguments) -> None:
        if number == 0:
            self.off = arguments.word() == _POWER_OFF


@dataclass(slots=True)
class _Window:
    minimized: bool = False
    closed: bool = False

    def heard(self, number: int, arguments: Arguments) -> None:
        if number == _STATE:
            self.minimized = _MINIMIZED in arguments.words()
        elif number == _CLOSED:
            self.closed = True


@dataclass(slots=True)
class _Shot:
    """A copy under way."""

    awaits_done: bool
    layout: tuple[int, int, int, int] | None = None
    """Format, width, height, bytes a row."""
    described: bool = False
    upside_down: bool = False
    ready: bool = False
    failed: bool = False

    def heard(self, number: int, arguments: Arguments) -> None:
        if number == _BUFFER:
            self.layout = (arguments.word(), arguments.word(), arguments.word(), arguments.word())
            self.described = not self.awaits_done
        elif number == _BUFFER_DONE:
            self.described = True
        elif number == _FLAGS:
            self.upside_down = bool(arguments.word() & _Y_INVERT)
        elif number == _READY:
            self.ready = True
        elif number == _FAILED:
            self.failed = True


class WaylandCamera:
    name = "wayland"

    def __init__(self, path: Path, output: str | None = None) -> None:
        """`output`: its name, such as HDMI-A-1; by default the first that is there. Raises BlindError."""
        self._windows: list[_Window] | None = None
        self._buffer: tuple[tuple[int, int, int, int], int, mmap.mmap] | None = None
        try:
            self._wayland = Connection(path, time.monotonic() + CAPTURE_S)
        except WaylandError as error:
            raise BlindError(Blindness.NO_SESSION, str(error)) from None
        except TimeoutError:
            raise BlindError(Blindness.TIMEOUT, "the compositor takes no one in") from None
        try:
            self._look_around(output)
        except WaylandError as error:
            self._wayland.close()
            raise BlindError(Blindness.FAILED, str(error)) from None
        except TimeoutError:
            self._wayland.close()
            raise BlindError(Blindness.TIMEOUT, "the compositor does not answer") from None
        except BaseException:
            self._wayland.close()
            raise

    def __enter__(self) -> "WaylandCamera":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._wayland.close()

    @property
    def output(self) -> str:
        """Its name, as the kernel's connector has it; "" if the compositor does not tell."""
        return self._output.name

    @property
    def windows(self) -> int | None:
        if self._windows is None:
            return None
        return sum(not window.minimized and not window.closed for window in self._windows)

    def _look_around(self, wanted: str | None) -> None:
        wayland = self._wayland
        registry, offered = wayland.globals()
        manager = version_of(offered, SCREENCOPY, 3)
        if manager is None:
            raise NotOfferedError(Blindness.NOT_CAPTURABLE, f"this compositor offers no {SCREENCOPY}")
        self._manager = wayland.bind(registry, manager[0], SCREENCOPY, manager[1])
        self._version = manager[1]
        shm = version_of(offered, "wl_shm", 1) or (0, 1)
        self._shm = wayland.bind(registry, shm[0], "wl_shm", shm[1])
        outputs = [self._bind_output(registry, *each) for each in offered.get("wl_output", [])]
        power = version_of(offered, POWER, 1)
        if power is not None:
            powers = wayland.bind(registry, power[0], POWER, power[1])
            for output in outputs:
                made = wayland.new(output.heard_power)
                wayland.request(powers, _GET_OUTPUT_POWER, words(made, output.id))
        self._windows = self._bind_windows(registry, version_of(offered, TOPLEVELS, 1))
        wayland.roundtrip()
        self._output = _chosen(outputs, wanted)
        layout = self._shoot(only_ask=True).layout
        self.knows_format = layout is None or layout[0] in FORMATS

    def _bind_output(self, registry: int, name: int, version: int) -> Output:
        output = Output(0)
        output.id = self._wayland.bind(registry, name, "wl_output", min(version, 4), output.heard)
        return output

    def _bind_windows(self, registry: int, offered: tuple[int, int] | None) -> list[_Window] | None:
        if offered is None:
            return None
        windows: list[_Window] = []

        def heard(number: int, arguments: Arguments) -> None:
            if number == _TOPLEVEL:
                windows.append(_Window())
                self._wayland.listen(arguments.word(), windows[-1].heard)

        self._wayland.bind(registry, offered[0], TOPLEVELS, offered[1], heard)
        return windows

    # --- one picture --------------------------------------------------------------------------------------------------

    def frame(self) -> Frame:
        """Raises BlindError."""
        self._wayland.deadline = time.monotonic() + CAPTURE_S
        where = self._output.name or "the screen"
        try:
            # What changed since the last frame, for example that the output is off now.
            self._wayland.roundtrip()
            shot = self._shoot()
            if shot.failed and not self._output.off:
                time.sleep(_RETRY_S)
                shot = self._shoot()
        except WaylandError as error:
            raise BlindError(Blindness.FAILED, str(error)) from None
        except TimeoutError:
            raise BlindError(Blindness.TIMEOUT, f"the compositor gave no picture of {where}") from None
        if self._output.off or shot.failed:
            # A compositor without the word for it fails to copy an output that is off as well.
            raise BlindError(Blindness.DISPLAY_OFF, f"{where} is off" if self._output.off else f"{where}: no copy")
        return self._framed(shot)

    def _shoot(self, *, only_ask: bool = False) -> _Shot:
        wayland = self._wayland
        shot = _Shot(awaits_done=self._version >= _BUFFER_DONE_SINCE)
        frame = wayland.new(shot.heard)
        wayland.request(self._manager, _CAPTURE_OUTPUT, words(frame, 0, self._output.id))
        wayland.pump(lambda: shot.described or shot.failed)
        if not (shot.failed or only_ask):
            assert shot.layout is not None
            wayland.request(frame, _COPY, words(self._buffer_for(shot.layout)))
            wayland.pump(lambda: shot.ready or shot.failed)
        wayland.request(frame, _DESTROY_FRAME)
        return shot

    def _buffer_for(self, layout: tuple[int, int, int, int]) -> int:
        """One buffer serves all frames of a burst; it ends with the connection."""
        if self._buffer is not None and self._buffer[0] == layout:
            return self._buffer[1]
        form, width, height, stride = layout
        size = stride * height
        if form not in FORMATS:
            raise BlindError(Blindness.NOT_CAPTURABLE, f"pictures have the unknown format {form:#x}")
        if not 0 < size <= MAX_PICTURE_BYTES * 4 // 3 or stride < width * FORMATS[form][1]:
            raise BlindError(Blindness.FAILED, f"a picture of {width}x{height} pixels and {size} bytes")
        memory = os.memfd_create("screen", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, size)
            mapped = mmap.mmap(memory, size)
            pool, buffer = self._wayland.new(), self._wayland.new()
            self._wayland.request(self._shm, _CREATE_POOL, words(pool, size), fd=memory)
        finally:
            os.close(memory)
        self._wayland.request(pool, _CREATE_BUFFER, words(buffer, 0, width, height, stride, form))
        self._buffer = layout, buffer, mapped
        return buffer

    def _framed(self, shot: _Shot) -> Frame:
        assert shot.layout is not None
        assert self._buffer is not None
        form, width, height, stride = shot.layout
        mapped: Any = self._buffer[2]
        order, swapped = -1 if shot.upside_down else 1, False
        if FORMATS[form][1] == 4:
            # A view of the buffer and no copy, the colours in its order.
            image = Image.frombuffer("RGBX", (width, height), mapped, "raw", "RGBX", stride, order)
            swapped = FORMATS[form][0] == "BGRX"
        else:
            image = Image.frombytes("RGB", (width, height), mapped, "raw", FORMATS[form][0], stride, order)
        for turn in TURNS.get(self._output.transform, ()):
            image = image.transpose(turn)
        return Frame(image, time.monotonic(), swapped)


def _chosen(outputs: list[Output], wanted: str | None) -> Output:
    if not outputs:
        raise BlindError(Blindness.NO_OUTPUT, "the session has no screen")
    if wanted is None:
        return next((output for output in outputs if not output.off), outputs[0])
    found = next((output for output in outputs if output.name == wanted), None)
    if found is None:
        there = ", ".join(output.name for output in outputs)
        raise BlindError(Blindness.NO_OUTPUT, f"there is no screen {wanted}, only {there}")
    return found
