"""The routes of the kiosks' pictures: one comes in, they are listed, one is shown.

A picture is guarded as the logs are: a screen may show what is not meant for everyone.
"""

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from flask import Response, jsonify, make_response, request, url_for
from flask_openapi3.blueprint import APIBlueprint
from pydantic import BeforeValidator, Field

from infoscreen_server import http_door, queries
from infoscreen_server import screenshots as pictures
from infoscreen_server.accounts import Access
from infoscreen_server.context import Refusal, access, no_client, parts
from infoscreen_server.forms import TOKEN, Answer, ClientPath, Moment, PageQuery, Query, answers
from infoscreen_server.models import ScreenshotKind
from infoscreen_shared.messages import MAX_ID_CHARS, ScreenHealthStatus, clean

CACHED = "private, max-age=3600"
"""A picture never changes, but is gone after its time: a browser may keep it for an hour."""

# --- what comes in ----------------------------------------------------------------------------------------------------

_UPLOAD_ID = re.compile(f"[A-Za-z0-9_-]{{8,{MAX_ID_CHARS}}}")
_MAX_TEXT = 255


def _upload_id(value: object) -> object:
    if not isinstance(value, str) or not _UPLOAD_ID.fullmatch(value):
        raise ValueError(f"expected 8 to {MAX_ID_CHARS} letters, digits, - or _")
    return value


def _text(value: object) -> object:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"expected text of at most {_MAX_TEXT} characters")
    return clean(value)


def _number(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]{0,17}", value):
        raise ValueError("expected the number of a screenshot")
    return int(value)


class ScreenshotPath(ClientPath):
    id: Annotated[int, BeforeValidator(_number)]


class UploadQuery(Query):
    id: Annotated[str, BeforeValidator(_upload_id)] = Field(
        description="made by the kiosk, the same whenever it sends the same picture: such a one is stored once"
    )
    taken_at: Moment = Field(description="ISO 8601, UTC without a zone")
    kind: ScreenshotKind
    status: ScreenHealthStatus
    reason: Annotated[str | None, BeforeValidator(_text)] = None
    hash: Annotated[str | None, BeforeValidator(_text)] = None


_BODY: dict[str, Any] = {
    "description": f"A baseline or progressive JPEG of at most {pictures.MAX_BYTES} bytes.",
    "required": True,
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
}

# --- what goes out ----------------------------------------------------------------------------------------------------


class Kept(Answer):
    id: int


class Screenshot(Answer):
    id: int
    taken_at: datetime = Field(description="device time, clamped to what is plausible")
    device_taken_at: datetime | None = Field(description="device time as it came, where that was clamped")
    received_at: datetime
    kind: ScreenshotKind
    status: ScreenHealthStatus
    reason: str | None
    hash: str | None
    width: int
    height: int
    bytes: int
    url: str


class ScreenshotPage(Answer):
    screenshots: list[Screenshot]
    count: int
    next: str | None = Field(description="for `before`; null on the last page")


_PICTURE: dict[str, Any] = {"description": "the picture", "content": {"image/jpeg": {}}}

# --- routes -----------------------------------------------------------------------------------------------------------

screenshots = APIBlueprint("screenshots", __name__)


@screenshots.post(
    "/api/ingest/<uuid>/screenshots",
    operation_id="ingest_screenshot",
    security=TOKEN,
    responses={201: Kept, **answers(Kept, 404, 413)},
    openapi_extensions={"requestBody": _BODY},
)
@access(Access.OWN_DEVICE)
def take(path: ClientPath, query: UploadQuery) -> tuple[Response, int]:
    """One picture of the client's screen: 201 when it is stored, 200 if it was before."""
    data, (width, height) = http_door.take_picture()
    said = query.model_dump(exclude={"id"})
    upload = pictures.Upload(upload_id=query.id, width=width, height=height, picture=data, **said)
    kept = pictures.keep(parts().engine, path.uuid, upload, parts().now(), parts().config)
    if kept is None:
        raise no_client()
    return jsonify(id=kept.id), HTTPStatus.CREATED if kept.new else HTTPStatus.OK


@screenshots.get(
    "/api/clients/<uuid>/screenshots",
    operation_id="screenshots",
    security=TOKEN,
    responses=answers(ScreenshotPage, 404),
)
@access(Access.ADMIN_OR_HIGHER)
def listed(path: ClientPath, query: PageQuery) -> Response:
    """Pictures of one client's screen, newest first."""
    with parts().engine.connect() as connection:
        rows, following = pictures.page(connection, path.uuid, query.limit, query.cursor)
        if not rows and not queries.client_exists(connection, path.uuid):
            raise no_client()
    for row in rows:
        row["bytes"] = row.pop("size")
        row["url"] = url_for("screenshots.show", uuid=path.uuid, id=row["id"])
    return jsonify(screenshots=rows, count=len(rows), next=None if following is None else following.text())


@screenshots.get(
    "/api/clients/<uuid>/screenshots/<id>.jpg",
    operation_id="screenshot",
    security=TOKEN,
    responses=answers(_PICTURE, 404),
)
@access(Access.ADMIN_OR_HIGHER)
def show(path: ScreenshotPath) -> Response:
    """One picture."""
    with parts().engine.connect() as connection:
        data = pictures.picture(connection, path.uuid, path.id)
    if data is None:
        raise Refusal(HTTPStatus.NOT_FOUND, "id: there is no such screenshot of this client")
    response = make_response(data)
    response.content_type = "image/jpeg"
    response.headers["Cache-Control"] = CACHED
    response.headers["Vary"] = "Authorization, Cookie"
    response.add_etag()
    response.make_conditional(request)
    return response
