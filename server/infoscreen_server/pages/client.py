"""One screen: what it should show and shows, how its machine fares, what happened to it, and why."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from sqlalchemy import Connection

from infoscreen_server import facts, fleet, history, queries, reliability, removal, screenshots
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, caller, moment, parts, retention
from infoscreen_server.history import Period
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.models import Client, ScreenshotKind
from infoscreen_server.pages import charts, machine, timeline, words
from infoscreen_server.pages.clients import known_uuid
from infoscreen_server.queries import Cursor
from infoscreen_shared.messages import timestamp_text

blueprint = Blueprint("client", __name__)

USUAL = Period.DAY
INCIDENTS = 10
PICTURES = 6
AROUND = timedelta(minutes=2)
"""So much before and after an incident its logs are shown."""
EVENTS = {"video": lazy("video"), "website": lazy("website"), "presentation": lazy("presentation")}
SOMETHING = lazy("Something was wrong")
HAPPENED = {
    "told.crashed": lazy("Player down"),
    "told.BLACK": lazy("Black picture"),
    "told.FROZEN": lazy("Frozen picture"),
    "link.offline": lazy("Not heard of"),
}
KINDS = {"player": lazy("Player"), "screen": lazy("Screen"), "link": lazy("Connection")}


@dataclass(frozen=True, slots=True)
class Pictures:
    newest: dict[str, Any] | None
    incidents: list[dict[str, Any]]


@blueprint.get("/clients/<uuid>")
@access(Access.USER_OR_HIGHER)
def page(uuid: str) -> Response:
    uuid, at = known_uuid(uuid), moment()
    period = timeline.period_of(request.args.get("period"), timeline.PERIODS, USUAL)
    before = _cursor(request.args.get("before"))
    with parts().engine.connect() as connection:
        found = queries.client(connection, uuid, at.now, at.silence)
        if found is None:
            abort(HTTPStatus.NOT_FOUND)
        told = _told(connection, found, at.now, at.now - period.length)
        incidents = history.incidents_page(connection, uuid, limit=INCIDENTS, before=before)
    shown: dict[str, Any] = {"uuid": uuid} | ({} if period == USUAL else {"period": period})
    following = incidents.following and incidents.following.text()
    text = render_template(
        "client.html",
        client=found,
        label=queries.label_of(found["name"], found["hostname"], uuid),
        seen=found["last_alive"] is not None,
        stale=found["last_alive"] is not None and not found["online"],
        now=at.now,
        day_ago=timestamp_text(at.now - timedelta(hours=queries.SUMMARY_HOURS)),
        period=period,
        periods=timeline.PERIODS,
        events=EVENTS,
        kinds=KINDS,
        around=_around,
        happened=_happened,
        incidents=incidents.incidents,
        first_url=url_for("client.page", _anchor="incidents", **shown) if before else None,
        next_url=url_for("client.page", _anchor="incidents", before=following, **shown) if following else None,
        **told,
    )
    return make_response(text)


def _told(connection: Connection, found: dict[str, Any], now: datetime, began: datetime) -> dict[str, Any]:
    """What there is to say of a client beside its newest state and its incidents."""
    uuid = found["uuid"]
    samples = facts.samples(connection, uuid, now - machine.SPAN)
    segments = history.timeline(connection, uuid, began, now, now, retention=retention())
    this = [Client.uuid == uuid]
    return {
        "tracks": timeline.tracks(segments, began, now),
        "ticks": charts.ticks(began, now),
        "figures": reliability.fleet_reliability(connection, began, now, now, this, retention=retention())[0],
        "machine": machine.facts(found, samples, now),
        "uptime": machine.current(found)["uptime_s"],
        "delivery": queries.delivery(connection, uuid),
        "counts": fleet.log_counts(connection, uuid),
        "open_incidents": history.open_incidents(connection, [uuid]),
        "removing": removal.pending(connection).get(uuid),
        "pictures": _pictures(connection, uuid),
    }


def _cursor(text: str | None) -> Cursor | None:
    try:
        return Cursor.parse(text) if text else None
    except ValueError:
        return None


def _pictures(connection: Connection, uuid: str) -> Pictures | None:
    """None for those who may not see them."""
    if not words.may(caller(), Access.ADMIN_OR_HIGHER):
        return None
    newest, _ = screenshots.page(connection, uuid, 1, None)
    incidents, _ = screenshots.page(connection, uuid, PICTURES, None, ScreenshotKind.INCIDENT)
    return Pictures(newest[0] if newest else None, incidents)


def _happened(incident: dict[str, Any]) -> str:
    """In the kiosk's own words, or ours where it only told a state."""
    return incident["message"].rstrip(".") or gettext(HAPPENED.get(incident["code"], SOMETHING))


def _around(incident: dict[str, Any]) -> dict[str, str]:
    """The times between which an incident's logs lie, for an address."""
    until = incident["ended_at"] or incident["last_event_at"]
    return {"since": timestamp_text(incident["began_at"] - AROUND), "until": timestamp_text(until + AROUND)}
