"""What people do with the dashboard, step by step: find a screen, name it, acknowledge, page, choose how it looks."""

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import expect

from parts.browser import Visitor
from parts.dashboard import Dashboard

Visit = Callable[..., Visitor]


def test_the_clients_are_filtered_and_the_address_says_how(visit: Visit, dashboard: Dashboard) -> None:
    page = visit("user").open("/")
    rows = page.get_by_role("row").filter(has=page.get_by_role("rowheader"))
    expect(rows).to_have_count(len(dashboard.kiosks))
    # Who needs someone stands first.
    expect(rows.first).to_contain_text(re.compile("Crashed|Black|Frozen"))
    page.get_by_label("Place", exact=True).select_option("Graz Messe")
    page.wait_for_url(re.compile("location=Graz"))
    expect(rows).to_have_count(len([one for one in dashboard.kiosks if one.site == "Graz Messe"]))
    page.get_by_label("State", exact=True).select_option("offline")
    page.wait_for_url(re.compile("state=offline"))
    page.get_by_role("link", name="Clear").click()
    page.wait_for_url(re.compile(r"/$"))
    page.get_by_role("searchbox").fill("kiosk-linz-29")
    page.get_by_role("searchbox").press("Enter")
    page.wait_for_url(re.compile("q=kiosk-linz-29"))
    expect(rows).to_have_count(1)
    rows.get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(dashboard.kiosks[29].name)


def test_an_admin_names_a_screen(visit: Visit, dashboard: Dashboard) -> None:
    uuid = dashboard.kiosks[2].uuid
    page = visit("admin").open(f"/clients/{uuid}")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Name").fill("Wartehalle <Süd> & Café")
    page.get_by_label("Place").fill("Villach")
    page.get_by_label("Tags").fill("foyer, Test")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(f"**/clients/{uuid}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Wartehalle <Süd> & Café")
    page = visit("user").open("/?tag=Test")
    expect(page.get_by_role("rowheader")).to_contain_text(["Wartehalle <Süd> & Café"])


def test_an_issue_is_acknowledged_and_taken_back(visit: Visit, dashboard: Dashboard) -> None:
    page = visit("superadmin").open("/system")
    active = page.get_by_role("listitem").filter(has_text="feed.unreachable").filter(has_text="clients").first
    active.get_by_text("Acknowledge").first.click()
    active.get_by_label("Note").fill("The provider knows of it")
    active.get_by_role("button", name="Acknowledge").click()
    known = page.get_by_text(re.compile(r"\d+ acknowledged issue"))
    known.click()
    done = page.get_by_role("listitem").filter(has_text="The provider knows of it")
    expect(done).to_contain_text("superadmin")
    done.get_by_role("button", name="Take back").click()
    expect(known).to_have_count(0)


def test_pages_of_a_log_follow_without_gap(visit: Visit, dashboard: Dashboard) -> None:
    """To the end and nothing twice."""
    visitor = visit("admin")
    page = visitor.open(f"/clients/{dashboard.kiosks[8].uuid}/logs?range=7d")
    seen: list[str] = []
    while True:
        seen += page.locator("[id^=log-]:not(#log-list)").evaluate_all("(all) => all.map((each) => each.id)")
        older = page.get_by_role("link", name=re.compile("Older|Search on"))
        if not older.count():
            break
        page = visitor.open(older.get_attribute("href") or "")
    token = dashboard.server.token("admin")
    status, answer = dashboard.server.request(f"/api/client-logs/{dashboard.kiosks[8].uuid}/logs?limit=500", token)
    assert status == 200
    stored = [f"log-{log['id']}" for log in answer["logs"]]
    assert seen == stored[: len(seen)]
    assert len(seen) == len(set(seen)) > 40


def test_language_and_colours_are_chosen_in_the_menu_and_stay(visit: Visit) -> None:
    visitor = visit("user")
    page = visitor.open("/reliability")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("details.menu summary").click()
    page.get_by_label("Language").select_option("de")
    page.get_by_label("Colours").select_option("dark")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**/reliability")
    html = page.locator("html")
    expect(html).to_have_attribute("lang", "de")
    expect(html).to_have_attribute("data-theme", "dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    expect(visitor.open("/").locator("html")).to_have_attribute("lang", "de")


def test_times_are_the_viewers_and_utc_is_behind_them(visit: Visit, dashboard: Dashboard) -> None:
    path = f"/clients/{dashboard.kiosks[29].uuid}/logs"
    told = {}
    for zone in ("Europe/Vienna", "America/New_York"):
        time = visit("admin", zone=zone).open(path).locator("li time").first
        expect(time).to_have_attribute("data-local", "1")
        told[zone] = (time.inner_text(), time.get_attribute("title"))
    here, there = told.values()
    assert here[0] != there[0]
    assert here[1] == there[1]
    assert (here[1] or "").endswith("UTC")


def test_a_session_that_ends_elsewhere_leads_to_the_sign_in(visit: Visit, dashboard: Dashboard) -> None:
    dashboard.add_user("leaver", "user")
    visitor = visit("nobody")
    visitor.open("/reliability")
    visitor.sign_in("leaver", "a long password of leaver")
    visitor.page.wait_for_url("**/reliability")
    dashboard.server.call("user", "disable", "leaver")
    page = visitor.open("/reliability?period=24h")
    there = urlsplit(page.url)
    assert there.path == "/sign-in"
    assert parse_qs(there.query)["next"] == ["/reliability?period=24h"]
