"""A client's log as a file: NDJSON for programs, CSV for spreadsheets. All of it, with the filters of the log API.

Written portion by portion, each read in a transaction of its own: memory does not grow with the log, no transaction
stays open while someone downloads slowly, and what is deleted meanwhile is simply no longer there.
"""

import csv
import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, request
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from infoscreen_server import queries
from infoscreen_server.accounts import Access
from infoscreen_server.api import LogFilter
from infoscreen_server.api_live import gone
from infoscreen_server.context import access, no_client, parts
from infoscreen_server.forms import TOKEN, ClientPath, Problem, answers
from infoscreen_server.log_search import LogPage

PORTION = 500
"""Records that are read and written at a time."""
AT_ONCE = 3
"""Exports that one process writes; each keeps the database busy."""
RETRY_AFTER_S = 30

_slots = threading.BoundedSemaphore(AT_ONCE)

Portion = Callable[[queries.Cursor | None], LogPage]

# --- what comes in and goes out ---------------------------------------------------------------------------------------


class Separator(StrEnum):
    COMMA = "comma"
    SEMICOLON = "semicolon"


class CsvQuery(LogFilter):
    separator: Separator = Field(
        Separator.COMMA, description="Excel asks for a semicolon where numbers have a decimal comma, as in German"
    )


_NDJSON: dict[str, Any] = {
    "description": (
        "One record a line, as in /api/client-logs/{uuid}/logs, newest first. "
        "A download that breaks off was not completed: the last chunk of its transfer is missing."
    ),
    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
}
_CSV: dict[str, Any] = {
    "description": (
        "RFC 4180, in UTF-8 with a byte order mark, for spreadsheets; newest first. An apostrophe stands before = + - "
        "@, tab and carriage return where a spreadsheet could take them for the start of a formula: at the beginning "
        "of a cell, and behind a comma, semicolon, tab or line break, since it may take another separator for its own. "
        "Programs better read the NDJSON, which has every text as it is."
    ),
    "content": {"text/csv": {"schema": {"type": "string"}}},
}
COLUMNS = ("timestamp", "level", "code", "message", "context", "received_at", "device_timestamp", "clock", "id")

# --- the routes -------------------------------------------------------------------------------------------------------

exports = APIBlueprint("exports", __name__)


@exports.get(
    "/api/client-logs/<uuid>/export.ndjson",
    operation_id="export_ndjson",
    security=TOKEN,
    responses={**answers(_NDJSON, 404), 429: Problem},
)
@access(Access.ADMIN_OR_HIGHER)
def ndjson(path: ClientPath, query: LogFilter) -> Response:
    """The log of one client as NDJSON."""
    return _download(path.uuid, query, "ndjson", "application/x-ndjson", _ndjson_lines)


@exports.get(
    "/api/client-logs/<uuid>/export.csv",
    operation_id="export_csv",
    security=TOKEN,
    responses={**answers(_CSV, 404), 429: Problem},
)
@access(Access.ADMIN_OR_HIGHER)
def csv_file(path: ClientPath, query: CsvQuery) -> Response:
    """The log of one client as CSV."""
    separator = ";" if query.separator is Separator.SEMICOLON else ","
    return _download(path.uuid, query, "csv", "text/csv; charset=utf-8", partial(_csv_lines, separator))


def _download(
    uuid: str,
    query: LogFilter,
    kind: str,
    content_type: str,
    lines: Callable[[Iterator[list[dict[str, Any]]]], Iterator[str]],
) -> Response:
    engine, now = parts().engine, parts().now()
    with engine.connect() as connection:
        found = queries.client(connection, uuid, now, 0.0)
    if found is None:
        raise no_client()

    def portion(before: queries.Cursor | None) -> LogPage:
        with engine.connect() as connection:
            return query.search(connection, uuid, before, PORTION)

    if not _slots.acquire(blocking=False):
        return _too_many()
    # A stack, since it gives the slot back once, however often it is closed: at the end, and also if nothing was read.
    slot = ExitStack()
    slot.callback(_slots.release)
    is_gone = gone(request.environ.get("gunicorn.socket"))

    def body() -> Iterator[str]:
        with slot:
            yield from lines(_portions(portion, is_gone))

    response = Response(body())
    response.call_on_close(slot.close)
    response.content_type = content_type
    name = file_name(found["hostname"], uuid, f"{now:%Y%m%dT%H%M%SZ}", kind)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _too_many() -> Response:
    response = jsonify(error=f"exports: {AT_ONCE} are being written, which is the most for one server process")
    response.status_code = HTTPStatus.TOO_MANY_REQUESTS
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def file_name(hostname: str | None, uuid: str, when: str, kind: str) -> str:
    """Of plain letters only, whatever a kiosk calls itself.

    >>> file_name('../a"b\\r\\n.exe', "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11", "20260601T120000Z", "csv")
    'logs-a-b-exe-0b6c0f5e-20260601T120000Z.csv'
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", hostname or "")[:40].strip("-")
    return "-".join(each for each in ("logs", plain, uuid[:8], when) if each) + f".{kind}"


def _portions(portion: Portion, is_gone: Callable[[], bool]) -> Iterator[list[dict[str, Any]]]:
    before = None
    while True:
        page = portion(before)
        yield page.logs
        if page.following is None:
            return
        if not page.logs and is_gone():
            # A search that finds nothing writes nothing, and would not notice by that.
            return
        before = page.following
        time.sleep(0)  # Under gevent: the other requests of this process have their turn.


# --- the formats ------------------------------------------------------------------------------------------------------


def _ndjson_lines(portions: Iterator[list[dict[str, Any]]]) -> Iterator[str]:
    for logs in portions:
        yield "".join(json.dumps(log, ensure_ascii=False, separators=(",", ":")) + "\n" for log in logs)


def _csv_lines(separator: str, portions: Iterator[list[dict[str, Any]]]) -> Iterator[str]:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator)
    out.write("\ufeff")
    writer.writerow(COLUMNS)
    for logs in portions:
        writer.writerows([cell(log[name]) for name in COLUMNS] for log in logs)
        yield out.getvalue()
        out.seek(0)
        out.truncate()


_FORMULA = re.compile(r"(^|[,;\t\r\n])(?=[ \"]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r])")
"""Where a spreadsheet may see the beginning of a formula. The last four are the wide ones of Asian scripts."""


def cell(value: object) -> str:
    """One cell's text, defused.

    >>> cell("=1+1"), cell("x;=cmd"), cell("a - b"), cell({"n": [-5, "-x"]}), cell(None)
    ("'=1+1", "x;'=cmd", 'a - b', '{"n":[-5,\\'"-x"]}', '')
    """
    if value is None or value == {}:
        return ""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, dict) else str(value)
    return _FORMULA.sub(r"\1'", text)
