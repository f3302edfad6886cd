"""Opening hours against a clock that is looked at every minute, over the days on which Vienna's clocks change."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from infoscreen_server.alerts.hours import DAY_MINUTES, Hours, Span, any_open, even_pieces, open_time
from infoscreen_server.alerts.tables import week_of, week_text

MINUTE = timedelta(minutes=1)
VIENNA = ZoneInfo("Europe/Vienna")
SPRING, AUTUMN = date(2026, 3, 29), date(2026, 10, 25)
"""At 01:00 UTC 02:00 becomes 03:00; at 01:00 UTC 03:00 becomes 02:00."""
ZONES = ("Europe/Vienna", "UTC", "America/St_Johns", "Australia/Lord_Howe")
"""The last one moves its clocks by half an hour."""
CHANGES = (SPRING, AUTUMN, date(2026, 3, 8), date(2026, 11, 1), date(2026, 4, 5), date(2026, 10, 4), date(2026, 7, 1))

times_of_day = st.integers(0, DAY_MINUTES - 1)
spans = st.builds(Span, times_of_day, st.integers(0, DAY_MINUTES)) | times_of_day.map(lambda each: Span(each, each))
weeks = st.lists(st.lists(spans, max_size=2).map(tuple), min_size=7, max_size=7).map(tuple)
days = st.builds(lambda day, off: day + timedelta(days=off), st.sampled_from(CHANGES), st.integers(-2, 1))
tables = st.builds(Hours, st.sampled_from(ZONES).map(ZoneInfo), weeks, st.frozensets(days, max_size=2))


def at(day: date, minute: int) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + minute * MINUTE


moments = st.builds(at, days, times_of_day)


def looks_open(hours: Hours, when: datetime) -> bool:
    """What a person says who looks at the clock on the wall and at the table on the door."""
    wall = when.astimezone(hours.zone)
    minute, today = wall.hour * 60 + wall.minute, wall.date()
    yesterday = today - timedelta(days=1)
    for span in () if today in hours.closed else hours.week[today.weekday()]:
        if minute >= span.begin and (span.end <= span.begin or minute < span.end):
            return True
    return any(
        span.end <= span.begin and minute < span.end
        for span in (() if yesterday in hours.closed else hours.week[yesterday.weekday()])
    )


@given(tables, moments, st.integers(0, 59))
def test_open_is_what_the_clock_on_the_wall_says(hours: Hours, when: datetime, second: int) -> None:
    assert hours.is_open(when + timedelta(seconds=second)) == looks_open(hours, when)


ALWAYS = Hours(VIENNA, (((Span(0, DAY_MINUTES)),),) * 7)
NIGHT = Hours(VIENNA, ((Span(120, 180),),) * 7)


@settings(max_examples=60, deadline=None)
@given(st.lists(tables, max_size=2), moments, st.integers(0, 2 * DAY_MINUTES))
@example([ALWAYS], at(SPRING, -60), DAY_MINUTES)
@example([NIGHT], at(AUTUMN, -60), DAY_MINUTES)
def test_open_time_is_the_sum_of_open_minutes(hours: list[Hours], begin: datetime, length: int) -> None:
    minutes = [begin + number * MINUTE for number in range(length)]
    expected = sum(not hours or any(looks_open(each, minute) for each in hours) for minute in minutes)
    assert open_time(hours, begin, begin + length * MINUTE) == expected * MINUTE
    assert all(any_open(hours, minute) == open_in(hours, minute) for minute in minutes[::37])


def open_in(hours: list[Hours], minute: datetime) -> bool:
    return open_time(hours, minute, minute + MINUTE) == MINUTE


@pytest.mark.parametrize(("day", "expected"), [(SPRING, 0), (AUTUMN, 120), (date(2026, 7, 1), 60)])
def test_an_hour_may_come_never_or_twice(day: date, expected: int) -> None:
    begin = at(day, -180)
    assert open_time([NIGHT], begin, begin + timedelta(days=1)) == expected * MINUTE


@given(moments, st.integers(0, 20 * DAY_MINUTES), st.sampled_from(ZONES))
def test_pieces_are_whole_and_even(begin: datetime, length: int, name: str) -> None:
    zone, end = ZoneInfo(name), begin + length * MINUTE
    behind = begin
    for start, stop, offset in even_pieces(zone, begin, end):
        assert start == behind < stop
        last = stop - timedelta(seconds=1)
        assert start.astimezone(zone).utcoffset() == offset == max(start, last).astimezone(zone).utcoffset()
        behind = stop
    assert behind == end


def test_a_time_that_runs_backwards_is_no_time() -> None:
    for tables_ in ([], [ALWAYS]):
        assert open_time(tables_, at(SPRING, 5), at(SPRING, 0)) == timedelta()


@given(tables)
def test_the_database_gives_back_the_same_table(hours: Hours) -> None:
    dates = "[" + ", ".join(f'"{each}"' for each in hours.closed) + "]"
    assert week_of(week_text(hours.week), hours.zone.key, dates) == hours
