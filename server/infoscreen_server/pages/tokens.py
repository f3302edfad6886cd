"""Tokens for programs and kiosks: make one, which is shown once, in the answer to the form itself, and revoke."""

from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from sqlalchemy import Row
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import accounts, audit
from infoscreen_server.accounts import Access, AccountError
from infoscreen_server.context import access, caller, me, parts
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.models import Scope, TokenRole
from infoscreen_server.pages import asked, words
from infoscreen_server.pages.numbered import here, numbered

blueprint = Blueprint("tokens", __name__)

DEFAULT_DAYS, MAX_DAYS = 90, 365
SCOPES = {
    Scope.ALL: lazy("All that the role may do"),
    Scope.READ: lazy("Reading only"),
    Scope.METRICS: lazy("Figures for Prometheus only"),
}


@blueprint.get("/tokens")
@access(Access.ADMIN_OR_HIGHER)
def page() -> Response:
    return _page()


@blueprint.post("/tokens")
@access(Access.ADMIN_OR_HIGHER)
def make() -> Response:
    form = {name: request.form.get(name, "").strip() for name in ("name", "role", "scope", "days", "client")}
    try:
        role, scope, expires_at = _role(form["role"]), _scope(form["scope"]), _end(form["days"])
        text = accounts.add_token(
            parts().engine,
            form["name"],
            role,
            now=parts().now(),
            client_uuid=form["client"].lower() or None,
            expires_at=expires_at,
            scope=scope,
            created_by=me().user_id,
        )
    except AccountError as error:
        return _page(400, form=form, wrong={error.field: gettext(error.text, **error.values)})
    prefix = accounts.prefix_of(text)
    audit.note("token made", prefix=prefix, name=form["name"], role=role, scope=scope, client=form["client"])
    return _page(token=text, token_name=form["name"])


@blueprint.post("/tokens/revoke")
@access(Access.ADMIN_OR_HIGHER)
def revoke() -> AnyResponse:
    prefix = request.form.get("prefix", "")
    try:
        accounts.revoke_token(parts().engine, prefix, parts().now(), _only_mine())
    except AccountError as error:
        return _page(409, problem=gettext(error.text, **error.values))
    audit.note("token revoked", prefix=prefix)
    flash(gettext("The token is revoked."))
    return redirect(url_for("tokens.page", **here()), 303)


def _roles() -> tuple[TokenRole, ...]:
    """That the caller may give; add_token looks once more, when it writes."""
    return accounts.may_give(caller().role)


def _only_mine() -> int | None:
    """Superadmins see and revoke all tokens, others their own."""
    mine = me()
    return None if mine.caller.role is TokenRole.SUPERADMIN else mine.user_id


def _role(text: str) -> TokenRole:
    if text not in _roles():
        raise AccountError("role", lazy("choose a role that you may give"))
    return TokenRole(text)


def _scope(text: str) -> Scope:
    if text not in set(Scope):
        raise AccountError("scope", lazy("choose what the token is good for"))
    return Scope(text)


def _end(days: str) -> datetime | None:
    if not days:
        return None
    number = asked.whole(days, 3)
    if number is None or not 1 <= number <= MAX_DAYS:
        raise AccountError("days", lazy("expected 1 to %(most)s days, or nothing for no end"), most=MAX_DAYS)
    return parts().now() + timedelta(days=number)


def _findable(row: Row[Any]) -> str:
    return "\n".join(each or "" for each in (row.name, row.prefix, row.client_uuid, row.maker))


def _page(status: int = 200, **shown: object) -> Response:
    form = {"name": "", "role": "user", "scope": "read", "days": str(DEFAULT_DAYS), "client": ""}
    usual = {"wrong": {}, "form": form, "token": None, "token_name": None, "problem": None}
    text = render_template(
        "tokens.html",
        tokens=numbered(accounts.token_rows(parts().engine, _only_mine()), "tokens.page", _findable),
        roles=[(role, words.word(role)) for role in _roles()],
        scopes=[(scope, gettext(text)) for scope, text in SCOPES.items()],
        scope_words={scope: gettext(text) for scope, text in SCOPES.items()},
        all_tokens=_only_mine() is None,
        most_days=MAX_DAYS,
        now=parts().now(),
        **{**usual, **shown},
    )
    return make_response(text, status)
