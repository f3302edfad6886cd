"""One's own account: another password, and where one is signed in."""

import re

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import audit, sessions, throttle, users
from infoscreen_server.accounts import MIN_PASSWORD, Access, AccountError
from infoscreen_server.context import access, me, parts
from infoscreen_server.i18n import gettext
from infoscreen_server.pages.numbered import here, numbered
from infoscreen_server.pages.sign_in import checked, held_back
from infoscreen_server.throttle import Paused

blueprint = Blueprint("account", __name__)

_HASH = re.compile("[0-9a-f]{64}")


@blueprint.get("/account")
@access(Access.USER_OR_HIGHER)
def page() -> Response:
    return _page()


@blueprint.post("/account/password")
@access(Access.USER_OR_HIGHER)
def change_password() -> AnyResponse:
    """Asks for the present one: an open browser that someone else finds is not enough."""
    mine, engine = me(), parts().engine
    password = request.form.get("password", "")
    if password != request.form.get("again", ""):
        return _page({"again": gettext("The two passwords differ.")})
    try:
        attempt, account = checked(mine.caller.name, request.form.get("current", ""), known=True)
    except Paused as paused:
        audit.note("password change held back")
        return held_back(paused, lambda wrong: _page({"current": wrong}))
    if account is None:
        audit.note("password change failed")
        return _page({"current": gettext("This is not your password.")})
    throttle.forgive(engine, attempt)
    try:
        users.set_password(engine, mine.user_id, password, but=mine.token_hash, was=account.password_hash)
    except AccountError as error:
        return _page({error.field: gettext(error.text, **error.values)})
    audit.note("password changed")
    flash(gettext("Your password is changed. All your other sessions have ended."))
    return redirect(url_for("account.page"), 303)


@blueprint.post("/account/sessions/end")
@access(Access.USER_OR_HIGHER)
def end_session() -> AnyResponse:
    """The one that the form names, or all others."""
    mine = me()
    chosen = request.form.get("session", "")
    if not chosen:
        sessions.end_some(parts().engine, mine.user_id, None, but=mine.token_hash)
        audit.note("other sessions ended")
        flash(gettext("All your other sessions have ended."))
    elif _HASH.fullmatch(chosen):
        sessions.end_some(parts().engine, mine.user_id, chosen)
        audit.note("session ended")
        flash(gettext("The session has ended."))
    return redirect(url_for("account.page", **here()), 303)


_BROWSERS = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def browser_name(text: str) -> str:
    """What a browser calls itself, in short; what is none of the usual ones stays as it is.

    >>> browser_name("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"), browser_name("curl/8.0")
    ('Firefox, Linux', 'curl/8.0')
    """
    browser = next((name for mark, name in _BROWSERS if mark in text), None)
    system = next((name for mark, name in _SYSTEMS if mark in text), None)
    return f"{browser}, {system}" if browser and system else text or gettext("Unknown browser")


def _page(wrong: dict[str, str] | None = None) -> Response:
    mine = me()
    text = render_template(
        "account.html",
        sessions=numbered(sessions.of_user(parts().engine, mine.user_id, parts().now()), "account.page"),
        mine=mine.token_hash,
        browser_name=browser_name,
        wrong=wrong or {},
        shortest=MIN_PASSWORD,
        now=parts().now(),
    )
    return make_response(text, 400 if wrong else 200)
