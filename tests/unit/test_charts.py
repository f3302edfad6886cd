import re
from datetime import UTC, datetime, timedelta

import pytest

from infoscreen_server.history import Segment
from infoscreen_server.pages import charts, machine, timeline
from infoscreen_server.pages.charts import Span

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def boxes(path: str) -> list[tuple[float, float, float, float]]:
    """x, y, width, height of every rectangle in a path."""
    found = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z", path)
    assert path.count("M") == len(found)
    return [(float(x), float(y), float(width), float(height)) for x, y, width, height in found]


def points(path: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (pair.split() for pair in piece.split("L"))]
        for piece in path.removeprefix("M").split("M")
    ]


def after(minutes: float) -> datetime:
    return NOON - DAY + timedelta(minutes=minutes)


# --- bars -------------------------------------------------------------------------------------------------------------


def test_a_bar_for_each_day_lower_and_of_another_kind_the_worse_it_was() -> None:
    shape = charts.bars([1, 0.99, 0.9, None, 0.1])
    at_bottom = {kind: boxes(path) for kind, path in shape.paths.items()}
    assert {kind: [x for x, *_ in found] for kind, found in at_bottom.items()} == {
        "good": [0],
        "warn": [7],
        "bad": [14, 28],
        "none": [21],
    }
    heights = {x: height for found in at_bottom.values() for x, _, _, height in found}
    assert heights == {0: 20, 7: 19, 14: 10, 21: 4, 28: 4}
    assert all(y + height == charts.BARS_HEIGHT for found in at_bottom.values() for _, y, _, height in found)
    assert shape.width == 28 + charts.BAR


@pytest.mark.parametrize(
    ("share", "kind"),
    [(1, "good"), (0.995, "good"), (0.9949, "warn"), (0.97, "warn"), (0.9699, "bad"), (0, "bad"), (None, "none")],
)
def test_from_which_share_a_day_was_good(share: float | None, kind: str) -> None:
    assert charts.bar_kind(share) == kind


def test_no_bars() -> None:
    assert charts.bars([]) == charts.Bars(1, charts.BARS_HEIGHT, {})


# --- lines ------------------------------------------------------------------------------------------------------------


def test_a_line_spans_the_day_and_its_figures() -> None:
    samples = [(after(0), 30.0), (after(720), 60.0), (after(1440), 45.0)]
    found = charts.line(samples, after(0), NOON, DAY, floor=30)
    assert found is not None
    assert points(found.path) == [[(0, 47), (120, 1), (240, 24)]]
    assert (found.low, found.high, found.last) == (30, 60, 45)
    assert found.area == "M0 48L0 47L120 1L240 24L240 48z"


def test_a_line_breaks_where_nothing_was_told() -> None:
    samples = [(after(minutes), 1.0) for minutes in (0, 5, 10, 31, 36, 100)]
    found = charts.line(samples, after(0), NOON, timedelta(minutes=20), floor=0)
    assert found is not None
    assert [piece.count("L") + 1 for piece in found.path.split("M")[1:]] == [3, 2, 1]
    assert found.path.endswith("h1"), "a lone sample is a dash"


def test_a_flat_line_at_the_floor_lies_at_the_bottom() -> None:
    found = charts.line([(after(0), 0.0), (NOON, 0.0)], after(0), NOON, DAY, floor=0)
    assert found is not None
    assert points(found.path) == [[(0, 47), (240, 47)]]


def test_a_line_below_its_floor_is_drawn_whole() -> None:
    found = charts.line([(after(0), -8.0), (NOON, 12.0)], after(0), NOON, DAY, floor=30)
    assert found is not None
    assert points(found.path) == [[(0, 47), (240, 1)]]


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [None, 3.0]])
def test_no_line_out_of_fewer_than_two_figures(values: list[float | None]) -> None:
    assert charts.line([(NOON, value) for value in values], after(0), NOON, DAY, floor=0) is None


def test_what_lies_outside_the_time_is_not_drawn() -> None:
    samples = [(after(-10), 99.0), (after(0), 1.0), (NOON, 2.0), (NOON + DAY, -50.0)]
    found = charts.line(samples, after(0), NOON, 2 * DAY, floor=0)
    assert found is not None
    assert (found.low, found.high) == (1, 2)


# --- timelines --------------------------------------------------------------------------------------------------------


def test_spans_lie_where_they_were_and_stand_out_by_height() -> None:
    spans = [Span("good", after(-60), after(720)), Span("bad", after(720), after(1080)), Span("off", after(1080), NOON)]
    found = {kind: boxes(path) for kind, path in charts.timeline(spans, after(0), NOON).items()}
    assert found == {"good": [(0, 14, 500, 10)], "off": [(750, 19, 250, 5)], "bad": [(500, 0, 250, 24)]}
    assert list(found)[-1] == "bad", "drawn last, it lies above the rest"


def test_a_short_span_is_seen_and_stays_inside() -> None:
    end = Span("bad", NOON - timedelta(seconds=1), NOON)
    assert boxes(charts.timeline([end], NOON - 30 * DAY, NOON)["bad"]) == [(998.5, 0, 1.5, 24)]


def test_spans_outside_the_time_are_left_out() -> None:
    spans = [Span("bad", after(-60), after(0)), Span("bad", NOON + DAY, NOON + 2 * DAY)]
    assert charts.timeline(spans, after(0), NOON) == {}


@pytest.mark.parametrize("days", [1, 7, 30, 90])
def test_ticks_are_few_round_and_inside(days: int) -> None:
    began = NOON - timedelta(days=days, minutes=7)
    found = charts.ticks(began, NOON)
    assert 3 <= len(found) <= 8
    assert all(began <= tick.when <= NOON and tick.when.minute == 0 for tick in found)
    assert [tick.x for tick in found] == sorted((tick.x for tick in found), key=float)
    if days > 1:
        assert {tick.when.hour for tick in found} == {0}


# --- what a page says of states and machines --------------------------------------------------------------------------


def segment(state: str, began: float, ended: float, *, known: bool = True) -> Segment:
    return Segment(state, after(began), after(ended), known)


def test_a_track_says_how_much_of_the_time_each_state_had() -> None:
    player = [segment("running", 0, 1296), segment("running", 1296, 1368, known=False), segment("crashed", 1368, 1440)]
    link, process, screen = timeline.tracks({"process": player}, after(0), NOON)
    assert process.shares == [("running", 0.9), ("offline", 0.05), ("crashed", 0.05)]
    assert process.label == "Player: Running 90.00 %, Offline 5.00 %, Crashed 5.00 %"
    assert set(process.paths) == {"good", "off", "bad"}
    assert [row["state"] for row in process.rows] == ["crashed", "running", "running"]
    assert (link.label, screen.label) == ("Connection: nothing known", "Screen: nothing known")


def test_the_table_of_a_track_is_bounded_and_says_so() -> None:
    many = [segment("running", minute, minute + 1) for minute in range(100)]
    track = timeline.tracks({"link": many}, after(0), NOON)[0]
    assert (len(track.rows), track.more) == (timeline.MOST_ROWS, 100 - timeline.MOST_ROWS)
    assert track.rows[0]["began_at"] == after(99)


def test_the_table_of_many_tells_of_what_was_not_well() -> None:
    """600 segments, drawn coarser: the shares and the rows are of those all the same."""
    many = [
        segment("offline" if n % 20 == 3 else "online", n * 2 + (n % 2), n * 2 + 2 + (n + 1) % 2) for n in range(600)
    ]
    track = timeline.tracks({"link": many}, after(0), NOON)[0]
    short = [each for each in many if each.state == "offline"]
    length = sum((each.ended_at - each.began_at for each in short), timedelta())
    assert dict(track.shares)["offline"] == pytest.approx(length / DAY)
    assert [row["began_at"] for row in track.rows] == [each.began_at for each in reversed(short)]
    assert {row["seconds"] for row in track.rows} == {60}
    assert track.more == 570
    assert sum(path.count("M") for path in track.paths.values()) < 500


def test_the_facts_of_a_machine_in_words() -> None:
    system = {"cpu_temperature": 51.26, "load": [0.5, 0.4, 0.3], "memory_available": 2**31, "memory_total": 2**32}
    known = dict.fromkeys(("cpu_temperature", "load", "memory_available", "disk_free", "outbox_pending"))
    samples = [{"at": after(minutes), **known, "cpu_temperature": 40 + minutes / 60} for minutes in (0, 5, 600)]
    found = machine.facts({"system": system, "outbox_pending": 18_412}, samples, NOON)
    assert [(fact.title, fact.value) for fact in found] == [
        ("Processor temperature", "51.3 °C"),
        ("Load", "0.50"),
        ("Free memory", "2.0 GiB of 4.0 GiB"),
        ("Waiting records", "18,412"),
    ]
    assert (found[0].low, found[0].high) == ("40.0 °C", "50.0 °C")
    assert found[1].line is None


@pytest.mark.parametrize("odd", [None, "hot", True, [], {}, [[1]], 1e300, -1e300])
def test_a_machine_may_say_anything(odd: object) -> None:
    names = ("cpu_temperature", "load", "memory_available", "memory_total", "disk_free", "uptime_s")
    assert machine.facts({"system": dict.fromkeys(names, odd), "outbox_pending": None}, [], NOON) == []
    assert machine.current({"system": {"uptime_s": odd}, "outbox_pending": None})["uptime_s"] is None
