"""Monitors as the kernel tells of them: a folder laid out as /sys/class/drm is."""

from pathlib import Path

import pytest

from infoscreen_device.core.picture import Blindness
from infoscreen_device.screen.camera import BlindError
from infoscreen_device.screen.outputs import refuse_if_dark

ON = ("connected", "enabled", "On")
OFF = ("connected", "disabled", "Off")
DARK = ("connected", "enabled", "Off")
UNPLUGGED = ("disconnected", "disabled", "Off")
PANEL = ("unknown", "enabled", "On")


def drm(folder: Path, **connectors: tuple[str, str, str]) -> Path:
    (folder / "card0").mkdir()
    (folder / "version").write_text("drm 1.1.0 20060810\n")
    for name, says in connectors.items():
        connector = folder / f"card0-{name.replace('_', '-')}"
        connector.mkdir()
        for attribute, value in zip(("status", "enabled", "dpms"), says, strict=True):
            (connector / attribute).write_text(f"{value}\n")
    return folder


def blindness(folder: Path, output: str | None = None) -> Blindness | None:
    try:
        refuse_if_dark(folder, output)
    except BlindError as error:
        return error.blind.reason
    return None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (ON, UNPLUGGED, None),
        (UNPLUGGED, UNPLUGGED, Blindness.NO_OUTPUT),
        (OFF, UNPLUGGED, Blindness.DISPLAY_OFF),
        (DARK, UNPLUGGED, Blindness.DISPLAY_OFF),
        (OFF, ON, None),
        (PANEL, UNPLUGGED, None),
    ],
)
def test_all_monitors_together(
    tmp_path: Path, first: tuple[str, str, str], second: tuple[str, str, str], expected: Blindness | None
) -> None:
    assert blindness(drm(tmp_path, HDMI_A_1=first, HDMI_A_2=second)) is expected


def test_only_the_one_that_is_looked_at_counts(tmp_path: Path) -> None:
    folder = drm(tmp_path, HDMI_A_1=OFF, HDMI_A_2=ON, DSI_1=UNPLUGGED)
    assert blindness(folder, "HDMI-A-2") is None
    assert blindness(folder, "HDMI-A-1") is Blindness.DISPLAY_OFF
    assert blindness(folder, "DSI-1") is Blindness.NO_OUTPUT


def test_what_the_kernel_does_not_name_may_be_on(tmp_path: Path) -> None:
    assert blindness(tmp_path / "none") is None
    assert blindness(drm(tmp_path, HDMI_A_1=UNPLUGGED), "HEADLESS-1") is None
