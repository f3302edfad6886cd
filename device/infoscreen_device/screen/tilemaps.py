"""Frames, compared at full resolution in grey and then counted in tiles (core.tiles).

A difference is thresholded to 0 or 255 and reduced in two steps, each of which keeps every single 255: exact, with
Pillow alone. It is done band by band: a band's intermediate pictures fit into the processor's cache, and a look takes
few fresh pages of memory, which cost a child more than the arithmetic.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageChops, ImageFile

from infoscreen_device.core.picture import Region
from infoscreen_device.core.tiles import Grid, grid

CHANGED_ABOVE = 2
"""A pixel has changed if it differs by more grey levels. Framebuffers have no noise; scaling on a GPU has a little."""
EDGE = 8
"""Neighbours that differ by so many grey levels are content; invisible noise on black is less."""
OFF_MEDIAN = 4
"""A tile whose mean is so far from the picture's median is content, without any edge in it."""

BAND_PIXELS = 200_000
_IMPORTED = ImageFile
"""Image.tobytes imports it: here it does so once, and not anew in the child of every look (10 ms)."""
PLENTY = 0.1
"""Share of the tiles."""

_CHANGED = [0] * (CHANGED_ABOVE + 1) + [255] * (255 - CHANGED_ABOVE)
_EDGES = [0] * EDGE + [255] * (256 - EDGE)
_ANY = [0] + [255] * 255


class Frame(NamedTuple):
    image: Image.Image
    """Mode L, RGB or RGBX (any other is converted)."""
    at: float
    """Monotonic seconds."""
    swapped: bool = False
    """Mode RGBX, but the bytes are blue, green, red, as in a shared memory buffer: mapped, it needs no copy."""


def upright(frame: Frame) -> Image.Image:
    """As a person sees it: mode RGB."""
    if not frame.swapped:
        return frame.image if frame.image.mode == "RGB" else frame.image.convert("RGB")
    blue, green, red = frame.image.split()[:3]
    return Image.merge("RGB", (red, green, blue))


class Tiles:
    """What the tiles of frames of one size say, one frame after the other. The frames themselves are not kept.

    A map is a picture of one pixel a tile: 255 or 0.
    """

    def __init__(self, width: int, height: int, ignore: Sequence[Region] = ()) -> None:
        self.grid: Grid = grid(width, height)
        if self.grid.columns < 3 or self.grid.rows < 3:
            raise ValueError(f"a picture of {width}x{height} is too small")
        self.boxes = [self.grid.box(region) for region in ignore]
        self._around = [self.grid.box(region, grow=1) for region in ignore]
        shape = (self.grid.columns, self.grid.rows)
        inner = Image.new("L", shape)
        inner.paste(255, (1, 1, shape[0] - 1, shape[1] - 1))
        self._counts = inner
        self._whole = inner
        if self.boxes:
            seen = Image.new("L", (width, height), 255)
            for box in self.boxes:
                seen.paste(0, box)
            self._counts = ImageChops.darker(inner, self._any(seen))
            hidden = self._any(ImageChops.invert(seen))
            self._whole = ImageChops.darker(inner, ImageChops.invert(hidden))
        self._grey: Image.Image | None = None
        self._means = self._empty()
        self.counting = self.count(inner)
        self.moved = self._empty()
        """Tiles that changed at any time."""

    def add(self, image: Image.Image) -> tuple[bool, Image.Image]:
        """Whether any pixel differs from the frame before (of the first: yes), and the map of tiles that changed."""
        if image.size != (self.grid.width, self.grid.height):
            raise ValueError("the size of the screen changed")
        if image.mode not in {"L", "RGB", "RGBX"}:
            image = image.convert("RGB")
        if self._grey is None:
            self._grey = image.convert("L")
            for box in self.boxes:
                self._grey.paste(0, box)
            self._means = self._grey.reduce(self.grid.side)
            return True, self._empty()
        different, change = False, self._empty()
        for box in self._bands():
            band = self._band(image, box)
            difference = ImageChops.difference(self._grey.crop(box), band)
            # Most pictures rest, or only a line of text moves.
            if difference.getbbox() is None:
                continue
            different = True
            self._grey.paste(band, box)
            self._means.paste(band.reduce(self.grid.side), (0, box[1] // self.grid.side))
            self._mark(change, box, difference.point(_CHANGED))
        self.moved = ImageChops.lighter(self.moved, change)
        return different, change

    def _band(self, image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        band = image.crop(box).convert("L")
        for left, upper, right, lower in self.boxes:
            if upper < box[3] and lower > box[1]:
                band.paste(0, (left, upper - box[1], right, lower - box[1]))
        return band

    def digest(self) -> str:
        """Of all pixels of the last frame. Two pictures have the same by chance once in four thousand million."""
        total = 0
        for box in self._bands():
            total = zlib.crc32(self.grey.crop(box).tobytes(), total)
        return f"{total:08x}"

    def content(self, *, all_of_it: bool = False) -> tuple[int, Image.Image]:
        """The median of the last frame, and the map of tiles that differ from an empty screen.

        Where the tiles' means alone show plenty of content, edges are looked for only if `all_of_it` is wanted: they
        take twice as long, and the rules tell few tiles from many.
        """
        median = _median(self._means, self._whole)
        off = self._means.point([255 if abs(level - median) >= OFF_MEDIAN else 0 for level in range(256)])
        off = ImageChops.darker(off, self._whole)
        if not all_of_it and self.count(off) > PLENTY * self.counting:
            return median, off
        return median, ImageChops.lighter(off, self._edges())

    def _edges(self) -> Image.Image:
        """Along the diagonal, which finds horizontal and vertical ones in one go."""
        found = self._empty()
        for box in self._bands():
            left, top, right, bottom = box
            bottom = min(bottom + 1, self.grid.height)
            if bottom - top < 2:
                continue
            edges = ImageChops.difference(
                self.grey.crop((left, top, right - 1, bottom - 1)), self.grey.crop((left + 1, top + 1, right, bottom))
            )
            for hidden in self._around:
                edges.paste(0, (hidden[0], hidden[1] - top, hidden[2], hidden[3] - top))
            self._mark(found, box, edges.point(_EDGES))
        return found

    @property
    def grey(self) -> Image.Image:
        """The last frame without the ignored regions."""
        if self._grey is None:
            raise ValueError("there is no frame")
        return self._grey

    def _bands(self) -> Iterator[tuple[int, int, int, int]]:
        """Whole rows of tiles, from top to bottom."""
        width, height, side = self.grid.width, self.grid.height, self.grid.side
        step = max(1, BAND_PIXELS // (width * side)) * side
        for top in range(0, height, step):
            yield 0, top, width, min(top + step, height)

    def _mark(self, onto: Image.Image, box: tuple[int, int, int, int], marks: Image.Image) -> None:
        onto.paste(self._any(marks), (0, box[1] // self.grid.side))

    def _empty(self) -> Image.Image:
        return Image.new("L", (self.grid.columns, self.grid.rows))

    def count(self, found: Image.Image) -> int:
        return ImageChops.darker(found, self._counts).histogram()[255]

    def numbers(self, found: Image.Image) -> tuple[int, ...]:
        """Row by row."""
        return tuple(number for number, level in enumerate(ImageChops.darker(found, self._counts).tobytes()) if level)

    def _any(self, marks: Image.Image) -> Image.Image:
        """Tiles with any pixel of 255, where all others are 0."""
        for step in self.grid.steps:
            if step > 1:
                marks = marks.reduce(step).point(_ANY)
        return marks


def _median(means: Image.Image, of: Image.Image) -> int:
    levels = means.histogram(of)
    half, below = sum(levels) / 2, 0
    for level, count in enumerate(levels):
        below += count
        if below >= half:
            return level
    return 0
