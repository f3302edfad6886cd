"""Silences: whom they cover and when, a recurring one on the clock on the wall."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server.alerts.hours import Hours, Span
from infoscreen_server.alerts.silences import Place, Scope, Silence, is_muted

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HALL = Place("a", "Linz", frozenset({"school", "lift"}))
FLEET = Place()

places = st.builds(
    Place,
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["Linz", "Wels", None]),
    st.frozensets(st.sampled_from(["x", "y"])),
)
hours_later = st.integers(0, 48).map(lambda number: START + number * HOUR)
silences = st.builds(
    Silence,
    st.sampled_from(Scope),
    st.sampled_from(["a", "b", "Linz", "Wels", "x", "y", ""]),
    hours_later,
    st.none() | hours_later,
)


@pytest.mark.parametrize(
    ("scope", "target", "hall", "fleet"),
    [
        (Scope.ALL, "", True, True),
        (Scope.CLIENT, "a", True, False),
        (Scope.CLIENT, "b", False, False),
        (Scope.CLIENT, "", False, False),
        (Scope.SITE, "Linz", True, False),
        (Scope.SITE, "", False, False),
        (Scope.TAG, "lift", True, False),
        (Scope.TAG, "Linz", False, False),
    ],
)
def test_whom_it_covers(scope: Scope, target: str, hall: bool, fleet: bool) -> None:
    silence = Silence(scope, target, START, None)
    assert (silence.covers(HALL), silence.covers(FLEET)) == (hall, fleet)


def test_its_end_is_no_longer_part_of_it() -> None:
    silence = Silence(Scope.ALL, "", START, START + HOUR)
    moments = [START - HOUR / 60, START, START + HOUR * 0.99, START + HOUR]
    assert [silence.is_active(each) for each in moments] == [False, True, True, False]


@given(st.lists(silences, max_size=4), places, hours_later)
def test_one_that_covers_and_lasts_is_enough(several: list[Silence], place: Place, now: datetime) -> None:
    own: dict[Scope, Collection[str | None]] = {
        Scope.ALL: {""},
        Scope.CLIENT: {place.client},
        Scope.SITE: {place.site},
        Scope.TAG: place.tags,
    }
    expected = [
        each
        for each in several
        if each.starts_at <= now
        and not (each.ends_at is not None and each.ends_at <= now)
        and (each.scope is Scope.ALL or each.target in own[each.scope])
    ]
    assert is_muted(several, place, now) == bool(expected)


def test_a_weekly_one_keeps_to_the_clock_on_the_wall() -> None:
    """Every day from 20:00 to 21:00 in Vienna, over the night in which the clocks change."""
    weekly = Hours(ZoneInfo("Europe/Vienna"), ((Span(1200, 1260),),) * 7)
    silence = Silence(Scope.ALL, "", START, START + 60 * HOUR, weekly)
    muted = [number for number in range(80) if silence.is_active(START + number * HOUR)]
    # 19:00 UTC on the 28th, 18:00 UTC on the 29th and 30th; the one of the 31st is after its end.
    assert [(START + number * HOUR).strftime("%d %H") for number in muted] == ["28 19", "29 18", "30 18"]
