"""Starting and killing: restart commands with the rights of the user they belong to, and signals to exact processes.

Nothing here waits. Every child has a pidfd for the agent's selector; deadlines are kept by core.recovery (commands) and
by `Terminations` (from SIGTERM to SIGKILL). When to do what is not decided here.
"""

import os
import pwd
import signal
import string
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infoscreen_device.core.model import ProcessKey, Restart, Way
from infoscreen_device.probes import process as probe
from infoscreen_device.systemd import OWN_VARIABLES

SYSTEMCTL = ("systemctl", "--no-ask-password")
NEVER_INHERITED = OWN_VARIABLES | {"CLIENT_UUID", "MQTT_BROKER", "WATCHDOG_ENABLED", "MAX_RESTARTS"}


@dataclass(frozen=True, slots=True)
class Rights:
    """Whose rights a command has: None for the agent's own."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


def rights_of(user: str | None, own_uid: int) -> Rights | None:
    """The rights of this user, by name or number; None for our own.

    Raises PermissionError where that cannot be: for root's rights by name, or if we are not root; LookupError for an
    unknown user.
    """
    if user is None or _is_own(user, own_uid):
        return None
    entry = _account(user)
    if own_uid != 0:
        raise PermissionError(f"the agent is not root and cannot act for {user}")
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Rights(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)


def restart_command(restart: Restart, own_uid: int) -> tuple[str, ...]:
    """The command that brings a player back; empty for the ways that run none."""
    if restart.way is Way.ARGV:
        return restart.argv
    if restart.way is Way.UNIT:
        assert restart.unit is not None
        return (*SYSTEMCTL, "restart", restart.unit)
    if restart.way is Way.USER_UNIT:
        assert restart.unit is not None
        if own_uid != 0 and restart.user is not None and not _is_own(restart.user, own_uid):
            return (*SYSTEMCTL, "restart", user_restart_unit(restart.user, restart.unit))
        rights = rights_of(restart.user, own_uid)
        whose = ("--user",) if rights is None else (f"--machine={rights.name}@", "--user")
        return (*SYSTEMCTL, *whose, "restart", restart.unit)
    return ()


def user_restart_unit(user: str, unit: str) -> str:
    """The system service that restarts a user's unit for an agent without root's rights (device/systemd).

    Which of its instances the agent may start is said by polkit; the escaping is that of systemd.unit(5).
    """
    plain = string.ascii_letters + string.digits + ":_."
    escaped = "".join(
        "-" if letter == "/" else letter if letter in plain else "".join(f"\\x{byte:02x}" for byte in letter.encode())
        for letter in f"{user}/{unit}"
    )
    return f"infoscreen-user-restart@{escaped}.service"


def _account(user: str) -> pwd.struct_passwd:
    return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)


def _is_own(user: str, own_uid: int) -> bool:
    return _account(user).pw_uid == own_uid


def session_command(unit: str) -> tuple[str, ...]:
    return (*SYSTEMCTL, "restart", unit)


REBOOT_COMMAND = (*SYSTEMCTL, "reboot")


def child_environment(environ: Mapping[str, str], restart: Restart, rights: Rights | None) -> dict[str, str]:
    """Ours without what is for us alone, then the user's own basics, then what the player was registered with."""
    result = {name: value for name, value in environ.items() if name not in NEVER_INHERITED}
    if rights is not None:
        result |= {"HOME": rights.home, "USER": rights.name, "LOGNAME": rights.name}
        runtime = f"/run/user/{rights.uid}"
        result.pop("XDG_RUNTIME_DIR", None)
        if Path(runtime).is_dir():
            result["XDG_RUNTIME_DIR"] = runtime
    return result | dict(restart.environment)


@dataclass(slots=True)
class Child:
    """A process that we started, leader of its own session."""

    popen: "subprocess.Popen[bytes]"
    key: ProcessKey | None
    pidfd: int
    what: str

    def poll(self) -> int | None:
        """Its status, negative for a signal, once it has ended."""
        return self.popen.poll()

    def release(self) -> None:
        """It is somebody else's to watch now, or over. Closes the pidfd, kills nothing."""
        os.close(self.pidfd)
        # A player outlives this object: without a status Popen would complain about that.
        self.popen.returncode = self.popen.returncode or 0


def start(argv: tuple[str, ...], restart: Restart, environ: Mapping[str, str], own_uid: int) -> Child:
    """Runs the restart's command. Raises OSError, LookupError or ValueError if it cannot be started at all."""
    # systemctl needs no rights of the player's user: for a user unit it names the user itself.
    rights = rights_of(restart.user, own_uid) if restart.way is Way.ARGV else None
    more: dict[str, Any] = {}
    if rights is not None:
        more = {"user": rights.uid, "group": rights.gid, "extra_groups": rights.groups}
    if restart.directory is not None:
        more["cwd"] = restart.directory
    popen = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=child_environment(environ, restart, rights),
        **more,
    )
    return Child(popen, probe.key_of(popen.pid), os.pidfd_open(popen.pid), " ".join(argv[:4]))


def stop_child(child: Child) -> None:
    """Ends a command that is not waited for any more, with all that it started in its session."""
    if child.poll() is None:
        # Not reaped, so the number of its group is still its own.
        os.killpg(child.popen.pid, signal.SIGKILL)
        # Not waited for: it may hang in the kernel. `reap` takes note of its end.
    child.release()


def kill_leftovers(player: probe.Held, keys: list[ProcessKey], spared: set[int]) -> list[ProcessKey]:
    """SIGKILL to what a dead player left behind. `spared` are numbers that are never killed: the agent's own."""
    return [key for key in keys if key.pid not in spared and key != player.key and probe.send(key, signal.SIGKILL)]


@dataclass(slots=True)
class Terminations:
    """Processes that were asked to end (SIGTERM) and will be made to (SIGKILL)."""

    deadlines: dict[ProcessKey, float] = field(default_factory=dict)

    def ask(self, key: ProcessKey, now: float, grace_s: float) -> None:
        if key not in self.deadlines and probe.send(key, signal.SIGTERM):
            # A stopped process gets SIGTERM only when it goes on.
            probe.send(key, signal.SIGCONT)
            self.deadlines[key] = now + grace_s

    def insist(self, now: float) -> None:
        for key in [key for key, deadline in self.deadlines.items() if now >= deadline]:
            del self.deadlines[key]
            probe.send(key, signal.SIGKILL)

    def wake_at(self) -> float | None:
        return min(self.deadlines.values(), default=None)


def reap(known: set[int]) -> None:
    """Takes note of orphans that became ours (PR_SET_CHILD_SUBREAPER) and died, so that none stays a zombie.

    `known` are children whose status somebody else still wants.
    """
    for pid in set(probe.children(os.getpid())) - known:
        stat = probe.read_stat(pid)
        if stat is not None and stat.state == "Z":
            os.waitpid(pid, os.WNOHANG)
