"""The public API's routes: check parameters, call the query or the store, shape the answer.

Who may call what is said here (`access`) and enforced in app.py. Rows are read in queries.py and written in store.py;
pictures of screens have routes of their own, in api_screenshots.py.
"""

import logging
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from flask import Response, current_app, jsonify
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from infoscreen_server import audit, fleet, http_door, labels, log_search, queries, removal
from infoscreen_server.accounts import Access
from infoscreen_server.context import Refusal, access, caller, moment, no_client, parts
from infoscreen_server.forms import TOKEN, Answer, ClientPath, FleetQuery, Moment, PageQuery, Query, Uuid, answers
from infoscreen_server.log_search import LogPage as FoundLogs
from infoscreen_shared.messages import (
    MAX_CODE_CHARS,
    LogLevel,
    ProcessStatus,
    ScreenHealthStatus,
    ack_body,
    timestamp_text,
)

log = logging.getLogger(__name__)

MAX_CLIENTS = 1000
MAX_CODES, MAX_TEXT = 20, 200

# --- what comes in ----------------------------------------------------------------------------------------------------


def _level(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class LogFilter(Query):
    level: list[Annotated[LogLevel, BeforeValidator(_level)]] = Field([], description="may be repeated; default: all")
    since: Moment | None = Field(None, description="ISO 8601, UTC without a zone")
    until: Moment | None = Field(None, description="as `since`; what is older than this")
    code: list[Annotated[str, Field(max_length=MAX_CODE_CHARS)]] = Field(
        [], max_length=MAX_CODES, description="may be repeated; default: all"
    )
    q: str = Field(
        "", max_length=MAX_TEXT, description="text in message, code or context, without regard to case; no wildcards"
    )

    def search(self, connection: Connection, uuid: str, before: queries.Cursor | None, limit: int) -> FoundLogs:
        return log_search.search(
            connection,
            uuid,
            levels=self.level,
            codes=self.code,
            text=self.q,
            since=self.since,
            until=self.until,
            before=before,
            limit=limit,
        )


class LogQuery(LogFilter, PageQuery):
    """A page of those."""


class ClientsQuery(FleetQuery):
    limit: int = Field(MAX_CLIENTS, ge=1, le=MAX_CLIENTS)
    after: Uuid | None = Field(None, description="`next` of the page before")


class LabelsBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(None, description="null or empty: none. What is left out stays as it is")
    location: str | None = Field(None, description="as `name`")
    tags: list[str] | None = Field(None, description="all of them; null or empty: none")


# --- what goes out ----------------------------------------------------------------------------------------------------


class Log(Answer):
    id: int
    timestamp: datetime = Field(description="device time, clamped to what is plausible")
    level: LogLevel
    message: str
    context: dict[str, Any]
    code: str | None
    received_at: datetime
    device_timestamp: datetime | None = Field(description="device time as it came, where that was clamped")
    clock: str | None


class LogPage(Answer):
    logs: list[Log]
    count: int
    next: str | None = Field(description="for `before`; null on the last page")
    searched_to: datetime | None = Field(
        None, description="of a search by `q` or `code` whose time was up before the page was full; go on by `next`"
    )


class LevelCounts(Answer):
    ERROR: int
    WARN: int
    INFO: int


class Summary(Answer):
    summary: dict[str, LevelCounts]
    period_hours: int


class Client(Answer):
    uuid: str
    hostname: str | None
    online: bool
    last_alive: datetime | None
    registered_at: datetime
    version: str | None
    current_event_id: int | None
    current_event_type: str | None
    current_process: str | None
    process_status: ProcessStatus | None
    process_pid: int | None
    screen_health_status: ScreenHealthStatus | None
    screen_reason: str | None
    last_screenshot_analyzed: datetime | None
    last_screenshot_hash: str | None
    outbox_pending: int | None
    outbox_oldest: datetime | None
    system: dict[str, Any]
    state_at: datetime | None
    name: str | None = Field(description="given by people, as `location` and `tags` are")
    location: str | None
    tags: list[str]


class Delivery(Answer):
    """All records that this client ever numbered, up to the newest acknowledged: each is in one of these."""

    stored: int
    unwanted: int
    dead: int
    gap: int = Field(description="declared by the client as no longer held")


class ClientDetail(Client):
    delivery: Delivery


class Clients(Answer):
    clients: list[Client]
    count: int
    next: str | None


class Removing(Answer):
    removing: bool


class AckAnswer(Answer):
    epoch: str
    lanes: dict[str, int]
    wanted: dict[str, str] | None = None


class Acks(Answer):
    acks: list[AckAnswer]


class Health(Answer):
    status: str = Field(description="ok, or degraded: no database, or clients fell silent")
    database: str
    ingest: str = Field(description="ok, or silent: nothing came in for three heartbeats")


# --- routes -----------------------------------------------------------------------------------------------------------

api = APIBlueprint("api", __name__)


@api.get("/api/client-logs/<uuid>/logs", operation_id="client_logs", security=TOKEN, responses=answers(LogPage, 404))
@access(Access.ADMIN_OR_HIGHER)
def client_logs(path: ClientPath, query: LogQuery) -> Response:
    """Logs of one client, newest first."""
    with parts().engine.connect() as connection:
        page = query.search(connection, path.uuid, query.cursor, query.limit)
        if not page.logs and not queries.client_exists(connection, path.uuid):
            raise no_client()
    following = None if page.following is None else page.following.text()
    stopped = {} if page.searched_to is None else {"searched_to": timestamp_text(page.searched_to)}
    return jsonify(logs=page.logs, count=len(page.logs), next=following, **stopped)


@api.get("/api/client-logs/summary", operation_id="summary", security=TOKEN, responses=answers(Summary))
@access(Access.ADMIN_OR_HIGHER)
def summary() -> Response:
    """Records of each client in the last 24 hours, by level."""
    with parts().engine.connect() as connection:
        return jsonify(summary=queries.summary(connection), period_hours=queries.SUMMARY_HOURS)


@api.get("/api/clients", operation_id="clients", security=TOKEN, responses=answers(Clients))
@access(Access.USER_OR_HIGHER)
def clients(query: ClientsQuery) -> Response:
    """All clients and how they are, by uuid; or those that meet what is asked for."""
    at = moment()
    with parts().engine.connect() as connection:
        conditions = fleet.conditions(connection, query.wanted, at)
        rows = queries.clients_page(connection, query.limit + 1, query.after, at.now, at.silence, *conditions)
    page, more = rows[: query.limit], len(rows) > query.limit
    return jsonify(clients=page, count=len(page), next=page[-1]["uuid"] if more else None)


@api.get("/api/clients/<uuid>", operation_id="client", security=TOKEN, responses=answers(ClientDetail, 404))
@access(Access.USER_OR_HIGHER)
def client(path: ClientPath) -> Response:
    """One client, with the account of its records."""
    return _client(path.uuid)


def _client(uuid: str) -> Response:
    at = moment()
    with parts().engine.connect() as connection:
        row = queries.client(connection, uuid, at.now, at.silence)
        if row is None:
            raise no_client()
        return jsonify(row | {"delivery": queries.delivery(connection, uuid)})


@api.patch("/api/clients/<uuid>", operation_id="label", security=TOKEN, responses=answers(ClientDetail, 404, 413))
@access(Access.ADMIN_OR_HIGHER)
def label(path: ClientPath, body: LabelsBody) -> Response:
    """Say what a client is called, where it is, and its tags; answers with the client as it is then."""
    given = {name: getattr(body, name) for name in body.model_fields_set}
    empty: dict[str, Any] = {"name": "", "location": "", "tags": []}
    said = {name: given[name] or empty[name] if name in given else None for name in empty}
    try:
        checked = labels.checked(**said)
    except labels.LabelError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{error.field}: {error.text}") from None
    if not labels.write(parts().engine, path.uuid, checked):
        raise no_client()
    return _client(path.uuid)


@api.delete(
    "/api/clients/<uuid>",
    operation_id="remove",
    security=TOKEN,
    responses=answers(Removing, 404, status=HTTPStatus.ACCEPTED),
)
@access(Access.SUPERADMIN)
def remove(path: ClientPath) -> tuple[Response, int]:
    """Remove a client for good, with all that is known of it: within a minute, or longer with many records."""
    if not removal.ask(parts().engine, path.uuid, caller().name, parts().now()):
        raise no_client()
    audit.note("removal asked for", client=path.uuid)
    return jsonify(removing=True), HTTPStatus.ACCEPTED


@api.post(
    "/api/ingest/<uuid>/logs",
    operation_id="ingest_logs",
    security=TOKEN,
    responses=answers(Acks, 413),
    openapi_extensions={"requestBody": http_door.LETTER},
)
@access(Access.OWN_DEVICE)
def ingest_logs(path: ClientPath) -> Response:
    """Batches of records and a hello, as over MQTT; what is acknowledged is committed. gzip is allowed."""
    return jsonify(acks=[ack_body(ack) for ack in http_door.take(path.uuid)])


@api.get("/healthz", operation_id="healthz", responses={200: Health, 503: Health})
@access(Access.PUBLIC)
def healthz() -> tuple[Response, int]:
    """Whether the server works, for load balancers and monitors."""
    try:
        with parts().engine.connect() as connection:
            heard = queries.last_heard(connection)
    except SQLAlchemyError as error:
        log.error("healthz: %s", type(error).__name__)
        return jsonify(status="degraded", database="unreachable", ingest="unknown"), HTTPStatus.SERVICE_UNAVAILABLE
    at = moment()
    silent = heard is None or (at.now - heard).total_seconds() > at.silence
    status = "degraded" if silent and heard is not None else "ok"
    return jsonify(status=status, database="ok", ingest="silent" if silent else "ok"), HTTPStatus.OK


@api.get("/api/openapi.json", doc_ui=False)
@access(Access.PUBLIC)
def openapi() -> Response:
    return jsonify(current_app.api_doc)  # type: ignore[attr-defined]
