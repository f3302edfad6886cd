"""Whether a monitor is there and on, as the kernel's display driver tells, and whether the session is locked."""

import subprocess
from pathlib import Path

from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen.camera import BlindError

DRM = Path("/sys/class/drm")
"""One folder for each connector, card1-HDMI-A-1; the kernel's Documentation/ABI/testing/sysfs-class-drm."""
LOCK_S = 2.0


def refuse_if_dark(drm: Path, output: str | None = None) -> None:
    """Raises BlindError if no monitor is plugged in, or if those that are there are all off.

    `output`: the name of the only one that counts. Where the kernel names none, nothing can be said.
    """
    connectors = [path for path in sorted(drm.glob("card*-*")) if output in (None, path.name.partition("-")[2])]
    # "unknown" is a connector without a wire for it, as of a panel: it may well show something.
    plugged = [path for path in connectors if _says(path, "status") != "disconnected"]
    if connectors and not plugged:
        raise BlindError(Blindness.NO_OUTPUT, f"no monitor at {_names(connectors)}")
    if plugged and all(_is_off(path) for path in plugged):
        raise BlindError(Blindness.DISPLAY_OFF, f"{_names(plugged)}: off")


def _is_off(connector: Path) -> bool:
    return _says(connector, "enabled") == "disabled" or _says(connector, "dpms") in ("Off", "Standby", "Suspend")


def _names(connectors: list[Path]) -> str:
    return ", ".join(path.name.partition("-")[2] for path in connectors)


def _says(connector: Path, attribute: str) -> str:
    try:
        return (connector / attribute).read_text().strip()
    except OSError:
        return ""


def is_locked(uid: int) -> bool:
    """The user's graphical session says so of itself (LockedHint of org.freedesktop.login1); costs some 10 ms."""
    name = _loginctl("show-user", str(uid), "--property=Display", "--value")
    return bool(name) and _loginctl("show-session", name, "--property=LockedHint", "--value") == "yes"


def _loginctl(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["loginctl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LOCK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
