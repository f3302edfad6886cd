import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from infoscreen_server.pages import visible
from infoscreen_server.pages.visible import visible as shown

NEVER = ("Cc", "Cf", "Zl", "Zp", "Cs")
ALLOWED = "\n\t\u200c\u200d"


def test_all_that_is_invisible_is_known() -> None:
    """Of the Unicode that this Python knows; what is not assigned yet may be among the ranges too."""
    unknown = [
        hex(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in NEVER and chr(code) not in ALLOWED and not visible._ODD.match(chr(code))
    ]
    assert unknown == []


@given(st.text(), st.integers(0, 300))
@example("<" * 100, 60)
@example("\u202e" * 100, 60)
def test_nothing_of_it_is_invisible_or_markup_or_beyond_its_room(text: str, room: int) -> None:
    html, cut = shown(text, room)
    assert len(html.encode()) <= room
    assert not [char for char in html if unicodedata.category(char) in NEVER and char not in ALLOWED]
    assert html.count("<") == 2 * html.count('<span class="odd">')
    assert cut or room >= len(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs"])))
def test_usual_text_stays_as_it_is(text: str) -> None:
    html, cut = shown(text, 10_000)
    assert not cut
    assert html.unescape() == text
