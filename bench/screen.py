"""The labelled set of screens (tests/parts/scenes.py) as we, ffmpeg and hashes judge it; and what that costs.

A sequence is 18 frames, one a second: six looks of three frames each. All see the same frames, with the declared clocks
painted out. ffmpeg gets them as raw video; its alarms are those of blackdetect, and those of freezedetect where motion
is expected. A hash says "frozen" if all three frames of a look have the same one, and "black" if the mean grey is below
12; its looks go through our rules otherwise. Thresholds were chosen before, on other pictures.

INFOSCREEN_SEED is the first seed (default 2001), INFOSCREEN_SEEDS how many (default 5, or 1 with --quick).
"""

import os
import re
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import imagehash
from PIL import Image

from bench import screen_cost
from bench.table import US, Row, verdict
from infoscreen_device.core.picture import Burst, Motion, Witness
from infoscreen_device.core.screen import Confirmed, Memory, Policy, ScreenState, judge, observe
from infoscreen_device.core.tiles import grid
from infoscreen_device.screen.measure import Frame, measure
from infoscreen_shared.messages import ScreenHealthStatus
from parts.scenes import CASES, SIZES, Scene, scene

LOOKS, FRAMES = 6, 3
EVERY_S = 3.0
"""Looks one after the other, as ffmpeg sees the screen."""
PAUSE_S, DOUBT_S, JITTER = 10.0, 4.0, 0.1
"""As by default (default.toml, screen_watch.py): seconds from one look to the next, after a look that found a fault,
and by which share they vary."""
LONGER = 8
"""Looks by default: some 90 s."""
SUSPECT = "suspect"
POLICY = Policy()
MIX = (0, 1, 0, 2, 1, 0, 3)
"""Which sizes, by turns: two of seven are 4K."""
OURS, ASKED, DEFAULT, DEFAULT_ASKED = "ours", "ours + player", "ours, every 10 s", "ours + player, every 10 s"
BARE = "ours, as captured: no pointer"
FFMPEG, DEFAULTS, DHASH, PHASH = "ffmpeg d=6", "ffmpeg d=2", "dhash", "phash"
METHODS = (OURS, BARE, ASKED, FFMPEG, DEFAULTS, DHASH, PHASH)


@dataclass(frozen=True, slots=True)
class Result:
    case: str
    right: ScreenHealthStatus
    said: dict[str, str]
    """By method: OK, BLACK, FROZEN or suspect, after all looks."""
    single: dict[str, tuple[str, ...]]
    """The same for each look alone."""


def run(folder: Path, quick: bool) -> list[Row]:
    first = int(os.environ.get("INFOSCREEN_SEED", "2001"))
    seeds = range(first, first + int(os.environ.get("INFOSCREEN_SEEDS", "1" if quick else "5")))
    jobs = [
        (case, seed, SIZES[MIX[(3 * number + seed) % len(MIX)]]) for seed in seeds for number, case in enumerate(CASES)
    ]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        # The large ones first, so that none is left for the end.
        order = sorted(jobs, key=lambda job: -job[2][0] * job[2][1])
        results = list(pool.map(_sequence, *zip(*order, strict=True)))
    print(f"Seeds {seeds[0]} to {seeds[-1]}: {len(results)} sequences\n\n{_confusion(results)}\n", flush=True)
    return _rows(results) + screen_cost.rows(folder)


# --- one sequence -----------------------------------------------------------------------------------------------------


def _sequence(case: str, seed: int, size: tuple[int, int]) -> Result:
    made = scene(case, seed, size)
    frames = [_painted(made, float(second)) for second in range(LOOKS * FRAMES)]
    said, single = {}, {}
    bursts = [_burst(made, frames[FRAMES * look :][:FRAMES]) for look in range(LOOKS)]
    said[OURS], single[OURS] = _judged(made, bursts)
    said[BARE] = said[OURS]
    if made.captured is not made.film:
        bare = replace(made, film=made.captured)
        shots = [_painted(bare, float(second)) for second in range(LOOKS * FRAMES)]
        said[BARE], _ = _judged(bare, [_burst(bare, shots[FRAMES * look :][:FRAMES]) for look in range(LOOKS)])
    said[ASKED], single[ASKED] = _judged(made, bursts, made.witness)
    if made.expected.motion in (Motion.VIDEO, Motion.TICKER) and max(size) <= SIZES[0][0]:  # 4K takes too long
        said[DEFAULT] = _by_default(made, seed, None)
        said[DEFAULT_ASKED] = _by_default(made, seed, made.witness)
    for name, hashed in ((DHASH, imagehash.dhash), (PHASH, imagehash.phash)):
        known = [_hashed(made, hashed, frames[FRAMES * look :][:FRAMES]) for look in range(LOOKS)]
        said[name], single[name] = _judged(made, known)
    for name, seconds in ((FFMPEG, 6), (DEFAULTS, 2)):
        said[name] = _ffmpeg(made, frames, seconds)
    return Result(case, made.right, said, single)


def _painted(made: Scene, t: float) -> Image.Image:
    image = made.film(t)
    boxes = [grid(*image.size).box(region) for region in made.ignore]
    if boxes:
        image = image.copy()
    for box in boxes:
        image.paste((0, 0, 0), box)
    return image


def _burst(made: Scene, frames: Sequence[Image.Image]) -> Burst:
    measures = measure([Frame(image, float(at)) for at, image in enumerate(frames)], made.ignore)
    return Burst(**asdict(measures))


def _hashed(made: Scene, hashed: Callable[[Image.Image], imagehash.ImageHash], frames: Sequence[Image.Image]) -> Burst:
    hashes = [str(hashed(image)) for image in frames]
    greys = [sum(level * count for level, count in enumerate(image.convert("L").histogram())) for image in frames]
    means = tuple(grey // (made.size[0] * made.size[1]) for grey in greys)
    moved = 0 if len(set(hashes)) == 1 else 1000
    content = tuple(0 if mean < 12 else 1000 for mean in means)
    changed = (moved,) * (len(frames) - 1)
    return Burst(*made.size, 1000, FRAMES - 1.0, content, means, changed, moved, hashes[-1])


class _Watch:
    """Our rules, look after look."""

    def __init__(self, made: Scene, witness: Witness | None) -> None:
        self._made, self._witness = made, witness
        self._memory, self.state = Memory(), ScreenState()
        self._confirmed: ScreenHealthStatus | None = None
        self.alone: list[str] = []

    def see(self, burst: Burst, now: float) -> None:
        look = replace(burst, witness=self._witness)
        said, self._memory = judge(look, self._made.expected, self._memory, now, POLICY)
        self.state, changes = observe(self.state, said, now, POLICY)
        for change in changes:
            self._confirmed = change.verdict.status if isinstance(change, Confirmed) else self._confirmed
        self.alone.append(SUSPECT if said.status is ScreenHealthStatus.UNKNOWN else said.status.value)

    @property
    def said(self) -> str:
        """A fault if one was ever confirmed; OK if that is what most looks said."""
        fine = self.alone.count(ScreenHealthStatus.OK) >= len(self.alone) / 2
        return self._confirmed or (ScreenHealthStatus.OK.value if fine else SUSPECT)


def _judged(made: Scene, bursts: Sequence[Burst], witness: Witness | None = None) -> tuple[str, tuple[str, ...]]:
    watch = _Watch(made, witness)
    for look, burst in enumerate(bursts):
        watch.see(burst, EVERY_S * look + FRAMES - 1)
    return watch.said, tuple(watch.alone)


def _by_default(made: Scene, seed: int, witness: Witness | None) -> str:
    watch, chance, t = _Watch(made, witness), Random(f"{seed} {made.case}"), 0.0
    for _ in range(LONGER):
        watch.see(_burst(made, [_painted(made, t + second) for second in range(FRAMES)]), t + FRAMES - 1)
        wait = DOUBT_S if 0 < watch.state.bad < POLICY.bad_checks else PAUSE_S
        t += FRAMES - 1 + wait * (1 + JITTER * (2 * chance.random() - 1))
    return watch.said


def _ffmpeg(made: Scene, frames: Sequence[Image.Image], seconds: int) -> str:
    filters = f"blackdetect=d={seconds},freezedetect=n=-60dB:d={seconds}"
    size = "x".join(map(str, made.size))
    command = ["ffmpeg", "-nostats", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-framerate", "1", "-i", "-"]
    told = subprocess.Popen(
        [*command, "-vf", filters, "-f", "null", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert told.stdin is not None
    assert told.stderr is not None
    with told, told.stdin as raw:
        for image in frames:
            raw.write(image.tobytes())
        raw.close()
        said = told.stderr.read().decode()
    if told.returncode:
        raise RuntimeError(said)
    if re.search(r"black_start", said):
        return ScreenHealthStatus.BLACK.value
    moves = made.expected.motion in (Motion.VIDEO, Motion.TICKER, Motion.WITHIN)
    return (ScreenHealthStatus.FROZEN if moves and "freeze_start" in said else ScreenHealthStatus.OK).value


# --- the tables -------------------------------------------------------------------------------------------------------


def _confusion(results: Sequence[Result]) -> str:
    lines = ["| screen (sequences) | right | ours, single looks | " + " | ".join(METHODS) + " |"]
    lines.append("|---" * (3 + len(METHODS)) + "|")
    for case in CASES:
        found = [result for result in results if result.case == case]
        cells = [_cell(Counter(result.said[method] for result in found)) for method in METHODS]
        single = _cell(Counter(said for result in found for said in result.single[OURS]))
        lines.append(f"| {case} ({len(found)}) | {found[0].right} | {single} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(counts: Counter[str]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{what} {100 * count / counts.total():.0f} %" for what, count in counts.most_common())


def _rows(results: Sequence[Result]) -> list[Row]:
    rows = [_row(results, method) for method in (*METHODS, DEFAULT, DEFAULT_ASKED)]
    looks = [(result, said) for result in results for said in result.single[OURS]]
    alarms = sum(said in ("BLACK", "FROZEN") for result, said in looks if result.right == "OK")
    healthy = sum(result.right == "OK" for result, _ in looks)
    rows.append(Row("single looks, before three have to agree", US, f"{alarms} false alarms of {healthy}"))
    return rows


def _row(results: Sequence[Result], method: str) -> Row:
    judged = [(result.right.value, result.said[method]) for result in results if method in result.said]
    healthy = [said for right, said in judged if right == "OK"]
    faulty = [(right, said) for right, said in judged if right != "OK"]
    alarms = sum(said in ("BLACK", "FROZEN") for said in healthy)
    misses = sum(said == "OK" for _, said in faulty)
    doubts = sum(said == SUSPECT for _, said in judged)
    correct = statistics.mean(right == said for right, said in judged)
    figure = (
        f"{alarms} false alarms of {len(healthy)}, {misses} misses of {len(faulty)}, {doubts / len(judged):.1%} suspect"
    )
    aims = {OURS: 0.1, BARE: 0.1, DEFAULT: 0.1, ASKED: 0.0, DEFAULT_ASKED: 0.0}
    met = method in aims and alarms == misses == 0 and doubts <= aims[method] * len(judged)
    aim = verdict(f"0, 0, {aims[method]:.0%}", met=met) if method in aims else ""
    return Row(f"{len(judged)} screens", method, f"{figure}, {correct:.1%} right", "", aim)
