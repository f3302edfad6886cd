"""The API's routes about alerts: what fires and fired, and silences, which may be made and ended.

Check parameters, call the query, shape the answer; the queries are those of the dashboard.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from flask import Response, jsonify
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, ConfigDict, Field

from infoscreen_server import audit
from infoscreen_server.accounts import Access
from infoscreen_server.alerts import history, quiet
from infoscreen_server.alerts import week as weeks
from infoscreen_server.alerts.history import Told
from infoscreen_server.alerts.hours import Hours
from infoscreen_server.alerts.quiet import Draft, Kept
from infoscreen_server.alerts.settings import MAX_NAME, MAX_NOTE
from infoscreen_server.alerts.silences import Scope
from infoscreen_server.context import Refusal, access, caller, parts
from infoscreen_server.forms import TOKEN, Answer, Moment, PageQuery, Uuid, answers
from infoscreen_server.models_alerts import RuleKind
from infoscreen_server.queries import time_text
from infoscreen_server.wording import FieldError

MAX_DAY_TEXT = 200

# --- what comes in ----------------------------------------------------------------------------------------------------


class AlertQuery(PageQuery):
    firing: bool = Field(False, description="only what fires now")
    uuid: Uuid | None = Field(None, description="only of this client")


class SilenceBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scope: Scope
    target: str = Field("", max_length=MAX_NAME, description="of a client its uuid, name or hostname; site or tag")
    starts_at: Moment | None = Field(None, description="default: now")
    ends_at: Moment | None = Field(None, description="default: until someone ends it")
    week: list[Annotated[str, Field(max_length=MAX_DAY_TEXT)]] | None = Field(
        None,
        min_length=7,
        max_length=7,
        description='of a recurring one: its times on each day, Monday first, such as "02:00-03:30", empty for none',
    )
    zone: str = Field("UTC", max_length=64, description="of `week`, such as Europe/Vienna")
    note: str = Field("", max_length=MAX_NOTE)


class EndBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: int = Field(ge=1, le=2**63 - 1)


# --- what goes out ----------------------------------------------------------------------------------------------------


class AlertAnswer(Answer):
    id: int
    rule: str
    kind: RuleKind
    client_uuid: str | None = Field(description="null: the whole fleet")
    client: str | None
    site: str | None
    began_at: datetime = Field(description="since when the condition held")
    fired_at: datetime
    ended_at: datetime | None = Field(description="null while it lasts")
    told_at: datetime | None = Field(description="when a message was first made; null: to nobody so far")
    flapping: bool = Field(description="stands for many that came and went")
    firing: bool
    silenced: bool = Field(description="it fires, and a silence covers it")
    detail: str


class Alerts(Answer):
    alerts: list[AlertAnswer]
    count: int
    next: str | None = Field(description="for `before`; null on the last page")


class SilenceAnswer(Answer):
    id: int
    scope: Scope
    target: str = Field(description="uuid, site or tag; empty for all")
    starts_at: datetime
    ends_at: datetime | None = Field(description="null: until someone ends it")
    week: list[str] | None
    zone: str | None
    note: str
    by: str
    created_at: datetime
    active: bool = Field(description="now; of a recurring one, whether it is its time")


class Silences(Answer):
    silences: list[SilenceAnswer]
    count: int


class Made(Answer):
    id: int


class Ended(Answer):
    ended: bool


# --- routes -----------------------------------------------------------------------------------------------------------

alerting = APIBlueprint("alerting", __name__)


@alerting.get("/api/alerts", operation_id="alerts", security=TOKEN, responses=answers(Alerts))
@access(Access.ADMIN_OR_HIGHER)
def alerts(query: AlertQuery) -> Response:
    """What fires and fired, newest first."""
    with parts().engine.connect() as connection:
        page = history.page(
            connection,
            parts().now(),
            limit=query.limit,
            before=query.cursor,
            client_uuid=query.uuid,
            firing=query.firing,
        )
    following = None if page.following is None else page.following.text()
    return jsonify(alerts=[_alert(each) for each in page.alerts], count=len(page.alerts), next=following)


@alerting.get("/api/alerts/silences", operation_id="silences", security=TOKEN, responses=answers(Silences))
@access(Access.ADMIN_OR_HIGHER)
def silences() -> Response:
    """Those that are active or to come."""
    with parts().engine.connect() as connection:
        found = quiet.silences(connection, parts().now())
    return jsonify(silences=[_silence(each) for each in found], count=len(found))


@alerting.post("/api/alerts/silences", operation_id="add_silence", security=TOKEN, responses=answers(Made))
@access(Access.ADMIN_OR_HIGHER)
def add_silence(body: SilenceBody) -> Response:
    """Send no message about these; all is recorded as ever."""
    now = parts().now()
    try:
        weekly = None if body.week is None else Hours(quiet.zone("zone", body.zone), quiet.table(body.week, "week"))
        draft = Draft(body.scope, body.target, body.starts_at or now, body.ends_at, weekly, body.note)
        number = quiet.add_silence(parts().engine, draft, caller().name, now)
    except FieldError as error:
        field = {"end": "ends_at", "days": "week"}.get(error.field, error.field)
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{field}: {error.text % error.values}") from None
    audit.note("silence added", scope=body.scope, target=body.target, until=body.ends_at)
    return jsonify(id=number)


@alerting.post("/api/alerts/silences/end", operation_id="end_silence", security=TOKEN, responses=answers(Ended, 404))
@access(Access.ADMIN_OR_HIGHER)
def end_silence(body: EndBody) -> Response:
    """End one now. What still fires is told of then."""
    try:
        quiet.end_silence(parts().engine, body.id, parts().now())
    except FieldError as error:
        raise Refusal(HTTPStatus.NOT_FOUND, error.text) from None
    audit.note("silence ended", id=body.id)
    return jsonify(ended=True)


def _alert(told: Told) -> dict[str, Any]:
    return {
        "id": told.id,
        "rule": told.rule,
        "kind": told.kind,
        "client_uuid": told.client_uuid,
        "client": told.client,
        "site": told.site,
        "began_at": time_text(told.began_at),
        "fired_at": time_text(told.fired_at),
        "ended_at": time_text(told.ended_at),
        "told_at": time_text(told.announced_at),
        "flapping": told.flapping,
        "firing": told.fires,
        "silenced": told.silenced,
        "detail": told.detail,
    }


def _silence(kept: Kept) -> dict[str, Any]:
    silence = kept.silence
    return {
        "id": kept.id,
        "scope": silence.scope,
        "target": silence.target,
        "starts_at": time_text(silence.starts_at),
        "ends_at": time_text(silence.ends_at),
        "week": None if silence.weekly is None else weeks.table_text(silence.weekly),
        "zone": None if silence.weekly is None else silence.weekly.zone.key,
        "note": kept.note,
        "by": kept.by,
        "created_at": time_text(kept.created_at),
        "active": kept.active,
    }
