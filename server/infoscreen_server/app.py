"""The web application: puts the routes together, lets in whom each route asks for, and words every error.

A factory, so that every worker and every test has its own. What the routes answer is in api.py.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

from flask import Response, current_app, g, jsonify, request
from flask_openapi3.models.info import Info
from flask_openapi3.models.security_scheme import SecurityScheme
from flask_openapi3.openapi import OpenAPI
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException

from infoscreen_server.accounts import Access, allowed, caller_of
from infoscreen_server.api import api
from infoscreen_server.api_screenshots import screenshots
from infoscreen_server.config import ServerConfig
from infoscreen_server.context import Parts, Refusal, parts
from infoscreen_server.db import make_engine
from infoscreen_server.forms import Problem
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES

log = logging.getLogger(__name__)

MAX_UNKNOWN_NAME = 32
"""Characters of an unknown parameter's name that an error repeats."""


def access_of(app: OpenAPI, endpoint: str) -> Access | None:
    rule: Access | None = getattr(app.view_functions[endpoint], "access", None)
    return rule


def _utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(config: ServerConfig, now: Callable[[], datetime] = _utc_now) -> OpenAPI:
    """The application on the database of `config`, which has to be up to date. `now` gives aware UTC times."""
    app = OpenAPI(
        "infoscreen_server",
        info=Info(title="Infoscreen server", version="1"),
        security_schemes={"token": SecurityScheme(type="http", scheme="bearer")},
        validation_error_status=400,
        validation_error_model=Problem,
        validation_error_callback=_wrong_parameter,
        doc_ui=False,
        static_folder=None,
    )
    app.config["MAX_CONTENT_LENGTH"] = MAX_PAYLOAD_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask types the interface, not its default provider
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.extensions["infoscreen"] = Parts(config, make_engine(config.database_url, hide_parameters=True), now)
    app.before_request(_let_in)
    app.after_request(_headers)
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(OperationalError, _database_error)
    app.register_error_handler(Exception, _fault)
    app.register_api(api)
    app.register_api(screenshots)
    return app


def _let_in() -> None:
    if request.endpoint is None:
        return  # Flask answers 404 or 405 next.
    app = current_app
    assert isinstance(app, OpenAPI)
    rule = access_of(app, request.endpoint)
    if rule is Access.PUBLIC:
        return
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    caller = caller_of(parts().engine, token.strip(), parts().now()) if scheme.lower() == "bearer" else None
    if caller is None:
        raise Refusal(HTTPStatus.UNAUTHORIZED, "a valid bearer token is needed")
    uuid = str((request.view_args or {}).get("uuid", "")).lower()
    if rule is None or not allowed(rule, caller, uuid or None):
        raise Refusal(HTTPStatus.FORBIDDEN, "this token may not do that")
    g.caller = caller


def _headers(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


# --- errors -----------------------------------------------------------------------------------------------------------


def _problem(status: int, text: str) -> Response:
    response = jsonify(error=text)
    response.status_code = status
    return response


def _refused(error: Refusal) -> Response:
    return _problem(error.status, error.text)


def _wrong_parameter(error: ValidationError) -> Response:
    """The first thing wrong, under the parameter's name; pydantic's own answer would repeat the input."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "query"
    if first["type"] == "extra_forbidden":
        return _problem(400, f"{name}: unknown parameter" if _is_plain(name) else "query: unknown parameter")
    what = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return _problem(400, f"{name}: {what}")


def _is_plain(name: str) -> bool:
    return name.isidentifier() and name.isascii() and len(name) <= MAX_UNKNOWN_NAME


_TEXTS = {
    HTTPStatus.BAD_REQUEST: "the request cannot be read",
    HTTPStatus.NOT_FOUND: "there is nothing at this address",
    HTTPStatus.METHOD_NOT_ALLOWED: "this address does not take this method",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: f"body: larger than {MAX_PAYLOAD_BYTES} bytes",
}


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:
        # flask-openapi3 hands over what `_wrong_parameter` made in this way.
        assert isinstance(error.response, Response)
        return error.response
    code = error.code or 500
    response = _problem(code, _TEXTS.get(HTTPStatus(code), HTTPStatus(code).phrase.lower()))
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _database_error(error: OperationalError) -> Response:
    log.error("database: %s", str(error.orig).partition("\n")[0])
    return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")


def _fault(error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url_rule, exc_info=error)
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
