"""The command's verbs for people and keys: their arguments, and what they print.

The rules are in accounts, users and set_up; the database is opened by cli, which also words what goes wrong.
"""

import argparse
import getpass
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from infoscreen_server.config import ServerConfig

if TYPE_CHECKING:
    from sqlalchemy import Engine

AccountWork = Callable[["Engine", ServerConfig, argparse.Namespace], int]
AddVerb = Callable[..., argparse.ArgumentParser]

ROLES = ("user", "admin", "superadmin")


def add_verbs(verb: AddVerb) -> None:
    """`verb(name, work, text, under)` adds one."""
    _user_verbs(verb)
    set_up = verb("set-up", _set_up, "Print a link, good for 24 hours and once, by which one chooses a password.")
    set_up.add_argument(
        "--reset", metavar="NAME", help="for this user; default: for the first superadmin, while there is none"
    )
    _token_verbs(verb)


def _user_verbs(verb: AddVerb) -> None:
    users = verb("user", None, "People who sign in.").add_subparsers(required=True, metavar="VERB")
    user = verb("add", _user_add, "Add a user; the password is asked for, or read from standard input.", users)
    user.add_argument("name")
    user.add_argument("--role", required=True, choices=ROLES)
    verb("list", _user_list, "List all users.", users)
    password = verb("password", _user_password, "Give a user another password, asked for or read likewise.", users)
    password.add_argument("name")
    role = verb("role", _user_role, "Give a user another role.", users)
    role.add_argument("name")
    role.add_argument("role", choices=ROLES)
    verb("disable", _user_disable, "Shut a user out.", users).add_argument("name")
    verb("enable", _user_enable, "Let a user in again.", users).add_argument("name")


def _token_verbs(verb: AddVerb) -> None:
    tokens = verb("token", None, "Keys for programs and kiosks.").add_subparsers(required=True, metavar="VERB")
    token = verb("add", _token_add, "Make a token and print it, this once.", tokens)
    token.add_argument("name")
    token.add_argument("--role", required=True, choices=(*ROLES, "device"))
    token.add_argument("--client", metavar="UUID", help="the kiosk that a device token is bound to")
    token.add_argument("--expires-days", type=_days, metavar="N", help="default: never")
    token.add_argument(
        "--scope", choices=("all", "read", "metrics"), default="all", help="what of its role it is good for"
    )
    verb("list", _token_list, "List all tokens, without their secrets.", tokens)
    revoke = verb("revoke", _token_revoke, "End a token, by its prefix as `token list` shows it.", tokens)
    revoke.add_argument("prefix")


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 3650:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 3650")
    return int(text)


# --- people -----------------------------------------------------------------------------------------------------------


def _password() -> str:
    """Asked for twice at a terminal, else one line of standard input; never an argument, which all users can see."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    from infoscreen_server.accounts import AccountError

    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise AccountError("password", "the two differ")
    return password


def _user_add(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.accounts import add_user
    from infoscreen_server.models import Role

    add_user(engine, options.name, _password(), Role(options.role), datetime.now(UTC))
    print(f"user {options.name} added, {options.role}")
    return 0


def _user_list(engine: "Engine", _config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server.users import everyone

    for person in everyone(engine, datetime.now(UTC)):
        state = "disabled" if person.disabled else "link not used yet" if person.waiting else "enabled"
        used = "not signed in" if person.last_used is None else f"last seen {person.last_used:%Y-%m-%d %H:%M}"
        print("\t".join((person.name, person.role, state, used)))
    return 0


def _user_password(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import users

    users.set_password(engine, _id_of(engine, options.name), _password())
    print(f"user {options.name} has another password; all sessions ended")
    return 0


def _user_role(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import users
    from infoscreen_server.models import Role

    users.set_role(engine, _id_of(engine, options.name), Role(options.role), datetime.now(UTC))
    print(f"user {options.name} is {options.role} now")
    return 0


def _user_disable(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import users

    users.set_disabled(engine, _id_of(engine, options.name), True, datetime.now(UTC))
    print(f"user {options.name} disabled")
    return 0


def _user_enable(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import users

    users.set_disabled(engine, _id_of(engine, options.name), False, datetime.now(UTC))
    print(f"user {options.name} enabled")
    return 0


def _id_of(engine: "Engine", name: str) -> int:
    from infoscreen_server.users import named

    return named(engine, name, datetime.now(UTC)).id


def _set_up(engine: "Engine", config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import set_up

    now = datetime.now(UTC)
    if options.reset is None:
        token = set_up.for_first(engine, now)
    else:
        token = set_up.for_user(engine, _id_of(engine, options.reset), now)
    print(set_up.address(config.public_url or _own_address(config), token))
    return 0


def _own_address(config: ServerConfig) -> str:
    """Where the web part listens; for one that listens on all addresses, by this machine's own."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.listen_host, config.listen_host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{config.listen_port}"


# --- keys -------------------------------------------------------------------------------------------------------------


def _token_add(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.accounts import add_token
    from infoscreen_server.models import Scope, TokenRole

    now = datetime.now(UTC)
    expires = None if options.expires_days is None else now + timedelta(days=options.expires_days)
    client = options.client and options.client.lower()
    role, scope = TokenRole(options.role), Scope(options.scope)
    print(add_token(engine, options.name, role, now=now, client_uuid=client, expires_at=expires, scope=scope))
    return 0


def _token_list(engine: "Engine", _config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server.accounts import tokens

    for token in tokens(engine):
        print("\t".join(token))
    return 0


def _token_revoke(engine: "Engine", _config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server.accounts import revoke_token

    revoke_token(engine, options.prefix, datetime.now(UTC))
    print(f"token {options.prefix} revoked")
    return 0
