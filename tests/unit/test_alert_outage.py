"""Many clients that go at about the same time, against a count over every window of two minutes."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server.alerts.outage import HELD_MOST, LEAST, NO_OUTAGE, WINDOW, Known, Life, Outage, outage, went_at

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


begins = st.none() | st.builds(
    Known, st.sampled_from([0, 30, 60, 120, 150, 390, 400, 9000, 20_000]).map(ago), st.integers(0, 40)
)


def brute(all_of_them: list[Life], share: float, known: Known | None) -> set[str]:
    few = False
    if known is not None:
        still = [each for each in all_of_them if each.offline and each.last_alive >= known.since]
        few = len(still) <= share / 2 * known.of
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
        many = len(together) >= LEAST and len(together) > there * share
        later = any(not each.offline or each.last_alive >= first.last_alive + WINDOW for each in all_of_them)
        spent = few and known is not None and went_at(known.since, first.last_alive)
        if many or (not later and len(together) > 1 and not spent):
            gone |= together
    if known is not None:
        left = {each.client for each in all_of_them if each.offline and went_at(known.since, each.last_alive)}
        there = sum(not each.offline or each.last_alive >= known.since for each in all_of_them)
        if len(left) > max(1, there * share / 2, known.of * share / 2):
            gone |= left
    return gone


@given(lives, shares, begins)
def test_it_is_what_a_count_over_every_window_says(found: list[Life], share: float, known: Known | None) -> None:
    result = outage(found, share, known)
    assert set(result.gone) == brute(found, share, known)
    assert bool(result) == bool(result.gone)
    if result:
        assert result.since == min(each.last_alive for each in found if each.client in result.gone)
        there = [each for each in found if not each.offline or each.last_alive >= result.since]
        assert len(there) == result.of
        assert 2 <= len(result.gone) <= result.of


@given(lives, shares, st.randoms())
def test_the_order_of_clients_says_nothing(found: list[Life], share: float, dice: object) -> None:
    mixed = list(found)
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    assert outage(mixed, share) == outage(found, share)


@given(lives, shares)
def test_one_that_lasts_is_over_later_than_it_began(found: list[Life], share: float) -> None:
    first = outage(found, share)
    assert outage(found, share, Known(first.since, first.of) if first.since else None) == first


@given(lives, shares, begins)
def test_that_one_is_known_adds_none_but_those_that_began_it(
    found: list[Life], share: float, known: Known | None
) -> None:
    more = outage(found, share, known).gone - outage(found, share).gone
    assert all(known is not None and went_at(known.since, each.last_alive) for each in found if each.client in more)


@given(lives, shares, begins, st.sampled_from([0, 120, 1799, 1800, 1801, 9000, -1799, -9000]))
def test_it_speaks_for_nobody_for_long(found: list[Life], share: float, known: Known | None, later: int) -> None:
    result, now = outage(found, share, known), NOW + timedelta(seconds=later)
    for each in found:
        held = result.speaks_for(each.client, each.last_alive, now)
        assert held == (each.client in result.gone and abs(now - each.last_alive) < HELD_MOST)


def test_half_an_hour_is_the_end_of_it() -> None:
    found = Outage(frozenset({"a"}), 5, NOW)
    assert found.speaks_for("a", NOW, NOW + timedelta(minutes=29, seconds=59))
    assert not found.speaks_for("a", NOW, NOW + timedelta(minutes=30))
    assert not found.speaks_for("b", NOW, NOW)
    assert not found.speaks_for("a", NOW + timedelta(days=1), NOW), "a clock that was a day ahead"


def test_those_that_began_it_keep_it_going_until_half_as_many_are_left() -> None:
    known = Known(ago(500), 20)
    assert outage(lives_of(18, [500] * 2), 0.3, known) == NO_OUTAGE
    assert outage(lives_of(17, [500] * 3), 0.3, known) == NO_OUTAGE, "15 % are not more than that"
    assert len(outage(lives_of(16, [500] * 4), 0.3, known).gone) == 4
    assert outage(lives_of(2, [500]), 0.1, known) == NO_OUTAGE, "one alone is none"
    assert outage(lives_of(0, [500] * 3), 0.3, known) == NO_OUTAGE, (
        "nor are three of which the others are closed by now"
    )
    assert len(outage(lives_of(0, [500] * 4), 0.3, known).gone) == 4
    assert len(outage(lives_of(0, [100] * 3), 0.3, known).gone) == 3, "that went at another time"


def test_a_few_that_go_while_it_lasts_are_no_part_of_it() -> None:
    begun = lives_of(7, [9000] * 5)
    two_more = [*begun[2:], Life("b1", ago(100), True), Life("b2", ago(90), True)]
    assert outage(two_more, 0.3, Known(ago(9000), 12)).gone == {f"off{number}" for number in range(5)}
    all_more = [*begun[7:], *(Life(f"b{number}", ago(100), True) for number in range(7))]
    assert len(outage(all_more, 0.3, Known(ago(9000), 12)).gone) == 12


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
    assert len(outage(found, 0.3, Known(ago(30), 30_000)).gone) == 30_000
