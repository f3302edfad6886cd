"""Every route against every kind of caller. The routes come from the URL map, so that a new one cannot be forgotten."""

from datetime import timedelta
from typing import NamedTuple

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from infoscreen_server.accounts import Access, add_token, caller_of, revoke_token
from infoscreen_server.app import access_of
from infoscreen_server.context import PROGRAMS
from infoscreen_server.models import Role, Scope, TokenRole, User
from parts.api import NOW, OTHER, UUID, Api
from parts.person import with_user

EXPECTED = {
    "GET /api/client-logs/<uuid>/logs": Access.ADMIN_OR_HIGHER,
    "GET /api/client-logs/<uuid>/export.csv": Access.ADMIN_OR_HIGHER,
    "GET /api/client-logs/<uuid>/export.ndjson": Access.ADMIN_OR_HIGHER,
    "GET /api/client-logs/summary": Access.ADMIN_OR_HIGHER,
    "GET /api/clients": Access.USER_OR_HIGHER,
    "GET /api/clients/<uuid>": Access.USER_OR_HIGHER,
    "GET /api/clients/<uuid>/screenshots": Access.ADMIN_OR_HIGHER,
    "GET /api/clients/<uuid>/screenshots/<id>.jpg": Access.ADMIN_OR_HIGHER,
    "GET /api/clients/<uuid>/timeline": Access.USER_OR_HIGHER,
    "GET /api/clients/<uuid>/incidents": Access.USER_OR_HIGHER,
    "GET /api/reliability": Access.USER_OR_HIGHER,
    "GET /api/reliability.csv": Access.USER_OR_HIGHER,
    "GET /api/issues": Access.SUPERADMIN,
    "POST /api/issues/acknowledge": Access.SUPERADMIN,
    "POST /api/issues/unacknowledge": Access.SUPERADMIN,
    "GET /api/stream": Access.USER_OR_HIGHER,
    "POST /api/ingest/<uuid>/logs": Access.OWN_DEVICE,
    "POST /api/ingest/<uuid>/screenshots": Access.OWN_DEVICE,
    "GET /healthz": Access.PUBLIC,
    "GET /api/openapi.json": Access.PUBLIC,
    "GET /metrics": Access.USER_OR_HIGHER,
    "GET /api-reference": Access.USER_OR_HIGHER,
    "GET /": Access.USER_OR_HIGHER,
    "GET /clients/<uuid>": Access.USER_OR_HIGHER,
    "GET /clients/<uuid>/edit": Access.ADMIN_OR_HIGHER,
    "POST /clients/<uuid>/edit": Access.ADMIN_OR_HIGHER,
    "POST /clients/<uuid>/remove": Access.SUPERADMIN,
    "POST /clients/<uuid>/keep": Access.SUPERADMIN,
    "GET /reliability": Access.USER_OR_HIGHER,
    "PATCH /api/clients/<uuid>": Access.ADMIN_OR_HIGHER,
    "DELETE /api/clients/<uuid>": Access.SUPERADMIN,
    "GET /static/<path:filename>": Access.PUBLIC,
    "GET /sign-in": Access.PUBLIC,
    "POST /sign-in": Access.PUBLIC,
    "POST /sign-out": Access.PUBLIC,
    "POST /display": Access.PUBLIC,
    "GET /set-up/<token>": Access.PUBLIC,
    "POST /set-up/<token>": Access.PUBLIC,
    "GET /clients/<uuid>/logs": Access.ADMIN_OR_HIGHER,
    "GET /system": Access.SUPERADMIN,
    "GET /system/issue": Access.SUPERADMIN,
    "POST /system/acknowledge": Access.SUPERADMIN,
    "POST /system/unacknowledge": Access.SUPERADMIN,
    "GET /account": Access.USER_OR_HIGHER,
    "POST /account/password": Access.USER_OR_HIGHER,
    "POST /account/sessions/end": Access.USER_OR_HIGHER,
    "GET /users": Access.SUPERADMIN,
    "POST /users": Access.SUPERADMIN,
    "POST /users/link": Access.SUPERADMIN,
    "POST /users/role": Access.SUPERADMIN,
    "POST /users/disable": Access.SUPERADMIN,
    "POST /users/enable": Access.SUPERADMIN,
    "GET /api/alerts": Access.ADMIN_OR_HIGHER,
    "GET /api/alerts/silences": Access.ADMIN_OR_HIGHER,
    "POST /api/alerts/silences": Access.ADMIN_OR_HIGHER,
    "POST /api/alerts/silences/end": Access.ADMIN_OR_HIGHER,
    "GET /alerts": Access.ADMIN_OR_HIGHER,
    "GET /alerts/rules": Access.ADMIN_OR_HIGHER,
    "POST /alerts/rules": Access.SUPERADMIN,
    "POST /alerts/rules/edit": Access.SUPERADMIN,
    "POST /alerts/rules/delete": Access.SUPERADMIN,
    "GET /alerts/channels": Access.SUPERADMIN,
    "POST /alerts/channels": Access.SUPERADMIN,
    "POST /alerts/channels/url": Access.SUPERADMIN,
    "POST /alerts/channels/test": Access.SUPERADMIN,
    "POST /alerts/channels/delete": Access.SUPERADMIN,
    "GET /alerts/silences": Access.ADMIN_OR_HIGHER,
    "POST /alerts/silences": Access.ADMIN_OR_HIGHER,
    "POST /alerts/silences/end": Access.ADMIN_OR_HIGHER,
    "GET /alerts/hours": Access.SUPERADMIN,
    "POST /alerts/hours": Access.SUPERADMIN,
    "POST /alerts/hours/delete": Access.SUPERADMIN,
    "GET /tokens": Access.ADMIN_OR_HIGHER,
    "POST /tokens": Access.ADMIN_OR_HIGHER,
    "POST /tokens/revoke": Access.ADMIN_OR_HIGHER,
}
MAY = {
    Access.PUBLIC: {"user", "admin", "superadmin", "own device", "other device"},
    Access.USER_OR_HIGHER: {"user", "admin", "superadmin"},
    Access.ADMIN_OR_HIGHER: {"admin", "superadmin"},
    Access.SUPERADMIN: {"superadmin"},
    Access.OWN_DEVICE: {"own device"},
}
NOBODY = ("none", "expired", "revoked", "garbage", "altered", "cut", "basic", "in the query")
KNOWN = ("user", "admin", "superadmin", "own device", "other device")
SCOPED = ("superadmin, reading", "superadmin, metrics")
SESSIONS = ("session of user", "session of admin", "session of superadmin")
NO_SESSIONS = ("ended session", "session of a disabled user", "forged session", "session and a wrong token")
VALUES = {"<uuid>": UUID, "<id>": "1", "<token>": "none", "<path:filename>": "app.css"}


class Asker(NamedTuple):
    client: FlaskClient
    header: str | None = None
    query: str = ""


@pytest.fixture
def askers(api: Api) -> dict[str, Asker]:
    """Everybody who may come, by what they bring along."""
    token = api.token(TokenRole.SUPERADMIN)
    late = add_token(api.engine, "late", TokenRole.SUPERADMIN, now=NOW - timedelta(2), expires_at=NOW)
    gone = add_token(api.engine, "gone", TokenRole.SUPERADMIN, now=NOW)
    revoke_token(api.engine, gone[:16], NOW)
    reading, metrics = (
        add_token(api.engine, scope, TokenRole.SUPERADMIN, now=NOW, scope=scope)
        for scope in (Scope.READ, Scope.METRICS)
    )
    headers = {
        "none": None,
        "expired": f"Bearer {late}",
        "revoked": f"Bearer {gone}",
        "garbage": "Bearer ' OR 1=1 --",
        "altered": f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
        "cut": f"Bearer {token[:16]}",
        "basic": f"Basic {token}",
        "own device": f"Bearer {api.token(TokenRole.DEVICE, UUID)}",
        "other device": f"Bearer {api.token(TokenRole.DEVICE, OTHER)}",
        "superadmin, reading": f"Bearer {reading}",
        "superadmin, metrics": f"Bearer {metrics}",
    } | {role: f"Bearer {api.token(TokenRole(role))}" for role in ("user", "admin", "superadmin")}
    found = {kind: Asker(api.app.test_client(), header) for kind, header in headers.items()}
    return found | {"in the query": Asker(api.app.test_client(), None, f"?token={token}")} | _sessions(api)


def _sessions(api: Api) -> dict[str, Asker]:
    found = {f"session of {role}": Asker(with_user(api, role, role).client) for role in Role}
    ended = with_user(api, "ended", Role.SUPERADMIN)
    cookie = ended.client.get_cookie("infoscreen")
    assert cookie is not None
    ended.post("/sign-out", "/account")
    ended.client.set_cookie("infoscreen", cookie.value)
    shut_out = with_user(api, "disabled", Role.SUPERADMIN)
    with api.engine.begin() as connection:
        connection.execute(update(User).where(User.name == "disabled").values(disabled=True))
    forged = api.app.test_client()
    forged.set_cookie("infoscreen", f"{cookie.value[:-1]}{'A' if cookie.value[-1] != 'A' else 'B'}")
    both = Asker(with_user(api, "both", Role.SUPERADMIN).client, "Bearer wrong")
    people = (Asker(ended.client), Asker(shut_out.client), Asker(forged), both)
    return found | dict(zip(NO_SESSIONS, people, strict=True))


def routes(api: Api) -> dict[str, tuple[str, str]]:
    """Method and endpoint of every route, by its name; what Flask adds by itself (HEAD, OPTIONS) follows GET."""
    found = {}
    for rule in api.app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            found[f"{method} {rule.rule}"] = (method, rule.endpoint)
    return found


def ask(asker: Asker, route: str, method: str | None = None) -> str:
    """The status; 303 to the sign-in page is told apart."""
    verb, _, path = route.partition(" ")
    for name, value in VALUES.items():
        path = path.replace(name, value)
    headers = {"Authorization": asker.header} if asker.header else {}
    answer = asker.client.open(path + asker.query, method=method or verb, headers=headers)
    answer.close()
    to_sign_in = answer.status_code == 303 and (answer.location or "").startswith("/sign-in")
    return "sign in" if to_sign_in else str(answer.status_code)


def right(route: str, rule: Access, kind: str, status: str) -> bool:
    """Whether this is how such a caller has to be answered on such a route."""
    verb, _, path = route.partition(" ")
    if not path.startswith(PROGRAMS):
        return _right_on_a_page(verb, rule, kind, status)
    if rule is Access.PUBLIC:
        return _is_let_in(status)
    if kind == "superadmin, metrics":
        return _is_let_in(status) if path == "/metrics" else status == "403"
    if kind == "superadmin, reading":
        return _is_let_in(status) if verb == "GET" and "superadmin" in MAY[rule] else status == "403"
    if kind in NOBODY or kind in NO_SESSIONS or (kind in SESSIONS and verb != "GET"):
        return status == "401"
    return _is_let_in(status) if kind.removeprefix("session of ") in MAY[rule] else status == "403"


def _right_on_a_page(verb: str, rule: Access, kind: str, status: str) -> bool:
    """A token is nothing there, and a form that was not asked for is refused even to those who may send it."""
    # A browser sends no Authorization by itself, so it takes nothing from a session.
    role = "superadmin" if kind == "session and a wrong token" else kind.removeprefix("session of ")
    signed = kind in SESSIONS or kind == "session and a wrong token"
    if rule is not Access.PUBLIC and not signed:
        return status == "sign in"
    if rule is not Access.PUBLIC and role not in MAY[rule]:
        return status == "403"
    return _is_let_in(status) if verb == "GET" else status == "400"


def _is_let_in(status: str) -> bool:
    """What the route then says of an empty request is for other tests."""
    return status not in ("401", "403", "500", "sign in")


def test_every_route_has_a_rule_and_an_expectation(api: Api) -> None:
    assert {name: access_of(api.app, endpoint) for name, (_, endpoint) in routes(api).items()} == EXPECTED


def test_who_may_do_what(api: Api, askers: dict[str, Asker]) -> None:
    assert set(askers) == {*KNOWN, *NOBODY, *SCOPED, *SESSIONS, *NO_SESSIONS}
    wrong = []
    for route in routes(api):
        for kind, asker in askers.items():
            status = ask(asker, route)
            if not right(route, EXPECTED[route], kind, status):
                wrong.append((route, kind, status))
    assert wrong == []


def test_methods_that_flask_adds_are_guarded_too(api: Api, askers: dict[str, Asker]) -> None:
    for route in routes(api):
        if EXPECTED[route] is not Access.PUBLIC:
            shut = "401" if route.partition(" ")[2].startswith(PROGRAMS) else "sign in"
            assert ask(askers["none"], route, "OPTIONS") == shut
            assert ask(askers["none"], route, "HEAD") in (shut, "405")


@pytest.mark.parametrize("path", ["/forgotten", "/api/forgotten"])
def test_a_route_without_a_rule_is_for_nobody(api: Api, path: str) -> None:
    api.app.add_url_rule(path, "forgotten", lambda: "secret")
    boss = with_user(api, "boss", Role.SUPERADMIN)
    assert api.client.get(path).status_code in (303, 401)
    assert api.get(path, TokenRole.SUPERADMIN).status_code in (303, 403)
    assert boss.get(path).status_code == 403


def test_a_device_token_takes_the_uuid_in_either_case(api: Api) -> None:
    header = {"Authorization": f"Bearer {api.token(TokenRole.DEVICE, UUID)}"}
    assert api.client.post(f"/api/ingest/{UUID.upper()}/logs", headers=header, json={"batches": []}).status_code == 200


def test_a_refusal_says_how_to_get_in_and_nothing_else(api: Api) -> None:
    refused = api.client.get("/api/clients", headers={"Authorization": "Bearer nosuchtoken"})
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json == {"error": "a valid bearer token is needed"}


def test_last_use_is_written_once_a_minute(api: Api) -> None:
    token = api.token(TokenRole.ADMIN)

    def last_used() -> object:
        with api.engine.connect() as connection:
            return connection.exec_driver_sql("SELECT last_used FROM tokens").scalar_one()

    caller_of(api.engine, token, NOW)
    first = last_used()
    assert first is not None
    caller_of(api.engine, token, NOW + timedelta(seconds=59))
    assert last_used() == first
    caller_of(api.engine, token, NOW + timedelta(seconds=60))
    assert last_used() != first


def test_a_token_ends_when_it_expires(api: Api) -> None:
    token = add_token(api.engine, "short", TokenRole.USER, now=NOW, expires_at=NOW + timedelta(days=1))
    assert caller_of(api.engine, token, NOW + timedelta(hours=23)) is not None
    assert caller_of(api.engine, token, NOW + timedelta(hours=24)) is None


def test_the_database_holds_no_token(api: Api) -> None:
    secret = api.token(TokenRole.ADMIN)[17:]
    assert len(secret) == 43
    with api.engine.connect() as connection:
        (row,) = connection.exec_driver_sql("SELECT * FROM tokens").all()
    assert secret not in repr(row)
