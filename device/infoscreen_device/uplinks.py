"""The two ways to the server, MQTT and HTTP, as the configuration names them: addresses, secrets, certificates.

A part of config.py, which see. A problem never repeats a secret, nor a URL that could carry one.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from infoscreen_device.settings import BrokerConfig, Config, HttpConfig
from infoscreen_device.table import Table, did_you_mean, text_fault

MAX_SECRET_BYTES = 8_192
DEFAULTS = Config()
_PORTS = {"mqtt": 1883, "mqtts": 8883}


def read_broker(table: Table, environ: Mapping[str, str], credentials: Path | None) -> BrokerConfig:
    default = DEFAULTS.broker
    url, where = table.raw("url"), table.where("url")
    if "MQTT_BROKER" in environ:
        url, where = environ["MQTT_BROKER"].strip(), "MQTT_BROKER"
    ca_file = _ca_file(table)
    username = table.text("username", limit=1_000)
    password = _secret(table, "password_file", credentials, "mqtt")
    keepalive_s = table.integer("keepalive_s", default.keepalive_s, 5, 3_600)
    table.finish()
    if url == "":
        return BrokerConfig(None, "", 0, False, username, password, ca_file, keepalive_s)
    try:
        text, host, port, tls = _broker_address(default.url if url is None else url)
    except ValueError as error:
        table.problems.append(f"{where}: {error}")
        return default
    if ca_file is not None and not tls:
        table.fault("ca_file", f"is of no use without encryption: write mqtts:// in {where}")
    return BrokerConfig(text, host, port, tls, username, password, ca_file, keepalive_s)


def _broker_address(value: object) -> tuple[str, str, int, bool]:
    """URL, host, port and TLS out of `host`, `host:port`, `mqtt://…` or `mqtts://…`. Raises ValueError.

    >>> _broker_address("broker.example:1884")
    ('mqtt://broker.example:1884', 'broker.example', 1884, False)
    """
    expected = "expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"
    fault = text_fault(value, 1_000)
    if fault is not None:
        raise ValueError(f"{fault}, {expected}")
    text = str(value) if "://" in str(value) else f"mqtt://{value}"
    parts = _split(text, "write broker.username and broker.password_file instead")
    if parts.scheme not in _PORTS:
        raise ValueError(expected + did_you_mean(parts.scheme, _PORTS))
    if not parts.hostname or " " in parts.netloc or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(expected)
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    if port == 0:
        raise ValueError("port: expected 1 to 65535")
    return text, parts.hostname, port, parts.scheme == "mqtts"


def _split(text: str, instead: str) -> SplitResult:
    """Splits a URL and refuses one that carries a name or password. Raises ValueError, which never repeats the URL."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("not a valid URL (is the port a number from 1 to 65535?)") from None
    if "@" in parts.netloc:
        raise ValueError(f"a URL must not carry a user name or password: {instead}")
    return parts


def read_http(table: Table, credentials: Path | None) -> HttpConfig:
    url = table.text("url", limit=1_000)
    token = _secret(table, "token_file", credentials, "http-token")
    ca_file = _ca_file(table)
    after = table.integer("after_failures", DEFAULTS.http.after_failures, 1, 1_000)
    table.finish()
    if url is None:
        return HttpConfig(None, token, ca_file, after)
    try:
        parts = _split(url, "write http.token_file instead")
    except ValueError as error:
        table.fault("url", str(error))
        return HttpConfig()
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in url or parts.query or parts.fragment:
        table.fault("url", "expected https://HOST[:PORT][/PATH] or http://…")
    elif ca_file is not None and parts.scheme != "https":
        table.fault("ca_file", "is of no use without encryption: write https:// in http.url")
    return HttpConfig(url.rstrip("/"), token, ca_file, after)


def _ca_file(table: Table) -> Path | None:
    path = table.path("ca_file")
    if path is not None:
        try:
            path.open("rb").close()
        except OSError as error:
            table.fault("ca_file", f"{path}: {os_reason(error)}")
    return path


def _secret(table: Table, name: str, credentials: Path | None, credential: str) -> str | None:
    """What the named file holds, else the systemd credential of that name (LoadCredential= in systemd.exec(5))."""
    path = table.path(name)
    if path is None and credentials is not None and os.path.lexists(credentials / credential):
        path = credentials / credential
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_SECRET_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        table.fault(name, f"{path}: {os_reason(error) if isinstance(error, OSError) else 'not UTF-8'}")
        return None
    if mode & 0o007:
        table.fault(name, f"{path} is open to every user: chmod 640 {path}")
    if text_fault(secret, MAX_SECRET_BYTES) is not None:
        table.fault(name, f"{path}: expected one line of text")
        return None
    return secret


def os_reason(error: OSError) -> str:
    return error.strerror or str(error)
