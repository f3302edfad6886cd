"""What people call a client: its name, its place and its tags. Checked here, whoever sends them, and written.

The kiosk knows nothing of them. Which clients have them is asked in fleet.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Engine, delete, insert, select, update

from infoscreen_server.db import writing
from infoscreen_server.i18n import gettext
from infoscreen_server.models import Client, ClientTag
from infoscreen_shared.messages import clean

MAX_NAME = 100
MAX_TAG, MAX_TAGS = 50, 20


class LabelError(ValueError):
    """A label that cannot be given; the text says why, in the language that is spoken, and repeats nothing sent."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field
        self.text = text


@dataclass(frozen=True, slots=True)
class Labels:
    """What is to be written; None leaves as it is, an empty text takes away."""

    name: str | None = None
    location: str | None = None
    tags: list[str] | None = None


def checked(name: str | None, location: str | None, tags: Iterable[str] | None) -> Labels:
    """Raises LabelError."""
    return Labels(
        None if name is None else _line("name", name, MAX_NAME),
        None if location is None else _line("location", location, MAX_NAME),
        None if tags is None else checked_tags(tags),
    )


def checked_tags(tags: Iterable[str]) -> list[str]:
    """Trimmed, the empty ones left out, each once without regard to case: the first spelling stays. Raises LabelError.

    >>> checked_tags([" 4k", "Foyer ", "", "foyer"])
    ['4k', 'Foyer']
    """
    found: dict[str, str] = {}
    for tag in tags:
        text = _line("tags", tag, MAX_TAG)
        if "," in text:
            raise LabelError("tags", gettext("A tag has no comma: commas separate tags."))
        if text:
            found.setdefault(text.casefold(), text)
        if len(found) > MAX_TAGS:
            raise LabelError("tags", gettext("At most %(n)d tags.", n=MAX_TAGS))
    return list(found.values())


def _line(field: str, text: str, longest: int) -> str:
    """Raises LabelError."""
    line = " ".join(clean(text).split())
    if len(line) > longest:
        raise LabelError(field, gettext("At most %(n)d characters.", n=longest))
    # What cannot be seen, or turns the direction of what stands around it, makes one screen look like another.
    if not line.isprintable():
        raise LabelError(field, gettext("Letters, digits, spaces and signs only."))
    return line


def write(engine: Engine, uuid: str, labels: Labels) -> bool:
    """Give a client these labels; False if there is no such client."""
    given = {
        name: value or None
        for name, value in (("name", labels.name), ("location", labels.location))
        if value is not None
    }
    with writing(engine) as connection:
        locked = select(Client.uuid).where(Client.uuid == uuid).with_for_update(key_share=True)
        if connection.execute(locked).first() is None:
            return False
        if given:
            connection.execute(update(Client).where(Client.uuid == uuid).values(given))
        if labels.tags is not None:
            connection.execute(delete(ClientTag).where(ClientTag.client_uuid == uuid))
            rows = [{"client_uuid": uuid, "tag": tag} for tag in labels.tags]
            if rows:
                connection.execute(insert(ClientTag), rows)
    return True
