"""What the tests in booted Debian share: root, the packages, a repository of them."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infoscreen_shared import __version__
from parts.machine import Machine, network
from parts.packages import build, repository_of

BEFORE = "0.0.9"
"""A version before this one, for the ways up and back."""
LIMIT_S = 900
"""For a test with its fixtures: the first one makes the root file systems, and outages last for minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.fail("tests/system boots machines and has to run as root: sudo ./run test system")


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages of this checkout, and with both as a version before."""
    folder = tmp_path_factory.mktemp("packages")
    for version in (BEFORE, __version__):
        build(folder, version)
    return folder


@pytest.fixture(scope="session")
def repository(packages: Path) -> Path:
    """A signed apt repository with both versions of both packages."""
    return repository_of(packages)


@pytest.fixture(scope="module")
def bridge() -> Iterator[None]:
    with Path("/run/lock/infoscreen-tests").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with network():
            yield


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def kiosk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> Iterator[Machine]:
    """A kiosk image without a network, on which the agent was installed by apt."""
    with Machine(
        f"kiosk-{request.param}", request.param, tmp_path_factory.mktemp("machine"), shared=repository
    ) as made:
        made.install(["infoscreen-watchdog"])
        yield made
