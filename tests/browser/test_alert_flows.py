"""What people do about alerts, step by step, with a real receiver: a channel, a rule, silences, opening hours."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from infoscreen_server import store
from infoscreen_server.db import make_engine
from infoscreen_server.incoming import arrival_of
from infoscreen_shared.messages import timestamp_text
from parts.dashboard import Dashboard
from parts.mailbox import Webhook
from parts.wait import wait_for

PLACE = "Graz Messe"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Dashboard]:
    with Dashboard(
        tmp_path / "house", f"sqlite:///{tmp_path / 'server.db'}", count=3, alert_allow_local=True
    ) as running:
        yield running


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


def shows(dashboard: Dashboard, number: int, status: str) -> None:
    """A kiosk says what is to be seen on its screen."""
    kiosk, now = dashboard.kiosks[number], datetime.now(UTC)
    screen = {"status": status, "reason": "The screen is black" if status == "BLACK" else None, "hash": None}
    report = {
        "timestamp": timestamp_text(now),
        "expected_state": {"event_id": 1, "event_type": "video"},
        "actual_state": {"process": kiosk.process, "pid": 1, "status": "running"},
        "screen": screen | {"analyzed_at": timestamp_text(now)},
        "system": {"hostname": kiosk.hostname},
    }
    engine = make_engine(dashboard.database_url)
    arrival = arrival_of(f"infoscreen/{kiosk.uuid}/health", json.dumps(report).encode())
    store.ingest(engine, [arrival], now, store.Policy(debug_mode=True), "mqtt")
    engine.dispose()


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Alerts").get_by_role("link", name=name).click()
    expect(page.get_by_role("navigation", name="Alerts").locator("[aria-current]")).to_have_text(name)


def test_from_a_new_channel_to_a_silenced_place(browser: Browser, house: Dashboard, hook: Webhook) -> None:
    kiosk = house.kiosks[1]
    assert kiosk.site == PLACE
    with house.visitor(browser, "superadmin") as root, house.visitor(browser, "admin") as admin:
        _adds_a_channel_and_tests_it(root.open("/alerts"), hook)
        _has_a_rule_fire_at_once(root.page)
        shows(house, 1, "BLACK")
        wait_for(lambda: len(hook.titles) > 1, "the alert arrives")
        assert hook.titles[1].startswith(f"ALERT {kiosk.name}, {PLACE}: picture wrong [#")
        page = admin.open("/alerts")
        alarm = page.locator("#firing .alarm").filter(has_text=kiosk.name)
        expect(alarm).to_contain_text("The screen is black")
        expect(page.locator("#history")).to_contain_text("1 message")
        # He silences the place from the list, and has to fill in nothing.
        page.get_by_role("link", name=f"Silence the place {PLACE}").click()
        expect(page.get_by_label("What to silence")).to_have_value("site")
        expect(page.get_by_label("Its name")).to_have_value(PLACE)
        page.get_by_label("Reason").fill("The electrician is there")
        page.get_by_role("button", name="Silence", exact=True).click()
        expect(page.get_by_role("status")).to_contain_text("The silence is set.")
        row = page.get_by_role("region", name="Silent now").get_by_role("listitem").filter(has_text=PLACE)
        expect(row).to_contain_text("by admin · The electrician is there")
        tab(page, "Overview")
        expect(alarm).to_contain_text("Silenced")
        expect(page.get_by_role("heading", name="Active now")).to_contain_text("1 of them silenced")
        shows(house, 1, "OK")
        tab(page, "Silences")
        admin.agrees = True
        page.get_by_role("button", name=f"End the silence of {PLACE}").click()
        assert admin.dialogs == ["Alerts that are still active are sent then."]
        expect(page.get_by_role("main")).to_contain_text("Nothing is silenced: every alert is sent.")
        wait_for(lambda: hook.titles[-1].startswith(f"RECOVERED {kiosk.name}, {PLACE}"), "its end is told")
        expect(admin.open("/alerts").locator("#firing")).to_contain_text("No alert is active.")


def _adds_a_channel_and_tests_it(page: Page, hook: Webhook) -> None:
    page.get_by_role("link", name="Add a channel").click()
    page.get_by_label("Name").fill("Night shift")
    page.get_by_label("Address (URL)", exact=True).fill(hook.url("secret-path"))
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Send a test to see that it arrives.")
    assert "secret-path" not in page.content()
    page.get_by_role("button", name="Send a test to Night shift").click()
    expect(page.get_by_role("status")).to_contain_text("The test message to Night shift was delivered.")
    assert hook.titles == ["Test of the channel Night shift"]
    tab(page, "Overview")
    expect(page.get_by_role("link", name="Add a channel")).to_have_count(0)


def _has_a_rule_fire_at_once(page: Page) -> None:
    tab(page, "Rules")
    page.get_by_role("link", name="Edit Screen is black or frozen").click()
    edit = page.get_by_role("region", name="Edit Screen is black or frozen")
    edit.get_by_label("After (minutes)").fill("0")
    edit.get_by_label("For (minutes)").fill("0")
    edit.get_by_label("Only within opening hours").uncheck()
    edit.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("The rule Screen is black or frozen is saved.")
    row = page.get_by_role("listitem").filter(has_text="Screen is black or frozen")
    expect(row).to_contain_text("alerts at once · reminds every 12 h · at any hour · to all channels")


def test_a_channel_that_does_not_answer_says_so(browser: Browser, house: Dashboard) -> None:
    with Webhook(status=503) as hook, house.visitor(browser, "superadmin", cookies={"language": "de"}) as root:
        page = root.open("/alerts/channels")
        page.get_by_label("Name").fill("Nachtdienst")
        page.get_by_label("Adresse (URL)", exact=True).fill(hook.url())
        page.get_by_role("button", name="Hinzufügen", exact=True).click()
        page.get_by_role("button", name="Test an Nachtdienst senden").click()
        told = "Die Testnachricht an Nachtdienst wurde nicht zugestellt: Die Gegenstelle antwortete mit 503"
        expect(page.get_by_role("alert")).to_contain_text(told)
        root.agrees = True
        page.get_by_role("button", name="Nachtdienst löschen").click()
        expect(page.get_by_role("main")).to_contain_text("Noch kein Kanal")


def test_a_channel_gets_another_address(browser: Browser, house: Dashboard) -> None:
    with Webhook(status=503) as old, Webhook() as new, house.visitor(browser, "superadmin") as root:
        page = root.open("/alerts/channels")
        page.get_by_label("Name").fill("Day shift")
        page.get_by_label("Address (URL)", exact=True).fill(old.url())
        page.get_by_role("button", name="Add", exact=True).click()
        row = page.get_by_role("listitem").filter(has_text="Day shift")
        expect(row.get_by_label("New address (URL)")).to_be_hidden()
        row.get_by_label("Change the address: Day shift").click()
        row.get_by_label("New address (URL)").fill("nosuch://s3cret-path")
        row.get_by_role("button", name="Save the address of Day shift").click()
        expect(row.get_by_label("New address (URL)")).to_be_focused()
        expect(row.get_by_label("New address (URL)")).to_have_accessible_description(re.compile("expected a URL"))
        row.get_by_label("New address (URL)").fill(new.url("s3cret-path"))
        row.get_by_role("button", name="Save the address of Day shift").click()
        expect(page.get_by_role("status")).to_contain_text("The address of Day shift is changed.")
        assert "s3cret-path" not in page.content()
        page.get_by_role("button", name="Send a test to Day shift").click()
        expect(page.get_by_role("status")).to_contain_text("The test message to Day shift was delivered.")
        assert (len(new.titles), old.asked) == (1, [])
        root.agrees = True
        page.get_by_role("button", name="Delete Day shift").click()


def test_a_silence_every_week(browser: Browser, house: Dashboard) -> None:
    with house.visitor(browser, "admin", zone="Europe/Vienna") as admin:
        page = admin.open("/alerts/silences")
        form = page.get_by_role("region", name="Add a silence")
        expect(form.get_by_label("Its name")).to_be_hidden()
        form.get_by_label("What to silence").select_option("tag")
        form.get_by_label("Its name").fill("4k")
        expect(form.get_by_label("Sunday")).to_be_hidden()
        form.get_by_label("Every week at the same time").check()
        form.get_by_label("Sunday").check()
        form.get_by_label("From (time of day)").fill("02:00")
        form.get_by_label("To (time of day)").fill("03:30")
        expect(form.get_by_label("Time zone")).to_have_value("Europe/Vienna")
        form.get_by_role("button", name="Silence").click()
        row = page.get_by_role("listitem").filter(has_text="4k")
        expect(row).to_contain_text("Every week: Sunday 02:00–03:30 Europe/Vienna")
        expect(row).to_contain_text("until someone ends it · by admin")
        row.get_by_role("button").click()
        expect(row).to_have_count(1)
        admin.agrees = True
        row.get_by_role("button").click()
        expect(row).to_have_count(0)


def test_opening_hours(browser: Browser, house: Dashboard) -> None:
    with house.visitor(browser, "superadmin") as root:
        page = root.open("/alerts/hours")
        page.get_by_label("Screens with the tag").fill("school")
        page.get_by_label("Saturday").fill("8-12")
        page.get_by_label("Closed on these dates").fill("24.12.2040 – 6.1.2041\n2041-05-01")
        page.get_by_role("button", name="Save").click()
        # What was wrong is said where it is, the hand is there already, and nothing has to be typed again.
        wrong = page.get_by_label("Saturday")
        expect(wrong).to_be_focused()
        expect(wrong).to_have_accessible_description(re.compile("expected times such as 08:00-12:00"))
        wrong.fill("8:00-12:00")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_role("status")).to_contain_text("The opening hours are saved.")
        row = page.get_by_role("listitem").filter(has_text="school")
        for text in ("Monday – Friday", "08:00–18:00", "Saturday", "08:00–12:00", "Sunday", "closed"):
            expect(row).to_contain_text(text)
        expect(row).to_contain_text("Closed on 24 Dec 2040 – 6 Jan 2041, 1 May 2041")
        page.get_by_label("Screens with the tag").fill("school")
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_label("Screens with the tag")).to_have_accessible_description(re.compile("there are hours"))
        page.get_by_role("link", name="Edit school").click()
        expect(page.get_by_label("Closed on these dates")).to_have_value("2040-12-24 – 2041-01-06\n2041-05-01")
        page.get_by_label("Sunday").fill("10:00-12:00")
        page.get_by_role("button", name="Save").click()
        expect(row).to_contain_text("10:00–12:00")
        root.agrees = True
        page.get_by_role("button", name="Delete school").click()
        expect(page.get_by_role("main")).to_contain_text("Always open")


def test_who_sees_what_of_it(browser: Browser, house: Dashboard) -> None:
    with house.visitor(browser, "user") as user:
        page = user.open("/")
        expect(page.get_by_role("link", name="Alerts")).to_have_count(0)
        for path in ("", "/silences", "/rules", "/channels", "/hours"):
            user.open(f"/alerts{path}", status=403)
    with house.visitor(browser, "admin") as admin:
        page = admin.open("/alerts/rules")
        tabs = page.get_by_role("navigation", name="Alerts").get_by_role("link")
        expect(tabs).to_have_text(["Overview", "Silences", "Rules"])
        expect(page.get_by_role("main").get_by_role("link", name=re.compile("Edit"))).to_have_count(0)
        expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)
