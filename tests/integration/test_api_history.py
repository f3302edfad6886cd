"""The routes about what was: shapes as the document says, parameters checked, nothing that a spreadsheet would run."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from infoscreen_server import api_history as routes
from infoscreen_server.db import writing
from infoscreen_server.models import Client, CounterMark, TokenRole
from infoscreen_server.models_history import SpanKind, StateSpan
from infoscreen_server.store import Arrival, Body, Policy, Presence, ingest
from infoscreen_shared.messages import Heartbeat, LogLevel, ProcessStatus, ScreenHealthStatus, timestamp_text
from parts.api import NOW, OTHER, UUID, Api
from parts.fleet import item, of_items

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
HEAD = timedelta(seconds=1)
SUPER = TokenRole.SUPERADMIN


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    with writing(running.engine) as connection:
        connection.execute(update(CounterMark).values(counted_out_to=NOW - 24 * HOUR))
    yield running
    running.close()


def say(api: Api, *bodies: Body, uuid: str = UUID, ago: timedelta = HOUR) -> None:
    ingest(api.engine, [Arrival(uuid, body) for body in bodies], NOW - ago, Policy(), "mqtt")


def crash(seq: int = 1, ago: timedelta = HOUR, code: str = "player.crashed", message: str = "mpv crashed") -> Body:
    return of_items([item(seq, NOW - ago, code=code, message=message)], level=LogLevel.ERROR)


def start(seq: int = 1, ago: timedelta = HOUR) -> Body:
    return of_items([item(seq, NOW - ago, code="player.started")])


def acknowledge(api: Api, body: Any, verb: str = "acknowledge") -> Any:
    headers = {"Authorization": f"Bearer {api.token(SUPER)}", "Content-Type": "application/json"}
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return api.client.post(f"/api/issues/{verb}", headers=headers, data=data)


def test_answers_are_what_the_document_says(api: Api) -> None:
    say(api, Presence(True), ago=10 * HOUR)
    say(api, Heartbeat(UUID, NOW - HOUR, "mpv", 1, ProcessStatus.RUNNING, None, ScreenHealthStatus.OK), crash())
    assert acknowledge(api, {"level": "ERROR", "code": "player.crashed", "note": "known"}).json == {
        "acknowledged": True
    }
    timeline = routes.Timeline.model_validate_json(api.get(f"/api/clients/{UUID}/timeline").data)
    assert [(one.state, one.lasting) for one in timeline.link] == [("online", True)]
    incidents = routes.Incidents.model_validate_json(api.get(f"/api/clients/{UUID}/incidents").data)
    assert [(one.code, one.ended_at) for one in incidents.incidents] == [("player.crashed", None)]
    fleet = routes.Reliability.model_validate_json(api.get("/api/reliability").data)
    assert [(one.uuid, one.incidents, one.down_s, one.observed_s) for one in fleet.clients] == [(UUID, 1, 3600, 36_000)]
    found = routes.Issues.model_validate_json(api.get("/api/issues", SUPER).data)
    assert found.issues[0].acknowledgement is not None
    assert (found.issues[0].acknowledgement.note, found.issues[0].acknowledgement.by) == ("known", "superadmin")


def test_a_timeline_goes_back_as_far_as_is_asked(api: Api) -> None:
    say(api, Presence(True), ago=60 * HOUR)
    for period, hours in (("24h", 24), ("7d", 60), ("30d", 60)):
        answer = api.get(f"/api/clients/{UUID}/timeline?period={period}").json
        assert answer["link"][0]["began_at"] == timestamp_text(NOW - hours * HOUR)
    for wrong in ("90d", "1h", "24H", "%00"):
        assert api.get(f"/api/clients/{UUID}/timeline?period={wrong}").status_code == 400
    assert api.get(f"/api/clients/{OTHER}/timeline").status_code == 404


def test_a_timeline_says_where_its_lengths_are_not_those_of_the_states(api: Api) -> None:
    """More than is drawn one by one: each stretch has the worst of its states, over all of its length."""
    say(api, Presence(True), ago=24 * HOUR)
    told = api.get(f"/api/clients/{UUID}/timeline").json
    assert told["coarse"] == []
    spans = [
        {"client_uuid": UUID, "kind": SpanKind.PROCESS, "state": state, "began_at": began, "ended_at": began + length}
        for n in range(300)
        for state, began, length in (
            ("crashed", NOW - HOUR * 23 + n * 4 * MINUTE, MINUTE),
            ("running", NOW - HOUR * 23 + (n * 4 + 1) * MINUTE, 3 * MINUTE),
        )
    ]
    with writing(api.engine) as connection:
        connection.execute(insert(StateSpan), spans)
    told = api.get(f"/api/clients/{UUID}/timeline").json
    assert told["coarse"] == ["process"]
    assert len(told["process"]) <= 500
    assert len(told["link"]) == 1
    document: Any = api.client.get("/api/openapi.json").json
    described = document["components"]["schemas"]["Timeline"]["properties"]["coarse"]["description"]
    assert "not the lengths of the states" in described


def test_incidents_come_in_pages_and_by_kind(api: Api) -> None:
    say(api, Presence(True), ago=60 * HOUR)
    for n in range(1, 6):
        say(api, crash(n, n * HOUR), start(n, n * HOUR - HEAD))
    say(api, Presence(False), ago=HEAD)
    seen, query = [], ""
    while True:
        answer = api.get(f"/api/clients/{UUID}/incidents?limit=2{query}").json
        seen += [one["began_at"] for one in answer["incidents"]]
        if answer["next"] is None:
            break
        query = f"&before={answer['next']}"
    assert len(seen) == 6
    assert seen == sorted(seen, reverse=True)
    only = api.get(f"/api/clients/{UUID}/incidents?kind=link&kind=screen").json
    assert [one["code"] for one in only["incidents"]] == ["link.offline"]
    assert api.get(f"/api/clients/{UUID}/incidents?kind=all").status_code == 400
    assert api.get(f"/api/clients/{UUID}/incidents?before=x").status_code == 400
    assert api.get(f"/api/clients/{OTHER}/incidents").status_code == 404


def test_the_least_reliable_comes_first(api: Api) -> None:
    third = "22222222-2222-4333-8444-555555555555"
    for uuid in (UUID, OTHER, third):
        say(api, Presence(True), uuid=uuid, ago=10 * HOUR)
    say(api, crash(1, 2 * HOUR), start(1, HOUR), uuid=OTHER, ago=HOUR)
    say(api, crash(1, 2 * HOUR), start(1, 2 * HOUR - HEAD), uuid=third, ago=HOUR)
    say(api, Presence(False), uuid=third, ago=HEAD)
    rows = api.get("/api/reliability?period=24h").json["clients"]
    assert [row["uuid"] for row in rows] == [OTHER, third, UUID]
    assert rows[0]["availability"] == pytest.approx(0.9)
    assert (rows[0]["mttr_s"], rows[0]["mtbf_s"], rows[0]["reachable"]) == (3600, 9 * 3600, 1)
    assert rows[1]["observed_s"] == 9 * 3600, "up to its last word"
    assert rows[1]["reachable"] == pytest.approx(0.9)
    assert (rows[2]["availability"], rows[2]["mtbf_s"], rows[2]["mttr_s"]) == (1, None, None)


def test_a_file_for_spreadsheets_runs_nothing(api: Api) -> None:
    names = ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "\rx", 'a"b,c\nd']
    uuids = [f"{n}2222222-2222-4333-8444-555555555555" for n in range(len(names))]
    for uuid in uuids:
        say(api, Presence(True), uuid=uuid, ago=10 * HOUR)
    with writing(api.engine) as connection:
        for uuid, name in zip(uuids, names, strict=True):
            connection.execute(update(Client).where(Client.uuid == uuid).values(name=name, hostname=name))
    answer = api.get("/api/reliability.csv?period=24h")
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="reliability-24h-20260601T120000Z.csv"'
    assert answer.data.startswith(b"\xef\xbb\xbf")
    found = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"), newline="")))
    assert [row["name"] for row in found] == [f"'{name}" for name in names[:6]] + [names[6]]
    assert [row["availability"] for row in found] == ["1.0"] * 7
    assert not [cell for row in found for cell in row.values() if cell[:1] in {*"=+-@\t\r"} - {""} and cell]


def test_a_spreadsheet_with_decimal_commas_gets_semicolons(api: Api) -> None:
    say(api, Presence(True), ago=10 * HOUR)
    say(api, crash(1, 2 * HOUR), start(1, HOUR), ago=HOUR)
    with writing(api.engine) as connection:
        connection.execute(update(Client).where(Client.uuid == UUID).values(name="a.b;c", hostname="=1"))
    tables = {}
    for query, delimiter in (("", ","), ("&separator=comma", ","), ("&separator=semicolon", ";")):
        text = api.get(f"/api/reliability.csv?period=24h{query}").data.decode("utf-8-sig")
        head, row = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        assert tuple(head) == routes.CSV_COLUMNS
        tables[query] = dict(zip(head, row, strict=True))
    plain, german = tables[""], tables["&separator=semicolon"]
    assert tables["&separator=comma"] == plain
    assert (plain["availability"], plain["down_s"], plain["incidents"]) == ("0.9", "3600.0", "1")
    assert (german["availability"], german["down_s"], german["incidents"]) == ("0,9", "3600,0", "1")
    assert (german["name"], german["hostname"]) == ("a.b;c", "'=1")
    assert api.get("/api/reliability.csv?separator=tab").status_code == 400
    assert api.get("/api/reliability?separator=semicolon").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"level": "ERROR", "code": "player.crashed"},
        {"level": "ERROR", "code": "player.crashed", "note": ""},
        {"level": "ERROR", "code": "player.crashed", "note": "   "},
        {"level": "ERROR", "code": "player.crashed", "note": "x" * 501},
        {"level": "ERROR", "code": "x" * 65, "note": "x"},
        {"level": "INFO", "code": "player.crashed", "note": "x"},
        {"level": "ERROR", "code": None, "note": "x"},
        {"level": "ERROR", "code": "player.crashed", "note": "x", "by": "somebody else"},
        [],
        "no json",
        b"\xff",
        "[" * 5000,
    ],
)
def test_a_body_that_is_wrong_is_refused(api: Api, body: Any) -> None:
    say(api, crash())
    answer = acknowledge(api, body)
    assert answer.status_code == 400
    assert "error" in answer.json
    assert api.get("/api/issues", SUPER).json["issues"][0]["acknowledgement"] is None


def test_text_that_no_database_takes_is_mended(api: Api) -> None:
    say(api, crash())
    assert acknowledge(api, {"level": "ERROR", "code": "a\0b", "note": "x"}).status_code == 404
    assert acknowledge(api, {"level": "ERROR", "code": "player.crashed", "note": "x" * 500}).status_code == 200
    assert acknowledge(api, {"level": "ERROR", "code": "player.crashed", "note": "a\0\ud800"}).status_code == 200
    assert api.get("/api/issues", SUPER).json["issues"][0]["acknowledgement"]["note"] == "a\ufffd\ufffd"


def test_issues_without_a_code_can_be_acknowledged(api: Api) -> None:
    say(api, of_items([item(1, NOW - HOUR)], level=LogLevel.ERROR))
    assert acknowledge(api, {"level": "ERROR", "note": "known"}).status_code == 200
    assert acknowledge(api, {"level": "WARN", "note": "known"}).status_code == 404


def test_an_acknowledgement_can_be_taken_back(api: Api) -> None:
    say(api, crash())
    issue = {"level": "ERROR", "code": "player.crashed"}
    assert acknowledge(api, issue, "unacknowledge").status_code == 404
    assert acknowledge(api, {**issue, "note": "known"}).status_code == 200
    assert acknowledge(api, {**issue, "note": "known"}, "unacknowledge").status_code == 400
    assert acknowledge(api, issue, "unacknowledge").json == {"acknowledged": False}
    assert api.get("/api/issues", SUPER).json["issues"][0]["acknowledgement"] is None


def test_no_answer_reads_the_log(api: Api) -> None:
    say(api, Presence(True), crash(), start())
    statements: list[str] = []
    event.listen(api.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for path in (f"/api/clients/{UUID}/timeline", f"/api/clients/{UUID}/incidents", "/api/reliability", "/api/issues"):
        assert api.get(path, SUPER).status_code == 200
    assert len(statements) > 4
    assert not [statement for statement in statements if "client_logs" in statement]
