"""Choosing a password by a one-time link; whoever does so is signed in."""

from http import HTTPStatus

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import audit, set_up
from infoscreen_server.accounts import MIN_PASSWORD, Access, AccountError
from infoscreen_server.context import Refusal, access, parts
from infoscreen_server.i18n import gettext
from infoscreen_server.pages.sign_in import start_session
from infoscreen_server.set_up import Link

blueprint = Blueprint("set_up", __name__)

REFERRER_POLICY = "strict-origin"
"""The address is a secret, so no page or file may learn it from the browser. Not no-referrer: the CSRF protection wants
to see at least the host that a form comes from."""


@blueprint.get("/set-up/<token>")
@access(Access.PUBLIC)
def page(token: str) -> Response:
    return _form(_link(token))


@blueprint.post("/set-up/<token>")
@access(Access.PUBLIC)
def choose(token: str) -> AnyResponse:
    link = _link(token)
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    if password != request.form.get("again", ""):
        return _form(link, name, {"again": gettext("The two passwords differ.")})
    try:
        chosen = set_up.use(parts().engine, token, name, password, parts().now())
    except AccountError as error:
        return _form(link, name, {error.field: gettext(error.text, **error.values)})
    if chosen is None:
        raise _gone()
    audit.note("password set by link", name=link.name or name)
    if not start_session(*chosen):
        return redirect(url_for("sign_in.form"), 303)
    flash(gettext("Your password is set, and you are signed in."))
    return redirect("/", 303)


def _link(token: str) -> Link:
    link = set_up.find(parts().engine, token, parts().now())
    if link is None:
        raise _gone()
    return link


def _gone() -> Refusal:
    return Refusal(HTTPStatus.NOT_FOUND, "this link was used, or its time is over")


def _form(link: Link, name: str = "", wrong: dict[str, str] | None = None) -> Response:
    text = render_template("set_up.html", link=link, name=name[:64], wrong=wrong or {}, shortest=MIN_PASSWORD)
    response = make_response(text, 400 if wrong else 200)
    response.headers["Referrer-Policy"] = REFERRER_POLICY
    return response
