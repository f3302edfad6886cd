"""The picture that shows what the rules saw: tiles with content, tiles that moved, regions that are ignored."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from infoscreen_device.core.picture import Region
from infoscreen_device.screen.pictures import within
from infoscreen_device.screen.tilemaps import Frame, Tiles, upright

SIDE = 1920
"""The longer side at most."""
_CONTENT, _MOVED, _IGNORED, _RING = (60, 170, 90), (255, 70, 40), (70, 130, 255), (90, 90, 90)


def explain(frames: Sequence[Frame], ignore: Sequence[Region] = ()) -> bytes:
    """A PNG of the last frame, darkened, with its tiles: what has content, what moved, what is ignored."""
    last = upright(frames[-1])
    tiles = Tiles(*last.size, ignore)
    for frame in frames:
        tiles.add(frame.image)
    median, content = tiles.content(all_of_it=True)
    picture = last.point([level * 3 // 5 for level in range(256)] * 3)
    draw = ImageDraw.Draw(picture)
    line = max(1, tiles.grid.side // 15)
    shape = tiles.grid
    draw.rectangle((shape.side, shape.side, *_far(shape.columns, shape.rows, shape.side)), outline=_RING, width=line)
    marked = tiles.numbers(content)
    for number in marked:
        left, top, right, bottom = shape.tile(number)
        draw.rectangle((left + line, top + line, right - line, bottom - line), outline=_CONTENT)
    moved = tiles.numbers(tiles.moved)
    for number in moved:
        left, top, right, bottom = shape.tile(number)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=_MOVED, width=2 * line)
    for box in tiles.boxes:
        _hatch(picture, box, line)
    text = f"{len(moved)} of {tiles.counting} tiles moved, {len(marked)} have content, median grey {median}"
    return _png(_captioned(within(picture, SIDE), text))


def _far(columns: int, rows: int, side: int) -> tuple[int, int]:
    return (columns - 1) * side - 1, (rows - 1) * side - 1


def _hatch(picture: Image.Image, box: tuple[int, int, int, int], line: int) -> None:
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        return
    patch = picture.crop(box)
    draw = ImageDraw.Draw(patch)
    height = bottom - top
    for start in range(-height, right - left, 12 * line):
        draw.line((start, height, start + height, 0), fill=_IGNORED, width=line)
    draw.rectangle((0, 0, right - left - 1, height - 1), outline=_IGNORED, width=2 * line)
    picture.paste(patch, (left, top))


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    size = max(11, picture.width // 60)
    font = _font(size)
    strip = Image.new("RGB", (picture.width, picture.height + 3 * size), (0, 0, 0))
    strip.paste(picture, (0, 0))
    draw = ImageDraw.Draw(strip)
    at = picture.height + size
    draw.text((size, at), text, fill=(255, 255, 255), font=font)
    place = size * 3 + int(draw.textlength(text, font=font))
    for name, colour in (("moved", _MOVED), ("content", _CONTENT), ("ignored", _IGNORED), ("counted area", _RING)):
        draw.rectangle((place, at, place + size, at + size), fill=colour)
        draw.text((place + size * 3 // 2, at), name, fill=(255, 255, 255), font=font)
        place += size * 3 + int(draw.textlength(name, font=font))
    return strip


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 (Debian 12) has one size
        return ImageFont.load_default()


def _png(image: Image.Image) -> bytes:
    into = io.BytesIO()
    image.save(into, "PNG", compress_level=3)
    return into.getvalue()
