"""The packages as files: the same bytes each time, and nothing that Debian's own checks find fault with."""

import subprocess
from pathlib import Path

from infoscreen_shared import __version__
from parts.machine import ROOT

ANSWERED = {"package-supports-alternative-init-but-no-init.d-script"}
"""Both services live by systemd's watchdog and its notifications: there is nothing to offer to another init."""


def test_two_builds_are_the_same(packages: Path, tmp_path: Path) -> None:
    subprocess.run([ROOT / "packaging/build-deb", tmp_path, __version__], check=True, capture_output=True)
    built = sorted(tmp_path.glob("*.deb"))
    assert [path.name.split("_")[0] for path in built] == ["infoscreen-server", "infoscreen-watchdog"]
    for path in built:
        assert path.read_bytes() == (packages / path.name).read_bytes()


def test_lintian(packages: Path) -> None:
    debs = [str(path) for path in packages.glob(f"*_{__version__}_all.deb")]
    done = subprocess.run(
        ["lintian", "--allow-root", "-EvIL", "+pedantic", *debs], check=False, capture_output=True, text=True
    )
    tags = [line for line in done.stdout.splitlines() if line[:2] in {"E:", "W:", "I:", "P:", "X:"}]
    assert [line for line in tags if line.split()[2] not in ANSWERED] == []
