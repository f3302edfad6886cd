"""What is read for reliability, beside the rule over the same incidents as they were made up."""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from infoscreen_server import housekeeping
from infoscreen_server.models import Client
from infoscreen_server.models_history import Incident, IncidentKind, SpanKind, StateSpan
from infoscreen_server.reliability import (
    Window,
    daily,
    daily_availability,
    fleet_reliability,
    last_days,
    measured,
    observed,
    together,
)
from infoscreen_shared.messages import timestamp_text
from parts.api import NOW, Api
from parts.told import add, client_row, incident, page

CLIENTS = 60
HOUR = timedelta(hours=1)
DAYS = 4
KEPT = 90 * 24 * HOUR
FIGURES = ("availability", "incidents", "mtbf_s", "mttr_s", "down_s", "observed_s", "reachable")


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
                rows = fleet_reliability(connection, *window, NOW, conditions, retention=KEPT)
            assert by_uuid(rows) == {uuid: expected[uuid] for uuid in uuids}


def test_the_api_says_the_same(api: Api, made_up: MadeUp) -> None:
    listed = api.get("/api/reliability?period=7d").json["clients"]
    window = Window(NOW - 7 * 24 * HOUR, NOW)
    assert by_uuid(listed) == {client["uuid"]: made_up.figures(client, window) for client in made_up.clients}


def test_days_are_those_of_the_rule(api: Api, made_up: MadeUp) -> None:
    some, days = made_up.clients[10:40], last_days(NOW, DAYS)
    with api.engine.connect() as connection:
        found = daily_availability(connection, [client["uuid"] for client in some], DAYS, NOW, retention=KEPT)
    window = Window(days[0].start, NOW)
    assert found == {
        client["uuid"]: daily(made_up.outages(client["uuid"], link=False), made_up.known(client, window), days)
        for client in some
    }


def test_the_days_together_are_the_same_time_as_one_window(api: Api, made_up: MadeUp) -> None:
    """The card of the list beside the page of reliability."""
    uuids = [client["uuid"] for client in made_up.clients]
    start = last_days(NOW, DAYS)[0].start
    for kept in (KEPT, 2 * 24 * HOUR):
        with api.engine.connect() as connection:
            found = daily_availability(connection, uuids, DAYS, NOW, retention=kept)
            rows = fleet_reliability(connection, start, NOW, NOW, retention=kept)
        assert {row["uuid"]: row["availability"] for row in rows} == {
            uuid: together(figures) for uuid, figures in found.items()
        }
        assert len({row["availability"] for row in rows}) > 5, "there is something to compare"


# --- longer ago than incidents are kept -------------------------------------------------------------------------------

KIOSK = client_row(0)["uuid"]


def quarter(api: Api) -> None:
    """A kiosk of long ago that was down three hours a day until 30 days ago, and as long without a connection."""
    add(api, Client, client_row(0, registered_at=NOW - 365 * 24 * HOUR))
    for back in range(31, 91):
        began_at = NOW - 24 * HOUR * back
        for kind in (IncidentKind.PLAYER, IncidentKind.LINK):
            add(api, Incident, incident(KIOSK, began_at, began_at + 3 * HOUR, kind=kind))


@pytest.mark.parametrize(("days", "period", "observed_days"), [(30, "90d", 30), (30, "7d", 7), (2, "30d", 2)])
def test_what_is_not_kept_is_not_taken_for_well(database_url: str, days: int, period: str, observed_days: int) -> None:
    with closing(Api(database_url, log_retention_days=days)) as api:
        quarter(api)
        last_week = NOW - 5 * 24 * HOUR
        add(api, Incident, incident(KIOSK, last_week, last_week + 3 * HOUR))
        for _before_and_after_housekeeping in range(2):
            (row,) = api.get(f"/api/reliability?period={period}").json["clients"]
            down = 3 if days > 5 else 0
            assert row["observed_s"] == observed_days * 86_400
            assert (row["down_s"], row["incidents"]) == (down * 3600, down // 3)
            assert row["reachable"] == 1
            text = api.get(f"/api/reliability.csv?period={period}").text
            assert f",{observed_days * 86_400:.1f}," in text
            housekeeping.prune(api.engine, api.app.extensions["infoscreen"].config, NOW)


def test_days_that_are_not_kept_are_unknown(database_url: str) -> None:
    with closing(Api(database_url, log_retention_days=5)) as api:
        quarter(api)
        bars = re.search(r'<svg class="bars".*?</svg>', page(api, "/"))
        assert bars is not None
        drawn = {kind: path.count("M") for kind, path in re.findall(r'fill-(\w+)" d="([^"]+)"', bars.group())}
        assert drawn == {"none": 8, "good": 6}, "it is noon: half of the first day is known"


def test_the_page_says_how_far_back_it_looks(database_url: str) -> None:
    with closing(Api(database_url, log_retention_days=30)) as api:
        quarter(api)
        assert "No further back than incidents are kept, which is for 30 days." in page(api, "/reliability?period=90d")


def test_a_timeline_does_not_know_through_which_silence_a_state_went(database_url: str) -> None:
    with closing(Api(database_url, log_retention_days=14)) as api:
        add(api, Client, client_row(0, registered_at=NOW - 365 * 24 * HOUR))
        ago = [NOW - days * 24 * HOUR for days in (40, 25, 20)]
        span = {"client_uuid": KIOSK, "ended_at": None}
        add(api, StateSpan, {**span, "kind": SpanKind.PROCESS, "state": "running", "began_at": ago[0]})
        add(api, StateSpan, {**span, "kind": SpanKind.LINK, "state": "offline", "began_at": ago[1], "ended_at": ago[2]})
        add(api, StateSpan, {**span, "kind": SpanKind.LINK, "state": "online", "began_at": ago[2]})
        for _before_and_after_housekeeping in range(2):
            told = api.get(f"/api/clients/{KIOSK}/timeline?period=30d").json
            (running,) = told["process"]
            assert running["began_at"] == timestamp_text(NOW - 14 * 24 * HOUR)
            assert running["known"]
            assert [each["state"] for each in told["link"]] == ["online"]
            housekeeping.prune(api.engine, api.app.extensions["infoscreen"].config, NOW)
