"""Text that a kiosk sent, as it is shown: nothing in it is invisible, turns the line around, or exceeds its room."""

import re
from typing import Any

from markupsafe import Markup, escape

_ODD = re.compile(
    "([\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # controls but tab and line feed, which are shown as such
    "\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e"
    "\\u2060-\\u206f\\ud800-\\udfff\\ufeff\\ufff0-\\ufffb\\U000110bd\\U000110cd\\U00013430-\\U0001343f"
    "\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a\\U000e0000-\\U000e007f])"
)
"""All that steers and shows nothing: controls, formats, among them those that turn the direction, odd line breaks. Not
the two joiners: they belong to scripts and to emoji."""
_MOST_PER_CHAR = 6
"""Bytes of HTML that one usual character takes at most: an escaped one five, one beyond ASCII four."""


def visible(text: str, room: int) -> tuple[Markup, bool]:
    """The text as HTML of at most `room` bytes, and whether it was cut for that.

    >>> visible("<b> \\x1b[31m \\u202e", 200)[0]
    Markup('&lt;b&gt; <span class="odd">\\\\x1b</span>[31m <span class="odd">\\\\u202e</span>')
    >>> visible("x" * 100, 60)
    (Markup('xxxxxxxxxx'), True)
    """
    found: list[Markup] = []
    for number, piece in enumerate(_ODD.split(text)):
        shown = _named(piece) if number % 2 else escape(piece)
        size = len(shown.encode(errors="replace"))
        if size > room:
            if not number % 2:
                found.append(escape(piece[: room // _MOST_PER_CHAR]))
            return Markup("").join(found), True
        found.append(shown)
        room -= size
    return Markup("").join(found), False


def steady(value: Any) -> Any:
    """For every value that a template prints, also into an attribute: text without what steers, which is named instead.

    >>> steady("gpj.\\u202eexe"), steady(Markup("<b>\\x1b</b>")), steady(7)
    ('gpj.\\\\u202eexe', Markup('<b>\\\\x1b</b>'), 7)
    """
    if not isinstance(value, str) or value.isprintable() or not _ODD.search(value):
        return value
    text = _ODD.sub(lambda found: found[1].encode("unicode_escape").decode(), value)
    return Markup(text) if isinstance(value, Markup) else text  # noqa: S704 - nothing was added that needs escaping


def _named(char: str) -> Markup:
    return Markup('<span class="odd">{}</span>').format(char.encode("unicode_escape").decode())
