"""How a page is for those who meet it: what axe-core finds, what sticks out, what it weighs; and how to get to it."""

from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from playwright.sync_api import Page

from parts.browser import Visitor

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
SHOTS = Path(__file__).parents[2] / ".cache/screenshots"
MAX_BYTES = 200_000
_WIDE = """
[...document.querySelectorAll("main *, footer *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
  .slice(0, 5).map((each) => each.outerHTML.slice(0, 120))
"""
_PUT = "(each, value) => { if (each.type === 'radio') each.checked = true; else each.value = value; }"


class Stop(NamedTuple):
    """A page as it is under its address, or as the answer to its form, with what was put into fields by selector."""

    path: str
    status: int = 200
    put: MappingProxyType[str, str] | None = None

    def go(self, visitor: Visitor) -> Page:
        if self.put is None:
            return visitor.open(self.path, self.status)
        page = visitor.open(self.path)
        for selector, value in self.put.items():
            page.locator(selector).evaluate(_PUT, value)
        form = page.locator("form").filter(has=page.locator(next(iter(self.put))))
        with page.expect_navigation() as answer:
            form.locator("button.primary").click()
        assert answer.value.status == self.status, f"{self.path}: {answer.value.status}"
        return page


def refused(path: str, **put: str) -> Stop:
    """`fields` by their id, `when` by its value."""
    selectors = {f"[name=when][value={value}]" if name == "when" else f"#{name}": value for name, value in put.items()}
    return Stop(path, 400, MappingProxyType(selectors))


def violations(page: Page) -> list[str]:
    """What axe-core finds, in words."""
    page.evaluate(AXE)
    found: Any = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:200]} - {node['failureSummary'][:300]}"
        for one in found["violations"]
        for node in one["nodes"][:3]
    ]


def sticks_out(page: Page, width: int) -> tuple[int, list[str]] | None:
    """How wide the page is where it scrolls sideways, and who is to blame."""
    real = page.evaluate("document.documentElement.scrollWidth")
    return (real, page.evaluate(_WIDE)) if real > width else None


def weights(visitor: Visitor) -> dict[str, int]:
    """Bytes of the page that is open and of all that came with it, by address."""
    navigations = [each for each in visitor.requests if each.is_navigation_request()]
    left = set(navigations[:-1])
    found = [each for each in visitor.requests if each not in left]
    return {each.url.removeprefix(visitor.origin): each.sizes()["responseBodySize"] for each in found}
