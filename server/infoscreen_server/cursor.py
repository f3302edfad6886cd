"""The cursor rule of a lane (DESIGN section 4): what to take of a batch, and which numbers are gone. Pure.

A lane's cursor c says that all numbers up to c are accounted for; 0 is nothing. A batch brings first..last, and its
`base` says that the agent no longer holds anything up to there.

    cursor  first..last  base   taken   gap     cursor then
    10      11..15       7      11..15  -       15           the next in line
    10      1..8         0      -       -       10           all of it is known: acknowledged again
    10      8..12        7      11..12  -       12           the overlap of a resend
    10      13..15       7      -       -       10           refused: 11 and 12 are still to come
    10      13..15       12     13..15  11..12  15           they are gone: evicted, or lost with a database
    10      13..15       11     -       -       10           refused: 12 is still held
    0       1..5         0      1..5    -       5            the first of a new epoch

    cursor  hello base          gap     cursor then
    10      7                   -       10           never lowered
    10      10                  -       10
    10      25                  11..25  25
"""

from typing import NamedTuple


class Span(NamedTuple):
    """Numbers first..last, both included."""

    first: int
    last: int


class Verdict(NamedTuple):
    taken: Span | None
    """What is new in the batch; None for a refused one and for one that is known already."""
    gap: Span | None
    cursor: int
    """The lane's cursor once `taken` and `gap` are accounted for."""
    refused: bool = False


def judge(cursor: int, first: int, last: int, base: int) -> Verdict:
    """Hold a batch against the lane's cursor.

    >>> judge(10, 13, 15, 12)
    Verdict(taken=Span(first=13, last=15), gap=Span(first=11, last=12), cursor=15, refused=False)
    """
    if last <= cursor:
        return Verdict(None, None, cursor)
    if first <= cursor + 1:
        return Verdict(Span(cursor + 1, last), None, last)
    if base >= first - 1:
        return Verdict(Span(first, last), Span(cursor + 1, first - 1), last)
    return Verdict(None, None, cursor, refused=True)


def settle(cursor: int, base: int) -> Verdict:
    """Hold a hello against the lane's cursor.

    >>> settle(10, 25).gap
    Span(first=11, last=25)
    """
    if base <= cursor:
        return Verdict(None, None, cursor)
    return Verdict(None, Span(cursor + 1, base), base)
