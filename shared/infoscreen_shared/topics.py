"""Topic names of the wire contract: built here, parsed here, spelt nowhere else."""

import re
from typing import NamedTuple

from infoscreen_shared.messages import LogLevel

ROOT = "infoscreen"
ONLINE, OFFLINE = b"online", b"offline"

# The canonical form of RFC 9562, lower case, so that one client never has two names.
UUID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_UP = frozenset(
    {"hello", "health", "heartbeat", "status", "commands/result"} | {f"logs/{level.lower()}" for level in LogLevel}
)


class Topic(NamedTuple):
    uuid: str
    kind: str
    """What follows the uuid: `logs`, `hello`, `health`, `heartbeat`, `status`, `commands/result`."""
    level: LogLevel | None
    """Set for `logs` only."""


def topic(uuid: str, kind: str) -> str:
    """
    >>> topic("0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11", "ack")
    'infoscreen/0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11/ack'
    """
    return f"{ROOT}/{uuid}/{kind}"


def logs_topic(uuid: str, level: LogLevel) -> str:
    return topic(uuid, f"logs/{level.lower()}")


def subscriptions() -> list[str]:
    """The filters under which everything that clients send arrives at the server."""
    return [f"{ROOT}/+/{kind}" for kind in ("logs/+", "hello", "health", "heartbeat", "status", "commands/result")]


def is_uuid(text: str) -> bool:
    return UUID_PATTERN.fullmatch(text) is not None


def parse(name: str) -> Topic:
    """Take a topic apart that a client publishes on.

    Raises ValueError that names the part that is wrong. An upper-case uuid is accepted and folded.

    >>> parse("infoscreen/0B6C0F5E-94a5-4f0c-9a55-0d9b3f7c2a11/logs/warn")
    Topic(uuid='0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11', kind='logs', level=<LogLevel.WARN: 'WARN'>)
    """
    root, _, rest = name.partition("/")
    uuid, _, kind = rest.partition("/")
    uuid = uuid.lower()
    if root != ROOT:
        raise ValueError(f"topic does not begin with {ROOT}/")
    if not is_uuid(uuid):
        raise ValueError("topic has no valid uuid")
    if kind not in _UP:
        raise ValueError("topic is none that a client publishes on")
    if kind.startswith("logs/"):
        return Topic(uuid, "logs", LogLevel(kind.removeprefix("logs/").upper()))
    return Topic(uuid, kind, None)
