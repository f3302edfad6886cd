"""What must not work on any page, form or file; the routes come from the URL map, so that none can be forgotten.

Signing in, its brakes and its sessions are in test_sign_in, single exports in test_export; what a browser makes of
hostile texts is in tests/browser.
"""

import csv
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import inspect, text

from infoscreen_server import accounts
from infoscreen_server.accounts import add_user
from infoscreen_server.models import Role, TokenRole
from infoscreen_shared.messages import MAX_PAYLOAD_BYTES
from parts.api import UUID, Api
from parts.dashboard import routes_of
from parts.fleet import item
from parts.person import PASSWORD, Person, with_user

DEEP = 100_000
NAMES = ("q", "level", "code", "since", "until", "range", "before", "after", "id", "state", "tag", "location", "period")
"""Of parameters that pages know, some of them."""
LINE_BREAKS = "\r\nERROR forged \n\x1b[2J\u2028\x85"
FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1")


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    batch = {"level": "ERROR", "epoch": "e", "base": 0, "records": [item(1, running.now, code="x.y")]}
    assert running.post(json=batch).status_code == 200
    yield running
    running.close()


@pytest.fixture
def boss(api: Api) -> Person:
    return with_user(api, "boss", Role.SUPERADMIN)


def address(rule: str) -> str:
    return re.sub("<[^>]*token>", "none", re.sub("<[^>]*uuid>", UUID, re.sub("<path:[^>]*>", "app.css", rule)))


# --- headers ----------------------------------------------------------------------------------------------------------


def test_every_answer_says_what_a_browser_may_do(api: Api, boss: Person) -> None:
    """Refusals and errors too; a policy with 'unsafe' anywhere is none."""
    stranger = Person(api)
    for route in routes_of(api.app):
        if route.method != "GET":
            continue
        for person in (boss, stranger):
            _check_headers(person.get(address(route.rule)))
    for path in ("/no-such-page", f"/clients/{UUID[:-1]}", "/api/no-such", f"/api/clients/{UUID}", "/static/none.js"):
        _check_headers(boss.get(path))


def _check_headers(answer: Any) -> None:
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert "unsafe" not in str(policy)
    assert "*" not in str(policy)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] in ("same-origin", "strict-origin", "no-referrer")
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    if answer.mimetype == "text/html":
        assert answer.headers["Cache-Control"] == "no-store"
    answer.close()


def test_pages_have_nothing_inline(api: Api, boss: Person) -> None:
    """The policy would refuse it, and the page would be broken."""
    for route in routes_of(api.app):
        if route.is_page:
            html = boss.get(address(route.rule)).text
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", html), route


# --- forms ------------------------------------------------------------------------------------------------------------


def _everything(api: Api) -> dict[str, list[Any]]:
    """All rows of all tables but of what notes that somebody was here."""
    tables = sorted(set(inspect(api.engine).get_table_names()) - {"sign_ins"})
    with api.engine.connect() as connection:
        return {name: sorted(map(repr, connection.execute(text(f"SELECT * FROM {name}")))) for name in tables}


@pytest.mark.parametrize("token", ["", "wrong", "another's"])
def test_no_form_is_taken_without_its_token(api: Api, boss: Person, token: str) -> None:
    other = with_user(api, "other", Role.SUPERADMIN)
    sent = other.csrf("/account") if token == "another's" else token
    forms = [route for route in routes_of(api.app) if route.method == "POST"]
    assert len(forms) > 10
    before = _everything(api)
    for route in forms:
        fields = {"csrf_token": sent, "name": "new", "role": "superadmin", "user": "1", "password": PASSWORD}
        answer = boss.client.post(address(route.rule), data=fields, headers={"Referer": "https://evil.example/"})
        assert answer.status_code == 400, route
    assert _everything(api) == before
    assert boss.is_signed_in()


def test_forms_with_the_token_in_the_wrong_place(api: Api, boss: Person) -> None:
    """In a query or a cookie it would be sent by a link, or by the browser itself."""
    token = boss.csrf("/account")
    boss.client.set_cookie("csrf_token", token)
    assert boss.client.post(f"/sign-out?csrf_token={token}").status_code == 400
    assert boss.is_signed_in()


def test_a_form_of_another_site_behind_https_is_refused(api: Api, boss: Person) -> None:
    fields = {"csrf_token": boss.csrf("/account")}
    answer = boss.client.post(
        "/sign-out", data=fields, base_url="https://localhost", headers={"Referer": "https://evil.example/"}
    )
    assert answer.status_code == 400


# --- who asks ---------------------------------------------------------------------------------------------------------


def test_unknown_names_cost_as_much_as_known_ones(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reason for a refusal, one password is hashed: the time tells nothing."""
    calls: list[str] = []
    hasher = accounts._hasher()
    verify = type(hasher).verify

    def counted(self: Any, *what: Any) -> Any:
        calls.append("hash")
        return verify(self, *what)

    monkeypatch.setattr(type(hasher), "verify", counted)
    add_user(api.engine, "anna", PASSWORD, Role.USER, api.now)
    add_user(api.engine, "gone", PASSWORD, Role.USER, api.now)
    with api.engine.begin() as connection:
        connection.execute(text("UPDATE users SET disabled = :yes WHERE name = 'gone'"), {"yes": True})
    told = set()
    for name, password in (("anna", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("\0", "x"), ("", "")):
        calls.clear()
        answer = Person(api, f"192.0.2.{len(name)}").sign_in(name, password)
        told.add((answer.status_code, len(calls), re.sub(r'value="[^"]*"', "", answer.text)))
    assert len(told) == 1
    assert next(iter(told))[:2] == (401, 1)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost@evil.example", "evil.example/x", "a b"])
def test_the_host_header_is_no_address_of_ours(api: Api, boss: Person, host: str) -> None:
    """Redirects stay relative, and no page names the host that was asked for."""
    stranger = Person(api)
    for path in ("/", "/account", f"/clients/{UUID}/logs", "/sign-in", "/api-reference", "/system"):
        for person in (boss, stranger):
            answer = person.client.get(path, headers={"Host": host})
            assert "evil" not in answer.headers.get("Location", "")
            assert "evil" not in answer.text


# --- what lands in the log and in files -------------------------------------------------------------------------------


def test_no_request_forges_a_line_of_the_log(api: Api, boss: Person, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stranger = Person(api)
    stranger.sign_in(f"anna{LINE_BREAKS}", "wrong password")
    boss.post("/users", name=f"x{LINE_BREAKS}", role="user")
    boss.post("/tokens", name=f"x{LINE_BREAKS}", role="user", scope="all", days="1")
    boss.post("/users/role", "/users", user=f"1{LINE_BREAKS}", role=f"user{LINE_BREAKS}")
    for path in ("/clients/%0d%0aERROR%20forged", "/no%0d%0aERROR%20forged", "/?q=%0d%0aERROR%20forged%E2%80%A8"):
        boss.get(path)
        api.get(f"/api{path}")
    hostile = {"X-Forwarded-For": "1.2.3.4\u2028forged", "User-Agent": "x\x1b[2Jforged"}
    stranger.client.post("/sign-in", data={"csrf_token": stranger.csrf("/sign-in")}, headers=hostile)
    api.post(json={"level": f"ERROR{LINE_BREAKS}", "records": []})
    api.upload(b"no picture", id=f"x{LINE_BREAKS}", reason=LINE_BREAKS)
    assert any("sign-in failed" in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        assert record.getMessage().isprintable(), repr(record.getMessage())


@pytest.mark.parametrize("separator", ["comma", "semicolon"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_of_any_file_is_a_formula(api: Api, boss: Person, formula: str, separator: str) -> None:
    record = item(2, api.now, code=formula[:64]) | {"message": formula, "context": {formula: formula}}
    assert api.post(json={"level": "ERROR", "epoch": "e", "base": 0, "records": [record]}).status_code == 200
    files = [rule for rule in map(str, api.app.url_map.iter_rules()) if rule.endswith(".csv")]
    assert files
    for rule in files:
        answer = boss.get(f"{address(rule)}?separator={separator}")
        if answer.status_code == 400:
            answer = boss.get(address(rule))
        assert answer.status_code == 200
        assert "attachment" in answer.headers["Content-Disposition"]
        lines = list(
            csv.reader(io.StringIO(answer.text.lstrip("\ufeff")), delimiter={"comma": ",", "semicolon": ";"}[separator])
        )
        assert len(lines) > 1
        cells = [cell for line in lines for cell in line]
        assert not [cell for cell in cells if re.match(r"\s*[=+@\-＝＋－＠]", cell) or (cell[:1] in "\t\r" and cell)], (
            rule
        )


# --- too much ---------------------------------------------------------------------------------------------------------


def _deep(kind: str) -> bytes:
    return (b"[" * DEEP + b"]" * DEEP) if kind == "list" else (b'{"a":' * DEEP + b"1" + b"}" * DEEP)


@pytest.mark.parametrize("kind", ["list", "object"])
def test_deeply_nested_json_is_refused(api: Api, kind: str) -> None:
    deep = _deep(kind)
    assert api.post(data=deep, content_type="application/json").status_code == 400
    inside = b'{"level":"ERROR","records":[{"timestamp":"2026-06-01T00:00:00Z","message":"m","context":' + deep + b"}]}"
    assert api.post(data=inside[:MAX_PAYLOAD_BYTES], content_type="application/json").status_code == 400
    for rule in api.app.url_map.iter_rules():
        if rule.rule.startswith("/api/") and rule.methods and "PATCH" in rule.methods:
            headers = {"Authorization": f"Bearer {api.token(TokenRole.SUPERADMIN)}"}
            answer = api.client.patch(address(rule.rule), data=deep, headers=headers, content_type="application/json")
            assert answer.status_code == 400


def test_what_is_stored_nested_is_shown(api: Api, boss: Person) -> None:
    context: Any = "bottom"
    for _ in range(60):
        context = {"a": [context]}
    record = item(2, api.now) | {"context": {"deep": context}}
    assert api.post(json={"level": "ERROR", "epoch": "e", "base": 0, "records": [record]}).status_code == 200
    for path in (f"/clients/{UUID}/logs", "/system", f"/clients/{UUID}"):
        assert boss.get(path).status_code == 200


def test_bodies_that_are_too_large_are_refused_by_every_form(api: Api, boss: Person) -> None:
    token = boss.csrf("/account")
    large = {"csrf_token": token, "name": "x" * (MAX_PAYLOAD_BYTES + 1)}
    many = {"csrf_token": token, **{f"f{number}": "" for number in range(2000)}}
    for route in routes_of(api.app):
        if route.method == "POST":
            assert boss.client.post(address(route.rule), data=large).status_code == 413, route
            parts = boss.client.post(address(route.rule), data=many, content_type="multipart/form-data")
            assert parts.status_code in (400, 413), route
    assert boss.is_signed_in()


def test_long_and_odd_addresses_are_borne(api: Api, boss: Person) -> None:
    odd = (
        "x" * 5000,
        "%00",
        "%ff%fe",
        "%F0%9F%92%A9",
        "%25",
        "_",
        "'",
        '"',
        "' OR 1=1 --",
        "\\",
        "9" * 400,
        "-1",
        "[]",
    )
    for route in routes_of(api.app):
        if not route.is_page:
            continue
        for number, value in enumerate(odd):
            for query in ("&".join(f"{name}={value}" for name in NAMES), f"{NAMES[number % len(NAMES)]}={value}"):
                status = boss.get(f"{address(route.rule)}?{query}").status_code
                assert status in (200, 303, 400, 404), (route.rule, query, status)


# --- wildcards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "found"), [("100%25", 1), ("%25", 1), ("a_b", 1), ("_", 1), ("\\", 1), ("aXb", 1)])
def test_signs_of_sql_are_only_signs(api: Api, boss: Person, asked: str, found: int) -> None:
    texts = ("full to 100%", "a_b", "aXb", "C:\\x", "none of them")
    records = [item(2 + number, api.now) | {"message": one, "context": {}} for number, one in enumerate(texts)]
    assert api.post(json={"level": "ERROR", "epoch": "e", "base": 0, "records": records}).status_code == 200
    answer = api.get(f"/api/client-logs/{UUID}/logs?q={asked}")
    assert len(answer.json["logs"]) == found, json.dumps([log["message"] for log in answer.json["logs"]])
    html = boss.get(f"/clients/{UUID}/logs?q={asked}").text
    assert "none of them" not in html
