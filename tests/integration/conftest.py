"""Fixtures that start real servers. A missing part fails; it never skips."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from infoscreen_server.db import upgrade
from infoscreen_server.models import Role
from parts.api import Api
from parts.broker import Broker
from parts.person import Person, with_user
from parts.postgres import Postgres
from parts.screens import copy_code, make_film


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as running:
        yield running


@pytest.fixture(scope="session")
def ready_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the server's tables."""
    file = tmp_path_factory.mktemp("ready") / "server.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind with the server's tables: a copy, since all migrations take longer than most tests."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("ready_file"), tmp_path / "server.db")
        yield f"sqlite:///{tmp_path / 'server.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.new_ready_database()
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'server.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.new_database()
    yield url
    postgres.drop(url)


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    """The server's web application on such a database."""
    running = Api(database_url)
    yield running
    running.close()


@pytest.fixture
def root(api: Api) -> Person:
    """A super administrator, signed in."""
    return with_user(api, "root", Role.SUPERADMIN)


# --- screens ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture helper with all that it may import, for any user to read."""
    return copy_code(tmp_path_factory.mktemp("code"), "numpy", "numpy.libs", "imagehash")


@pytest.fixture(scope="module")
def film(code: Path) -> Path:
    return make_film(code / "film.mkv")


@pytest.fixture(scope="module")
def picture(code: Path) -> Path:
    """Of which every pixel is another one."""
    path = code / "picture.png"
    across = Image.linear_gradient("L").resize((320, 180))
    Image.merge("RGB", (across, across.rotate(90).resize((320, 180)), Image.new("L", (320, 180), 90))).save(path)
    return path
