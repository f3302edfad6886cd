"""Things that generated screens are made of: textures, films, slides, text, clocks, pointers.

All chance comes from the given `Random`; a film is a function from the time in seconds to a picture.
"""

import math
from collections.abc import Callable
from random import Random

import numpy
from PIL import Image, ImageDraw, ImageFont

Size = tuple[int, int]
Colour = tuple[int, int, int]
Film = Callable[[float], Image.Image]
WORDS = (
    *("Welcome", "Opening", "hours", "Monday", "Friday", "closed", "library", "exhibition", "ground", "floor", "lift"),
    *("Please", "keep", "departures", "platform", "canteen", "today", "soup", "salad", "price", "city", "council"),
    *("notice", "new", "members", "meeting", "room", "lecture", "weather", "sunny", "wind", "north"),
)


def scale(size: Size) -> float:
    """Of lengths given for 1920 pixels along the longer side."""
    return max(size) / 1920


def words(rng: Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, height: float, colour: Colour) -> None:
    draw.text(at, text, fill=colour, font=ImageFont.load_default(max(6, height)))


def texture(rng: Random, size: Size, low: int = 10, high: int = 245) -> Image.Image:
    """Clouds of several sizes with grain and hard edges, as a photograph has all of them."""
    source = numpy.random.default_rng(rng.getrandbits(64))
    half = (max(2, size[0] // 2), max(2, size[1] // 2))
    total = numpy.zeros((half[1], half[0], 3), numpy.float32)
    for cells, weight in ((4, 1.0), (12, 0.6), (48, 0.3), (160, 0.15)):
        across = max(2, cells * half[0] // max(half))
        down = max(2, cells * half[1] // max(half))
        patch = Image.fromarray(source.integers(0, 256, (down, across, 3), dtype=numpy.uint8))
        total += weight * numpy.asarray(patch.resize(half, Image.Resampling.BICUBIC), dtype=numpy.float32)
    total += source.normal(0, 3, total.shape).astype(numpy.float32)
    total -= total.min()
    total *= (high - low) / max(1.0, float(total.max()))
    image = Image.fromarray((total + low).astype(numpy.uint8)).resize(size, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(4, 12)):
        _shape(rng, draw, size, low, high)
    return image


def _shape(rng: Random, draw: ImageDraw.ImageDraw, size: Size, low: int, high: int) -> None:
    left, top = rng.uniform(0, size[0]), rng.uniform(0, size[1])
    box = (left, top, left + rng.uniform(0.02, 0.3) * size[0], top + rng.uniform(0.02, 0.3) * size[1])
    level = rng.randint(low, high)
    colour = (level, max(low, level - rng.randint(0, 60)), max(low, level - rng.randint(0, 60)))
    (draw.rectangle if rng.random() < 0.5 else draw.ellipse)(box, fill=colour)


def camera(rng: Random, size: Size, low: int = 10, high: int = 245) -> Film:
    """A hand-held view that wanders over a scene."""
    room = (size[0] * 5 // 4, size[1] * 5 // 4)
    scene = texture(rng, room, low, high)
    phases = [rng.uniform(0, 6.28) for _ in range(2)]
    rates = [rng.uniform(0.15, 0.5) for _ in range(2)]

    def at(t: float) -> Image.Image:
        places = [
            int((room[axis] - size[axis]) * (0.5 + 0.5 * math.sin(phases[axis] + rates[axis] * t))) for axis in (0, 1)
        ]
        return scene.crop((places[0], places[1], places[0] + size[0], places[1] + size[1]))

    return at


def moved(rng: Random, size: Size, pixels_per_s: float, zoom_per_s: float) -> Film:
    """A photograph that is panned over or zoomed into slowly, by parts of pixels."""
    room = (size[0] * 9 // 8, size[1] * 9 // 8)
    scene = texture(rng, room)
    angle = rng.uniform(0, 6.28)

    def at(t: float) -> Image.Image:
        ratio = 1 / (1 + zoom_per_s * t)
        shift = pixels_per_s * t % (room[0] / 9)
        left = size[0] / 16 + size[0] * (1 - ratio) / 2 + shift * math.cos(angle) / 2
        top = size[1] / 16 + size[1] * (1 - ratio) / 2 + shift * math.sin(angle) / 2
        matrix = (ratio, 0, left, 0, ratio, top)
        return scene.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)

    return at


def slide(rng: Random, size: Size, *, dark: bool = False, picture: bool = True) -> Image.Image:
    """A title, some lines, perhaps a picture."""
    back, ink = _inks(rng, dark=dark)
    image = Image.new("RGB", size, back)
    draw = ImageDraw.Draw(image)
    unit = scale(size)
    margin = rng.uniform(0.05, 0.12) * size[0]
    write(draw, (margin, 0.08 * size[1]), words(rng, rng.randint(2, 4)), rng.uniform(50, 90) * unit, ink)
    for line in range(rng.randint(2, 7)):
        height = rng.uniform(22, 40) * unit
        write(draw, (margin, size[1] * (0.25 + 0.08 * line)), words(rng, rng.randint(3, 8)), height, ink)
    if picture and rng.random() < 0.6:
        side = (max(8, int(size[0] * rng.uniform(0.2, 0.35))), max(8, int(size[1] * rng.uniform(0.2, 0.35))))
        levels = (4, 60) if dark else (10, 245)
        image.paste(texture(rng, side, *levels), (int(size[0] * 0.6), int(size[1] * 0.45)))
    return image


def _inks(rng: Random, *, dark: bool) -> tuple[Colour, Colour]:
    if dark:
        level, ink = rng.randint(0, 20), rng.randint(60, 150)
        return (level, level, min(255, level + rng.randint(0, 10))), (ink, ink, ink)
    level, ink = rng.randint(200, 255), rng.randint(0, 90)
    return (level, level, rng.randint(200, 255)), (ink, ink, ink)


def pointer(image: Image.Image, at: tuple[float, float], height: float) -> None:
    x, y = at
    outline = [(0, 0), (0, 1), (0.25, 0.8), (0.4, 1.1), (0.55, 1.0), (0.4, 0.72), (0.7, 0.7)]
    points = [(x + right * height, y + down * height) for right, down in outline]
    ImageDraw.Draw(image).polygon(points, fill=(255, 255, 255), outline=(0, 0, 0))


def spinner(image: Image.Image, at: tuple[float, float], radius: float, t: float, colour: Colour) -> None:
    box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
    start = 210.0 * t % 360
    ImageDraw.Draw(image).arc(box, start, start + 270, fill=colour, width=max(2, int(radius / 4)))


def clock_text(start: float, t: float, *, seconds: bool) -> str:
    now = int(start + t)
    text = f"{now // 3600 % 24:02d}:{now // 60 % 60:02d}"
    return f"{text}:{now % 60:02d}" if seconds else text


def dial(image: Image.Image, at: tuple[float, float], radius: float, t: float, colour: Colour) -> None:
    """With a second hand that ticks."""
    draw = ImageDraw.Draw(image)
    draw.ellipse((at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius), outline=colour, width=3)
    for turn, length in ((int(t) / 60, 0.9), (0.3, 0.75), (0.62, 0.5)):
        angle = 6.2832 * turn
        end = (at[0] + radius * length * math.sin(angle), at[1] - radius * length * math.cos(angle))
        draw.line((at, end), fill=colour, width=3)
