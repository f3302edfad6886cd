"""The pages of clients as a browser gets them: what stands first, what is found, what is said, who may."""

import csv
import html
import json
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from infoscreen_server import fleet
from infoscreen_server.db import writing
from infoscreen_server.fleet import At, Place, State, Wanted
from infoscreen_server.models import (
    Client,
    ClientTag,
    Counter,
    Lane,
    Role,
    Screenshot,
    ScreenshotKind,
    TokenRole,
    User,
)
from infoscreen_server.models_history import FactSample, Incident, IncidentKind, SpanKind, StateSpan
from infoscreen_shared.messages import EventType, LogLevel, ProcessStatus, ScreenHealthStatus
from parts.api import NOW, Api
from parts.fleet import uuid_of
from parts.person import Person, with_user

SEED = random.randrange(1_000_000)
RUNS = {"process_status": ProcessStatus.RUNNING, "screen_health_status": ScreenHealthStatus.OK}
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    yield running
    running.close()


def add(api: Api, table: type, *rows: dict[str, Any]) -> None:
    if rows:
        with writing(api.engine) as connection:
            connection.execute(insert(table), list(rows))


def client_row(number: int, **more: Any) -> dict[str, Any]:
    row = {"uuid": uuid_of(number), "registered_at": NOW - timedelta(days=30), "online": True, "last_alive": NOW}
    empty = dict.fromkeys(("hostname", "name", "location", "current_process", "screen_reason", "version", "system"))
    return row | empty | RUNS | more


FLEET: dict[str, dict[str, Any]] = {
    "fine b": {},
    "Fine A": {"current_process": "mpv"},
    "black": {"screen_health_status": ScreenHealthStatus.BLACK, "screen_reason": "uniform"},
    "frozen": {"screen_health_status": ScreenHealthStatus.FROZEN},
    "crashed": {"process_status": ProcessStatus.CRASHED},
    "starting": {"process_status": ProcessStatus.STARTING},
    "stopped": {"process_status": ProcessStatus.STOPPED},
    "mute": {"process_status": None, "screen_health_status": None},
    "unseen": {"screen_health_status": ScreenHealthStatus.UNKNOWN},
    "silent": {"last_alive": NOW - timedelta(seconds=46), "process_status": ProcessStatus.CRASHED},
    "gone": {"online": False, "screen_health_status": ScreenHealthStatus.BLACK},
    "new": {"online": False, "last_alive": None, "process_status": None, "screen_health_status": None},
    "limping": {},
}
"""`limping` runs, but an incident of its player lasts."""
FIRST = ["black", "crashed", "frozen", "gone", "limping", "silent"]
THEN = ["mute", "new", "starting", "stopped"]
LAST = ["Fine A", "fine b", "unseen"]


def told_fleet(api: Api) -> dict[str, str]:
    """The clients of FLEET; their uuids by name."""
    uuids = {name: uuid_of(number) for number, name in enumerate(FLEET)}
    add(api, Client, *[client_row(number, name=name, **FLEET[name]) for number, name in enumerate(FLEET)])
    add(
        api,
        Incident,
        incident(uuids["limping"], NOW - timedelta(minutes=5), None),
        incident(uuids["silent"], NOW - timedelta(minutes=5), None, kind=IncidentKind.LINK),
        incident(uuids["fine b"], NOW - timedelta(hours=3), NOW - timedelta(hours=2)),
        incident(uuids["Fine A"], NOW - timedelta(minutes=5), None, kind=IncidentKind.LINK),
    )
    return uuids


def incident(uuid: str, began: Any, ended: Any, **more: Any) -> dict[str, Any]:
    usual = {"kind": IncidentKind.PLAYER, "code": "player.crashed", "message": "mpv crashed", "restarts": 2}
    return {"client_uuid": uuid, "began_at": began, "ended_at": ended, "last_event_at": ended or NOW} | usual | more


def visitor(api: Api, role: Role = Role.ADMIN) -> Person:
    """Someone with this role, signed in; the same one whenever it is asked again."""
    with api.engine.connect() as connection:
        known = connection.execute(select(User.id).where(User.name == role)).scalar()
    if known is None:
        return with_user(api, role, role)
    person = Person(api)
    person.sign_in(role)
    return person


def page(api: Api, path: str, role: Role = Role.ADMIN, status: int = 200) -> str:
    answer = visitor(api, role).get(path)
    assert answer.status_code == status, path
    return answer.get_data(as_text=True)


def names(text: str) -> list[str]:
    """Of the clients on the page, in order."""
    return [html.unescape(name) for name in re.findall(r'<a id="c-[^"]+" href="[^"]+">([^<]*)</a>', text)]


def words_of(text: str) -> str:
    """The page without its tags, blanks as one."""
    body = re.sub(r"<(title|script)\b.*?</\1>", " ", text.partition("<main")[2], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def row_of(text: str, name: str) -> str:
    rows = [row for row in text.split("<tr ") if f">{name}</a>" in row]
    assert len(rows) == 1, name
    return words_of("<main" + rows[0])


def tallies(text: str) -> dict[str, int]:
    found = re.findall(r'class="tally.*?<strong>(\d+)</strong> <span>([^<]*)</span>', text, flags=re.DOTALL)
    return {label: int(number) for number, label in found}


# --- the list ---------------------------------------------------------------------------------------------------------


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


# --- one client -------------------------------------------------------------------------------------------------------


def test_a_client_in_words(api: Api) -> None:
    told = {
        "name": "Foyer",
        "hostname": "kiosk-7",
        "location": "Graz",
        "current_process": "mpv",
        "process_pid": 812,
        "current_event_id": 42,
        "current_event_type": EventType.VIDEO,
        "version": "0.5.0",
        "system": json.dumps({"cpu_temperature": 51.2, "uptime_s": 90_000, "load": [0.5]}),
        "outbox_pending": 3,
        "screen_health_status": ScreenHealthStatus.FROZEN,
        "screen_reason": "ticker stuck",
    }
    add(api, Client, client_row(7, **told))
    add(api, Counter, {"client_uuid": uuid_of(7), "error": 3, "warn": 0, "info": 1234, "debug": 0})
    lane = {"client_uuid": uuid_of(7), "level": LogLevel.INFO, "first_seen": NOW, "last_seen": NOW}
    account = {"cursor": 1250, "stored": 1200, "unwanted": 30, "dead": 5, "gap": 15}
    add(api, Lane, lane | account | {"epoch": "a"})
    add(api, FactSample, *[fact(uuid_of(7), minutes, 40 + minutes) for minutes in (5, 10, 15)])
    text = words_of(page(api, f"/clients/{uuid_of(7).upper()}", Role.USER))
    for piece in (
        "kiosk-7 · Graz",
        "Expected Event 42, video",
        "Running mpv pid 812",
        "Frozen ticker stuck",
        "Machine up for 1 d 1 h",
        "Agent 0.5.0",
        "Processor temperature 51.2 °C 45.0 °C – 55.0 °C",
        "3 Error 0 Warning 1,234 Info",
        "has numbered 1,250 records",
        "Stored 1,200 Not wanted 30",
        "Not readable 5",
        "Lost 15",
        "Waiting 3",
        "Pictures of screens are for administrators.",
        "Nothing has happened to this screen since it is known.",
    ):
        assert piece in text, piece
    assert "last known" not in text


def fact(uuid: str, minutes: float, temperature: float) -> dict[str, Any]:
    rest = dict.fromkeys(("load", "memory_available", "memory_total", "disk_free", "outbox_pending"))
    return {"client_uuid": uuid, "at": NOW - timedelta(minutes=minutes), "cpu_temperature": temperature} | rest


def test_an_offline_client_is_shown_as_it_was_last_known(api: Api) -> None:
    uuids = told_fleet(api)
    text = words_of(page(api, f"/clients/{uuids['silent']}"))
    assert "Not heard of since 2026-06-01 11:59:14 UTC ( just now ). What follows is the last that it told." in text
    assert "Last known Expected" in text
    assert "Crashed last known" in text
    new = words_of(page(api, f"/clients/{uuids['new']}"))
    assert "has not been heard of yet" in new
    assert "last known" not in new


def test_the_timeline_and_the_figures_of_a_period(api: Api) -> None:
    uuids = told_fleet(api)
    spans = [("running", 36, 18), ("crashed", 18, 12), ("running", 12, None)]
    add(
        api,
        StateSpan,
        *[
            {
                "client_uuid": uuids["fine b"],
                "kind": SpanKind.PROCESS,
                "state": state,
                "began_at": NOW - timedelta(hours=began),
                "ended_at": None if ended is None else NOW - timedelta(hours=ended),
            }
            for state, began, ended in spans
        ],
    )
    day = page(api, f"/clients/{uuids['fine b']}")
    assert "Player Running 75.00 % · Crashed 25.00 %" in words_of(day)
    assert 'aria-label="Player: Running 75.00 %, Crashed 25.00 %"' in day
    assert "Available 95.83 % Incidents 1 Between failures 23 h 0 min Until repaired 1 h 0 min" in words_of(day)
    assert "Crashed 2026-05-31 18:00:00 UTC 6 h 0 min" in words_of(day)
    week = page(api, f"/clients/{uuids['fine b']}?period=7d")
    assert "Player Running 17.85 % · Crashed 3.57 %" in words_of(week)
    assert re.search(r'period=7d#timeline-title" aria-current="true"', week)


def test_incidents_come_in_pages_and_the_open_one_stands_on_top(api: Api) -> None:
    uuids = told_fleet(api)
    uuid = uuids["limping"]
    hours = range(1, 26)
    ended = [
        incident(uuid, NOW - timedelta(hours=h), NOW - timedelta(hours=h, minutes=-9), message=f"m{h:02d}")
        for h in hours
    ]
    add(api, Incident, *ended)
    browser = visitor(api)
    path: str | None = f"/clients/{uuid}?period=30d"
    seen: list[str] = []
    while path:
        text = browser.get(path).get_data(as_text=True)
        assert "mpv crashed. Since" in words_of(text)
        seen += re.findall(r"\bm\d\d\b", words_of(text))
        link = re.search(r'rel="next" href="([^"]+)"', text)
        path = html.unescape(link.group(1)) if link else None
        assert path is None or "period=30d" in path
    assert seen == [f"m{h:02d}" for h in hours]


def shot(
    uuid: str, number: int, kind: ScreenshotKind, status: ScreenHealthStatus, reason: str | None
) -> dict[str, Any]:
    at = NOW - timedelta(minutes=number)
    told = {"kind": kind, "status": status, "reason": reason, "hash": None, "width": 320, "height": 180}
    return {
        "client_uuid": uuid, "upload_id": f"picture-{number}", "taken_at": at, "device_taken_at": None,
        "received_at": at, "size": 3, "picture": b"abc", **told,
    }  # fmt: skip


def test_pictures_are_shown_to_administrators_alone(api: Api) -> None:
    uuids = told_fleet(api)
    uuid = uuids["black"]
    assert "No picture has arrived from this screen." in page(api, f"/clients/{uuid}")
    periodic = [shot(uuid, n, ScreenshotKind.PERIODIC, ScreenHealthStatus.OK, None) for n in range(1, 9)]
    before = [shot(uuid, n, ScreenshotKind.INCIDENT, ScreenHealthStatus.BLACK, "uniform") for n in range(20, 30)]
    add(api, Screenshot, *periodic, *before)
    text = page(api, f"/clients/{uuid}")
    sources = re.findall(r'<img src="([^"]+)"', text)
    assert len(sources) == 1 + 6
    browser = visitor(api)
    assert all(browser.get(source).status_code == 200 for source in sources)
    assert "The screen at 2026-06-01 11:59:00 UTC: OK" in text
    user = page(api, f"/clients/{uuid}", Role.USER)
    assert "<img" not in user
    assert visitor(api, Role.USER).get(sources[0]).status_code == 403


def test_clients_that_are_not_there(api: Api) -> None:
    told_fleet(api)
    for path in (f"/clients/{uuid_of(99)}", f"/clients/{uuid_of(99)}/edit", "/clients/x", "/clients/x/edit"):
        assert "There is nothing here" in page(api, path, Role.ADMIN, 404)


class Elements(HTMLParser):
    """What a browser would make of a page: its elements that run or load something of which we know nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        ours = (given.get("src") or "").startswith(("/static/", "/api/clients/"))
        if (tag in ("script", "img", "iframe") and not ours) or "style" in given:
            self.faults.append(f"{tag} {given}")
        self.faults += [f"{tag} {name}" for name in given if name.startswith("on") or "'" in name]


def faults(text: str) -> list[str]:
    reader = Elements()
    reader.feed(text)
    return reader.faults


def test_the_reader_of_elements_sees_what_is_wrong() -> None:
    for bad in (ATTACK, '<a onclick="x">', '<p style="x">', "<script src=//else.where/static/></script>"):
        assert faults(f"<p>{bad}</p>"), bad


def test_nothing_that_a_client_sends_becomes_markup(api: Api) -> None:
    told = {"hostname": ATTACK, "current_process": ATTACK, "screen_reason": ATTACK, "version": ATTACK[:64]}
    given = {"name": ATTACK, "location": ATTACK, "screen_health_status": ScreenHealthStatus.BLACK}
    system = {"system": json.dumps({ATTACK: ATTACK, "cpu_temperature": ATTACK, "load": [ATTACK]})}
    add(api, Client, client_row(1, **told, **given, **system), client_row(2, hostname=ATTACK), client_row(3))
    add(api, ClientTag, {"client_uuid": uuid_of(1), "tag": "<script>&\"'{{7*7}}"})
    add(api, Incident, incident(uuid_of(1), NOW, None, message=ATTACK, code=ATTACK[:32]))
    add(api, Screenshot, shot(uuid_of(1), 1, ScreenshotKind.INCIDENT, ScreenHealthStatus.BLACK, ATTACK))
    paths = ["/", "/?q=%3Cscript%3E", "/reliability", "/reliability?q=%3Cscript%3E&location=%3Cscript%3E"]
    for path in [*paths, f"/clients/{uuid_of(1)}", f"/clients/{uuid_of(1)}/edit", f"/clients/{uuid_of(2)}"]:
        text = page(api, path)
        assert ATTACK not in text, path
        assert "onerror=alert(2)&gt;49" not in text, path
        assert faults(text) == [], path
    assert "&lt;script&gt;" in page(api, "/")


# --- what people call it ----------------------------------------------------------------------------------------------


def test_an_admin_names_a_client(api: Api) -> None:
    uuids = told_fleet(api)
    path = f"/clients/{uuids['black']}/edit"
    browser = visitor(api)
    answer = browser.post(path, name="  Foyer  links ", location="Graz & Wien", tags="4k, Foyer,,foyer , <b>")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/clients/{uuids['black']}")
    assert "Saved." in browser.get(answer.headers["Location"]).get_data(as_text=True)
    found = api.get(f"/api/clients/{uuids['black']}").json
    assert (found["name"], found["location"], found["tags"]) == ("Foyer links", "Graz & Wien", ["4k", "<b>", "Foyer"])
    form = browser.get(path).get_data(as_text=True)
    assert 'value="4k, &lt;b&gt;, Foyer"' in form
    assert '<option value="Graz &amp; Wien">' in form
    browser.post(path, name="", location=" ", tags="")
    found = api.get(f"/api/clients/{uuids['black']}").json
    assert (found["name"], found["location"], found["tags"]) == (None, None, [])


def test_what_is_wrong_is_said_at_the_field_and_nothing_is_lost(api: Api) -> None:
    uuids = told_fleet(api)
    path = f"/clients/{uuids['black']}/edit"
    answer = visitor(api).post(path, name="new name", location="x" * 101, tags="a,b")
    assert answer.status_code == 422
    text = answer.get_data(as_text=True)
    assert re.search(r'id="location"[^>]*aria-invalid="true"', text)
    assert re.search(r'id="location-hint"><strong class="wrong">At most 100 characters.</strong>', text)
    assert 'value="new name"' in text
    assert 'value="a,b"' in text
    assert api.get(f"/api/clients/{uuids['black']}").json["name"] == "black"


def test_who_may_edit(api: Api) -> None:
    uuids = told_fleet(api)
    path = f"/clients/{uuids['black']}/edit"
    assert visitor(api, Role.USER).get(path).status_code == 403
    assert "Edit</a>" not in page(api, f"/clients/{uuids['black']}", Role.USER)
    assert "Edit</a>" in page(api, f"/clients/{uuids['black']}", Role.ADMIN)
    forged = visitor(api).client.post(path, data={"name": "forged", "location": "", "tags": ""})
    assert forged.status_code == 400
    nobody = api.app.test_client().get(path)
    assert nobody.headers["Location"].startswith("/sign-in?next=")
    assert api.get(f"/api/clients/{uuids['black']}").json["name"] == "black"


def patch(api: Api, uuid: str, body: Any, role: TokenRole = TokenRole.ADMIN) -> Any:
    return api.client.patch(f"/api/clients/{uuid}", json=body, headers={"Authorization": f"Bearer {api.token(role)}"})


def test_a_program_names_a_client(api: Api) -> None:
    uuids = told_fleet(api)
    uuid = uuids["black"]
    answer = patch(api, uuid.upper(), {"location": " Graz ", "tags": ["b", "A", "a"]})
    assert answer.status_code == 200
    assert answer.json == api.get(f"/api/clients/{uuid}").json
    assert (answer.json["name"], answer.json["location"], answer.json["tags"]) == ("black", "Graz", ["A", "b"])
    assert patch(api, uuid, {}).json["tags"] == ["A", "b"]
    cleared = patch(api, uuid, {"name": None, "location": "", "tags": None}).json
    assert (cleared["name"], cleared["location"], cleared["tags"]) == (None, None, [])
    assert patch(api, uuid_of(99), {"name": "x"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        ({"name": "x" * 101}, "name: At most 100 characters."),
        ({"tags": ["a,b"]}, "tags: "),
        ({"tags": ["x"] * 3 + ["y" * 51]}, "tags: "),
        ({"tags": "4k"}, "tags: "),
        ({"tags": [7]}, "tags: "),
        ({"name": 7}, "name: "),
        ({"hostname": "x"}, "hostname: unknown parameter"),
        ([], ""),
        ("x", ""),
        (None, ""),
    ],
)
def test_a_program_that_is_wrong_is_told_so(api: Api, body: Any, begins: str) -> None:
    uuids = told_fleet(api)
    answer = patch(api, uuids["black"], body)
    assert answer.status_code == 400
    assert answer.json["error"].startswith(begins)
    assert api.get(f"/api/clients/{uuids['black']}").json["name"] == "black"


# --- reliability ------------------------------------------------------------------------------------------------------


def test_the_least_reliable_stand_first(api: Api) -> None:
    add(api, Client, *[client_row(n, name=f"n{n}", location="Graz" if n % 2 else "Linz") for n in range(4)])
    ago = [timedelta(hours=hours) for hours in (30, 20, 10, 9)]
    add(
        api,
        Incident,
        incident(uuid_of(1), NOW - ago[0], NOW - ago[1]),
        incident(uuid_of(2), NOW - ago[2], NOW - ago[3]),
    )
    text = page(api, "/reliability", Role.USER)
    ranked = re.findall(r">(n\d)</a>", text)
    assert ranked[:2] == ["n1", "n2"]
    assert set(ranked) == {"n0", "n1", "n2", "n3"}
    # 10 of 168 hours, and one.
    assert "94.04 % 10 h 0 min 1 6 d 14 h 10 h 0 min" in words_of(text)
    assert "Available 98.36 % Incidents 2 Down altogether 11 h 0 min Screens with an incident 2 of 4" in words_of(text)
    assert "What the figures mean" in text
    assert re.findall(r">(n\d)</a>", page(api, "/reliability?location=Linz")) == ["n2", "n0"]
    day = page(api, "/reliability?period=24h")
    assert "83.33 % 4 h 0 min 1" in words_of(day)


def test_what_is_shown_of_reliability_can_be_taken_away(api: Api) -> None:
    """The table is downloaded with the page's own period and filters."""
    add(api, Client, *[client_row(n, name=f"n{n}", location="Graz" if n % 2 else "Linz") for n in range(4)])
    add(api, Incident, incident(uuid_of(1), NOW - timedelta(hours=30), NOW - timedelta(hours=20)))
    text = page(api, "/reliability?period=24h&location=Graz&q=n", Role.USER)
    link = re.search(r'href="([^"]+)" download', text)
    assert link is not None
    answer = visitor(api, Role.USER).get(html.unescape(link.group(1)))
    assert answer.status_code == 200
    rows = list(csv.DictReader(answer.text.removeprefix("\ufeff").splitlines()))
    assert [(row["name"], row["incidents"], row["down_s"]) for row in rows] == [
        ("n1", "1", "14400.0"),
        ("n3", "0", "0.0"),
    ]
    listed = api.get("/api/reliability?period=24h&location=Graz&q=n", TokenRole.USER).json
    assert [row["name"] for row in listed["clients"]] == ["n1", "n3"]


def test_reliability_comes_in_pages_of_a_hundred(api: Api) -> None:
    add(api, Client, *[client_row(n, name=f"n{n:03d}") for n in range(230)])
    seen: list[str] = []
    for number in (1, 2, 3):
        text = page(api, f"/reliability?page={number}&period=30d")
        seen += re.findall(r">(n\d+)</a>", text)
        assert ("page=" in text.partition("<table")[2]) is (number != 3) or number == 3
    assert sorted(seen) == [f"n{n:03d}" for n in range(230)]
    assert "201 to 230 of 230" in words_of(text)
