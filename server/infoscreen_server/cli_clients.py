"""The command's verbs for the screens: who they are, and the end of one."""

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from infoscreen_server.cli_accounts import AddVerb
from infoscreen_server.config import ServerConfig

if TYPE_CHECKING:
    from sqlalchemy import Engine

MYSELF = "infoscreen-server"
"""Who asked for a removal, where no user or token did."""
PORTION = 1000


def add_verbs(verb: AddVerb) -> None:
    """`verb(name, work, text, under)` adds one."""
    clients = verb("client", None, "The screens.").add_subparsers(required=True, metavar="VERB")
    verb("list", _list, "List all screens.", clients)
    text = "Remove a screen for good, with all that is known of it; one that is still running comes back as a new one."
    verb("remove", _remove, text, clients).add_argument("client", metavar="NAME_OR_UUID", help="or its hostname")


def _list(engine: "Engine", config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server import queries, removal

    now, after = datetime.now(UTC), None
    with engine.connect() as connection:
        removing = removal.pending(connection)
        while rows := queries.clients_page(connection, PORTION, after, now, config.silence_s):
            for row in rows:
                state = "being removed" if row["uuid"] in removing else _state(row)
                label = queries.label_of(row["name"], row["hostname"], "-")
                print("\t".join(map(_plain, (row["uuid"], label, row["location"] or "-", state))))
            after = rows[-1]["uuid"]
    return 0


def _plain(text: str) -> str:
    """For a terminal: a kiosk may have any name.

    >>> print(_plain("Foyer ä\\n\\x1b[2K"))
    Foyer ä\\n\\x1b[2K
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _state(row: dict[str, Any]) -> str:
    if row["online"]:
        return "online"
    return f"last seen {row['last_alive'][:16].replace('T', ' ')}" if row["last_alive"] else "never seen"


def _remove(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import fleet, removal
    from infoscreen_server.wording import FieldError

    with engine.connect() as connection:
        uuid = fleet.meant(connection, options.client, "client")
    if not removal.ask(engine, uuid, MYSELF, datetime.now(UTC)):
        raise FieldError("client", "it is gone already")
    print(f"client {uuid} is being removed: housekeeping does it within a minute, or longer with many records")
    return 0
