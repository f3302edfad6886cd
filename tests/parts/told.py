"""A fleet in which every state of a client is there, and what is to be read on the pages that show it."""

import html
import re
from datetime import timedelta
from typing import Any

from sqlalchemy import insert, select

from infoscreen_server.db import writing
from infoscreen_server.models import (
    Client,
    Role,
    User,
)
from infoscreen_server.models_history import Incident, IncidentKind
from infoscreen_shared.messages import ProcessStatus, ScreenHealthStatus
from parts.api import NOW, Api
from parts.fleet import uuid_of
from parts.person import Person, with_user

RUNS = {"process_status": ProcessStatus.RUNNING, "screen_health_status": ScreenHealthStatus.OK}


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
