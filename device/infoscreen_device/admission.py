"""Who may ask the agent for what: a request from the control socket becomes an Expectation or a Draft, or is refused.

The agent may run as root, and it kills and starts processes for others. So whoever is neither root nor the agent's own
user gets nothing here that they could not do themselves: only their own processes are watched, a restart has their
rights, and system units are restarted for them only as far as the configuration says so (control.units).
"""

import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from infoscreen_device.core.model import Draft, Expectation, Restart, Way
from infoscreen_device.expectation import MAX_PID, read_expectation
from infoscreen_device.table import Table
from infoscreen_shared.messages import (
    MAX_CODE_CHARS,
    MAX_CONTEXT_CHARS,
    MAX_MESSAGE_CHARS,
    LogLevel,
    clean,
    to_json,
)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of a connection, by the kernel's word (SO_PEERCRED, unix(7))."""

    uid: int
    gid: int
    pid: int

    @property
    def name(self) -> str:
        return user_name(self.uid)


def user_name(uid: int) -> str:
    """As psutil names the owner of a process: the number itself where the user database has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def expectation_from_request(
    body: Mapping[str, Any], peer: Peer, agent_uid: int, units: Sequence[str] = ()
) -> Expectation:
    """What the body of an `expect` asks for, as far as this peer may. `units` is `control.units`.

    Raises ValueError with a text for the answer: each problem with its field and the mend.
    """
    problems: list[str] = []
    table = Table(body, problems)
    table.raw("op")
    asked = read_expectation(table, f"uid:{peer.uid}", with_pid=True)
    table.finish()
    trusted = peer.uid in (0, agent_uid)
    user = asked.user
    if not trusted:
        if user not in (None, peer.name):
            table.fault("user", f"only root may have processes of another user watched; you are {peer.name}")
        user = peer.name
    if asked.pid is not None:
        fault = pid_fault(asked.pid, peer, agent_uid)
        if fault is not None:
            table.fault("pid", fault)
    restart = asked.restart
    if restart.way in (Way.ARGV, Way.USER_UNIT):
        restart = _own_rights(table, restart, user, peer, agent_uid)
    elif restart.way is Way.UNIT and not trusted and not _listed(restart.unit, units):
        table.fault(
            "restart", f'only root may name this unit: use user-unit:, or add "{restart.unit}" to control.units'
        )
    for name, _ in restart.environment:
        # Run with the peer's rights it would do no harm; refused all the same, for no player needs it.
        if name.startswith("LD_") and not trusted:
            problems.append(f"environment.{name}: changes how programs are loaded")
    if problems:
        raise ValueError("; ".join(problems))
    return replace(asked, user=user, restart=restart)


def _listed(unit: str | None, units: Sequence[str]) -> bool:
    return unit is not None and any(fnmatchcase(unit, pattern) for pattern in units)


def _own_rights(table: Table, restart: Restart, user: str | None, peer: Peer, agent_uid: int) -> Restart:
    """The restart with the user whose rights it has: the peer's own, or those of the user that root names."""
    owner = peer.name if peer.uid != 0 or user is None else user
    try:
        owner_uid = pwd.getpwnam(owner).pw_uid
    except (KeyError, ValueError):
        table.fault("user", f"there is no user {owner} on this machine")
        return restart
    if owner_uid == 0:
        table.fault("user", "name the user whose rights the restart is to have (never root)")
    elif agent_uid not in (0, owner_uid):
        table.fault(
            "restart", f"the agent is not root and cannot act for {owner}: use unit:NAME or handler, or run it as root"
        )
    return replace(restart, user=owner)


def pid_fault(pid: int, peer: Peer, agent_uid: int) -> str | None:
    """Why this peer may not have this process watched, and in the end killed; None if it may."""
    if not 1 < pid <= MAX_PID:
        return "no process that can be watched"
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return f"there is no process {pid}"
    if owner != peer.uid and peer.uid not in (0, agent_uid):
        return f"process {pid} belongs to another user"
    return None


def draft_from_request(body: Mapping[str, Any]) -> Draft:
    """The event handler's own record out of a `log`. Raises ValueError with a text for the answer."""
    problems: list[str] = []
    table = Table(body, problems)
    table.raw("op")
    level = table.choice("level", LogLevel)
    if level is None and not table.has("level"):
        table.fault("level", f"is missing: one of {', '.join(LogLevel)}")
    message = table.raw("message")
    if not isinstance(message, str) or not 0 < len(message) <= MAX_MESSAGE_CHARS:
        table.fault("message", f"expected text of 1 to {MAX_MESSAGE_CHARS} characters")
    code = table.text("code", limit=MAX_CODE_CHARS)
    context = table.raw("context")
    if context is None:
        context = {}
    if not isinstance(context, dict) or len(to_json(context)) > MAX_CONTEXT_CHARS:
        table.fault("context", f"expected an object of at most {MAX_CONTEXT_CHARS} bytes")
    table.finish()
    if problems or level is None or not isinstance(message, str) or not isinstance(context, dict):
        raise ValueError("; ".join(problems))
    return Draft(level, code, clean(message), context)
