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
    from sqlalchemy import Engine


def add_verbs(verb: AddVerb) -> None:
    """`verb(name, work, text, under)` adds one."""
    channels = verb("channel", None, "Where alerts are sent.").add_subparsers(required=True, metavar="VERB")
    text = "Add a channel; its Apprise URL (mailto://, slack://, json://, …) is asked for, or read from standard input."
    verb("add", _add, text, channels).add_argument("name")
    text = "Give a channel another URL, asked for or read likewise; what waits for the channel is sent there."
    verb("set-url", _set_url, text, channels).add_argument("name")
    verb("list", _list, "List the channels, without their secrets.", channels)
    verb("test", _test, "Send a test message and say what came of it.", channels).add_argument("name")
    text = "Remove a channel; what waits for it is given up. A rule that sent only there sends to all channels then."
    verb("remove", _remove, text, channels).add_argument("name")


def _add(engine: "Engine", config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.alerts import settings
    from infoscreen_server.alerts.channels import shown

    url = _url()
    settings.add_channel(engine, options.name, url, datetime.now(UTC), allow_local=config.alert_allow_local)
    print(f"channel {options.name} added, {shown(url)}")
    return 0


def _set_url(engine: "Engine", config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.alerts import settings
    from infoscreen_server.alerts.channels import shown

    with engine.connect() as connection:
        number = settings.channel_named(connection, options.name)
    url = _url()
    settings.change_url(engine, number, url, datetime.now(UTC), allow_local=config.alert_allow_local)
    print(f"channel {options.name} changed, {shown(url)}")
    return 0


def _url() -> str:
    return (getpass.getpass("URL: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()


def _list(engine: "Engine", _config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server.alerts.settings import channel_list

    with engine.connect() as connection:
        for each in channel_list(connection):
            print(f"{each.name}\t{each.shown}")
    return 0


def _test(engine: "Engine", config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.alerts import settings
    from infoscreen_server.alerts.channels import ChannelError
    from infoscreen_server.alerts.deliver import send_test
    from infoscreen_server.i18n import gettext, speaking

    with engine.connect() as connection:
        _name, url = settings.channel_to_test(connection, settings.channel_named(connection, options.name))
    with speaking(config.language):
        title = gettext("Test of the channel %(name)s", name=options.name)
        body = gettext("Alerts of the infoscreens will arrive here.")
    try:
        send_test(url, title, body, config.alert_allow_local)
    except ChannelError as error:
        print(f"infoscreen-server: not delivered: {error}", file=sys.stderr)
        return 1
    print("delivered")
    return 0


def _remove(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.alerts import settings

    with engine.connect() as connection:
        number = settings.channel_named(connection, options.name)
    settings.delete_channel(engine, number)
    print(f"channel {options.name} removed")
    return 0
