"""What people call a client: who may say it, by form and by program, and what is refused."""

import re
from typing import Any

import pytest

from infoscreen_server.models import (
    Role,
    TokenRole,
)
from parts.api import Api
from parts.fleet import uuid_of
from parts.told import page, told_fleet, visitor


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
