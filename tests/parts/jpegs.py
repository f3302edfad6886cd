"""JPEGs made by hand, byte by byte, so that tests know all of their structure; decoders show them as plain grey."""

import struct

_DQT = bytes([0]) + bytes([1] * 64)
_ONE_CODE = bytes([1, *[0] * 15, 0])
"""A Huffman table with one code, a single 0 bit: `no difference` for DC, `end of block` for AC."""


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def frame(width: int, height: int, marker: int = 0xC0, bits: int = 8, colours: int = 1) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(colours))
    return segment(marker, struct.pack(">BHHB", bits, height, width, colours) + parts)


def tables() -> bytes:
    return segment(0xDB, _DQT) + segment(0xC4, b"\x00" + _ONE_CODE) + segment(0xC4, b"\x10" + _ONE_CODE)


def scan(width: int, height: int) -> bytes:
    """Two zero bits for each block of 8 x 8, filled up with ones."""
    bits = 2 * -(-width // 8) * -(-height // 8)
    data = bytearray(bits // 8)
    if bits % 8:
        data.append(0xFF >> bits % 8)
    return segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + bytes(data)


def jpeg(width: int = 320, height: int = 180, note: bytes = b"", length: int | None = None) -> bytes:
    """With a comment, or as many as make it `length` bytes long."""
    head = b"\xff\xd8" + segment(0xE0, b"JFIF\0\x01\x02\0\0\x01\0\x01\0\0") + (segment(0xFE, note) if note else b"")
    rest = tables() + frame(width, height) + scan(width, height) + b"\xff\xd9"
    if length is None:
        return head + rest
    return head + segment(0xFE, bytes(length - len(head) - len(rest) - 4)) + rest
