"""Debian for another processor, as a Raspberry Pi has it: run by QEMU's user mode emulation under the host's kernel.

Needs root. Everything that takes long is kept in .cache/arm64.
"""

import fcntl
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parts.machine import Machine
from parts.rootfs import APT, KIOSK, MIRROR, ROOT, cached, in_root, install, no_services, on_host

CACHE = ROOT / ".cache/arm64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
EMULATORS = {"arm64": "qemu-aarch64", "armhf": "qemu-arm"}
SUITES = {"arm64": "trixie", "armhf": "bookworm"}
"""The newer release and the older one, as the newer and the older models of the Raspberry Pi are likely to have it."""
PACKAGES = ["systemd", "systemd-sysv", "dbus", "polkitd", "procps", "adduser", *KIOSK]
BINFMT = Path("/proc/sys/fs/binfmt_misc")
DROP_IN = """[Service]
# The emulator lacks the system calls by which systemd gives a service a view of its own of files and network, and a
# service that asks for one does not start: 226/NAMESPACE, 243/CREDENTIALS or 225/NETWORK.
ImportCredential=
PrivateDevices=no
PrivateNetwork=no
PrivateTmp=no
ProtectControlGroups=no
ProtectHome=no
ProtectHostname=no
ProtectKernelLogs=no
ProtectKernelModules=no
ProtectKernelTunables=no
ProtectProc=default
ProtectSystem=no
# The limits are those of the program, and the emulator takes as much again.
MemoryHigh=infinity
MemoryMax=infinity
CPUQuota=
"""


# --- the emulator -----------------------------------------------------------------------------------------------------


@contextmanager
def emulation() -> Iterator[None]:
    """Meanwhile the kernel runs programs of every architecture in EMULATORS. Only one test run at a time has this."""
    # Elsewhere it would be the host's own programs that are handed to the emulator, this one included.
    assert platform.machine() == "x86_64", f"the emulation is made for x86_64, not for {platform.machine()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = _emulator()
        mounted = not (BINFMT / "register").exists()
        if mounted:
            on_host("mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT))
        try:
            for name in EMULATORS.values():
                _register(name, folder)
            yield
        finally:
            for name in EMULATORS.values():
                _unregister(name)
            if mounted:
                on_host("umount", str(BINFMT))


def _emulator() -> Path:
    """Debian 13's QEMU, whatever the host is: systemd 257 does not start a service under that of Debian 12 (7.2)."""
    folder = CACHE / "qemu"
    if folder.exists():
        return folder
    apt, fresh = CACHE / "apt", CACHE / "qemu.new"
    for made in (apt, fresh):
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    (apt / "lists/partial").mkdir(parents=True)
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} trixie main\n")
    # An apt beside that of the host, which keeps its own sources.
    options = f"-o Dir::Etc::SourceList={apt}/sources.list -o Dir::Etc::SourceParts=/dev/null"
    options += f" -o Dir::State::Lists={apt}/lists -o Dir::Cache={apt}/cache -o APT::Sandbox::User=root"
    wanted = " ".join(["./usr/share/qemu/binfmt.d", *(f"./usr/bin/{name}" for name in EMULATORS.values())])
    script = (
        f"set -e; cd {apt}; apt-get -q {options} update; apt-get -q {options} download qemu-user;"
        f" dpkg-deb --fsys-tarfile qemu-user_*.deb | tar -x -C {fresh} {wanted}"
    )
    on_host("sh", "-c", script)
    shutil.rmtree(apt)
    return fresh.rename(folder)


def _register(name: str, folder: Path) -> None:
    _unregister(name)  # of a run that was killed
    fields = (folder / f"usr/share/qemu/binfmt.d/{name}.conf").read_text().strip().split(":")
    fields[1] = _entry(name)
    fields[6] = str(folder / "usr/bin" / name)
    assert "F" in fields[7], fields  # opened now, so that it is there in every root file system
    # The kernel looks at the newest entry first: an emulator that the host may have of its own is passed over.
    (BINFMT / "register").write_text(":".join(fields))


def _unregister(name: str) -> None:
    entry = BINFMT / _entry(name)
    if entry.exists():
        entry.write_text("-1")


def _entry(name: str) -> str:
    return f"infoscreen-test-{name}"


# --- root file systems ------------------------------------------------------------------------------------------------


def root_of(architecture: str) -> Path:
    """The cached root file system, with all that the agent depends on; within `emulation`.

    It is made at the first use, which takes five to ten minutes.
    """

    def make(root: Path) -> None:
        on_host("debootstrap", f"--arch={architecture}", "--variant=minbase", SUITES[architecture], str(root), MIRROR)
        install(root, PACKAGES)
        (root / "etc/machine-id").write_text("")

    return cached(architecture, [SUITES[architecture], *PACKAGES], make)


class EmulatedMachine(Machine):
    """A machine of another architecture, without a network; to be used within `emulation`."""

    def __init__(self, name: str, architecture: str, folder: Path, shared: Path):
        """`shared`: a signed apt repository, which is seen in it as /srv/apt."""
        super().__init__(name, SUITES[architecture], folder, shared=shared, base=root_of(architecture))
        self.write("/etc/systemd/system/service.d/emulated.conf", DROP_IN)

    def install_unbooted(self, package: str) -> None:
        """Where no systemd runs."""
        assert self.shared is not None
        shutil.copytree(self.shared, self.root / "srv/apt", dirs_exist_ok=True)
        with no_services(self.root):
            in_root(self.root, f"apt-get -q update && {APT} install {package}")
