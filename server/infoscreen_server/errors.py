"""How every refusal and every fault is worded: JSON for programs, a page for people. Repeats nothing sent."""

import logging
from http import HTTPStatus

from flask import Response, jsonify, make_response, redirect, render_template, request, url_for
from flask_openapi3.openapi import OpenAPI
from flask_wtf.csrf import CSRFError
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server.accounts import Busy
from infoscreen_server.context import Refusal, is_page
from infoscreen_server.i18n import gettext, lazy
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES

log = logging.getLogger(__name__)

MAX_UNKNOWN_NAME = 32
"""Characters of an unknown parameter's name that an error repeats."""


def install(app: OpenAPI) -> None:
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(CSRFError, _forged)
    app.register_error_handler(Busy, _busy)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(OperationalError, _database_error)
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
    return response


def _forged(_error: CSRFError) -> Response:
    """No CSRF token, or one of another session: a form that was open too long, or one of another site."""
    text = gettext("This form is out of date. Go back, load the page again and send it once more.")
    return make_response(render_template("error.html", title=gettext(_TITLES[400]), text=text, status=400), 400)


def _busy(_error: Busy) -> Response:
    response = _answer(HTTPStatus.TOO_MANY_REQUESTS, "too many passwords are being checked, try again soon")
    response.headers["Retry-After"] = "5"
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


def _database_error(error: OperationalError) -> Response:
    log.error("database: %s", str(error.orig).partition("\n")[0])
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer")


def _fault(error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url_rule, exc_info=error)
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
