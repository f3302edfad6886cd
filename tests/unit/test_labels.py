import pytest

from infoscreen_server import labels
from infoscreen_server.labels import LabelError, Labels, checked, checked_tags


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["", "  ", "\t"], []),
        ([" foyer", "4k "], ["foyer", "4k"]),
        (["Foyer", "foyer", "FOYER", "Straße", "STRASSE"], ["Foyer", "Straße"]),
        (["shop   window\n"], ["shop window"]),
        (["<b>&'\""], ["<b>&'\""]),
        (["x" * 50], ["x" * 50]),
        ([str(number) for number in range(20)], [str(number) for number in range(20)]),
    ],
)
def test_tags_are_trimmed_and_each_is_there_once(given: list[str], kept: list[str]) -> None:
    assert checked_tags(given) == kept


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["x" * 51], "At most 50 characters."),
        ([str(number) for number in range(21)], "At most 20 tags."),
        (["a,b"], "A tag has no comma: commas separate tags."),
        (["abc\u202edef"], "Letters, digits, spaces and signs only."),
        (["\x1b[31m"], "Letters, digits, spaces and signs only."),
        (["zero\u200bwidth"], "Letters, digits, spaces and signs only."),
    ],
)
def test_tags_that_are_refused(given: list[str], why: str) -> None:
    with pytest.raises(LabelError) as refused:
        checked_tags(given)
    assert (refused.value.field, refused.value.text) == ("tags", why)


def test_what_is_not_given_is_left_alone_and_what_is_empty_is_taken_away() -> None:
    assert checked(None, None, None) == Labels()
    assert checked("  ", "", []) == Labels("", "", [])
    assert checked(" Foyer  links ", "Graz\u00a0Messe", None) == Labels("Foyer links", "Graz Messe", None)


@pytest.mark.parametrize("field", ["name", "location"])
def test_a_name_or_place_that_is_too_long_is_named(field: str) -> None:
    given = {"name": None, "location": None} | {field: "x" * (labels.MAX_NAME + 1)}
    with pytest.raises(LabelError) as refused:
        checked(**given, tags=None)
    assert refused.value.field == field
