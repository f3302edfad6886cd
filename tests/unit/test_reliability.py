"""Availability, MTBF and MTTR beside a model that counts the seconds one by one."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from infoscreen_server.reliability import Outage, Window, daily, last_days, measured, observed, together

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TIMES = st.integers(0, 60)


def at(second: int) -> datetime:
    return START + second * SECOND


OUTAGES = st.lists(st.tuples(TIMES, st.one_of(st.none(), st.integers(0, 30))), max_size=8).map(
    lambda pairs: [
        (at(began), None if length is None else at(began + length)) for began, length in sorted(pairs, key=str)
    ]
)
WINDOWS = st.tuples(TIMES, TIMES).map(lambda pair: Window(at(min(pair)), at(max(pair))))


def in_order(outages: list[Outage]) -> list[Outage]:
    return sorted(outages, key=lambda outage: outage[0])


@settings(max_examples=500, deadline=None)
@given(OUTAGES, WINDOWS)
def test_figures_equal_those_of_counting_seconds(outages: list[Outage], window: Window) -> None:
    found = measured(in_order(outages), window)
    seconds = [start for start in range(100) if window.start <= at(start) < window.end]
    down = [
        second
        for second in seconds
        if any(began <= at(second) and (ended is None or ended > at(second)) for began, ended in outages)
    ]
    assert found.observed == len(seconds) * SECOND
    assert found.down == len(down) * SECOND
    if seconds:
        assert found.availability is not None
        assert abs(found.availability - (1 - len(down) / len(seconds))) < 1e-9
    else:
        assert (found.availability, found.incidents, found.between_failures) == (None, 0, None)
    counted = [one for one in outages if _counted(one, window)]
    ended = [end - began for began, end in counted if end is not None and end <= window.end]
    count = len(counted)
    assert (found.incidents, found.repaired) == (count, len(ended))
    assert found.to_repair == (sum(ended, timedelta()) / len(ended) if ended else None)
    assert found.between_failures == ((len(seconds) - len(down)) * SECOND / count if count else None)


def _counted(one: Outage, window: Window) -> bool:
    """It has a second in the window, or began at one (however short it was)."""
    began, ended = one
    seconds = [at(start) for start in range(100) if window.start <= at(start) < window.end]
    return any(when == began or (began <= when and (ended is None or when < ended)) for when in seconds)


@settings(max_examples=300, deadline=None)
@given(OUTAGES, TIMES, TIMES)
def test_two_halves_are_the_whole(outages: list[Outage], middle: int, end: int) -> None:
    middle, end = sorted((middle, end))
    ordered = in_order(outages)
    whole = measured(ordered, Window(at(0), at(end)))
    left, right = measured(ordered, Window(at(0), at(middle))), measured(ordered, Window(at(middle), at(end)))
    assert left.down + right.down == whole.down
    assert left.observed + right.observed == whole.observed
    assert left.repaired + right.repaired == whole.repaired
    assert together([left, right]) == whole.availability


def test_a_client_that_fell_silent_is_observed_until_then() -> None:
    window = Window(at(0), at(50))
    assert observed(window, at(-9), at(20), online=False) == Window(at(0), at(20))
    assert observed(window, at(-9), at(20), online=True) == window
    assert observed(window, at(10), None, online=False).length == timedelta()
    assert observed(window, at(-9), at(-5), online=False).length == timedelta()
    assert observed(window, at(90), at(95), online=True).length == timedelta()


def test_days_before_the_registration_are_not_known() -> None:
    now = datetime(2026, 6, 3, 6, tzinfo=UTC)
    days = last_days(now, 3)
    known = Window(datetime(2026, 6, 2, 12, tzinfo=UTC), now)
    outage = (datetime(2026, 6, 2, 18, tzinfo=UTC), datetime(2026, 6, 3, 3, tzinfo=UTC))
    found = daily([outage], known, days)
    assert [day.availability for day in found] == [None, 0.5, 0.5]
    assert together(found) == 0.5
    assert together(found[:1]) is None
