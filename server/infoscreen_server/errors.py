"""How every refusal and every fault is worded: JSON for programs, a page for people. Repeats nothing sent."""

import logging
from http import HTTPStatus

from flask import Response, jsonify, make_response, redirect, render_template, request, url_for
from flask_openapi3.openapi import OpenAPI
from flask_wtf.csrf import CSRFError
from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server.accounts import Busy
from infoscreen_server.context import Refusal, is_page, parts
from infoscreen_server.db import driver_of, faults
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.store import is_datas_fault
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES

log = logging.getLogger(__name__)

RETRY_S = 5
"""When somebody whom we could not serve may ask again."""
MAX_UNKNOWN_NAME = 32
"""Characters of an unknown parameter's name that an error repeats."""


def install(app: OpenAPI) -> None:
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(CSRFError, _forged)
    app.register_error_handler(Busy, _busy)
    app.register_error_handler(HTTPException, _http_error)
    # Some comes past SQLAlchemy: rows of the log are written with the driver itself (persist.log_sink).
    for kind in (*faults(app.extensions["infoscreen"].engine), PoolTimeout):
        app.register_error_handler(kind, _database_error)
    app.register_error_handler(Exception, _fault)


def _problem(status: int, text: str) -> Response:
    response = jsonify(error=text)
    response.status_code = status
    return response


_FAULT = lazy("Something went wrong on the server")
_TITLES = {
    400: lazy("This request cannot be understood"),
    403: lazy("You may not see this"),
    404: lazy("There is nothing here"),
    405: lazy("This does not work here"),
    413: lazy("That is too large"),
    429: lazy("Too many requests"),
    503: lazy("The database does not answer"),
}


def _answer(status: int, text: str) -> Response:
    """`text` for a program; for a person a page with words of its own, in the person's language."""
    if not is_page():
        return _problem(status, text)
    title = gettext(_TITLES.get(status, _FAULT))
    return make_response(render_template("error.html", title=title, status=status), status)


def _refused(error: Refusal) -> AnyResponse:
    if error.status == HTTPStatus.UNAUTHORIZED and is_page():
        # Only a page that was asked for by its address can be gone back to.
        asked = request.full_path.rstrip("?") if request.method == "GET" and request.path != "/" else None
        return redirect(url_for("sign_in.form", next=asked), 303)
    response = _answer(error.status, error.text)
    if error.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(RETRY_S)
    return response


def _forged(_error: CSRFError) -> Response:
    """No CSRF token, or one of another session: a form that was open too long, or one of another site."""
    text = gettext("This form is out of date. Go back, load the page again and send it once more.")
    return make_response(render_template("error.html", title=gettext(_TITLES[400]), text=text, status=400), 400)


def _busy(_error: Busy) -> Response:
    response = _answer(HTTPStatus.TOO_MANY_REQUESTS, "too many passwords are being checked, try again soon")
    response.headers["Retry-After"] = str(RETRY_S)
    return response


def wrong_parameter(error: ValidationError) -> Response:
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
        # flask-openapi3 hands over what `wrong_parameter` made in this way.
        assert isinstance(error.response, Response)
        return error.response
    code = error.code or 500
    response = _answer(code, _TEXTS.get(HTTPStatus(code), HTTPStatus(code).phrase.lower()))
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _database_error(error: Exception) -> Response:
    """503 while it is the database that fails: away, full, read-only after a failover, all connections taken."""
    cause = (error.orig or error) if isinstance(error, DBAPIError) else error
    driver = driver_of(parts().engine)
    # A statement that cannot work on any database is our own fault.
    if isinstance(cause, (driver.ProgrammingError, driver.NotSupportedError)) or is_datas_fault(error):
        return _fault(error)
    log.error("database: %s", str(cause).partition("\n")[0])
    response = _answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")
    response.headers["Retry-After"] = str(RETRY_S)
    return response


def _fault(error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url_rule, exc_info=error)
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
