"""Which event is due when, and how mistakes in a schedule are told."""

import json
from datetime import datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_device import schedule
from infoscreen_device.schedule import MIDNIGHT, Event, ScheduleError, due, next_change, parse_schedule
from infoscreen_shared.messages import EventType

MONDAY = datetime.fromisoformat("2026-01-05")
VIDEO = Event(1, EventType.VIDEO, "a.mkv")
LUNCH = Event(2, EventType.PRESENTATION, "menu.pdf", time(11), time(14, 30))
NIGHT = Event(3, EventType.WEBSITE, "https://a.example", time(22), time(6), frozenset({0}))


def problems(document: object) -> list[str]:
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(json.dumps(document))
    return caught.value.problems


def test_the_first_that_is_due_plays() -> None:
    events = (LUNCH, VIDEO)
    assert due(events, MONDAY.replace(hour=10, minute=59)) == VIDEO
    assert due(events, MONDAY.replace(hour=11)) == LUNCH
    assert due(events, MONDAY.replace(hour=14, minute=30)) == VIDEO
    assert due((LUNCH,), MONDAY) is None
    assert due((), MONDAY) is None


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    assert due((NIGHT,), MONDAY.replace(hour=5)) is None, "that night would have begun on Sunday"
    assert due((NIGHT,), MONDAY.replace(hour=22)) == NIGHT
    assert due((NIGHT,), MONDAY + timedelta(days=1, hours=5, minutes=59)) == NIGHT
    assert due((NIGHT,), MONDAY + timedelta(days=1, hours=6)) is None


def test_the_next_change() -> None:
    assert next_change((LUNCH, VIDEO), MONDAY) == MONDAY.replace(hour=11)
    assert next_change((LUNCH, VIDEO), MONDAY.replace(hour=11)) == MONDAY.replace(hour=14, minute=30)
    assert next_change((NIGHT,), MONDAY + timedelta(days=1, hours=6)) == MONDAY + timedelta(days=7, hours=22)
    assert next_change((VIDEO,), MONDAY) is None, "what always plays never changes, not even at midnight"
    assert next_change((VIDEO, LUNCH), MONDAY) is None, "what never comes first changes nothing"
    assert next_change((), MONDAY) is None


TIMES = st.builds(time, st.integers(0, 23), st.sampled_from([0, 1, 30, 59]))
EVENTS = st.builds(
    Event,
    st.integers(0, 5),
    st.sampled_from(EventType),
    st.just("x"),
    TIMES | st.just(MIDNIGHT),
    TIMES | st.just(MIDNIGHT),
    st.frozensets(st.integers(0, 6), min_size=1),
)
SCHEDULES = st.lists(EVENTS, max_size=4).map(tuple)
MOMENTS = st.timedeltas(timedelta(), timedelta(days=30)).map(lambda since: MONDAY + since)


def plays(event: Event, moment: datetime) -> bool:
    """A second way to say it: by the minutes since the last midnight and the one before."""
    span = (datetime.combine(MONDAY, event.end) - datetime.combine(MONDAY, event.start)) / timedelta(seconds=1)
    span += 86_400 if span <= 0 else 0
    since = moment - datetime.combine(moment, event.start)
    for days_ago in (0, 1):
        begun = (since + timedelta(days=days_ago)) / timedelta(seconds=1)
        if (moment - timedelta(days=days_ago)).weekday() in event.weekdays and 0 <= begun < span:
            return True
    return False


@given(SCHEDULES, MOMENTS)
def test_due_agrees_with_a_second_way_to_say_it(events: tuple[Event, ...], now: datetime) -> None:
    assert due(events, now) == next((event for event in events if plays(event, now)), None)


@given(SCHEDULES, MOMENTS, st.floats(0, 1, exclude_max=True))
def test_nothing_changes_before_the_next_change(events: tuple[Event, ...], now: datetime, part: float) -> None:
    change = next_change(events, now)
    until = change or now + timedelta(days=8)
    between = min(now + (until - now) * part, until - timedelta(microseconds=1))
    assert due(events, between) == due(events, now)
    if change is not None:
        assert now < change
        assert due(events, change) != due(events, now)


def test_the_example_in_the_documentation_is_valid() -> None:
    assert schedule.__doc__ is not None
    example = schedule.__doc__.partition("\n\n")[2].partition("\n\n")[0]
    first, second = parse_schedule(example)
    assert (first.id, first.start, first.end, first.weekdays) == (7, time(11), time(14, 30), frozenset({0, 4}))
    assert second == Event(42, EventType.VIDEO, "/srv/films/welcome.mkv")


def test_all_mistakes_are_told_with_their_place() -> None:
    assert problems(
        {
            "events": [
                {"id": "7", "type": "vidoe", "source": "--shuffle", "start": "8:00", "end": "25:00"},
                {"id": 1, "type": "video", "source": "a", "weekdays": ["mon", "tues"], "strat": 1},
                {},
                3,
                {"id": 1, "type": "video", "source": "a", "start": "08:00", "end": "08:00", "weekdays": []},
                {"id": 1, "type": "video", "source": "a", "start": "08:00", "end": "08:00:00"},
            ],
            "evnts": [],
        }
    ) == [
        "events[0].id: expected a whole number from 0 to 4611686018427387904",
        "events[0].type: expected one of video, website, presentation (did you mean video?)",
        'events[0].start: expected a time of day such as "08:30"',
        'events[0].end: expected a time of day such as "08:30"',
        "events[0].source: must not begin with a dash: write ./-name",
        "events[1].weekdays: expected some of mon, tue, wed, thu, fri, sat, sun (did you mean tue?)",
        "events[1].strat: unknown setting (did you mean start?)",
        "events[2].id: is missing",
        "events[2].type: is missing",
        "events[2].source: is missing",
        "events[3]: expected an object",
        "events[4].weekdays: is empty: leave it out for every day",
        "events[5].end: is the same as start: leave both out for the whole day",
        "evnts: unknown setting (did you mean events?)",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "(at line 1, column 1)"),
        ('{"events": [\n{"id": 1,}]}', "(at line 2, column "),
        ("[]", 'expected an object: {"events"'),
        ("{}", "events: expected a list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"events": [' + "9" * 5_000 + "]}", "digits"),
        (b"\xff\xfe\xfd", "decode"),
    ],
)
def test_what_is_no_schedule_is_told_with_its_place(text: str | bytes, expected: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse_schedule(text)
    (problem,) = caught.value.problems
    assert expected in problem


def test_midnight_at_the_end_may_be_written_either_way() -> None:
    for end in ("00:00", "24:00"):
        body = {"id": 1, "type": "video", "source": "a", "start": "22:00", "end": end}
        (event,) = parse_schedule(json.dumps({"events": [body]}))
        assert due((event,), MONDAY.replace(hour=23, minute=59)) == event
        assert due((event,), MONDAY) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["08:00", "mon"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
FIELDS = st.sampled_from(["id", "type", "source", "start", "end", "weekdays"])


@given(JSON | st.fixed_dictionaries({"events": st.lists(st.dictionaries(FIELDS, JSON), max_size=3)}))
def test_any_document_gives_events_or_a_schedule_error(document: Any) -> None:
    try:
        events = parse_schedule(json.dumps(document))
    except ScheduleError as error:
        assert error.problems
    else:
        assert all(isinstance(event, Event) for event in events)
