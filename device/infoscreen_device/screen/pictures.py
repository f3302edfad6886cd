"""Pictures for people, and safe opening of pictures from elsewhere.

What draws is imported where it draws, in the child of a look: the helper that waits for looks stays small.
"""

import io
import struct
import warnings
import zlib

from PIL import Image, UnidentifiedImageError

MAX_SIDE = 8192
MAX_PIXELS = 40_000_000
THUMBNAIL_SIDE = 320
THUMBNAIL_BYTES = 20_000
BLURRED_SIDE = 32
"""Of so many pixels along the longer side a blurred picture is made: a headline of a tenth of the height is 2 high."""

_FORMATS = ("PNG", "PPM", "JPEG", "BMP")
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
    struct.error,
    zlib.error,
    Warning,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged files."""


def open_picture(data: bytes) -> Image.Image:
    """Decoded, mode RGB or L. Raises ValueError for anything that is damaged, cut short, too large or no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            width, height = image.size
            if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS or min(width, height) < 1:
                raise ValueError(f"{width}x{height} pixels are not a screen")
            image.load()
            return image.copy() if image.mode in {"RGB", "L"} else image.convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError("no picture: none of " + ", ".join(_FORMATS)) from error
    except _BROKEN as error:
        raise ValueError(f"no picture: {error or type(error).__name__}") from error


def thumbnail(image: Image.Image, blur: bool = False) -> bytes:
    """A JPEG of at most 20,000 bytes; blurred, it shows colours and shapes, and nothing can be read."""
    from PIL import ImageFilter

    small = within(image, BLURRED_SIDE if blur else THUMBNAIL_SIDE)
    if blur:
        small = small.filter(ImageFilter.GaussianBlur(1))
        ratio = THUMBNAIL_SIDE / max(small.size)
        size = (max(1, round(small.width * ratio)), max(1, round(small.height * ratio)))
        small = small.resize(size, Image.Resampling.BICUBIC)
    while True:
        for quality in (80, 60, 40, 20):
            data = _jpeg(small, quality)
            if len(data) <= THUMBNAIL_BYTES:
                return data
        small = within(small, max(small.size) // 2)


def _jpeg(image: Image.Image, quality: int) -> bytes:
    into = io.BytesIO()
    image.save(into, "JPEG", quality=quality, optimize=True)
    return into.getvalue()


def within(image: Image.Image, side: int) -> Image.Image:
    """No larger than `side`, mode RGB."""
    ratio = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    small = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0) if ratio < 1 else image
    return small if small.mode == "RGB" else small.convert("RGB")
