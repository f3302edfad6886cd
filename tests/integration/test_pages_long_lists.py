"""Lists of what people make, in numbered pages: users, tokens, sessions, silences, opening hours."""

import re
from datetime import timedelta
from html import unescape

import pytest
from sqlalchemy import select

from infoscreen_server.models import Role, Scope, SignIn, Token, TokenRole, User
from infoscreen_server.models_alerts import AlertSilence, OpeningHours
from infoscreen_server.pages.numbered import ROWS
from parts import crowd
from parts.api import Api
from parts.fleet import uuid_of
from parts.person import Person, text_of
from parts.told import add

MAX_BYTES = 200_000


def fill_users(api: Api, count: int) -> None:
    usual = {"password_hash": "", "role": Role.ADMIN, "created_at": api.now}
    add(api, User, *[{"name": f"{number:04d}{'n' * 60}", **usual} for number in range(count)])


def fill_tokens(api: Api, count: int) -> None:
    """A kiosk's each, as where every kiosk sends by HTTP; the texts as long as they may be."""
    usual = {"secret_hash": "", "role": TokenRole.DEVICE, "scope": Scope.ALL, "created_at": api.now}
    ends = {"expires_at": api.now + timedelta(days=9), "last_used": api.now, "created_by": 2}
    add(
        api,
        Token,
        *[
            {"name": f"{n:04d}{'&' * 60}", "prefix": f"isd_{n:012x}", "client_uuid": uuid_of(n), **usual, **ends}
            for n in range(count)
        ],
    )


def fill_sessions(api: Api, count: int) -> None:
    with api.engine.connect() as connection:
        root = connection.scalar(select(User.id).where(User.name == "root"))
    usual = {"user_id": root, "created_at": api.now, "browser": "&" * 200}
    times = [api.now - timedelta(seconds=number) for number in range(count)]
    add(api, SignIn, *[{"token_hash": f"{n:064x}", "last_used": times[n], **usual} for n in range(count)])


def fill(api: Api) -> None:
    fill_users(api, 300)
    fill_tokens(api, 1000)
    fill_sessions(api, 300)
    crowd.fill(api.engine.url.render_as_string(hide_password=False), api.now, count=1)


LISTS = {
    "/users": (User, "name"),
    "/tokens": (Token, "prefix"),
    "/account": (SignIn, "token_hash"),
    "/alerts/silences": (AlertSilence, "id"),
    "/alerts/hours": (OpeningHours, "tag"),
}
MARKS = {
    "/users": r'aria-label="Change the role of ([^"]+)"',
    "/tokens": r"<code class=\"hint\">(\w+?)_…",
    "/account": r'name="session" value="(\w+)"',
    "/alerts/silences": r'name="id" value="(\d+)"',
    "/alerts/hours": r'name="tag" value="([^"]*)"><button',
}
"""What stands once in each row."""


def test_no_page_grows_with_its_list_and_all_of_it_can_be_reached(api: Api, root: Person) -> None:
    fill(api)
    for path, (table, key) in LISTS.items():
        with api.engine.connect() as connection:
            expected = {str(each) for each in connection.scalars(select(getattr(table, key)))}
        seen: list[str] = []
        following: str | None = path
        while following:
            answer = root.get(following)
            assert len(answer.data) < MAX_BYTES, (following, len(answer.data))
            rows = re.findall(MARKS[path], answer.text)
            assert 0 < len(rows) <= ROWS
            seen += map(unescape, rows)
            found = re.search(r'rel="next" href="([^"]+)"', answer.text)
            following = unescape(found[1]) if found else None
        if path == "/account":  # One's own session has no button.
            assert len(expected) == len(seen) + 1
            expected = set(seen)
        assert (len(seen), set(seen)) == (len(expected), expected), path


def test_rules_are_few_enough_for_one_page(api: Api, root: Person) -> None:
    """Their number has a bound."""
    fill(api)
    for path in ("/alerts/rules", "/alerts/rules?rule=40", "/alerts/channels", "/alerts"):
        assert len(root.get(path).data) < MAX_BYTES, path
    assert "… and 42 more" in text_of(root.get("/alerts/rules"))


def test_one_is_found_by_a_part_of_its_name(api: Api, root: Person) -> None:
    fill_users(api, 60)
    fill_tokens(api, 60)
    assert re.findall(MARKS["/users"], root.get("/users?q=ROO").text) == ["root"]
    found = root.get(f"/tokens?q={uuid_of(17)}")
    assert re.findall(MARKS["/tokens"], found.text) == [f"isd_{17:012x}"]
    assert f'value="{uuid_of(17)}"' in found.text, "the field keeps what was looked for"
    assert len(re.findall(MARKS["/tokens"], root.get("/tokens?q=0000nn").text)) == ROWS, "who made them is a name too"
    assert 'rel="next" href="/tokens?q=0000nn&amp;page=2"' in root.get("/tokens?q=0000nn").text
    none = root.get("/tokens?q=nobody")
    assert "Nothing matches." in text_of(none)
    assert "No tokens yet" not in none.text


def test_a_short_list_has_nothing_to_search_in(api: Api, root: Person) -> None:
    fill_tokens(api, ROWS)
    for path in ("/users", "/tokens"):
        text = root.get(path).text
        assert 'role="search"' not in text
        assert 'rel="next"' not in text


def test_what_is_done_leads_back_to_the_same_page(api: Api, root: Person) -> None:
    fill_tokens(api, 60)
    page = root.get("/tokens?page=2&q=isd").text
    action = unescape(re.findall(r'action="(/tokens/revoke[^"]*)"', page)[0])
    prefix = re.findall(MARKS["/tokens"], page)[0]
    assert root.post(action, "/tokens", prefix=prefix).location == "/tokens?q=isd&page=2"
    gone = root.post(action, "/tokens", prefix="isd_nobody")
    assert gone.status_code == 409
    assert 'rel="prev" href="/tokens?q=isd"' in gone.text
    assert len(re.findall(MARKS["/tokens"], gone.text)) == ROWS


@pytest.mark.parametrize("asked", ["99", "0", "-1", "x", "9" * 40, "²"])
def test_a_page_that_there_is_not(api: Api, root: Person, asked: str) -> None:
    fill_users(api, 30)
    rows = re.findall(MARKS["/users"], root.get(f"/users?page={asked}").text)
    assert len(rows) == (31 - ROWS if asked == "99" else ROWS)


def test_only_what_is_silent_is_said_to_be_so(api: Api, root: Person) -> None:
    """Behind the page with the last silence in force come those to come, and not the word that all is sent."""
    row = {"scope": "site", "note": "", "by": "root", "created_at": api.now, "ends_at": None}
    times = [api.now - timedelta(hours=1)] * ROWS + [api.now + timedelta(hours=1)] * 3
    add(api, AlertSilence, *[{"target": f"Site {n}", "starts_at": when, **row} for n, when in enumerate(times)])
    first, second = (text_of(root.get(f"/alerts/silences?page={number}")) for number in (1, 2))
    assert ("Silent now" in first, "To come" in first) == (True, False)
    assert ("Silent now" in second, "To come" in second) == (False, True)
    assert "every alert is sent" not in first + second
