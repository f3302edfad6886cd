"""The System monitor: what is wrong, what comes in, how ingest does."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import insert, update

from infoscreen_server import ingest_figures, issues, live_source
from infoscreen_server.db import writing
from infoscreen_server.models import Client, DeadLetter, IngestStat
from infoscreen_server.models_history import Acknowledgement, IssueCount
from infoscreen_shared.messages import LogLevel
from parts.api import Api
from parts.fleet import NOW, OTHER, UUID, Fleet, batch, item, of_items, uuid_of
from parts.person import Person, text_of
from parts.told import add

EVIL = "<script>alert(1)</script> \u202e {{ 7*7 }}"


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url, debug_mode=True)
    # What counts is of the last 24 hours, which begin where the tables were made.
    running.now = NOW
    yield running
    running.close()


@pytest.fixture
def fleet(api: Api, database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url, migrated=False) as made:
        yield made


def say(fleet: Fleet, *items: object, uuid: str = UUID, level: LogLevel = LogLevel.ERROR) -> None:
    fleet.say(of_items(list(items), level=level), uuid=uuid, now=NOW)


def test_an_empty_server_says_what_it_has_not(root: Person) -> None:
    page = text_of(root.get("/system"))
    for words in ("There are no issues.", "No record has come in yet.", "Nothing was skipped", "There are none."):
        assert words in page


def test_an_issue_is_one_line_and_can_be_acknowledged(root: Person, fleet: Fleet) -> None:
    for uuid in (UUID, OTHER):
        say(fleet, *(item(n, NOW, code="player.crashed", message=f"gone {n}") for n in (1, 2)), uuid=uuid)
    say(fleet, *(item(n, NOW, code="few", message="x") for n in range(3, 8)), level=LogLevel.WARN)
    page = text_of(root.get("/system"))
    assert "player.crashed 2 clients 4 records" in page
    assert "few 1 client" not in page
    issue = {"level": "ERROR", "code": "player.crashed"}
    shown = text_of(root.get("/system/issue?level=ERROR&code=player.crashed"))
    assert shown.count("gone 2") == 2
    root.post("/system/acknowledge", form_at="/system", **issue, note=" ")
    assert "A note of 1 to 500" in text_of(root.get("/system"))
    answer = root.post("/system/acknowledge", form_at="/system", **issue, note=EVIL)
    assert answer.status_code == 303
    page = root.get("/system").text
    assert "<script>alert" not in page
    assert "There are no other issues. 1 acknowledged issue" in text_of(root.get("/system"))
    assert "Acknowledged by root:" in text_of(root.get("/system"))
    say(fleet, item(1, NOW, code="player.crashed"), uuid="2b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a13")
    assert "3 clients" in text_of(root.get("/system"))
    assert "There are no other issues." not in text_of(root.get("/system"))
    root.post("/system/acknowledge", form_at="/system", **issue, note="seen")
    root.post("/system/unacknowledge", form_at="/system", **issue)
    assert "acknowledged issue" not in text_of(root.get("/system"))


@pytest.mark.parametrize("level", ["", "INFO", "x", "\0"])
def test_what_is_no_issue(root: Person, level: str) -> None:
    assert root.get(f"/system/issue?level={level}&code=a").status_code == 404
    assert root.post("/system/acknowledge", form_at="/system", level=level, code="a", note="n").status_code == 400
    assert root.post("/system/unacknowledge", form_at="/system", level=level, code="a").status_code == 400


def lines(root: Person, query: str = "") -> list[str]:
    return re.findall(r'data-field="message">([^<]*)', root.get(f"/system{query}").text.partition("<template")[0])


def test_lines_by_level_text_and_client(root: Person, api: Api, fleet: Fleet) -> None:
    say(fleet, item(1, message="crash"), level=LogLevel.ERROR)
    say(fleet, item(1, message="100%"), level=LogLevel.WARN)
    say(fleet, item(1, message="other"), uuid=OTHER, level=LogLevel.INFO)
    with writing(api.engine) as connection:
        connection.execute(update(Client).where(Client.uuid == OTHER).values(name="Saal <1>"))
    assert lines(root) == ["other", "100%", "crash"]
    assert lines(root, "?level=error") == ["crash"]
    assert lines(root, "?q=%25") == ["100%"]
    assert lines(root, "?client=saal+%3C1%3E") == lines(root, f"?client={OTHER.upper()}") == ["other"]
    with writing(api.engine) as connection:
        connection.execute(update(Client).where(Client.uuid == OTHER).values(name="Österreich-Halle"))
    assert lines(root, "?client=%C3%B6sterreich-HALLE") == ["other"]
    with writing(api.engine) as connection:
        connection.execute(update(Client).where(Client.uuid == UUID).values(hostname="österreich-halle"))
    assert lines(root, "?client=%C3%96sterreich-Halle") == ["other"], "as it stands goes before any case"
    assert lines(root, "?client=%C3%96STERREICH-HALLE") == []
    assert "There are several clients of this name; take the uuid." in root.get("/system?client=ÖSTERREICH-halle").text
    with writing(api.engine) as connection:
        connection.execute(update(Client).where(Client.uuid == OTHER).values(name="Saal <1>"))
    assert lines(root, "?client=nobody") == lines(root, f"?client={uuid_of(99)}") == []
    page = root.get("/system?client=nobody").text
    assert "There is no such client." in page
    assert "data-stream" not in page
    stream = re.search(r'data-stream="([^"]*)"', root.get("/system?client=saal+%3C1%3E&q=a%26b").text)
    assert stream is not None
    assert stream[1].replace("&amp;", "&").startswith(f"/api/stream?q=a%26b&uuid={OTHER}&after=3/")


def test_whatever_a_kiosk_says_is_only_text(root: Person, api: Api, fleet: Fleet) -> None:
    say(fleet, item(1, NOW, message=EVIL, code="<i>", context={EVIL: EVIL}))
    letter = {"client_uuid": None, "topic": EVIL, "received_at": NOW, "reason": EVIL, "payload": EVIL * 100}
    with writing(api.engine) as connection:
        connection.execute(insert(DeadLetter).values(letter))
        connection.execute(insert(IngestStat).values(source="<b>", name="<b>", n=1))
    page = root.get("/system")
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "<i>" not in page.text
    assert "<b>" not in page.text
    assert "{{ 7*7 }}" in page.text
    assert len(page.data) < 200_000


def test_the_page_stays_small(root: Person, fleet: Fleet) -> None:
    """300 issues, and 20 lines as long as they may be."""
    for start in range(0, 300, 10):
        say(fleet, *(item(n + 1, NOW, code=f"{n:064d}", message="ü" * 8000) for n in range(start, start + 10)))
    page = root.get("/system")
    assert "1 to 40 of 200" in text_of(page)
    assert "The first 200 issues are shown." in text_of(page)
    assert len(page.data) < 200_000
    codes = [f"{number:064d}" for number in range(300)]
    for path in ("/system", *(f"/system?page={number}" for number in range(2, 6))):
        shown = root.get(path).text.partition('id="live-title"')[0]
        assert sum(f">{code}<" in shown for code in codes) == 40


def test_who_shows_an_issue_stays_small(root: Person, api: Api) -> None:
    """Of as many clients as are shown, all texts as long as they may be."""
    usual = {"registered_at": NOW, "online": True, "location": "ü" * 100, "hostname": "&" * 255}
    counts = {"level": LogLevel.ERROR, "code": "a", "n": 5, "last_at": api.now, "last_message": "<" * 8000}
    add(api, Client, *[{"uuid": uuid_of(n), **usual} for n in range(issues.MAX_CLIENTS)])
    add(api, IssueCount, *[{"client_uuid": uuid_of(n), **counts} for n in range(issues.MAX_CLIENTS)])
    page = root.get("/system/issue?level=ERROR&code=a")
    assert len(page.data) < 200_000
    assert f"of {issues.MAX_CLIENTS}" in text_of(page)


def test_what_nobody_knows_of_yet_stands_before_what_is_acknowledged(root: Person, fleet: Fleet) -> None:
    """However many those are: else a new one would hide behind them, and the page would say that all is well."""
    known = [f"known.{number}" for number in range(issues.MAX_ISSUES)]
    for uuid in (UUID, OTHER):
        for start in range(0, len(known), 100):
            some = known[start : start + 100]
            say(fleet, *(item(start + n + 1, NOW, code=code) for n, code in enumerate(some)), uuid=uuid)
    with writing(fleet.engine) as connection:
        rows = [{"level": LogLevel.ERROR, "code": code, "note": "n", "given_by": "root"} for code in known]
        clients = json.dumps([UUID, OTHER])
        connection.execute(insert(Acknowledgement), [{**row, "given_at": NOW, "clients": clients} for row in rows])
    assert "There are no other issues. 200 acknowledged issues" in text_of(root.get("/system"))
    say(fleet, *(item(n, NOW, code="new", message="a") for n in range(1, 8)), level=LogLevel.WARN)
    page = text_of(root.get("/system"))
    assert "new 1 client 7 records" in page
    assert "There are no other issues" not in page


def test_a_note_may_have_any_character(root: Person, fleet: Fleet) -> None:
    say(fleet, item(1, NOW, code="a"))
    root.post("/system/acknowledge", form_at="/system", level="ERROR", code="a", note="a\0b")
    assert "1 acknowledged issue" in text_of(root.get("/system"))


def test_figures(root: Person, api: Api, fleet: Fleet) -> None:
    """Rates out of samples, growth in the last hour, the lag of records whose clock is set."""
    with writing(api.engine) as connection:
        connection.execute(insert(IngestStat).values(source="mqtt", name="duplicate", n=5))
    minutes = [NOW - timedelta(minutes=n) for n in (65, 61, 2, 1)]
    seq = 1
    for when, rows in zip(minutes, (100, 500, 60, 120), strict=True):
        ingest_figures.take_sample(api.engine, when)
        fleet.say(batch(range(seq, seq + rows)))
        seq += rows
    fleet.say(
        of_items([item(n, NOW - timedelta(seconds=n), clock="synced") for n in range(1, 101)], epoch="f"), now=NOW
    )
    fleet.run("UPDATE ingest_stats SET n = 12 WHERE name = 'duplicate'")
    with api.engine.connect() as connection:
        found = ingest_figures.figures(connection, NOW)
    assert found.now_rate == (120 + 100) / 60
    assert found.hour_rate == (500 + 60 + 120 + 100) / (61 * 60)
    assert [(when, round(rate * 60, 6)) for when, rate in found.per_minute] == [
        (minutes[1], 25.0),
        (minutes[2], round(500 / 59, 6)),
        (minutes[3], 60.0),
    ]
    assert found.total["mqtt"]["duplicate"] == 12
    assert found.last_hour["mqtt"]["duplicate"] == 7
    assert found.lag == ingest_figures.Lag(50.0, 95.0, 100)
    assert found.database_bytes > 50_000
    page = text_of(root.get("/system"))
    assert "3.7 in the last minute" in page
    assert "half within 50 s, 95 % within 1 min 35 s of the newest 100 records" in page
    assert "MQTT Duplicates skipped 7 12" in page
    assert "at most 1.0" in page


def test_samples_of_a_day_are_kept(api: Api, fleet: Fleet) -> None:
    for hours in (30, 26, 23, 1):
        ingest_figures.take_sample(api.engine, NOW - timedelta(hours=hours))
    assert fleet.one("SELECT count(*) FROM ingest_samples") == 2
    # A clock that was put back leaves no samples from the future behind.
    ingest_figures.take_sample(api.engine, NOW - timedelta(hours=20))
    assert fleet.one("SELECT count(*) FROM ingest_samples") == 2


def test_between_page_and_stream_nothing_is_left_out(api: Api, fleet: Fleet) -> None:
    with api.engine.connect() as connection:
        assert live_source.position(connection) == "0/0"
    fleet.say(batch(range(1, 8)))
    with api.engine.connect() as connection:
        assert live_source.position(connection).startswith("7/")
