"""The live view in a real browser: lines that come in, pause, and what there is where no stream can be had."""

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import Visit
from infoscreen_server.store import Presence
from infoscreen_shared.messages import LogLevel
from parts.dashboard import Dashboard
from parts.fleet import Fleet, item, of_items

STREAM = re.compile("/api/stream")
ROWS = "[data-live-rows] > li"
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
_numbers = itertools.count(1)


class Kiosk:
    """One of the story's, that says something now."""

    def __init__(self, fleet: Fleet, uuid: str) -> None:
        self.fleet, self.uuid = fleet, uuid

    def say(self, *messages: str, level: LogLevel = LogLevel.ERROR, **more: Any) -> None:
        now, epoch = datetime.now(UTC), f"live{next(_numbers)}"
        items = [item(n, now, message=message, **more) for n, message in enumerate(messages, 1)]
        self.fleet.say(of_items(items, level=level, epoch=epoch), uuid=self.uuid, now=now)

    def is_there(self, online: bool) -> None:
        self.fleet.say(Presence(online=online), uuid=self.uuid, now=datetime.now(UTC))


@pytest.fixture
def kiosks(dashboard: Dashboard) -> Iterator[list[Kiosk]]:
    with Fleet(dashboard.database_url, migrated=False) as fleet:
        yield [Kiosk(fleet, each.uuid) for each in dashboard.kiosks]


def is_live(page: Page) -> None:
    expect(page.locator("[data-live-state]")).to_have_text("Live")


def test_lines_come_in_and_are_only_text(visit: Visit, kiosks: list[Kiosk]) -> None:
    page = visit().open("/system?level=ERROR")
    is_live(page)
    evil = "<img src=x onerror=alert(1)> \u202e {{ 7*7 }}"
    kiosks[0].say("not wanted", level=LogLevel.WARN)
    kiosks[0].say(evil, code="<b>x</b>", context={evil: "</pre>"})
    first = page.locator(ROWS).first
    expect(first.locator(".log-message")).to_contain_text("<img src=x onerror=alert(1)> \\u202e")
    expect(first).to_contain_text("<b>x</b>")
    assert page.locator(f"{ROWS} img").count() == 0
    expect(page.locator(ROWS).filter(has_text="not wanted")).to_have_count(0)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first.get_by_role("button", name="Copy").click()
    expect(first.get_by_role("button")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    first.get_by_role("link", name="Link").click()
    expect(page).to_have_url(copied)
    expect(page.locator(".log-found")).to_contain_text("<img src=x")


def test_pause_keeps_what_comes(visit: Visit, kiosks: list[Kiosk]) -> None:
    page = visit().open("/system")
    is_live(page)
    page.get_by_role("button", name="Pause").click()
    kiosks[0].say("one", "two", "three")
    expect(page.locator("[data-live-state]")).to_have_text("Paused. New lines: 3")
    expect(page.locator(ROWS).filter(has_text="three")).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(f"{ROWS} .log-message").nth(0)).to_have_text("three")
    expect(page.locator(f"{ROWS} .log-message").nth(2)).to_have_text("one")
    is_live(page)


def test_the_list_does_not_grow_for_ever(visit: Visit, kiosks: list[Kiosk]) -> None:
    page = visit().open("/system")
    is_live(page)
    for part in range(3):
        kiosks[0].say(*(f"part {part} line {n}" for n in range(250)))
        expect(page.locator(f"{ROWS} .log-message").first).to_have_text(f"part {part} line 249")
    assert page.locator(ROWS).count() == 500
    is_live(page)


def test_one_clients_log_is_followed(visit: Visit, kiosks: list[Kiosk]) -> None:
    page = visit("admin").open(f"/clients/{kiosks[4].uuid}/logs?q=marked")
    is_live(page)
    expect(page.get_by_text("No record matches")).to_be_visible()
    kiosks[5].say("marked, of another")
    kiosks[4].say("unmarked? no")
    kiosks[4].say("marked")
    expect(page.locator(f"{ROWS} .log-message")).to_have_text(["marked", "unmarked? no"])
    expect(page.get_by_text("No record matches")).to_be_hidden()


def test_a_page_that_was_hidden_catches_up(visit: Visit, kiosks: list[Kiosk]) -> None:
    page = visit().open("/system")
    is_live(page)
    kiosks[0].say("before")
    expect(page.locator(ROWS).first).to_contain_text("before")
    page.evaluate(HIDE, True)
    kiosks[0].say("meanwhile")
    page.evaluate(HIDE, False)
    expect(page.locator(ROWS).first).to_contain_text("meanwhile")
    expect(page.locator(ROWS).nth(1)).to_contain_text("before")


def test_a_clients_state_changes_in_place(visit: Visit, kiosks: list[Kiosk]) -> None:
    """Also for those who may not see logs. The page is not loaded anew."""
    page = visit("user").open("/")
    page.evaluate("window.same = true")
    row = page.locator("tr").filter(has=page.locator(f"#c-{kiosks[7].uuid}"))
    for online, word in ((True, "Online"), (False, "Offline"), (True, "Online")):
        kiosks[7].is_there(online)
        expect(row).to_contain_text(word)
    assert page.evaluate("window.same") is True


def test_without_a_stream_the_page_is_refreshed(visit: Visit, kiosks: list[Kiosk]) -> None:
    visitor = visit()
    page = visitor.page
    page.clock.install()
    page.route(STREAM, lambda route: route.fulfill(status=429, body="{}"))
    visitor.open("/system")
    expect(page.locator("[data-live-state]")).to_contain_text("There is no live view now")
    kiosks[0].say("by and by")
    page.unroute(STREAM)
    page.clock.fast_forward(31_000)
    expect(page.locator(ROWS).first).to_contain_text("by and by")
    is_live(page)
    assert all(fault.endswith(": 429") for fault in visitor.faults), visitor.faults
    visitor.faults.clear()


def test_without_scripts_there_are_the_lines_and_no_buttons_for_nothing(visit: Visit, kiosks: list[Kiosk]) -> None:
    kiosks[0].say("plain")
    page = visit(scripts=False).open("/system")
    expect(page.locator(ROWS).first).to_contain_text("plain")
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
