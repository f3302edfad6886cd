"""Many clients that go at about the same time, against a count over every window of two minutes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server.alerts.outage import LEAST, NO_OUTAGE, WINDOW, Life, outage

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def lives_of(online: int, silent: list[float]) -> list[Life]:
    """So many that are there, and others that were last heard of so many seconds ago."""
    there = [Life(f"on{number}", NOW, False) for number in range(online)]
    return there + [Life(f"off{number}", ago(seconds), True) for number, seconds in enumerate(silent)]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


lives = st.builds(
    lives_of, st.integers(0, 12), st.lists(st.sampled_from([0, 30, 60, 119, 120, 150, 400, 9000]), max_size=20)
)
shares = st.sampled_from([0.1, 0.3, 0.5, 0.9])


def brute(all_of_them: list[Life], share: float, lasting: bool) -> set[str]:
    gone: set[str] = set()
    for first in all_of_them:
        if not first.offline:
            continue
        together = {
            each.client
            for each in all_of_them
            if each.offline and timedelta() <= each.last_alive - first.last_alive < WINDOW
        }
        there = sum(not each.offline or each.last_alive >= first.last_alive for each in all_of_them)
        many = len(together) >= (2 if lasting else LEAST) and len(together) > there * (share / 2 if lasting else share)
        later = any(not each.offline or each.last_alive >= first.last_alive + WINDOW for each in all_of_them)
        if many or (not later and len(together) > 1):
            gone |= together
    return gone


@given(lives, shares, st.booleans())
def test_it_is_what_a_count_over_every_window_says(found: list[Life], share: float, lasting: bool) -> None:
    result = outage(found, share, lasting=lasting)
    assert set(result.gone) == brute(found, share, lasting)
    assert bool(result) == bool(result.gone)
    if result:
        assert result.since == min(each.last_alive for each in found if each.client in result.gone)
        assert len(result.gone) >= 2


@given(lives, shares, st.randoms())
def test_the_order_of_clients_says_nothing(found: list[Life], share: float, dice: object) -> None:
    mixed = list(found)
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    assert outage(mixed, share) == outage(found, share)


@given(lives, shares)
def test_one_that_lasts_is_over_later_than_it_began(found: list[Life], share: float) -> None:
    assert outage(found, share).gone <= outage(found, share, lasting=True).gone


def test_more_than_the_share_and_five_at_least() -> None:
    assert outage(lives_of(14, [10] * 6), 0.3) == NO_OUTAGE, "six of twenty are not more than 30 %"
    assert len(outage(lives_of(13, [10] * 7), 0.3).gone) == 7
    assert outage(lives_of(2, [10] * 4), 0.3) == NO_OUTAGE
    assert len(outage(lives_of(2, [10] * 5), 0.3).gone) == 5


def test_a_small_fleet_of_which_nobody_is_left() -> None:
    assert len(outage(lives_of(0, [10, 20]), 0.3).gone) == 2
    assert outage(lives_of(0, [10]), 0.3) == NO_OUTAGE
    assert outage(lives_of(0, []), 0.3) == NO_OUTAGE


def test_those_that_went_one_after_the_other_are_no_outage() -> None:
    assert outage(lives_of(5, [number * 130.0 for number in range(12)]), 0.3) == NO_OUTAGE


def test_a_fleet_of_many_thousands_is_no_work() -> None:
    found = lives_of(0, [number / 1000 for number in range(30_000)])
    assert len(outage(found, 0.3).gone) == 30_000
