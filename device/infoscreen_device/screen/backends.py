"""Which way to a picture there is: from what the session is, or as the kiosk's people set it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infoscreen_device import session
from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen import outputs, processes, programs, witness
from infoscreen_device.screen.camera import BlindError, Camera
from infoscreen_device.screen.devtools import DevToolsCamera
from infoscreen_device.screen.wayland import NotOfferedError, WaylandCamera
from infoscreen_device.screen.x11 import X11Camera

BACKENDS = ("auto", "wayland", "grim", "x11", "devtools", "command")
_SCREEN = ("DISPLAY", "WAYLAND_DISPLAY")
_LENT = (*_SCREEN, "XAUTHORITY", "XDG_RUNTIME_DIR")
"""What the player's own environment says of the screen that it draws on."""


@dataclass(frozen=True, slots=True)
class Settings:
    backend: str = "auto"
    command: tuple[str, ...] = ()
    devtools_port: int | None = None
    output: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    drm: Path = outputs.DRM


def open_camera(settings: Settings, pid: int | None) -> Camera:
    """`pid`: the player's. Raises BlindError."""
    backend = settings.backend
    if backend == "command" or (backend == "auto" and settings.command):
        outputs.refuse_if_dark(settings.drm)
        return programs.ProgramCamera("command", settings.command, find_screen(settings, pid) or settings.environ)
    if backend == "devtools":
        outputs.refuse_if_dark(settings.drm)
        return _devtools(settings, pid)
    try:
        return _of_session(settings, pid)
    except BlindError as error:
        # A page that draws is less than a screen that shows it, and more than nothing.
        if backend == "auto" and error.blind.reason is Blindness.NOT_CAPTURABLE and _port(settings, pid):
            return _devtools(settings, pid)
        raise


def _of_session(settings: Settings, pid: int | None) -> Camera:
    screen = find_screen(settings, pid)
    if screen is None:
        raise BlindError(Blindness.NO_SESSION, "neither a Wayland nor an X11 session of this user")
    if not screen.get("WAYLAND_DISPLAY"):
        if settings.backend in ("wayland", "grim"):
            raise BlindError(Blindness.NO_SESSION, "no Wayland session of this user")
        return X11Camera(screen, drm=settings.drm)
    if settings.backend == "x11":
        raise BlindError(Blindness.NOT_CAPTURABLE, "this is a Wayland session: not all that is shown is seen by X11")
    if settings.backend == "grim":
        return programs.grim(screen, settings.output)
    return _wayland(screen, settings)


def _wayland(screen: Mapping[str, str], settings: Settings) -> Camera:
    path = Path(screen.get("XDG_RUNTIME_DIR", "/")) / screen["WAYLAND_DISPLAY"]
    try:
        camera = WaylandCamera(path, settings.output)
    except NotOfferedError:
        if settings.backend == "wayland" or not programs.has_grim():
            raise
        # Newer ones speak ext-image-copy-capture, which newer versions of grim know.
        return programs.grim(screen, settings.output)
    try:
        if camera.output:
            outputs.refuse_if_dark(settings.drm, camera.output)
        if settings.backend == "auto" and not camera.knows_format and programs.has_grim():
            camera.close()
            return programs.grim(screen, camera.output or None, camera.windows)
    except BaseException:
        camera.close()
        raise
    return camera


def _devtools(settings: Settings, pid: int | None) -> Camera:
    port = _port(settings, pid)
    if port is None:
        raise BlindError(Blindness.NOT_CAPTURABLE, "the player is no browser with a DevTools port")
    return DevToolsCamera(port)


def _port(settings: Settings, pid: int | None) -> int | None:
    door = witness.find_door([] if pid is None else processes.family(pid), settings.devtools_port)
    return None if door is None else door.devtools_port


# --- the session ------------------------------------------------------------------------------------------------------


def find_screen(settings: Settings, pid: int | None) -> dict[str, str] | None:
    """The environment of a program that is to see the screen; None if there is no session of this user.

    What is set for this helper holds. Otherwise it is the screen that the player draws on, or else what is found.
    """
    environ, uid = settings.environ, os.getuid()
    lent: dict[str, str] = {}
    if pid is not None and not any(environ.get(name) for name in _SCREEN):
        theirs = processes.environment(pid)
        lent = {name: theirs[name] for name in _LENT if theirs.get(name)}
    for base in [{**environ, **lent}, dict(environ)] if lent else [dict(environ)]:
        found = session.find(base, uid)
        if found is not None:
            return _rather_wayland({**base, **found}, uid)
    return None


def _rather_wayland(screen: dict[str, str], uid: int) -> dict[str, str]:
    """A player may well draw by X11 into a Wayland session, whose picture then is the one to look at."""
    if screen.get("WAYLAND_DISPLAY"):
        return screen
    found = session.find({name: value for name, value in screen.items() if name not in _SCREEN}, uid)
    return {**screen, **found} if found is not None and "WAYLAND_DISPLAY" in found else screen
