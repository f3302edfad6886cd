"""The cursor rule against a model so plain that it cannot be wrong: sets of numbers."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server import cursor
from infoscreen_server.cursor import Span, Verdict, judge, settle

NUMBERS = st.integers(0, 40)


@st.composite
def batches(draw: st.DrawFn) -> tuple[int, int, int]:
    """first, last and base as an agent may send them: what it sends it holds, so its base lies below."""
    first = draw(st.integers(1, 40))
    return first, draw(st.integers(first, 45)), draw(st.integers(0, first - 1))


@dataclass
class Model:
    """Every number of a lane by itself."""

    stored: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)

    @property
    def cursor(self) -> int:
        known = self.stored | self.gone
        return next(number for number in range(100) if number + 1 not in known)

    def batch(self, first: int, last: int, base: int) -> bool:
        missing = set(range(self.cursor + 1, first))
        if missing and max(missing) > base:
            return False
        self.gone |= missing
        self.stored |= set(range(first, last + 1)) - self.gone - self.stored
        return True

    def hello(self, base: int) -> None:
        self.gone |= set(range(1, base + 1)) - self.stored


def numbers(span: Span | None) -> set[int]:
    return set() if span is None else set(range(span.first, span.last + 1))


@given(st.lists(st.one_of(batches(), NUMBERS), max_size=30))
def test_any_run_of_batches_and_hellos_is_accounted_for_as_in_the_model(
    steps: list[tuple[int, int, int] | int],
) -> None:
    model, position = Model(), 0
    stored: list[int] = []
    gone: set[int] = set()
    for step in steps:
        if isinstance(step, int):
            verdict = settle(position, step)
            model.hello(step)
        else:
            first, last, base = step
            verdict = judge(position, first, last, base)
            assert verdict.refused is not model.batch(first, last, base)
            assert numbers(verdict.taken) <= set(range(first, last + 1))
        stored += sorted(numbers(verdict.taken))
        gone |= numbers(verdict.gap)
        assert verdict.cursor >= position
        position = verdict.cursor
        assert position == model.cursor
    assert stored == sorted(model.stored), "in order, none twice"
    assert gone == model.gone
    assert position == len(stored) + len(gone)


def test_the_table_in_the_docstring_is_true() -> None:
    checked = 0
    for line in (cursor.__doc__ or "").splitlines():
        cells = line.split()
        if not cells or not cells[0].isdigit():
            continue
        taken, gap = (None if cell == "-" else span(cell) for cell in (cells[3:5] if ".." in cells[1] else "--"))
        if ".." in cells[1]:
            first, last = span(cells[1])
            verdict = judge(int(cells[0]), first, last, int(cells[2]))
            assert (verdict.taken, verdict.gap, verdict.cursor) == (taken, gap, int(cells[5])), line
            assert verdict.refused == ("refused:" in cells), line
        else:
            gone = None if cells[2] == "-" else span(cells[2])
            assert settle(int(cells[0]), int(cells[1])) == Verdict(None, gone, int(cells[3])), line
        checked += 1
    assert checked == 10


def span(text: str) -> Span:
    first, _, last = text.partition("..")
    return Span(int(first), int(last))
