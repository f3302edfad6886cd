"""Records into rows: what no database takes is made storable, what is too long is cut, and nothing gets lost unsaid."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infoscreen_server.ledger import SectionKey
from infoscreen_server.persist import _copy_text
from infoscreen_server.rows import CUT, MAX_DEPTH, Row, bounds, context_text, count_after, day_counts, rows_of
from infoscreen_shared.messages import (
    MAX_CONTEXT_CHARS,
    MAX_MESSAGE_CHARS,
    Clock,
    LogLevel,
    Record,
    decode_logs,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WITHIN = bounds(NOW, timedelta(days=90))


def row(record: Record) -> Row:
    rows, _times, cuts = rows_of([record], WITHIN, False)
    assert not cuts
    return rows[0]


def record(when: datetime = NOW, message: str = "m", context: dict[str, Any] | None = None) -> Record:
    return Record(when, message, context or {})


def test_a_plain_record_is_a_plain_row() -> None:
    full = Record(NOW, "up", {"pid": 7, "ü": "ß"}, "player.started", "e", 3, "b", Clock.SYNCED)
    assert row(full) == ("2026-06-01T12:00:00.000000Z", None, "player.started", "up", '{"pid":7,"ü":"ß"}', 3, "synced")
    assert type(row(full)[6]) is str, "a class made from str binds far slower"
    assert row(record())[4] is None, "an empty context costs nothing"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), WITHIN.low),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), WITHIN.high),
        (datetime(1, 1, 1, tzinfo=UTC), WITHIN.low),
    ],
)
def test_times_beyond_belief_are_pulled_in_and_kept_beside(said: datetime, kept: datetime) -> None:
    found = row(record(said))
    assert datetime.fromisoformat(found[0]) == kept
    assert found[1] is not None
    assert datetime.fromisoformat(found[1]) == said


def test_times_at_the_bounds_stay() -> None:
    assert row(record(WITHIN.low))[1] is None
    assert row(record(WITHIN.high))[1] is None


def test_a_long_message_is_cut_with_a_mark_and_kept_for_the_dead_letters() -> None:
    long = "x" * (MAX_MESSAGE_CHARS + 1)
    rows, _times, cuts = rows_of([record(message=long)], WITHIN, False)
    assert len(rows[0][3]) == MAX_MESSAGE_CHARS
    assert rows[0][3].endswith(CUT)
    assert [cut.original for cut in cuts] == [long]
    assert not rows_of([record(message=long[1:])], WITHIN, False)[2], "the bound itself still fits"


def test_a_long_context_is_cut_and_is_json_still() -> None:
    rows, _times, cuts = rows_of([record(context={"text": "y" * MAX_CONTEXT_CHARS})], WITHIN, False)
    assert json.loads(rows[0][4] or "")["truncated"].endswith(CUT)
    assert len(cuts) == 1


@pytest.mark.parametrize(
    "context",
    [
        {"nul": "a\0b", "key\0": 1},
        {"lone": "\ud800", "\udfff": [1, {"deep": "\udc00"}]},
        {"beyond": 1e999, "below": [-1e999]},
        {"both": ["\0\ud800", 1e999]},
    ],
)
def test_what_no_database_takes_is_gone_from_the_context(context: dict[str, Any]) -> None:
    text = row(record(context=context))[4]
    assert text is not None
    text.encode()
    assert "\0" not in text
    found = json.loads(text, parse_constant=pytest.fail)
    assert "\0" not in repr(found)
    assert len(found) == len(context)


def test_an_escaped_backslash_before_u0000_is_not_a_nul() -> None:
    text = row(record(context={"path": "C:\\u0000x"}))[4]
    assert json.loads(text or "") == {"path": "C:\\u0000x"}


def nested(levels: int, core: object) -> dict[str, Any]:
    deep: Any = core
    for level in range(levels):
        deep = {"d": deep} if level % 2 or level == levels - 1 else [deep]
    assert isinstance(deep, dict)
    return deep


@pytest.mark.parametrize("core", [1, float("inf"), "\0", "\ud800"])
@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 500, 960, 100_000])
def test_nesting_beyond_sense_is_cut_and_said(levels: int, core: object) -> None:
    """Whoever reads it back may have less of the stack left than we have."""
    (found,), _times, (cut,) = rows_of([record(context=nested(levels, core))], WITHIN, False)
    assert list(json.loads(found[4] or "")) == ["truncated"]
    assert cut.reason == "context: nested deeper than 100 levels"
    assert cut.original.startswith('{"d":')
    assert context_text(nested(levels, core)).count("{") <= MAX_DEPTH


def test_nesting_up_to_the_bound_stays() -> None:
    assert json.loads(row(record(context=nested(MAX_DEPTH, 1)))[4] or "") == nested(MAX_DEPTH, 1)
    wide = {"many": [[number] for number in range(300)]}
    assert json.loads(row(record(context=wide))[4] or "") == wide


def test_only_coded_ones_where_only_those_are_wanted() -> None:
    rows, times, _cuts = rows_of([record(), Record(NOW, "c", {}, "a.b"), record()], WITHIN, True)
    assert [each[3] for each in rows] == ["c"]
    assert len(times) == 1


def test_counts_by_day_and_after_the_mark() -> None:
    times = [NOW, NOW + timedelta(hours=11), NOW + timedelta(hours=12)]
    assert day_counts(times) == {"2026-06-01": 2, "2026-06-02": 1}
    assert count_after(times, NOW) == 2
    assert count_after(times, NOW - timedelta(seconds=1)) == 3


def test_copy_text_escapes_what_has_a_meaning() -> None:
    hostile: Row = ("t", None, None, "a\tb\nc\\d\r\\N", '{"k":"\\\\n"}', None, None)
    text = _copy_text({SectionKey("u", LogLevel.INFO, None): [hostile]}, "r")
    assert text.count("\n") == 1, "one line for one row"
    assert text.rstrip("\n").split("\t") == [
        "u", "r", "INFO", "\\N", "t", "\\N", "\\N", "a\\tb\\nc\\\\d\\r\\\\N", '{"k":"\\\\\\\\n"}', "\\N", "\\N",
    ]  # fmt: skip


def test_the_place_gives_the_number_where_a_record_has_none() -> None:
    payload = b'{"epoch":"e","base":0,"records":[{"timestamp":"2026-06-01T12:00:00Z","message":"a","seq":4},7,'
    payload += b'{"timestamp":"2026-06-01T12:00:00Z","message":"c"}]}'
    batch = decode_logs(LogLevel.WARN, payload)
    assert (batch.first, batch.last) == (4, 6)
    assert [each.seq for each in batch.records] == [4, 6]
    assert [each.seq for each in batch.rejected] == [5]


def test_a_numbered_record_alone_claims_no_gap() -> None:
    batch = decode_logs(LogLevel.WARN, b'{"timestamp":"2026-06-01T12:00:00Z","message":"a","epoch":"e","seq":9}')
    assert (batch.first, batch.base) == (9, 0)
