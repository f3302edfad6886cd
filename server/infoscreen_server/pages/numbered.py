"""Lists that are read as a whole, in numbered pages: tokens, users, silences, issues, clients by reliability and so on.

They are short where a place is small; but no page may grow with them. What grows by itself (logs, incidents, messages)
has pages of its own, which begin at a place in the database.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flask import request, url_for

from infoscreen_server.log_search import folded
from infoscreen_server.pages import asked

ROWS = 25
"""Of the longest that may be: the texts of 25 rows stay below half of a page's 200 kB."""
LONGEST_TEXT = 100
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Numbered(Generic[Item]):
    rows: Sequence[Item]
    first: int
    """The number of the first row, from 1."""
    total: int
    everything: int
    """Of them that there are without `text`."""
    text: str
    here: dict[str, Any]
    """For the addresses of forms in it; see `here`."""
    before_url: str | None
    after_url: str | None

    @property
    def is_long(self) -> bool:
        """Whether there is anything to search in."""
        return bool(self.text) or self.everything > ROWS


def numbered(
    rows: Sequence[Item], endpoint: str, text_of: Callable[[Item], str] | None = None, size: int = ROWS, **more: Any
) -> Numbered[Item]:
    """The page that the address asks for by `page`, of the rows whose text has `q` in it.

    `more` are the other parts of the page's address. A page behind the last is the last.
    """
    text = _text() if text_of else ""
    found = rows
    if text_of and text:
        found = [row for row in rows if folded(text) in folded(text_of(row))]
    number = min(_asked(), max(1, -(-len(found) // size)))
    start = (number - 1) * size

    def url(other: int) -> str:
        return url_for(endpoint, **more, **_parts(text, other))

    return Numbered(
        rows=found[start : start + size],
        first=start + 1,
        total=len(found),
        everything=len(rows),
        text=text,
        here=here(),
        before_url=url(number - 1) if number > 1 else None,
        after_url=url(number + 1) if start + size < len(found) else None,
    )


def here() -> dict[str, Any]:
    """The parts of an address that lead back to the page of the list that a form was sent from."""
    return _parts(_text(), _asked())


def _text() -> str:
    return request.args.get("q", "").strip()[:LONGEST_TEXT]


def _asked() -> int:
    return max(1, asked.whole(request.args.get("page"), 6) or 1)


def _parts(text: str, number: int) -> dict[str, Any]:
    return ({"q": text} if text else {}) | ({"page": number} if number > 1 else {})
