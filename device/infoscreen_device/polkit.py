"""What the agent without root's rights may restart: a polkit rule that follows from the configuration, and no more.

The package has it written as root at each start of the service. Whether a request is made at all is decided elsewhere;
here is only what the system is told to allow.
"""

import json
import os
import re
from pathlib import Path

from infoscreen_device.actions import user_restart_unit
from infoscreen_device.core.model import Way
from infoscreen_device.settings import Config

RULES = Path("/etc/polkit-1/rules.d/60-infoscreen-watchdog.rules")
"""Below /etc, since polkit reads /run/polkit-1 only from version 124 on and Debian 12 has 122."""
AGENT_USER = "infoscreen-watchdog"

_RULE = """\
// Written by infoscreen-watchdog from its configuration at each start. What is changed here is lost.
polkit.addRule(function(action, subject) {{
    if (subject.user != {user})
        return polkit.Result.NOT_HANDLED;
    if (action.id == "org.freedesktop.systemd1.manage-units" && action.lookup("verb") == "restart" &&
        /^(?:{units})$/.test(action.lookup("unit")))
        return polkit.Result.YES;
{reboot}    return polkit.Result.NOT_HANDLED;
}});
"""
_REBOOT = """\
    if (/^org\\.freedesktop\\.login1\\.reboot(-multiple-sessions)?$/.test(action.id))
        return polkit.Result.YES;
"""


def units(config: Config) -> list[str]:
    """System units, or shell patterns of them, that this configuration may lead the agent to restart."""
    found = list(config.control.units)
    restart = None if config.player is None else config.player.restart
    if restart is not None and restart.unit is not None:
        # A user's own unit is restarted by a service that does nothing else.
        of_user = restart.way is Way.USER_UNIT and restart.user
        found.append(user_restart_unit(of_user, restart.unit) if of_user else restart.unit)
    if "session" in config.restart.ladder and config.restart.session_unit:
        found.append(config.restart.session_unit)
    return sorted(set(found))


def rules(config: Config, user: str = AGENT_USER) -> str | None:
    """The rules file; None where the agent has nothing to restart by systemd."""
    allowed, reboots = units(config), "reboot" in config.restart.ladder
    if not allowed and not reboots:
        return None
    # An empty alternative would allow the unit without a name; this one matches nothing.
    patterns = "|".join(_pattern(unit) for unit in allowed) or "[^\\s\\S]"
    return _RULE.format(user=json.dumps(user), units=patterns, reboot=_REBOOT if reboots else "")


def _pattern(unit: str) -> str:
    """As a JavaScript regular expression. Of shell patterns `*` and `?`; what else there is only matches itself."""
    return "".join({"*": ".*", "?": "."}.get(letter) or re.escape(letter) for letter in unit).replace("/", "\\/")


def write(text: str | None, path: Path = RULES) -> None:
    """Puts the rules in place as a whole, or takes them away. Raises OSError."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(fd, "w") as file:
        # Whatever the umask: polkit reads it as a user of its own, and nothing in it is secret.
        os.fchmod(fd, 0o644)
        file.write(text)
    fresh.replace(path)
