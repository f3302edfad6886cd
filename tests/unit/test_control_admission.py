"""Who may ask the agent for what, and how a refusal reads."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_device.admission import Peer, draft_from_request, expectation_from_request, user_name
from infoscreen_device.core.model import Draft, Expectation, Restart, Way
from infoscreen_shared.messages import EventType, LogLevel

ROOT = Peer(0, 0, 1)
NOBODY = Peer(65534, 65534, 2)
DAEMON = Peer(1, 1, 3)
assert (user_name(65534), user_name(1)) == ("nobody", "daemon")


def refusal(body: dict[str, Any], peer: Peer = NOBODY, agent_uid: int = 0, units: tuple[str, ...] = ()) -> str:
    with pytest.raises(ValueError) as caught:
        expectation_from_request({"op": "expect"} | body, peer, agent_uid, units)
    return str(caught.value)


def test_a_full_request() -> None:
    body = {"op": "expect", "process": "mpv", "event_id": 42, "type": "video", "restart": ["mpv", "a.mkv"]}
    body |= {"cmdline": ["mpv", "a.mkv"], "environment": {"DISPLAY": ":0"}, "directory": "/tmp"}
    assert expectation_from_request(body, NOBODY, 0) == Expectation(
        process="mpv",
        event_id=42,
        event_type=EventType.VIDEO,
        cmdline=("mpv", "a.mkv"),
        user="nobody",
        restart=Restart(
            Way.ARGV, argv=("mpv", "a.mkv"), user="nobody", environment=(("DISPLAY", ":0"),), directory="/tmp"
        ),
        source="uid:65534",
    )


def test_root_may_have_any_process_watched_and_restarted_with_its_owners_rights() -> None:
    found = expectation_from_request({"process": "mpv", "user": "nobody", "restart": ["mpv"]}, ROOT, 0)
    assert (found.user, found.restart.user) == ("nobody", "nobody")
    assert expectation_from_request({"process": "mpv"}, ROOT, 0).user is None


@pytest.mark.parametrize("restart", [["mpv"], "user-unit:player"])
@pytest.mark.parametrize("more", [{}, {"user": "root"}])
def test_nothing_is_restarted_with_roots_rights(restart: object, more: dict[str, str]) -> None:
    text = refusal({"process": "mpv", "restart": restart} | more, ROOT)
    assert text == "user: name the user whose rights the restart is to have (never root)"


def test_another_users_process_is_not_for_the_asking() -> None:
    assert "only root may have processes of another user" in refusal({"process": "mpv", "user": "root"})
    assert "only root may have processes of another user" in refusal({"process": "mpv", "user": "daemon"})
    assert expectation_from_request({"process": "mpv", "user": "nobody"}, NOBODY, 0).user == "nobody"


def test_a_pid_has_to_be_ones_own() -> None:
    assert refusal({"process": "python", "pid": os.getpid()}) == f"pid: process {os.getpid()} belongs to another user"
    assert refusal({"process": "mpv", "pid": 4_194_304}) == "pid: there is no process 4194304"
    assert refusal({"process": "init", "pid": 1}, ROOT) == "pid: no process that can be watched"
    assert expectation_from_request({"process": "p", "pid": os.getpid()}, ROOT, 0).pid == os.getpid()


def test_system_units_are_for_root_or_as_configured() -> None:
    body = {"process": "mpv", "restart": "unit:player@1.service"}
    assert "only root may name this unit" in refusal(body)
    assert 'add "player@1.service" to control.units' in refusal(body, units=("other.service",))
    assert expectation_from_request(body, NOBODY, 0, ("player@*.service",)).restart.way is Way.UNIT
    assert expectation_from_request(body, ROOT, 0).restart.unit == "player@1.service"


def test_an_agent_without_root_cannot_act_for_others() -> None:
    body = {"process": "mpv", "restart": ["mpv"]}
    assert expectation_from_request(body, NOBODY, NOBODY.uid).restart.user == "nobody"
    assert refusal(body, DAEMON, NOBODY.uid).startswith("restart: the agent is not root and cannot act for daemon")
    assert expectation_from_request({"process": "mpv", "restart": "handler"}, DAEMON, NOBODY.uid).user == "daemon"


def test_a_uid_without_a_name_can_be_watched_but_not_acted_for() -> None:
    stranger = Peer(54_321, 54_321, 4)
    assert expectation_from_request({"process": "mpv", "restart": "handler"}, stranger, 0).user == "54321"
    assert "there is no user 54321" in refusal({"process": "mpv", "restart": ["mpv"]}, stranger)


def test_all_mistakes_come_in_one_answer() -> None:
    text = refusal(
        {"proces": "mpv", "type": "vidoe", "restart": "unit", "event_id": "42", "environment": {"A B": "", "LD_X": "1"}}
    )
    for part in (
        "process: is missing",
        "proces: unknown setting (did you mean process?)",
        "type: expected one of video, website, presentation (did you mean video?)",
        'restart: expected "unit:NAME"',
        "event_id: expected a whole number",
        'environment."A B": not a name',
        "environment.LD_X: changes how programs are loaded",
    ):
        assert part in text


@pytest.mark.parametrize("unit", ["unit:--now", "unit:", "unit:a b", "unit:a/../b", "user-unit:\n"])
def test_a_unit_name_cannot_carry_options_or_paths(unit: str) -> None:
    assert "expected the name of a systemd unit" in refusal({"process": "mpv", "restart": unit}, ROOT)


def test_a_record_of_the_event_handler() -> None:
    body = {"op": "log", "level": "WARN", "message": "no \ud800signal\0", "code": "tv.off", "context": {"input": 2}}
    assert draft_from_request(body) == Draft(LogLevel.WARN, "tv.off", "no \ufffdsignal\ufffd", {"input": 2})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "m"}, "level: is missing: one of ERROR, WARN, INFO, DEBUG"),
        ({"level": "WARNING", "message": "m"}, "(did you mean WARN?)"),
        ({"level": "INFO"}, "message: expected text"),
        ({"level": "INFO", "message": "x" * 8_193}, "message: expected text"),
        ({"level": "INFO", "message": "m", "context": []}, "context: expected an object"),
        ({"level": "INFO", "message": "m", "context": {"a": "x" * 20_000}}, "context: expected an object"),
        ({"level": "INFO", "message": "m", "kode": "a"}, "kode: unknown setting (did you mean code?)"),
    ],
)
def test_a_bad_record_is_refused_with_the_field(body: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        draft_from_request(body)
    assert expected in str(caught.value)


NAMES = ["op", "process", "event_id", "type", "pid", "cmdline", "user", "restart", "environment", "directory", "level"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(), max_size=10) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from([*NAMES, "message", "context", "code"]) | st.text(max_size=5), JSON))
def test_any_body_is_taken_or_refused_in_words(body: dict[str, Any]) -> None:
    for read in (lambda: expectation_from_request(body, NOBODY, 0), lambda: draft_from_request(body)):
        try:
            read()
        except ValueError as error:
            assert type(error) is ValueError
            assert "\n" not in str(error)
