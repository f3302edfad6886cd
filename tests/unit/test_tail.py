"""The rule of the live tail against a model of transactions that commit and roll back in any order."""

import random
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_server.tail import (
    HOLD_S,
    KEEP_S,
    MAX_GAPS,
    MAX_PLACE_CHARS,
    MAX_PLACE_GAPS,
    Position,
    Tail,
    behind,
    between,
    either,
)


@dataclass
class Table:
    """Ids come out of one sequence, in any interleaving; a transaction's rows become visible all at once."""

    last: int = 0
    open: dict[int, list[int]] = field(default_factory=dict)
    visible: set[int] = field(default_factory=set)

    def insert(self, transaction: int, rows: int) -> None:
        self.open.setdefault(transaction, []).extend(range(self.last + 1, self.last + 1 + rows))
        self.last += rows

    def end(self, transaction: int, commit: bool) -> None:
        rows = self.open.pop(transaction, [])
        if commit:
            self.visible.update(rows)


@dataclass
class Reader:
    """What a web process does, and what one of its viewers gets: (id, position behind it)."""

    tail: Tail = field(default_factory=lambda: Tail(0, in_order=False))
    got: list[tuple[int, Position]] = field(default_factory=list)

    def look(self, table: Table, now: float) -> None:
        ids = sorted(number for number in table.visible if number > self.tail.high)
        ready = ids[: self.tail.ready(ids, now)]
        filled = [number for first, last in self.tail.position.gaps for number in range(first, last + 1)]
        self.tail.forget(now)
        for number in [*(each for each in filled if each in table.visible), *ready]:
            if self.tail.see(number, now):
                self.got.append((number, self.tail.position))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("end"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("look"), st.integers(0, 1), st.floats(0, 1.5 * HOLD_S)),
    ),
    min_size=40,
    max_size=120,
)


NOTHING = Position(0)


@dataclass
class Viewer:
    """Goes from one reader to another, and may leave behind any line; what live and live_viewer do."""

    place: Position = NOTHING
    got: list[int] = field(default_factory=list)
    reader: Reader | None = None
    joined: Position = NOTHING
    came: Position = NOTHING
    behind: int = 0

    def join(self, reader: Reader) -> None:
        self.reader, self.joined, self.came, self.behind = reader, reader.tail.position, self.place, len(reader.got)

    def leave(self, table: Table, at: int) -> None:
        """After so many of the lines that were sent to it."""
        assert self.reader is not None
        spans = between(self.came, self.joined)
        missed = [n for first, last in spans for n in range(first, last + 1) if n in table.visible]
        lines = [(n, behind(self.joined, spans, n)) for n in missed]
        lines += [(n, place) for n, place in self.reader.got[self.behind :] if n not in self.came]
        for number, place in lines[: at % (len(lines) + 1)]:
            self.got.append(number)
            self.place = Position.parse(either(place, self.came).text())


@given(steps=STEPS, chance=st.randoms(use_true_random=False))
@settings(max_examples=400, deadline=None)
def test_every_committed_row_comes_once(steps: list[tuple[str, int, float]], chance: random.Random) -> None:
    """To those who stay, and to one who goes from one process to the other and back."""
    table, readers, viewer, now = Table(), [Reader(), Reader()], Viewer(), 0.0
    viewer.join(readers[0])
    for what, which, more in steps:
        if what == "insert":
            table.insert(which, int(more))
        elif what == "end":
            table.end(which, bool(more))
        else:
            now += more
            readers[which].look(table, now)
        if chance.random() < 0.3:
            viewer.leave(table, chance.randrange(100))
            viewer.join(chance.choice(readers))
    for transaction in list(table.open):
        table.end(transaction, True)
    for pause in (0.0, HOLD_S, HOLD_S):
        now += pause
        for reader in readers:
            reader.look(table, now)
    for reader in readers:
        assert sorted(each for each, _ in reader.got) == sorted(table.visible)
    viewer.leave(table, -1)
    viewer.join(readers[0])
    viewer.leave(table, -1)
    assert sorted(viewer.got) == sorted(table.visible)


def test_a_hole_is_waited_for_a_moment_and_then_passed_over() -> None:
    tail = Tail(10, in_order=False)
    assert tail.ready([11, 13], 0.0) == 1
    assert tail.see(11, 0.0)
    assert tail.ready([13, 14], HOLD_S / 2) == 0
    assert tail.ready([13, 14, 16], HOLD_S) == 2
    assert tail.ready([13, 14, 16], 1.5 * HOLD_S) == 2
    assert tail.ready([13, 14, 16], 2 * HOLD_S) == 3


def test_a_gap_is_given_up_when_its_time_is_over() -> None:
    tail = Tail(10, in_order=False)
    tail.see(13, 0.0)
    tail.see(16, 1.0)
    assert tail.position == Position(16, ((11, 12), (14, 15)))
    tail.forget(KEEP_S)
    assert tail.position == Position(16, ((14, 15),))
    assert not tail.see(11, KEEP_S)
    assert tail.see(15, KEEP_S)
    assert tail.position == Position(16, ((14, 14),))


def test_gaps_are_bounded_and_what_that_costs_is_counted() -> None:
    tail = Tail(0, in_order=False)
    for number in range(3, 3 * (MAX_GAPS + 2), 3):
        tail.see(number, 0.0)
    assert len(tail.position.gaps) == MAX_GAPS
    assert tail.given_up == 2
    assert len(tail.position.text()) < 4000
    assert Position.parse(tail.position.text()) == tail.position


def test_in_order_nothing_is_waited_for() -> None:
    tail = Tail(0, in_order=True)
    assert tail.ready([5, 9], 0.0) == 2
    assert tail.see(9, 0.0)
    assert tail.position == Position(9)
    assert not tail.see(7, 0.0)


def test_what_is_skipped_is_counted() -> None:
    tail = Tail(10, in_order=False)
    assert tail.skip(5) == 0
    assert tail.skip(25) == 15
    assert tail.position == Position(25)


@given(high=st.integers(0, 2**63 - 1), ends=st.sets(st.integers(1, 2**63 - 1), max_size=40))
def test_a_position_is_read_as_it_was_written(high: int, ends: set[int]) -> None:
    ordered = sorted(end for end in ends if end <= high)
    gaps = tuple(zip(ordered[::2], ordered[1::2], strict=False))
    assert Position.parse(Position(high, gaps).text()) == Position(high, gaps)


@given(number=st.integers(0, 3 * MAX_PLACE_GAPS), step=st.sampled_from((2, 7, 10**6, 10**15)))
def test_no_position_is_written_that_is_not_read(number: int, step: int) -> None:
    """However many gaps there are: of too many the newest stay."""
    gaps = tuple((step * n, step * n) for n in range(1, number + 1))
    whole = Position(step * (number + 1), gaps)
    text = whole.text()
    assert len(text) <= MAX_PLACE_CHARS
    read = Position.parse(text)
    assert read == Position(whole.high, gaps[number - len(read.gaps) :])
    if step == 2:
        assert len(read.gaps) >= min(number, MAX_PLACE_GAPS, 500)


POSITIONS = st.builds(
    lambda ends, more: Position(
        max(ends, default=0) + more, tuple(zip(sorted(ends)[::2], sorted(ends)[1::2], strict=False))
    ),
    st.sets(st.integers(1, 120), max_size=60),
    st.integers(0, 30),
)
"""So close to each other that spans touch, enclose and miss one another."""


@given(one=POSITIONS, other=POSITIONS)
@settings(max_examples=500)
def test_what_either_has_seen_is_what_comparing_all_with_all_says(one: Position, other: Position) -> None:
    high = max(one.high, other.high)
    unseen = [(*position.gaps, (position.high + 1, high)) for position in (one, other)]
    common = [(max(a, c), min(b, d)) for a, b in unseen[0] for c, d in unseen[1]]
    assert either(one, other) == Position(high, tuple(sorted((a, b) for a, b in common if a <= b)))


def test_many_gaps_do_not_hold_up_those_who_come_back() -> None:
    """500 missed lines at a place with as many gaps as are accepted; comparing all with all takes a minute."""
    then = Position(2 * MAX_PLACE_GAPS, tuple((n, n) for n in range(1, 2 * MAX_PLACE_GAPS, 2)))
    here = Position(10_000)
    spans = between(then, here)
    began = time.process_time()
    for number in range(1, 1001, 2):
        either(behind(here, spans, number), then).text()
    assert time.process_time() - began < 5


BAD = ("", "x", "-1", "1~", "5~1", "5~9.0", "5~0.7", "9~1.1~3.1", str(2**63), "٣", "1\n", "5~0.0" * 2, "1" * 5000)


@pytest.mark.parametrize("text", [*BAD, "9" + "".join(f"~{n}.0" for n in range(1300, 0, -2))])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)
