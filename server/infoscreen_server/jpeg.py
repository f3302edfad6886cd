"""Whether bytes are one whole JPEG, and of what size; told from its structure, nothing is decoded. Pure.

A picture that comes from a kiosk is shown in people's browsers: it has to be what it says it is, from the first byte to
the last, in one of the forms that browsers know, and small once it is unpacked.
"""

import re

MAX_SIDE = 2_048
"""Pixels. A JPEG of 20 kB can claim 65,535 on both sides, which unpacked would be 12 GB."""

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_DHT, _SOS, _DQT, _DRI, _COM = 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended, progressive; no browser shows the others (lossless, hierarchical, arithmetic)."""
_PASSED_OVER = frozenset({_DHT, _DQT, _DRI, _COM, *range(0xE0, 0xF0)})
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""In the picture's data; there FF 00 stands for FF, and D0 to D7 are restarts."""


class NotJpegError(ValueError):
    """The text says what is wrong, and repeats nothing of the data."""


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of the picture that is all of `data`. Raises NotJpegError."""
    if not data.startswith(_SOI):
        raise NotJpegError("not a JPEG")
    size, seen, at = None, set(), _marker(data, len(_SOI))
    while data[at : at + 2] != _EOI:
        marker, content, at = _segment(data, at)
        seen.add(marker)
        if marker in _FRAMES:
            if size is not None:
                raise NotJpegError("a JPEG with two frames")
            size = _frame(content)
        elif marker == _SOS:
            if size is None or not {_DHT, _DQT} <= seen:
                raise NotJpegError("a JPEG without frame or tables before its data")
            at = _data_end(data, at)
        elif marker not in _PASSED_OVER:
            raise NotJpegError("a JPEG of a kind that is not taken")
        at = _marker(data, at)
    if at + len(_EOI) != len(data):
        raise NotJpegError("a JPEG with more behind its end")
    if size is None or _SOS not in seen:
        raise NotJpegError("a JPEG without a picture")
    return size


def _marker(data: bytes, at: int) -> int:
    """Where the marker is that comes next; fill bytes may stand before any."""
    while data[at : at + 2] == b"\xff\xff":
        at += 1
    return at


def _segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Marker and content of the segment that begins here, and where it ends."""
    head = data[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF:
        raise NotJpegError("a JPEG that is damaged or cut off")
    end = at + 2 + int.from_bytes(head[2:], "big")
    if end < at + 4 or end > len(data):
        raise NotJpegError("a JPEG that is damaged or cut off")
    return head[1], data[at + 4 : end], end


def _frame(content: bytes) -> tuple[int, int]:
    if len(content) < 6 or content[5] not in (1, 3) or len(content) != 6 + 3 * content[5]:
        raise NotJpegError("a JPEG that is neither grey nor of three colours")
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    if content[0] != 8 or not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise NotJpegError(f"expected 8 bits a colour and 1 to {MAX_SIDE} pixels a side")
    return width, height


def _data_end(data: bytes, at: int) -> int:
    """Where the picture's data ends that begins here: at the next marker that is no restart."""
    found = _NEXT_MARKER.search(data, at)
    if found is None or found.start() == at:
        raise NotJpegError("a JPEG that is damaged or cut off")
    return found.start()
