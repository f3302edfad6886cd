"""The web application: puts the routes together and lets in whom each route asks for.

A factory, so that every worker and every test has its own. What the API answers is in api.py, the dashboard in pages/,
how errors are worded in errors.py.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from flask import current_app, g, request, session
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession
from flask_openapi3.models.info import Info
from flask_openapi3.models.security_scheme import SecurityScheme
from flask_openapi3.openapi import OpenAPI
from flask_wtf.csrf import CSRFProtect

from infoscreen_server import errors, pages, web_security
from infoscreen_server.accounts import Access, Caller, allowed, caller_of
from infoscreen_server.api import api
from infoscreen_server.api_alerts import alerting
from infoscreen_server.api_export import exports
from infoscreen_server.api_history import past
from infoscreen_server.api_live import HUB, live
from infoscreen_server.api_screenshots import screenshots
from infoscreen_server.config import ServerConfig
from infoscreen_server.context import Parts, Refusal, is_page, parts
from infoscreen_server.db import make_engine
from infoscreen_server.forms import Problem
from infoscreen_server.i18n import LANGUAGES, speak
from infoscreen_server.live import Hub
from infoscreen_server.metrics import metrics
from infoscreen_server.models import Scope
from infoscreen_server.sessions import LONGEST, SESSION, Cookies, Signed, signed_in
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES

WRITER_WAIT_S = 8.0
"""For SQLite's one writer; then the answer is 503. Whoever waits for it holds up all of this process, and gunicorn ends
it after 30 s. A request may wait twice, for the note that its token was used and for its own work."""


def access_of(app: OpenAPI, endpoint: str) -> Access | None:
    rule: Access | None = getattr(app.view_functions[endpoint], "access", None)
    return rule


def _utc_now() -> datetime:
    return datetime.now(UTC)


class _Json(DefaultJSONProvider):
    sort_keys = False
    ensure_ascii = False

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return super().loads(s, **kwargs)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def create_app(config: ServerConfig, now: Callable[[], datetime] = _utc_now) -> OpenAPI:
    """The application on the database of `config`, which has to be up to date. `now` gives aware UTC times."""
    app = OpenAPI(
        "infoscreen_server",
        info=Info(title="Infoscreen server", version="1"),
        security_schemes={"token": SecurityScheme(type="http", scheme="bearer")},
        validation_error_status=400,
        validation_error_model=Problem,
        validation_error_callback=errors.wrong_parameter,
        doc_ui=False,
        static_folder=None,
    )
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_PAYLOAD_BYTES,
        SESSION_COOKIE_NAME="infoscreen",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        # Else each answer would have it, static files that anybody may keep as well.
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=LONGEST,
        # A form may stay open as long as the session lasts; the token is bound to that.
        WTF_CSRF_TIME_LIMIT=None,
    )
    app.json = _Json(app)
    engine = make_engine(config.database_url, busy_s=WRITER_WAIT_S, hide_parameters=True)
    app.extensions["infoscreen"] = Parts(config, engine, now)
    app.extensions[HUB] = Hub(engine, now, config.silence_s)
    app.session_interface = Cookies(engine)
    web_security.install(app)
    errors.install(app)
    app.before_request(_choose_language)
    app.before_request(_let_in)
    csrf = CSRFProtect(app)
    pages.install(app)
    for blueprint in (alerting, api, exports, live, metrics, past, screenshots):
        # A session may only read there, and a token is nothing that a browser sends by itself.
        csrf.exempt(blueprint)
        app.register_api(blueprint)
    return app


def _let_in() -> None:
    """Find out who asks, by token or session, and whether the route is for them."""
    g.signed = None
    if request.endpoint == "static":
        return
    if request.endpoint is None:
        # Flask answers 404 or 405 next, on a page with the usual menu.
        g.signed = _session() if is_page() else None
        return
    app = current_app
    assert isinstance(app, OpenAPI)
    rule = access_of(app, request.endpoint)
    if rule is Access.PUBLIC:
        if is_page():
            g.signed = _session()
        return
    caller = _caller()
    if caller is None:
        raise Refusal(HTTPStatus.UNAUTHORIZED, "a valid bearer token is needed")
    uuid = str((request.view_args or {}).get("uuid", "")).lower()
    if rule is None or not allowed(rule, caller, uuid or None) or not _in_scope(caller):
        raise Refusal(HTTPStatus.FORBIDDEN, "this token may not do that")
    g.caller = caller


def _caller() -> Caller | None:
    """Pages go by session only; programs by token, or by session where they only read."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # Another scheme is for a proxy that we stand behind.
    if scheme.lower() == "bearer" and not is_page():
        return caller_of(parts().engine, token.strip(), parts().now())
    if is_page() or request.method in ("GET", "HEAD"):
        g.signed = _session()
    return g.signed.caller if g.signed else None


def _session() -> Signed | None:
    """Raises Refusal while the key of cookies cannot be read: nobody is known, and no form could be trusted."""
    if isinstance(session, NullSession):
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")
    token = session.get(SESSION)
    return signed_in(parts().engine, token, parts().now()) if isinstance(token, str) else None


def _in_scope(caller: Caller) -> bool:
    if caller.scope is Scope.METRICS:
        return request.path == "/metrics"
    return caller.scope is Scope.ALL or request.method in ("GET", "HEAD")


def _choose_language() -> None:
    chosen = request.cookies.get("language") or request.accept_languages.best_match(list(LANGUAGES))
    speak(chosen or parts().config.language)
