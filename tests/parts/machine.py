"""Booted Debian machines: an overlay of a cached root file system each, systemd-nspawn, a bridge between them.

Needs root. A machine has no way to the outside; what packages need from Debian is in the cached root.
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from parts.rootfs import ROOT, on_host, root_of
from parts.wait import wait_for

__all__ = ["ROOT", "Machine", "network"]

BRIDGE, NETWORK = "br-infoscreen", "198.51.100"
"""TEST-NET-2 (RFC 5737): in use nowhere."""


@contextmanager
def network() -> Iterator[None]:
    """The bridge that machines are joined by; the host is its .1."""
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)
    on_host("ip", "link", "add", BRIDGE, "type", "bridge")
    on_host("ip", "addr", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
    on_host("ip", "link", "set", BRIDGE, "up")
    try:
        yield
    finally:
        on_host("ip", "link", "del", BRIDGE)


class Machine:
    """One booted system. Its disk outlives `kill` and `boot`; `close` ends it with everything it had."""

    def __init__(
        self,
        name: str,
        suite: str,
        folder: Path,
        number: int | None = None,
        shared: Path | None = None,
        base: Path | None = None,
    ):
        """`number`: its address on the bridge, None for no network at all. `shared` is seen in it as /srv/apt.

        `base`: a root file system other than that of `suite` (parts.rootfs).
        """
        self.name, self.suite, self.number, self.shared = name, suite, number, shared
        self.folder = folder / name
        self.root = self.folder / "root"
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        layers = f"lowerdir={base or root_of(suite)},upperdir={self.folder}/upper,workdir={self.folder}/work"
        on_host("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
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
        for child in children:
            # The first ones only prepare, and are gone again.
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return 0

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
        on_host("umount", "--lazy", str(self.root))

    def __enter__(self) -> "Machine":
        try:
            return self.boot()
        except BaseException:
            self.close()
            raise

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
        on_host("ip", "link", "set", self.cable, "down")

    def mend(self) -> None:
        on_host("ip", "link", "set", self.cable, "up")

    def blacken(self) -> None:
        """A switch dies somewhere behind the next one: carrier, and no packet arrives."""
        on_host("ip", "link", "set", self.cable, "nomaster")

    def brighten(self) -> None:
        on_host("ip", "link", "set", self.cable, "master", BRIDGE)
