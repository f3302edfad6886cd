"""What should be playing, as people and programs write it: [player] in the configuration and `expect` on the socket.

The notation only. Who may ask for what is checked where the request comes in (control.py).
"""

import re

from infoscreen_device.core.model import Expectation, Restart, Way
from infoscreen_device.core.picture import Expected, Motion
from infoscreen_device.table import Table, did_you_mean, text_fault
from infoscreen_shared.messages import MAX_SEQ, EventType

# systemd.unit(5): the characters of a unit name. It may not begin with a dash: systemctl would see an option.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")

MAX_PID = 2**22
"""PID_MAX_LIMIT of 64-bit kernels, proc_sys_kernel(5)."""
MAX_VALUE = 8_192

_WORDS = ("unit:NAME", "user-unit:NAME", "handler", "none")
RESTART_FORMS = 'expected "unit:NAME", "user-unit:NAME", "handler", "none" or a list ["program", "argument", …]'


def parse_restart(value: object) -> Restart:
    """The notation of `restart`, the same everywhere. Raises ValueError with what was expected.

    >>> parse_restart("unit:kiosk.service").unit
    'kiosk.service'
    >>> parse_restart(["mpv", "film.mkv"]).argv
    ('mpv', 'film.mkv')
    """
    if isinstance(value, list | tuple):
        if not value or len(value) > 256:
            raise ValueError("expected a list of 1 to 256 texts")
        for position, item in enumerate(value):
            problem = text_fault(item)
            if problem is not None:
                raise ValueError(f"item {position + 1}: {problem}")
        return Restart(Way.ARGV, argv=tuple(value))
    if not isinstance(value, str):
        raise ValueError(RESTART_FORMS)
    if value in (Way.HANDLER, Way.NONE):
        return Restart(Way(value))
    way, colon, unit = value.partition(":")
    if way in (Way.UNIT, Way.USER_UNIT) and colon:
        if not _UNIT.fullmatch(unit):
            raise ValueError(f"{way}: expected the name of a systemd unit after the colon")
        return Restart(Way(way), unit=unit)
    raise ValueError(RESTART_FORMS + did_you_mean(way, [word.partition(":")[0] for word in _WORDS]))


_WITHIN = re.compile(r"within: ?([0-9]{1,6}(?:\.[0-9]{1,3})?) ?s")
MOTION_FORMS = 'expected "none", "clock", "ticker", "video" or "within: SECONDS s"'


def parse_motion(value: object) -> Expected:
    """How much of the picture is to move. Raises ValueError with what was expected.

    >>> parse_motion("within: 90 s").within_s
    90.0
    """
    if isinstance(value, str):
        match = _WITHIN.fullmatch(value)
        if match is not None and float(match[1]) >= 1:
            return Expected(Motion.WITHIN, float(match[1]))
        if value in list(Motion) and value != Motion.WITHIN:
            return Expected(Motion(value))
    raise ValueError(MOTION_FORMS + (did_you_mean(value, list(Motion)) if isinstance(value, str) else ""))


def motion_text(expected: Expected) -> str:
    """
    >>> motion_text(Expected(Motion.WITHIN, 90.0))
    'within: 90 s'
    """
    return str(expected.motion) if expected.within_s is None else f"within: {expected.within_s:g} s"


def _motion(table: Table) -> Expected | None:
    value = table.raw("motion")
    if value is None:
        return None
    try:
        return parse_motion(value)
    except ValueError as error:
        table.fault("motion", str(error))
        return None


def _environment(table: Table) -> tuple[tuple[str, str], ...]:
    inner = table.table("environment")
    found: list[tuple[str, str]] = []
    for name in inner.names():
        value = inner.raw(name)
        if not _VARIABLE.fullmatch(name):
            inner.fault(name, "not a name of an environment variable")
        elif not isinstance(value, str) or len(value) > MAX_VALUE or "\0" in value or not _encodable(value):
            inner.fault(name, f"expected text of at most {MAX_VALUE} characters")
        else:
            found.append((name, value))
    return tuple(found)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _restart(table: Table) -> Restart:
    value = table.raw("restart")
    if value is None:
        return Restart()
    try:
        return parse_restart(value)
    except ValueError as error:
        table.fault("restart", str(error))
        return Restart()


def _process(table: Table) -> str:
    name = table.text("process", limit=255)
    if name is None:
        if not table.has("process"):
            table.fault("process", "is missing: name the player's process, such as mpv")
        return ""
    if "/" in name:
        table.fault("process", "expected the name of the program without its directory")
    return name


def read_expectation(table: Table, source: str, *, with_pid: bool) -> Expectation:
    """Reads all fields of an expectation; problems are in `table.problems`, and then the result is not to be used.

    `Restart.user` is the `user` field; the socket's side sets it by the kernel's word.
    """
    user = table.text("user", limit=32)
    restart = _restart(table)
    restart = Restart(
        restart.way,
        restart.unit,
        restart.argv,
        user,
        _environment(table),
        None if (directory := table.path("directory")) is None else str(directory),
    )
    return Expectation(
        process=_process(table),
        event_id=table.integer("event_id", None, 0, MAX_SEQ),
        event_type=table.choice("type", EventType),
        pid=table.integer("pid", None, 1, MAX_PID) if with_pid else None,
        cmdline=table.texts("cmdline"),
        user=user,
        restart=restart,
        motion=_motion(table),
        source=source,
    )
