"""The API against its own document: whatever that allows is answered as it says, and never by a fault of the server.

Schemathesis makes the requests, the same ones at every run; half of them break the document on purpose.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from infoscreen_server.app import create_app
from infoscreen_server.config import ServerConfig
from infoscreen_server.models import TokenRole
from parts.api import UUID, Api
from parts.fleet import item
from parts.jpegs import jpeg
from parts.postgres import Postgres

SEED = int(os.environ.get("INFOSCREEN_SEED", "5"))
EXAMPLES = int(os.environ.get("INFOSCREEN_EXAMPLES", "50"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
STREAM = "/api/stream"
"""Its answer never ends."""


def document(app: Any) -> Any:
    return schemathesis.openapi.from_wsgi("/api/openapi.json", app)


def operations() -> list[tuple[str, str]]:
    found = document(create_app(ServerConfig(database_url="sqlite:////never-opened")))
    return [(one.ok().path, one.ok().method) for one in found.get_all_operations()]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """With one client that has said something of everything."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('fuzzed') / 'server.db'}"
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_database()
    running = Api(url)
    running.app.config["PROPAGATE_EXCEPTIONS"] = False
    batches = [
        {
            "level": level,
            "epoch": "e",
            "base": 0,
            "records": [item(seq, running.now, code="x.y") for seq in range(1, 9)],
        }
        for level in ("ERROR", "WARN", "INFO")
    ]
    assert running.post(json={"batches": batches}).status_code == 200
    assert running.upload(jpeg()).status_code in (200, 201)
    yield running
    running.close()


def test_the_document_is_valid_openapi_3_1(api: Api) -> None:
    found = document(api.app)
    assert found.raw_schema["openapi"].startswith("3.1")
    found.validate()


def test_it_says_all_routes_of_the_api(api: Api) -> None:
    told = {path.replace("{", "<").replace("}", ">") for path, _ in operations()}
    there = {rule.rule for rule in api.app.url_map.iter_rules() if rule.rule.startswith("/api/")}
    assert there - told == {"/api/openapi.json"}


@pytest.mark.parametrize(("path", "method"), operations())
@pytest.mark.parametrize("role", [TokenRole.SUPERADMIN, TokenRole.DEVICE])
def test_requests_are_answered_as_the_document_says(api: Api, path: str, method: str, role: TokenRole) -> None:
    operation = document(api.app)[path][method]
    token = api.token(role, UUID if role is TokenRole.DEVICE else None)
    known = {"uuid": UUID} if "{uuid}" in path else None
    cases = st.one_of(
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE, path_parameters=known),
        operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE),
    )
    ask = _look_into_the_stream if path == STREAM else _call

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def fuzz(case: Case[Any]) -> None:
        ask(api, case, {"Authorization": f"Bearer {token}"})

    fuzz()


def _call(_api: Api, case: Case[Any], headers: dict[str, str]) -> None:
    case.call_and_validate(headers=headers, checks=CHECKS)


def _look_into_the_stream(api: Api, case: Case[Any], headers: dict[str, str]) -> None:
    sent = {**dict(case.headers or {}), **headers}
    answer = api.client.get(STREAM, query_string=dict(case.query or {}), headers=sent, buffered=False)
    status = answer.status_code
    answer.close()
    assert status in (200, 400, 403, 429), status
