"""What counts as a picture: one whole JPEG that browsers show, from the first byte to the last."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server.jpeg import MAX_SIDE, NotJpegError, size_of
from parts.jpegs import frame, jpeg, scan, segment, tables

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
GOOD = jpeg(320, 180)
RIGHT: list[tuple[str, bytes, tuple[int, int]]] = [
    ("plain", GOOD, (320, 180)),
    ("smallest", jpeg(1, 1), (1, 1)),
    ("largest", jpeg(MAX_SIDE, MAX_SIDE), (MAX_SIDE, MAX_SIDE)),
    ("portrait", jpeg(180, 320), (180, 320)),
    ("with a comment", jpeg(note=b"a \xff\xd9 in a comment ends nothing"), (320, 180)),
    ("progressive, three colours", SOI + tables() + frame(8, 8, 0xC2, colours=3) + 2 * scan(8, 8) + EOI, (8, 8)),
    ("restarts", SOI + tables() + frame(8, 8) + scan(8, 8) + b"\xff\xd0\0\xff\x00\xff\xd7\0" + EOI, (8, 8)),
    ("filled up", SOI + b"\xff\xff" + tables() + frame(8, 8) + scan(8, 8) + b"\xff\xff" + EOI, (8, 8)),
]
DAMAGED = "a JPEG that is damaged or cut off"
KIND = "a JPEG of a kind that is not taken"
SIDES = f"expected 8 bits a colour and 1 to {MAX_SIDE} pixels a side"
COLOURS = "a JPEG that is neither grey nor of three colours"
EARLY = "a JPEG without frame or tables before its data"
WRONG: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "not a JPEG"),
    ("a PNG", b"\x89PNG\r\n\x1a\n", "not a JPEG"),
    ("a page", b"<html>", "not a JPEG"),
    ("magic alone", SOI, DAMAGED),
    ("no picture in it", SOI + EOI, "a JPEG without a picture"),
    ("tables alone", SOI + tables() + frame(8, 8) + EOI, "a JPEG without a picture"),
    ("cut off", GOOD[:-1], DAMAGED),
    ("cut off in its data", GOOD[:-9], DAMAGED),
    ("more behind it", GOOD + b"<script>", "a JPEG with more behind its end"),
    ("two of them", GOOD + GOOD, "a JPEG with more behind its end"),
    ("a page within", SOI + b"<html>" + GOOD[2:], DAMAGED),
    ("two frames", SOI + tables() + frame(8, 8) + frame(8, 8) + scan(8, 8) + EOI, "a JPEG with two frames"),
    ("no frame", SOI + tables() + scan(8, 8) + EOI, EARLY),
    ("no tables", SOI + frame(8, 8) + scan(8, 8) + EOI, EARLY),
    ("no data", SOI + tables() + frame(8, 8) + segment(0xDA, b"\x01\x01\0\0\x3f\0") + EOI, DAMAGED),
    ("lossless", SOI + tables() + frame(8, 8, 0xC3) + scan(8, 8) + EOI, KIND),
    ("a thumbnail begins within", SOI + segment(0xD8, b"") + GOOD[2:], KIND),
    ("no width", SOI + tables() + frame(0, 8) + scan(8, 8) + EOI, SIDES),
    ("no height", SOI + tables() + frame(8, 0) + scan(8, 8) + EOI, SIDES),
    ("too wide", SOI + tables() + frame(MAX_SIDE + 1, 8) + scan(8, 8) + EOI, SIDES),
    ("a bomb", SOI + tables() + frame(65_535, 65_535) + scan(8, 8) + EOI, SIDES),
    ("12 bits", SOI + tables() + frame(8, 8, bits=12) + scan(8, 8) + EOI, SIDES),
    ("four colours", SOI + tables() + frame(8, 8, colours=4) + scan(8, 8) + EOI, COLOURS),
    ("a short frame", SOI + tables() + segment(0xC0, b"\x08\0") + scan(8, 8) + EOI, COLOURS),
    ("a segment that ends before it begins", SOI + b"\xff\xe0\0\x01" + GOOD[2:], DAMAGED),
    ("a segment longer than all", SOI + b"\xff\xe0\xff\xff" + GOOD[2:], DAMAGED),
]


@pytest.mark.parametrize(("data", "expected"), [pytest.param(*case, id=name) for name, *case in RIGHT])
def test_a_picture_has_a_size(data: bytes, expected: tuple[int, int]) -> None:
    assert size_of(data) == expected


@pytest.mark.parametrize(("data", "text"), [pytest.param(*case, id=name) for name, *case in WRONG])
def test_what_is_none_is_said(data: bytes, text: str) -> None:
    with pytest.raises(NotJpegError) as caught:
        size_of(data)
    assert str(caught.value) == text


def test_every_beginning_of_a_picture_is_none() -> None:
    small = jpeg(16, 16, note=b"note")
    for length in range(len(small)):
        with pytest.raises(NotJpegError):
            size_of(small[:length])


@given(st.binary(max_size=200) | st.tuples(st.integers(0, 400), st.binary(max_size=4)))
def test_whatever_comes_is_a_picture_or_none(found: bytes | tuple[int, bytes]) -> None:
    data = found if isinstance(found, bytes) else GOOD[: found[0]] + found[1] + GOOD[found[0] + len(found[1]) :]
    for each in (data, SOI + data, SOI + data + EOI):
        try:
            width, height = size_of(each)
        except NotJpegError:
            continue
        assert 0 < width <= MAX_SIDE
        assert 0 < height <= MAX_SIDE


@pytest.mark.parametrize("filler", [b"\xff", b"\xff\x00", b"\xff\xd0", b"\xff\xfe\x00\x02"])
def test_the_look_takes_no_longer_for_what_is_made_to_be_slow(filler: bytes) -> None:
    data = (SOI + tables() + frame(8, 8) + scan(8, 8) + filler * 20_000)[:20_000]
    began = time.perf_counter()
    with pytest.raises(NotJpegError):
        size_of(data)
    assert time.perf_counter() - began < 0.2
