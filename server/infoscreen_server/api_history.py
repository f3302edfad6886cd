"""The API's routes about what was: one client's timeline and incidents, reliability, and the issues of the fleet.

Check parameters, call the query, shape the answer; the queries are those of the dashboard.
"""

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from flask import Response, jsonify, make_response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from infoscreen_server import fleet, history, issues, queries, reliability
from infoscreen_server.accounts import Access
from infoscreen_server.api_export import Separator, cell
from infoscreen_server.context import Refusal, access, caller, moment, no_client, parts, retention
from infoscreen_server.forms import TOKEN, Answer, ClientPath, FleetQuery, PageQuery, Query, answers
from infoscreen_server.history import Period
from infoscreen_server.models_history import IncidentKind, SpanKind
from infoscreen_shared.messages import MAX_CODE_CHARS, LogLevel, clean, timestamp_text

# --- what comes in ----------------------------------------------------------------------------------------------------


class TimelineQuery(Query):
    period: Literal[Period.DAY, Period.WEEK, Period.MONTH] = Field(Period.DAY, description="up to now")


class ReliabilityQuery(FleetQuery):
    period: Period = Field(Period.WEEK, description="up to now")


class ReliabilityCsvQuery(ReliabilityQuery):
    separator: Separator = Field(
        Separator.COMMA,
        description="semicolon: numbers have a decimal comma then; both are what Excel asks for, as in German",
    )


class IncidentQuery(PageQuery):
    kind: list[IncidentKind] = Field([], description="may be repeated; default: all")


def _note(text: str) -> str:
    note = clean(text.strip())
    if not 0 < len(note) <= issues.MAX_NOTE:
        raise ValueError(f"expected 1 to {issues.MAX_NOTE} characters")
    return note


class IssueBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: Literal[LogLevel.ERROR, LogLevel.WARN]
    code: Annotated[str, AfterValidator(clean)] = Field("", max_length=MAX_CODE_CHARS, description="empty: without one")


class AcknowledgeBody(IssueBody):
    note: Annotated[str, AfterValidator(_note)] = Field(description=f"1 to {issues.MAX_NOTE} characters")


# --- what goes out ----------------------------------------------------------------------------------------------------


class Segment(Answer):
    state: str
    began_at: datetime
    ended_at: datetime
    known: bool = Field(description="false: the client was not heard of, this is the last that it told")
    lasting: bool = Field(description="it goes on behind the end of the period")


class Timeline(Answer):
    start: datetime
    end: datetime
    link: list[Segment]
    process: list[Segment]
    screen: list[Segment]
    coarse: list[SpanKind] = Field(
        description=f"of these there are more than {history.MAX_SEGMENTS} segments, put together for drawing: each "
        f" of {history.MAX_SEGMENTS} equal stretches of the period has the worst of its states. Their lengths are "
        "not the lengths of the states; for those see the incidents, or ask for a shorter period"
    )


class IncidentAnswer(Answer):
    id: int
    client_uuid: str
    kind: IncidentKind
    began_at: datetime
    ended_at: datetime | None = Field(description="null while it lasts")
    code: str = Field(description="of the event that opened it, as is `message`")
    message: str
    restarts: int
    last_event_at: datetime


class Incidents(Answer):
    incidents: list[IncidentAnswer]
    count: int
    next: str | None = Field(description="for `before`; null on the last page")


class ClientReliability(Answer):
    uuid: str
    name: str | None
    hostname: str | None
    location: str | None
    availability: float | None = Field(
        description="1 - (union of player and screen incidents) / observed time; null if nothing was observed"
    )
    incidents: int = Field(description="of player and screen, that touch the observed time")
    mtbf_s: float | None = Field(description="observed up time / incidents")
    mttr_s: float | None = Field(description="mean duration of the incidents that ended")
    down_s: float
    observed_s: float = Field(
        description="since registration, within the period and the time for which incidents are kept "
        "(LOG_RETENTION_DAYS); while the client is offline up to when it was last heard of"
    )
    reachable: float | None = Field(
        description="share of the time since registration, as far as it is kept, in which it was heard of"
    )


class Reliability(Answer):
    start: datetime
    end: datetime
    clients: list[ClientReliability] = Field(description="the least available first")
    count: int


class Note(Answer):
    note: str
    by: str
    at: datetime


class IssueAnswer(Answer):
    level: LogLevel
    code: str = Field(description="empty for records without one")
    clients: int
    records: int
    last_at: datetime
    last_message: str
    last_client: str
    acknowledgement: Note | None


class Issues(Answer):
    issues: list[IssueAnswer]
    count: int


class Acknowledged(Answer):
    acknowledged: bool


_CSV: dict[str, Any] = {
    "description": (
        "RFC 4180, in UTF-8 with a byte order mark, the least available first. An apostrophe stands before a text that "
        "a spreadsheet could take for a formula. With `separator=semicolon` numbers have a decimal comma."
    ),
    "content": {"text/csv": {"schema": {"type": "string"}}},
}
CSV_COLUMNS = tuple(ClientReliability.model_fields)

# --- routes -----------------------------------------------------------------------------------------------------------

past = APIBlueprint("past", __name__)


@past.get("/api/clients/<uuid>/timeline", operation_id="timeline", security=TOKEN, responses=answers(Timeline, 404))
@access(Access.USER_OR_HIGHER)
def timeline(path: ClientPath, query: TimelineQuery) -> Response:
    """What a client's link, player and screen were, oldest first. What is not known is left out.

    Of a kind in `coarse` there were too many states to give each: it is good for drawing, not for adding up.
    """
    now = parts().now()
    start = now - query.period.length
    with parts().engine.connect() as connection:
        if not queries.client_exists(connection, path.uuid):
            raise no_client()
        found = history.timeline(connection, path.uuid, start, now, now, retention=retention())
    drawn = {kind: history.condensed(segments, start, now) for kind, segments in found.items()}
    coarse = [kind for kind, segments in found.items() if len(segments) > history.MAX_SEGMENTS]
    plain = {kind: [each._asdict() for each in segments] for kind, segments in drawn.items()}
    return jsonify(_plain({"start": start, "end": now, **plain, "coarse": coarse}))


@past.get("/api/clients/<uuid>/incidents", operation_id="incidents", security=TOKEN, responses=answers(Incidents, 404))
@access(Access.USER_OR_HIGHER)
def incidents(path: ClientPath, query: IncidentQuery) -> Response:
    """Incidents of one client, newest first."""
    with parts().engine.connect() as connection:
        page = history.incidents_page(connection, path.uuid, kinds=query.kind, limit=query.limit, before=query.cursor)
        if not page.incidents and not queries.client_exists(connection, path.uuid):
            raise no_client()
    following = None if page.following is None else page.following.text()
    return jsonify(incidents=_plain(page.incidents), count=len(page.incidents), next=following)


@past.get("/api/reliability", operation_id="reliability", security=TOKEN, responses=answers(Reliability))
@access(Access.USER_OR_HIGHER)
def fleet_reliability(query: ReliabilityQuery) -> Response:
    """Availability, incidents, and times between and until repair of all clients."""
    start, end, rows = _reliability(query)
    return jsonify(start=timestamp_text(start), end=timestamp_text(end), clients=rows, count=len(rows))


@past.get("/api/reliability.csv", operation_id="reliability_csv", security=TOKEN, responses=answers(_CSV))
@access(Access.USER_OR_HIGHER)
def reliability_csv(query: ReliabilityCsvQuery) -> Response:
    """The same as CSV."""
    _start, end, rows = _reliability(query)
    response = make_response("\ufeff" + csv_text(rows, query.separator))
    response.content_type = "text/csv; charset=utf-8"
    name = f"reliability-{query.period}-{end:%Y%m%dT%H%M%SZ}.csv"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _reliability(query: ReliabilityQuery) -> tuple[datetime, datetime, list[dict[str, Any]]]:
    at = moment()
    start = at.now - query.period.length
    with parts().engine.connect() as connection:
        conditions = fleet.conditions(connection, query.wanted, at)
        rows = reliability.fleet_reliability(connection, start, at.now, at.now, conditions, retention=retention())
    return start, at.now, rows


def csv_text(rows: Iterable[dict[str, Any]], separator: Separator) -> str:
    """Names come from people and kiosks: none of them is to be run as a formula."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";" if separator is Separator.SEMICOLON else ",")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_cell(row[name], separator) for name in CSV_COLUMNS] for row in rows)
    return out.getvalue()


def _cell(value: object, separator: Separator) -> str:
    """Where a semicolon separates, a number's fraction stands behind a comma.

    >>> _cell(0.5, Separator.SEMICOLON), _cell(0.5, Separator.COMMA), _cell("v0.5", Separator.SEMICOLON)
    ('0,5', '0.5', 'v0.5')
    """
    text = cell(value)
    return text.replace(".", ",") if isinstance(value, float) and separator is Separator.SEMICOLON else text


@past.get("/api/issues", operation_id="issues", security=TOKEN, responses=answers(Issues))
@access(Access.SUPERADMIN)
def active_issues() -> Response:
    """What is wrong in the fleet: every error, and warnings that repeat, of the last 24 hours, grouped by code."""
    with parts().engine.connect() as connection:
        found = issues.active_issues(connection, parts().now())
    return jsonify(issues=_plain(found), count=len(found))


@past.post("/api/issues/acknowledge", operation_id="acknowledge", security=TOKEN, responses=answers(Acknowledged, 404))
@access(Access.SUPERADMIN)
def acknowledge(body: AcknowledgeBody) -> Response:
    """Say that somebody knows of an issue. Holds until it is gone or another client shows it."""
    issue = issues.Issue(body.level, body.code)
    if not issues.acknowledge(parts().engine, issue, body.note, caller().name, parts().now()):
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such issue now")
    return jsonify(acknowledged=True)


@past.post(
    "/api/issues/unacknowledge", operation_id="unacknowledge", security=TOKEN, responses=answers(Acknowledged, 404)
)
@access(Access.SUPERADMIN)
def unacknowledge(body: IssueBody) -> Response:
    """Take an acknowledgement back."""
    if not issues.unacknowledge(parts().engine, issues.Issue(body.level, body.code)):
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such acknowledgement")
    return jsonify(acknowledged=False)


def _plain(value: Any) -> Any:
    """Times as text, as all answers have them."""
    if isinstance(value, datetime):
        return timestamp_text(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
