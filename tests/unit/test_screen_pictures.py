"""Pictures into numbers, exactly; the labelled set in small; and pictures that are damaged, or made for people.

INFOSCREEN_SEED gives other screens; `./run bench screen` judges more of them, in full size.
"""

import io
import math
import os
import subprocess
import sys
import zlib
from dataclasses import asdict
from random import Random

import imagehash
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from infoscreen_device.core.likeness import distance
from infoscreen_device.core.picture import Burst, Witness
from infoscreen_device.core.screen import Confirmed, Memory, Policy, ScreenState, judge, observe
from infoscreen_device.core.tiles import ALONG, STEP, grid, learn_regions
from infoscreen_device.screen import measure as measuring
from infoscreen_device.screen.measure import (
    Frame,
    Measures,
    explain,
    matches,
    measure,
    open_picture,
    perceptual_hash,
    thumbnail,
    upright,
)
from infoscreen_shared.messages import ScreenHealthStatus
from parts import brushes
from parts.scenes import CASES, Scene, scene

SEED = int(os.environ.get("INFOSCREEN_SEED", "7"))
ODD = [(1366, 768), (768, 1366), (1920, 1080), (640, 480), (1440, 900), (257, 131), (331, 97), (64, 36), (3, 3)]


def burst_of(*images: Image.Image, ignore: tuple[tuple[float, float, float, float], ...] = ()) -> Measures:
    return measure([Frame(image, float(at)) for at, image in enumerate(images)], ignore, tiles=True)


# --- exact ------------------------------------------------------------------------------------------------------------


def by_numpy(levels: numpy.ndarray, side: int) -> numpy.ndarray:
    """For each tile whether any of its pixels is set."""
    rows, columns = (-(-length // side) for length in levels.shape)
    whole = numpy.zeros((rows * side, columns * side), bool)
    whole[: levels.shape[0], : levels.shape[1]] = levels
    return numpy.asarray(whole.reshape(rows, side, columns, side).any(axis=(1, 3)))


def inner(tiles: numpy.ndarray) -> numpy.ndarray:
    kept = numpy.zeros_like(tiles)
    kept[1:-1, 1:-1] = tiles[1:-1, 1:-1]
    return kept


@given(st.integers(0, 2**32), st.integers(40, 420), st.integers(40, 420), st.floats(0, 0.01))
@settings(max_examples=60, deadline=None)
def test_tiles_are_those_of_a_slow_and_plain_count(seed: int, width: int, height: int, share: float) -> None:
    chance = numpy.random.default_rng(seed)
    before = chance.integers(0, 256, (height, width), dtype=numpy.uint8)
    after = before.astype(int) + (chance.random((height, width)) < share) * chance.integers(-6, 7, (height, width))
    after = after.clip(0, 255).astype(numpy.uint8)
    found = burst_of(Image.fromarray(before), Image.fromarray(after))
    side = grid(width, height).side
    changed = inner(by_numpy(abs(after.astype(int) - before) > 2, side))
    assert found.changed == (changed.sum(),)
    assert found.tiles_moved == tuple(numpy.flatnonzero(changed))


@pytest.mark.parametrize("size", ODD)
def test_one_pixel_anywhere_is_motion(size: tuple[int, int]) -> None:
    shape, chance = grid(*size), Random(SEED)
    empty = Image.new("L", size, 100)
    for number in chance.sample(list(shape.inner()), min(20, len(list(shape.inner())))):
        left, top, right, bottom = shape.tile(number)
        other = empty.copy()
        other.putpixel((chance.randrange(left, right), chance.randrange(top, bottom)), 103)
        assert burst_of(empty, other).tiles_moved == (number,)


@given(st.integers(1, 8192), st.integers(1, 8192))
def test_about_as_many_tiles_for_any_size(width: int, height: int) -> None:
    shape, longest = grid(width, height), max(width, height)
    assert max(shape.steps) <= STEP
    if longest >= 640:
        assert abs(longest / shape.side - ALONG) < 6
    assert (shape.columns - 1) * shape.side < width <= shape.columns * shape.side
    assert len(list(shape.inner())) == max(0, shape.columns - 2) * max(0, shape.rows - 2)


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (3840, 2160)])
def test_the_thresholds_were_measured_with_these_tiles(size: tuple[int, int]) -> None:
    assert sorted((grid(*size).columns, grid(*size).rows)) == [36, 64]


def test_content_is_edges_or_another_grey() -> None:
    empty = Image.new("RGB", (640, 360), (9, 9, 9))
    assert burst_of(empty).content == (0,)
    noisy = Image.effect_noise((640, 360), 0.7)
    assert burst_of(noisy).content == (0,)
    line = empty.copy()
    ImageDraw.Draw(line).line((102, 205, 137, 205), fill=(30, 30, 30))
    assert burst_of(line).content == (4,)
    patch = empty.copy()
    patch.paste((30, 30, 30), (100, 100, 120, 120))
    assert burst_of(patch).content[0] >= 4
    ramp = Image.linear_gradient("L").resize((640, 360))
    assert burst_of(ramp).content[0] > 1500


def test_no_noise_is_motion_and_all_of_it_is_in_the_digest() -> None:
    grey, lighter = Image.new("L", (640, 360), 100), Image.new("L", (640, 360), 102)
    found = burst_of(grey, lighter, grey)
    assert (found.changed, found.moved) == ((0, 0), 0)
    assert burst_of(grey).digest != burst_of(lighter).digest
    assert burst_of(lighter, grey).digest == burst_of(grey).digest


# --- ignored regions --------------------------------------------------------------------------------------------------


def test_what_is_ignored_is_not_seen() -> None:
    region = (0.6, 0.7, 0.2, 0.1)
    with_clock = [Image.new("RGB", (1280, 720), (5, 5, 5)) for _ in range(3)]
    for number, image in enumerate(with_clock):
        image.paste((255, 255, 255), (770 + 20 * number, 506, 1020, 570))
    open_eyed, found = burst_of(*with_clock), burst_of(*with_clock, ignore=(region,))
    assert open_eyed.moved > 0 and max(open_eyed.content) > 0
    assert (found.moved, max(found.content), found.tiles) == (0, 0, open_eyed.tiles - len(hidden(1280, 720, region)))
    assert len({burst_of(image, ignore=(region,)).digest for image in with_clock}) == 1


def hidden(width: int, height: int, region: tuple[float, float, float, float]) -> list[int]:
    shape = grid(width, height)
    left, top, right, bottom = shape.box(region)
    boxes = {number: shape.tile(number) for number in shape.inner()}
    return [n for n, box in boxes.items() if box[0] >= left and box[1] >= top and box[2] <= right and box[3] <= bottom]


@pytest.mark.parametrize(
    "region", [(0.0, 0.0, 1.0, 1.0), (0.9, 0.9, 0.5, 0.5), (0.5, 0.5, 0.0, 0.0), (1.2, 0.0, 0.1, 0.1)]
)
def test_any_region_will_do(region: tuple[float, float, float, float]) -> None:
    film = brushes.camera(Random(SEED), (640, 360))
    found = burst_of(film(0), film(1), ignore=(region,))
    assert found.tiles == burst_of(film(0)).tiles - len(hidden(640, 360, region))
    assert (found.moved == 0) == (found.tiles == 0)
    assert open_picture(explain([Frame(film(0), 0.0), Frame(film(1), 1.0)], (region,))).width == 640


def test_a_clock_is_learned_from_a_good_hour() -> None:
    made = scene("slide with second hand", SEED, (1280, 720))
    history = [burst_of(*(made.film(7.0 * look + second) for second in range(3))).tiles_moved for look in range(40)]
    (region,) = learn_regions(history, 1280, 720)
    assert region[2] * region[3] < 0.08
    later = [made.film(500.0 + second) for second in range(3)]
    assert burst_of(*later).moved > 0
    assert burst_of(*later, ignore=(region,)).moved == 0


def test_no_clock_is_learned_from_a_film_or_from_one_look() -> None:
    film = brushes.camera(Random(SEED), (640, 360))
    look = burst_of(film(0), film(1)).tiles_moved
    assert learn_regions([look] * 9, 640, 360) == ()
    assert learn_regions([(500, 501)], 640, 360) == ()
    assert learn_regions([], 640, 360) == ()
    assert len(learn_regions([(500, 501, 1000)] * 3, 640, 360)) == 2


# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_mapped_buffer_is_read_where_it_lies() -> None:
    picture = brushes.texture(Random(SEED), (640, 360))
    buffer = picture.tobytes("raw", "BGRX")
    mapped = Frame(Image.frombuffer("RGBX", picture.size, buffer, "raw", "RGBX", 0, 1), 0.0, swapped=True)
    assert upright(mapped).tobytes() == picture.tobytes()
    red = Image.new("RGB", (640, 360), (200, 30, 20))
    mapped = Frame(Image.frombuffer("RGBX", red.size, red.tobytes("raw", "BGRX"), "raw", "RGBX", 0, 1), 0.0, True)
    assert measure([mapped]).colour == measure([Frame(red, 0.0)]).colour == (200, 30, 20)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBX", "RGBA", "P", "1", "I;16"])
def test_any_mode_is_measured(mode: str) -> None:
    assert measure([Frame(Image.new(mode, (320, 180)), 0.0)]).content == (0,)


def test_frames_that_are_no_burst() -> None:
    with pytest.raises(ValueError, match="no frame"):
        measure([])
    with pytest.raises(ValueError, match="size"):
        burst_of(Image.new("L", (640, 360)), Image.new("L", (360, 640)))
    with pytest.raises(ValueError, match="too small"):
        burst_of(Image.new("L", (2, 2)))


def test_the_helper_imports_neither_numpy_nor_imagehash() -> None:
    code = "import sys, infoscreen_device.screen.measure; print({'numpy', 'imagehash', 'scipy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


# --- the labelled set -------------------------------------------------------------------------------------------------


def judged(made: Scene, witness: Witness | None) -> str:
    """What six looks, one after the other, are taken for."""
    memory, state, alone = Memory(), ScreenState(), []
    for look in range(6):
        frames = [Frame(made.film(3.0 * look + second), float(second)) for second in range(3)]
        burst = Burst(**asdict(measure(frames, made.ignore)), witness=witness)
        verdict, memory = judge(burst, made.expected, memory, 3.0 * look + 2, Policy())
        state, changes = observe(state, verdict, 3.0 * look + 2, Policy())
        for change in changes:
            if isinstance(change, Confirmed):
                return change.verdict.status
        alone.append(verdict.status)
    doubtful = alone.count(ScreenHealthStatus.UNKNOWN) > 3
    return "suspect" if doubtful else ScreenHealthStatus.OK


@pytest.mark.parametrize("size", [(640, 360), (360, 640)])
@pytest.mark.parametrize("case", CASES)
def test_no_false_alarm_and_no_miss(case: str, size: tuple[int, int]) -> None:
    made = scene(case, SEED, size)
    print(f"INFOSCREEN_SEED={SEED}")
    assert judged(made, None) in (made.right, "suspect")
    if made.witness is not None:
        assert judged(made, made.witness) == made.right


@pytest.mark.parametrize("case", CASES)
def test_what_is_decided_no_further_frame_changes(case: str) -> None:
    """A look ends with the frame that decides: the verdict is that of all frames."""
    made = scene(case, SEED, (640, 360))
    for start in range(0, 30, 3):
        meter, seen = measuring.Meter(made.ignore), None
        for at in range(start, start + 3):
            meter.add(Frame(made.film(float(at)), float(at)))
            seen = seen or (meter.result() if meter.decided else None)
        for witness in (made.witness, None):
            early, late = (
                judge(Burst(**asdict(each), witness=witness), made.expected, Memory(), 0.0, Policy())[0].status
                for each in (seen or meter.result(), meter.result())
            )
            assert early == late, f"INFOSCREEN_SEED={SEED}, {start} s"


def test_the_set_is_drawn_anew_for_every_seed_and_the_same_for_one() -> None:
    for case in CASES:
        digests = [burst_of(scene(case, seed, (640, 360)).film(1.0)).digest for seed in (1, 1, 2, 3, 4)]
        assert digests[0] == digests[1] and len(set(digests)) > 1, case


# --- pictures from elsewhere ------------------------------------------------------------------------------------------


def encoded(image: Image.Image, form: str) -> bytes:
    into = io.BytesIO()
    image.save(into, form)
    return into.getvalue()


WHOLE = {form: encoded(brushes.texture(Random(1), (160, 90)), form) for form in ("PNG", "JPEG", "PPM", "BMP")}


@pytest.mark.parametrize("form", WHOLE)
def test_whole_pictures_open(form: str) -> None:
    assert (open_picture(WHOLE[form]).size, open_picture(WHOLE[form]).mode) == ((160, 90), "RGB")
    assert open_picture(encoded(Image.new("L", (9, 9)), form)).mode == "L"


@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 0.98))
@settings(deadline=None)
def test_truncated_pictures_do_not(form: str, share: float) -> None:
    with pytest.raises(ValueError, match="no picture"):
        open_picture(WHOLE[form][: int(len(WHOLE[form]) * share)])


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=20))
@settings(max_examples=300, deadline=None)
def test_damaged_pictures_open_or_are_refused(form: str, damage: list[tuple[float, int]]) -> None:
    data = bytearray(WHOLE[form])
    for place, value in damage:
        data[int(place * len(data))] = value
    try:
        assert open_picture(bytes(data)).mode in {"RGB", "L"}
    except ValueError as error:
        assert "no picture" in str(error)


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no picture"):
        open_picture(data)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (8193, 10), (10, 8193), (8000, 8000), (2**31 - 1, 1), (0, 5)])
def test_huge_pictures_are_refused_before_they_take_memory(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no picture"):
        open_picture(png_header(*size))
    with pytest.raises(ValueError, match="no picture"):
        open_picture(b"P6 %d %d 255\n" % size)


# --- pictures for people ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (3840, 2160), (200, 100), (8000, 20), (1, 1)])
@pytest.mark.parametrize("blur", [False, True])
def test_a_thumbnail_is_small(size: tuple[int, int], blur: bool) -> None:
    noise = Image.effect_noise(size, 200).convert("RGB")
    data = thumbnail(noise, blur)
    assert len(data) <= 20_000
    assert max(open_picture(data).size) <= 320


def test_nothing_can_be_read_in_a_blurred_thumbnail() -> None:
    page = Image.new("RGB", (1920, 1080), (255, 255, 255))
    for line in range(12):
        brushes.write(ImageDraw.Draw(page), (60, 80 * line + 20), brushes.words(Random(line), 8), 60, (0, 0, 0))
    sharp, blurred = (edges(open_picture(thumbnail(page, blur))) for blur in (False, True))
    assert sharp > 60 and blurred < 12


def edges(image: Image.Image) -> int:
    levels = numpy.asarray(image.convert("L"), dtype=int)
    return int(numpy.percentile(abs(numpy.diff(levels, axis=1)), 97))


def test_what_the_rules_saw_is_drawn() -> None:
    made = scene("talking head", SEED, (1920, 1080))
    frames = [Frame(made.film(float(second)), float(second)) for second in range(3)]
    drawn = open_picture(explain(frames, ((0.05, 0.05, 0.2, 0.1),)))
    assert drawn.width == 1920 and drawn.height > 1080
    pixels = numpy.asarray(drawn.crop((0, 0, 1920, 1080)), dtype=int)
    moved = (abs(pixels - (255, 70, 40)).sum(axis=2) == 0).sum()
    assert moved >= 100 * measure(frames).moved
    ignored = (abs(pixels[54:162, 96:480] - (70, 130, 255)).sum(axis=2) == 0).mean()
    assert ignored > 0.05
    small = explain([Frame(Image.new("L", (3840, 2160)), 0.0)])
    assert open_picture(small).width == 1920


# --- hashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(12))
def test_hashes_are_those_of_imagehash(number: int) -> None:
    case = list(CASES)[number * 2]
    picture = scene(case, SEED, (960, 540)).film(1.0)
    assert perceptual_hash(picture) == f"{imagehash.dhash(picture)}{imagehash.phash(picture)}"


def test_hashes_need_no_scipy_and_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = brushes.texture(Random(SEED), (320, 180))
    hashed = perceptual_hash(picture)
    for name in ("scipy", "scipy.fftpack", "pywt"):
        monkeypatch.setitem(sys.modules, name, None)
    assert perceptual_hash(picture) == hashed
    monkeypatch.setitem(sys.modules, "imagehash", None)
    assert perceptual_hash(picture) is None


def test_a_picture_is_like_itself_in_another_size_and_like_no_other() -> None:
    pictures = [brushes.texture(Random(number), (960, 540)) for number in range(6)]
    hashes = [perceptual_hash(picture) or "" for picture in pictures]
    smaller = perceptual_hash(pictures[0].resize((480, 270)))
    references = {"console": f"{hashes[3]} {hashes[0]}", "desktop": hashes[1]}
    assert matches(smaller, references) == "console"
    assert matches(hashes[1], references) == "desktop"
    assert matches(hashes[5], references) is None
    assert matches(None, references) is None
    assert matches(hashes[0], {"broken": "12"}) is None
    assert distance(hashes[0], hashes[0]) == 0


def test_all_names_are_there() -> None:
    assert all(hasattr(measuring, name) for name in measuring.__all__)
    assert math.isclose(
        measure([Frame(Image.new("L", (64, 36)), 1.0), Frame(Image.new("L", (64, 36)), 3.5)]).span_s, 2.5
    )
