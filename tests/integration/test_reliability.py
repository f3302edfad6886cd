"""What is read for reliability, beside the rule over the same incidents as they were made up."""

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from infoscreen_server.models import Client
from infoscreen_server.models_history import Incident, IncidentKind
from infoscreen_server.reliability import (
    Window,
    daily,
    daily_availability,
    fleet_reliability,
    last_days,
    measured,
    observed,
)
from parts.api import NOW, Api
from parts.told import add, client_row, incident

CLIENTS = 60
HOUR = timedelta(hours=1)
DAYS = 4
FIGURES = ("availability", "incidents", "mtbf_s", "mttr_s", "down_s", "observed_s", "reachable")


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    yield running
    running.close()


class MadeUp:
    """Clients of all sorts. Half of the times are whole hours, so that incidents touch, nest and end at borders."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clients = [self._client(number) for number in range(CLIENTS)]
        self.incidents = [one for client in self.clients for one in self._incidents(client["uuid"])]

    def _ago(self, days: float) -> Any:
        hours = self.chance.uniform(0, days * 24)
        return NOW - (round(hours) if self.chance.random() < 0.5 else hours) * HOUR

    def _client(self, number: int) -> dict[str, Any]:
        alive = self.chance.choice([NOW, NOW, self._ago(DAYS), self._ago(2 * DAYS), None])
        registered_at = NOW - 90 * 24 * HOUR if self.chance.random() < 0.5 else self._ago(DAYS)
        location = "Graz" if number % 3 else "Linz"
        return client_row(number, registered_at=registered_at, last_alive=alive, online=alive == NOW, location=location)

    def _incidents(self, uuid: str) -> Iterator[dict[str, Any]]:
        lasting: set[IncidentKind] = set()
        for _ in range(self.chance.randrange(12)):
            kind, began_at = self.chance.choice(list(IncidentKind)), self._ago(2 * DAYS)
            if kind not in lasting and self.chance.random() < 0.1:
                lasting.add(kind)
                yield incident(uuid, began_at, None, kind=kind)
            else:
                length = self.chance.choice([0 * HOUR, HOUR, 5 * HOUR, self.chance.uniform(0, 50) * HOUR])
                yield incident(uuid, began_at, began_at + length, kind=kind)

    def outages(self, uuid: str, *, link: bool) -> list[Any]:
        found = [one for one in self.incidents if one["client_uuid"] == uuid]
        times = [(one["began_at"], one["ended_at"]) for one in found if (one["kind"] is IncidentKind.LINK) is link]
        return sorted(times, key=lambda pair: pair[0])

    def known(self, client: dict[str, Any], window: Window) -> Window:
        return observed(window, client["registered_at"], client["last_alive"], online=client["online"])

    def figures(self, client: dict[str, Any], window: Window) -> tuple[Any, ...]:
        """In the order of FIGURES."""
        known = self.known(client, window)
        found = measured(self.outages(client["uuid"], link=False), known)
        present = Window(known.start, max(known.start, window.end))
        link = measured(self.outages(client["uuid"], link=True), present)
        lengths = (found.between_failures, found.to_repair, found.down, found.observed)
        mtbf, mttr, down, seen = (None if each is None else each.total_seconds() for each in lengths)
        reachable = None if client["last_alive"] is None else link.availability
        return found.availability, found.incidents, mtbf, mttr, down, seen, reachable


@pytest.fixture(params=range(3))
def made_up(request: pytest.FixtureRequest, api: Api) -> MadeUp:
    found = MadeUp(request.param)
    add(api, Client, *found.clients)
    add(api, Incident, *found.incidents)
    return found


def by_uuid(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {row["uuid"]: tuple(row[name] for name in FIGURES) for row in rows}


def test_the_figures_are_those_of_the_rule(api: Api, made_up: MadeUp) -> None:
    in_linz = {client["uuid"] for client in made_up.clients if client["location"] == "Linz"}
    one = made_up.clients[7]["uuid"]
    for start, end in ((DAYS * 24, 0), (24, 0), (50.5, 20), (3, 3), (90 * 24, -7)):
        window = Window(NOW - start * HOUR, NOW - end * HOUR)
        until_now = Window(window.start, min(window.end, NOW))
        expected = {client["uuid"]: made_up.figures(client, until_now) for client in made_up.clients}
        for conditions, uuids in (
            ([], expected.keys()),
            ([Client.location == "Linz"], in_linz),
            ([Client.uuid == one], {one}),
            ([Client.location == "nowhere"], set()),
        ):
            with api.engine.connect() as connection:
                rows = fleet_reliability(connection, *window, NOW, conditions)
            assert by_uuid(rows) == {uuid: expected[uuid] for uuid in uuids}


def test_the_api_says_the_same(api: Api, made_up: MadeUp) -> None:
    listed = api.get("/api/reliability?period=7d").json["clients"]
    window = Window(NOW - 7 * 24 * HOUR, NOW)
    assert by_uuid(listed) == {client["uuid"]: made_up.figures(client, window) for client in made_up.clients}


def test_days_are_those_of_the_rule(api: Api, made_up: MadeUp) -> None:
    some, days = made_up.clients[10:40], last_days(NOW, DAYS)
    with api.engine.connect() as connection:
        found = daily_availability(connection, [client["uuid"] for client in some], DAYS, NOW)
    window = Window(days[0].start, NOW)
    assert found == {
        client["uuid"]: daily(made_up.outages(client["uuid"], link=False), made_up.known(client, window), days)
        for client in some
    }
