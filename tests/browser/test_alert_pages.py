"""The pages of alerts where there is nothing, and where there is more than there is room for."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, expect

from browser.conftest import Visit
from parts import alarms, crowd
from parts.browser import Visitor
from parts.dashboard import Dashboard
from parts.looks import MAX_BYTES, SHOTS, sticks_out, violations, weights

PATHS = ("/alerts", "/alerts/silences", "/alerts/rules", "/alerts/channels", "/alerts/hours")
LONG = ("/alerts/rules?rule=2", f"/alerts/hours?tag={crowd.long('veranstaltungsraum', 50)}")
LOOKS = [("light", "en", 1280), ("dark", "en", 320), ("light", "de", 320), ("dark", "de", 1280)]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("bare")
    url = f"sqlite:///{folder / 'server.db'}"
    running = Dashboard(folder, url, count=1)
    alarms.clear(url)
    with running:
        yield running


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("crowded")
    url = f"sqlite:///{folder / 'server.db'}"
    running = Dashboard(folder, url, count=1)
    crowd.fill(url, datetime.now(UTC))
    with running:
        yield running


def _look(visitor: Visitor, paths: tuple[str, ...], name: str, look: str, width: int) -> None:
    """Artefacts to be looked at, and nothing that a machine finds wrong, with all that can be opened open."""
    (SHOTS / "alerts").mkdir(parents=True, exist_ok=True)
    wrong = {}
    for path in paths:
        page = visitor.open(path)
        page.evaluate("document.querySelectorAll('main details').forEach((each) => (each.open = true))")
        found = (violations(page), sticks_out(page, width))
        if any(found):
            wrong[path] = found
        file = path.removeprefix("/").replace("/", "-").partition("=")[0].replace("?", "-")
        page.screenshot(path=SHOTS / "alerts" / f"{name}_{file}_{look}.png", full_page=True)
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize(("theme", "language", "width"), LOOKS)
def test_an_empty_house(browser: Browser, bare: Dashboard, theme: str, language: str, width: int) -> None:
    with bare.visitor(browser, cookies={"theme": theme, "language": language}, width=width) as visitor:
        _look(visitor, PATHS, "bare", f"{theme}_{language}_{width}", width)


@pytest.mark.parametrize(("theme", "language", "width"), LOOKS)
def test_a_crowded_house(browser: Browser, crowded: Dashboard, theme: str, language: str, width: int) -> None:
    with crowded.visitor(browser, cookies={"theme": theme, "language": language}, width=width) as visitor:
        _look(visitor, (*PATHS, *LONG), "crowded", f"{theme}_{language}_{width}", width)


def test_a_crowd_is_not_over_200_kb(browser: Browser, crowded: Dashboard) -> None:
    heavy = {}
    for path, language in itertools.product((*PATHS, *LONG), ("en", "de")):
        with crowded.visitor(browser, cookies={"language": language}) as visitor:
            visitor.open(path)
            sizes = weights(visitor)
            if sum(sizes.values()) > MAX_BYTES:
                heavy[path] = sizes
    assert not heavy, json.dumps(heavy, indent=1)


def test_of_a_crowd_all_are_counted(browser: Browser, crowded: Dashboard) -> None:
    with crowded.visitor(browser, "admin") as visitor:
        firing = visitor.open("/alerts").locator("#firing")
        expect(firing.get_by_role("heading", level=2)).to_contain_text("300")
        expect(firing.locator(".alarm")).to_have_count(80)
        expect(firing).to_contain_text("220 are left out here")


@pytest.mark.parametrize(
    ("role", "path", "then"),
    [
        ("superadmin", "/alerts", "Add a channel"),
        ("admin", "/alerts", "Ask a super administrator to add one."),
        ("superadmin", "/alerts/rules", "Add one below."),
        ("admin", "/alerts/rules", "Ask a super administrator to add one."),
        ("superadmin", "/alerts/channels", "Add a channel below and send a test."),
        ("admin", "/alerts/silences", "Nothing is silenced: every alert is sent."),
        ("superadmin", "/alerts/hours", "Set below when places are open"),
    ],
)
def test_where_there_is_nothing_it_says_what_to_do(
    browser: Browser, bare: Dashboard, role: str, path: str, then: str
) -> None:
    with bare.visitor(browser, role) as visitor:
        expect(visitor.open(path).get_by_role("main")).to_contain_text(then)


def test_what_is_drawn_again_keeps_what_is_open_and_the_focus(visit: Visit) -> None:
    """As every half minute, and when one comes back to the page."""
    page = visit("admin").open("/alerts")
    opened = page.locator("#alerts-now details, #history details")
    assert opened.count() > 5
    page.evaluate("document.querySelectorAll('main details').forEach((each) => (each.open = true))")
    link = page.locator("#firing .alarm .button").first
    link.focus()
    page.evaluate("document.querySelectorAll('[data-refresh]').forEach((each) => (each.dataset.old = '1'))")
    with page.expect_response(lambda answer: "x-refresh" in answer.request.headers):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("[data-old]")).to_have_count(0)
    expect(page.locator("main details[open]")).to_have_count(opened.count())
    expect(link).to_be_focused()
