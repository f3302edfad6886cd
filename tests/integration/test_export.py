"""A log as a file: whole, filtered as the API filters, defused for spreadsheets, and in constant memory."""

import csv
import io
import json
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest
from sqlalchemy import Engine, delete, insert

from infoscreen_server import log_search
from infoscreen_server.api_export import AT_ONCE, PORTION, cell
from infoscreen_server.db import make_engine, upgrade, writing
from infoscreen_server.log_search import Effort
from infoscreen_server.models import Client, ClientLog, Role, TokenRole
from infoscreen_shared.messages import LogLevel, timestamp_text
from parts.api import NOW, OTHER, UUID, Api
from parts.person import with_user
from parts.server import Server
from parts.wait import wait_for

PATH = f"/api/client-logs/{UUID}/export"
LOGS = f"/api/client-logs/{UUID}/logs"


def add_client(engine: Engine, uuid: str = UUID, hostname: str | None = "kiosk-1") -> None:
    with writing(engine) as connection:
        connection.execute(insert(Client), [{"uuid": uuid, "hostname": hostname, "registered_at": NOW}])


def row(second: float, message: str = "m", **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"client_uuid": UUID, "level": LogLevel.INFO, "received_at": NOW}
    usual |= dict.fromkeys(("code", "context", "device_timestamp", "clock"))
    return usual | {"timestamp": NOW + timedelta(seconds=second), "message": message} | more


def fill(engine: Engine, rows: list[dict[str, Any]]) -> None:
    with writing(engine) as connection:
        connection.execute(delete(ClientLog))
        for start in range(0, len(rows), 10_000):
            connection.execute(insert(ClientLog), rows[start : start + 10_000])


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    add_client(running.engine)
    yield running
    running.close()


def whole(api: Api, path: str) -> Any:
    """The answer, read to its end: until then it has a place among the few at once."""
    answer = api.get(path)
    assert answer.data is not None
    return answer


def ndjson(api: Api, query: str = "") -> list[dict[str, Any]]:
    answer = api.get(f"{PATH}.ndjson?{query}")
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def table(api: Api, query: str = "", delimiter: str = ",") -> list[dict[str, str]]:
    answer = api.get(f"{PATH}.csv?{query}")
    assert answer.status_code == 200
    assert answer.data.startswith(b"\xef\xbb\xbf"), "so that spreadsheets see that it is UTF-8"
    return list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"), newline=""), delimiter=delimiter))


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_a_log_as_ndjson_is_what_the_api_says(api: Api) -> None:
    more = {"code": "a.b", "context": '{"n":["ü",1]}', "clock": "synced", "level": LogLevel.ERROR}
    fill(api.engine, [row(1), row(2, "two\nlines, \u202eodd", **more), row(3, "", device_timestamp=NOW)])
    assert ndjson(api) == api.get(LOGS).json["logs"]
    answer = whole(api, f"{PATH}.ndjson")
    assert answer.content_type == "application/x-ndjson"
    assert answer.headers["Content-Disposition"] == (
        'attachment; filename="logs-kiosk-1-0b6c0f5e-20260601T120000Z.ndjson"'
    )
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_log_as_csv(api: Api) -> None:
    more = {"code": "a.b", "context": '{"n":["ü",1]}', "clock": "synced", "level": LogLevel.ERROR}
    fill(api.engine, [row(1), row(2, 'two\nlines, "quoted"; and ä', **more)])
    first, second = table(api)
    assert first | {"id": ""} == {
        "timestamp": timestamp_text(NOW + timedelta(seconds=2)),
        "level": "ERROR",
        "code": "a.b",
        "message": 'two\nlines, "quoted"; and ä',
        "context": '{"n":["ü",1]}',
        "received_at": timestamp_text(NOW),
        "device_timestamp": "",
        "clock": "synced",
        "id": "",
    }
    assert (second["message"], second["code"], second["context"], second["clock"]) == ("m", "", "", "")
    assert table(api, "separator=semicolon", ";") == [first, second]
    assert whole(api, f"{PATH}.csv").content_type == "text/csv; charset=utf-8"


def test_an_empty_log_is_a_file_too(api: Api) -> None:
    assert ndjson(api) == []
    assert table(api) == []
    fill(api.engine, [row(1)])
    assert ndjson(api, "since=9999-12-31T23:59:59") == ndjson(api, "until=0001-01-01") == []


FILTERS = [
    "",
    "level=error",
    "level=WARN&level=ERROR",
    "q=50%20%25",
    "q=NEEDLE",
    "code=a.b",
    "code=a.b&code=a.c&level=INFO",
    f"since={timestamp_text(NOW + timedelta(seconds=700))}",
    f"until={timestamp_text(NOW + timedelta(seconds=700))}&q=needle",
    "since=2026-06-01T12:00:10&until=2026-06-01T14:05:20%2B02:00&level=",
    "q=nothing-of-this",
]


@pytest.mark.parametrize("query", FILTERS)
def test_the_filters_are_those_of_the_api(api: Api, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    """Also over several portions, and where a search runs out of time again and again."""
    levels = list(LogLevel)
    words, codes = ("needle", "50 %", "500", "straw"), (None, "a.b", "a.c")
    fill(
        api.engine,
        [
            row(number // 3, f"{words[number % 4]} {number}", level=levels[number % 3], code=codes[number % 3])
            for number in range(3000)
        ],
    )  # fmt: skip
    expected = []
    before = ""
    while before is not None:
        page = api.get(f"{LOGS}?{query}&limit=500{before}").json
        expected += page["logs"]
        before = page["next"] and f"&before={page['next']}"
    assert ndjson(api, query) == expected
    assert [int(each["id"]) for each in table(api, query)] == [log["id"] for log in expected]
    monkeypatch.setattr(log_search, "Effort", lambda: Effort(seconds=0, rows=100))
    assert ndjson(api, query) == expected


def test_parameters_that_are_refused(api: Api) -> None:
    for query in ("level=FATAL", "since=soon", f"q={'x' * 201}", "limit=1", "before=x", "separator=tab", "x=1"):
        for kind in ("csv", "ndjson"):
            answer = api.get(f"{PATH}.{kind}?{query}")
            assert answer.status_code == 400
            assert answer.json["error"].startswith(query.partition("=")[0])
    assert api.get(f"{PATH}.ndjson?separator=comma").status_code == 400
    assert api.get(f"/api/client-logs/{OTHER}/export.csv").status_code == 404
    assert api.get("/api/client-logs/x/export.csv").status_code == 400


def test_a_session_may_export_and_a_user_may_not(api: Api) -> None:
    fill(api.engine, [row(1)])
    assert "m" in with_user(api, "anna", Role.ADMIN).get(f"{PATH}.csv").text
    assert with_user(api, "otto").get(f"{PATH}.csv").status_code == 403
    assert api.get(f"{PATH}.csv", TokenRole.USER).status_code == 403


# --- injection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        '=HYPERLINK("http://evil.example","x")',
        "+1+1",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "  =1+1",
        '"=1+1"',
        "x,=1+1",
        "x;=cmd|'/c calc'!A0",
        'x;"=1+1"',
        'x","=1+1',
        "x\n=1+1",
        "x\t@y",
        "\uff1d1+1",
    ],
)
def test_no_cell_is_a_formula_by_whatever_separator_it_is_read(api: Api, message: str) -> None:
    fill(api.engine, [row(1, message, code="=c", context=json.dumps({"=k": message}))])
    for separator in ("comma", "semicolon"):
        text = api.get(f"{PATH}.csv?separator={separator}").data.decode("utf-8-sig")
        for delimiter in (",", ";", "\t"):
            for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
                rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
                cells = [each.strip(' "') for line in rows for each in line]
                assert [each for each in cells if each[:1] in tuple("=+-@\t\r\uff1d")] == []


def test_what_is_harmless_stays_as_it_is() -> None:
    for text in ("a - b", "1+1=2", "mail a@b", "it's", "x, y; z", "10:00-11:00", "'", ""):
        assert cell(text) == text


@pytest.mark.parametrize(
    "hostname", ['"; filename="evil.exe', "a\r\nX-Forged: 1", "../../etc/passwd", "☃", "", None, "x" * 255]
)
def test_the_files_name_is_plain(api: Api, hostname: str | None) -> None:
    add_client(api.engine, OTHER, hostname)
    header = whole(api, f"/api/client-logs/{OTHER}/export.csv").headers["Content-Disposition"]
    name = header.removeprefix('attachment; filename="').removesuffix('"')
    assert name.removesuffix(".csv").replace("-", "").isalnum()
    assert name.isascii()
    assert len(name) < 100


# --- load -------------------------------------------------------------------------------------------------------------


def test_only_a_few_at_once(api: Api) -> None:
    fill(api.engine, [row(number) for number in range(3 * PORTION)])
    header = {"Authorization": f"Bearer {api.token(TokenRole.ADMIN)}"}
    running = [api.client.get(f"{PATH}.ndjson", headers=header, buffered=False) for _ in range(AT_ONCE)]
    refused = api.get(f"{PATH}.csv")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "30")
    assert refused.json["error"].startswith("exports: ")
    running[0].close()
    assert len(ndjson(api)) == 3 * PORTION, "one that is given up makes room"
    for each in running:
        each.close()
    for _ in range(2 * AT_ONCE):
        with api.client.head(f"{PATH}.csv", headers=header) as head:
            assert head.status_code == 200
        assert api.get(f"{PATH}.csv?level=FATAL").status_code == 400
        assert api.get(f"/api/client-logs/{OTHER}/export.csv").status_code == 404
    assert len(ndjson(api)) == 3 * PORTION


def test_no_transaction_stays_open_between_portions(api: Api) -> None:
    fill(api.engine, [row(number) for number in range(3 * PORTION)])
    header = {"Authorization": f"Bearer {api.token(TokenRole.ADMIN)}"}
    answer = api.client.get(f"{PATH}.ndjson", headers=header, buffered=False)
    lines: Iterator[Any] = iter(answer.response)
    next(lines)
    assert api.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool has it
    with writing(api.engine) as connection:
        # What is deleted meanwhile is no longer there; it holds up nobody.
        connection.execute(delete(ClientLog).where(ClientLog.timestamp < NOW + timedelta(seconds=PORTION)))
    assert b"".join(lines).count(b"\n") == PORTION
    answer.close()


def test_a_database_that_fails_does_not_end_the_file_as_if_it_were_whole(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(api.engine, [row(number) for number in range(2 * PORTION)])
    header = {"Authorization": f"Bearer {api.token(TokenRole.ADMIN)}"}
    answer = api.client.get(f"{PATH}.ndjson", headers=header, buffered=False)
    lines: Iterator[Any] = iter(answer.response)
    next(lines)
    monkeypatch.setattr(log_search, "search", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(lines)
    answer.close()


# --- the real web process ---------------------------------------------------------------------------------------------

ROWS = 100_000
MOST_GROWTH_MB = 30
"""Of the worker's memory over a whole export; the file is some 30 MB."""


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[Server]:
    upgrade(database_url)
    engine = make_engine(database_url)
    add_client(engine)
    context = json.dumps({"text": "x" * 100})
    fill(engine, [row(number / 10, f"record {number}", context=context) for number in range(ROWS)])
    engine.dispose()
    with Server(tmp_path, database_url) as running:
        yield running.start("web")


def ask(server: Server, path: str, token: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode())
    return connection


def worker(server: Server) -> psutil.Process:
    (found,) = server.family()
    return found


def test_a_hundred_thousand_records_in_constant_memory(server: Server, figure: Any) -> None:
    token = server.token("admin")
    for kind in ("ndjson", "csv"):
        # A small one first: what is loaded once is in memory then.
        with ask(server, f"{PATH}.{kind}?until={NOW.isoformat()[:19]}", token) as small:
            assert small.recv(100).startswith(b"HTTP/1.1 200")
        before, most, size, lines = worker(server).memory_info().rss, 0, 0, 0
        tail = b""
        with ask(server, f"{PATH}.{kind}", token) as connection:
            while chunk := connection.recv(1 << 18):
                size += len(chunk)
                lines += chunk.count(b"\n")
                tail = (tail + chunk)[-7:]
                most = max(most, worker(server).memory_info().rss)
        grown = (most - before) / 2**20
        figure(f"export {kind}", f"{size / 1e6:.0f} MB, memory grew by {grown:.1f} MB")
        assert tail == b"\r\n0\r\n\r\n", "it came to its end"
        assert lines >= ROWS
        assert grown < MOST_GROWTH_MB


def test_who_goes_away_ends_the_export(server: Server) -> None:
    """One that downloads, one that searches for what there is not: both make room for others."""
    token = server.token("admin")

    def has_room() -> bool:
        """Whether as many can be opened as there may be; they go away at once."""
        opened = [ask(server, f"{PATH}.ndjson", token) for _ in range(AT_ONCE)]
        heads = [each.recv(12) for each in opened]
        for each in opened:
            each.close()
        return heads == [b"HTTP/1.1 200"] * AT_ONCE

    for _ in range(3):
        wait_for(has_room, "those who left have made room")
        searches = [ask(server, f"{PATH}.ndjson?" + urlencode({"q": "☃ is not there"}), token) for _ in range(AT_ONCE)]
        for each in searches:
            each.close()
