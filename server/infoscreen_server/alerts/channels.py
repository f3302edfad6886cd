"""Where alerts may go: which services, and which addresses. A channel's URL holds secrets, so none of it is ever shown
but its service and host, and not the host either where that place of the URL holds a key.

What a service wants in its URL is Apprise's affair, in the sending process; see sender.
"""

import re
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import MappingProxyType
from typing import TypeAlias
from urllib.parse import unquote

from infoscreen_server.alerts import child
from infoscreen_server.i18n import lazy

Address: TypeAlias = IPv4Address | IPv6Address

LONGEST_URL = 2_000
HIDDEN = "…"


class ChannelError(ValueError):
    """A channel cannot be used; `text` with `values` says why, for gettext, and repeats no secret."""

    def __init__(self, text: str, **values: object) -> None:
        super().__init__(text % values if values else text)
        self.text = text
        self.values = values


@dataclass(frozen=True, slots=True)
class Service:
    label: str
    module: str
    """Of Apprise's plugins."""
    host: str | None = None
    """Where it is; None: the URL says so."""


_SERVICES: tuple[tuple[Service, tuple[str, ...]], ...] = (
    (Service("E-mail", "email.base"), ("mailto", "mailtos")),
    (Service("Webhook (JSON)", "custom_json"), ("json", "jsons")),
    (Service("Discord", "discord", "discord.com"), ("discord",)),
    (Service("Google Chat", "google_chat", "chat.googleapis.com"), ("gchat",)),
    (Service("Gotify", "gotify"), ("gotify", "gotifys")),
    (Service("Home Assistant", "home_assistant"), ("hassio", "hassios")),
    (Service("Matrix", "matrix"), ("matrix", "matrixs")),
    (Service("Mattermost", "mattermost"), ("mmost", "mmosts")),
    (Service("Microsoft Teams", "msteams", "webhook.office.com"), ("msteams",)),
    (Service("Microsoft Teams (Workflows)", "workflows"), ("workflow", "workflows")),
    (Service("Nextcloud Talk", "nextcloudtalk"), ("nctalk", "nctalks")),
    (Service("ntfy", "ntfy"), ("ntfy", "ntfys")),
    (Service("Pushover", "pushover", "api.pushover.net"), ("pover",)),
    (Service("Rocket.Chat", "rocketchat"), ("rocket", "rockets")),
    (Service("Signal", "signal_api"), ("signal", "signals")),
    (Service("Slack", "slack", "slack.com"), ("slack",)),
    (Service("Telegram", "telegram", "api.telegram.org"), ("tgram",)),
)
SCHEMES = MappingProxyType({scheme: service for service, schemes in _SERVICES for scheme in schemes})
"""All that there are. None runs a command, writes a file, or speaks to a bus of this machine."""
_PAGES = (
    ("hooks.slack.com", "slack"),
    ("discord.com", "discord"),
    ("discordapp.com", "discord"),
    (".logic.azure.com", "workflows"),
    (".api.powerplatform.com", "workflows"),
    (".webhook.office.com", "msteams"),
)
"""Hosts whose https:// addresses, as their services hand them out, are taken as they are."""
_NTFY = "ntfy.sh"
REFUSED_OPTIONS = frozenset({"template", "pgp", "pgpkey", "pgp_key"})
"""They name a file of this machine, whose content would be sent."""


# --- the URL ----------------------------------------------------------------------------------------------------------

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9]*)://(?P<place>[^/?#]*)(?P<path>[^?]*)\??(?P<options>.*)")
_HOST = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|(?=.{1,253}(?::|$))[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?)(?::\d+)?", re.IGNORECASE
)
_ROCKET_HOOK = re.compile(
    r"(?P<scheme>rockets?://)(?:(?P<user>[^:]+):)?[a-z0-9]+(?:/|%2F)[a-z0-9]+@(?P<rest>.+)", re.IGNORECASE
)
"""A key of two parts before the host; NotifyRocketChat.parse_url of Apprise takes it out before all else, as here."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is read from a URL without being a secret."""

    scheme: str
    service: Service
    host: str | None
    """As it is in the URL; None where there is none, or a key in its place."""
    options: frozenset[str]
    smtp: str | None = None

    @property
    def own_host(self) -> str | None:
        """The host, where whoever wrote the URL could name any."""
        known = self.service.host is not None or self.scheme == "https" or self.host == _NTFY
        return None if known else self.host

    @property
    def shown(self) -> str:
        host = self.host or HIDDEN
        return f"{self.scheme}://[{host}]" if ":" in host else f"{self.scheme}://{host}"


def shown(url: str) -> str:
    """Service and host: all of a URL that people may see."""
    try:
        return target(url).shown
    except ChannelError:
        return HIDDEN


def target(url: str) -> Target:
    """Raises ChannelError for a service that is not among SCHEMES."""
    if len(url) > LONGEST_URL or not url.isprintable() or re.search(r"\s", url):
        raise ChannelError(lazy("expected a URL without spaces and line breaks"))
    found = _URL.fullmatch(_without_key(url))
    if found is None:
        raise ChannelError(lazy("expected a URL, such as mailto://user:password@example.org"))
    scheme = found["scheme"].lower()
    options = _options(found["options"])
    host = _host(found["place"])
    service = _service(scheme, host)
    if scheme != "https":
        host = service.host or _real_host(service, host, found["path"].strip("/"), options)
    smtp = options.get("smtp") if service.module == "email.base" else None
    return Target(scheme, service, host, frozenset(options), smtp)


def _without_key(url: str) -> str:
    hook = _ROCKET_HOOK.fullmatch(url)
    if hook is None:
        return url
    user = f"{hook['user']}@" if hook["user"] else ""
    return f"{hook['scheme']}{user}{hook['rest']}"


def _options(text: str) -> dict[str, str]:
    """As apprise.utils.parse.parse_qsd reads them: it splits at ; too, and a + is a space only within a name."""
    read = {}
    for each in re.split("[&;]", text):
        name, _, value = each.partition("=")
        read[unquote(name[:1] + name[1:].replace("+", " ")).lower().strip()] = unquote(value).strip()
    return read


def _host(place: str) -> str | None:
    found = _HOST.fullmatch(place.rpartition("@")[2])
    return found["host"].strip("[]").lower() if found else None


def _service(scheme: str, host: str | None) -> Service:
    if scheme == "https" and host is not None:
        for page, name in _PAGES:
            if host == page or (page[0] == "." and host.endswith(page)):
                return SCHEMES[name]
        raise ChannelError(lazy("%(host)s is no service that is known; a webhook begins with jsons://"), host=host)
    if scheme not in SCHEMES:
        raise ChannelError(
            lazy("expected a URL that begins with one of %(schemes)s, each with ://"),
            schemes=", ".join(sorted(SCHEMES)),
        )
    return SCHEMES[scheme]


def _real_host(service: Service, host: str | None, path: str, options: dict[str, str]) -> str | None:
    """Where Apprise reads something else than a host at the place of the host."""
    mode = options.get("mode", "").lower()
    to = path or options.get("to")
    if service.module == "ntfy" and (mode == "cloud" or (not mode and not to)):
        return _NTFY
    if service.module == "matrix" and (mode == "t2bot" or (not mode and not to)):
        return None
    return host


def check_url(url: str, allow_local: bool) -> None:
    """Whether alerts may go there; raises ChannelError if not. Asks the name server and, in a process of its own,
    Apprise: not for within a transaction. Names can change, so the sender checks again.
    """
    found = target(url)
    check_options(found.options)
    if found.host is None:
        raise ChannelError(lazy("the URL names no host to send to"))
    if found.own_host is not None and found.service.module != "email.base":
        check_host(found.own_host, allow_local)
    if found.smtp:
        check_host(found.smtp, allow_local)
    wrong = child.run(child.Errand(url, allow_local=allow_local, send=False))
    if wrong is not None:
        raise ChannelError(wrong.text, **wrong.values)


def check_options(names: Collection[str]) -> None:
    refused = REFUSED_OPTIONS.intersection(names)
    if refused:
        raise ChannelError(lazy("the option %(name)s is not allowed here"), name=min(refused))


# --- addresses --------------------------------------------------------------------------------------------------------

_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"))
)
"""Where clouds tell a machine its own keys."""
_NAT64 = IPv6Network("64:ff9b::/96")
ASKING_PORT = 0
"""Of a datagram's way; nothing can be sent to it."""


def check_host(host: str, allow_local: bool) -> None:
    """Raises ChannelError for a name that is not known, or of which any address is refused."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ChannelError(lazy("the name %(host)s is not known"), host=host) from None
    check_addresses((str(each[4][0]) for each in found), allow_local)


def check_addresses(addresses: Iterable[str], allow_local: bool) -> None:
    for each in addresses:
        if not may_send(each, allow_local):
            raise ChannelError(
                lazy("%(address)s is an address of this machine or its surroundings; alert_allow_local permits it"),
                address=each,
            )


def may_send(address: str, allow_local: bool) -> bool:
    return is_allowed(address, allow_local) and (allow_local or not is_own(address))


def is_own(address: str) -> bool:
    """Whether one of this machine's interfaces has it, its LAN or public address among them: from such a one the kernel
    answers with itself. Sends nothing, and works where a service may neither read /proc/net nor ask by netlink.
    """
    try:
        plain = _unwrapped(ip_address(address))
        family = socket.AF_INET if isinstance(plain, IPv4Address) else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((str(plain), ASKING_PORT))
            return ip_address(asking.getsockname()[0]) == plain
    except (OSError, ValueError):
        return False


def is_allowed(address: str, allow_local: bool) -> bool:
    """By the kind of address. Private networks are where most of this runs, and allowed."""
    try:
        plain = _unwrapped(ip_address(address))
    except ValueError:
        return False
    if allow_local:
        return True
    local = plain.is_loopback or plain.is_link_local or plain.is_unspecified or plain.is_multicast
    nowhere = isinstance(plain, IPv4Address) and (plain.is_reserved or plain.packed[0] == 0)
    return not (local or nowhere or plain in _METADATA)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, where it does."""
    if isinstance(address, IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    if inside is None and address in _NAT64:
        inside = IPv4Address(address.packed[-4:])
    if inside is None and address.packed[:12] == bytes(12) and int(address) > 1:
        inside = IPv4Address(address.packed[-4:])
    # One with a zone (fe80::1%eth0) compares to no other.
    return inside or IPv6Address(address.packed)
