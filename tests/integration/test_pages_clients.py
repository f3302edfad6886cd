"""The list of clients as a browser gets it: what stands first, what is found, how much it weighs."""

import html
import json
import random
import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, update

from infoscreen_server import fleet, store
from infoscreen_server.db import writing
from infoscreen_server.fleet import At, Place, State, Wanted
from infoscreen_server.incoming import arrival_of
from infoscreen_server.models import (
    Client,
    ClientTag,
    Counter,
    Role,
    TokenRole,
)
from infoscreen_server.models_history import Incident, SpanKind, StateSpan
from infoscreen_shared.messages import ProcessStatus, ScreenHealthStatus, timestamp_text
from infoscreen_shared.topics import topic
from parts.api import NOW, Api
from parts.fleet import uuid_of
from parts.told import (
    FIRST,
    FLEET,
    LAST,
    THEN,
    add,
    client_row,
    incident,
    names,
    page,
    row_of,
    tallies,
    told_fleet,
    visitor,
    words_of,
)

SEED = random.randrange(1_000_000)


def test_who_needs_someone_stands_first(api: Api) -> None:
    told_fleet(api)
    text = page(api, "/", Role.USER)
    assert names(text) == FIRST + THEN + LAST
    assert tallies(text) == {"clients": 13, "need someone": 6, "offline": 2, "not playing": 4, "fine": 3}


STATES = {
    State.PROBLEM: FIRST,
    State.IDLE: THEN,
    State.FINE: LAST,
    State.OFFLINE: ["gone", "silent"],
    State.NEVER: ["new"],
    State.RUNNING: ["black", "frozen", "limping", "Fine A", "fine b", "unseen"],
    State.CRASHED: ["crashed"],
    State.STARTING: ["starting"],
    State.STOPPED: ["stopped"],
    State.UNKNOWN: ["mute"],
    State.BLACK: ["black"],
    State.FROZEN: ["frozen"],
    State.UNSEEN: ["mute", "unseen"],
}


def test_each_state_finds_its_clients_and_counts_them(api: Api) -> None:
    told_fleet(api)
    assert set(STATES) == set(State)
    at = At(NOW, 45)
    with api.engine.connect() as connection:
        counted = fleet.counts(connection, Wanted(), at)
    assert counted == {"all": len(FLEET)} | {state: len(found) for state, found in STATES.items()}
    for state, expected in STATES.items():
        assert names(page(api, f"/?state={state}")) == expected, state
        answer = api.get(f"/api/clients?state={state}", TokenRole.USER).json
        assert {each["name"] for each in answer["clients"]} == set(expected), state


def test_what_an_offline_client_told_is_its_last_word_and_no_truth(api: Api) -> None:
    told_fleet(api)
    text = page(api, "/")
    assert row_of(text, "silent").count("last known") == 2
    assert "Crashed last known" in row_of(text, "silent")
    assert "Black last known" in row_of(text, "gone")
    assert "Offline" in row_of(text, "gone")
    assert "last known" not in row_of(text, "crashed")
    assert "Never seen" in row_of(text, "new")
    assert "last known" not in row_of(text, "new")


def test_tags_and_places_filter_and_count(api: Api) -> None:
    uuids = told_fleet(api)
    with writing(api.engine) as connection:
        for name in ("black", "Fine A", "stopped"):
            connection.execute(update(Client).where(Client.uuid == uuids[name]).values(location="Graz & Umgebung"))
    add(api, ClientTag, *[{"client_uuid": uuids[name], "tag": "4k"} for name in ("black", "gone")])
    text = page(api, "/?location=Graz+%26+Umgebung")
    assert names(text) == ["black", "stopped", "Fine A"]
    assert tallies(text) == {"clients": 3, "needs someone": 1, "offline": 0, "not playing": 1, "fine": 1}
    assert names(page(api, "/?tag=4k")) == ["black", "gone"]
    assert names(page(api, "/?tag=4k&location=Graz+%26+Umgebung&state=black&q=BLA")) == ["black"]
    assert [each["tags"] for each in api.get("/api/clients?tag=4k").json["clients"]] == [["4k"], ["4k"]]
    nothing = page(api, "/?tag=4")
    assert names(nothing) == []
    assert "No client matches this filter" in nothing
    assert 'href="/">Show all clients' in nothing


SEARCHES = [
    ("%", ["100 % Café"]),
    ("_", ["under_score"]),
    ("*", ["star*"]),
    ("?", ["what?"]),
    ("[a-z]", ["[a-z]"]),
    ("^$.|()\\", ["^$.|()\\"]),
    ("café", ["100 % Café"]),
    ("CAFÉ", ["100 % Café"]),
    ("österreich", ["Österreich"]),
    ("ÖSTERREICH", ["Österreich"]),
    ("  star  ", ["star*"]),
    ("r*", ["star*"]),
    ("'", ['it\'s "quoted"']),
    ('"', ['it\'s "quoted"']),
    ("KIOSK-7", ["star*"]),
    ("linz", ["under_score"]),
    ("chromium", ["what?"]),
    (uuid_of(3)[:8], ["what?"]),
    ("nothing of the kind", []),
    ("\x00", []),
    ("a\x00b", []),
]


def test_search_takes_text_as_it_stands(api: Api) -> None:
    titles = ["100 % Café", "under_score", "star*", "what?", "[a-z]", "^$.|()\\", "Österreich", 'it\'s "quoted"']
    more: dict[str, dict[str, Any]] = {
        "star*": {"hostname": "kiosk-7"},
        "under_score": {"location": "Linz"},
        "what?": {"current_process": "Chromium"},
    }
    add(api, Client, *[client_row(number, name=name, **more.get(name, {})) for number, name in enumerate(titles)])
    browser = visitor(api)
    found = []
    for text, _ in SEARCHES:
        answer = browser.get("/", query_string={"q": text})
        assert answer.status_code == 200, text
        found.append((text, names(answer.get_data(as_text=True))))
        listed = api.get("/api/clients", query_string={"q": text}).json["clients"]
        assert {each["name"] for each in listed} == set(found[-1][1]), text
    assert found == SEARCHES


def walk(api: Api, size: int, between: Any) -> list[str]:
    """All pages of the list, something happening between them."""
    seen: list[str] = []
    after: Place | None = None
    while True:
        with api.engine.connect() as connection:
            found = fleet.page(connection, Wanted(), At(NOW, 45), after, size)
        seen += [client["uuid"] for client in found.clients]
        if found.following is None:
            return seen
        after = Place.parse(found.following.encoded())
        between()


def test_pages_follow_without_gap_or_overlap_whatever_changes_meanwhile(api: Api) -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    states = [*ProcessStatus, None]
    titles = ["a", "B", "b", "ä", "Z", "%", "", " ", None]

    def made(number: int) -> dict[str, Any]:
        told = {"process_status": dice.choice(states), "name": dice.choice(titles), "online": dice.random() < 0.8}
        return client_row(number, **told)

    add(api, Client, *[made(number) for number in range(60)])
    restless = [uuid_of(number) for number in range(0, 60, 4)]
    with api.engine.connect() as connection:
        calm = fleet.page(connection, Wanted(), At(NOW, 45), None, 100).clients
    calm_order = [client["uuid"] for client in calm if client["uuid"] not in restless]
    extra = iter(range(1000, 2000))

    def change() -> None:
        add(api, Client, made(next(extra)))
        values = {"process_status": dice.choice(states), "name": dice.choice(titles)}
        with writing(api.engine) as connection:
            connection.execute(update(Client).where(Client.uuid == dice.choice(restless)).values(values))

    for size in (1, 7, 59):
        seen = walk(api, size, change)
        assert [uuid for uuid in seen if uuid in calm_order] == calm_order, size
    with api.engine.connect() as connection:
        everything = [each["uuid"] for each in fleet.page(connection, Wanted(), At(NOW, 45), None, 500).clients]
    assert walk(api, 7, lambda: None) == everything
    assert len(set(everything)) == len(everything) > 100


def test_pages_are_linked_and_keep_the_filter(api: Api) -> None:
    add(api, Client, *[client_row(number, name=f"n{number:03d}", location="Graz") for number in range(120)])
    browser = visitor(api)
    seen: list[str] = []
    path: str | None = "/?location=Graz&state=fine"
    for _ in range(3):
        assert path is not None
        text = browser.get(path).get_data(as_text=True)
        seen += names(text)
        link = re.search(r'rel="next" href="([^"]+)"', text)
        path = html.unescape(link.group(1)) if link else None
        assert path is None or "location=Graz" in path
    assert path is None
    assert seen == [f"n{number:03d}" for number in range(120)]
    assert "First page" in text


@pytest.mark.parametrize("path", ["/", "/reliability", "/clients/{uuid}"])
def test_whatever_stands_in_an_address_is_taken_calmly(api: Api, path: str) -> None:
    told_fleet(api)
    browser = visitor(api)
    odd = ["", "x", "'", "%00", "\ud800", "9" * 5000, "-1", "0", "1e9", "../..", "A" * 3000, "W10", "WzAsMSwyXQ", "é"]
    for name in ("state", "tag", "location", "q", "after", "page", "period", "before", "nosuch"):
        for value in odd:
            sent = {name: value.encode("utf-8", "surrogatepass").decode("latin-1")}
            answer = browser.get(path.format(uuid=uuid_of(0)), query_string=sent)
            assert answer.status_code == 200, (name, value[:20])


def test_waiting_records_counts_and_the_bars_of_two_weeks(api: Api) -> None:
    uuids = told_fleet(api)
    waiting = {"outbox_pending": 18_412, "outbox_oldest": NOW - timedelta(hours=3)}
    with writing(api.engine) as connection:
        connection.execute(update(Client).where(Client.uuid == uuids["fine b"]).values(waiting))
    add(api, Counter, {"client_uuid": uuids["fine b"], "error": 3, "warn": 1, "info": 9, "debug": 0})
    text = page(api, "/")
    row = row_of(text, "fine b")
    for piece in ("18,412", "3 hours ago", "3 errors", "1 warning"):
        assert piece in row, piece
    # Down for an hour of today's twelve, and for nothing of the 13 days before.
    assert "14 days, 99.69 % available, worst day 91.66 %" in text
    assert "<title>14 days, 100.00 % available, worst day 100.00 %</title>" in text


def test_the_card_counts_of_a_day_what_was_observed(api: Api) -> None:
    """Down for the ten minutes that are known of today is no half a day down; nor is a new screen's first hour one."""
    today = NOW.replace(hour=0)
    silent = {"online": False, "last_alive": today + timedelta(minutes=10)}
    add(api, Client, client_row(1, name="silent", **silent))
    add(api, Client, client_row(2, name="fresh", registered_at=today - timedelta(hours=1)))
    add(api, Incident, incident(uuid_of(1), today, None))
    add(api, Incident, incident(uuid_of(2), today - timedelta(minutes=30), today))
    text = page(api, "/")
    # 10 minutes of 13 days and 10 minutes.
    assert "<title>14 days, 99.94 % available, worst day 0.00 %</title>" in text
    # 30 minutes of 13 hours.
    assert "<title>14 days, 96.15 % available, worst day 50.00 %</title>" in text


def test_the_list_reads_no_log_and_asks_little(api: Api) -> None:
    told_fleet(api)
    browser = visitor(api)
    statements: list[str] = []
    event.listen(api.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    assert browser.get("/?q=a&tag=b&state=fine").status_code == 200
    assert browser.get("/").status_code == 200
    assert not any("client_logs" in statement for statement in statements)
    assert len(statements) < 24


def test_a_thousand_clients_weigh_little(api: Api) -> None:
    """Even if all that people call them is as long as it may be, and all that kiosks say, which is escaped too."""
    said: dict[str, Any] = dict.fromkeys(("hostname", "current_process", "screen_reason"), "&" * 255)
    said |= {"screen_health_status": ScreenHealthStatus.BLACK, "outbox_pending": 2**60, "outbox_oldest": NOW}

    def heavy(n: int) -> dict[str, Any]:
        return client_row(n, name=f"{n:04d}{'n' * 96}", location=f"{n:04d}{'p' * 96}", **said)

    add(api, Client, *[heavy(n) for n in range(1000)])
    tags = [f"{number:02d}{'t' * 48}" for number in range(20)]
    add(api, ClientTag, *[{"client_uuid": uuid_of(n), "tag": tag} for n in range(100) for tag in tags])
    many = {"error": 10**9, "warn": 10**9, "info": 0, "debug": 0}
    add(api, Counter, *[{"client_uuid": uuid_of(n), **many} for n in range(100)])
    add(
        api,
        Incident,
        *[incident(uuid_of(0), at, at, message="&" * 300) for at in (NOW - timedelta(hours=h) for h in range(20))],
    )
    states = [{"began_at": NOW - timedelta(minutes=m + 1), "ended_at": NOW - timedelta(minutes=m)} for m in range(1000)]
    for kind, state in ((SpanKind.LINK, "online"), (SpanKind.PROCESS, "stopped"), (SpanKind.SCREEN, "BLACK")):
        add(api, StateSpan, *[{"client_uuid": uuid_of(0), "kind": kind, "state": state, **span} for span in states])
    for path in ("/", "/reliability", f"/clients/{uuid_of(0)}", f"/clients/{uuid_of(0)}/edit"):
        assert len(page(api, path).encode()) < 200_000, path


def test_a_usual_thousand_weighs_far_less(api: Api) -> None:
    add(
        api,
        Client,
        *[client_row(n, name=f"Foyer {n}", hostname=f"kiosk-{n}", location="Graz Messe") for n in range(1000)],
    )
    add(api, ClientTag, *[{"client_uuid": uuid_of(n), "tag": tag} for n in range(1000) for tag in ("foyer", "4k")])
    text = page(api, "/")
    assert len(names(text)) == fleet.PAGE
    assert len(text.encode()) < 125_000


def test_without_any_client_it_is_said_what_to_do(api: Api) -> None:
    text = words_of(page(api, "/", Role.USER))
    for piece in ("No screen has reported yet", "apt install infoscreen-watchdog", "[broker]", "docs/kiosk.md"):
        assert piece in text
    assert "How to add a screen" in page(api, "/reliability", Role.USER)


@pytest.mark.parametrize(
    ("told", "kept"),
    [("kiosk-7", "kiosk-7"), ("x" * 300, "x" * 255), ("a\x00b", "a\ufffdb"), (7, None), ("", None), (["x"], None)],
)
def test_the_hostname_that_a_kiosk_tells_is_what_it_is_found_by(api: Api, told: object, kept: str | None) -> None:
    body = {"timestamp": timestamp_text(NOW), "expected_state": {}, "actual_state": {}, "system": {"hostname": told}}
    arrival = arrival_of(topic(uuid_of(1), "health"), json.dumps(body).encode())
    store.ingest(api.engine, [arrival], NOW, store.Policy(), "mqtt")
    found = api.get(f"/api/clients/{uuid_of(1)}").json
    assert found["hostname"] == kept
    if kept is not None:
        assert names(page(api, f"/?q={kept[:20].upper()}")) == [kept[:97] + "..." if len(kept) > 100 else kept]
