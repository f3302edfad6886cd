"""GET /api/stream: what is committed, as server-sent events, until the browser leaves or may no longer see it.

What is sent is decided in live. Here are the parameters, the bounds in time of one stream, and who may have it.
"""

import random
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Annotated, Any

from flask import Response, current_app, g, jsonify, request, session
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, BeforeValidator, Field
from sqlalchemy.exc import SQLAlchemyError

from infoscreen_server.accounts import Access, Caller, caller_of, prefix_of
from infoscreen_server.api import MAX_CODES, MAX_TEXT
from infoscreen_server.context import Refusal, access, caller, parts
from infoscreen_server.forms import TOKEN, Problem, Query, Uuid, answers
from infoscreen_server.live import FullError, Hub
from infoscreen_server.live_source import Wish
from infoscreen_server.live_viewer import Place, Viewer, event, place_event
from infoscreen_server.models import TokenRole
from infoscreen_server.sessions import SESSION, signed_in
from infoscreen_shared.messages import MAX_CODE_CHARS, LogLevel

BEAT_S = 15.0
"""Without anything to say: a comment, so that proxies keep the connection and a dead one is noticed."""
RECHECK_S = 15.0
"""How often it is asked again whether the caller may still see this."""
LOOK_S = 5.0
"""How often it is looked whether the other side has gone."""
LIFE_S = 3600.0
RETRY_MS = (2_000, 5_000)
"""After which a browser comes back; another time for each, so that they do not all come at once."""
RETRY_AFTER_S = 30
MAX_PLACE = 8_000

HUB = "infoscreen_live"
"""The hub's name among the application's extensions."""
_TCP_ESTABLISHED = 1

# --- what comes in ----------------------------------------------------------------------------------------------------


def _level(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _place(value: object) -> Place | None:
    if value == "":
        return None
    if not isinstance(value, str) or len(value) > MAX_PLACE:
        raise ValueError("expected the `id` of an event")
    try:
        return Place.parse(value)
    except ValueError:
        raise ValueError("expected the `id` of an event") from None


class StreamQuery(Query):
    logs: bool = Field(True, description="`log` events; an admin's, others get none")
    clients: bool = Field(True, description="`client` events")
    uuid: Uuid | None = Field(None, description="of this client only")
    level: list[Annotated[LogLevel, BeforeValidator(_level)]] = Field([], description="may be repeated; default: all")
    code: list[Annotated[str, Field(max_length=MAX_CODE_CHARS)]] = Field(
        [], max_length=MAX_CODES, description="may be repeated; default: all"
    )
    q: str = Field(
        "", max_length=MAX_TEXT, description="text in message, code or context, without regard to case; no wildcards"
    )
    after: Annotated[Any, BeforeValidator(_place)] = Field(
        None,
        description="`id` of an event: what was missed since comes first. The header Last-Event-ID says the same",
        json_schema_extra={"type": "string"},
    )


class StreamHeader(BaseModel):
    last_event_id: Annotated[Any, BeforeValidator(_place)] = Field(
        None,
        alias="Last-Event-ID",
        description="as `after`, which it overrules: what browsers send when they come back",
        json_schema_extra={"type": "string"},
    )


# --- what goes out ----------------------------------------------------------------------------------------------------

_STREAM: dict[str, Any] = {
    "description": (
        "Server-sent events without an end. `log`: a record as in /api/client-logs/{uuid}/logs, with `client_uuid`, "
        "`client_label`, and `cut` where message or context were too long for a line. `client`: a client as in "
        "/api/clients, when its link, process or screen changed. `dropped`: so many `logs` were passed over, at most "
        "that many where `about` is true, or changes of too many `clients`. `place`: nothing but the `id`, which says "
        "how far the stream has come, also past what was not asked for. `end`: the caller may no longer see this. "
        "Pass over events of other names: there may be more of them. After an hour the stream ends."
    ),
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}

# --- the route --------------------------------------------------------------------------------------------------------

live = APIBlueprint("live", __name__)


@live.get("/api/stream", operation_id="stream", security=TOKEN, responses={**answers(_STREAM), 429: Problem})
@access(Access.USER_OR_HIGHER)
def stream(header: StreamHeader, query: StreamQuery) -> Response | tuple[Response, int, dict[str, str]]:
    """What is committed from now on, as server-sent events."""
    wish = _wish(query)
    owner, still = _credential()
    try:
        viewer = hub().join(owner, wish, header.last_event_id or query.after)
    except FullError as error:
        return jsonify(error=str(error)), HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(RETRY_AFTER_S)}
    viewer.is_gone = gone(request.environ.get("gunicorn.socket"))
    response = Response(_events(hub(), viewer, still), mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    # A proxy that would gather what comes until it fills a buffer is told not to.
    response.headers["X-Accel-Buffering"] = "no"
    leave = hub().leave
    response.call_on_close(lambda: leave(viewer))
    return response


def hub() -> Hub:
    found: Hub = current_app.extensions[HUB]
    return found


def _wish(query: StreamQuery) -> Wish:
    may_read = caller().role in (TokenRole.ADMIN, TokenRole.SUPERADMIN)
    if not (query.logs or query.clients):
        raise Refusal(HTTPStatus.BAD_REQUEST, "clients: nothing is asked for, neither logs nor clients")
    return Wish(
        logs=query.logs and may_read,
        clients=query.clients,
        uuid=query.uuid,
        levels=frozenset(query.level),
        codes=frozenset(query.code),
        text=query.q,
    )


def _credential() -> tuple[str, Callable[[], bool]]:
    """A name for whoever asks, for counting; and whether the same credential is still good for the same."""
    here, now, before = parts(), parts().now, caller()
    signed = g.get("signed")
    if signed is not None:
        token = session[SESSION]

        def ask() -> Caller | None:
            found = signed_in(here.engine, token, now())
            return found.caller if found else None

        owner = f"user {signed.user_id}"
    else:
        token = request.headers.get("Authorization", "").partition(" ")[2].strip()

        def ask() -> Caller | None:
            return caller_of(here.engine, token, now())

        # The part of a token that is no secret.
        owner = prefix_of(token)

    def still() -> bool:
        try:
            return ask() == before
        except SQLAlchemyError:
            # Nothing can be read meanwhile, so nothing is shown either.
            return True

    return owner, still


def gone(connection: Any) -> Callable[[], bool]:
    """For the socket of a request, as gunicorn has it among the request's variables."""

    def is_gone() -> bool:
        """Whether the other side has closed: the kernel knows, while a write would only find out at the second try."""
        try:
            state: bytes = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return True
        return state[0] != _TCP_ESTABLISHED

    return is_gone if connection is not None else lambda: False


def _opening(viewer: Viewer) -> bytes:
    """What comes first, taken from the viewer: a browser may be slow to read it, and once is enough to keep it."""
    text = b"".join((f"retry: {random.randint(*RETRY_MS)}\n\n".encode(), *viewer.opening))
    viewer.opening.clear()
    return text


def _events(hub: Hub, viewer: Viewer, still: Callable[[], bool]) -> Iterator[bytes]:
    began = said = asked = time.monotonic()
    yield _opening(viewer)
    while True:
        text, place = hub.take(viewer, LOOK_S)
        now = time.monotonic()
        if now - asked >= RECHECK_S:
            asked = now
            if not still():
                yield event("end", {"reason": "no longer allowed"})
                return
        if viewer.closed or viewer.is_gone() or now - began >= LIFE_S:
            return
        if not text and now - said >= BEAT_S:
            text = b": still here\n" + place_event(place)
        if text:
            said = now
            yield text
