"""The live view in a real browser: lines that come in, pause, and what there is where no stream can be had."""

import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from browser.conftest import Visit
from infoscreen_server.store import Presence
from infoscreen_shared.messages import LogLevel, timestamp_text
from parts.browser import Visitor
from parts.dashboard import Dashboard
from parts.fleet import Fleet, item, of_items
from parts.wait import wait_for

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


def told(*events: tuple[str, dict[str, Any]], place: str = "1/1") -> str:
    """The body of a stream that says this and breaks off, to be gone on with after a long while."""
    lines = [f"event: {name}\nid: {place}\ndata: {json.dumps(data)}\n\n" for name, data in events]
    return "retry: 3600000\n\n" + "".join(lines)


def stream_says(page: Page, *bodies: str | int) -> list[str]:
    """In place of the server's stream: one body after the other, or a refusal; returns the addresses asked for."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        body = bodies[min(len(asked), len(bodies) - 1)]
        asked.append(route.request.url)
        if isinstance(body, int):
            route.fulfill(status=body, body="{}")
        else:
            route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route(STREAM, answer)
    return asked


def comes(page: Page, asked: Sequence[object], number: int) -> None:
    """Routes are answered while something is asked of the page."""
    wait_for(lambda: page.evaluate("true") and len(asked) >= number, f"request {number}")


def after_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["after"][0]


def test_it_goes_on_where_the_stream_was_though_nothing_came(visit: Visit) -> None:
    """A tab that is hidden and shown, and a proxy that answers 502 while the server starts again."""
    visitor = visit()
    page = visitor.page
    page.clock.install()
    first, second = told(("place", {}), place="777/7"), told(("place", {}), place="888/8")
    asked = stream_says(page, first, second, 502, second)
    visitor.open("/system")
    state = page.locator("[data-live-state]")
    for number, place in ((2, "777/7"), (3, "888/8")):
        expect(state).to_contain_text("broke off")
        page.evaluate(HIDE, True)
        page.evaluate(HIDE, False)
        comes(page, asked, number)
        assert after_of(asked[-1]) == place
    expect(state).to_contain_text("There is no live view now")
    page.clock.fast_forward(31_000)
    comes(page, asked, 4)
    assert after_of(asked[-1]) == "888/8"
    assert all(fault.endswith(": 502") for fault in visitor.faults), visitor.faults
    visitor.faults.clear()


def test_the_servers_place_is_gone_on_with(visit: Visit, kiosks: list[Kiosk]) -> None:
    """Nothing came that this page shows; what was passed over for it is not looked through again."""
    page = visit().open("/system?level=ERROR")
    is_live(page)
    began = page.locator("[data-stream]").get_attribute("data-stream")
    assert began is not None
    kiosks[0].say("not wanted", level=LogLevel.WARN)
    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    is_live(page)
    kiosks[0].say("wanted")
    expect(page.locator(ROWS).first).to_contain_text("wanted")
    page.evaluate(HIDE, True)
    with page.expect_request(STREAM) as asked:
        page.evaluate(HIDE, False)
    assert int(after_of(asked.value.url).split("/")[0]) >= int(after_of(began).split("/")[0]) + 2
    is_live(page)


FOCUSED = "document.activeElement.innerText + ' ' + (document.activeElement.ariaLabel ?? '')"


@pytest.mark.parametrize(
    "target", ["#timeline-table > summary", ".head .actions a >> text=Edit", "a.tally >> nth=1", "#incidents ~ table a"]
)
def test_a_page_is_drawn_again_under_the_focus(visit: Visit, kiosks: list[Kiosk], target: str) -> None:
    """Also where what has the focus has no name; there it stays, and what is open stays open."""
    kiosk = kiosks[9]
    kiosk.is_there(True)
    kiosk.is_there(False)
    kiosk.is_there(True)
    visitor = visit("admin")
    with visitor.page.expect_response(STREAM):
        page = visitor.open(f"/clients/{kiosk.uuid}")
    state = page.locator(".head .actions .badge").first
    expect(state).to_contain_text("Online")
    focused = page.locator(target).first
    summary = "summary" in target
    if summary:
        focused.click()
    focused.evaluate("(each) => each.removeAttribute('id')")
    page.evaluate("for (const each of document.querySelectorAll('#client [id]')) if (!each.open) each.dataset.old = 1")
    focused.focus()
    before = page.evaluate(FOCUSED)
    kiosk.is_there(False)
    expect(state).to_contain_text("Offline")
    assert page.evaluate(FOCUSED) == before
    assert page.evaluate("document.activeElement.matches(':is(a, summary)') && !document.querySelector('[data-old]')")
    assert page.locator("#timeline-table").evaluate("(each) => each.open") is summary


def test_what_someone_types_is_not_drawn_over(visit: Visit, kiosks: list[Kiosk]) -> None:
    """Nor on the way to the button."""
    kiosks[0].say("an issue to acknowledge", code="typed.issue")
    kiosks[7].is_there(False)
    visitor = visit()
    with visitor.page.expect_response(STREAM):
        page = visitor.open("/system")
    issue = page.locator("#issues details[id^=issue-]").first
    issue.locator("summary").click()
    note = issue.locator("input[name=note]")
    note.fill("someone is on the way")
    for number, online in enumerate((True, False)):
        with page.expect_response(lambda answer: "x-refresh" in answer.request.headers, timeout=15_000) as answered:
            kiosks[7].is_there(online)
        answered.value.finished()
        page.wait_for_timeout(300)
        expect(note).to_have_value("someone is on the way")
        if not number:
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.localName") == "button"


def messages(page: Page) -> list[str]:
    return page.locator(f"{ROWS} .log-message").all_inner_texts()


def older(page: Page) -> list[str]:
    with page.expect_navigation():
        page.get_by_role("link", name="Older").click()
    return messages(page)


def without_stream(visitor: Visitor, path: str) -> Page:
    """A page whose stream is refused, with a clock that the test moves."""
    page = visitor.page
    page.clock.install()
    page.route(STREAM, lambda route: route.fulfill(status=429, body="{}"))
    visitor.open(path)
    expect(page.locator("[data-live-state]")).to_contain_text("There is no live view now")
    return page


def test_without_a_stream_no_record_is_between_the_list_and_older(visit: Visit, kiosks: list[Kiosk]) -> None:
    visitor = visit("admin")
    page = without_stream(visitor, f"/clients/{kiosks[6].uuid}/logs")
    said = [f"meanwhile {n}" for n in range(60)]
    kiosks[6].say(*said)
    page.clock.fast_forward(31_000)
    expect(page.locator(ROWS).first).to_contain_text("meanwhile 59")
    found = messages(page)
    assert found == said[:39:-1]
    found += older(page) + older(page)
    assert found == said[::-1]
    assert all(fault.endswith(": 429") for fault in visitor.faults), visitor.faults
    visitor.faults.clear()


def test_what_comes_late_takes_its_place(visit: Visit, kiosks: list[Kiosk]) -> None:
    """The page was drawn again without a stream, and that one comes back with what came meanwhile."""
    visitor = visit("admin")
    page = without_stream(visitor, f"/clients/{kiosks[6].uuid}/logs?q=belated")
    said = [f"belated {n}" for n in range(50)]
    kiosks[6].say(*said)
    page.clock.fast_forward(31_000)
    expect(page.locator(ROWS).first).to_contain_text("belated 49")
    page.unroute(STREAM)
    page.clock.fast_forward(31_000)
    is_live(page)
    kiosks[6].say("belated, from yesterday", timestamp=timestamp_text(datetime.now(UTC) - timedelta(days=1)))
    kiosks[6].say("belated, and now")
    wanted = ["belated, and now", *said[::-1], "belated, from yesterday"]
    expect(page.locator(f"{ROWS} .log-message")).to_have_text(wanted)
    # What lies far behind the others is no reason to pass over what is between them.
    assert older(page) == said[29:9:-1]
    assert all(fault.endswith(": 429") for fault in visitor.faults), visitor.faults
    visitor.faults.clear()


def test_what_the_list_has_no_room_for_is_behind_older(visit: Visit, kiosks: list[Kiosk]) -> None:
    page = visit("admin").open(f"/clients/{kiosks[6].uuid}/logs?q=flood")
    is_live(page)
    kiosks[6].say("flood begins")
    expect(page.locator(ROWS)).to_have_count(1)
    expect(page.get_by_role("link", name="Older")).to_be_hidden()
    for part in range(3):
        kiosks[6].say(*(f"flood {part * 200 + n}" for n in range(200)))
        expect(page.locator(f"{ROWS} .log-message").first).to_have_text(f"flood {part * 200 + 199}")
    found = messages(page)
    assert found == [f"flood {n}" for n in range(599, 99, -1)]
    assert older(page) == [f"flood {n}" for n in range(99, 79, -1)]


class Renders:
    """Holds up what the page is drawn again from, and notes when it was asked for and answered."""

    def __init__(self, page: Page, length: float) -> None:
        self.page, self.length = page, length
        self.spans: list[tuple[float, float]] = []
        self.running = self.most = 0
        page.route(lambda _: True, self._answer)

    def _answer(self, route: Route) -> None:
        if "x-refresh" not in route.request.headers:
            route.fallback()
            return
        began = time.monotonic()
        self.running += 1
        self.most = max(self.most, self.running)
        answer = route.fetch()
        self.page.wait_for_timeout(1000 * self.length)
        self.running -= 1
        route.fulfill(response=answer)
        self.spans.append((began, time.monotonic()))

    def watch(self, seconds: float) -> None:
        self.page.wait_for_timeout(1000 * seconds)


def test_a_flapping_kiosk_does_not_take_up_the_server(visit: Visit, kiosks: list[Kiosk]) -> None:
    """The page is drawn again soon, then no sooner than ten times the length of a drawing after it."""
    page = visit("user").open("/")
    renders = Renders(page, 0.4)
    began = time.monotonic()
    online = itertools.cycle((True, False))
    while len(renders.spans) < 3 and time.monotonic() - began < 60:
        kiosks[7].is_there(online=next(online))
        renders.watch(0.1)
    assert renders.most == 1
    assert len(renders.spans) == 3
    assert renders.spans[0][0] - began < 1
    gaps = [later[0] - earlier[1] for earlier, later in itertools.pairwise(renders.spans)]
    assert min(gaps) >= 4, gaps


@pytest.mark.parametrize(("path", "at_once"), [("/?q={uuid}", 1), ("/clients/{uuid}", 0)])
def test_what_a_page_does_not_show_waits_for_its_tick(
    visit: Visit, kiosks: list[Kiosk], path: str, at_once: int
) -> None:
    """Another client's state. Of one that fails a list may have to show it at once, but not again and again."""
    visitor = visit("user")
    page = visitor.page
    page.clock.install()
    shown, other = kiosks[7], kiosks[8]
    other.is_there(False)
    visitor.open(path.format(uuid=shown.uuid))
    renders = Renders(page, 0)
    other.is_there(True)
    renders.watch(0.6)
    assert renders.spans == []
    for online in (False, True, False, True):
        other.is_there(online)
        renders.watch(0.6)
    comes(page, renders.spans, at_once)
    assert len(renders.spans) == at_once
    page.clock.fast_forward(31_000)
    comes(page, renders.spans, at_once + 1)


def test_without_a_stream_the_page_is_refreshed(visit: Visit, kiosks: list[Kiosk]) -> None:
    visitor = visit()
    page = without_stream(visitor, "/system")
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
