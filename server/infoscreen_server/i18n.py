"""English and German: which language a request speaks, and the catalogue behind `gettext`.

English is in the source; translations/<language>/LC_MESSAGES/messages.po has the rest and is read as it is, so that
there is no compiled file to forget.
"""

import gettext as gnu
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

LANGUAGES = {"en": "English", "de": "Deutsch"}
FALLBACK = "en"
TRANSLATIONS = Path(__file__).parent / "translations"

_language: ContextVar[str] = ContextVar("language", default=FALLBACK)


def language() -> str:
    """The one that is spoken now."""
    return _language.get()


def speak(name: str) -> None:
    """From here on, in this request or thread."""
    _language.set(name if name in LANGUAGES else FALLBACK)


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Within the block only: for a message to someone who is not the caller."""
    token = _language.set(name if name in LANGUAGES else FALLBACK)
    try:
        yield
    finally:
        _language.reset(token)


@cache
def _catalogue(name: str) -> gnu.NullTranslations:
    path = TRANSLATIONS / name / "LC_MESSAGES" / "messages.po"
    if name == FALLBACK or not path.is_file():
        return gnu.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    compiled = BytesIO()
    with path.open("rb") as source:
        write_mo(compiled, read_po(source, locale=name))
    compiled.seek(0)
    return gnu.GNUTranslations(compiled)


def gettext(text: str, **values: Any) -> str:
    """The text in the language that is spoken, its %(name)s filled in."""
    found = _catalogue(_language.get()).gettext(text)
    return found % values if values else found


def ngettext(one: str, many: str, n: int, **values: Any) -> str:
    """The form for `n`, which the text may name as %(n)s or %(num)s."""
    found = _catalogue(_language.get()).ngettext(one, many, n)
    return found % {"n": n, "num": n, **values}


def plain(text: str) -> str:
    """Without filling anything in: what Jinja's newstyle gettext asks for, which does that itself, escaped."""
    return _catalogue(_language.get()).gettext(text)


def plain_plural(one: str, many: str, n: int) -> str:
    return _catalogue(_language.get()).ngettext(one, many, n)


def lazy(text: str) -> str:
    """Marks a text for translation where it is written; `gettext` translates it where it is shown."""
    return text
