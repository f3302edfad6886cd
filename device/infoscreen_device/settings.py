"""The agent's settings as the rest of the program sees them: frozen data with its defaults. config.py fills it in.

Durations are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from infoscreen_device.core.model import Expectation
from infoscreen_device.core.policy import RestartPolicy
from infoscreen_shared.messages import LogLevel

DAY_S = 86_400.0
DEFAULT_DEADLINES: Mapping[LogLevel, float] = MappingProxyType(
    {LogLevel.ERROR: 0.0, LogLevel.WARN: 5.0, LogLevel.INFO: 30.0, LogLevel.DEBUG: 30.0}
)
"""Seconds that a record may wait in memory before it must be on disk (DESIGN section 4, Flash)."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    uuid: str | None = None
    """None: identity.py finds or makes one."""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    url: str | None = "mqtt://localhost:1883"
    """None: no MQTT at all."""
    host: str = "localhost"
    port: int = 1883
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    keepalive_s: int = 30


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The second door to the server, used when MQTT failed `after_failures` times in a row."""

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    after_failures: int = 3


@dataclass(frozen=True, slots=True)
class OutboxConfig:
    max_bytes: int = 64 * 2**20
    max_age_s: float = 30 * DAY_S
    deadline_s: Mapping[LogLevel, float] = field(default_factory=lambda: DEFAULT_DEADLINES)


@dataclass(frozen=True, slots=True)
class ClockConfig:
    trusted: bool = False
    """The machine has a clock that survives power loss: nobody waits for a time sync."""
    max_wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ReportConfig:
    heartbeat_s: float = 15.0
    health_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ControlConfig:
    socket: Path = Path("/run/infoscreen-watchdog/control.sock")
    group: str | None = None
    """Members may use the socket; None leaves it to the agent's own user and group."""
    units: tuple[str, ...] = ()
    """System units that users other than root may name in `restart` (shell patterns such as player@*.service)."""


@dataclass(frozen=True, slots=True)
class Config:
    client: ClientConfig = ClientConfig()
    state_dir: Path = Path("/var/lib/infoscreen-watchdog")
    enabled: bool = True
    """False: watch and report, but restart nothing."""
    broker: BrokerConfig = BrokerConfig()
    http: HttpConfig = HttpConfig()
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
    clock: ClockConfig = ClockConfig()
    player: Expectation | None = None
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    report: ReportConfig = ReportConfig()
    control: ControlConfig = ControlConfig()
