"""The server's settings: read from TOML and environment, checked whole, then frozen.

Reports every mistake at once. Opens nothing but the files that are named: whether the database or the broker answers is
for those who use them.
"""

import difflib
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from infoscreen_server.i18n import LANGUAGES

T = TypeVar("T")

DEFAULT_PATH = Path("/etc/infoscreen-server/config.toml")
DEFAULT_DATABASE = "sqlite:////var/lib/infoscreen-server/infoscreen.db"
ENVIRONMENT = {
    "DATABASE_URL": "database_url",
    "DEBUG_MODE": "debug_mode",
    "LOG_RETENTION_DAYS": "log_retention_days",
}
"""Names that win over the file; MQTT_BROKER stands for several settings and is taken apart on its own."""

DATABASES = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
SILENT_HEARTBEATS = 3
"""A client that misses so many is offline."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class ConfigError(Exception):
    """The settings cannot be used; `problems` has one line for each mistake, none of which repeats a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Mqtt:
    host: str = "localhost"
    port: int = 1883
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    client_id: str = "infoscreen-server"
    """Fixed, so that the broker keeps one session for the one ingester and a standby can take it over."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    database_url: str = field(default=DEFAULT_DATABASE, repr=False)
    mqtt: Mqtt | None = field(default_factory=Mqtt)
    """None: no broker, clients use the HTTP door only."""
    listen_host: str = "127.0.0.1"
    listen_port: int = 8000
    web_workers: int = 1
    """Processes behind the one port; each serves many requests and streams at a time."""
    web_connections: int = 1000
    """Open connections at most, per worker."""
    debug_mode: bool = False
    log_retention_days: int = 90
    auto_register: bool = True
    heartbeat_seconds: int = 15
    """What clients are told to keep to."""
    periodic_screenshots_kept: int = 12
    """The newest of each client; 12 are the last hour of a kiosk that sends one every 5 minutes."""
    incident_screenshots_kept: int = 200
    public_url: str | None = None
    """What people type to reach the dashboard: links in messages begin with it."""
    language: str = "en"
    """Of messages, and of pages for a browser that asks for no language that there is."""
    alert_allow_local: bool = False
    """Whether alerts may go to this machine itself and to addresses that only its own network segment knows."""
    dead_man_url: str | None = field(default=None, repr=False)
    """Asked for as long as alerts are looked after, so that someone outside notices when they no longer are."""
    dead_man_seconds: int = 60

    @property
    def silence_s(self) -> float:
        """A client that was not heard of for so many seconds is offline."""
        return float(SILENT_HEARTBEATS * self.heartbeat_seconds)


def load(path: Path | None, environment: Mapping[str, str]) -> ServerConfig:
    """Settings from `path` (None: the default path, if there is such a file) and the environment, which wins.

    Raises ConfigError with every mistake found.
    """
    problems: list[str] = []
    table = _read(path, problems)
    for variable, name in ENVIRONMENT.items():
        if environment.get(variable, "").strip():
            table[name] = _Text(environment[variable], variable)
    mqtt = table.pop("mqtt", {})
    if not isinstance(mqtt, dict):
        problems.append("mqtt: expected a table, [mqtt]")
        mqtt = {}
    _password_file(mqtt, problems)
    values = _take(table, "", _SERVER, problems)
    broker_text = mqtt.pop("broker", None)
    broker = _take(mqtt, "mqtt.", _MQTT, problems)
    try:
        address = _broker(broker_text, environment)
    except _SettingError as wrong:
        problems.append(wrong.text)
        address = {}
    if problems:
        raise ConfigError(problems)
    return ServerConfig(**values, mqtt=None if address is None else Mqtt(**{**broker, **address}))


@dataclass(frozen=True, slots=True)
class _Text:
    """A value from the environment: always text, and known to the reader by the name of its variable."""

    text: str
    variable: str


class _SettingError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _read(path: Path | None, problems: list[str]) -> dict[str, Any]:
    where = path or DEFAULT_PATH
    try:
        text = where.read_text("utf-8")
        mode = where.stat().st_mode
    except FileNotFoundError:
        if path is not None:
            problems.append(f"{where}: no such file")
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        problems.append(f"{where}: cannot be read: {reason}")
        return {}
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{where}: not TOML: {error}")
        return {}
    if mode & stat.S_IROTH and _holds_secret(table):
        problems.append(f"{where}: holds a secret and can be read by everyone; mend it with chmod 640")
    return table


def _holds_secret(table: dict[str, Any]) -> bool:
    mqtt = table.get("mqtt")
    inside = mqtt if isinstance(mqtt, dict) else {}
    urls = [url for url in (table.get("database_url"), inside.get("broker")) if isinstance(url, str)]
    # Whoever knows the URL that is asked for could ask in our place: the whole of it is the secret.
    if "password" in inside or "dead_man_url" in table:
        return True
    return any(_has_password(url) for url in urls)


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None
    except ValueError:
        return False


def _password_file(mqtt: dict[str, Any], problems: list[str]) -> None:
    """`mqtt.password_file` is another way to say `mqtt.password`, for a systemd credential or a file of its own."""
    name = mqtt.pop("password_file", None)
    if name is None:
        return
    if not isinstance(name, str) or "password" in mqtt:
        problems.append("mqtt.password_file: expected the name of a file, and no mqtt.password beside it")
        return
    try:
        mqtt["password"] = Path(name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        problems.append(f"mqtt.password_file: cannot be read: {reason}")


def _take(
    table: dict[str, Any],
    prefix: str,
    kinds: Mapping[str, Callable[[Any], Any]],
    problems: list[str],
) -> dict[str, Any]:
    """The values of one table, converted; what is unknown or wrong becomes a problem under its dotted path."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, [*kinds, *_ELSEWHERE[prefix]], 1)
            problems.append(f"{prefix}{name}: unknown setting" + (f", did you mean {prefix}{near[0]}?" if near else ""))
            continue
        place, plain = (value.variable, value.text) if isinstance(value, _Text) else (prefix + name, value)
        try:
            values[name] = kinds[name](plain)
        except _SettingError as wrong:
            problems.append(f"{place}: {wrong.text}")
    return values


def _broker(broker: object, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """What MQTT_BROKER, or else `mqtt.broker`, says of the broker; None where it says that there is none.

    Both take a host, host:port, or a URL: mqtt://user:password@host:port, mqtts:// for TLS.
    """
    place = "MQTT_BROKER" if "MQTT_BROKER" in environment else "mqtt.broker"
    text = environment.get("MQTT_BROKER", broker)
    if text is None:
        return {}
    if not isinstance(text, str):
        raise _SettingError(f"{place}: expected a host or a URL")
    text = text.strip()
    if text.lower() in ("", "none"):
        return None
    try:
        url = urlsplit(text if "://" in text else f"//{text}")
        host, port = url.hostname, url.port
    except ValueError:
        raise _SettingError(f"{place}: expected a host, host:port or mqtt://host:port") from None
    if url.scheme not in ("", "mqtt", "mqtts") or not host or url.path.strip("/") or url.query:
        raise _SettingError(f"{place}: expected a host, host:port or a URL that begins with mqtt:// or mqtts://")
    found: dict[str, Any] = {"host": host}
    if url.scheme == "mqtts":
        found |= {"tls": True, "port": 8883}
    if port is not None:
        found["port"] = port
    if url.username:
        found["username"] = unquote(url.username)
    if url.password:
        found["password"] = unquote(url.password)
    return found


# --- kinds of values --------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _SettingError("expected text")
    return value.strip()


def _database(value: Any) -> str:
    """A URL that SQLAlchemy takes, with the one PostgreSQL driver that is installed."""
    expected = "expected sqlite:////path/to/file or postgresql://user:password@host/name"
    scheme, separator, rest = (value if isinstance(value, str) else "").strip().partition("://")
    if not separator or not rest.strip("/") or scheme not in DATABASES:
        raise _SettingError(expected)
    return f"{DATABASES[scheme]}://{rest}"


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise _SettingError("expected true or false")


def _web_url(text: str) -> SplitResult | None:
    """None for what is no address of the web, or has a name or a fragment in it."""
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return None
    good = url.scheme in ("http", "https") and url.hostname and not (url.username or url.fragment)
    return url if good else None


def _address(value: Any) -> str:
    text = _text(value).rstrip("/")
    url = _web_url(text)
    if url is None or url.query:
        raise _SettingError("expected an address as people type it, https://screens.example.org")
    return text


def _ping_url(value: Any) -> str:
    text = _text(value)
    url = _web_url(text)
    if url is None or url.password or not text.isascii() or any(each <= " " for each in text):
        raise _SettingError("expected a URL to ask for, https://checks.example.org/ping/...")
    return text


def _language(value: Any) -> str:
    if value not in LANGUAGES:
        raise _SettingError(f"expected one of {', '.join(LANGUAGES)}")
    return str(value)


def _between(low: int, high: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if type(number) is not int or not low <= number <= high:
            raise _SettingError(f"expected a whole number from {low} to {high}")
        return number

    return convert


def _path(value: Any) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise _SettingError("expected an absolute path")
    if not path.is_file():
        raise _SettingError("no such file")
    return path


_SERVER: dict[str, Callable[[Any], Any]] = {
    "database_url": _database,
    "listen_host": _text,
    "listen_port": _between(1, 65535),
    "web_workers": _between(1, 64),
    "web_connections": _between(10, 20_000),
    "debug_mode": _flag,
    "log_retention_days": _between(1, 3650),
    "auto_register": _flag,
    "public_url": _address,
    "language": _language,
    "alert_allow_local": _flag,
    "dead_man_url": _ping_url,
    "dead_man_seconds": _between(5, 86_400),
    "heartbeat_seconds": _between(1, 3600),
    "periodic_screenshots_kept": _between(0, 1000),
    "incident_screenshots_kept": _between(0, 1000),
}
_MQTT: dict[str, Callable[[Any], Any]] = {
    "host": _text,
    "port": _between(1, 65535),
    "tls": _flag,
    "username": _text,
    "password": _text,
    "ca_file": _path,
    "client_id": _text,
}
_ELSEWHERE = {"": ("mqtt",), "mqtt.": ("broker", "password_file")}
"""Settings of each table that are read on their own, but may be what a misspelt name meant."""
assert set(_SERVER) == {each.name for each in fields(ServerConfig)} - {"mqtt"}
assert set(_MQTT) == {each.name for each in fields(Mqtt)}
