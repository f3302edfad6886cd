"""Strategies for whatever a network may bring to the MQTT door: near the contract, and far from it."""

import json

from hypothesis import strategies as st

from infoscreen_shared.topics import subscriptions

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
TEXT = st.text(st.characters(codec=None), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
TIMES = st.sampled_from(["2026-06-01T12:00:00Z", "1970-01-01", "9999-12-31T23:59:59.9-14:00", "0001-01-01T00:00+14:00"])
RECORDS = st.fixed_dictionaries(
    {"timestamp": TIMES | JSON, "message": TEXT | JSON},
    optional={
        "context": st.dictionaries(TEXT, JSON, max_size=3) | JSON,
        "code": TEXT | JSON,
        "epoch": st.sampled_from(["e", "f"]) | JSON,
        "seq": st.integers(-1, 9) | JSON,
        "boot_id": TEXT | JSON,
        "clock": st.sampled_from(["synced", "wrong"]) | JSON,
    },
)
LANES = st.dictionaries(
    st.sampled_from(["error", "INFO", "x"]), st.dictionaries(st.sampled_from(["base", "next"]), JSON)
)
DOCUMENTS = (
    JSON
    | RECORDS
    | st.fixed_dictionaries({"records": st.lists(RECORDS | JSON, max_size=5)}, optional={"epoch": TEXT, "base": JSON})
    | st.fixed_dictionaries({"epoch": st.just("e"), "lanes": LANES}, optional={"version": JSON})
    | st.fixed_dictionaries(
        {"timestamp": TIMES | JSON},
        optional={
            "uuid": st.just(UUID) | JSON,
            "process_pid": JSON,
            "process_status": st.sampled_from(["running", "dancing"]) | JSON,
            "expected_state": st.dictionaries(TEXT, JSON, max_size=2) | JSON,
            "screen": st.dictionaries(st.sampled_from(["status", "hash", "reason"]), JSON) | JSON,
            "system": st.dictionaries(TEXT, JSON, max_size=3) | JSON,
            "outbox": JSON,
        },
    )
)
PAYLOADS = st.binary(max_size=60) | DOCUMENTS.map(lambda document: json.dumps(document).encode())
TOPICS = st.sampled_from(
    [name.replace("logs/+", "logs/info").replace("+", UUID) for name in subscriptions()]
    + ["infoscreen/no-uuid/logs/info", f"infoscreen/{UUID}/logs/loud", "else/where", "\ud800\n"]
)
MESSAGES = st.lists(st.tuples(TOPICS, PAYLOADS, st.booleans()), max_size=4)
"""Topic, payload, retained."""
