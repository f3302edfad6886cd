"""Booted Debian machines: an overlay of a cached root file system each, systemd-nspawn, a bridge between them.

Needs root. A machine has no way to the outside; what packages need from Debian is in the cached root.
"""

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from parts.wait import wait_for

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/rootfs"
MIRROR = "http://deb.debian.org/debian"
BASE = ["systemd", "systemd-sysv", "dbus", "udev", "polkitd", "procps", "iproute2", "ca-certificates"]
BASE += ["libpam-systemd", "dbus-user-session", "adduser"]  # a systemd of each user's own
KIOSK = ["python3-paho-mqtt", "python3-psutil", "python3-systemd", "sqlite-utils", "python3-pil", "python3-numpy"]
SERVER = [
    *["python3-flask", "python3-flask-openapi3", "python3-sqlalchemy", "python3-alembic", "python3-pydantic"],
    *["python3-argon2", "python3-gevent", "gunicorn", "mosquitto", "curl"],
]
DESKTOP = ["labwc", "greetd", "grim", "lightdm", "openbox", "xvfb", "mpv"]
PACKAGES = {
    "bookworm": [*BASE, *KIOSK],
    "trixie": [*BASE, *KIOSK, *SERVER],
    "trixie-desktop": [*BASE, *KIOSK, *DESKTOP],
}
BRIDGE, NETWORK = "br-infoscreen", "198.51.100"
"""TEST-NET-2 (RFC 5737): in use nowhere."""


def root_of(suite: str) -> Path:
    """The cached root file system of a Debian release, or of a variant of it ("trixie-desktop").

    It is made at the first use, which takes a minute or two.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    packages = PACKAGES[suite]
    root, stamp = CACHE / suite, CACHE / f"{suite}.packages"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text().split() == packages:
            return root
        stamp.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", "--include=systemd-sysv", suite.partition("-")[0], str(root), MIRROR)
        # What an install takes on such a minimal system is measured later, when nothing else of it is left.
        shutil.copy(root / "var/lib/dpkg/status", root / "var/lib/dpkg/status.minbase")
        shutil.copytree(root / "var/lib/apt/lists", root / "var/lib/apt/lists.minbase")
        shutil.copy(root / "etc/apt/sources.list", root / "etc/apt/minbase.list")
        for name in ("resolv.conf", "hosts"):
            shutil.copy(Path("/etc") / name, root / "etc" / name)
        (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        (root / "usr/sbin/policy-rc.d").chmod(0o755)
        install = "DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends"
        _run("chroot", str(root), "sh", "-c", f"{install} {shlex.join(packages)} && apt-get clean")
        (root / "usr/sbin/policy-rc.d").unlink()
        (root / "etc/resolv.conf").write_text("")
        (root / "etc/machine-id").write_text("")
        # A machine of its own has none of the host's names; and what takes long to start is not looked at here.
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        stamp.write_text(" ".join(packages))
    return root


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout.decode()[-3000:]}")


@contextmanager
def network() -> Iterator[None]:
    """The bridge that machines are joined by; the host is its .1."""
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    try:
        yield
    finally:
        _run("ip", "link", "del", BRIDGE)


class Machine:
    """One booted system. Its disk outlives `kill` and `boot`; `close` ends it with everything it had."""

    def __init__(self, name: str, suite: str, folder: Path, number: int | None = None, shared: Path | None = None):
        """`number`: its address on the bridge, None for no network at all. `shared` is seen in it as /srv/apt."""
        self.name, self.suite, self.number, self.shared = name, suite, number, shared
        self.folder = folder / name
        self.root = self.folder / "root"
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        layers = f"lowerdir={root_of(suite)},upperdir={self.folder}/upper,workdir={self.folder}/work"
        _run("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        (self.root / "etc/hostname").write_text(f"{name}\n")
        if shared is not None:
            self._trust_repository()
        self.process: subprocess.Popen[bytes] | None = None
        self.leader = 0

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def cable(self) -> str:
        """The end that the host sees; its name is systemd-nspawn's."""
        return f"vb-{self.name}"[:15]

    def _trust_repository(self) -> None:
        assert self.shared is not None
        keyring = "usr/share/keyrings/infoscreen.pgp"
        shutil.copy(self.shared / "infoscreen-archive-keyring.pgp", self.root / keyring)
        ours = f"deb [signed-by=/{keyring}] file:/srv/apt stable main\n"
        (self.root / "etc/apt/sources.list").write_text(ours)
        with (self.root / "etc/apt/minbase.list").open("a") as both:
            both.write(ours)
        for source in (self.root / "etc/apt/sources.list.d").iterdir():
            source.unlink()

    # --- power --------------------------------------------------------------------------------------------------------

    def boot(self) -> "Machine":
        """Returns when systemd says that it is up."""
        command = ["systemd-nspawn", "-q", "-D", str(self.root), "-M", self.name, "-b", "--register=no", "--keep-unit"]
        # As on a real machine, daemons may lock their memory (greetd does).
        command.append("--capability=CAP_IPC_LOCK")
        if self.number is not None:
            command.append(f"--network-bridge={BRIDGE}")
        else:
            command.append("--private-network")
        if self.shared is not None:
            command.append(f"--bind-ro={self.shared}:/srv/apt")
        environment = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with (self.folder / "console").open("ab") as console:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment
            )
        self.leader = wait_for(self._leader, f"{self.name} has an init", 30)
        wait_for(self._is_up, f"{self.name} is up", 60)
        if self.number is not None:
            self.run(f"ip addr add {self.address}/24 dev host0; ip link set host0 up")
        return self

    def _leader(self) -> int:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "console").read_text()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == "systemd"]
        return found[0] if found else 0

    def _is_up(self) -> bool:
        state = self.ask("systemctl is-system-running")
        return state in {"running", "degraded"}

    def kill(self) -> None:
        """Power lost: no shutdown, and nothing of it goes on."""
        if self.process is None:
            return
        os.kill(self.leader, signal.SIGKILL)
        self.process.kill()
        self.process.wait(20)
        self.process = None
        # The kernel takes the cable away with the last process of the machine, which may be a while.
        subprocess.run(["ip", "link", "del", self.cable], check=False, capture_output=True)

    def close(self) -> None:
        self.kill()
        for _ in range(50):
            if subprocess.run(["umount", self.root], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        _run("umount", "--lazy", str(self.root))

    def __enter__(self) -> "Machine":
        return self.boot()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    # --- inside -------------------------------------------------------------------------------------------------------

    def inside(self, script: str) -> list[str]:
        """The command that runs a shell script as root in the machine."""
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*enter, "env", "-i", path, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", script]

    def done(self, script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.inside(script), check=False, capture_output=True, text=True, timeout=timeout)

    def ask(self, script: str, timeout: float = 120) -> str:
        """Its standard output, whatever its status."""
        return self.done(script, timeout).stdout.strip()

    def run(self, script: str, timeout: float = 120) -> str:
        """Its standard output; AssertionError if it fails."""
        done = self.done(script, timeout)
        assert done.returncode == 0, f"{self.name}: {script}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.process is None:
            target.write_text(text)
        else:
            # Through the machine: what lies below a mount of its own is not seen from here.
            self.run(f"mkdir -p {shlex.quote(str(Path(path).parent))}; cat >{shlex.quote(path)} <<'END'\n{text}\nEND")

    def until(self, script: str, what: str, timeout: float = 60) -> str:
        """Waits until the script succeeds and prints something."""

        def tried() -> str:
            done = self.done(script)
            return done.stdout.strip() if done.returncode == 0 else ""

        try:
            return wait_for(tried, f"{self.name}: {what}", timeout, 0.2)
        except AssertionError as error:
            journal = self.ask("journalctl --no-pager -n 60 -o short-precise")
            raise AssertionError(f"{error}\n{journal}") from None

    def install(self, packages: Iterable[str], options: str = "") -> str:
        return self.run(f"apt-get -q update && apt-get -qy {options} install {shlex.join(packages)}", 300)

    # --- its cable ----------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """The cable is pulled: no carrier."""
        _run("ip", "link", "set", self.cable, "down")

    def mend(self) -> None:
        _run("ip", "link", "set", self.cable, "up")

    def blacken(self) -> None:
        """A switch dies somewhere behind the next one: carrier, and no packet arrives."""
        _run("ip", "link", "set", self.cable, "nomaster")

    def brighten(self) -> None:
        _run("ip", "link", "set", self.cable, "master", BRIDGE)
