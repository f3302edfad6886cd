"""A real machine: Debian 13 with a kernel of its own in QEMU, for what a container shares with its host.

Emulated, not virtualised: KVM is missing on too many machines that run tests. Needs root, to make the disk.
"""

import base64
import json
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from parts.machine import Machine
from parts.rootfs import PACKAGES, cached, in_root, install, no_services, on_host, root_of
from parts.wait import wait_for

T = TypeVar("T")
SUITE = "trixie"
COMMAND_LINE = "root=/dev/vda rw console=ttyS0"
KERNEL = ["linux-image-amd64", "initramfs-tools", "qemu-guest-agent"]
DRIVERS = "virtio_pci\nvirtio_blk\next4\n"
"""All that the initial RAM disk needs to find the root. Debian's default has every driver there is: slow to unpack."""
SYNC_S, ANSWER_S = 2.0, 30.0
"""What is said to the guest's agent before it listens is lost: at a boot it is greeted again and again."""


def root_with_kernel() -> Path:
    """The cached root file system of `root_of`, with a kernel and the agent that runs our commands in it."""

    def make(root: Path) -> None:
        on_host("cp", "-a", str(root_of(SUITE)), str(root))
        for path, text in {
            "etc/initramfs-tools/conf.d/modules": "MODULES=list\n",
            "usr/share/initramfs-tools/modules.d/infoscreen": DRIVERS,
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        install(root, KERNEL)

    return cached(f"{SUITE}-vm", [*PACKAGES[SUITE], *KERNEL], make)


class Lines:
    """One JSON object a line on a socket of QEMU's: to its monitor, or to the agent in the guest."""

    def __init__(self, path: Path):
        self.rest = b""
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, command: str, **arguments: Any) -> None:
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The next object; None if none came in time or QEMU has ended."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.socket], [], [], max(0.0, deadline - time.monotonic()))
            data = self.socket.recv(1 << 16) if ready else b""
            if not data:
                return None
            self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        # The guest's agent puts this byte before its answer to a greeting; what comes before it was meant for others.
        found: dict[str, Any] = json.loads(line.rpartition(b"\xff")[2])
        return found

    def ask(self, command: str, **arguments: Any) -> Any:
        self.send(command, **arguments)
        answer = self.receive(ANSWER_S)
        assert answer is not None, f"no answer to {command}"
        assert "return" in answer, f"{command}: {answer}"
        return answer["return"]


class VirtualMachine(Machine):
    """One emulated machine without a network. Until `boot` its root is prepared from outside; then it has a disk."""

    def __init__(self, name: str, folder: Path, shared: Path):
        """`shared`: a signed apt repository, which is copied to /srv/apt."""
        self.base = root_with_kernel()
        super().__init__(name, SUITE, folder, shared=shared, base=self.base)
        shutil.copytree(shared, self.root / "srv/apt")
        self.monitor: Lines | None = None

    def prepare(self, script: str) -> None:
        """A shell script as root in the system before it boots."""
        with no_services(self.root):
            in_root(self.root, script)

    # --- power --------------------------------------------------------------------------------------------------------

    def boot(self) -> "VirtualMachine":
        """Returns when systemd says that it is up."""
        for part in ("etc", "var"):
            (self.root / part / ".updated").touch()  # or systemd would make ldconfig's cache and the like anew
        disk = self.folder / "disk"
        if not disk.exists():
            on_host("mke2fs", "-q", "-t", "ext4", "-d", str(self.root), str(disk), "3G")
        (kernel,) = (self.base / "boot").glob("vmlinuz-*")
        (ram_disk,) = (self.base / "boot").glob("initrd.img-*")
        command = [
            *["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"],
            # One processor: with two, QEMU before 8.1 runs into the kernel's half patched code (its commit deba78709a).
            *["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024"],
            *["-kernel", str(kernel), "-initrd", str(ram_disk), "-append", COMMAND_LINE],
            *["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"],
            *["-device", "i6300esb", "-action", "watchdog=reset"],
            *["-serial", f"file:{self.folder}/console"],
            *["-qmp", f"unix:{self.folder}/monitor,server=on,wait=off"],
            *["-chardev", f"socket,id=agent,path={self.folder}/agent,server=on,wait=off"],
            *["-device", "virtio-serial-pci"],
            *["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"],
        ]
        with (self.folder / "qemu").open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.monitor = self.watch(self._monitor, "QEMU answers", 20)
        self.monitor.receive(ANSWER_S)  # its greeting
        self.monitor.ask("qmp_capabilities")
        self.up()
        return self

    def _monitor(self) -> Lines | None:
        try:
            return Lines(self.folder / "monitor")
        except OSError:
            return None

    def up(self) -> None:
        """Returns when systemd has started all that it should, at the first boot and at any later one."""
        self.watch(self._listens, f"{self.name} listens", 240)
        state = self.ask("systemctl is-system-running --wait", 240)
        assert state == "running", f"{state}\n{self.ask('systemctl --failed --no-legend')}\n{self.console()[-3000:]}"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None
        if self.monitor is not None:
            self.monitor.socket.close()

    def close(self) -> None:
        super().close()
        (self.folder / "disk").unlink(missing_ok=True)  # pytest keeps folders, and this one holds a whole system

    # --- what it shows ------------------------------------------------------------------------------------------------

    def console(self) -> str:
        """The serial console, and what QEMU itself said."""
        files = [self.folder / "qemu", self.folder / "console"]
        return "".join(path.read_text(errors="replace") for path in files if path.exists())

    def watch(self, condition: Callable[[], T | None], what: str, timeout: float, interval: float = 0.1) -> T:
        """Waits for a condition as long as QEMU runs; a failure shows the end of the console."""

        def checked() -> T | None:
            assert self.process is not None
            assert self.process.poll() is None, "QEMU has ended"
            return condition()

        try:
            found = wait_for(checked, what, timeout, interval)
        except AssertionError as error:
            raise AssertionError(f"{error}; the console's end:\n{self.console()[-3000:]}") from None
        assert found is not None
        return found

    def event(self, name: str, timeout: float) -> dict[str, Any]:
        """Waits for an event of QEMU's, such as WATCHDOG; what it was about."""

        def next_one() -> dict[str, Any] | None:
            assert self.monitor is not None
            found = self.monitor.receive(0)
            return found if found is not None and found.get("event") == name else None

        data: dict[str, Any] = self.watch(next_one, f"QEMU says {name}", timeout)["data"]
        return data

    # --- inside -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _agent(self, patience: float = ANSWER_S) -> Iterator[Lines | None]:
        """A conversation with the guest's agent; None if it does not listen."""
        number = time.monotonic_ns()
        with Lines(self.folder / "agent") as agent:
            agent.socket.sendall(b"\xff")  # an unfinished command of an earlier conversation ends here
            agent.send("guest-sync-delimited", id=number)
            answer = agent.receive(patience)
            while answer is not None and answer.get("return") != number:
                answer = agent.receive(patience)
            yield None if answer is None else agent

    def _listens(self) -> bool:
        with self._agent(SYNC_S) as agent:
            return agent is not None

    def done(self, script: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A shell script as root in the machine."""
        with self._agent() as agent:
            assert agent is not None, f"{self.name} does not listen; the console's end:\n{self.console()[-3000:]}"
            pid = _start(agent, script)

            def ended() -> dict[str, Any] | None:
                status: dict[str, Any] = agent.ask("guest-exec-status", pid=pid)
                return status if status["exited"] else None

            # Not more often: the guest's agent logs each question, which is work for a machine as slow as this.
            status = self.watch(ended, script, timeout, 0.3)
        out, err = (base64.b64decode(status.get(name, "")).decode() for name in ("out-data", "err-data"))
        return subprocess.CompletedProcess(script, status.get("exitcode", -status.get("signal", 0)), out, err)

    def panic(self) -> None:
        """The kernel panics and stays so: unlike a hang of one program, nothing in the machine can help any more."""
        self.run("sysctl -qw kernel.panic=0 kernel.sysrq=1; sync")
        with self._agent() as agent:
            assert agent is not None
            # Nobody will be there to say how it went.
            agent.send("guest-exec", path="/bin/sh", arg=["-c", "echo c >/proc/sysrq-trigger"])
            self.watch(lambda: "Kernel panic - not syncing" in self.console(), "the kernel panics", 60)


def _start(agent: Lines, script: str) -> int:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command: dict[str, Any] = {"path": "/bin/sh", "arg": ["-c", script], "env": [path, "LC_ALL=C.UTF-8"]}
    pid: int = agent.ask("guest-exec", **command, **{"capture-output": True})["pid"]
    return pid
