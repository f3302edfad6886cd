"""The capture helper's answers: whatever it says becomes a look, and a good one comes through unchanged."""

import json
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infoscreen_device.core.picture import Blind, Blindness, Burst, Page, Witness
from infoscreen_device.looks import look_from, question

WITNESS = Witness("mpv", advances=False, answers=True, page=Page.FINE, detail="position 3.2 s")
BURST = Burst(
    width=1920,
    height=1080,
    tiles=2108,
    span_s=2.0,
    content=(900, 900, 901),
    median=(80, 80, 81),
    changed=(40, 41),
    moved=60,
    digest="00c0ffee",
    colour=(10, 20, 30),
    backend="wayland",
    hash="0f" * 16,
    windows=1,
    witness=WITNESS,
    tiles_moved=(70, 71),
)


def wire(look: Burst | Blind) -> dict[str, Any]:
    name = "burst" if isinstance(look, Burst) else "blind"
    return dict(json.loads(json.dumps({"id": 1, name: asdict(look)})))


def test_what_the_helper_says_is_what_was_seen() -> None:
    assert look_from(wire(BURST)) == BURST
    blind = Blind(Blindness.DISPLAY_OFF, "HDMI-A-1")
    assert look_from(wire(blind)) == blind


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from([*asdict(BURST), "witness"]), ANYTHING)
def test_a_wound_makes_it_blind_or_leaves_it_sound(name: str, value: Any) -> None:
    answer = wire(BURST)
    answer["burst"][name] = value
    look = look_from(answer)
    if isinstance(look, Blind):
        assert look.reason is Blindness.FAILED
    else:
        assert len(look.changed) == len(look.content) - 1
        assert len(look.median) == len(look.content)
        assert all(0 <= grey <= 255 for grey in look.median)


@given(st.dictionaries(st.sampled_from(["id", "burst", "blind", "pictures"]), ANYTHING))
def test_any_answer_is_a_look(answer: dict[str, Any]) -> None:
    assert isinstance(look_from(answer), Burst | Blind)


def test_the_question_says_when_the_frames_are_due() -> None:
    body = question(frames=3, span_s=2.0, deadline_s=10.0, ignore=((0.5, 0.0, 0.5, 0.1),), pid=7)
    assert body["interval_s"] == 1.0
    assert body["ignore"] == [[0.5, 0.0, 0.5, 0.1]]
