"""The command `infoscreen-watchdog`: reads arguments, calls what does the work, prints, and gives the exit code.

Imports what a verb needs only when it runs: the agent stays for months, `status` is called in a hurry.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from infoscreen_device.client import Watchdog, WatchdogAwayError, WatchdogError
from infoscreen_device.config import DEFAULT_PATH, ConfigError, load_config, places
from infoscreen_shared import __version__

EXIT_OK, EXIT_FAILED, EXIT_AWAY, EXIT_CONFIG = 0, 1, 3, 78
"""3: the program is not running (LSB); 78: EX_CONFIG of sysexits.h. argparse itself exits with 2."""

EXIT_CODES = """exit codes:
  0  done
  1  refused or failed; the reason is on standard error
  2  wrong arguments
  3  the agent is not running
  78 wrong configuration"""


def entry() -> NoReturn:
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        code = verb(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        return EXIT_CONFIG
    except WatchdogAwayError as error:
        _complain(f"no agent answers at {error}")
        if isinstance(error.__cause__, PermissionError):
            _complain("you may not use its socket: use sudo, or join the group of control.group")
            return EXIT_FAILED
        _complain("is it running? Look with: systemctl status infoscreen-watchdog")
        return EXIT_AWAY
    except WatchdogError as error:
        _complain(str(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_OK
    except BrokenPipeError:
        # `… | head` has seen enough. Python would complain once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _complain(text: str) -> None:
    print(f"infoscreen-watchdog: {text}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help=f"settings, by default {DEFAULT_PATH}")
    parser = argparse.ArgumentParser(
        prog="infoscreen-watchdog",
        description="Keeps the player of this kiosk alive and tells the server what it saw.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, verb: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(verb=verb)
        return added

    add("run", _run, "run the agent (systemd does it)")
    add("check-config", _check_config, "tell everything that is wrong with the settings")
    status = add("status", _status, "show what should play, what does, and what waits for the server")
    status.add_argument("--json", action="store_true", help="the whole status, for programs")
    _add_screen(add("screen", _screen, "look at the screen now, and say what is wrong with the picture, if anything"))
    shot = add("screenshot", _screenshot, "take a picture of the screen")
    shot.add_argument("-o", "--output", type=Path, metavar="FILE", help="PNG, or JPEG if FILE ends in .jpg")
    _add_expect(add("expect", _expect, "say what should be playing from now on"))
    add("clear", _clear, "say that nothing should be playing any more")
    outbox = verbs.add_parser("outbox", help="look at the records that the server does not have yet")
    _add_outbox(outbox.add_subparsers(required=True, metavar="VERB"), common)
    polkit = add("polkit", _polkit, "show what the system has to allow the agent, as a polkit rule")
    polkit.add_argument("--write", action="store_true", help="put it in place, as the service does at its start")
    add("version", _version, "print the version")
    return parser


def _add_expect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clear", action="store_true", help="nothing should be playing any more")
    parser.add_argument("--process", metavar="NAME", help="the player's process, such as vlc")
    parser.add_argument("--event-id", type=int, metavar="N", help="the event's number, as the server's people know it")
    parser.add_argument("--type", metavar="TYPE", help="video, website or presentation")
    parser.add_argument("--pid", type=int, metavar="N", help="the player's process id, if it is known")
    parser.add_argument(
        "--restart",
        metavar="HOW",
        help='"unit:NAME", "user-unit:NAME", "handler", "none", or a command line such as "mpv --fs film.mkv"',
    )
    parser.add_argument("--cmdline", metavar="LINE", help="only a process with exactly these arguments is the player")
    parser.add_argument(
        "--motion", metavar="HOW", help='how much of the picture moves: none, clock, ticker, video, "within: 30 s"'
    )
    parser.add_argument("--user", metavar="NAME", help="the player's owner; root names here whose rights a restart has")


def _add_screen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="go on, a look every two seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="with all numbers, for programs")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="FILE",
        help="also write a PNG with the tiles and the ignored regions drawn on it",
    )
    parser.add_argument(
        "--remember",
        metavar="NAME",
        help="print the setting by which this picture is known to be wrong",
    )
    parser.add_argument(
        "--learn",
        type=float,
        metavar="SECONDS",
        help="watch a picture that is known to be good, and print the regions where a clock moves, for [screen] ignore",
    )


def _add_outbox(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser) -> None:
    texts: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
        "stats": (_outbox_stats, "show how many records wait in which lane"),
        "export": (_outbox_export, "write all records to standard output, one JSON object a line"),
        "vacuum": (_outbox_vacuum, "give unused space back to the disk, while the agent is stopped"),
    }
    for name, (verb, text) in texts.items():
        added = verbs.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(verb=verb)
        if name == "stats":
            added.add_argument("--json", action="store_true", help="for programs")


# --- the verbs --------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    config = load_config(options.config, os.environ)
    from infoscreen_device.agent import run

    return run(config, os.environ)


def _check_config(options: argparse.Namespace) -> int:
    load_config(options.config, os.environ)
    path = options.config or DEFAULT_PATH
    print(f"{path}: no problem found" if path.exists() else f"{path} does not exist: all settings have their defaults")
    return EXIT_OK


def _status(options: argparse.Namespace) -> int:
    from infoscreen_device.show import status_table

    status = _agent(options).status() or {}
    print(json.dumps(status, indent=2, ensure_ascii=False) if options.json else status_table(status))
    return EXIT_OK


def _screen(options: argparse.Namespace) -> int:
    from infoscreen_device import screen_cli

    return screen_cli.screen(places(options.config).socket, options)


def _screenshot(options: argparse.Namespace) -> int:
    from infoscreen_device import screen_cli

    return screen_cli.screenshot(places(options.config).socket, options)


def _expect(options: argparse.Namespace) -> int:
    if options.clear:
        return _clear(options)
    if options.process is None:
        _complain("expect needs --process NAME (or --clear)")
        return 2
    try:
        restart = _restart(options.restart)
        cmdline = None if options.cmdline is None else shlex.split(options.cmdline)
    except ValueError as error:
        _complain(f"--restart and --cmdline are command lines: {error}")
        return 2
    _agent(options).expect(
        options.process,
        event_id=options.event_id,
        type=options.type,
        pid=options.pid,
        restart=restart,
        cmdline=cmdline,
        user=options.user,
        motion=options.motion,
    )
    return EXIT_OK


def _restart(text: str | None) -> str | list[str] | None:
    """What has a space or a slash is a command; a single word is one of the notation's, or a slip to be told about.

    >>> _restart("unit:kiosk"), _restart("mpv 'my film.mkv'")
    ('unit:kiosk', ['mpv', 'my film.mkv'])
    """
    if text is None or not set(text) & {" ", "/"} or text.startswith(("unit:", "user-unit:")):
        return text
    return shlex.split(text)


def _clear(options: argparse.Namespace) -> int:
    _agent(options).clear()
    return EXIT_OK


def _agent(options: argparse.Namespace) -> Watchdog:
    return Watchdog(str(places(options.config).socket), strict=True)


def _outbox_stats(options: argparse.Namespace) -> int:
    from infoscreen_device import outbox_file

    def show() -> None:
        found = outbox_file.stats(places(options.config).state_dir)
        print(json.dumps(found, indent=2) if options.json else outbox_file.stats_table(found))

    return _with_outbox(show)


def _outbox_export(options: argparse.Namespace) -> int:
    from infoscreen_device import outbox_file

    def write() -> None:
        for line in outbox_file.export(places(options.config).state_dir):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    return _with_outbox(write)


def _outbox_vacuum(options: argparse.Namespace) -> int:
    from infoscreen_device import outbox_file
    from infoscreen_device.show import size

    def compact() -> None:
        before, after = outbox_file.vacuum(places(options.config).state_dir)
        print(f"{size(before)} before, {size(after)} now")

    return _with_outbox(compact)


def _with_outbox(work: Callable[[], None]) -> int:
    from infoscreen_device.outbox_file import OutboxFileError

    try:
        work()
    except OutboxFileError as error:
        _complain(str(error))
        return EXIT_FAILED
    return EXIT_OK


def _polkit(options: argparse.Namespace) -> int:
    from infoscreen_device import polkit

    text = polkit.rules(load_config(options.config, os.environ))
    if options.write:
        try:
            polkit.write(text)
        except OSError as error:
            _complain(f"{error.filename}: {error.strerror}")
            return EXIT_FAILED
        return EXIT_OK
    print((text or "// With these settings the agent restarts nothing by systemd: no rule is needed.").rstrip())
    return EXIT_OK


def _version(_options: argparse.Namespace) -> int:
    print(f"infoscreen-watchdog {__version__}")
    return EXIT_OK
