"""Pictures from other programs: grim, and a command of the kiosk's own. They may fail, hang, or print anything."""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen.camera import CAPTURE_S, MAX_PICTURE_BYTES, BlindError
from infoscreen_device.screen.pictures import open_picture
from infoscreen_device.screen.tilemaps import Frame

KEPT = 400
"""Bytes of what a program complains about, its last words."""
GRIM_SAYS = {
    "failed to create display": Blindness.NO_SESSION,
    "failed to copy output": Blindness.DISPLAY_OFF,
    "no wl_output": Blindness.NO_OUTPUT,
    "doesn't support": Blindness.NOT_CAPTURABLE,
}
"""grim 1.4 and 1.5."""


class ProgramCamera:
    """Runs the program for every picture; PNG, PPM or JPEG on its standard output."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        environ: Mapping[str, str],
        *,
        windows: int | None = None,
        says: Mapping[str, Blindness] | None = None,
    ) -> None:
        """`says`: what it means if these words are among its last."""
        self.name = name
        self._argv = list(argv)
        self._environ = dict(environ)
        self._windows = windows
        self._says = says or {}

    def __enter__(self) -> "ProgramCamera":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    @property
    def windows(self) -> int | None:
        return self._windows

    def frame(self) -> Frame:
        """Raises BlindError."""
        picture = self._run()
        try:
            image = open_picture(picture)
        except ValueError as error:
            raise BlindError(Blindness.FAILED, f"{self.name}: {error}") from None
        return Frame(image, time.monotonic())

    def _run(self) -> bytes:
        try:
            program = subprocess.Popen(
                self._argv,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            raise BlindError(Blindness.FAILED, f"{self.name}: {error}") from None
        with program:
            try:
                picture, words = self._read(program, time.monotonic() + CAPTURE_S)
            finally:
                program.kill()
        if program.returncode != 0:
            self._complain(words or f"status {program.returncode}")
        return picture

    def _read(self, program: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, str]:
        """All of its output, and its last words. Returns when it has ended its output and itself."""
        assert program.stdout is not None
        assert program.stderr is not None
        picture, words = bytearray(), bytearray()
        kept = {program.stdout.fileno(): picture, program.stderr.fileno(): words}
        poll = select.poll()
        for fd in kept:
            poll.register(fd, select.POLLIN)
        open_fds = set(kept)
        while open_fds:
            for fd, _ in poll.poll(_left_ms(deadline, self.name)):
                data = os.read(fd, 1_000_000)
                kept[fd] += data
                if not data:
                    poll.unregister(fd)
                    open_fds.discard(fd)
            del words[:-KEPT]
            if len(picture) > MAX_PICTURE_BYTES:
                raise BlindError(Blindness.FAILED, f"{self.name}: more than {MAX_PICTURE_BYTES} bytes")
        try:
            program.wait(_left_ms(deadline, self.name) / 1000)
        except subprocess.TimeoutExpired:
            raise BlindError(Blindness.TIMEOUT, f"{self.name}: does not end") from None
        return bytes(picture), words.decode("utf-8", "replace").strip()

    def _complain(self, words: str) -> None:
        reason = next((reason for said, reason in self._says.items() if said in words), Blindness.FAILED)
        raise BlindError(reason, f"{self.name}: {words}")


def has_grim() -> bool:
    return shutil.which("grim") is not None


def grim(environ: Mapping[str, str], output: str | None, windows: int | None = None) -> ProgramCamera:
    """grim(1), for compositors and formats that wayland.py does not know."""
    # PPM costs least; scaling (-s) costs more than the full picture.
    argv = ["grim", "-t", "ppm", *(["-o", output] if output else []), "-"]
    return ProgramCamera("grim", argv, environ, windows=windows, says=GRIM_SAYS)


def _left_ms(deadline: float, name: str) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise BlindError(Blindness.TIMEOUT, f"{name}: no picture within {CAPTURE_S:g} s")
    return 1000 * left
