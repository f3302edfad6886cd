"""The state file: what it keeps comes back, and nothing that may stand in it keeps the agent from starting."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infoscreen_device.core.budget import Budget, used
from infoscreen_device.core.model import Expectation, ProcessKey, Restart, Way
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.core.policy import RestartPolicy
from infoscreen_device.state import MAX_BYTES, StateFile
from infoscreen_shared.messages import EventType

NOW = 5000.0
RESTART = Restart(
    Way.ARGV, argv=("mpv", "film ü.mkv"), user="kiosk", environment=(("DISPLAY", ":0"),), directory="/home/kiosk"
)
EXPECTATION = Expectation("mpv", 42, EventType.VIDEO, 812, ("mpv", "film ü.mkv"), "kiosk", RESTART, "uid:1000")
FULL = State(
    phase=Phase.GAVE_UP,
    expectation=EXPECTATION,
    player=ProcessKey(812, 77_123),
    since=4900.5,
    due=5100.25,
    stopped_since=4890.0,
    outage_since=4800.0,
    outage_s=3.5,
    budget=Budget("mpv\x1f42", (4801.0, 4802.5, 4804.5), 3, True, (("session", 4700.0),), True),
)


@contextmanager
def opened(folder: Path, boot: str = "boot") -> Iterator[StateFile]:
    file = StateFile(folder, boot)
    file.start()
    try:
        yield file
    finally:
        file.close(5)


def keep(folder: Path, state: State = FULL, now: float = NOW) -> Path:
    with opened(folder) as file:
        file.keep(state, now)
        assert file.flush(5)
        return file.path


def loaded(folder: Path, boot: str = "boot", now: float = NOW) -> State:
    return StateFile(folder, boot).load(now)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_was_kept_comes_back_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = keep(tmp_path)
    assert loaded(tmp_path) == FULL
    assert not said(caplog)
    assert path.stat().st_mode & 0o777 == 0o600, "an environment may hold what nobody else may read"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_first_start_is_no_incident(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert loaded(tmp_path) == State(since=NOW)
    assert loaded(tmp_path / "none") == State(since=NOW)
    assert not said(caplog)


def test_it_is_written_only_when_something_changed(tmp_path: Path) -> None:
    path = keep(tmp_path)
    with opened(tmp_path) as file:
        file.keep(FULL, NOW)
        assert file.flush(5)
        before = path.stat()
        file.keep(FULL, NOW + 1)
        file.keep(replace(FULL), NOW + 2)
        assert file.flush(5)
        assert path.stat().st_ino == before.st_ino
        file.keep(replace(FULL, since=1.0), NOW + 3)
        assert file.flush(5)
        assert path.stat().st_ino != before.st_ino, "replaced as a whole"


def test_a_reboot_moves_the_budget_onto_the_new_clock(tmp_path: Path) -> None:
    """Saved at 5000 s of one boot, read at 20 s of the next: what is 200 s old stays 200 s old."""
    keep(tmp_path)
    file = StateFile(tmp_path, "the next boot")
    state = file.load(20.0)
    assert file.rebooted
    assert state.budget.restarts == pytest.approx((-179.0, -177.5, -175.5))
    assert used(state.budget, 20.0, RestartPolicy()) == used(FULL.budget, NOW, RestartPolicy()) == 3
    assert (state.budget.gave_up, state.budget.streak, state.budget.player) == (True, 3, FULL.budget.player)
    assert (state.phase, state.player) == (Phase.STARTING, None)
    assert state.expectation == replace(EXPECTATION, pid=None), "no process of the boot before lives"
    assert not StateFile(tmp_path, "boot").rebooted


def test_a_boot_loop_does_not_refill_the_budget(tmp_path: Path) -> None:
    now = NOW
    keep(tmp_path)
    for number in range(1, 20):
        state = loaded(tmp_path, f"boot {number}", 10.0)
        assert used(state.budget, 10.0, RestartPolicy(window_s=600)) == (3 if now - 4801 + 10 * number < 600 else 0)
        with opened(tmp_path, f"boot {number}") as file:
            file.keep(state, 20.0)
            assert file.flush(5)


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "zeros, as after a power cut": bytes(4096),
    "another program's": b"\x7fELF" + bytes(range(256)),
    "no object": b"[1, 2, 3]",
    "null": b"null",
    "a number with too many digits": b'{"version": ' + b"9" * 5000 + b"}",
    "nested": b"[" * 100_000,
    "no state": b'{"version": 1, "boot_id": "boot", "saved_at": 1.0}',
    "state is a list": b'{"version": 1, "boot_id": "boot", "saved_at": 1.0, "state": []}',
    "not UTF-8": b'{"version": 1, "state": "\xff\xfe"}',
    "beyond the limit": b'{"version": 1, "x": "' + b"x" * MAX_BYTES + b'"}',
    "infinite": b'{"version": 1, "boot_id": "b", "saved_at": Infinity, "state": {"since": NaN}}',
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_said_and_begun_afresh(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "watchdog.json").write_bytes(GARBAGE[name])
    assert loaded(tmp_path) == State(since=NOW)
    (line,) = said(caplog)
    assert line.startswith(f"{tmp_path}/watchdog.json cannot be used and is begun afresh: ")
    keep(tmp_path)
    assert loaded(tmp_path) == FULL


def test_every_torn_write_is_said_and_begun_afresh(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = keep(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert loaded(tmp_path) == State(since=NOW)
    assert len(said(caplog)) == len(whole)


def test_a_write_that_was_cut_off_leaves_the_old_state(tmp_path: Path) -> None:
    keep(tmp_path)
    (tmp_path / "watchdog.new").write_bytes(b'{"version": 1, "boo')
    assert loaded(tmp_path) == FULL
    keep(tmp_path, replace(FULL, since=1.0))
    assert loaded(tmp_path).since == 1.0


WRONG: list[tuple[tuple[str, ...], Any]] = [
    (("state", "phase"), "asleep"),
    (("state", "phase"), 3),
    (("state", "since"), "soon"),
    (("state", "since"), True),
    (("state", "since"), 1e300),
    (("state", "since"), None),
    (("state", "player"), {"pid": "812", "started": 1}),
    (("state", "player"), {"pid": 812}),
    (("state", "player"), 812),
    (("state", "expectation"), {"process": None}),
    (("state", "expectation"), {}),
    (("state", "expectation", "restart", "way"), "prayer"),
    (("state", "expectation", "restart", "argv"), "mpv film.mkv"),
    (("state", "expectation", "restart", "argv"), [1, 2]),
    (("state", "expectation", "restart", "environment"), [["DISPLAY"]]),
    (("state", "budget"), None),
    (("state", "budget", "restarts"), {"1": 2}),
    (("state", "budget", "gave_up"), 0),
    (("state", "budget", "rungs"), [[1.0, "session"]]),
    (("saved_at",), "yesterday"),
    (("saved_at",), float("nan")),
    (("saved_at",), 1e300),
]


@pytest.mark.parametrize(("place", "value"), WRONG)
def test_a_wrong_value_is_said_and_begun_afresh(
    tmp_path: Path, place: tuple[str, ...], value: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = keep(tmp_path)
    document = json.loads(path.read_bytes())
    *outer, name = place
    inner = document
    for key in outer:
        inner = inner[key]
    assert name in inner
    inner[name] = value
    path.write_text(json.dumps(document))
    assert loaded(tmp_path, "another boot") == State(since=NOW)
    assert said(caplog)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "idle"},
        {"phase": "running", "player": None},
        {"phase": "stopping", "player": None, "due": None},
        {"phase": "running", "expectation": None},
        {"phase": "idle", "player": {"pid": 1, "started": 1}},
        {"phase": "backoff", "player": None, "due": None},
    ],
)
def test_a_state_that_does_not_hold_together_is_said_and_begun_afresh(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Each value fits by itself, and yet the rules were never in such a state."""
    path = keep(tmp_path)
    document = json.loads(path.read_bytes())
    document["state"] |= change
    path.write_text(json.dumps(document))
    assert loaded(tmp_path) == State(since=NOW)
    assert said(caplog)


def test_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """An older agent after a newer one and the other way round: what both know is kept."""
    path = keep(tmp_path)
    document = json.loads(path.read_bytes())
    document |= {"version": 2, "novelty": 1}
    document["state"] |= {"mood": "good"}
    document["state"]["budget"] |= {"credit": [1]}
    del document["state"]["outage_s"], document["state"]["budget"]["grant"]
    path.write_text(json.dumps(document))
    assert loaded(tmp_path) == replace(FULL, outage_s=0.0, budget=replace(FULL.budget, grant=False))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3), st.booleans())
def test_bytes_overwritten_anywhere(tmp_path: Path, place: int, garbage: bytes, same_boot: bool) -> None:
    path = tmp_path / "watchdog.json"
    if not path.exists():
        keep(tmp_path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    place %= len(content)
    content[place : place + len(garbage)] = garbage
    path.write_bytes(content)
    state = loaded(tmp_path, "boot" if same_boot else "next")
    assert (state.phase is Phase.IDLE) == (state.expectation is None)


def test_a_directory_in_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "watchdog.json").mkdir()
    assert loaded(tmp_path) == State(since=NOW)
    with opened(tmp_path) as file:
        file.keep(FULL, NOW)
        assert not file.flush(5)
        assert not file.writable
    assert len(said(caplog)) == 2, "that it cannot be read, that it cannot be written"


def test_what_cannot_be_written_is_said_once_and_written_once_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    with opened(folder) as file:
        for number in range(5):
            file.keep(replace(FULL, since=float(number)), NOW)
            assert not file.flush(5)
        assert not file.writable
        (line,) = said(caplog)
        assert "the budget is in memory only" in line
        folder.mkdir()
        file.keep(replace(FULL, since=4.0), NOW)
        assert wait_until_written(file)
    assert loaded(folder).since == 4.0


def wait_until_written(file: StateFile) -> bool:
    with file._changed:
        return file._changed.wait_for(lambda: file.writable, 5)
