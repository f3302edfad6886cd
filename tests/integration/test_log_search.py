import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, insert, select, text

from infoscreen_server import log_search
from infoscreen_server.db import is_sqlite, writing
from infoscreen_server.log_search import Effort, Filter, LogPage, folded, search
from infoscreen_server.models import Client, ClientLog
from infoscreen_server.queries import Cursor
from infoscreen_shared.messages import LogLevel, timestamp_text
from parts.api import Api
from parts.fleet import OTHER, UUID, Fleet

NOW = datetime.fromisoformat("2026-06-01T12:00:00+00:00")
ONE_STEP = Effort(seconds=0.0, rows=1)
"""Every page ends after the first portion of one row a level."""


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as running:
        with writing(running.engine) as connection:
            clients = [{"uuid": uuid, "registered_at": NOW, "online": False} for uuid in (UUID, OTHER)]
            connection.execute(insert(Client), clients)
        yield running


def row(second: int, message: str = "", **more: Any) -> dict[str, Any]:
    when = NOW + timedelta(seconds=second)
    usual = {"client_uuid": UUID, "level": LogLevel.INFO, "code": None, "context": None, "received_at": NOW}
    return usual | {"timestamp": when, "message": message} | more


def fill(fleet: Fleet, rows: Sequence[dict[str, Any]]) -> None:
    with writing(fleet.engine) as connection:
        connection.execute(delete(ClientLog))
        if rows:
            connection.execute(insert(ClientLog), rows)


def page(fleet: Fleet, limit: int = 50, **wanted: Any) -> LogPage:
    with fleet.engine.connect() as connection:
        return search(connection, UUID, limit=limit, **wanted)


def messages(fleet: Fleet, **wanted: Any) -> list[str]:
    return [log["message"] for log in page(fleet, **wanted).logs]


def pages(fleet: Fleet, limit: int, **wanted: Any) -> Iterator[LogPage]:
    before = None
    while True:
        found = page(fleet, limit, before=before, **wanted)
        yield found
        if found.following is None:
            return
        assert before is None or found.following < before
        before = found.following


# --- against a filter that reads everything ---------------------------------------------------------------------------

LETTERS = "aAsSßẞöÖk1 %_!\\\"'/.\n\u0000\u017f\u212a☃"
WORDS = st.text(LETTERS, max_size=5)
STORED = WORDS.map(lambda word: word.replace("\0", ""))
CODES = ("a.b", "a.s", "s%")
TIMES = st.integers(0, 6)
LEVELS = st.sets(st.sampled_from(LogLevel))


@dataclass(frozen=True)
class Wanted:
    levels: set[LogLevel]
    codes: set[str]
    text: str
    since: datetime | None
    until: datetime | None
    before: Cursor | None

    def met_by(self, one: Any) -> bool:
        return (
            (not self.levels or one.level in self.levels)
            and (not self.codes or one.code in self.codes)
            and (self.since is None or one.timestamp >= self.since)
            and (self.until is None or one.timestamp < self.until)
            and (self.before is None or (one.timestamp, one.id) < self.before)
            and any(plain(self.text) in plain(field) for field in fields(one))
        )


def fields(one: Any) -> list[str]:
    """What a person may read of a record: the context as it is kept, and each text in it."""
    texts = [] if one.context is None else [one.context, *json.loads(one.context).values()]
    return [one.message, one.code or "", *texts]


def plain(text: str) -> str:
    """Case without the letters that `folded` leaves alone."""
    return text.translate({0: 0xFFFD, 0x17F: 1, 0x212A: 2}).casefold()


def moment(second: int) -> datetime:
    return NOW + timedelta(seconds=second)


LOG = st.lists(
    st.builds(
        lambda second, message, level, code, note, uuid: row(
            second,
            message,
            level=level,
            code=code,
            context=None if note is None else json.dumps({"n": note}, ensure_ascii=False, separators=(",", ":")),
            client_uuid=uuid,
        ),
        TIMES,
        STORED,
        st.sampled_from(LogLevel),
        st.sampled_from([None, *CODES]),
        st.none() | STORED,
        st.sampled_from([UUID, UUID, UUID, OTHER]),
    ),
    max_size=30,
)
WANTED = st.builds(
    Wanted,
    LEVELS,
    st.sets(st.sampled_from([*CODES, "none"]), max_size=2),
    WORDS | st.just(""),
    st.none() | TIMES.map(moment),
    st.none() | TIMES.map(moment),
    st.none() | st.builds(Cursor, TIMES.map(moment), st.integers(1, 1000)),
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(LOG, WANTED, st.integers(1, 7), st.sampled_from([ONE_STEP, Effort(rows=3), Effort()]))
def test_pages_have_all_that_a_filter_over_everything_finds(
    fleet: Fleet, rows: list[dict[str, Any]], wanted: Wanted, limit: int, effort: Effort
) -> None:
    fill(fleet, rows)
    with fleet.engine.connect() as connection:
        newest_first = select(ClientLog).order_by(ClientLog.timestamp.desc(), ClientLog.id.desc())
        everything = connection.execute(newest_first.where(ClientLog.client_uuid == UUID)).all()
    if wanted.before is not None:
        # A place is a row that was seen: ids begin anew in no database.
        first = min((one.id for one in everything), default=1)
        wanted = replace(wanted, before=Cursor(wanted.before.timestamp, first + wanted.before.id % 31))
    expected = [one.id for one in everything if wanted.met_by(one)]
    found: list[int] = []
    before = wanted.before
    for _ in range(len(everything) + 2):
        got = page(
            fleet,
            limit,
            levels=wanted.levels,
            codes=wanted.codes,
            text=wanted.text,
            since=wanted.since,
            until=wanted.until,
            before=before,
            effort=effort,
        )
        assert len(got.logs) <= limit
        assert len(got.logs) == limit or got.following is None or got.searched_to == got.following.timestamp
        found += [log["id"] for log in got.logs]
        before = got.following
        if before is None:
            break
    assert before is None, "it ends"
    assert found == expected


# --- text -------------------------------------------------------------------------------------------------------------


def test_text_is_compared_without_case_in_message_code_and_context(fleet: Fleet) -> None:
    fill(
        fleet,
        [
            row(1, "Die STÖRUNG ist behoben"),
            row(2, "x", code="stoerung.Störung"),
            row(3, "x", context='{"grund":"störung am Gerät"}'),
            row(4, "Storung"),
            row(5, "Störu ng"),
        ],
    )
    for asked in ("störung", "STÖRUNG", "Störung"):
        assert [log["id"] for log in page(fleet, text=asked).logs] == [
            log["id"] for log in page(fleet).logs if log["timestamp"] <= timestamp_text(moment(3))
        ]


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("Hauptstraße 5", "HAUPTSTRASSE"),
        ("Hauptstraße 5", "hauptstraße 5"),
        ("HAUPTSTRASSE 5", "straße"),
        ("Hauptstraße 5", "Hauptstras"),
        ("Straßenbahn", "senbahn"),
        ("GRÖẞE", "grösse"),
        ("naïve", "NAÏVE"),
        ("ΟΔΟΣ", "οδος"),
        ("☃ in Zürich", "☃ IN ZÜR"),
        ("50% of it", "50% o"),
        ("a_b", "A_B"),
        ("C:\\Temp\\x", "c:\\temp\\"),
        ("wow!", "!"),
        ('it\'s "fine"', '\'s "FINE"'),
        ("two\nlines", "two\nlines"),
    ],
)
def test_found(fleet: Fleet, message: str, asked: str) -> None:
    with_context = row(4, "x", context=json.dumps({"n": [message]}, ensure_ascii=False))
    fill(fleet, [row(1, message), row(2, "else"), with_context])
    assert messages(fleet, text=asked) == ["x", message]


@pytest.mark.parametrize("asked", ["%", "_", "a%c", "a_c", "a%", "\\%", "!", "[a-c]", "*", "?", "\0", "'"])
def test_wildcards_mean_nothing(fleet: Fleet, asked: str) -> None:
    fill(fleet, [row(1, "abc", code="abc", context='{"abc":"abc"}')])
    assert messages(fleet, text=asked) == []


def test_a_code_with_nul_is_no_code(fleet: Fleet) -> None:
    fill(fleet, [row(1, "m", code="a")])
    assert messages(fleet, codes=["a\0"]) == []


def test_long_texts_of_wildcards_end_soon(fleet: Fleet) -> None:
    fill(fleet, [row(number, "aä" * 4000) for number in range(20)])
    assert messages(fleet, text="aä" * 99 + "b") == []
    assert len(messages(fleet, text="aÄ" * 100)) == 20


def test_all_that_folds_to_ascii_is_known() -> None:
    """The database is asked for the ASCII part: a letter beyond ASCII may become none but ss."""
    unknown = {chr(code) for code in range(128, 0x110000) if any(each < "\x80" for each in folded(chr(code)))}
    assert unknown == {"ß", "ẞ"}


def test_the_database_sorts_out_by_the_sure_part(fleet: Fleet) -> None:
    """What makes a search fast is that what cannot match never leaves the database."""
    fill(fleet, [row(number, "Größe" if number % 10 else "100 % Störung_im Gerät") for number in range(200)])
    for asked, passed in (("gerät", 20), ("GERÄT", 20), ("_im", 20), ("t_r", 0), ("100 %", 20), ("1%0", 0), ("!", 0)):
        with fleet.engine.connect() as connection:
            statement = select(ClientLog).where(*Filter(text=asked).conditions(connection))
            assert (asked, len(connection.execute(statement).all())) == (asked, passed)


# --- the bound on its work --------------------------------------------------------------------------------------------


def test_a_search_without_time_says_how_far_it_came(fleet: Fleet) -> None:
    fill(fleet, [row(1, "needle"), *[row(number, "hay") for number in range(2, 32)]])
    found = page(fleet, text="needle", effort=Effort(seconds=0, rows=10))
    assert (found.logs, found.searched_to) == ([], moment(22))
    assert found.following is not None
    following = list(pages(fleet, 5, text="needle", effort=Effort(seconds=0, rows=10)))
    assert [len(each.logs) for each in following] == [0, 0, 0, 1]
    assert [each.searched_to for each in following] == [moment(22), moment(12), moment(2), None]


def test_one_search_goes_on_while_it_has_time(fleet: Fleet) -> None:
    fill(fleet, [row(1, "needle"), *[row(number, "hay") for number in range(2, 2000)]])
    found = page(fleet, text="needle", effort=Effort(seconds=60, rows=2))
    assert [log["message"] for log in found.logs] == ["needle"]
    assert (found.following, found.searched_to) == (None, None)


def test_no_portion_is_begun_that_would_end_after_its_time(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk: each portion takes 0.08 s, and so does whatever else is between two looks at the clock."""
    fill(fleet, [row(number, "hay") for number in range(20)])
    clock = count(start=1000)
    slow = SimpleNamespace(monotonic=lambda: next(clock) * 0.08, sleep=time.sleep)
    monkeypatch.setattr(log_search, "time", slow)
    found = page(fleet, text="needle", effort=Effort(seconds=0.35, rows=2))
    assert found.searched_to == moment(16), "two portions of two; after the third it would be 0.40 s"


def test_portions_grow(fleet: Fleet) -> None:
    fill(fleet, [row(number, "hay") for number in range(3000)])
    statements: list[str] = []
    event.listen(fleet.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert messages(fleet, text="needle", effort=Effort(seconds=60, rows=2)) == []
    assert 10 < len(statements) < 100, "about twice log2(1500)"


@pytest.mark.parametrize(("asked", "most"), [("gerät", 21), ("Straße", 21), ("ß", 21), ("straßes", 500)])
def test_no_more_rows_are_fetched_than_a_page_has(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, asked: str, most: int
) -> None:
    """Also where the database cannot tell what matches: all here have "tra", and none has "strasses"."""
    fill(fleet, [row(number, "Straße, Gerät") for number in range(500)])
    seen: list[int] = []
    matches = Filter.matches

    def noted(wanted: Filter, one: Any) -> bool:
        seen.append(one.id)
        return matches(wanted, one)

    monkeypatch.setattr(Filter, "matches", noted)
    page(fleet, 20, text=asked, effort=Effort(seconds=60, rows=500))
    assert (len(seen), len(set(seen))) == (most, most)


def test_an_error_is_found_without_passing_the_rest(fleet: Fleet) -> None:
    """A level has a walk of its own: as many portions as it has rows itself."""
    errors = [row(number * 100, "disk full", level=LogLevel.ERROR) for number in range(5)]
    fill(fleet, [*errors, *[row(number, "hay") for number in range(500)]])
    found = page(fleet, levels=[LogLevel.ERROR], text="disk", effort=Effort(seconds=0, rows=10))
    assert (len(found.logs), found.following) == (5, None)


def test_a_portion_is_bounded_for_every_level(fleet: Fleet) -> None:
    """Where one level is rare and another is not, the portion does not reach as far as that of the rare one."""
    fill(fleet, [row(number, "hay", level=LogLevel.INFO if number % 100 else LogLevel.ERROR) for number in range(999)])
    found = page(fleet, levels=[LogLevel.ERROR, LogLevel.INFO], text="x", effort=Effort(seconds=0, rows=5))
    assert found.searched_to == moment(994)


def test_rows_that_share_a_time_are_neither_lost_nor_doubled(fleet: Fleet) -> None:
    fill(fleet, [row(number // 40, str(number), level=list(LogLevel)[number % 4]) for number in range(400)])
    for levels in ([], [LogLevel.ERROR, LogLevel.INFO, LogLevel.WARN]):
        for wanted in ({}, {"text": "1"}, {"text": "1", "effort": ONE_STEP}):
            everything = messages(fleet, limit=500, levels=levels, **{k: v for k, v in wanted.items() if k == "text"})
            in_pages = [log["message"] for each in pages(fleet, 7, levels=levels, **wanted) for log in each.logs]
            assert in_pages == everything
            assert len(set(in_pages)) == len(in_pages) > 90


def test_postgresql_gives_up_one_statement_and_no_other(fleet: Fleet) -> None:
    if is_sqlite(fleet.engine):
        return  # It has no such limit; portions are all there is.
    fill(fleet, [row(1, "x")])
    with fleet.engine.connect() as connection:
        search(connection, UUID, text="x", limit=1)
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "2s"
        connection.rollback()
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "0"


# --- as the API gives it ----------------------------------------------------------------------------------------------

LOGS = f"/api/client-logs/{UUID}/logs"


@pytest.fixture
def api(fleet: Fleet) -> Iterator[Api]:
    running = Api(fleet.url)
    running.now = NOW
    yield running
    running.close()


def test_api_parameters(fleet: Fleet, api: Api) -> None:
    fill(fleet, [row(1, "50 %", code="a.b"), row(2, "500", code="a.c"), row(3, "x", context='{"n":"50 %"}')])
    asked = {
        "q=50%20%25": ["x", "50 %"],
        "q=50": ["x", "500", "50 %"],
        "q=%00": [],
        "q=": ["x", "500", "50 %"],
        "code=a.b&code=a.c": ["500", "50 %"],
        "code=": ["x", "500", "50 %"],
        "code=%00": [],
        "until=2026-06-01T12:00:02Z": ["50 %"],
        "until=2026-06-01T12:00:02Z&since=2026-06-01T12:00:02Z": [],
        "until=0001-01-01": [],
        "until=9999-12-31&q=x": ["x"],
    }
    found = {query: [log["message"] for log in api.get(f"{LOGS}?{query}").json["logs"]] for query in asked}
    assert found == asked
    for query in (f"q={'x' * 201}", f"code={'x' * 65}", "&".join(["code=x"] * 21), "until=ZZZ"):
        answer = api.get(f"{LOGS}?{query}")
        assert (answer.status_code, answer.json["error"].partition(":")[0]) == (400, query.partition("=")[0])


def test_the_api_says_where_a_search_stopped(fleet: Fleet, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(fleet, [row(1, "needle"), *[row(number, "hay") for number in range(2, 32)]])
    monkeypatch.setattr(log_search, "Effort", lambda: Effort(seconds=0, rows=10))
    answer = api.get(f"{LOGS}?q=needle").json
    assert (answer["logs"], answer["count"], answer["searched_to"]) == ([], 0, timestamp_text(moment(22)))
    for _ in range(3):
        answer = api.get(f"{LOGS}?q=needle&before={answer['next']}").json
    assert ([log["message"] for log in answer["logs"]], answer["next"]) == (["needle"], None)
    assert "searched_to" not in answer
