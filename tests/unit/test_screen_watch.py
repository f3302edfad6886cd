"""When the agent has the screen looked at, and what it makes of the answers; the helper's side is played here."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infoscreen_device.admission import Peer
from infoscreen_device.control import Request
from infoscreen_device.core.model import Draft, Expectation, ProcessKey
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.core.picture import Burst, Witness
from infoscreen_device.incidents import Incident, Incidents, Periodic
from infoscreen_device.screen_watch import ScreenWatch
from infoscreen_device.settings import Config, HttpConfig, PicturesConfig, ScreenConfig
from infoscreen_shared.messages import EventType, ScreenHealthStatus

MOVING = Burst(1920, 1080, 2108, 2.0, (900,) * 3, (90,) * 3, (200, 200), 300, "00000001", backend="wayland")
FROZEN = replace(MOVING, changed=(0, 0), moved=0, witness=Witness("mpv", advances=False))
BLACK = replace(FROZEN, content=(0, 0, 0), median=(0, 0, 0), witness=None)
START = datetime(2026, 11, 25, tzinfo=UTC)
FILM = Expectation("mpv", event_id=1, event_type=EventType.VIDEO)


class Helper(Incidents):
    """The door that looks are asked through, and the place that pictures are given to."""

    def __init__(self, config: Config) -> None:
        super().__init__(Path("/nonexistent"), config.pictures, config.http, "uuid")
        self.asked: list[dict[str, Any]] = []
        self.kept: list[Incident | Periodic] = []
        self.there = True

    def ask_look(self, body: dict[str, Any], _user: str | None) -> bool:
        self.asked += [body] * self.there
        return self.there

    def keep(self, item: Incident | Periodic) -> None:
        self.kept.append(item)
        for fd in (item.thumbnail, getattr(item, "picture", None)):
            if fd is not None:
                os.close(fd)


class World:
    """A player that runs, on a clock of its own; every look is answered at once with what is shown."""

    def __init__(self, **settings: Any) -> None:
        screen = ScreenConfig(**settings.pop("screen", {}))
        self.config = Config(screen=screen, **settings)
        self.helper = Helper(self.config)
        self.watch = ScreenWatch(self.config, self.helper, self.helper)  # type: ignore[arg-type]
        self.now = 1000.0
        self.state = State(Phase.RUNNING, FILM, ProcessKey(7, 7))
        self.shown: Burst | dict[str, Any] = MOVING
        self.drafts: list[Draft] = []
        self.turns = 0

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.turns += 1
            answered = len(self.helper.asked)
            self.drafts += self.watch.turn(self.state, self.now, self.utc)
            for body in self.helper.asked[answered:]:
                self.now += 2.0
                self.answer(body)
            wake = self.watch.wake_at()
            assert self.turns < 20_000, "the loop spins"
            self.now = end if wake is None else min(end, max(self.now, wake))

    def answer(self, body: dict[str, Any]) -> None:
        shown = self.shown if isinstance(self.shown, dict) else {"burst": _json(asdict(self.shown))}
        fds = tuple(os.memfd_create("picture") for _ in body["pictures"])
        named = [{"kind": kind} for kind in body["pictures"]]
        request = Request("looked", {"id": body["id"], "pictures": named, **shown}, Peer(0, 0, 1), _silent, fds)
        self.drafts += self.watch.answer(request, self.now, self.utc)

    @property
    def utc(self) -> datetime:
        return START + timedelta(seconds=self.now)

    def codes(self) -> list[str | None]:
        return [draft.code for draft in self.drafts]

    def fault(self) -> str | None:
        return self.watch.fault(self.state)


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _silent(body: dict[str, Any], fds: Sequence[int] = ()) -> None:
    assert not fds, body


@pytest.fixture(autouse=True)
def nothing_leaks() -> Any:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_three_looks_in_a_row_are_believed() -> None:
    world = World()
    world.wait(60)
    assert world.watch.view.status is ScreenHealthStatus.OK
    world.shown = FROZEN
    world.wait(30)
    assert world.fault() == "frozen"
    assert world.codes() == ["screen.frozen"]
    assert [type(item) for item in world.helper.kept] == [Incident]
    world.shown = MOVING
    world.wait(30)
    assert world.fault() is None
    assert world.codes() == ["screen.frozen", "screen.recovered"]


def test_another_player_does_not_pay_for_the_one_before() -> None:
    """Even in the turn in which it is first seen."""
    world = World()
    world.shown = FROZEN
    world.wait(60)
    assert world.fault()
    world.state = replace(world.state, player=ProcessKey(8, 8))
    assert world.fault() is None
    world.state = replace(world.state, player=ProcessKey(7, 7), expectation=replace(FILM, event_id=2))
    assert world.fault() is None


@pytest.mark.parametrize(
    "answer",
    [
        {"burst": {**_json(asdict(MOVING)), "hash": "x" * 32}},
        {"burst": {**_json(asdict(MOVING)), "median": []}},
        {"burst": {}},
        {"blind": {"reason": "settling", "detail": ""}},
        {"blind": {"reason": "quiet hours", "detail": ""}},
        {},
    ],
)
def test_a_bad_answer_ends_neither_the_looks_nor_the_patience(answer: dict[str, Any]) -> None:
    world = World(screen={"known": {"desktop": "0f" * 16}})
    world.wait(40)
    world.shown = answer
    world.wait(600)
    assert world.watch.view.reason == "capture failed"
    assert 40 < len(world.helper.asked) < 100, "every ten seconds"
    world.shown = MOVING
    world.wait(60)
    assert world.watch.view.status is ScreenHealthStatus.OK


def test_without_periodic_pictures_none_leaves_but_of_incidents() -> None:
    door = HttpConfig(url="http://127.0.0.1:1")
    world = World(http=door, pictures=PicturesConfig(thumbnail_s=0))
    for shown in (MOVING, FROZEN, FROZEN, MOVING) * 20:
        world.shown = shown
        world.wait(6)
    assert not [item for item in world.helper.kept if isinstance(item, Periodic)]
    world = World(http=door, pictures=PicturesConfig(thumbnail_s=300))
    world.wait(3600)
    assert 9 <= len(world.helper.kept) <= 13


def test_a_black_screen_is_found_whatever_plays_how_briefly() -> None:
    """One player, a programme of 20 s each."""
    world = World()
    world.shown = BLACK
    for number in range(20):
        world.state = replace(world.state, expectation=replace(FILM, event_id=number))
        world.wait(20)
    assert "screen.black" in world.codes()


def test_who_cannot_see_says_so_once() -> None:
    world = World()
    world.wait(60)
    world.helper.there = False
    world.wait(600)
    assert world.codes() == ["screen.unseen"]
    assert world.watch.view.status is ScreenHealthStatus.UNKNOWN


def test_nothing_is_looked_at_where_that_is_switched_off_or_nothing_plays() -> None:
    world = World(screen={"enabled": False})
    world.wait(600)
    assert world.helper.asked == []
    world = World()
    world.state = State()
    world.wait(600)
    assert world.helper.asked == []
