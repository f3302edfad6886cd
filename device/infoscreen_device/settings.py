"""The agent's settings as the rest of the program sees them: frozen data with its defaults. config.py fills it in.

Durations are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from infoscreen_device.core.model import Expectation
from infoscreen_device.core.picture import Region
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
class ScreenConfig:
    """When the picture is looked at, and what is done about a wrong one. Durations are seconds."""

    enabled: bool = True
    restart: bool = True
    """False: a wrong picture is told, and nothing is restarted for it."""
    fast: bool = False
    """Look about all the time: a wrong picture is known within 6 s, and a title card of 4 s may be taken for one."""
    interval_s: float = 10.0
    """Between looks where something moves (research: check every 10 s for video)."""
    still_s: float = 30.0
    """Between looks where nothing has to move."""
    confirm_s: float = 4.0
    """Between looks while a fault is in doubt: three looks of 2 s then span 14 s, longer than a title card stands."""
    span_s: float = 2.0
    """From the first to the last frame of a look."""
    settle_s: float = 20.0
    """After a start, or a change of what plays, nothing is said about the picture."""
    ignore: tuple[Region, ...] = ()
    """Where a clock or a logo is."""
    known: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Names of pictures that are wrong (a desktop, a console), each with one or more perceptual hashes."""
    quiet: tuple[tuple[int, int], ...] = ()
    """Minutes since local midnight, from and to, in which the screen may show anything."""


@dataclass(frozen=True, slots=True)
class PicturesConfig:
    """What is kept of pictures on the kiosk, and sent to the server."""

    max_bytes: int = 20 * 2**20
    max_count: int = 20
    max_age_s: float = 30 * DAY_S
    thumbnail_s: float = 300.0
    """Between thumbnails for the server; 0: none but those of incidents."""
    blur: bool = False
    """Thumbnails show where something is and not what."""


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
    screen: ScreenConfig = field(default_factory=ScreenConfig)
    pictures: PicturesConfig = PicturesConfig()
