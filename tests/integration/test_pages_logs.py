"""The log viewer without a browser: what its addresses ask for, what it shows of the wildest record, and its links."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from sqlalchemy import delete, insert, select
from werkzeug.test import TestResponse

from infoscreen_server import log_search
from infoscreen_server.db import writing
from infoscreen_server.log_search import Effort
from infoscreen_server.models import Client, ClientLog, Counter, Role
from infoscreen_server.models_history import IncidentEvent, IssueCount
from infoscreen_server.queries import Cursor
from infoscreen_shared.messages import MAX_CONTEXT_CHARS, MAX_MESSAGE_CHARS, LogLevel, parse_timestamp, timestamp_text
from parts.api import NOW, OTHER, UUID, Api
from parts.person import Person, text_of, with_user
from parts.told import add

PATH = f"/clients/{UUID}/logs"
MOST_BYTES = 200_000


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    with writing(running.engine) as connection:
        usual = {"registered_at": NOW, "name": None}
        connection.execute(insert(Client), [{"uuid": UUID, "hostname": "kiosk-1", **usual}])
        connection.execute(insert(Client), [{"uuid": OTHER, "hostname": None, **usual}])
        connection.execute(insert(Counter).values(client_uuid=UUID, error=7, warn=1234, info=5))
    yield running
    running.close()


@pytest.fixture
def anna(api: Api) -> Person:
    return with_user(api, "anna", Role.ADMIN)


def row(seconds_ago: float, message: str = "m", **more: Any) -> dict[str, Any]:
    when = NOW - timedelta(seconds=seconds_ago)
    usual: dict[str, Any] = {"client_uuid": UUID, "level": LogLevel.INFO, "timestamp": when, "received_at": when}
    usual |= dict.fromkeys(("code", "context", "device_timestamp", "clock"))
    return usual | {"message": message} | more


def fill(api: Api, *rows: dict[str, Any]) -> list[int]:
    """Returns the ids, in the order of the rows."""
    with writing(api.engine) as connection:
        connection.execute(delete(ClientLog))
        connection.execute(insert(ClientLog), list(rows))
        return list(connection.execute(select(ClientLog.id).order_by(ClientLog.id)).scalars())


def shown(page: TestResponse) -> list[str]:
    """The messages, newest first."""
    found = re.findall(
        r'<li class="log [^"]*" id="log-\d+" data-place="[^"]+">.*?<p class="log-message">(.*?)</p>',
        page.text,
        re.DOTALL,
    )
    return [unescape(re.sub("<[^>]*>", "", each)) for each in found]


def link(page: TestResponse, words: str) -> str:
    found = re.search(rf'<a [^>]*href="([^"]+)"[^>]*>\s*{re.escape(words)}', page.text)
    assert found is not None, f"no link {words}"
    return unescape(found[1])


# --- filters ----------------------------------------------------------------------------------------------------------


def test_filters_are_parts_of_the_address(api: Api, anna: Person) -> None:
    fill(
        api,
        row(10, "ten", level=LogLevel.ERROR, code="a.b"),
        row(4000, "hour", level=LogLevel.WARN, code="a.c"),
        row(90_000, "day", level=LogLevel.INFO, context='{"n":"50 %"}'),
        row(700_000, "week", level=LogLevel.DEBUG),
    )
    since = timestamp_text(NOW - timedelta(seconds=4000))
    asked = {
        "": ["ten", "hour", "day", "week"],
        "level=ERROR": ["ten"],
        "level=error&level=WARN": ["ten", "hour"],
        "level=nonsense": ["ten", "hour", "day", "week"],
        "q=50 %25": ["day"],
        "q=HOUR": ["hour"],
        "q=%25": ["day"],
        "code=a.b": ["ten"],
        "code=a.b,%20a.c": ["ten", "hour"],
        "code=a.b&code=a.c": ["ten", "hour"],
        "range=1h": ["ten"],
        "range=24h": ["ten", "hour"],
        "range=7d": ["ten", "hour", "day"],
        "range=nonsense": ["ten", "hour", "day", "week"],
        f"since={since}": ["ten", "hour"],
        f"since={since}&range=1h": ["ten", "hour"],
        f"until={since}": ["day", "week"],
        "until=2026-06-01T10:53:21": ["hour", "day", "week"],
        "since=2026-06-01T13:00:00%2B02:00": ["ten"],
        "since=2026-06-01T13:00:00+02:00": ["ten"],
        "q=&code=&since=&until=&level=&range=": ["ten", "hour", "day", "week"],
        "q=%00": [],
        "code=%00": [],
        f"q={'x' * 5000}": [],
        f"code={'x' * 5000}": [],
        "before=nonsense": ["ten", "hour", "day", "week"],
        "id=nonsense": ["ten", "hour", "day", "week"],
        "id=0": ["ten", "hour", "day", "week"],
        "since=9999-12-31T23:59:59-23:00": ["ten", "hour", "day", "week"],
    }
    found = {query: shown(anna.get(f"{PATH}?{query}")) for query in asked}
    assert found == asked


def test_what_is_no_time_is_said_and_asks_for_nothing(api: Api, anna: Person) -> None:
    fill(api, row(1))
    page = anna.get(f"{PATH}?since=yesterday&until=2026-06-31")
    assert page.status_code == 200
    assert page.text.count("This is not a time.") == 2
    assert 'id="since-wrong"' in page.text


def test_the_form_shows_what_was_asked_for_in_utc(api: Api, anna: Person) -> None:
    fill(api, row(1))
    page = anna.get(
        f"{PATH}?q=%22a%22&code=x,y&level=WARN&since=2026-06-01T13:00:00.5%2B02:00&until=2026-06-01T11:00:00.5Z"
    )
    for expected in (
        'name="q" type="search" value="&#34;a&#34;"',
        'name="code" value="x, y"',
        'type="hidden" name="level" value="WARN"',
        'value="2026-06-01T11:00:00">',
        'value="2026-06-01T11:00:01">',
    ):
        assert expected in page.text


def test_buttons_keep_the_other_filters_and_tell_the_24_hours(api: Api, anna: Person) -> None:
    fill(api, row(1))
    page = anna.get(f"{PATH}?q=x&code=a.b&range=7d&level=WARN")
    errors = parse_qs(urlsplit(link(page, "Errors")).query)
    assert errors == {"q": ["x"], "code": ["a.b"], "range": ["7d"], "level": ["ERROR"]}
    assert "level" not in link(page, "All")
    assert parse_qs(urlsplit(link(page, "24 hours")).query)["range"] == ["24h"]
    assert "Errors 7 Warnings 1,234 Info 5" in text_of(page)
    assert page.text.count('aria-current="true"') == 2


def test_codes_to_choose_from_are_those_the_client_used(api: Api, anna: Person) -> None:
    fill(api, row(1))
    with writing(api.engine) as connection:
        counted = {"n": 1, "last_at": NOW, "last_message": "m"}
        issue = {"client_uuid": UUID, "level": LogLevel.WARN, **counted}
        connection.execute(insert(IssueCount), [issue | {"code": code} for code in ("b.warn", "<i>", "")])
        connection.execute(insert(IssueCount).values({**issue, "client_uuid": OTHER, "code": "others"}))
        event = {"client_uuid": UUID, "at": NOW, "level": LogLevel.ERROR, "message": "m"}
        connection.execute(insert(IncidentEvent), [event | {"code": code} for code in ("player.started", "b.warn")])
        # These are not of records.
        connection.execute(insert(IncidentEvent), [event | {"code": code} for code in ("told.OK", "thinned.player")])
    page = anna.get(PATH).text
    assert re.findall(r'<option value="([^"]*)"></option>', page) == ["&lt;i&gt;", "b.warn", "player.started"]


# --- pages ------------------------------------------------------------------------------------------------------------


def test_pages_of_twenty_to_the_end_and_back(api: Api, anna: Person) -> None:
    fill(api, *[row(number // 3, str(number), level=list(LogLevel)[number % 3]) for number in range(65)])
    page = anna.get(f"{PATH}?level=ERROR&level=WARN")
    found, sizes = shown(page), [len(shown(page))]
    while "Older" in page.text:
        page = anna.get(link(page, "Older"))
        found += shown(page)
        sizes.append(len(shown(page)))
    assert sizes == [20, 20, 4]
    assert len(set(found)) == len(found) == 44
    assert shown(anna.get(link(page, "Newest"))) == found[:20]


def test_each_record_has_the_place_behind_which_older_ones_begin(api: Api, anna: Person) -> None:
    fill(api, *(row(n // 2, f"m{n}") for n in range(25)))
    page = anna.get(PATH)
    when, number = re.findall(r'data-place="([^"]+)/(\d+)"', page.text)[-1]
    assert Cursor(parse_timestamp(when), int(number)) == Cursor.parse(
        parse_qs(urlsplit(link(page, "Older")).query)["before"][0]
    )


def test_where_there_are_none_older_the_link_is_hidden_until_lines_leave(api: Api, anna: Person) -> None:
    fill(api, row(1), row(2))
    assert re.search(r'<nav class="pager" [^>]* hidden>', anna.get(PATH).text)
    assert "Older" not in anna.get(f"{PATH}?until=2027-01-01").text


def test_a_search_whose_time_was_up_goes_on(api: Api, anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(api, *[row(number, "needle" if number == 29 else "hay") for number in range(30)])
    monkeypatch.setattr(log_search, "Effort", lambda: Effort(seconds=0, rows=10))
    page = anna.get(f"{PATH}?q=needle")
    steps = 0
    while not shown(page):
        assert "Searched back to" in page.text
        assert "No record matches" not in page.text
        page = anna.get(link(page, "Search on"))
        steps += 1
    assert (steps, shown(page)) == (2, ["needle"])
    page = anna.get(link(page, "Search on"))
    assert shown(page) == []
    assert "No record matches" in page.text


def test_a_record_has_an_address_that_always_finds_it(api: Api, anna: Person) -> None:
    ids = fill(api, *[row(number, str(number)) for number in range(100)])
    page = anna.get(f"{PATH}?q=8")
    address = f"{PATH}?id={ids[80]}#log-{ids[80]}"
    assert f'href="{address}"' in page.text
    assert f'data-copy="{address}"' in page.text
    found = anna.get(address.partition("#")[0])
    assert shown(found) == [str(number) for number in range(80, 90)]
    assert f'class="log log-info log-found" id="log-{ids[80]}"' in found.text
    assert "data-stream" not in found.text
    # Of the same moment: this one first.
    ids = fill(api, *[row(5, str(number)) for number in range(30)])
    assert shown(anna.get(f"{PATH}?id={ids[10]}"))[0] == "10"


def test_a_record_that_is_gone_is_said(api: Api, anna: Person) -> None:
    ids = fill(api, row(1), row(2, client_uuid=OTHER))
    for number in (ids[1], ids[1] + 1, 2**63 - 1):
        page = anna.get(f"{PATH}?id={number}")
        assert page.status_code == 404
        assert "This record is not there. Records are kept for 90 days." in text_of(page)
    assert anna.get(f"{PATH}?id={2**63}").status_code == 200


def test_clients_that_there_are_not(api: Api, anna: Person) -> None:
    for uuid in ("33333333-2222-4333-8444-555555555555", "x", "%00", "..%2f.."):
        assert anna.get(f"/clients/{uuid}/logs").status_code == 404
    assert anna.get(f"/clients/{UUID.upper()}/logs").status_code == 200
    assert with_user(api, "otto").get(PATH).status_code == 403


# --- nothing to show --------------------------------------------------------------------------------------------------


def test_without_any_record_it_says_what_comes_first(anna: Person) -> None:
    assert "No record has arrived from this client" in anna.get(PATH).text


def test_where_nothing_matches_each_filter_can_be_taken_away(api: Api, anna: Person) -> None:
    fill(api, row(100_000, "old", level=LogLevel.WARN))
    page = anna.get(f"{PATH}?q=x&code=a.b&level=ERROR&range=1h")
    assert "No record matches" in page.text
    left = {words: set(parse_qs(urlsplit(link(page, words)).query)) for words in (
        "At any time", "Of all levels", "Without the text", "Of any code", "Show all records"
    )}  # fmt: skip
    assert left == {
        "At any time": {"q", "code", "level"},
        "Of all levels": {"q", "code", "range"},
        "Without the text": {"code", "level", "range"},
        "Of any code": {"q", "level", "range"},
        "Show all records": set(),
    }
    assert "Without the text" not in anna.get(f"{PATH}?level=ERROR").text


def test_that_info_is_not_kept_is_said_where_it_matters(database_url: str, api: Api, anna: Person) -> None:
    fill(api, row(1))
    words = "DEBUG_MODE is off"
    assert words in anna.get(PATH).text
    assert words in anna.get(f"{PATH}?level=INFO").text
    assert words not in anna.get(f"{PATH}?level=ERROR").text
    other = Api(database_url, debug_mode=True)
    person = Person(other)
    person.sign_in("anna")
    assert words not in person.get(PATH).text
    other.close()


# --- the wildest records ----------------------------------------------------------------------------------------------

WILD = "<script>alert(1)</script>\"'&\x1b[2J\x00\x9b\u202e\u2066\u200b\u2028\ufeff\r{{ 7*7 }}\U000e0041"
ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f]")


def test_what_kiosks_send_is_shown_and_does_nothing(api: Api, anna: Person) -> None:
    wild = WILD.replace("\x00", "")
    context = json.dumps({wild: [wild, {"x": wild}]}, ensure_ascii=False)
    (number,) = fill(api, row(1, wild, code=wild[:64], context=context, level=LogLevel.ERROR))
    with writing(api.engine) as connection:
        connection.execute(Client.__table__.update().values(hostname=wild))  # type: ignore[attr-defined]
    for path in (PATH, f"{PATH}?id={number}", f"{PATH}?q={quote(WILD)}&code={quote(wild)}&since={quote(WILD)}"):
        page = anna.get(path).text
        assert "<script>alert" not in page
        assert "{{ 7*7 }}" in page or "id=" not in path
        assert ODD.search(re.sub(r"<(title|h1|a|input)\b.*?>[^<]*", "", page)) is None
    page = anna.get(PATH).text
    assert '<span class="odd">\\u202e</span>' in page
    assert '<span class="odd">\\x1b</span>[2J' in page


def test_no_page_is_heavier_than_its_bound(api: Api, anna: Person) -> None:
    for char in ("x", "<", "ü", "\u202e", "☃", "\U0001f600", "\n"):
        huge = char * MAX_MESSAGE_CHARS
        context = json.dumps({"n": char * (MAX_CONTEXT_CHARS // 8)}, ensure_ascii=False)
        ids = fill(api, *[row(number, huge, context=context, code=char * 64) for number in range(25)])
        for path in (PATH, f"{PATH}?id={ids[0]}"):
            page = anna.get(path)
            assert len(page.data) < MOST_BYTES, repr(char)
            assert "the whole record" in page.text
    codes = [{"client_uuid": UUID, "level": LogLevel.INFO, "code": f"&{n:05d}{'&' * 58}", "n": 1} for n in range(3000)]
    add(api, IssueCount, *[{**row, "last_at": NOW, "last_message": ""} for row in codes])
    assert len(anna.get(PATH).data) < MOST_BYTES
    deep: Any = "end"
    for _ in range(99):
        deep = {"n": [deep]}
    (number,) = fill(api, row(1, context=json.dumps(deep)))
    assert len(anna.get(f"{PATH}?id={number}").data) < MOST_BYTES


def test_the_end_of_all_time_can_be_asked_for(api: Api, anna: Person) -> None:
    fill(api, row(1))
    assert anna.get(f"{PATH}?until=9999-12-31T23:59:59.5Z").status_code == 200
    assert anna.get(f"{PATH}?since=0001-01-01T00:00:00Z").status_code == 200


def test_the_whole_record_is_a_click_away(api: Api, anna: Person) -> None:
    ids = fill(api, row(2, "x" * 8000), row(1, "\u202e" * 8000), row(3, "y"))
    assert "x" * 8000 not in anna.get(PATH).text
    assert "x" * 8000 in anna.get(f"{PATH}?id={ids[0]}").text
    page = anna.get(f"{PATH}?id={ids[1]}")
    whole: Any = anna.get(link(page, "the whole record")).json
    logs = whole["logs"]
    assert [(log["id"], len(log["message"])) for log in logs] == [(ids[1], 8000)]


def test_doubts_about_a_time_are_told(api: Api, anna: Person) -> None:
    fill(
        api,
        row(1, clock="synced"),
        row(2, clock="unsynced"),
        row(3, clock="corrected"),
        row(4, device_timestamp=NOW - timedelta(days=9000)),
        row(7000, received_at=NOW),
    )
    text = text_of(anna.get(PATH))
    for expected, times in (
        ("clock not set", 1),
        ("time corrected", 1),
        ("the kiosk said 2001-10-10 12:00:00 UTC", 1),
        ("arrived 1 h 56 min later", 1),
    ):
        assert text.count(expected) == times


# --- links ------------------------------------------------------------------------------------------------------------


def test_exports_and_the_stream_have_the_same_filters(api: Api, anna: Person) -> None:
    fill(api, row(10, "x", level=LogLevel.WARN, code="a.b"), row(90_000, "x", level=LogLevel.WARN, code="a.b"))
    page = anna.get(f"{PATH}?q=x&code=a.b&level=WARN&range=24h")
    for kind in ("CSV", "NDJSON"):
        asked = parse_qs(urlsplit(link(page, kind)).query)
        since = timestamp_text(NOW - timedelta(hours=24))
        assert asked == {"q": ["x"], "code": ["a.b"], "level": ["WARN"], "since": [since]}
    assert len(anna.get(link(page, "NDJSON")).text.splitlines()) == 1
    stream = re.search(r'data-stream="([^"]+)"', page.text)
    assert stream is not None
    asked = parse_qs(urlsplit(unescape(stream[1])).query)
    assert asked.pop("after")
    assert asked == {"uuid": [UUID], "q": ["x"], "code": ["a.b"], "level": ["WARN"], "clients": ["false"]}
    assert "separator" not in link(page, "CSV")
    anna.post("/display", PATH, language="de")
    page = anna.get(PATH)
    assert parse_qs(urlsplit(link(page, "CSV")).query) == {"separator": ["semicolon"]}


def test_what_is_over_is_not_followed(api: Api, anna: Person) -> None:
    fill(api, *[row(number) for number in range(30)])
    assert "data-stream" in anna.get(PATH).text
    assert "data-stream" in anna.get(f"{PATH}?range=1h").text
    assert "data-stream" not in anna.get(f"{PATH}?until=2026-06-01").text
    assert "data-stream" not in anna.get(link(anna.get(PATH), "Older")).text
