"""What the store promises, on SQLite and PostgreSQL: once, in order, accounted for, nobody held up by a bad datum."""

import dataclasses
import json
import random
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from infoscreen_server.incoming import arrival_of
from infoscreen_server.store import Arrival, Policy, Presence, Refused, ingest
from infoscreen_shared.messages import (
    MAX_MESSAGE_CHARS,
    Ack,
    EventType,
    Health,
    Heartbeat,
    Hello,
    LaneSpan,
    LogLevel,
    ProcessStatus,
    ScreenHealthStatus,
    Wanted,
    decode_logs,
)
from parts.fleet import ALL, NOW, OTHER, UUID, Fleet, batch, hours, item, of_items, uuid_of
from parts.fuzz import MESSAGES
from parts.together import together

USUAL = Policy()
INFO, WARN = LogLevel.INFO, LogLevel.WARN


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as made:
        yield made


# --- once, in order, accounted for ------------------------------------------------------------------------------------


def test_a_batch_is_stored_once_and_acknowledged_each_time(fleet: Fleet) -> None:
    assert fleet.cursor(batch(range(1, 4))) == 3
    assert fleet.cursor(batch(range(1, 4))) == 3
    assert fleet.cursor(batch(range(2, 6))) == 5
    assert fleet.messages() == ["m1", "m2", "m3", "m4", "m5"]
    assert fleet.account() == (5, 5, 0, 0, 0)
    assert fleet.stats() == {"duplicate": 5}


def test_many_batches_in_one_call_are_one_answer(fleet: Fleet) -> None:
    acks = fleet.say(
        batch([1, 2]), batch([1], level=WARN), batch([3]), batch([1], epoch="older"), batch([2], level=WARN)
    )
    assert acks == [(UUID, Ack("e", {INFO: 3, WARN: 2})), (UUID, Ack("older", {INFO: 1}))]


def test_a_row_has_all_that_the_record_said(fleet: Fleet) -> None:
    fleet.say(of_items([item(1, code="player.started", boot_id="b1", clock="corrected", context={"ü": [1, None]})]))
    columns = "client_uuid, level, code, message, context, seq, clock, device_timestamp"
    assert fleet.rows(f"SELECT {columns} FROM client_logs") == [
        (UUID, "INFO", "player.started", "m1", '{"ü":[1,null]}', 1, "corrected", None)
    ]
    assert fleet.rows("SELECT boot_id FROM lanes") == ["b1"]


def test_a_hole_is_refused_unless_it_is_declared(fleet: Fleet) -> None:
    assert fleet.cursor(batch([1, 2])) == 2
    assert fleet.cursor(batch([5, 6], base=3)) == 2
    assert fleet.cursor(batch([5, 6], base=4)) == 6
    assert fleet.rows("SELECT first, last FROM gaps") == [(3, 4)]
    assert fleet.account() == (6, 4, 0, 0, 2)
    assert fleet.stats() == {"out_of_order": 1}


def test_hello_declares_a_gap_and_never_lowers_a_cursor(fleet: Fleet) -> None:
    fleet.say(batch([1, 2]))
    hello = Hello("e", {INFO: LaneSpan(10, 14), WARN: LaneSpan(0, 1)}, "1.2")
    assert fleet.say(hello, policy=USUAL) == [
        (UUID, Ack("e", {INFO: 10, WARN: 0}, {INFO: Wanted.CODED, WARN: Wanted.ALL, LogLevel.ERROR: Wanted.ALL,
                                              LogLevel.DEBUG: Wanted.NONE}))
    ]  # fmt: skip
    assert fleet.cursor(Hello("e", {INFO: LaneSpan(4, 14)}, "")) == 10
    assert fleet.account() == (10, 2, 0, 0, 8)
    assert fleet.one("SELECT version FROM clients") is None, "a hello without a version says that it is not known"


def test_what_is_not_wanted_is_accounted_for_and_not_stored(fleet: Fleet) -> None:
    mixed = of_items([item(1), item(2, code="x.y"), item(3)])
    assert fleet.cursor(mixed, policy=USUAL) == 3
    assert fleet.cursor(batch([1, 2], level=LogLevel.DEBUG), policy=USUAL, level=LogLevel.DEBUG) == 2
    assert fleet.cursor(batch([1], level=WARN), policy=USUAL, level=WARN) == 1
    assert fleet.messages() == ["m2", "m1"]
    assert fleet.account() == (6, 2, 4, 0, 0)


def test_debug_mode_stores_all(fleet: Fleet) -> None:
    fleet.say(batch([1, 2]), batch([1, 2], level=LogLevel.DEBUG), policy=ALL)
    assert fleet.account() == (4, 4, 0, 0, 0)


def test_records_without_numbers_are_stored_each_time_and_not_acknowledged(fleet: Fleet) -> None:
    foreign = decode_logs(WARN, b'{"timestamp":"2026-01-02T03:04:05","message":"plain","context":{}}')
    assert fleet.say(foreign, policy=USUAL) == []
    assert fleet.say(foreign, policy=USUAL) == []
    assert fleet.rows("SELECT message, lane_id, seq FROM client_logs") == [("plain", None, None)] * 2


def test_a_record_that_cannot_be_decoded_is_a_dead_letter_with_its_number(fleet: Fleet) -> None:
    broken = of_items([item(1), {"seq": 2, "message": 7}, item(3), "no record"])
    assert fleet.cursor(broken) == 4
    assert fleet.messages() == ["m1", "m3"]
    assert fleet.account() == (4, 2, 0, 2, 0)
    assert fleet.rows("SELECT seq, lane_id, payload FROM dead_letters ORDER BY seq") == [
        (2, 1, '{"seq":2,"message":7}'),
        (4, 1, '"no record"'),
    ]
    assert fleet.cursor(broken) == 4
    assert len(fleet.rows("SELECT 1 FROM dead_letters")) == 2


@pytest.mark.parametrize(
    "text", ["a\tb", "line\n\\.\nline", "\\N", "C:\\dir\\t", "'; DROP TABLE x; --", "ü€😀", "", "\r"]
)
def test_texts_come_back_as_they_were(fleet: Fleet, text: str) -> None:
    fleet.say(of_items([item(1, message=text, code="x\ty", context={"text": text})]))
    assert fleet.messages() == [text]
    assert fleet.rows("SELECT code FROM client_logs") == ["x\ty"]


def test_nul_and_lone_surrogates_are_replaced(fleet: Fleet) -> None:
    fleet.say(of_items([item(1, message="a\0b\ud800", context={"k\0": "\udc00"})]))
    assert fleet.messages() == ["a\ufffdb\ufffd"]
    assert fleet.rows("SELECT context FROM client_logs") == ['{"k\ufffd":"\ufffd"}']


def test_a_long_text_is_cut_and_kept_whole_in_the_dead_letters(fleet: Fleet) -> None:
    long = "x" * 20_000
    assert fleet.cursor(of_items([item(1, message=long)])) == 1
    assert len(fleet.messages()[0]) == MAX_MESSAGE_CHARS
    assert fleet.rows("SELECT payload FROM dead_letters") == [long]
    assert fleet.account() == (1, 1, 0, 0, 0), "a cut record is a stored one"


def test_device_time_is_clamped_and_kept(fleet: Fleet) -> None:
    fleet.say(of_items([item(1, NOW - timedelta(days=20_000)), item(2, NOW + timedelta(days=9_000)), item(3)]))
    times = "SELECT seq FROM client_logs WHERE device_timestamp IS NOT NULL ORDER BY timestamp"
    assert fleet.rows(times) == [1, 2]
    assert fleet.counters_agree()


# --- a database that refuses ------------------------------------------------------------------------------------------

POISON = {
    "sqlite": [
        "CREATE TRIGGER poison BEFORE INSERT ON client_logs WHEN NEW.message LIKE '%poison%' "
        "BEGIN SELECT RAISE(ABORT, 'poison'); END",
        "CREATE TRIGGER bad_client BEFORE UPDATE ON clients WHEN NEW.current_process = 'poison' "
        "BEGIN SELECT RAISE(ABORT, 'poison'); END",
    ],
    "postgresql": [
        "ALTER TABLE client_logs ADD CONSTRAINT poison CHECK (message NOT LIKE '%%poison%%')",
        "ALTER TABLE clients ADD CONSTRAINT poison CHECK (current_process <> 'poison')",
    ],
}


def test_one_poisonous_record_among_many_goes_to_the_dead_letters_alone(fleet: Fleet) -> None:
    for sql in POISON[fleet.engine.dialect.name]:
        fleet.run(sql)
    items = [item(number, message="poison" if number in (7, 40) else f"m{number}") for number in range(1, 61)]
    beat = Heartbeat(UUID, NOW, current_process="poison")
    acks = fleet.say(batch([1, 2], level=WARN), beat, of_items(items), batch([61]))
    assert acks == [(UUID, Ack("e", {WARN: 2, INFO: 61}))]
    good = [f"m{number}" for number in range(1, 62) if number not in (7, 40)]
    assert fleet.messages() == ["m1", "m2", *good]
    assert fleet.account() == (63, 61, 0, 2, 0)
    assert fleet.rows("SELECT seq FROM dead_letters ORDER BY seq NULLS LAST") == [7, 40, None]
    assert fleet.counters_agree()
    assert fleet.daily_agrees()


def test_a_database_that_fails_stores_nothing_and_may_be_asked_again(fleet: Fleet) -> None:
    fleet.run("ALTER TABLE client_logs RENAME TO away")
    with pytest.raises(Exception, match="client_logs"):
        fleet.say(batch([1, 2, 3]))
    assert fleet.account() == (0, 0, 0, 0, 0)
    assert fleet.rows("SELECT 1 FROM dead_letters") == []
    fleet.run("ALTER TABLE away RENAME TO client_logs")
    assert fleet.cursor(batch([1, 2, 3])) == 3
    assert fleet.messages() == ["m1", "m2", "m3"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MESSAGES)
def test_whatever_arrives_is_committed(fleet: Fleet, messages: list[tuple[str, bytes, bool]]) -> None:
    found = [arrival_of(name, payload, retained=retained) for name, payload, retained in messages]
    ingest(fleet.engine, found, NOW, ALL, "mqtt")
    assert fleet.rows("SELECT id FROM lanes WHERE cursor <> stored + unwanted + dead + gap") == []
    assert fleet.rows("SELECT id FROM dead_letters WHERE reason LIKE '%database%'") == []


# --- clients ----------------------------------------------------------------------------------------------------------


def state(fleet: Fleet, *columns: str, uuid: str = UUID) -> Any:
    (found,) = fleet.rows(f"SELECT {', '.join(columns)} FROM clients WHERE uuid = :uuid", uuid=uuid)
    return found


def health(when: datetime | None, **more: Any) -> Health:
    said: dict[str, Any] = {
        "timestamp": when,
        "expected_event_id": 42,
        "expected_event_type": EventType.VIDEO,
        "process": "mpv",
        "process_pid": 812,
        "process_status": ProcessStatus.RUNNING,
    }
    return Health(**{**said, **more})


def test_an_unknown_client_is_created_by_whatever_it_says_first(fleet: Fleet) -> None:
    for number, body in enumerate((batch([1]), Heartbeat("", NOW), health(NOW), Presence(True), Hello("e", {}, "1"))):
        fleet.say(body, uuid=uuid_of(number))
        assert state(fleet, "online", uuid=uuid_of(number)) == 1


def test_an_unknown_client_is_turned_away_where_none_may_register(fleet: Fleet) -> None:
    closed = dataclasses.replace(ALL, auto_register=False)
    fleet.say(batch([1]), uuid=OTHER)
    for _ in range(3):
        assert fleet.say(batch([1, 2]), Heartbeat("", NOW), policy=closed) == []
    assert fleet.rows("SELECT uuid FROM clients") == [OTHER]
    assert fleet.rows("SELECT reason, client_uuid FROM dead_letters") == [("unknown client", UUID)]
    assert fleet.stats()["unknown_client"] == 6
    fleet.say(batch([1]), policy=closed, now=NOW + hours(1.1))
    assert len(fleet.rows("SELECT 1 FROM dead_letters")) == 2, "one an hour"


def test_what_cannot_be_read_of_an_unknown_client_is_no_more_than_what_can(fleet: Fleet) -> None:
    closed = dataclasses.replace(ALL, auto_register=False)
    fleet.say(batch([1]), uuid=OTHER)
    garbage = Refused(f"infoscreen/{UUID}/hello", "payload is not JSON", "x" * 16_000)
    for _ in range(3):
        assert fleet.say(garbage, garbage, batch([1]), policy=closed) == []
    assert fleet.rows("SELECT reason, client_uuid, payload FROM dead_letters") == [("unknown client", UUID, "")]
    assert fleet.stats() == {"unknown_client": 9}
    fleet.say(garbage, policy=closed, uuid=OTHER)
    assert fleet.rows("SELECT reason FROM dead_letters WHERE client_uuid = :uuid", uuid=OTHER) == [garbage.reason]
    assert fleet.rows("SELECT uuid FROM clients") == [OTHER]
    fleet.say(garbage)
    assert fleet.rows("SELECT uuid FROM clients") == [OTHER], "nobody is registered by what cannot be read"
    assert fleet.rows("SELECT reason FROM dead_letters WHERE payload <> '' AND client_uuid = :uuid", uuid=UUID) == [
        garbage.reason
    ]


def test_a_client_that_sends_garbage_all_the_time_costs_so_many_letters_an_hour(fleet: Fleet) -> None:
    fleet.say(batch([1]), batch([1], epoch="o"), Presence(True))
    one, other = Refused("t", "payload is not JSON", "x"), Refused("t", "payload is not UTF-8", "x")
    every = timedelta(seconds=15)
    for n in range(130):
        fleet.say(one, now=NOW + n * every)
    fleet.say(*[other] * 7, uuid=UUID, now=NOW)
    fleet.say(one, uuid=OTHER, now=NOW)
    ingest(fleet.engine, [Arrival(None, one)] * 120, NOW, ALL, "mqtt")
    kept = "SELECT client_uuid, reason, count(*) FROM dead_letters GROUP BY 1, 2 ORDER BY 1 NULLS LAST, 2"
    assert fleet.rows(kept) == [
        (UUID, one.reason, 100),
        (UUID, other.reason, 7),
        (OTHER, one.reason, 1),
        (None, one.reason, 100),
    ]
    assert fleet.stats() == {"rejected": 130 + 7 + 1 + 120}
    fleet.say(*[one] * 3, now=NOW + hours(1) + 2 * every)
    assert fleet.rows(kept)[0] == (UUID, one.reason, 103), "the first ones are an hour ago"


def test_so_many_doors_at_once_keep_no_more_letters(fleet: Fleet) -> None:
    fleet.say(batch([1]))

    def send() -> None:
        for _ in range(4):
            fleet.say(*[Refused("t", "payload is not JSON", "x")] * 10)

    together(*[send] * 4)
    assert len(fleet.rows("SELECT 1 FROM dead_letters")) == 100
    assert fleet.stats() == {"rejected": 160}


def test_what_was_accepted_keeps_its_letter_however_many_there_are(fleet: Fleet) -> None:
    """What has a number is acknowledged: the letter is all that is left of it, or of what was cut off."""
    bad = [item(n, message=5) for n in range(1, 131)]
    assert fleet.cursor(of_items(bad)) == 130
    long = [item(n, message="x" * (MAX_MESSAGE_CHARS + 1)) for n in range(131, 241)]
    assert fleet.cursor(of_items(long, base=130)) == 240
    assert fleet.rows("SELECT count(*) FROM dead_letters WHERE seq IS NOT NULL") == [240]
    fleet.say(*[Heartbeat(OTHER, NOW, "evil")] * 110)
    unnumbered = [item(None, clock=5) for _ in range(110)]
    fleet.say(decode_logs(INFO, json.dumps({"records": unnumbered}).encode()))
    assert fleet.rows("SELECT count(*) FROM dead_letters WHERE seq IS NULL GROUP BY reason") == [100, 100]
    assert fleet.stats() == {"dead": 240, "cut": 110, "rejected": 110}
    assert fleet.account() == (240, 110, 0, 130, 0)


def test_state_is_the_newest_by_the_clients_clock(fleet: Fleet) -> None:
    fleet.say(
        Heartbeat(UUID, NOW, "vlc", 5, ProcessStatus.STARTING, 7, outbox_pending=3, outbox_oldest=NOW, version="1.0"),
        health(NOW + timedelta(seconds=1), screen_status=ScreenHealthStatus.OK, system={"load": 0.5}),
        Heartbeat(UUID, NOW - timedelta(seconds=9), "older", 1, ProcessStatus.CRASHED, 1),
    )
    assert state(fleet, "current_process", "process_pid", "process_status", "current_event_id") == (
        "mpv", 812, "running", 42,
    )  # fmt: skip
    fleet.say(Heartbeat(UUID, NOW, "older", 1, ProcessStatus.CRASHED, 1))
    assert state(fleet, "current_process", "version", "outbox_pending", "screen_health_status") == (
        "mpv",
        "1.0",
        3,
        "OK",
    )
    assert state(fleet, "system", "current_event_type") == ('{"load":0.5}', "video")


def test_a_clock_that_was_never_set_or_runs_ahead_shows_its_state_all_the_same(fleet: Fleet) -> None:
    fleet.say(health(datetime.fromisoformat("1970-01-01T00:00:09Z"), process="first"))
    assert state(fleet, "current_process") == "first"
    fleet.say(health(NOW + timedelta(days=400), process="ahead"), now=NOW + timedelta(seconds=1))
    later = NOW + timedelta(minutes=6)
    fleet.say(health(later, process="set"), now=later)
    assert state(fleet, "current_process") == "set", "a clock that ran ahead for once does not stop the state for ever"


def test_a_hello_makes_a_clock_that_went_back_count_again(fleet: Fleet) -> None:
    fleet.say(health(NOW, process="before"))
    fleet.say(health(NOW - hours(1), process="ignored"))
    fleet.say(Hello("f", {}, "2"), health(NOW - hours(1), process="after"))
    assert state(fleet, "current_process") == "after"


def test_the_last_will_says_offline_and_is_no_sign_of_life(fleet: Fleet) -> None:
    fleet.say(batch([1]))
    alive = state(fleet, "last_alive")
    fleet.say(Presence(False), now=NOW + hours(1))
    assert state(fleet, "online", "last_alive") == (0, alive)
    fleet.say(Presence(True, retained=True), now=NOW + hours(2))
    assert state(fleet, "online") == 0, "a retained word is of yesterday"
    fleet.say(Presence(True), now=NOW + hours(2))
    assert state(fleet, "online") == 1


def test_a_heartbeat_in_anothers_name_is_refused(fleet: Fleet) -> None:
    fleet.say(Heartbeat(OTHER, NOW, "evil"))
    assert fleet.rows("SELECT current_process FROM clients") == [None]
    assert fleet.rows("SELECT reason FROM dead_letters") == ["uuid: differs from that of the topic"]


def test_what_is_no_message_at_all_is_kept_bounded(fleet: Fleet) -> None:
    ingest(fleet.engine, [Arrival(None, Refused("nowhere", "no", "x" * 200_000))], NOW, ALL, "mqtt")
    assert len(fleet.one("SELECT payload FROM dead_letters")) < 70_000
    assert fleet.stats() == {"rejected": 1}


# --- several at once --------------------------------------------------------------------------------------------------


def test_new_clients_at_several_doors_in_any_company_do_not_deadlock(fleet: Fleet) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rounds = [[uuid_of(100 * turn + number) for number in range(8)] for turn in range(40)]
    ready = threading.Barrier(3, timeout=60)

    def door(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        with Fleet(fleet.url) as mine:
            for clients in rounds:
                some = rng.sample(clients, rng.randint(2, len(clients)))
                ready.wait()
                for portion in (some[: len(some) // 2], some):
                    ingest(mine.engine, [Arrival(uuid, batch(range(1, 3))) for uuid in portion], NOW, ALL, "mqtt")

    together(lambda: door(0), lambda: door(1), lambda: door(2))
    stored = fleet.rows("SELECT count(*) FROM client_logs GROUP BY client_uuid")
    assert set(stored) == {2}


def test_both_doors_at_once_neither_double_nor_lose(fleet: Fleet) -> None:
    last, clients = 200, [uuid_of(number) for number in range(3)]

    def door(url: str, order: list[str], width: int) -> None:
        # Go-back-N: always from what the last answer said, as the agent does.
        with Fleet(url) as mine:
            cursors = dict.fromkeys(order, 0)
            while any(cursor < last for cursor in cursors.values()):
                waiting = [uuid for uuid in order if cursors[uuid] < last]
                sent = [
                    Arrival(uuid, batch(range(cursors[uuid] + 1, min(last, cursors[uuid] + width) + 1)))
                    for uuid in waiting
                ]
                for uuid, ack in ingest(mine.engine, sent, NOW, ALL, f"door{width}"):
                    cursors[uuid] = ack.lanes[INFO]

    together(
        lambda: door(fleet.url, clients, 7),
        lambda: door(fleet.url, clients[::-1], 11),
        lambda: door(fleet.url, clients[1:], 5),
    )
    for uuid in clients:
        found = fleet.rows("SELECT seq FROM client_logs WHERE client_uuid = :uuid ORDER BY id", uuid=uuid)
        assert found == list(range(1, last + 1))
    assert fleet.account() == (600, 600, 0, 0, 0)
    assert fleet.counters_agree()
    assert fleet.daily_agrees()
