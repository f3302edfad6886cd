"""The repository agrees with itself: versions, the verbs of ./run, the pages that speak of them, no stubs left."""

import re
import subprocess
from pathlib import Path

import pytest

from infoscreen_shared import __version__

ROOT = Path(__file__).parents[2]
PACKAGES = ("device", "server", "shared")


def text(name: str) -> str:
    return (ROOT / name).read_text()


def verbs() -> list[str]:
    found = re.search(r'^verbs="(.*)"$', text("run"), re.MULTILINE)
    assert found is not None
    return found[1].split()


def test_changelog_begins_with_the_version_of_the_project() -> None:
    newest = re.search(r"^## \[([^]]+)\]", text("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_the_lock_names_no_host() -> None:
    lines = text("requirements.lock").splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("-")]


def test_every_pin_of_the_lock_has_a_hash() -> None:
    entries = re.split(r"^(?=\w)", text("requirements.lock"), flags=re.MULTILINE)[1:]
    assert entries
    assert not [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]


@pytest.mark.parametrize("verb", verbs())
def test_a_verb_of_run_is_handled_and_explained(verb: str) -> None:
    assert re.search(rf"^    (\S+ \| )?{verb}( \| \S+)*\)$", text("run"), re.MULTILINE), "no case handles it"
    usage = subprocess.run([ROOT / "run", "help"], text=True, capture_output=True, check=True).stdout
    assert re.search(rf"^  {verb}\b", usage, re.MULTILINE), "./run help does not explain it"
    assert f"./run {verb}" in text("README.md"), "README.md does not name it"


def test_an_unknown_verb_is_refused_with_the_nearest_one() -> None:
    done = subprocess.run([ROOT / "run", "tset"], text=True, capture_output=True)
    assert done.returncode == 2
    assert "no verb 'tset'" in done.stderr
    assert "./run test" in done.stderr


def test_a_disk_that_would_fill_is_told_of_before_the_tests_begin(tmp_path: Path) -> None:
    df = tmp_path / "df"
    df.write_text("#!/bin/sh\necho head\necho /dev/sda1 30000000 22000000 8000000 74% /\n")
    df.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": "/somewhere"}
    done = subprocess.run([ROOT / "run", "test"], env=environment, text=True, capture_output=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr == f"run: all tests may take 8 GB, and 7 GB are free for {ROOT}: make room there first\n"


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "docs/kiosk.md", "docs/screen.md", "docs/server.md"])
def test_the_pages_name_only_files_that_exist(name: str) -> None:
    named = re.findall(r"`((?:device|server|shared|packaging|tests|demo|bench|tools)/[\w./-]*)`", text(name))
    assert not [path for path in named if not (ROOT / path).exists()]


def test_no_stub_is_left() -> None:
    stub = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError")
    sources = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")]
    assert sources
    assert not [path.relative_to(ROOT) for path in sources if stub.search(path.read_text())]


def test_no_source_file_grows_without_end() -> None:
    """The guide is 300 lines; at twice that a file has become two."""
    sources = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert not {name: lines for name, lines in lengths.items() if lines > 600}
