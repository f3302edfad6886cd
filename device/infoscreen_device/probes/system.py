"""Facts about the kiosk itself for health reports and as evidence: cheap reads, and a fact that is missing is None."""

import os
import socket
from pathlib import Path
from typing import Any

import psutil

SYSFS = Path("/sys")


def cpu_temperature(sysfs: Path = SYSFS) -> float | None:
    """Degrees Celsius, from the thermal zone of the processor or else the hottest sensor of hwmon."""
    zones = []
    for zone in sorted(sysfs.glob("class/thermal/thermal_zone*")):
        degrees = _millidegrees(zone / "temp")
        if degrees is None:
            continue
        kind = _text(zone / "type") or ""
        # cpu-thermal on a Raspberry Pi, x86_pkg_temp on PCs; acpitz and wifi zones are not the processor.
        if "cpu" in kind or "soc" in kind or kind == "x86_pkg_temp":
            return degrees
        zones.append(degrees)
    sensors = [_millidegrees(path) for path in sysfs.glob("class/hwmon/hwmon*/temp*_input")]
    known = [degrees for degrees in sensors if degrees is not None] or zones
    return max(known, default=None)


def evidence(sysfs: Path = SYSFS) -> dict[str, object]:
    """What may explain a death: memory and temperature at that time."""
    memory = _memory()
    return {"memory_available": memory.get("memory_available"), "cpu_temperature": cpu_temperature(sysfs)}


def system_facts(state_dir: Path, boot_id: str, uptime_s: float, sysfs: Path = SYSFS) -> dict[str, Any]:
    """The `system` object of a health report. Bytes, seconds and degrees Celsius; load as in /proc/loadavg."""
    return {
        "hostname": socket.gethostname(),
        "boot_id": boot_id,
        "uptime_s": round(uptime_s),
        "cpu_temperature": cpu_temperature(sysfs),
        "load": _load(),
        "disk_free": _disk_free(state_dir),
        **_memory(),
    }


def _load() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def _memory() -> dict[str, int | None]:
    try:
        memory = psutil.virtual_memory()
    except (OSError, RuntimeError, ValueError, KeyError, psutil.Error):
        return {"memory_total": None, "memory_available": None}
    return {"memory_total": memory.total, "memory_available": memory.available}


def _disk_free(path: Path) -> int | None:
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize


def _millidegrees(path: Path) -> float | None:
    text = _text(path)
    try:
        degrees = int(text or "") / 1000
    except ValueError:
        return None
    # Sensors that are not wired up answer with -273 or absurdly much.
    return round(degrees, 1) if -60 < degrees < 200 else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None
