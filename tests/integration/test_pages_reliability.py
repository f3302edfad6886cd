"""The page of reliability: the least reliable first, a page at a time, and to be taken away."""

import csv
import html
import re
from datetime import timedelta

from infoscreen_server.models import (
    Client,
    Role,
    TokenRole,
)
from infoscreen_server.models_history import Incident
from parts.api import NOW, Api
from parts.fleet import uuid_of
from parts.told import (
    add,
    client_row,
    incident,
    page,
    visitor,
    words_of,
)


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


def test_the_german_page_takes_away_a_table_for_a_german_spreadsheet(api: Api) -> None:
    add(api, Client, client_row(1, name="n1"))
    anna = visitor(api)

    def link() -> str:
        found = re.search(r'href="([^"]+)" download', anna.get("/reliability?period=24h").get_data(as_text=True))
        assert found is not None
        return html.unescape(found.group(1))

    assert "separator" not in link()
    anna.post("/display", "/reliability", language="de")
    assert "separator=semicolon" in link()
    (row,) = csv.DictReader(anna.get(link()).text.removeprefix("\ufeff").splitlines(), delimiter=";")
    assert (row["name"], row["availability"]) == ("n1", "1,0")


def test_reliability_comes_in_pages_of_a_hundred(api: Api) -> None:
    add(api, Client, *[client_row(n, name=f"n{n:03d}") for n in range(230)])
    seen: list[str] = []
    for number in (1, 2, 3):
        text = page(api, f"/reliability?page={number}&period=30d")
        seen += re.findall(r">(n\d+)</a>", text)
        assert ("page=" in text.partition("<table")[2]) is (number != 3) or number == 3
    assert sorted(seen) == [f"n{n:03d}" for n in range(230)]
    assert "201 to 230 of 230" in words_of(text)
