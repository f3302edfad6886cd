"""A real Chromium and a real server, each once for all tests of a run; a visitor with an own profile for each test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from parts import browser as parts_browser
from parts.browser import Visitor
from parts.dashboard import Dashboard


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with parts_browser.chromium() as running:
        yield running


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """For tests that may leave something behind; whoever looks at the whole story has one of their own."""
    folder = tmp_path_factory.mktemp("dashboard")
    with Dashboard(folder, f"sqlite:///{folder / 'server.db'}") as running:
        yield running


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(browser: Browser, dashboard: Dashboard) -> Iterator[Visit]:
    """`visit(role, scripts=False, width=360 …)`: a visitor, whose browser must have found nothing wrong at the end."""
    open_ones: list[Visitor] = []

    def begin(role: str = "superadmin", **more: Any) -> Visitor:
        open_ones.append(dashboard.visitor(browser, role, **more))
        return open_ones[-1]

    yield begin
    for visitor in open_ones:
        visitor.close()
