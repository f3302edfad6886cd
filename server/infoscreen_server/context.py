"""What every route works with: settings, database, time, the caller, and how to refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, TypeVar

from flask import current_app, g, request
from sqlalchemy import Engine

from infoscreen_server.accounts import Access, Caller
from infoscreen_server.config import ServerConfig
from infoscreen_server.fleet import At
from infoscreen_server.sessions import Signed

PROGRAMS = ("/api/", "/healthz", "/metrics")
"""Beginnings of the paths that answer programs."""

View = TypeVar("View", bound=Callable[..., Any])


class Refusal(Exception):  # noqa: N818  # an answer to the caller, not a fault of ours
    """Ends a request with this status and text, which must not repeat what the caller sent."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with."""

    config: ServerConfig
    engine: Engine
    now: Callable[[], datetime]


def parts() -> Parts:
    found: Parts = current_app.extensions["infoscreen"]
    return found


def access(rule: Access) -> Callable[[View], View]:
    """Say whom a route is for. A route without it is for nobody."""

    def mark(view: View) -> View:
        view.__dict__["access"] = rule
        return view

    return mark


def caller() -> Caller:
    """Who is asking, on a route that is not public."""
    found: Caller = g.caller
    return found


def signed() -> Signed | None:
    """The session behind this request, public routes included."""
    found: Signed | None = g.get("signed")
    return found


def me() -> Signed:
    """The session behind this request, on a page that lets nobody in without one."""
    found = signed()
    assert found is not None
    return found


def is_page() -> bool:
    """Whether this request is a person's, for a page; the others are programs', and are answered in JSON."""
    return not request.path.startswith(PROGRAMS)


def moment() -> At:
    """Now, and how long a client may have been silent."""
    return At(parts().now(), parts().config.silence_s)


def retention() -> timedelta:
    """For how long incidents and states are kept after they ended."""
    return timedelta(days=parts().config.log_retention_days)


def no_client() -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "uuid: there is no such client")
