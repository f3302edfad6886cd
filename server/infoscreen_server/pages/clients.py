"""The home page: one glance says which screens need someone. And what people call a screen: name, place, tags; and its
end.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from flask import Blueprint, Response, abort, flash, make_response, redirect, render_template, request, url_for
from sqlalchemy import Connection
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import audit, fleet, labels, queries, reliability, removal
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, caller, moment, parts, retention
from infoscreen_server.fleet import Place, State, Wanted
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.pages import charts, words
from infoscreen_server.reliability import Reliability
from infoscreen_shared.topics import is_uuid

blueprint = Blueprint("clients", __name__)

SPARK_DAYS = 14
MOST_TAGS = 3
"""Of one client in the list."""
STATES = {
    State.PROBLEM: lazy("Needs someone"),
    State.IDLE: lazy("Not playing"),
    State.FINE: lazy("Fine"),
    State.OFFLINE: lazy("Offline"),
    State.CRASHED: lazy("Player crashed"),
    State.STARTING: lazy("Player starting"),
    State.STOPPED: lazy("Player stopped"),
    State.UNKNOWN: lazy("Player unknown"),
    State.RUNNING: lazy("Player running"),
    State.BLACK: lazy("Screen black"),
    State.FROZEN: lazy("Screen frozen"),
    State.UNSEEN: lazy("Screen unknown"),
    State.NEVER: lazy("Never seen"),
}
"""In the order in which they are offered."""


@blueprint.get("/")
@access(Access.USER_OR_HIGHER)
def home() -> Response:
    wanted, at = wanted_of(request.args), moment()
    with parts().engine.connect() as connection:
        page = fleet.page(connection, wanted, at, _place(request.args.get("after")))
        counts = fleet.counts(connection, wanted, at)
        known = fleet.known(connection)
        sparks = _sparks(connection, [client["uuid"] for client in page.clients], at.now)
        somewhere = bool(page.clients) or _any_client(connection, counts)
        removing = removal.pending(connection)
    filters = filters_of(wanted)
    more = page.following and url_for("clients.home", **filters, after=page.following.encoded())
    text = render_template(
        "clients.html",
        page=page,
        counts=counts,
        known=known,
        sparks=sparks,
        removing=removing,
        states=STATES,
        wanted=wanted,
        filters=filters,
        with_state=lambda state: filters_of(replace(wanted, state=state)),
        now=at.now,
        first_url=url_for("clients.home", **filters) if request.args.get("after") else None,
        more_url=more,
        any_client=somewhere,
        most_tags=MOST_TAGS,
    )
    return make_response(text)


def wanted_of(given: Any) -> Wanted:
    """Out of an address, in which anything may stand: what is unknown asks for nothing."""
    state = given.get("state", "")
    return Wanted(
        State(state) if state in set(State) else None,
        given.get("tag", "").strip()[: labels.MAX_TAG] or None,
        given.get("location", "").strip()[: labels.MAX_NAME] or None,
        given.get("q", "").strip()[: fleet.MAX_TEXT],
    )


def filters_of(wanted: Wanted) -> dict[str, Any]:
    """The other way round, without what asks for nothing."""
    found = {"q": wanted.text, "state": wanted.state, "tag": wanted.tag, "location": wanted.location}
    return {name: str(value) for name, value in found.items() if value}


def _place(text: str | None) -> Place | None:
    try:
        return Place.parse(text) if text else None
    except ValueError:
        return None


def _any_client(connection: Connection, counts: dict[str, int]) -> bool:
    return counts["all"] > 0 or fleet.counts(connection, Wanted(), moment())["all"] > 0


class Spark(NamedTuple):
    bars: charts.Bars
    availability: float | None
    label: str


def _sparks(connection: Connection, uuids: list[str], now: datetime) -> dict[str, Spark]:
    """Those of which nothing is known yet have none."""
    if not uuids:
        return {}
    found = reliability.daily_availability(connection, uuids, SPARK_DAYS, now, retention=retention())
    return {uuid: _spark(days) for uuid, days in found.items() if any(day.observed for day in days)}


def _spark(days: Sequence[Reliability]) -> Spark:
    """Its availability is the one that the page of reliability gives for the same days."""
    shares = [day.availability for day in days]
    mean = reliability.together(days)
    worst = words.percent(min(share for share in shares if share is not None))
    label = gettext(
        "%(days)s days, %(share)s available, worst day %(worst)s",
        days=len(shares), share=words.percent(mean), worst=worst,
    )  # fmt: skip
    return Spark(charts.bars(shares), mean, label)


# --- what people call it ----------------------------------------------------------------------------------------------


def known_uuid(uuid: str) -> str:
    """As it is kept, or 404."""
    if not is_uuid(uuid.lower()):
        abort(HTTPStatus.NOT_FOUND)
    return uuid.lower()


@blueprint.get("/clients/<uuid>/edit")
@access(Access.ADMIN_OR_HIGHER)
def edit(uuid: str) -> AnyResponse:
    found = _client(known_uuid(uuid))
    given = {"name": found["name"] or "", "location": found["location"] or "", "tags": ", ".join(found["tags"])}
    return _form(found, given, {})


@blueprint.post("/clients/<uuid>/edit")
@access(Access.ADMIN_OR_HIGHER)
def change(uuid: str) -> AnyResponse:
    found = _client(known_uuid(uuid))
    given = {field: request.form.get(field, "") for field in ("name", "location", "tags")}
    try:
        checked = labels.checked(given["name"], given["location"], given["tags"].split(","))
    except labels.LabelError as error:
        return _form(found, given, {error.field: error.text})
    if not labels.write(parts().engine, found["uuid"], checked):
        abort(HTTPStatus.NOT_FOUND)
    flash(gettext("Saved."))
    return redirect(url_for("client.page", uuid=found["uuid"]), 303)


def _client(uuid: str) -> dict[str, Any]:
    at = moment()
    with parts().engine.connect() as connection:
        found = queries.client(connection, uuid, at.now, at.silence)
    if found is None:
        abort(HTTPStatus.NOT_FOUND)
    return found


def _form(found: dict[str, Any], given: dict[str, str], wrong: dict[str, str]) -> Response:
    with parts().engine.connect() as connection:
        known = fleet.known(connection)
        removing = removal.pending(connection).get(found["uuid"])
    # A refused form is shown as it was sent, but no longer than anything that could be right.
    shown = {field: text[:2000] for field, text in given.items()}
    text = render_template(
        "client_edit.html",
        client=found,
        given=shown,
        wrong=wrong,
        known=known,
        removing=removing,
        registers=parts().config.auto_register,
        now=parts().now(),
    )
    return make_response(text, HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK)


# --- its end ----------------------------------------------------------------------------------------------------------


@blueprint.post("/clients/<uuid>/remove")
@access(Access.SUPERADMIN)
def remove(uuid: str) -> AnyResponse:
    found = _client(known_uuid(uuid))
    if not removal.ask(parts().engine, found["uuid"], caller().name, parts().now()):
        abort(HTTPStatus.NOT_FOUND)
    label = queries.label_of(found["name"], found["hostname"], found["uuid"])
    audit.note("removal asked for", client=found["uuid"], name=label)
    flash(gettext("%(client)s is being removed. That takes up to a minute, or longer with many records.", client=label))
    return redirect(url_for("clients.home"), 303)


@blueprint.post("/clients/<uuid>/keep")
@access(Access.SUPERADMIN)
def keep(uuid: str) -> AnyResponse:
    uuid = known_uuid(uuid)
    if removal.keep(parts().engine, uuid):
        audit.note("removal taken back", client=uuid)
        flash(gettext("This screen stays. What was deleted before is gone."))
        return redirect(url_for("client.page", uuid=uuid), 303)
    with parts().engine.connect() as connection:
        if queries.client_exists(connection, uuid):
            # Somebody else has kept it.
            return redirect(url_for("client.page", uuid=uuid), 303)
    flash(gettext("It is too late: this screen is removed."))
    return redirect(url_for("clients.home"), 303)
