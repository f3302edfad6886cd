"""Which known picture a perceptual hash looks like: a desktop, a console, a browser's error page."""

from collections.abc import Mapping

ALIKE = 8
"""Bits of 64 by which phash may differ. Browsers' error pages are 0 to 12 bits from each other, while the nearest
ordinary picture of the measured set was 16 bits from any: half of that."""
DIGITS = 32
"""Of a hash: 16 hexadecimal digits of dhash, then 16 of phash, which is the one that is compared."""


def matches(found: str | None, references: Mapping[str, str]) -> str | None:
    """The name of the reference that looks like the picture. References: one or more hashes, separated by blanks."""
    distances = [
        (distance(found, reference), name)
        for name, hashes in references.items()
        for reference in hashes.split()
        if found is not None and len(found) == len(reference) == DIGITS
    ]
    nearest = min(distances, default=(ALIKE + 1, ""))
    return nearest[1] if nearest[0] <= ALIKE else None


def distance(one: str, other: str) -> int:
    """Bits by which the phash of two hashes differs. Raises ValueError for what is no hash."""
    return (int(one[16:], 16) ^ int(other[16:], 16)).bit_count()


def is_hash(text: str) -> bool:
    """
    >>> is_hash("0f" * 16), is_hash("desktop")
    (True, False)
    """
    return len(text) == DIGITS and all(letter in "0123456789abcdef" for letter in text)
