"""Every page of the URL map, so that a new one cannot be forgotten: who may open it, and that it is whole for them."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from parts.browser import PASSWORD, ROLES, Visitor
from parts.dashboard import ROLE_OF, Dashboard, Route, page_routes
from parts.looks import MAX_BYTES, SHOTS, Stop, refused, sticks_out, violations, weights

Visit = Callable[..., Visitor]

PAGES = page_routes()
LOOKS = [*itertools.product(("light", "dark"), ("en", "de"), (1280, 360))]
MORE = {
    "clients, none found": "/?q=no-such-screen",
    "logs, errors": "/clients/{uuid}/logs?level=ERROR",
    "logs, none found": "/clients/{uuid}/logs?q=no-such-text",
    "client, a week": "/clients/{uuid}?period=7d",
    "rule": "/alerts/rules?rule=5",
    "rule about the fleet": "/alerts/rules?rule=6",
    "silence of a place": "/alerts/silences?scope=site&target=Graz+Messe",
    "silence of a screen": "/alerts/silences?scope=client&target={uuid}",
    "hours of a tag": "/alerts/hours?tag=shop+window",
    "nothing here": "/clients/00000000-0000-0000-0000-000000000000",
}
"""Pages as they are under a filter, with a form that is open, or where there is nothing."""
REFUSED = {
    "rule, refused": refused("/alerts/rules?rule=5", clear_threshold="90"),
    "new rule, refused": refused("/alerts/rules", new_name="Everything", new_kind="outage"),
    "channel, refused": refused("/alerts/channels", name="Ops", url="example.org"),
    "silence, refused": refused("/alerts/silences", scope="client", target="no such screen"),
    "weekly silence, refused": refused("/alerts/silences", scope="tag", target="4k", when="weekly"),
    "hours, refused": refused("/alerts/hours?tag=shop+window", day2="9 to 5"),
    "new hours, refused": refused("/alerts/hours", tag="foyer", closed="soon"),
}
"""Forms that came back with what is wrong in them."""


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("pages")
    with Dashboard(folder, f"sqlite:///{folder / 'server.db'}") as running:
        yield running


def addresses(dashboard: Dashboard) -> dict[str, Stop]:
    """All that a superadmin can see."""
    found = {route.rule: Stop(dashboard.address(route.rule)) for route in PAGES}
    uuid = dashboard.shown
    found |= {name: Stop(path.format(uuid=uuid), 404 if "nothing" in name else 200) for name, path in MORE.items()}
    return found | REFUSED


def cookies(theme: str = "light", language: str = "en") -> dict[str, str]:
    return {"theme": theme, "language": language}


def heading(page: Page) -> str:
    found = page.get_by_role("heading", level=1)
    expect(found).to_have_count(1)
    return found.inner_text()


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["nobody", *ROLES])
def test_every_page_opens_or_refuses(visit: Visit, dashboard: Dashboard, role: str) -> None:
    visitor = visit(role)
    for route in PAGES:
        _open_or_refuse(visitor, route, dashboard.address(route.rule), role)


def _open_or_refuse(visitor: Visitor, route: Route, path: str, role: str) -> None:
    may = role in ROLE_OF[route.access]
    page = visitor.open(path, 200 if may or role == "nobody" else 403)
    there = urlsplit(page.url)
    if may or role != "nobody":
        assert page.url.removeprefix(visitor.origin) == path
        assert bool(re.search("may not", heading(page))) is not may
    else:
        assert there.path == "/sign-in"
        assert parse_qs(there.query).get("next", ["/"]) == [path]


def test_the_navigation_offers_what_one_may_see(visit: Visit, dashboard: Dashboard) -> None:
    for role in ROLES:
        visitor = visit(role)
        page = visitor.open("/")
        links = page.get_by_role("navigation", name="Main").get_by_role("link").all()
        assert links
        for path in [link.get_attribute("href") or "" for link in links]:
            visitor.open(path)


def test_sign_in_leads_to_the_page_that_was_asked_for(visit: Visit, dashboard: Dashboard) -> None:
    visitor = visit("nobody")
    path = f"/clients/{dashboard.shown}/logs?level=ERROR"
    visitor.open(path)
    visitor.sign_in("admin", PASSWORD.format("admin"))
    visitor.page.wait_for_url(f"**{path}")
    visitor.page.locator("details.menu summary").click()
    visitor.page.get_by_role("button", name="Sign out").click()
    visitor.page.wait_for_url("**/sign-in")
    visitor.open(path)
    assert urlsplit(visitor.page.url).path == "/sign-in"


# --- for everybody ----------------------------------------------------------------------------------------------------


def test_axe_would_find_something(visit: Visit, dashboard: Dashboard) -> None:
    page = visit().open("/")
    page.evaluate("document.documentElement.removeAttribute('lang')")
    page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    page.evaluate("document.querySelector('h1').style.color = '#eeeeee'")
    assert {"html-has-lang", "image-alt", "color-contrast"} <= {found.split()[0] for found in violations(page)}


@pytest.mark.parametrize(("theme", "language", "width"), LOOKS)
def test_axe_finds_nothing(visit: Visit, dashboard: Dashboard, theme: str, language: str, width: int) -> None:
    visitor = visit(cookies=cookies(theme, language), width=width)
    found = {}
    for name, stop in addresses(dashboard).items():
        page = stop.go(visitor)
        assert page.locator("html").get_attribute("lang") == language
        found[name] = violations(page)
    stranger = visit("nobody", cookies=cookies(theme, language), width=width)
    found["/sign-in"] = violations(stranger.open("/sign-in"))
    wrong = {name: problems for name, problems in found.items() if problems}
    assert not wrong, json.dumps(wrong, indent=1)


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_page_scrolls_sideways_at_320_px(visit: Visit, dashboard: Dashboard, language: str) -> None:
    visitor = visit(cookies=cookies(language=language), width=320, height=640)
    wide = {}
    for name, stop in addresses(dashboard).items():
        page = stop.go(visitor)
        if found := sticks_out(page, 320):
            wide[name] = found
    assert not wide, json.dumps(wide, indent=1)


def test_no_page_is_over_200_kb(visit: Visit, dashboard: Dashboard) -> None:
    """Assets included, with a cold cache; the pictures of screens too."""
    heavy = {}
    for name, stop in addresses(dashboard).items():
        visitor = visit()
        stop.go(visitor)
        sizes = weights(visitor)
        assert sizes
        if sum(sizes.values()) > MAX_BYTES:
            heavy[name] = sizes
    assert not heavy, json.dumps(heavy, indent=1)


def test_without_scripts_everything_can_be_reached(visit: Visit, dashboard: Dashboard) -> None:
    plain, full = visit(scripts=False), visit()
    for name, stop in addresses(dashboard).items():
        if "<token>" in name:
            continue
        theirs = _links(stop.go(full))
        page = stop.go(plain)
        assert heading(page)
        assert theirs <= _links(page), name
        assert page.get_by_role("main").inner_text().strip(), name


def _links(page: Page) -> set[str]:
    found = page.locator("a[href]").all()
    # Where records are followed, the newest moves on between two looks.
    return {re.sub(r"(id|before|after|since)=[^&#]*", r"\1", link.get_attribute("href") or "") for link in found}


def test_without_scripts_one_signs_in_and_filters(visit: Visit, dashboard: Dashboard) -> None:
    visitor = visit("nobody", scripts=False)
    visitor.open("/")
    visitor.sign_in("admin", PASSWORD.format("admin"))
    page = visitor.open(f"/clients/{dashboard.shown}/logs")
    page.get_by_role("link", name=re.compile("Errors")).first.click()
    assert parse_qs(urlsplit(page.url).query)["level"] == ["ERROR"]
    assert "was killed by signal" in page.get_by_role("main").inner_text()
    search = page.get_by_role("searchbox")
    search.fill("does not stay up")
    search.press("Enter")
    assert "does not stay up" in page.get_by_role("main").inner_text()
    assert "was killed by signal" not in page.get_by_role("main").inner_text()


# --- with the keyboard ------------------------------------------------------------------------------------------------

FOCUSABLE = """
[...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")].filter((each) =>
  each.tabIndex >= 0 && !each.disabled && each.type !== "hidden" && each.type !== "radio" && each.checkVisibility()
).map((each) => (each.dataset.g ??= String(++window.g || (window.g = 1)), each.dataset.g))
"""
TO_THE_TOP = "(document.body.tabIndex = -1, document.body.focus(), document.body.removeAttribute('tabindex'))"
FOCUSED = """
(() => { const each = document.activeElement, style = getComputedStyle(each);
  const box = each.getBoundingClientRect();
  const ring = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  return [each.dataset.g ?? "", each.outerHTML.slice(0, 120), ring && box.width > 0 && box.right > 0]; })()
"""


def test_all_that_can_be_clicked_can_be_reached_by_keys_and_shows_it(visit: Visit, dashboard: Dashboard) -> None:
    visitor = visit()
    for name, stop in addresses(dashboard).items():
        page = stop.go(visitor)
        page.evaluate(TO_THE_TOP)
        wanted = set(page.evaluate(FOCUSABLE))
        reached: list[str] = []
        unseen: list[str] = []
        # A field for a time has several stops of its own.
        for _ in range(len(wanted) + 25):
            page.keyboard.press("Tab")
            number, html, visible = page.evaluate(FOCUSED)
            if number in reached and number != reached[-1]:
                break
            reached.append(number)
            if number and not visible:
                unseen.append(html)
        assert not unseen, f"{name}: focus cannot be seen: {unseen}"
        missing = wanted - set(reached)
        assert not missing, f"{name}: {[page.evaluate(HTML_OF, one) for one in missing]}"


HTML_OF = "(number) => document.querySelector(`[data-g='${number}']`)?.outerHTML.slice(0, 150)"


def test_the_skip_link_is_first_and_leads_past_the_navigation(visit: Visit, dashboard: Dashboard) -> None:
    page = visit().open("/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#content")).to_be_focused()


# --- how it looks -----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_screenshots_of_all_pages(visit: Visit, dashboard: Dashboard) -> None:
    """Artefacts, to be looked at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for old in SHOTS.glob("*.png"):
        old.unlink()
    for (theme, language, width), role in itertools.product(LOOKS, ("superadmin", "nobody")):
        if language == "de" and theme == "dark":
            continue
        size = "desktop" if width > 1000 else "phone"
        visitor = visit(role, cookies=cookies(theme, language), width=width)
        pages = addresses(dashboard) if role != "nobody" else {"sign-in": Stop("/sign-in")}
        for name, stop in pages.items():
            plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "clients"
            stop.go(visitor).screenshot(path=SHOTS / f"{plain}_{theme}_{language}_{size}.png", full_page=True)
    assert len([*SHOTS.glob("*.png")]) >= 6 * len(PAGES)
