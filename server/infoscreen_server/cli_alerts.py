"""The command's verbs for the channels that alerts go to. A channel's address holds secrets: it is read from standard
input or asked for, never an argument, and never printed again.
"""

import argparse
import getpass
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from infoscreen_server.cli_accounts import AddVerb
from infoscreen_server.config import ServerConfig

if TYPE_CHECKING:
    from sqlalchemy import Engine, Row

MAX_NAME = 100


def add_verbs(verb: AddVerb) -> None:
    """`verb(name, work, text, under)` adds one."""
    channels = verb("channel", None, "Where alerts are sent.").add_subparsers(required=True, metavar="VERB")
    text = "Add a channel; its Apprise URL (mailto://, slack://, json://, …) is asked for, or read from standard input."
    verb("add", _add, text, channels).add_argument("name")
    verb("list", _list, "List the channels, without their secrets.", channels)
    verb("test", _test, "Send a test message and say what came of it.", channels).add_argument("name")
    verb("remove", _remove, "Remove a channel; what is still to be sent to it is given up.", channels).add_argument(
        "name"
    )


def _fail(text: str) -> int:
    print(f"infoscreen-server: {text}", file=sys.stderr)
    return 1


def _add(engine: "Engine", config: ServerConfig, options: argparse.Namespace) -> int:
    from sqlalchemy import insert
    from sqlalchemy.exc import IntegrityError

    from infoscreen_server.alerts.channels import ChannelError, check_url, shown
    from infoscreen_server.db import writing
    from infoscreen_server.models_alerts import AlertChannel

    if not 1 <= len(options.name) <= MAX_NAME or not options.name.isprintable():
        return _fail(f"name: expected 1 to {MAX_NAME} characters that can be seen")
    url = (getpass.getpass("URL: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    try:
        check_url(url, config.alert_allow_local)
        with writing(engine) as connection:
            connection.execute(insert(AlertChannel).values(name=options.name, url=url, created_at=datetime.now(UTC)))
    except ChannelError as error:
        return _fail(f"url: {error}")
    except IntegrityError:
        return _fail("name: there is a channel of this name already")
    print(f"channel {options.name} added, {shown(url)}")
    return 0


def _list(engine: "Engine", _config: ServerConfig, _options: argparse.Namespace) -> int:
    from sqlalchemy import select

    from infoscreen_server.alerts.channels import shown
    from infoscreen_server.models_alerts import AlertChannel

    with engine.connect() as connection:
        for name, url in connection.execute(select(AlertChannel.name, AlertChannel.url).order_by(AlertChannel.name)):
            print(f"{name}\t{shown(url)}")
    return 0


def _found(engine: "Engine", name: str) -> "Row[tuple[int, str]] | None":
    from sqlalchemy import select

    from infoscreen_server.models_alerts import AlertChannel

    with engine.connect() as connection:
        return connection.execute(select(AlertChannel.id, AlertChannel.url).where(AlertChannel.name == name)).first()


def _test(engine: "Engine", config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.alerts.channels import ChannelError
    from infoscreen_server.alerts.deliver import send_test
    from infoscreen_server.i18n import gettext, speaking

    channel = _found(engine, options.name)
    if channel is None:
        return _fail("name: there is no such channel")
    with speaking(config.language):
        title = gettext("Test of the channel %(name)s", name=options.name)
        body = gettext("Alerts of the infoscreens will arrive here.")
    try:
        send_test(channel.url, title, body, config.alert_allow_local)
    except ChannelError as error:
        return _fail(f"not delivered: {error}")
    print("delivered")
    return 0


def _remove(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from sqlalchemy import delete

    from infoscreen_server.db import writing
    from infoscreen_server.models_alerts import AlertChannel

    with writing(engine) as connection:
        if connection.execute(delete(AlertChannel).where(AlertChannel.name == options.name)).rowcount == 0:
            return _fail("name: there is no such channel")
    print(f"channel {options.name} removed")
    return 0
