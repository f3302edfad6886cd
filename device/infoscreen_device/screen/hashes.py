"""Perceptual hashes: is this the same picture as yesterday, as on the neighbour's screen, as a known error page?

No motion detector: a talking head has the same hash for minutes. numpy and imagehash are imported only when a hash is
asked for, in a child that ends soon: they take 14 MB. Debian has numpy and the package brings imagehash along, but not
scipy, which imagehash would use for phash; the same transform is made here.
"""

import functools
import math
from typing import Any

from PIL import Image


def perceptual_hash(image: Image.Image) -> str | None:
    """32 hexadecimal digits: imagehash's dhash, then its phash. None where numpy or imagehash is not installed.

    Meaningful only for a picture with content: all plain colours have the same.
    """
    try:
        import imagehash
    except ImportError:
        return None
    return f"{imagehash.dhash(image)}{imagehash.ImageHash(_phash_bits(image))}"


def _phash_bits(image: Image.Image) -> Any:
    """As imagehash.phash does it: DCT-II of the picture in 32x32, the 8x8 lowest frequencies, above their median."""
    import numpy

    small = image.convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    pixels = numpy.asarray(small, dtype=numpy.float64)
    basis = numpy.array(_cosines())
    # Rounded, or the hash of a plain colour would be that of rounding errors.
    low = numpy.round(basis @ pixels @ basis.T, 6)
    return low > numpy.median(low)


@functools.cache
def _cosines() -> tuple[tuple[float, ...], ...]:
    return tuple(
        tuple(2 * math.cos(math.pi * frequency * (2 * place + 1) / 64) for place in range(32)) for frequency in range(8)
    )
