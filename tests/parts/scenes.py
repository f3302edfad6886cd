"""The labelled set: generated screens, each with what a watchdog has to say of it. A new seed gives new screens.

A scene is drawn for any time in seconds. What it ought to be taken for is part of it: by a person who sees the screen
for half a minute, not by what the detector makes of it.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy
from PIL import Image, ImageDraw, ImageFont

from infoscreen_device.core.picture import Expected, Motion, Region, Witness
from infoscreen_shared.messages import ScreenHealthStatus
from parts import brushes
from parts.brushes import Film, Size, scale

OK, BLACK, FROZEN = ScreenHealthStatus.OK, ScreenHealthStatus.BLACK, ScreenHealthStatus.FROZEN
VIDEO, NONE, TICKER, CLOCK = (Expected(motion) for motion in (Motion.VIDEO, Motion.NONE, Motion.TICKER, Motion.CLOCK))
SLIDES = Expected(Motion.WITHIN, within_s=2.0)
SIZES: tuple[Size, ...] = ((1920, 1080), (1080, 1920), (3840, 2160), (2160, 3840))
HORIZON_S = 400
"""So long something goes on happening in every scene."""


@dataclass(frozen=True, slots=True)
class Scene:
    case: str
    size: Size
    expected: Expected
    right: ScreenHealthStatus
    """A uniform screen of any colour is BLACK (DESIGN, section 3)."""
    film: Film
    ignore: tuple[Region, ...] = ()
    """Where a clock was declared."""
    plays: bool | None = None
    """Whether the player's position advances; None: nothing that plays."""

    @property
    def witness(self) -> Witness | None:
        return None if self.plays is None else Witness("mpv", advances=self.plays)

    @property
    def captured(self) -> Film:
        """As a capture that leaves the pointer out sees it: wlr-screencopy and X11 do unless they are asked for it."""
        return self.film.below if "pointer" in self.case and isinstance(self.film, _Over) else self.film


Made = tuple[Film, tuple[Region, ...]]
CASES: dict[str, tuple[Expected, ScreenHealthStatus, bool | None, Callable[[Random, Size], Film | Made]]] = {}


def scene(case: str, seed: int, size: Size) -> Scene:
    expected, right, plays, make = CASES[case]
    made = make(Random(f"{seed} {case} {size}"), size)
    film, ignore = made if isinstance(made, tuple) else (made, ())
    return Scene(case, size, expected, right, film, ignore, plays)


Maker = Callable[[Random, Size], Film | Made]


def _case(
    name: str, expected: Expected, right: ScreenHealthStatus, plays: bool | None = None
) -> Callable[[Maker], Maker]:
    def keep(make: Maker) -> Maker:
        CASES[name] = (expected, right, plays, make)
        return make

    return keep


def _always(image: Image.Image) -> Film:
    return lambda _t: image


@dataclass(frozen=True, slots=True)
class _Over:
    """Something drawn over a film."""

    below: Film
    put: Callable[[Image.Image, float], None]

    def __call__(self, t: float) -> Image.Image:
        image = self.below(t).copy()
        self.put(image, t)
        return image


def _grey(size: Size, level: int) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


# --- empty screens ----------------------------------------------------------------------------------------------------


@_case("black", VIDEO, BLACK, plays=False)
def _black(rng: Random, size: Size) -> Film:
    return _always(_grey(size, rng.randint(0, 16)))


@_case("near black with noise", VIDEO, BLACK, plays=False)
def _noise(rng: Random, size: Size) -> Film:
    base, width, seed = rng.randint(0, 10), rng.randint(1, 4), rng.getrandbits(32)

    def at(t: float) -> Image.Image:
        levels = numpy.random.default_rng([seed, int(t)]).integers(
            base, base + width + 1, size[::-1], dtype=numpy.uint8
        )
        return Image.fromarray(levels).convert("RGB")

    return at


@_case("black with pointer", VIDEO, BLACK, plays=False)
def _black_pointer(rng: Random, size: Size) -> Film:
    image = _grey(size, rng.randint(0, 16))
    place = (rng.uniform(0.05, 0.95) * size[0], rng.uniform(0.05, 0.95) * size[1])
    brushes.pointer(image, place, rng.uniform(14, 24) * scale(size))
    return _always(image)


def _with_clock(rng: Random, size: Size, below: Film) -> Made:
    """A clock in a corner that the configuration says to ignore; its box is a little larger than the digits."""
    height, start = rng.uniform(24, 60) * scale(size), rng.uniform(0, 86_400)
    font = ImageFont.load_default(height)
    box = (int(font.getlength("00:00:00") * 1.1) + 10, int(height * 1.5))
    left = rng.choice([0.04, 0.92]) * size[0]
    left = min(left, 0.97 * size[0] - box[0])
    top = rng.choice([0.05, 0.88]) * size[1]
    region = (left / size[0], top / size[1], box[0] / size[0], box[1] / size[1])
    seconds = rng.random() < 0.7

    def put(image: Image.Image, t: float) -> None:
        text = brushes.clock_text(start, t, seconds=seconds)
        brushes.write(ImageDraw.Draw(image), (left + 4, top), text, height, (235, 235, 235))

    return _Over(below, put), (region,)


@_case("black with clock over it", VIDEO, BLACK, plays=False)
def _black_clock(rng: Random, size: Size) -> Made:
    return _with_clock(rng, size, _always(_grey(size, rng.randint(0, 16))))


@_case("white", NONE, BLACK)
def _white(rng: Random, size: Size) -> Film:
    return _always(_grey(size, rng.randint(240, 255)))


@_case("one colour", NONE, BLACK)
def _one_colour(rng: Random, size: Size) -> Film:
    colour = [rng.randint(0, 255) for _ in range(3)]
    colour[rng.randrange(2)] = rng.randint(120, 255)  # red or green, so that it is not black
    return _always(Image.new("RGB", size, tuple(colour)))


# --- pages ------------------------------------------------------------------------------------------------------------


@_case("slide", NONE, OK)
def _slide(rng: Random, size: Size) -> Film:
    return _always(brushes.slide(rng, size))


@_case("dark slide", NONE, OK)
def _dark_slide(rng: Random, size: Size) -> Film:
    return _always(brushes.slide(rng, size, dark=True))


@_case("slide with second hand", CLOCK, OK)
def _second_hand(rng: Random, size: Size) -> Film:
    place = (rng.uniform(0.7, 0.85) * size[0], rng.uniform(0.1, 0.3) * size[1])
    radius = rng.uniform(40, 110) * scale(size)
    below = _always(brushes.slide(rng, size, picture=False, dark=rng.random() < 0.3))
    return _Over(below, lambda image, t: brushes.dial(image, place, radius, t, (120, 120, 120)))


@_case("sparse page with small spinner", NONE, OK)
def _sparse(rng: Random, size: Size) -> Film:
    page, unit = _grey(size, rng.randint(225, 255)), scale(size)
    at = (rng.uniform(0.3, 0.5) * size[0], rng.uniform(0.3, 0.6) * size[1])
    brushes.write(
        ImageDraw.Draw(page), at, brushes.words(rng, rng.randint(2, 4)), rng.uniform(22, 40) * unit, (60, 60, 60)
    )
    place, radius = (size[0] / 2, at[1] + 90 * unit), rng.uniform(10, 24) * unit
    return _Over(_always(page), lambda image, t: brushes.spinner(image, place, radius, t, (90, 90, 90)))


@_case("black page with big clock", CLOCK, OK)
def _big_clock(rng: Random, size: Size) -> Film:
    start, height, seconds = rng.uniform(0, 86_400), rng.uniform(0.12, 0.22) * size[0], rng.random() < 0.5
    at = (0.05 * size[0], rng.uniform(0.2, 0.5) * size[1])
    ink = rng.randint(90, 255)

    def put(image: Image.Image, t: float) -> None:
        text = brushes.clock_text(start, t, seconds=seconds)
        brushes.write(ImageDraw.Draw(image), at, text, height, (ink, ink, ink))

    return _Over(_always(_grey(size, 0)), put)


def _ticker(rng: Random, size: Size, pixels_per_s: float) -> Film:
    unit = scale(size)
    high, page = int(rng.uniform(50, 90) * unit), brushes.slide(rng, size)
    top = size[1] - int(1.5 * high)
    text = brushes.words(rng, 120)
    font = ImageFont.load_default(high * 0.6)
    line = Image.new("RGB", (int(font.getlength(text)), high), (20, 30, 70))
    ImageDraw.Draw(line).text((0, high * 0.12), text, fill=(240, 240, 240), font=font)

    def put(image: Image.Image, t: float) -> None:
        shift = int(pixels_per_s * unit * t + 200) % (line.width - size[0])
        image.paste(line.crop((shift, 0, shift + size[0], high)), (0, top))

    return _Over(_always(page), put)


@_case("ticker running", TICKER, OK)
def _ticker_runs(rng: Random, size: Size) -> Film:
    return _ticker(rng, size, rng.uniform(30, 240))


@_case("ticker stuck", TICKER, FROZEN)
def _ticker_stuck(rng: Random, size: Size) -> Film:
    return _ticker(rng, size, 0)


@_case("slide show", SLIDES, OK)
def _slide_show(rng: Random, size: Size) -> Film:
    slides = [brushes.slide(rng, size, dark=rng.random() < 0.3) for _ in range(4)]
    every_s = rng.uniform(1.2, 2.0)
    return lambda t: slides[int(t / every_s) % len(slides)]


@_case("slide show stuck", SLIDES, FROZEN)
def _slide_show_stuck(rng: Random, size: Size) -> Film:
    return _always(brushes.slide(rng, size))


# --- films ------------------------------------------------------------------------------------------------------------


@_case("film", VIDEO, OK, plays=True)
def _film(rng: Random, size: Size) -> Film:
    return brushes.camera(rng, size)


@_case("film with clock over it", VIDEO, OK, plays=True)
def _film_clock(rng: Random, size: Size) -> Made:
    return _with_clock(rng, size, brushes.camera(rng, size))


@_case("film in a window", VIDEO, OK, plays=True)
def _window(rng: Random, size: Size) -> Film:
    inner = (max(16, int(size[0] * rng.uniform(0.3, 0.6))), max(16, int(size[1] * rng.uniform(0.3, 0.6))))
    film, at = brushes.camera(rng, inner), (int(size[0] * 0.3), int(size[1] * 0.3))
    return _Over(_always(brushes.slide(rng, size)), lambda image, t: image.paste(film(t), at))


@_case("dark film scene", VIDEO, OK, plays=True)
def _dark_film(rng: Random, size: Size) -> Film:
    return brushes.camera(rng, size, 0, rng.randint(28, 60))


@_case("slow pan", VIDEO, OK, plays=True)
def _pan(rng: Random, size: Size) -> Film:
    return brushes.moved(rng, size, rng.uniform(1, 8) * scale(size), 0.0)


@_case("slow zoom", VIDEO, OK, plays=True)
def _zoom(rng: Random, size: Size) -> Film:
    return brushes.moved(rng, size, 0.0, rng.uniform(0.001, 0.006))


@_case("fades through black", VIDEO, OK, plays=True)
def _fades(rng: Random, size: Size) -> Film:
    film, shown, fade, dark = brushes.camera(rng, size), rng.uniform(3, 7), rng.uniform(0.5, 1.5), rng.uniform(0.3, 2.5)

    def at(t: float) -> Image.Image:
        phase = t % (shown + 2 * fade + dark)
        light = 1.0
        if phase > shown:
            light = max(0.0, 1 - (phase - shown) / fade, (phase - shown - fade - dark) / fade)
        return film(t).point([int(level * light) for level in range(256)] * 3)

    return at


@_case("title cards in a film", VIDEO, OK, plays=True)
def _titles(rng: Random, size: Size) -> Film:
    film, card = brushes.camera(rng, size), _grey(size, rng.randint(0, 20))
    length, shown = rng.uniform(3.0, 5.5), rng.uniform(4, 8)
    brushes.write(
        ImageDraw.Draw(card), (0.2 * size[0], 0.45 * size[1]), brushes.words(rng, 3), 60 * scale(size), (220, 220, 220)
    )
    return lambda t: card if t % (length + shown) < length else film(t)


@_case("talking head", VIDEO, OK, plays=True)
def _talking_head(rng: Random, size: Size) -> Film:
    """A still room, a head that sways by a pixel or two, a mouth and eyes that move."""
    room, unit = brushes.texture(rng, size, 40, 200), scale(size)
    middle, radius = (rng.uniform(0.35, 0.65) * size[0], 0.45 * size[1]), rng.uniform(90, 260) * unit
    skin, rate = (rng.randint(120, 230), rng.randint(90, 170), rng.randint(70, 140)), rng.uniform(1.5, 4)

    def put(image: Image.Image, t: float) -> None:
        draw = ImageDraw.Draw(image)
        x = middle[0] + unit * 1.5 * math.sin(0.9 * t)
        y = middle[1]
        draw.ellipse((middle[0] - radius * 0.8, y - radius, middle[0] + radius * 0.8, y + radius), fill=skin)
        mouth, eye = radius * (0.05 + 0.1 * abs(math.sin(rate * t))), radius * (0.02 if int(t * 2) % 9 == 0 else 0.08)
        draw.ellipse(
            (x - radius * 0.3, y + radius * 0.5 - mouth, x + radius * 0.3, y + radius * 0.5 + mouth), fill=(90, 20, 30)
        )
        for side in (-0.35, 0.35):
            place = x + side * radius
            draw.ellipse((place - radius * 0.1, y - eye, place + radius * 0.1, y + eye), fill=(30, 30, 40))

    return _Over(_always(room), put)


@_case("screencast with rare changes", VIDEO, OK, plays=True)
def _screencast(rng: Random, size: Size) -> Film:
    """A recording of somebody who types a character or moves the pointer every few seconds."""
    page, unit = brushes.slide(rng, size, picture=False), scale(size)
    longest = rng.uniform(2.0, 6.0)
    times, places, typed = [0.0], [(0.5 * size[0], 0.5 * size[1])], [""]
    while times[-1] < HORIZON_S:
        times.append(times[-1] + rng.uniform(0.5, longest))
        typing = rng.random() < 0.7
        typed.append((typed[-1] + rng.choice("abcdefghijklm nopqrstuvw"))[-40:] if typing else typed[-1])
        places.append(places[-1] if typing else (rng.uniform(0.2, 0.8) * size[0], rng.uniform(0.2, 0.8) * size[1]))

    def put(image: Image.Image, t: float) -> None:
        now = bisect_right(times, t) - 1
        brushes.write(ImageDraw.Draw(image), (0.1 * size[0], 0.85 * size[1]), typed[now], 26 * unit, (40, 90, 160))
        brushes.pointer(image, places[now], 20 * unit)

    return _Over(_always(page), put)


# --- films that stand still -------------------------------------------------------------------------------------------


def _frozen(rng: Random, size: Size) -> Film:
    return _always(brushes.camera(rng, size)(rng.uniform(0, 60)))


@_case("frozen film", VIDEO, FROZEN, plays=False)
def _frozen_film(rng: Random, size: Size) -> Film:
    return _frozen(rng, size)


@_case("frozen dark scene", VIDEO, FROZEN, plays=False)
def _frozen_dark(rng: Random, size: Size) -> Film:
    return _always(brushes.camera(rng, size, 0, rng.randint(28, 60))(3.0))


@_case("half-decoded garbage", VIDEO, FROZEN, plays=False)
def _garbage(rng: Random, size: Size) -> Film:
    """The upper part of a picture, then blocks of anything, as after a damaged packet."""
    image, block = _frozen(rng, size)(0).copy(), rng.choice([8, 16, 32])
    top = int(size[1] * rng.uniform(0.2, 0.8)) // block * block
    shape = (max(1, (size[1] - top) // block), max(1, size[0] // block), 3)
    noise = numpy.random.default_rng(rng.getrandbits(32)).integers(0, 256, shape, dtype=numpy.uint8)
    image.paste(Image.fromarray(noise).resize((size[0], size[1] - top), Image.Resampling.NEAREST), (0, top))
    return _always(image)


@_case("frozen, clock over it runs", VIDEO, FROZEN, plays=False)
def _frozen_clock(rng: Random, size: Size) -> Made:
    return _with_clock(rng, size, _frozen(rng, size))


@_case("frozen, pointer over it moves", VIDEO, FROZEN, plays=False)
def _frozen_pointer(rng: Random, size: Size) -> Film:
    rate, height = rng.uniform(0.2, 1.5), rng.uniform(14, 24) * scale(size)

    def put(image: Image.Image, t: float) -> None:
        place = (size[0] * (0.5 + 0.3 * math.sin(rate * t)), size[1] * (0.5 + 0.2 * math.cos(1.3 * rate * t)))
        brushes.pointer(image, place, height)

    return _Over(_frozen(rng, size), put)


@_case("frozen, pointer twitches now and then", VIDEO, FROZEN, plays=False)
def _frozen_twitch(rng: Random, size: Size) -> Film:
    every_s, height = rng.uniform(15, 25), rng.uniform(14, 24) * scale(size)

    def put(image: Image.Image, t: float) -> None:
        brushes.pointer(image, (size[0] * 0.5 + 5 * (int(t / every_s) % 2), size[1] * 0.5), height)

    return _Over(_frozen(rng, size), put)


@_case("frozen, spinner over it turns", VIDEO, FROZEN, plays=False)
def _frozen_spinner(rng: Random, size: Size) -> Film:
    radius = rng.uniform(25, 60) * scale(size)
    place = (size[0] / 2, size[1] / 2)
    return _Over(_frozen(rng, size), lambda image, t: brushes.spinner(image, place, radius, t, (255, 255, 255)))
