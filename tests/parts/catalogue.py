"""The texts of the dashboard as the source has them, for the test that they are all translated and for `update`."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

SOURCE = Path(__file__).parents[2] / "server" / "infoscreen_server"
KEYWORDS = {"_": None, "gettext": None, "lazy": None, "ngettext": (1, 2)}
METHODS = [("**/templates/**.html", "jinja2"), ("templates/**.html", "jinja2"), ("**.py", "python")]
OPTIONS = {
    "templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false", "newstyle_gettext": "true"}
}
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def texts() -> Catalog:
    """Everything that is marked for translation."""
    catalogue = Catalog(project="infoscreen", fuzzy=False, creation_date=YEAR, revision_date=YEAR)
    found = extract_from_dir(SOURCE, METHODS, OPTIONS, KEYWORDS)
    for path, _line, message, comments, context in found:
        catalogue.add(message, None, [(path, None)], auto_comments=comments, context=context)  # type: ignore[list-item]
    return catalogue


def path_of(language: str) -> Path:
    return SOURCE / "translations" / language / "LC_MESSAGES" / "messages.po"


def translated(language: str) -> Catalog:
    with path_of(language).open("rb") as source:
        return read_po(source, locale=language)


def update(language: str) -> None:
    """Bring the catalogue up to date with the source; what is new is empty there, what is gone is left out."""
    path = path_of(language)
    catalogue = translated(language) if path.is_file() else Catalog(locale=language, fuzzy=False)
    catalogue.update(texts(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    catalogue.fuzzy = False
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        write_po(
            target, catalogue, width=120, no_location=True, omit_header=False, sort_output=True, ignore_obsolete=True
        )


if __name__ == "__main__":
    for name in sys.argv[1:] or ["de"]:
        update(name)
