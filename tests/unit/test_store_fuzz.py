"""Whatever arrives, decoding and the ledger never raise, and every number of a lane is accounted for."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings

from infoscreen_server.incoming import arrival_of
from infoscreen_server.ledger import Arrival, Known, LaneKey, LaneState, Ledger, Policy, keys_of
from infoscreen_server.persist import _copy_text
from parts.fuzz import MESSAGES

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def ledger_of(arrivals: list[Arrival]) -> Ledger:
    uuids, keys = keys_of(arrivals)
    lanes: dict[LaneKey, LaneState] = {key: LaneState(n, 0, 0, 0, 0, 0, None) for n, key in enumerate(sorted(keys))}
    return Ledger(NOW, Policy(debug_mode=True), NOW, dict.fromkeys(uuids, Known()), lanes)


def assert_storable(value: Any) -> None:
    if isinstance(value, str):
        assert "\0" not in value
        value.encode()


@settings(max_examples=400, deadline=None)
@given(MESSAGES)
def test_nothing_that_arrives_raises(messages: list[tuple[str, bytes, bool]]) -> None:
    arrivals = [arrival_of(name, payload, retained=retained) for name, payload, retained in messages]
    ledger = ledger_of(arrivals)
    for arrival in arrivals:
        ledger.enter(arrival)
    for lane in ledger.lanes.values():
        assert lane.cursor == lane.stored + lane.unwanted + lane.dead + lane.gap
        assert lane.cursor < 2**63
    assert_storable(_copy_text(ledger.sections, "now"))
    for letter in ledger.dead:
        for field in letter:
            assert_storable(field)
    for changes in ledger.changes.values():
        for value in changes.values():
            assert_storable(value)
