"""The public API's routes: check parameters, call the query or the store, shape the answer.

Who may call what is said here (`access`) and enforced in app.py. Rows are read in queries.py and written in store.py.
"""

import logging
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from flask import Response, current_app, jsonify
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sqlalchemy.exc import SQLAlchemyError

from infoscreen_server import http_door, queries
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, no_client, parts
from infoscreen_shared.messages import (
    LogLevel,
    ProcessStatus,
    ScreenHealthStatus,
    WireError,
    ack_body,
    parse_timestamp,
)
from infoscreen_shared.topics import is_uuid

log = logging.getLogger(__name__)

DEFAULT_LIMIT, MAX_LIMIT = 50, 500
MAX_CLIENTS = 1000

# --- what comes in ----------------------------------------------------------------------------------------------------


def _uuid(value: object) -> object:
    folded = value.lower() if isinstance(value, str) else value
    if not isinstance(folded, str) or not is_uuid(folded):
        raise ValueError("expected a uuid")
    return folded


def _time(value: object) -> datetime:
    # A plus sign that was not percent-encoded arrives as a space.
    text = value.replace(" ", "+") if isinstance(value, str) and "T" in value else value
    try:
        return parse_timestamp(text)
    except WireError:
        raise ValueError("expected an ISO 8601 time") from None


def _level(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _cursor(value: object) -> queries.Cursor:
    if not isinstance(value, str):
        raise ValueError("expected the `next` of an earlier answer")
    return queries.Cursor.parse(value)


class ClientPath(BaseModel):
    uuid: Annotated[str, BeforeValidator(_uuid)] = Field(description="uuid of the client")


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`?level=&limit=` is what a form sends whose fields were left empty."""
        return {name: value for name, value in values.items() if value not in ("", [""])}


class LogQuery(Query):
    level: list[Annotated[LogLevel, BeforeValidator(_level)]] = Field([], description="may be repeated; default: all")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)
    since: Annotated[datetime | None, BeforeValidator(_time)] = Field(None, description="ISO 8601, UTC without a zone")
    before: Annotated[str | None, BeforeValidator(lambda text: _cursor(text) and text)] = Field(
        None, description="`next` of the page before, for older ones"
    )


class ClientsQuery(Query):
    limit: int = Field(MAX_CLIENTS, ge=1, le=MAX_CLIENTS)
    after: Annotated[str | None, BeforeValidator(_uuid)] = Field(None, description="`next` of the page before")


# --- what goes out ----------------------------------------------------------------------------------------------------


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    error: str


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

_Responses: TypeAlias = dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None]
_TOKEN: list[dict[str, list[Any]]] = [{"token": []}]


def _answers(model: type[BaseModel], *problems: int) -> _Responses:
    """A route's answers for the document: `model`, what every guarded route may say, and these."""
    return {200: model, **dict.fromkeys((400, 401, 403, *problems, 503), Problem)}


api = APIBlueprint("api", __name__)


@api.get("/api/client-logs/<uuid>/logs", operation_id="client_logs", security=_TOKEN, responses=_answers(LogPage, 404))
@access(Access.ADMIN_OR_HIGHER)
def client_logs(path: ClientPath, query: LogQuery) -> Response:
    """Logs of one client, newest first."""
    before = None if query.before is None else queries.Cursor.parse(query.before)
    with parts().engine.connect() as connection:
        page = queries.logs_page(
            connection, path.uuid, levels=query.level, limit=query.limit, since=query.since, before=before
        )
        if not page.logs and not queries.client_exists(connection, path.uuid):
            raise no_client()
    following = None if page.following is None else page.following.text()
    return jsonify(logs=page.logs, count=len(page.logs), next=following)


@api.get("/api/client-logs/summary", operation_id="summary", security=_TOKEN, responses=_answers(Summary))
@access(Access.ADMIN_OR_HIGHER)
def summary() -> Response:
    """Records of each client in the last 24 hours, by level."""
    with parts().engine.connect() as connection:
        return jsonify(summary=queries.summary(connection), period_hours=queries.SUMMARY_HOURS)


@api.get("/api/clients", operation_id="clients", security=_TOKEN, responses=_answers(Clients))
@access(Access.USER_OR_HIGHER)
def clients(query: ClientsQuery) -> Response:
    """All clients and how they are, by uuid."""
    with parts().engine.connect() as connection:
        rows = queries.clients_page(connection, query.limit + 1, query.after, parts().now(), _silence())
    page, more = rows[: query.limit], len(rows) > query.limit
    return jsonify(clients=page, count=len(page), next=page[-1]["uuid"] if more else None)


@api.get("/api/clients/<uuid>", operation_id="client", security=_TOKEN, responses=_answers(ClientDetail, 404))
@access(Access.USER_OR_HIGHER)
def client(path: ClientPath) -> Response:
    """One client, with the account of its records."""
    with parts().engine.connect() as connection:
        row = queries.client(connection, path.uuid, parts().now(), _silence())
        if row is None:
            raise no_client()
        return jsonify(row | {"delivery": queries.delivery(connection, path.uuid)})


@api.post(
    "/api/ingest/<uuid>/logs",
    operation_id="ingest_logs",
    security=_TOKEN,
    responses=_answers(Acks, 413),
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
    silent = heard is None or (parts().now() - heard).total_seconds() > _silence()
    status = "degraded" if silent and heard is not None else "ok"
    return jsonify(status=status, database="ok", ingest="silent" if silent else "ok"), HTTPStatus.OK


@api.get("/api/openapi.json", doc_ui=False)
@access(Access.PUBLIC)
def openapi() -> Response:
    return jsonify(current_app.api_doc)  # type: ignore[attr-defined]


def _silence() -> float:
    return queries.SILENT_HEARTBEATS * parts().config.heartbeat_seconds
