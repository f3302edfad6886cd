"""What one look of three frames costs, in CPU and memory, beside ffmpeg on the same frames.

The frames lie in files, mapped one after the other as the compositor's buffers are (blue, green, red, unused). The look
is done as in the helper: in a forked child of a process that has Pillow imported. Asking the compositor is not in it.
"""

import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path
from random import Random

from bench import ROOT
from bench.table import US, Row, verdict
from parts import brushes

TIMES = 25
SIZES = {"1080p": (1920, 1080), "4K": (3840, 2160)}
AIM_MS = {"1080p": 20, "4K": 100}
LOOKS_A_MINUTE = 6
"""By default, where a film is expected."""
LONG = 33
"""Frames of a longer run of ffmpeg: the difference to a short one is what it costs when it runs all the time."""

FOLDERS = [str(ROOT / "device"), str(ROOT / "shared"), sysconfig.get_path("platlib")]
START = f"import sys; sys.path += {FOLDERS!r}\n"
"""As its package starts it: without the hooks of a virtual environment."""
HELPER = """
import gc, json, mmap, os, sys
from infoscreen_device.screen.measure import Frame, Meter
from PIL import Image

def look(width, height, paths):
    meter = Meter()
    for at, path in enumerate(paths):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as buffer:
            image = Image.frombuffer("RGBX", (width, height), buffer, "raw", "RGBX", 0, 1)
            meter.add(Frame(image, at, swapped=True))
            del image
        # As a look does (screen/look.py).
        if meter.decided:
            break
    return meter.result()

def resident():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmRSS")]
    return int(line.split()[1])

width, height, times, paths = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
spent = []
for _ in range(times):
    child = os.fork()
    if not child:
        gc.disable()
        look(width, height, paths)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    assert not status
    spent.append((used.ru_utime + used.ru_stime, used.ru_maxrss))
print(json.dumps({"resident": resident(), "spent": spent}))
"""


def rows(folder: Path) -> list[Row]:
    found: list[Row] = []
    for name, size in SIZES.items():
        still, film = _files(folder, name, size)
        ours, memory, resident = _ours(size, film)
        resting, _, _ = _ours(size, still)
        ffmpeg, theirs = _ffmpeg(folder / f"{name}.raw", size, 3)
        longer, _ = _ffmpeg(folder / f"{name}.raw", size, LONG)
        minute = (longer - ffmpeg) / (LONG - 3) * 60
        aim = verdict(f"<= {AIM_MS[name]} ms", met=ours <= AIM_MS[name])
        look, watch = f"a look, {name}", f"a minute of watching a film, {name}"
        times, over = f"{ffmpeg / ours:.1f}x", f"{minute / ours / LOOKS_A_MINUTE:.1f}x"
        found += [
            Row(f"{look}, film", US, f"{ours:.1f} ms CPU, peak RSS {memory:.0f} MB", "", aim),
            Row(f"{look}, film", "ffmpeg", f"{ffmpeg:.1f} ms CPU, peak RSS {theirs:.0f} MB", times),
            Row(f"{look}, still picture", US, f"{resting:.1f} ms CPU"),
            Row(watch, f"{US}, a look every 10 s", f"{LOOKS_A_MINUTE * ours:.0f} ms CPU"),
            Row(watch, "ffmpeg, a frame a second", f"{minute:.0f} ms CPU", over),
        ]
        if name == "1080p":
            found.append(Row("helper between looks (Pillow imported)", US, f"RSS {resident:.1f} MB"))
    return found


def _files(folder: Path, name: str, size: tuple[int, int]) -> tuple[list[Path], list[Path]]:
    """A still burst and a moving one; and all frames of the longer run in one file for ffmpeg."""
    film = brushes.camera(Random(1), size)
    paths = [folder / f"{name}-{second}.bgrx" for second in range(3)]
    raw = [film(float(second)).convert("RGB").tobytes("raw", "BGRX") for second in range(3)]
    for path, data in zip(paths, raw, strict=True):
        path.write_bytes(data)
    with (folder / f"{name}.raw").open("wb") as file:
        for number in range(LONG):
            file.write(raw[number % 3])
    return [paths[0]] * 3, paths


def _ours(size: tuple[int, int], paths: list[Path]) -> tuple[float, float, float]:
    """Median CPU ms and highest peak RSS (MB) of a look, and the RSS of the process that does it in children."""
    command = [sys.executable, "-S", "-c", START + HELPER, *map(str, size), str(TIMES), *map(str, paths)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    cpu, peaks = zip(*found["spent"], strict=True)
    return 1000 * statistics.median(cpu), max(peaks) / 1000, found["resident"] / 1000


def _ffmpeg(raw: Path, size: tuple[int, int], frames: int) -> tuple[float, float]:
    """Median CPU ms and peak RSS (MB) of five runs."""
    command = ["ffmpeg", "-nostats", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr0"]
    command += ["-s", "x".join(map(str, size)), "-framerate", "1", "-i", str(raw), "-frames:v", str(frames)]
    command += ["-vf", "blackdetect=d=6,freezedetect=n=-60dB:d=6", "-f", "null", "-"]
    spent = []
    for _ in range(5):
        process = subprocess.Popen(command)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            raise RuntimeError(f"ffmpeg ended with {status}")
        spent.append((used.ru_utime + used.ru_stime, used.ru_maxrss))
    cpu, peaks = zip(*spent, strict=True)
    return 1000 * statistics.median(cpu), max(peaks) / 1000
