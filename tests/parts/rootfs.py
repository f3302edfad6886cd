"""Cached root file systems of Debian releases, the ground that booted machines are layers on. Needs root to make."""

import fcntl
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/rootfs"
MIRROR = "http://deb.debian.org/debian"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends"
BASE = ["systemd", "systemd-sysv", "dbus", "udev", "polkitd", "procps", "iproute2", "ca-certificates"]
BASE += ["libpam-systemd", "dbus-user-session", "adduser"]  # a systemd of each user's own
KIOSK = ["python3-paho-mqtt", "python3-psutil", "python3-systemd", "sqlite-utils", "python3-pil", "python3-numpy"]
SERVER = [
    *["python3-flask", "python3-flask-openapi3", "python3-sqlalchemy", "python3-alembic", "python3-pydantic"],
    *["python3-argon2", "python3-gevent", "python3-paho-mqtt", "gunicorn", "mosquitto", "curl"],
    *["python3-flaskext.wtf", "python3-babel", "apprise", "python3-prometheus-client"],
]
DESKTOP = ["labwc", "greetd", "grim", "wlopm", "lightdm", "openbox", "xvfb", "mpv"]
PACKAGES = {
    "bookworm": [*BASE, *KIOSK],
    "trixie": [*BASE, *KIOSK],
    "trixie-server": [*BASE, *SERVER],
    "trixie-desktop": [*BASE, *KIOSK, *DESKTOP],
}
MINBASE = ["--variant=minbase", "--include=systemd-sysv"]
"""As small as Debian boots."""


def root_of(variant: str) -> Path:
    """The cached root of a release with what our packages need from Debian (PACKAGES); made in a minute or two."""
    packages = PACKAGES[variant]
    return cached(variant, packages, lambda root: _fill(root, variant.partition("-")[0], packages))


def _fill(root: Path, suite: str, packages: Sequence[str]) -> None:
    on_host("cp", "-a", str(_minbase(suite)), str(root))
    install(root, packages)
    (root / "etc/machine-id").write_text("")


def _minbase(suite: str) -> Path:
    def make(root: Path) -> None:
        on_host("debootstrap", *MINBASE, suite, str(root), MIRROR)
        # What an install takes on such a minimal system is measured later, when nothing else of it is left.
        shutil.copy(root / "var/lib/dpkg/status", root / "var/lib/dpkg/status.minbase")
        shutil.copytree(root / "var/lib/apt/lists", root / "var/lib/apt/lists.minbase")
        shutil.copy(root / "etc/apt/sources.list", root / "etc/apt/minbase.list")

    return cached(f"minbase-{suite}", MINBASE, make)


def install(root: Path, packages: Sequence[str]) -> None:
    """From Debian, with the host's way to it."""
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc") / name, root / "etc" / name)
    with no_services(root):
        in_root(root, f"{APT} update && {APT} install {shlex.join(packages)} && apt-get clean")
    # A machine of its own has neither the host's way out nor its names.
    (root / "etc/resolv.conf").write_text("")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")


def cached(name: str, recipe: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The folder of this name in the cache; made anew when its recipe has changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    root, stamp = CACHE / name, CACHE / f"{name}.recipe"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text().split() != [*recipe]:
            stamp.unlink(missing_ok=True)
            shutil.rmtree(root, ignore_errors=True)
            make(root)
            stamp.write_text(" ".join(recipe))
    return root


@contextmanager
def no_services(root: Path) -> Iterator[None]:
    """Nothing is started while packages are installed: outside a booted machine there is nothing to start it."""
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def in_root(root: Path, script: str) -> str:
    return on_host("chroot", str(root), "sh", "-c", script)


def on_host(*command: str) -> str:
    """Its output; AssertionError with the end of that if it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True
    )
    if done.returncode != 0:
        raise AssertionError(f"{shlex.join(command)}: status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout.strip()
