"""Signing in and out, and what anybody may choose for their own browser: language and theme."""

from urllib.parse import urlsplit

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import accounts, sessions
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, parts, signed
from infoscreen_server.i18n import LANGUAGES, gettext
from infoscreen_server.sessions import SESSION

blueprint = Blueprint("sign_in", __name__)

YEAR_S = 31_536_000


@blueprint.get("/sign-in")
@access(Access.PUBLIC)
def form() -> AnyResponse:
    onward = own_address(request.args.get("next"))
    if signed() is not None:
        return redirect(onward, 303)
    return make_response(render_template("sign_in.html", next=onward, wrong=None, name=""))


@blueprint.post("/sign-in")
@access(Access.PUBLIC)
def enter() -> AnyResponse:
    onward = own_address(request.form.get("next"))
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    user = accounts.sign_in(parts().engine, name, password)
    if user is None:
        wrong = gettext("The name or the password is wrong.")
        return make_response(render_template("sign_in.html", next=onward, wrong=wrong, name=name[:64]), 401)
    start_session(user.id)
    return redirect(onward, 303)


def start_session(user_id: int) -> None:
    """A new session under a new token, whatever the browser brought along."""
    session.clear()
    session.permanent = True
    browser = request.headers.get("User-Agent", "")
    session[SESSION] = sessions.begin(parts().engine, user_id, browser, parts().now())


@blueprint.post("/sign-out")
@access(Access.PUBLIC)
def leave() -> AnyResponse:
    known = signed()
    if known is not None:
        sessions.end(parts().engine, known.token_hash)
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
            response.set_cookie(
                name, value, max_age=YEAR_S, samesite="Lax", secure=request.is_secure, httponly=name == "language"
            )
    return response


def own_address(text: str | None) -> str:
    """`text` if it is a path of this server, else the home page: nobody is sent elsewhere from here.

    >>> own_address("/clients/1?level=ERROR")
    '/clients/1?level=ERROR'
    """
    # Browsers take a backslash for a slash and pass over control characters: //other.example in disguise.
    if not text or len(text) > 2000 or not text.isprintable() or "\\" in text:
        return "/"
    parsed = urlsplit(text)
    if parsed.scheme or parsed.netloc or not text.startswith("/") or text.startswith("//"):
        return "/"
    return text
