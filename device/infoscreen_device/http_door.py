"""The second door to the server: the same batches by HTTP POST, for when MQTT fails. Blocking, with time limits.

Only sends and returns what the server answered; what to send and when is for `delivery`.
"""

import contextlib
import gzip
import http.client
import urllib.parse
from collections.abc import Mapping

from infoscreen_device.backlog import Batch
from infoscreen_device.settings import HttpConfig
from infoscreen_shared.messages import Ack, Hello, ack_from, encode_hello, from_json
from infoscreen_shared.tls import client_context

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1_000_000
_FINAL = (http.client.BAD_REQUEST, http.client.REQUEST_ENTITY_TOO_LARGE, http.client.UNSUPPORTED_MEDIA_TYPE)


class RefusedError(ValueError):
    """The server will never take this, however often it is sent."""


def post(config: HttpConfig, uuid: str, hello: Hello | None, batches: list[Batch]) -> list[Ack]:
    """Send a hello and batches in one request, gzip-compressed.

    Raises OSError where the door does not answer, ValueError where it refuses or answers something else.
    """
    assert config.url is not None
    greeting = b"" if hello is None else b'"hello":' + encode_hello(hello) + b","
    body = b'{%s"batches":[%s]}' % (greeting, b",".join(_with_level(batch) for batch in batches))
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    document = from_json(_post(config, f"/api/ingest/{uuid}/logs", gzip.compress(body, 3), headers))
    if not isinstance(document, dict) or not isinstance(document.get("acks"), list):
        raise ValueError("the server's answer has no acks")
    return [ack_from(item) for item in document["acks"]]


def post_picture(config: HttpConfig, uuid: str, jpeg: bytes, about: Mapping[str, str]) -> None:
    """Send a small picture of the screen, with what is said `about` it; the same `id` is kept once, however often sent.

    Raises as `post` does; RefusedError for a picture that the server will never take.
    """
    path = f"/api/ingest/{uuid}/screenshots?{urllib.parse.urlencode(about)}"
    _post(config, path, jpeg, {"Content-Type": "image/jpeg"})


def _post(config: HttpConfig, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The answer's body. Raises OSError, ValueError."""
    assert config.url is not None
    url = urllib.parse.urlsplit(config.url)
    if config.token is not None:
        headers = headers | {"Authorization": f"Bearer {config.token}"}
    try:
        with contextlib.closing(_connection(url, config)) as connection:
            connection.request("POST", url.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES)
    except http.client.HTTPException as error:
        raise ValueError(f"no HTTP: {type(error).__name__} {error}") from error
    if response.status in _FINAL:
        raise RefusedError(f"the server answered {response.status}: {answer[:200].decode(errors='replace')}")
    if response.status not in (http.client.OK, http.client.CREATED):
        raise ValueError(f"the server answered {response.status} {response.reason}")
    return answer


def _with_level(batch: Batch) -> bytes:
    return b'{"level":"%s",' % batch.level.lower().encode() + batch.payload[1:]


def _connection(url: urllib.parse.SplitResult, config: HttpConfig) -> http.client.HTTPConnection:
    host = url.hostname or "localhost"
    if url.scheme == "https":
        context = client_context(config.ca_file)
        return http.client.HTTPSConnection(host, url.port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, url.port, timeout=TIMEOUT_S)
