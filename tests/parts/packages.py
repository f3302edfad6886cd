"""The packages of this checkout, and a signed apt repository of them."""

import subprocess
from pathlib import Path

from infoscreen_shared import __version__
from parts.rootfs import ROOT


def build(folder: Path, version: str = __version__) -> None:
    """Both packages into the folder."""
    _packaging("build-deb", folder, version)


def repository_of(folder: Path) -> Path:
    """Of all packages in the folder; it is in there too."""
    _packaging("apt-repo", folder / "apt", folder / "keys", *folder.glob("*.deb"))
    return folder / "apt"


def _packaging(script: str, *arguments: object) -> None:
    done = subprocess.run([ROOT / "packaging" / script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
