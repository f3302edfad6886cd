"""The superadmins' page of users: add, change the role, disable, give a link to a new password.

Nobody types a password for another: the new user gets a link, which is shown once, in the answer to the form itself.
"""

from collections.abc import Callable

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import audit, set_up, users
from infoscreen_server.accounts import Access, AccountError
from infoscreen_server.context import access, me, parts
from infoscreen_server.i18n import gettext
from infoscreen_server.models import Role
from infoscreen_server.pages import asked, words
from infoscreen_server.pages.numbered import here, numbered
from infoscreen_server.users import Person

blueprint = Blueprint("users", __name__)


@blueprint.get("/users")
@access(Access.SUPERADMIN)
def page() -> Response:
    return _page()


@blueprint.post("/users")
@access(Access.SUPERADMIN)
def add() -> Response:
    name, role = request.form.get("name", "").strip(), _role()
    if role is None:
        return _page(400, wrong={"role": gettext("Choose a role.")}, name=name)
    try:
        token = set_up.for_new_user(parts().engine, name, role, parts().now(), me().user_id)
    except AccountError as error:
        told = gettext(error.text, **error.values)
        if error.field == "user":
            return _page(409, problem=told)
        return _page(400, wrong={error.field: told}, name=name, role=role)
    audit.note("user added", name=name, role=role)
    return _page(link=_address(token), link_for=name)


@blueprint.post("/users/link")
@access(Access.SUPERADMIN)
def give_link() -> AnyResponse:
    def work(person: Person) -> AnyResponse:
        token = set_up.for_user(parts().engine, person.id, parts().now(), me().user_id)
        audit.note("password link made", name=person.name)
        return _page(link=_address(token), link_for=person.name)

    return _with_person(work)


@blueprint.post("/users/role")
@access(Access.SUPERADMIN)
def set_role() -> AnyResponse:
    def work(person: Person) -> AnyResponse:
        role = _role()
        if role is None or role is person.role:
            return redirect(url_for("users.page", **here()), 303)
        users.set_role(parts().engine, person.id, role, parts().now(), me().user_id)
        audit.note("role changed", name=person.name, role=role)
        told = gettext("%(name)s now has the role %(role)s.", name=person.name, role=words.word(role))
        return _done(person, told)

    return _with_person(work)


@blueprint.post("/users/disable")
@access(Access.SUPERADMIN)
def disable() -> AnyResponse:
    def work(person: Person) -> AnyResponse:
        users.set_disabled(parts().engine, person.id, True, parts().now(), me().user_id)
        audit.note("user disabled", name=person.name)
        return _done(person, gettext("%(name)s can no longer sign in.", name=person.name))

    return _with_person(work)


@blueprint.post("/users/enable")
@access(Access.SUPERADMIN)
def enable() -> AnyResponse:
    def work(person: Person) -> AnyResponse:
        users.set_disabled(parts().engine, person.id, False, parts().now(), me().user_id)
        audit.note("user enabled", name=person.name)
        return _done(person, gettext("%(name)s can sign in again.", name=person.name))

    return _with_person(work)


def _with_person(work: Callable[[Person], AnyResponse]) -> AnyResponse:
    """Do `work` with the user whom the form names; what cannot be is said on the page."""
    try:
        # No user has the number 0.
        return work(users.with_id(parts().engine, asked.whole(request.form.get("user")) or 0, parts().now()))
    except AccountError as error:
        return _page(409, problem=gettext(error.text, **error.values))


def _done(person: Person, told: str) -> AnyResponse:
    # Whoever changes themselves is signed out by that: the session's cookie is of no use any more.
    if me().user_id != person.id:
        flash(told)
    return redirect(url_for("users.page", **here()), 303)


def _role() -> Role | None:
    text = request.form.get("role", "")
    return Role(text) if text in set(Role) else None


def _address(token: str) -> str:
    return set_up.address(parts().config.public_url or request.host_url.rstrip("/"), token)


def _page(status: int = 200, **shown: object) -> Response:
    usual: dict[str, object] = {
        "wrong": {},
        "name": "",
        "role": Role.USER,
        "link": None,
        "link_for": None,
        "problem": None,
    }
    text = render_template(
        "users.html",
        people=numbered(users.everyone(parts().engine, parts().now()), "users.page", lambda person: person.name),
        me=me().user_id,
        roles=[(role, words.word(role)) for role in Role],
        now=parts().now(),
        **{**usual, **shown},
    )
    return make_response(text, status)
