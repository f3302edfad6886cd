"""Debian's Chromium, driven by Playwright: visitors of the dashboard who note whatever goes wrong in their browser."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Dialog, Page, Request, Response, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
LIMIT_MS = 20_000
"""How long a condition is waited for; what comes true sooner is not waited for any longer."""
REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`CSP: ${event.violatedDirective} refused ${event.blockedURI} ${event.sample}`);
});
"""
PASSWORD = "a long password of {}"
ROLES = ("user", "admin", "superadmin")

expect.set_options(timeout=LIMIT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    assert CHROMIUM.exists(), "Chromium is not installed: apt install chromium"
    with sync_playwright() as playwright:
        # Root may not use the sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One person at one browser. What they do not expect is in `faults`, and an error at the end."""

    def __init__(
        self,
        browser: Browser,
        origin: str,
        *,
        cookies: dict[str, str] | None = None,
        state: Any = None,
        width: int = 1280,
        height: int = 800,
        scripts: bool = True,
        zone: str = "Europe/Vienna",
        language: str = "en",
    ) -> None:
        self.origin = origin
        self.faults: list[str] = []
        self.requests: list[Request] = []
        """That were answered to the end."""
        self.dialogs: list[str] = []
        self.agrees = False
        """What they answer to questions."""
        self.context = browser.new_context(
            base_url=origin,
            storage_state=state,
            viewport={"width": width, "height": height},
            java_script_enabled=scripts,
            timezone_id=zone,
            locale="de-AT" if language == "de" else "en-GB",
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(LIMIT_MS)
        for name, value in (cookies or {}).items():
            self.context.add_cookies([{"name": name, "value": value, "url": origin}])
        self.context.add_init_script(REPORT_VIOLATIONS)
        self.page = self.context.new_page()
        self._watch(self.page)

    def _watch(self, page: Page) -> None:
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("requestfailed", self._failed)
        page.on("requestfinished", self._ended)
        page.on("response", self._answered)
        page.on("dialog", self._asked)

    def _console(self, kind: str, text: str) -> None:
        # That a load failed is known from the answer itself, with its address.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.faults.append(f"console: {text}")

    def _ended(self, request: Request) -> None:
        self.requests.append(request)

    def _failed(self, request: Request) -> None:
        # A stream that ends with its page is aborted.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"{request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and not response.request.is_navigation_request():
            self.faults.append(f"{response.url}: {response.status}")
        if urlsplit(response.url).netloc != urlsplit(self.origin).netloc and response.url.startswith("http"):
            self.faults.append(f"{response.url}: from elsewhere")

    def _asked(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.accept() if self.agrees else dialog.dismiss()

    def open(self, path: str, status: int = 200) -> Page:
        answer = self.page.goto(path, wait_until="load")
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}"
        return self.page

    def sign_in(self, name: str, password: str) -> None:
        """On the page where they are, or else on the sign-in page."""
        if urlsplit(self.page.url).path != "/sign-in":
            self.open("/sign-in")
        self.page.get_by_label(re.compile("^(Name|Benutzername)$")).fill(name)
        self.page.get_by_label(re.compile("^(Password|Passwort|Kennwort)$")).fill(password)
        self.page.get_by_role("main").get_by_role("button").click()

    def close(self) -> None:
        self.context.close()
        assert not self.faults, "\n".join(dict.fromkeys(self.faults))

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            print("\n".join(dict.fromkeys(self.faults)))
            self.context.close()
