"""The dashboard as people meet it: a running server on a told story, a user of each role, and all of its pages."""

import re
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from flask_openapi3.openapi import OpenAPI
from playwright.sync_api import Browser

from infoscreen_server.accounts import Access
from infoscreen_server.app import access_of, create_app
from infoscreen_server.config import ServerConfig
from parts import alarms, showcase
from parts.browser import PASSWORD, ROLES, Visitor
from parts.server import Server

ROLE_OF = {
    Access.PUBLIC: ("nobody", *ROLES),
    Access.USER_OR_HIGHER: ROLES,
    Access.ADMIN_OR_HIGHER: ("admin", "superadmin"),
    Access.SUPERADMIN: ("superadmin",),
}


class Route(NamedTuple):
    """A route of the URL map that people go to: `rule` as Flask has it."""

    rule: str
    method: str
    access: Access

    @property
    def is_page(self) -> bool:
        return self.method == "GET" and self.rule not in NO_PAGES


NO_PAGES = {"/static/<path:filename>", "/metrics", "/healthz", "/sign-in"}
"""Answers to GET outside /api/ that are no HTML, and the page that nobody sees who is signed in."""


def routes_of(app: OpenAPI) -> list[Route]:
    """All that is not the API's."""
    found = []
    for rule in app.url_map.iter_rules():
        access = access_of(app, rule.endpoint)
        assert access is not None, rule
        if not rule.rule.startswith("/api/"):
            found += [Route(rule.rule, method, access) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}]
    return sorted(found)


def page_routes() -> list[Route]:
    """For the parameters of tests, before anything runs."""
    app = create_app(ServerConfig(database_url="sqlite:////never-opened"))
    return [route for route in routes_of(app) if route.is_page]


QUERIES = {"/system/issue": "level=ERROR&code=player.crashed"}
"""What a page cannot do without."""
WHOLE = 40
"""Kiosks of the story in which every state is there, and alerts."""


class Dashboard:
    """`infoscreen-server run` on a database that has the story of `count` kiosks, with a user of each role."""

    def __init__(
        self, folder: Path, database_url: str, broker: str = "none", count: int = WHOLE, **settings: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # A kiosk of the story said its last word before the server began: for hours nobody is to be offline for that.
        self.server = Server(folder, database_url, broker, **{"heartbeat_seconds": 3600, **settings})
        self.database_url = database_url
        now = datetime.now(UTC)
        self.kiosks = showcase.fill(database_url, now, count=count)
        if count == WHOLE:
            alarms.fill(database_url, self.kiosks, now)
        self._states: dict[str, Any] = {}

    def start(self) -> "Dashboard":
        for role in ROLES:
            self.add_user(role, role)
        self.server.start()
        return self

    @property
    def shown(self) -> str:
        """The uuid of the kiosk that has the most to tell."""
        return self.kiosks[min(29, len(self.kiosks) - 1)].uuid

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def add_user(self, name: str, role: str) -> None:
        self.server.call("user", "add", name, "--role", role, said=f"{PASSWORD.format(name)}\n")

    def visitor(self, browser: Browser, role: str = "superadmin", **more: Any) -> Visitor:
        """Signed in, once for each role by the sign-in page; `nobody` is not."""
        if role != "nobody" and role not in self._states:
            with Visitor(browser, self.origin) as visitor:
                visitor.sign_in(role, PASSWORD.format(role))
                visitor.page.wait_for_url(re.compile(r"/$"))
                self._states[role] = visitor.context.storage_state()
        return Visitor(browser, self.origin, state=self._states.get(role), **more)

    def address(self, rule: str) -> str:
        """A page that is there for this rule."""
        filled = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: self._value(found[1]), rule)
        return f"{filled}?{QUERIES[rule]}" if rule in QUERIES else filled

    def _value(self, name: str) -> str:
        return self.set_up_token() if name == "token" else self.shown

    def set_up_token(self) -> str:
        """Of a link for somebody whom no other test needs."""
        if "newcomer" not in self.server.call("user", "list"):
            self.add_user("newcomer", "user")
        return self.server.call("set-up", "--reset", "newcomer").split("/set-up/")[1].split()[0]

    def close(self) -> None:
        self.server.__exit__(None, None, None)

    def __enter__(self) -> "Dashboard":
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()
