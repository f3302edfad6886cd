"""The tiles that a picture of the screen is judged by, and where among them something moves by itself.

A tile is a square, and about 64 of them lie along the longer side, whatever the size of the screen: 30 pixels at
1920x1080, 60 at 3840x2160. They are numbered row by row. The outermost ring is ignored: captures differ there by
rounding and window shadows, and overscan hides it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from infoscreen_device.core.picture import Region

ALONG = 64
"""Tiles along the longer side. The thresholds in core.screen were measured with these (64 x 36)."""
STEP = 22
"""The longest side of a box whose mean, rounded, still tells one pixel of 255 from none: 255 / 22^2 > 0.5."""


@dataclass(frozen=True, slots=True)
class Grid:
    width: int
    """Pixels."""
    height: int
    steps: tuple[int, int]
    """A tile's side as a product of two numbers of at most STEP: the picture is reduced by one, then by the other."""

    @property
    def side(self) -> int:
        return self.steps[0] * self.steps[1]

    @property
    def columns(self) -> int:
        return -(-self.width // self.side)

    @property
    def rows(self) -> int:
        return -(-self.height // self.side)

    def box(self, region: Region, grow: int = 0) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels; whatever the region touches belongs to it."""
        left, top, width, height = region
        return (
            min(self.width, max(0, int(left * self.width) - grow)),
            min(self.height, max(0, int(top * self.height) - grow)),
            min(self.width, _up((left + width) * self.width) + grow),
            min(self.height, _up((top + height) * self.height) + grow),
        )

    def inner(self) -> Iterator[int]:
        """The numbers of all tiles but the outermost ring."""
        for row in range(1, self.rows - 1):
            yield from range(row * self.columns + 1, (row + 1) * self.columns - 1)

    def tile(self, number: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels."""
        row, column = divmod(number, self.columns)
        left, top = column * self.side, row * self.side
        return left, top, min(left + self.side, self.width), min(top + self.side, self.height)


def grid(width: int, height: int) -> Grid:
    wanted = max(width, height) / ALONG
    pairs = [(first, second) for second in range(1, STEP + 1) for first in range(second, STEP + 1)]
    # Of equally good ones the largest first step: it is the one that walks over all of the picture.
    return Grid(width, height, min(pairs, key=lambda pair: (abs(pair[0] * pair[1] - wanted), -pair[0])))


def _up(value: float) -> int:
    # 0.3 * 1920 is a little more than 576.
    return -int(-(value - 1e-6) // 1)


# --- where a clock is -------------------------------------------------------------------------------------------------

OFTEN = 0.01
"""Share of the looks in which a tile has to move, and in two at least: minutes change in one burst of 2 s in thirty."""
LARGE = 0.05
"""Share of all tiles beyond which a moving patch is the programme itself, not a clock, a logo or a news line."""


def learn_regions(moved: Sequence[Iterable[int]], width: int, height: int) -> tuple[Region, ...]:
    """Regions to ignore, from what moved (`Burst.tiles_moved`) in looks at a picture that was known to be good.

    Good means: nothing but the clock was moving, as over a slide. Patches that are larger than a clock are not learned.
    """
    shape = grid(width, height)
    counts: dict[int, int] = {}
    for look in moved:
        for number in set(look):
            counts[number] = counts.get(number, 0) + 1
    often = {number for number, count in counts.items() if count >= max(2, OFTEN * len(moved))}
    most = LARGE * shape.columns * shape.rows
    return tuple(_region(shape, patch) for patch in _patches(often, shape.columns) if _area(patch, shape) <= most)


def _patches(tiles: set[int], columns: int) -> list[list[int]]:
    """Tiles that touch, by a side or a corner, or with one tile between them as between two digits."""
    left, patches = set(tiles), []
    for number in sorted(tiles):
        if number not in left:
            continue
        left.discard(number)
        patch, at = [number], 0
        while at < len(patch):
            near = {other for other in left if _near(patch[at], other, columns)}
            left -= near
            patch += sorted(near)
            at += 1
        patches.append(patch)
    return patches


def _near(one: int, other: int, columns: int) -> bool:
    down, right = abs(one // columns - other // columns), abs(one % columns - other % columns)
    return max(down, right) <= 2


def _bounds(patch: list[int], columns: int) -> tuple[int, int, int, int]:
    rows, places = [number // columns for number in patch], [number % columns for number in patch]
    return min(places), min(rows), max(places) + 1, max(rows) + 1


def _area(patch: list[int], shape: Grid) -> int:
    left, top, right, bottom = _bounds(patch, shape.columns)
    return (right - left) * (bottom - top)


def _region(shape: Grid, patch: list[int]) -> Region:
    """With a tile more on each side: the next hour's digits may be wider."""
    left, top, right, bottom = _bounds(patch, shape.columns)
    left, top = max(0, left - 1) * shape.side, max(0, top - 1) * shape.side
    right, bottom = min((right + 1) * shape.side, shape.width), min((bottom + 1) * shape.side, shape.height)
    return (
        left / shape.width,
        top / shape.height,
        (right - left) / shape.width,
        (bottom - top) / shape.height,
    )
