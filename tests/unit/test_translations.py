"""Every text of the dashboard has its German, with the same values in it."""

import re
from collections import Counter

import pytest

from infoscreen_server.i18n import FALLBACK, LANGUAGES, gettext, ngettext, speaking
from parts.catalogue import texts, translated

OTHERS = sorted(set(LANGUAGES) - {FALLBACK})
VALUES = re.compile(r"%\((\w+)\)[a-z]|%%")


def forms(text: object) -> list[str]:
    return [str(each) for each in text] if isinstance(text, (list, tuple)) else [str(text)]


@pytest.mark.parametrize("language", OTHERS)
def test_all_is_translated_and_nothing_is_left_over(language: str) -> None:
    source = {str(message.id) for message in texts() if message.id}
    assert len(source) > 100
    done = {str(message.id) for message in translated(language) if message.id and all(forms(message.string))}
    assert source - done == set(), "translate these: python tests/parts/catalogue.py adds them to messages.po"
    assert done - source == set()


@pytest.mark.parametrize("language", OTHERS)
def test_translations_fill_in_the_same_values(language: str) -> None:
    wrong = [
        (message.id, form)
        for message in translated(language)
        for form in forms(message.string)
        if message.id and Counter(VALUES.findall(form)) != Counter(VALUES.findall(forms(message.id)[-1]))
    ]
    assert wrong == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_percent_sign_alone_is_written_twice(language: str) -> None:
    """Every text is filled in with %, also one without values."""
    catalogues = [*texts(), *translated(language)]
    written = [form for message in catalogues for each in (message.id, message.string) if each for form in forms(each)]
    assert [form for form in written if "%" in VALUES.sub("", form)] == []


def test_the_language_holds_for_its_block_only() -> None:
    with speaking("de"):
        assert gettext("Sign in") == "Anmelden"
        assert ngettext("%(n)d minute ago", "%(n)d minutes ago", 1) == "vor 1 Minute"
        assert ngettext("%(n)d minute ago", "%(n)d minutes ago", 5) == "vor 5 Minuten"
    assert gettext("Sign in") == "Sign in"


def test_an_unknown_language_is_english() -> None:
    with speaking("../../etc/passwd"):
        assert gettext("Sign in") == "Sign in"
