"""The linters and the examples in docstrings as tests, so that one run and one summary line tell about all of it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("run", ".ci", "bench", "demo", "device", "packaging", "server", "shared", "tests", "tools")


def shell_scripts() -> list[str]:
    """Every file that begins as a shell script does."""
    found = [ROOT / "run"]
    for folder in SOURCES[1:]:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    shebangs = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash")
    return [str(path.relative_to(ROOT)) for path in found if path.read_bytes()[:32].startswith(shebangs)]


def with_examples() -> list[str]:
    """Every module of ours with examples in its docstrings."""
    modules = (path for folder in ("device", "server", "shared") for path in (ROOT / folder).rglob("*.py"))
    return [str(path.relative_to(ROOT)) for path in modules if ">>> " in path.read_text()]


LINTERS = {
    "examples": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", *with_examples()],
    "mypy": [sys.executable, "-m", "mypy"],
    "ruff": [sys.executable, "-m", "ruff", "check", "."],
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "imports": [str(Path(sys.executable).parent / "lint-imports")],
    "shellcheck": ["shellcheck", *shell_scripts()],
}


@pytest.mark.parametrize("linter", LINTERS)
def test_clean(linter: str) -> None:
    done = subprocess.run(LINTERS[linter], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        pytest.fail(f"{linter} complains:\n{done.stdout}", pytrace=False)


def test_the_scripts_are_found() -> None:
    assert {"run", ".ci/run"} <= set(shell_scripts())
