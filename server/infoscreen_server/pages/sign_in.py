"""Signing in and out, and what anybody may choose for their own browser: language and theme."""

import math
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Response,
    current_app,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from itsdangerous import BadData, URLSafeSerializer
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import accounts, audit, sessions, throttle, users
from infoscreen_server.accounts import Access, Account, Busy
from infoscreen_server.context import access, parts, signed
from infoscreen_server.i18n import LANGUAGES, gettext
from infoscreen_server.sessions import SESSION
from infoscreen_server.throttle import Attempt, Paused
from infoscreen_server.wording import duration

blueprint = Blueprint("sign_in", __name__)

YEAR_S = 31_536_000
KNOWN = "known"
"""A cookie's name, and the salt of its signature."""


@blueprint.get("/sign-in")
@access(Access.PUBLIC)
def form() -> AnyResponse:
    onward = own_address(request.args.get("next"))
    if signed() is not None:
        return redirect(onward, 303)
    return _form(onward, nobody=not users.is_anybody(parts().engine))


@blueprint.post("/sign-in")
@access(Access.PUBLIC)
def enter() -> AnyResponse:
    onward = own_address(request.form.get("next"))
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    try:
        attempt, user = checked(name, password, known=_is_known(name))
    except Paused as paused:
        audit.note("sign-in held back", name=name)
        return held_back(paused, lambda wrong: _form(onward, name, wrong))
    if user is None or not start_session(user.id, user.password_hash):
        audit.note("sign-in failed", name=name)
        return _form(onward, name, gettext("The name or the password is wrong."), 401)
    throttle.forgive(parts().engine, attempt)
    audit.note("signed in", name=user.name)
    return _remember(user.name, redirect(onward, 303))


def checked(name: str, password: str, *, known: bool) -> tuple[Attempt, Account | None]:
    """A try, and whose password it is. Raises Paused, and Busy if it was not looked at: then it does not count."""
    attempt = throttle.begin(parts().engine, name, audit.address(), parts().now(), known=known)
    try:
        return attempt, accounts.sign_in(parts().engine, name, password)
    except Busy:
        throttle.withdraw(parts().engine, attempt)
        raise


def _names() -> URLSafeSerializer:
    key = current_app.secret_key
    assert key is not None
    return URLSafeSerializer(key, salt=KNOWN)


def _is_known(name: str) -> bool:
    """Whether this user was the last to sign in with this browser, as far as it says so with our signature."""
    try:
        return bool(_names().loads(request.cookies.get(KNOWN, "")) == throttle.name_key(name))
    except BadData:
        return False


def _remember(name: str, response: AnyResponse) -> AnyResponse:
    value = _names().dumps(throttle.name_key(name))
    _keep(response, KNOWN, value)
    return response


def _keep(response: AnyResponse, name: str, value: str, *, for_scripts: bool = False) -> None:
    response.set_cookie(name, value, max_age=YEAR_S, samesite="Lax", secure=request.is_secure, httponly=not for_scripts)


def _form(onward: str, name: str = "", wrong: str | None = None, status: int = 200, nobody: bool = False) -> Response:
    text = render_template("sign_in.html", next=onward, wrong=wrong, name=name[:64], nobody=nobody)
    return make_response(text, status)


def held_back(paused: Paused, page: Callable[[str], Response]) -> Response:
    """The page again with how long to wait, the same for every name."""
    seconds = math.ceil(paused.wait.total_seconds())
    wait = duration(seconds)
    response = page(gettext("There were too many wrong passwords. Try again in %(wait)s.", wait=wait))
    response.status_code = HTTPStatus.TOO_MANY_REQUESTS
    response.headers["Retry-After"] = str(seconds)
    return response


def start_session(user_id: int, password_hash: str) -> bool:
    """A new session under a new token, whatever the browser brought along; an old one ends.

    False, and all is as it was, if the user's password is no longer the one of this hash, or the user is disabled.
    """
    browser = request.headers.get("User-Agent", "")
    token = sessions.begin(parts().engine, user_id, password_hash, browser, parts().now())
    if token is None:
        return False
    known = signed()
    if known is not None:
        sessions.end(parts().engine, known.token_hash)
    session.clear()
    session.permanent = True
    session[SESSION] = token
    return True


@blueprint.post("/sign-out")
@access(Access.PUBLIC)
def leave() -> AnyResponse:
    known = signed()
    if known is not None:
        sessions.end(parts().engine, known.token_hash)
        audit.note("signed out")
    session.clear()
    flash(gettext("You are signed out."))
    return redirect(url_for("sign_in.form"), 303)


@blueprint.post("/display")
@access(Access.PUBLIC)
def display() -> AnyResponse:
    """Language and theme, kept in cookies of their own."""
    from infoscreen_server.pages import THEMES

    response: Response = make_response(redirect(own_address(request.form.get("next")), 303))
    for name, known in (("language", LANGUAGES), ("theme", THEMES)):
        value = request.form.get(name)
        if value is not None and value in known:
            _keep(response, name, value, for_scripts=name == "theme")
    return response


def own_address(text: str | None) -> str:
    """`text` if it is a path of this server, else the home page: nobody is sent elsewhere from here.

    >>> own_address("/clients/1?level=ERROR")
    '/clients/1?level=ERROR'
    """
    # Browsers take a backslash for a slash and pass over control characters: //other.example in disguise.
    if not text or len(text) > 2000 or not text.isprintable() or "\\" in text:
        return "/"
    try:
        parsed = urlsplit(text)
    except ValueError:
        return "/"
    if parsed.scheme or parsed.netloc or not text.startswith("/") or text.startswith("//"):
        return "/"
    return text
