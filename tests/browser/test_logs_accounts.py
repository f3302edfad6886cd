"""The log viewer and the pages of accounts in a real browser: what JavaScript adds, and that it is not needed."""

import csv
import re

import pytest
from playwright.sync_api import expect

from browser.conftest import Visit
from parts.browser import PASSWORD
from parts.dashboard import Dashboard


@pytest.fixture
def logs(dashboard: Dashboard) -> str:
    return f"/clients/{dashboard.kiosks[29].uuid}/logs"


def test_times_are_typed_in_the_viewers_zone(visit: Visit, logs: str) -> None:
    page = visit("admin").open(f"{logs}?since=2026-07-01T10:00:00Z")
    expect(page.locator("#since")).to_have_value(re.compile("^2026-07-01T12:00"))
    page.locator("#until").fill("2026-12-01T08:30")
    page.get_by_role("button", name="Search").click()
    # Vienna is an hour ahead in winter, two in summer.
    page.wait_for_url(re.compile(r"since=2026-07-01T10%3A00%3A00\.000Z&until=2026-12-01T07%3A30%3A00\.000Z"))


def test_without_scripts_times_are_utc(visit: Visit, logs: str) -> None:
    page = visit("admin", scripts=False).open(f"{logs}?since=2026-07-01T10:00:00Z")
    field = page.get_by_label("From UTC")
    expect(field).to_have_value(re.compile("2026-07-01T10:00"))
    page.get_by_role("button", name="Search").click()
    expect(field).to_have_value(re.compile("2026-07-01T10:00"))
    first = page.locator("details[id^=context]").first
    first.locator("summary").click()
    expect(first.locator("pre")).to_be_visible()


def test_a_records_address_leads_back_to_it(visit: Visit, logs: str) -> None:
    visitor = visit("admin")
    page = visitor.open(f"{logs}?level=ERROR")
    record = page.locator(".log").nth(2)
    number, message = record.get_attribute("id"), record.locator(".log-message").inner_text()
    record.get_by_role("link", name="Link to the record").click()
    page.wait_for_url(re.compile(rf"#{number}$"))
    expect(page.locator(f"#{number} .log-message")).to_have_text(message)
    expect(page.locator(f"#{number}")).to_be_in_viewport()
    expect(page.locator("[data-live-state]")).to_have_count(0)


def test_the_log_comes_as_a_file(visit: Visit, logs: str) -> None:
    page = visit("admin").open(f"{logs}?level=ERROR")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"logs-kiosk-\S+\.csv", download.value.suggested_filename)
    with download.value.path().open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["level"] for row in rows} == {"ERROR"}
    assert len(rows) > 5


def test_a_new_user_from_the_link_to_the_own_password(visit: Visit, dashboard: Dashboard) -> None:
    page = visit("superadmin").open("/users")
    page.get_by_label("Name", exact=True).fill("gerda")
    page.get_by_label("Role", exact=True).select_option("admin")
    page.get_by_role("button", name="Add and make a link").click()
    link = page.locator(".copy-line code").inner_text()
    assert link.startswith(f"{dashboard.origin}/set-up/")
    gerda = visit("nobody")
    page = gerda.open(link.removeprefix(dashboard.origin))
    page.get_by_label("Password", exact=True).fill("gerdas own password")
    page.get_by_label("Once more").fill("gerdas own password")
    page.get_by_role("button", name="Set the password").click()
    page.wait_for_url(re.compile("/$"))
    expect(page.get_by_role("status").first).to_contain_text("Your password is set")
    gerda.open(link.removeprefix(dashboard.origin), status=404)
    other = visit("nobody")
    other.sign_in("gerda", "gerdas own password")
    other.page.wait_for_url(re.compile("/$"))
    page = gerda.open("/account")
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_text("All your other sessions have ended.")).to_be_visible()
    other.open("/account")
    assert "/sign-in" in other.page.url


def test_a_token_is_made_shown_and_revoked(visit: Visit) -> None:
    visitor = visit("admin")
    page = visitor.open("/tokens")
    page.get_by_label("Name").fill("wall display")
    page.get_by_role("button", name="Make the token").click()
    text = page.locator(".copy-line code").inner_text()
    assert re.fullmatch(r"ist_[0-9a-f]{12}_\S{43}", text)
    visitor.open("/tokens")
    expect(page.get_by_text("wall display")).to_be_visible()
    assert text not in page.content()
    revoke = page.get_by_role("button", name="Revoke wall display")
    revoke.click()
    assert visitor.dialogs == ["Whatever uses this token stops working at once."]
    expect(revoke).to_be_visible()
    visitor.agrees = True
    revoke.click()
    expect(page.get_by_text("The token is revoked.")).to_be_visible()


def test_guesses_are_told_how_long_to_wait(visit: Visit, dashboard: Dashboard) -> None:
    visitor = visit("nobody")
    for _ in range(5):
        visitor.sign_in("nobody-of-this-name", "wrong horse battery")
        expect(visitor.page.get_by_role("alert")).to_contain_text("The name or the password is wrong.")
    visitor.sign_in("nobody-of-this-name", "wrong horse battery")
    expect(visitor.page.get_by_role("alert")).to_contain_text("There were too many wrong passwords. Try again in 30 s.")
    visitor.sign_in("user", PASSWORD.format("user"))
    visitor.page.wait_for_url(re.compile("/$"))
