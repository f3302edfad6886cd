"""The agent's configuration: a TOML file and four environment variables become frozen dataclasses, once, at the start.

All that is wrong with it is told at once. Nothing else reads the file, the secrets or the environment.
"""

import grp
import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from infoscreen_device.core.model import Expectation, Way
from infoscreen_device.core.policy import STEPS, RestartPolicy
from infoscreen_device.expectation import read_expectation
from infoscreen_device.screen_settings import read_pictures, read_screen
from infoscreen_device.settings import (
    DAY_S,
    BrokerConfig,
    ClientConfig,
    ClockConfig,
    Config,
    ControlConfig,
    HttpConfig,
    OutboxConfig,
    PicturesConfig,
    ReportConfig,
)
from infoscreen_device.table import Table, did_you_mean
from infoscreen_device.uplinks import os_reason, read_broker, read_http
from infoscreen_shared.messages import LogLevel
from infoscreen_shared.topics import is_uuid

__all__ = [
    "BrokerConfig",
    "ClientConfig",
    "ClockConfig",
    "Config",
    "ConfigError",
    "ControlConfig",
    "HttpConfig",
    "OutboxConfig",
    "Places",
    "ReportConfig",
    "RestartPolicy",
    "config_from",
    "load_config",
    "places",
]

DEFAULT_PATH = Path("/etc/infoscreen-watchdog/config.toml")
MAX_FILE_BYTES = 1_000_000

_SIZE = re.compile(r"([0-9]{1,12}) ?(B|kB|MB|GB|KiB|MiB|GiB)")
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
DEFAULTS = Config()
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
MAX_SOCKET_PATH = 107
"""sun_path of unix(7), without the closing NUL."""


class ConfigError(Exception):
    """All that is wrong with the configuration, each problem with its dotted path and the mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Reads the file (without `path`: the default one if there is one), then lets the environment win.

    Raises ConfigError.
    """
    return config_from(_document(path), environ)


class Places(NamedTuple):
    socket: Path
    state_dir: Path


def places(path: Path | None) -> Places:
    """Where the agent listens and keeps its files, for commands that need no more of the settings than that.

    Never fails: who only talks to the agent may be unable to read its secrets, or its file.
    """
    try:
        document = _document(path)
    except ConfigError:
        document = {}
    control = document.get("control")
    socket = Table(control if isinstance(control, dict) else {}, []).path("socket", DEFAULTS.control.socket)
    return Places(socket, Table(document, []).path("state_dir", DEFAULTS.state_dir))


def _document(path: Path | None) -> dict[str, Any]:
    if path is None and not os.path.lexists(DEFAULT_PATH):
        return {}
    return _read(path or DEFAULT_PATH)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise ConfigError([f"{path}: {reason}"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: larger than {MAX_FILE_BYTES} bytes"])
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: not UTF-8 (at line {line})"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: nested too deeply"]) from None
    except ValueError as error:  # TOMLDecodeError names line and column itself
        raise ConfigError([f"{path}: {error}"]) from None


def config_from(document: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """The configuration out of a parsed document. Raises ConfigError, and nothing else, whatever the document holds."""
    root = Table(document, [])
    environ = {name: value for name, value in environ.items() if value.strip()}
    credentials = Path(environ["CREDENTIALS_DIRECTORY"]) if "CREDENTIALS_DIRECTORY" in environ else None
    config = Config(
        client=_client(root.table("client"), environ),
        state_dir=root.path("state_dir", DEFAULTS.state_dir),
        enabled=_enabled(root, environ),
        broker=read_broker(root.table("broker"), environ, credentials),
        http=read_http(root.table("http"), credentials),
        outbox=_outbox(root.table("outbox")),
        clock=_clock(root.table("clock")),
        player=_player(root.table("player")) if root.has("player") else None,
        restart=_restart(root.table("restart"), environ),
        report=_report(root.table("report")),
        control=_control(root.table("control")),
        screen=read_screen(root.table("screen")),
        pictures=_pictures(root.table("pictures")),
    )
    root.finish()
    if root.problems:
        raise ConfigError(root.problems)
    return config


def _client(table: Table, environ: Mapping[str, str]) -> ClientConfig:
    uuid = table.text("uuid")
    where = table.where("uuid")
    if "CLIENT_UUID" in environ:
        uuid, where = environ["CLIENT_UUID"].strip(), "CLIENT_UUID"
    table.finish()
    if uuid is not None and not is_uuid(uuid.lower()):
        table.problems.append(f"{where}: expected a uuid such as 0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11")
        return ClientConfig()
    return ClientConfig(uuid and uuid.lower())


def _enabled(root: Table, environ: Mapping[str, str]) -> bool:
    enabled = root.flag("enabled", DEFAULTS.enabled)
    word = environ.get("WATCHDOG_ENABLED", "").strip().lower()
    if word and word not in _YES | _NO:
        root.problems.append("WATCHDOG_ENABLED: expected true or false")
    return word in _YES if word in _YES | _NO else enabled


def _outbox(table: Table) -> OutboxConfig:
    default = DEFAULTS.outbox
    inner = table.table("deadline_s")
    deadlines = {level: inner.number(level.lower(), default.deadline_s[level], 0, 3_600) for level in LogLevel}
    inner.finish()
    days = table.number("max_age_days", default.max_age_s / DAY_S, 0.01, 3_650)
    max_bytes = _size(table, "max_size", default.max_bytes, 2**16, 2**40)
    table.finish()
    return OutboxConfig(max_bytes, days * DAY_S, MappingProxyType(deadlines))


def _size(table: Table, name: str, default: int, low: int, high: int) -> int:
    value = table.raw(name)
    if value is None:
        return default
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        value = int(match[1]) * _UNITS[match[2]]
    if type(value) is not int:
        table.fault(name, 'expected a size such as "64MiB", or a number of bytes')
        return default
    if not low <= value <= high:
        table.fault(name, f"expected a size from {low >> 10} KiB to {high >> 30} GiB")
        return default
    return value


def _clock(table: Table) -> ClockConfig:
    default = DEFAULTS.clock
    clock = ClockConfig(
        trusted=table.flag("trusted", default.trusted),
        max_wait_s=table.number("max_wait_s", default.max_wait_s, 0, DAY_S),
    )
    table.finish()
    return clock


def _player(table: Table) -> Expectation:
    player = read_expectation(table, "config", with_pid=False)
    table.finish()
    uid = _uid(table, player.user)
    if player.restart.way in (Way.ARGV, Way.USER_UNIT) and (player.user is None or uid == 0):
        table.fault("user", "name the user whose rights the restart is to have (never root)")
    return player


def _uid(table: Table, user: str | None) -> int | None:
    if user is None:
        return None
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        table.fault("user", f"there is no user {user} on this machine")
        return None


def _restart(table: Table, environ: Mapping[str, str]) -> RestartPolicy:
    default = DEFAULTS.restart
    policy = RestartPolicy(
        max_restarts=_max_restarts(table, environ),
        window_s=table.number("window_s", default.window_s, 1, DAY_S),
        backoff_first_s=table.number("backoff_first_s", default.backoff_first_s, 0.01, 3_600),
        backoff_cap_s=table.number("backoff_cap_s", default.backoff_cap_s, 0.01, 3_600),
        slow_retry_s=table.number("slow_retry_s", default.slow_retry_s, 1, DAY_S),
        stable_s=table.number("stable_s", default.stable_s, 0.1, DAY_S),
        stopped_after_s=table.number("stopped_after_s", default.stopped_after_s, 0, DAY_S),
        start_timeout_s=table.number("start_timeout_s", default.start_timeout_s, 0.1, 3_600),
        command_timeout_s=table.number("command_timeout_s", default.command_timeout_s, 0.1, 3_600),
        stop_timeout_s=table.number("stop_timeout_s", default.stop_timeout_s, 0, 600),
        ladder=_ladder(table),
        session_unit=table.text("session_unit", limit=255),
    )
    if policy.backoff_cap_s < policy.backoff_first_s:
        table.fault("backoff_cap_s", "is less than backoff_first_s")
    if "session" in policy.ladder and policy.session_unit is None:
        table.fault("session_unit", 'is missing: the rung "session" needs a unit, such as lightdm.service')
    table.finish()
    return policy


def _max_restarts(table: Table, environ: Mapping[str, str]) -> int:
    value = table.integer("max_restarts", DEFAULTS.restart.max_restarts, 1, 100)
    word = environ.get("MAX_RESTARTS", "").strip()
    if not word:
        return value
    if not re.fullmatch(r"[0-9]{1,3}", word) or not 1 <= int(word) <= 100:
        table.problems.append("MAX_RESTARTS: expected a whole number from 1 to 100")
        return value
    return int(word)


def _ladder(table: Table) -> tuple[str, ...]:
    rungs = table.texts("ladder")
    unknown = [rung for rung in rungs if rung not in STEPS]
    if unknown:
        hint = did_you_mean(unknown[0], STEPS)
        table.fault("ladder", f"expected some of {', '.join(STEPS)}{hint}")
    elif list(rungs) != [step for step in STEPS if step in rungs]:
        table.fault("ladder", f"expected each rung once, in the order {', '.join(STEPS)}")
    elif table.raw("ladder") == []:
        table.fault("ladder", 'is empty: to restart nothing write restart = "none" in [player] or enabled = false')
    return rungs or DEFAULTS.restart.ladder


def _pictures(table: Table) -> PicturesConfig:
    return read_pictures(table, _size(table, "max_size", DEFAULTS.pictures.max_bytes, 2**16, 2**40))


def _report(table: Table) -> ReportConfig:
    default = DEFAULTS.report
    report = ReportConfig(
        table.number("heartbeat_s", default.heartbeat_s, 0.1, 3_600),
        table.number("health_s", default.health_s, 0.1, 3_600),
    )
    table.finish()
    return report


def _control(table: Table) -> ControlConfig:
    control = ControlConfig(
        table.path("socket", DEFAULTS.control.socket), table.text("group", limit=32), table.texts("units")
    )
    table.finish()
    if len(str(control.socket).encode()) > MAX_SOCKET_PATH:
        table.fault("socket", f"longer than the {MAX_SOCKET_PATH} bytes that a Unix socket's path may have")
    if control.group is not None:
        try:
            grp.getgrnam(control.group)
        except KeyError:
            table.fault("group", f"there is no group {control.group} on this machine")
    return control
