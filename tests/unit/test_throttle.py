from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server import throttle
from infoscreen_server.throttle import ADDRESS, NAME, NO_PAUSE, PAIR, Rule, client_address, network_of, pause

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RULES = st.sampled_from([PAIR, ADDRESS, NAME])
TIMES = st.lists(st.integers(-8000, 8000).map(lambda seconds: NOW + timedelta(seconds=seconds)), max_size=60)


def before(*seconds: float) -> list[datetime]:
    return [NOW - timedelta(seconds=each) for each in seconds]


def test_the_first_failures_are_free() -> None:
    assert pause(before(1, 1, 1, 1), PAIR, NOW) == NO_PAUSE
    assert pause(before(1, 1, 1, 1, 1), PAIR, NOW) == timedelta(seconds=29)


@pytest.mark.parametrize(("failures", "expected"), [(5, 30), (6, 60), (7, 120), (9, 480), (10, 900), (2000, 900)])
def test_pauses_double_up_to_the_longest(failures: int, expected: int) -> None:
    assert pause([NOW] * failures, PAIR, NOW) == timedelta(seconds=expected)


def test_a_pause_ends() -> None:
    failures = before(*[0] * 5)
    assert pause(failures, PAIR, NOW + timedelta(seconds=29.9)) > NO_PAUSE
    assert pause(failures, PAIR, NOW + timedelta(seconds=30)) == NO_PAUSE


def test_what_is_long_ago_does_not_count() -> None:
    long_ago = PAIR.window.total_seconds()
    assert pause(before(*[long_ago] * 50), PAIR, NOW) == NO_PAUSE


def test_a_clock_that_was_put_back_locks_nobody_out() -> None:
    ahead = [NOW + timedelta(days=1)] * 50
    assert pause(ahead, PAIR, NOW) == NO_PAUSE
    assert pause([NOW + timedelta(seconds=30)] * 5, PAIR, NOW) == timedelta(seconds=30)


@given(TIMES, RULES)
def test_no_pause_is_longer_than_the_longest(times: list[datetime], rule: Rule) -> None:
    assert NO_PAUSE <= pause(times, rule, NOW) <= rule.longest


@given(TIMES, RULES, st.integers(0, 4000))
def test_without_new_failures_it_only_gets_shorter(times: list[datetime], rule: Rule, later: int) -> None:
    past = [when for when in times if when <= NOW]
    assert pause(past, rule, NOW + timedelta(seconds=later)) <= pause(past, rule, NOW)


def tries(addresses: int, minutes: int) -> int:
    """How many guesses at one name get through from so many addresses that try whenever they may."""
    guesses: dict[int, list[datetime]] = {number: [] for number in range(addresses)}
    everywhere: list[datetime] = []
    now = NOW
    while now < NOW + timedelta(minutes=minutes):
        for mine in guesses.values():
            rules = ((mine, PAIR), (mine, ADDRESS), (everywhere, NAME))
            while all(pause(failures, rule, now) == NO_PAUSE for failures, rule in rules):
                mine.append(now)
                everywhere.append(now)
        now += timedelta(seconds=1)
    return len(everywhere)


def test_one_address_has_few_guesses_and_never_makes_the_name_pause() -> None:
    assert tries(1, 60) <= 16
    for minutes in (1, 5, 15):
        assert tries(1, minutes) < NAME.free, "others with this name are not held up"


def test_many_addresses_together_have_few_guesses_at_one_name() -> None:
    assert tries(50, 15) <= NAME.free + 15 * 60 // NAME.longest.total_seconds() + 10
    assert NAME.longest <= timedelta(seconds=30), "the one who has the right password waits no longer"


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "10.9.9.9", "192.0.2.1"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("::1", "forged, 198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "198.51.100.7, forged", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "a\nb", "127.0.0.1"),
        (None, "198.51.100.7", "unknown"),
        ("", None, "unknown"),
    ],
)
def test_who_asks(peer: str | None, forwarded: str | None, expected: str) -> None:
    assert client_address(peer, forwarded) == expected


def test_one_household_is_one_address() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::")
    assert network_of("2001:db8:1:2::") != network_of("2001:db8:1:3::")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


@given(st.text(), st.text())
def test_keys_fit_their_column(name: str, address: str) -> None:
    assert len(throttle.name_key(name) + throttle._address_key(address)) == 64


def test_a_name_counts_in_any_case() -> None:
    assert throttle.name_key("ANNA") == throttle.name_key("anna") != throttle.name_key("otto")
