"""The command `infoscreen-server`: reads arguments and settings, calls the part that is meant, prints.

Only this module, cli_accounts, cli_alerts and cli_clients print. Each command imports what it needs when it runs, so
that the small ones stay quick and `run`, which only watches over processes, stays small.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from infoscreen_server import cli_accounts, cli_alerts, cli_clients
from infoscreen_server.config import DEFAULT_PATH, ConfigError, ServerConfig, load
from infoscreen_shared import __version__

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from infoscreen_server.cli_accounts import AccountWork

EX_UNAVAILABLE, EX_CONFIG = 69, 78  # sysexits.h
EX_INTERRUPTED = 130  # as a shell says it

Command = Callable[[ServerConfig, argparse.Namespace], int]
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def entry() -> NoReturn:
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = EX_INTERRUPTED
    except BrokenPipeError:
        # Whoever read has enough. What is left to write must not fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 78 for wrong settings, 69 for a database that does not answer."""
    options = _parser().parse_args(argv)
    if options.verb == "version":
        return _version()
    if getattr(options, "parent", None) is not None:
        from infoscreen_server.supervise import die_with

        die_with(options.parent)
    _log_to_stderr()
    try:
        config = load(getattr(options, "config", None), os.environ)
    except ConfigError as error:
        for problem in error.problems:
            print(f"infoscreen-server: {problem}", file=sys.stderr)
        return EX_CONFIG
    command: Command = options.command
    return command(config, options)


def _log_to_stderr() -> None:
    """The journal stamps the time itself; elsewhere it is in the line."""
    when = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(level=logging.INFO, format=f"{when}%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=f"settings (default: {DEFAULT_PATH})"
    )
    parser = argparse.ArgumentParser(prog="infoscreen-server", parents=[shared], description="The admins' side.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb")

    def verb(name: str, command: object, text: str, under: Verbs = verbs) -> argparse.ArgumentParser:
        added = under.add_parser(name, parents=[shared], help=text, description=text)
        added.set_defaults(command=command)
        return added

    whole = verb("run", _run, "Web, ingest, alerts and housekeeping in one, after bringing the database up to date.")
    whole.add_argument("--no-migrate", action="store_true", help="leave the database's schema as it is")
    for name, command, text in (
        ("web", _web, "The API alone."),
        ("ingest", _ingest, "The MQTT side alone."),
        ("alerts", _alerts, "Alerts and their delivery alone."),
        ("housekeeping", _housekeeping, "Counters and retention alone."),
    ):
        verb(name, command, text).add_argument("--parent", type=int, help=argparse.SUPPRESS)
    migrate = verb("migrate", _migrate, "Bring the database's schema up to date.")
    migrate.add_argument("--to", metavar="REV", default="head", help="another revision, older ones too (base: empty)")
    migrate.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    verb("prune", _prune, "Delete what is older than the retention, now.")
    verb("version", None, "Print the version.")
    _account_verbs(verb)
    return parser


def _account_verbs(verb: Callable[..., argparse.ArgumentParser]) -> None:
    def add(name: str, work: "AccountWork | None", text: str, *under: Verbs) -> argparse.ArgumentParser:
        return verb(name, None if work is None else _with_accounts(work), text, *under)

    cli_accounts.add_verbs(add)
    cli_alerts.add_verbs(add)
    cli_clients.add_verbs(add)


def _with_accounts(work: "AccountWork") -> Command:
    return lambda config, options: _on_database(config, lambda engine: work(engine, config, options))


def _fail(text: str, code: int = 1) -> int:
    print(f"infoscreen-server: {text}", file=sys.stderr)
    return code


def _version() -> int:
    print(f"infoscreen-server {__version__}")
    return 0


# --- the parts --------------------------------------------------------------------------------------------------------


def _run(config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import supervise

    return supervise.run(config, getattr(options, "config", None), migrate=not options.no_migrate)


def _web(config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server import wsgi

    wsgi.serve(config)
    return 0


def _ingest(config: ServerConfig, _options: argparse.Namespace) -> int:
    if config.mqtt is None:
        return _fail("MQTT_BROKER: there is no broker to listen to", EX_CONFIG)
    from infoscreen_server import ingest

    return ingest.run(config)


def _alerts(config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server.alerts import service

    return service.run(config)


def _housekeeping(config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server import housekeeping

    return housekeeping.run(config)


# --- the database -----------------------------------------------------------------------------------------------------


def _on_database(config: ServerConfig, work: "Callable[[Engine], int]") -> int:
    """Do `work` and put what can go wrong with a database, or with what was asked for, in one line."""
    from sqlalchemy.exc import DBAPIError

    from infoscreen_server.db import DatabaseError, make_engine
    from infoscreen_server.wording import FieldError

    try:
        engine = make_engine(config.database_url, hide_parameters=True)
        try:
            return work(engine)
        finally:
            engine.dispose()
    except FieldError as error:
        return _fail(str(error))
    except DatabaseError as error:
        return _fail(str(error), EX_UNAVAILABLE)
    except UnicodeError:
        return _fail("what was given is not UTF-8")
    except EOFError:
        return _fail("nothing was given")
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _fail(f"{error.filename or 'database'}: {error.strerror}", EX_UNAVAILABLE)
    except DBAPIError as error:
        reason = str(error.orig).partition("\n")[0]
        return _fail(f"database: {reason} (no tables yet? infoscreen-server migrate)", EX_UNAVAILABLE)


def _migrate(config: ServerConfig, options: argparse.Namespace) -> int:
    from infoscreen_server import db

    def work(engine: "Engine") -> int:
        back = _is_older(options.to, db.revision(engine))
        copy = None if back else db.back_up(engine)
        if copy is not None:
            print(f"the database as it was is in {copy}")
        (db.downgrade if back else db.upgrade)(config.database_url, options.to)
        print(f"the database is at {db.revision(engine) or 'base'}")
        return 0

    return _on_database(config, work)


def _is_older(target: str, current: str | None) -> bool:
    """Whether the way to `target` goes back."""
    from alembic.script import ScriptDirectory

    from infoscreen_server.db import MIGRATIONS

    if target == "base" or target.startswith("-"):
        return True
    if current is None:
        return False
    below = [each.revision for each in ScriptDirectory(str(MIGRATIONS)).walk_revisions("base", current)][1:]
    return any(each.startswith(target) for each in below)


def _prune(config: ServerConfig, _options: argparse.Namespace) -> int:
    from infoscreen_server import housekeeping

    def work(engine: "Engine") -> int:
        print(f"{housekeeping.prune(engine, config, datetime.now(UTC))} rows deleted")
        return 0

    return _on_database(config, work)
