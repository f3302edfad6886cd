"""The end of a screen, by form and by program: who may ask for it, what is said of it, and the way back."""

import logging
from typing import Any

import pytest

from infoscreen_server import removal
from infoscreen_server.models import Role, TokenRole
from parts.api import NOW, Api
from parts.fleet import finish_removals, uuid_of
from parts.told import names, page, row_of, told_fleet, visitor, words_of

REMOVING = "This screen is being removed."


def test_a_superadmin_removes_a_screen(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "infoscreen_server.audit")
    uuid = told_fleet(api)["black"]
    edit, boss = f"/clients/{uuid}/edit", visitor(api, Role.SUPERADMIN)
    form = boss.get(edit).get_data(as_text=True)
    assert "Remove for good" in form
    assert 'data-confirm="black and all that is known of it is deleted for good."' in form
    assert "It is online. A kiosk that is still running comes back as a new screen" in words_of(form)
    answer = boss.post(f"/clients/{uuid}/remove", edit)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    listed = boss.get("/").get_data(as_text=True)
    assert "black is being removed. That takes up to a minute" in words_of(listed)
    assert "being removed" in row_of(listed, "black")
    assert listed.count("being removed</span>") == 1
    finish_removals(api.engine)
    listed = boss.get("/").get_data(as_text=True)
    assert "black" not in names(listed)
    assert len(names(listed)) == 12
    assert "being removed" not in listed
    assert boss.get(f"/clients/{uuid}").status_code == 404
    assert boss.get(edit).status_code == 404
    (line,) = [record.getMessage() for record in caplog.records if "removal" in record.getMessage()]
    assert line == f"removal asked for: client='{uuid}' name='black' by='superadmin' address='192.0.2.1'"


def test_it_may_be_kept_as_long_as_it_is_there(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "infoscreen_server.audit")
    uuid = told_fleet(api)["gone"]
    here, edit, boss = f"/clients/{uuid}", f"/clients/{uuid}/edit", visitor(api, Role.SUPERADMIN)
    assert "It is online" not in page(api, edit, Role.SUPERADMIN)
    boss.post(f"/clients/{uuid}/remove", edit)
    assert "Remove for good" not in page(api, edit, Role.SUPERADMIN)
    for path in (here, edit):
        told = page(api, path, Role.SUPERADMIN)
        assert f"{REMOVING} Asked for by superadmin (" in words_of(told)
        assert "Keep this screen" in told
    answer = boss.post(f"/clients/{uuid}/keep", here)
    assert (answer.status_code, answer.headers["Location"]) == (303, here)
    told = boss.get(here).get_data(as_text=True)
    assert "This screen stays. What was deleted before is gone." in told
    assert REMOVING not in told
    again = boss.post(f"/clients/{uuid}/keep", here)
    assert (again.status_code, again.headers["Location"]) == (303, here)
    finish_removals(api.engine)
    boss.post(f"/clients/{uuid}/remove", edit)
    finish_removals(api.engine)
    late = boss.post(f"/clients/{uuid}/keep", "/")
    assert (late.status_code, late.headers["Location"]) == (303, "/")
    assert "It is too late: this screen is removed." in boss.get("/").get_data(as_text=True)
    lines = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert [line for line in lines if "removal" in line] == [
        "removal asked for", "removal taken back", "removal asked for",
    ]  # fmt: skip


def test_who_may_remove(api: Api) -> None:
    uuid = told_fleet(api)["black"]
    edit = f"/clients/{uuid}/edit"
    assert "Remove" not in page(api, edit, Role.ADMIN)
    for role, form in ((Role.USER, "/account"), (Role.ADMIN, edit)):
        for word in ("remove", "keep"):
            assert visitor(api, role).post(f"/clients/{uuid}/{word}", form).status_code == 403
    boss = visitor(api, Role.SUPERADMIN)
    assert boss.client.post(f"/clients/{uuid}/remove").status_code == 400, "a form that was not asked for"
    finish_removals(api.engine)
    assert api.get(f"/api/clients/{uuid}").status_code == 200
    assert boss.post(f"/clients/{uuid_of(99)}/remove", edit).status_code == 404
    assert boss.post("/clients/nonsense/remove", edit).status_code == 404
    assert boss.post("/clients/nonsense/keep", edit).status_code == 404
    boss.post(f"/clients/{uuid}/remove", edit)
    for role in (Role.USER, Role.ADMIN):
        told = page(api, f"/clients/{uuid}", role)
        assert REMOVING in told
        assert "Keep this screen" not in told


def test_where_none_may_register_it_is_turned_away(database_url: str) -> None:
    api = Api(database_url, auto_register=False)
    uuid = told_fleet(api)["black"]
    told = words_of(page(api, f"/clients/{uuid}/edit", Role.SUPERADMIN))
    assert "is turned away from then on" in told
    assert "comes back" not in told
    api.close()


def delete(api: Api, uuid: str, role: TokenRole = TokenRole.SUPERADMIN) -> Any:
    return api.client.delete(f"/api/clients/{uuid}", headers={"Authorization": f"Bearer {api.token(role)}"})


def test_a_program_removes_a_screen(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "infoscreen_server.audit")
    uuid = told_fleet(api)["black"]
    assert delete(api, uuid, TokenRole.ADMIN).status_code == 403
    assert delete(api, uuid_of(99)).status_code == 404
    assert delete(api, "nonsense").status_code == 400
    for asked in (uuid.upper(), uuid):
        answer = delete(api, asked)
        assert (answer.status_code, answer.json) == (202, {"removing": True})
    with api.engine.connect() as connection:
        assert removal.pending(connection) == {uuid: removal.Asked(NOW, "superadmin")}
    finish_removals(api.engine)
    assert api.get(f"/api/clients/{uuid}").status_code == 404
    assert delete(api, uuid).status_code == 404
    first = next(record.getMessage() for record in caplog.records)
    assert first.startswith(f"removal asked for: client='{uuid}' by='superadmin'")
    document: Any = api.client.get("/api/openapi.json").json
    answers = document["paths"]["/api/clients/{uuid}"]["delete"]["responses"]
    assert {"202", "401", "403", "404"} <= set(answers)
    assert "200" not in answers


def test_the_device_is_shut_out_at_the_end(api: Api) -> None:
    uuid = told_fleet(api)["black"]
    assert api.post(uuid, json={"batches": []}).status_code == 200
    delete(api, uuid)
    assert api.post(uuid, json={"batches": []}).status_code == 200
    finish_removals(api.engine)
    assert api.post(uuid, json={"batches": []}).status_code == 401
