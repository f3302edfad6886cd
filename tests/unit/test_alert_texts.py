"""The words of messages: one line of title whatever kiosks and people call things, lists that end, two languages."""

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_server.alerts.texts import MOST_LISTED, About, body, detail, plain, silent, title
from infoscreen_server.i18n import speaking
from infoscreen_server.models_alerts import MessageKind, RuleKind

SINCE = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
VIENNA = ZoneInfo("Europe/Vienna")
URL = "https://screens.example.org"
nasty = st.text(st.characters() | st.sampled_from("\r\n\t\x00\x1b\x85\u2028\u202e%"), max_size=200)


def about(number: int = 1, label: str | None = None, ended: timedelta | None = None) -> About:
    over = None if ended is None else SINCE + ended
    return About(f"u{number}", f"Hall {number}" if label is None else label, SINCE, over, "", VIENNA)


@given(nasty, nasty, st.sampled_from(MessageKind), st.sampled_from(RuleKind), st.sampled_from(["en", "de"]))
def test_a_title_is_one_line_and_ends_with_its_number(
    name: str, site: str, kind: MessageKind, rule: RuleKind, language: str
) -> None:
    with speaking(language):
        line = title(kind, rule, site, [about(label=name)], "7-2")
        lines = body(kind, name, [about(label=name)], [about(label=name)], URL).split("\n")
    assert line.endswith(" [#7-2]")
    assert len(line) < 300
    assert not any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in line)
    assert len(lines) == 5, "no name makes a line of its own"


def test_one_screen_and_several() -> None:
    one, two = [about()], [about(), about(2)]
    assert title(MessageKind.FIRING, RuleKind.OFFLINE, "Linz", one, "1-1") == "ALERT Hall 1, Linz: offline [#1-1]"
    assert title(MessageKind.REMINDER, RuleKind.SCREEN, None, two, "1-2") == "STILL 2 screens: picture wrong [#1-2]"
    assert title(MessageKind.RECOVERED, RuleKind.OFFLINE, "Linz", two, "1-3") == (
        "RECOVERED 2 screens, Linz: online again [#1-3]"
    )


@pytest.mark.parametrize(("number", "more"), [(MOST_LISTED, 0), (MOST_LISTED + 1, 1), (500, 480)])
def test_a_long_list_ends(number: int, more: int) -> None:
    text = body(MessageKind.FIRING, "Offline", [about(each) for each in range(number)], [], URL)
    assert text.count("since") == MOST_LISTED
    assert (f"… and {more} more" in text) == bool(more)
    assert text.endswith(f"{URL}/")
    assert len(text) < 3000


def test_times_are_those_of_the_place_and_how_long_it_took() -> None:
    begun = body(MessageKind.FIRING, "Offline", [about()], [], URL)
    assert begun.splitlines()[0] == "Hall 1: since 2026-03-29 01:30 CET"
    assert begun.endswith(f"{URL}/clients/u1")
    over = body(MessageKind.RECOVERED, "Offline", [about(ended=timedelta(hours=2))], [], None)
    assert over.splitlines()[0] == "Hall 1: for 2 h, since 2026-03-29 01:30 CET"
    assert "http" not in over


def test_figures() -> None:
    assert detail(RuleKind.SCREEN, {"status": "BLACK", "reason": "no\nlight"}, None) == "Black: no light"
    assert detail(RuleKind.ERRORS, {"n": 11}, 900) == "11 errors in 15 min"
    assert detail(RuleKind.OUTAGE, {"n": 8, "of": 20}, None) == "8 of 20 screens"
    assert detail(RuleKind.OFFLINE, {}, None) == ""


def fleet(figures: dict[str, Any], ended: timedelta | None = None) -> About:
    over = None if ended is None else SINCE + ended
    return About(None, "", SINCE, over, detail(RuleKind.OUTAGE, figures, None), VIENNA, silent(figures))


def test_an_outage_names_what_is_silent() -> None:
    figures = {"n": 9, "of": 20, "silent": [["Linz", 5], ["Graz", 1], ["Hall 1", None]], "more": 2}
    begun = body(MessageKind.FIRING, "Outage", [fleet(figures)], [], URL).splitlines()
    assert begun[0] == "Since 2026-03-29 01:30 CET. 9 of 20 screens"
    assert begun[1:6] == ["Linz: 5 screens", "Graz: 1 screen", "Hall 1", "… and 2 more", ""]
    assert begun[-1] == f"{URL}/"
    over = body(MessageKind.RECOVERED, "Outage", [fleet(figures, timedelta(hours=2))], [], URL).splitlines()
    assert over[:2] == ["For 2 h, since 2026-03-29 01:30 CET", ""]
    steady = body(MessageKind.STEADY, "Outage", [fleet(figures)], [fleet(figures)], None).splitlines()
    assert steady[1] == "Still the case: All screens"


def test_an_outage_that_was_noted_without_names() -> None:
    """As those of before were, and as long as the server is deaf."""
    lines = body(MessageKind.REMINDER, "Outage", [fleet({"n": 8, "of": 20})], [], URL).splitlines()
    assert lines[:2] == ["Since 2026-03-29 01:30 CET. 8 of 20 screens", ""]


@given(st.lists(st.tuples(nasty, st.none() | st.integers(1, 3)), max_size=50), st.sampled_from(["en", "de"]))
def test_what_is_silent_is_a_line_each_and_not_too_many(found: list[tuple[str, int | None]], language: str) -> None:
    figures = {"n": 9, "of": 20, "silent": found, "more": 1}
    with speaking(language):
        lines = body(MessageKind.FIRING, "Outage", [fleet(figures)], [], URL).split("\n")
    assert len(lines) == 5 + min(len(found), MOST_LISTED)


@given(nasty)
def test_plain_is_plain_already(text: str) -> None:
    assert plain(plain(text)) == plain(text)
