"""The dashboard: one module per page, which checks the form, calls the query and fills the template.

What a page shows comes from the same functions as the API's answers. Here is what all pages share: the blueprints, what
every template may use, and the files that browsers load once.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, current_app, g, request, send_from_directory, session, url_for
from flask.sessions import NullSession
from flask_wtf.csrf import generate_csrf
from jinja2 import StrictUndefined
from markupsafe import Markup

from infoscreen_server import i18n, queries
from infoscreen_server.accounts import Access
from infoscreen_server.context import access
from infoscreen_server.i18n import lazy
from infoscreen_server.pages import (
    account,
    alert_quiet,
    alert_settings,
    alerts,
    api_docs,
    client,
    clients,
    logs,
    reliability,
    set_up,
    sign_in,
    system,
    tokens,
    users,
    words,
)
from infoscreen_server.pages.visible import steady
from infoscreen_shared import __version__

STATIC = Path(__file__).parent.parent / "static"
YEAR_S = 31_536_000
NAVIGATION = (
    ("clients.home", lazy("Clients"), Access.USER_OR_HIGHER),
    ("reliability.page", lazy("Reliability"), Access.USER_OR_HIGHER),
    ("alerts.page", lazy("Alerts"), Access.ADMIN_OR_HIGHER),
    ("system.page", lazy("System"), Access.SUPERADMIN),
    ("users.page", lazy("Users"), Access.SUPERADMIN),
)
"""Endpoint, word, for whom; the account menu stands apart."""
THEMES = ("auto", "light", "dark")

BLUEPRINTS = (
    sign_in.blueprint,
    set_up.blueprint,
    clients.blueprint,
    client.blueprint,
    logs.blueprint,
    reliability.blueprint,
    system.blueprint,
    alerts.blueprint,
    alert_settings.blueprint,
    alert_quiet.blueprint,
    account.blueprint,
    users.blueprint,
    tokens.blueprint,
    api_docs.blueprint,
)


def install(app: Flask) -> None:
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    app.add_url_rule("/static/<path:filename>", "static", _static)
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.finalize = steady
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.add_extension("jinja2.ext.i18n")
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]  # comes with the extension
        i18n.plain, i18n.plain_plural, newstyle=True
    )
    app.jinja_env.filters.update(words.FILTERS)
    app.context_processor(_shared)


@access(Access.PUBLIC)
def _static(filename: str) -> Response:
    response = send_from_directory(STATIC, filename)
    if request.args.get("v"):
        response.cache_control.no_cache = None
        response.cache_control.public = response.cache_control.immutable = True
        response.cache_control.max_age = YEAR_S
    return response


@cache
def _version_of(filename: str) -> str:
    return hashlib.sha256((STATIC / filename).read_bytes()).hexdigest()[:12]


def static_url(filename: str) -> str:
    """With the content's hash, so that a browser may keep it for ever and still has the newest."""
    return url_for("static", filename=filename, v=_version_of(filename))


def csrf_field() -> Markup:
    """For every form that posts. Empty while there are no sessions: it could not be sent anyway."""
    if isinstance(session, NullSession):
        return Markup()
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(generate_csrf())


def _here() -> str:
    """Where a page can be asked for again: one that answers a form stands below the page that has the form."""
    if request.method in ("GET", "HEAD"):
        return request.full_path.rstrip("?")
    adapter, path = current_app.create_url_adapter(request), request.path
    while adapter is not None and path and not adapter.test(path, "GET"):
        path = path.rpartition("/")[0]
    return path or "/"


def _shared() -> dict[str, Any]:
    caller = g.signed.caller if g.get("signed") else None
    theme = request.cookies.get("theme", "auto")
    return {
        "static_url": static_url,
        "caller": caller,
        "may": lambda rule: caller is not None and words.may(caller, rule),
        "navigation": NAVIGATION,
        "languages": i18n.LANGUAGES,
        "language": i18n.language(),
        "theme": theme if theme in THEMES else "auto",
        "themes": THEMES,
        "endpoint_exists": lambda endpoint: endpoint in current_app.view_functions,
        "csrf_field": csrf_field,
        "label_of": queries.label_of,
        "here": _here(),
        "version": __version__,
    }
