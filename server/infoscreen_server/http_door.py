"""The HTTP twin of the MQTT topics: one request with batches and a hello in, the acks out; and pictures of screens.

Takes the body apart, bounded; what is done with it is for store.py, the same function that stands behind MQTT, and for
screenshots.py.
"""

import zlib
from http import HTTPStatus
from typing import Any

from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from infoscreen_server import jpeg, queries, screenshots, store
from infoscreen_server.context import Refusal, no_client, parts
from infoscreen_shared.messages import (
    MAX_PAYLOAD_BYTES,
    Ack,
    Batch,
    Hello,
    LogLevel,
    WireError,
    batch_from,
    decode_hello,
    from_json,
    to_json,
)

LETTER: dict[str, Any] = {
    "description": "One batch or several, perhaps a hello; a batch may hold one record's fields in place of `records`.",
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "batches": {"type": "array", "items": {"type": "object", "required": ["level"]}},
                    "hello": {"type": "object", "required": ["epoch", "lanes"]},
                    "level": {"type": "string", "enum": list(LogLevel)},
                    "epoch": {"type": "string"},
                    "base": {"type": "integer", "minimum": 0},
                    "records": {"type": "array", "items": {"type": "object", "required": ["timestamp", "message"]}},
                },
            }
        }
    },
}
"""The body, for the OpenAPI document."""


def take(uuid: str) -> list[Ack]:
    """Store what this request brings for the client; when it returns, that is committed. Raises Refusal."""
    hello, batches = _letter(_body())
    config, engine = parts().config, parts().engine
    if not config.auto_register:
        with engine.connect() as connection:
            if not queries.client_exists(connection, uuid):
                raise no_client()
    said = [content for content in (hello, *batches) if content is not None]
    if not said:
        return []
    arrivals = [store.Arrival(uuid, content, "http") for content in said]
    return [ack for _, ack in store.ingest(engine, arrivals, parts().now(), config, source="http")]


def take_picture() -> tuple[bytes, tuple[int, int]]:
    """The JPEG that is this request's body, with its width and height. Raises Refusal."""
    if request.mimetype != "image/jpeg":
        raise Refusal(HTTPStatus.BAD_REQUEST, "Content-Type: expected image/jpeg")
    # A body of untold length is cut there without a word: one byte more than is taken shows that.
    request.max_content_length = screenshots.MAX_BYTES + 1
    try:
        data = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise _picture_too_large() from None
    if len(data) > screenshots.MAX_BYTES:
        raise _picture_too_large()
    try:
        return data, jpeg.size_of(data)
    except jpeg.NotJpegError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"body: {error}") from None


def _picture_too_large() -> Refusal:
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: larger than {screenshots.MAX_BYTES} bytes")


def _body() -> bytes:
    """The body as it was before compression; bounded both ways."""
    data = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        return data
    if encoding != "gzip":
        raise Refusal(HTTPStatus.BAD_REQUEST, "Content-Encoding: expected gzip or none")
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(data, MAX_PAYLOAD_BYTES + 1)
    except zlib.error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "body: not gzip") from None
    if len(plain) > MAX_PAYLOAD_BYTES:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body: larger than {MAX_PAYLOAD_BYTES} bytes")
    if not unpack.eof or unpack.unused_data:
        raise Refusal(HTTPStatus.BAD_REQUEST, "body: not one whole gzip stream")
    return plain


def _letter(data: bytes) -> tuple[Hello | None, list[Batch]]:
    """What a client says in one request: {"batches": [...]}, or one batch by itself, and perhaps {"hello": {...}}."""
    try:
        body = from_json(data)
    except WireError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"body: {error}") from None
    if not isinstance(body, dict):
        raise Refusal(HTTPStatus.BAD_REQUEST, "body: expected a JSON object")
    hello = None
    if "hello" in body:
        try:
            hello = decode_hello(to_json(body["hello"]))
        except WireError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"hello: {error}") from None
        except ValueError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "hello: a number is too large") from None
    if "level" in body:
        return hello, [_batch(body, "")]
    items = body.get("batches", [] if hello else None)
    if not isinstance(items, list):
        raise Refusal(HTTPStatus.BAD_REQUEST, "batches: expected a list")
    return hello, [_batch(item, f"batches[{number}].") for number, item in enumerate(items)]


def _batch(item: object, place: str) -> Batch:
    name = item.get("level") if isinstance(item, dict) else None
    try:
        level = LogLevel(name.upper() if isinstance(name, str) else "")
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{place}level: expected one of {', '.join(LogLevel)}") from None
    try:
        return batch_from(level, item)
    except WireError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"{place}{error}") from None
