"""From a burst of frames to the numbers that core.screen judges. Pillow alone: a look is to stay small."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from infoscreen_device.core.likeness import matches
from infoscreen_device.core.picture import Region
from infoscreen_device.core.screen import Policy
from infoscreen_device.core.tiles import learn_regions
from infoscreen_device.screen.hashes import perceptual_hash
from infoscreen_device.screen.pictures import open_picture, thumbnail
from infoscreen_device.screen.tilemaps import Frame, Tiles, upright

__all__ = [
    "Frame",
    "Measures",
    "Meter",
    "explain",
    "learn_regions",
    "matches",
    "measure",
    "open_picture",
    "perceptual_hash",
    "thumbnail",
    "upright",
]

RULES = Policy()


@dataclass(frozen=True, slots=True)
class Measures:
    """The fields of core.picture.Burst that come from the picture, with the same meaning."""

    width: int
    height: int
    tiles: int
    span_s: float
    content: tuple[int, ...]
    median: tuple[int, ...]
    changed: tuple[int, ...]
    moved: int
    digest: str
    colour: tuple[int, int, int]
    tiles_moved: tuple[int, ...] = ()


def measure(frames: Sequence[Frame], ignore: Sequence[Region] = (), *, tiles: bool = False) -> Measures:
    """Raises ValueError without frames, or with frames that differ in size or are too small to be a screen."""
    meter = Meter(ignore)
    for frame in frames:
        meter.add(frame)
    return meter.result(tiles=tiles)


def explain(frames: Sequence[Frame], ignore: Sequence[Region] = ()) -> bytes:
    """A PNG of the last frame with its tiles drawn on it (screen.explained)."""
    from infoscreen_device.screen import explained

    return explained.explain(frames, ignore)


class Meter:
    """Takes one frame after the other and keeps none but in grey: their buffers are free after `add`."""

    def __init__(self, ignore: Sequence[Region] = ()) -> None:
        self._ignore = tuple(ignore)
        self._tiles: Tiles | None = None
        self._times: list[float] = []
        self._content: list[int] = []
        self._median: list[int] = []
        self._changed: list[int] = []
        self._colour = (0, 0, 0)

    def add(self, frame: Frame) -> None:
        if self._tiles is None:
            self._tiles = Tiles(*frame.image.size, self._ignore)
        tiles = self._tiles
        different, change = tiles.add(frame.image)
        if self._times:
            self._changed.append(tiles.count(change))
        if different:
            median, content = tiles.content()
            self._median.append(median)
            self._content.append(tiles.count(content))
        else:
            self._median.append(self._median[-1])
            self._content.append(self._content[-1])
        self._times.append(frame.at)
        self._colour = _colour(frame)

    @property
    def decided(self) -> bool:
        """No further frame can change what core.screen says: there is a picture, and enough of it moved."""
        if self._tiles is None or max(self._content) <= RULES.content_tiles:
            return False
        return self._tiles.count(self._tiles.moved) >= RULES.alive_share * self._tiles.counting

    def result(self, *, tiles: bool = False) -> Measures:
        if self._tiles is None:
            raise ValueError("there is no frame")
        moved = self._tiles.moved
        return Measures(
            width=self._tiles.grid.width,
            height=self._tiles.grid.height,
            tiles=self._tiles.counting,
            span_s=self._times[-1] - self._times[0],
            content=tuple(self._content),
            median=tuple(self._median),
            changed=tuple(self._changed),
            moved=self._tiles.count(moved),
            digest=self._tiles.digest(),
            colour=self._colour,
            tiles_moved=self._tiles.numbers(moved) if tiles else (),
        )


def _colour(frame: Frame) -> tuple[int, int, int]:
    """The mean of some thousand pixels."""
    few = frame.image.resize((64, 64), Image.Resampling.NEAREST)
    red, green, blue = few.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()
    return (blue, green, red) if frame.swapped else (red, green, blue)
