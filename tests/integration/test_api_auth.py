"""Every route against every kind of caller. The routes come from the URL map, so that a new one cannot be forgotten."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from infoscreen_server.accounts import Access, add_token, caller_of, revoke_token
from infoscreen_server.app import access_of
from infoscreen_server.models import TokenRole
from parts.api import NOW, OTHER, UUID, Api

EXPECTED = {
    "GET /api/client-logs/<uuid>/logs": Access.ADMIN_OR_HIGHER,
    "GET /api/client-logs/summary": Access.ADMIN_OR_HIGHER,
    "GET /api/clients": Access.USER_OR_HIGHER,
    "GET /api/clients/<uuid>": Access.USER_OR_HIGHER,
    "GET /api/clients/<uuid>/screenshots": Access.ADMIN_OR_HIGHER,
    "GET /api/clients/<uuid>/screenshots/<id>.jpg": Access.ADMIN_OR_HIGHER,
    "POST /api/ingest/<uuid>/logs": Access.OWN_DEVICE,
    "POST /api/ingest/<uuid>/screenshots": Access.OWN_DEVICE,
    "GET /healthz": Access.PUBLIC,
    "GET /api/openapi.json": Access.PUBLIC,
}
MAY = {
    Access.PUBLIC: {"user", "admin", "superadmin", "own device", "other device"},
    Access.USER_OR_HIGHER: {"user", "admin", "superadmin"},
    Access.ADMIN_OR_HIGHER: {"admin", "superadmin"},
    Access.OWN_DEVICE: {"own device"},
}
NOBODY = ("none", "expired", "revoked", "garbage", "altered", "cut", "basic", "in the query")
KNOWN = ("user", "admin", "superadmin", "own device", "other device")


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    yield running
    running.close()


def routes(api: Api) -> dict[str, tuple[str, str]]:
    """Method and endpoint of every route, by its name; what Flask adds by itself (HEAD, OPTIONS) follows GET."""
    found = {}
    for rule in api.app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            found[f"{method} {rule.rule}"] = (method, rule.endpoint)
    return found


def header_of(api: Api, kind: str) -> str | None:
    token = api.token(TokenRole.SUPERADMIN)
    late = add_token(api.engine, "late", TokenRole.SUPERADMIN, now=NOW - timedelta(2), expires_at=NOW)
    gone = add_token(api.engine, "gone", TokenRole.SUPERADMIN, now=NOW)
    revoke_token(api.engine, gone[:16], NOW)
    by_kind = {
        "none": None,
        "in the query": None,
        "expired": f"Bearer {late}",
        "revoked": f"Bearer {gone}",
        "garbage": "Bearer ' OR 1=1 --",
        "altered": f"Bearer {token[:-1]}{'A' if token[-1] != 'A' else 'B'}",
        "cut": f"Bearer {token[:16]}",
        "basic": f"Basic {token}",
        "own device": f"Bearer {api.token(TokenRole.DEVICE, UUID)}",
        "other device": f"Bearer {api.token(TokenRole.DEVICE, OTHER)}",
    }
    return by_kind[kind] if kind in by_kind else f"Bearer {api.token(TokenRole(kind))}"


def ask(api: Api, route: str, kind: str, method: str | None = None) -> int:
    verb, _, path = route.partition(" ")
    header = header_of(api, kind)
    query = f"?token={api.token(TokenRole.SUPERADMIN)}" if kind == "in the query" else ""
    address = path.replace("<uuid>", UUID).replace("<id>", "1") + query
    return api.client.open(
        address, method=method or verb, headers={"Authorization": header} if header else {}
    ).status_code


def test_every_route_has_a_rule_and_an_expectation(api: Api) -> None:
    assert {name: access_of(api.app, endpoint) for name, (_, endpoint) in routes(api).items()} == EXPECTED


def test_who_may_do_what(api: Api) -> None:
    wrong = []
    for route in routes(api):
        rule = EXPECTED[route]
        for kind in (*KNOWN, *NOBODY):
            status = ask(api, route, kind)
            if kind in NOBODY and rule is not Access.PUBLIC:
                right = status == 401
            elif kind in KNOWN and kind not in MAY[rule]:
                right = status == 403
            else:
                # Let in: what the route then says of an empty request is for other tests.
                right = status not in (401, 403, 500)
            if not right:
                wrong.append((route, kind, status))
    assert wrong == []


def test_methods_that_flask_adds_are_guarded_too(api: Api) -> None:
    for route in routes(api):
        if EXPECTED[route] is not Access.PUBLIC:
            assert ask(api, route, "none", "OPTIONS") == 401
            assert ask(api, route, "none", "HEAD") in (401, 405)


def test_a_route_without_a_rule_is_for_nobody(api: Api) -> None:
    api.app.add_url_rule("/forgotten", "forgotten", lambda: "secret")
    assert api.client.get("/forgotten").status_code == 401
    assert api.get("/forgotten", TokenRole.SUPERADMIN).status_code == 403


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
