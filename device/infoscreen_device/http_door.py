"""The second door to the server: the same batches by HTTP POST, for when MQTT fails. Blocking, with time limits.

Only sends and returns what the server answered; what to send and when is for `delivery`.
"""

import contextlib
import gzip
import http.client
import urllib.parse

from infoscreen_device.backlog import Batch
from infoscreen_device.settings import HttpConfig
from infoscreen_shared.messages import Ack, Hello, ack_from, encode_hello, from_json
from infoscreen_shared.tls import client_context

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1_000_000


def post(config: HttpConfig, uuid: str, hello: Hello | None, batches: list[Batch]) -> list[Ack]:
    """Send a hello and batches in one request, gzip-compressed.

    Raises OSError where the door does not answer, ValueError where it refuses or answers something else.
    """
    assert config.url is not None
    url = urllib.parse.urlsplit(config.url)
    greeting = b"" if hello is None else b'"hello":' + encode_hello(hello) + b","
    body = b'{%s"batches":[%s]}' % (greeting, b",".join(_with_level(batch) for batch in batches))
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    if config.token is not None:
        headers["Authorization"] = f"Bearer {config.token}"
    path = f"{url.path.rstrip('/')}/api/ingest/{uuid}/logs"
    try:
        with contextlib.closing(_connection(url, config)) as connection:
            connection.request("POST", path, gzip.compress(body, 3), headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES)
    except http.client.HTTPException as error:
        raise ValueError(f"no HTTP: {type(error).__name__} {error}") from error
    if response.status != http.client.OK:
        raise ValueError(f"the server answered {response.status} {response.reason}")
    document = from_json(answer)
    if not isinstance(document, dict) or not isinstance(document.get("acks"), list):
        raise ValueError("the server's answer has no acks")
    return [ack_from(item) for item in document["acks"]]


def _with_level(batch: Batch) -> bytes:
    return b'{"level":"%s",' % batch.level.lower().encode() + batch.payload[1:]


def _connection(url: urllib.parse.SplitResult, config: HttpConfig) -> http.client.HTTPConnection:
    host = url.hostname or "localhost"
    if url.scheme == "https":
        context = client_context(config.ca_file)
        return http.client.HTTPSConnection(host, url.port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(host, url.port, timeout=TIMEOUT_S)
