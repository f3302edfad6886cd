"""What one look is taken for, and what several in a row confirm: tables and properties over bursts made by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_device.core.picture import Blind, Blindness, Burst, Expected, Look, Motion, Page, Witness
from infoscreen_device.core.screen import (
    BLACK,
    FROZEN,
    NOT_YET,
    OK,
    UNKNOWN,
    Change,
    Confirmed,
    Memory,
    Policy,
    Recovered,
    ScreenState,
    Verdict,
    fault,
    judge,
    observe,
    restarted,
)

POLICY = Policy()
VIDEO, STILL, TICKER, CLOCK = (Expected(motion) for motion in (Motion.VIDEO, Motion.NONE, Motion.TICKER, Motion.CLOCK))
SLIDES = Expected(Motion.WITHIN, within_s=20.0)
PLAYS, STANDS = Witness("mpv", advances=True), Witness("mpv", advances=False)
SILENT, VAGUE = Witness("mpv", answers=False), Witness("cpu")
WITNESSES = (None, PLAYS, STANDS, SILENT, VAGUE)


def burst(
    moved: int = 800,
    content: int = 1500,
    median: int = 90,
    colour: tuple[int, int, int] = (90, 90, 90),
    digest: str = "a",
) -> Burst:
    return Burst(1920, 1080, 2108, 2.0, (content,) * 3, (median,) * 3, (moved,) * 2, moved, digest, colour)


EMPTY = burst(moved=0, content=0, median=0, colour=(0, 0, 0))


def one(look: Look, expected: Expected = VIDEO, memory: Memory | None = None) -> Verdict:
    return judge(look, expected, memory or Memory(), 1000.0, POLICY)[0]


# --- one look ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look", "status", "reason"),
    [
        (EMPTY, BLACK, "black"),
        (replace(EMPTY, median=(32, 32, 32)), BLACK, "black"),
        (replace(EMPTY, moved=900, changed=(900, 900)), BLACK, "black"),
        (replace(EMPTY, content=(2, 4, 3), moved=4), BLACK, "black behind clock"),
        (burst(content=0, median=255, colour=(255, 255, 255)), BLACK, "white"),
        (burst(content=3, median=110, colour=(0, 120, 215)), BLACK, "uniform"),
        (replace(EMPTY, content=(0, 5, 0)), FROZEN, "frozen"),
        (replace(EMPTY, content=(0, 0, 5), moved=1000, median=(0, 9, 28)), OK, "ok"),
        (replace(EMPTY, median=(0, 60, 120), moved=2108), OK, "ok"),
        (replace(burst(), windows=0), FROZEN, "bare desktop"),
        (replace(burst(), windows=1), OK, "ok"),
        (replace(burst(), known="console"), FROZEN, "console"),
        (replace(burst(), tiles=0, moved=0, content=(0, 0, 0)), UNKNOWN, "all ignored"),
    ],
)
def test_what_the_picture_shows(look: Burst, status: str, reason: str) -> None:
    verdict = one(look)
    assert (verdict.status, verdict.reason) == (status, reason)


@pytest.mark.parametrize(
    ("moved", "witness", "status", "reason"),
    [
        (0, None, FROZEN, "frozen"),
        (0, VAGUE, FROZEN, "frozen"),
        (0, STANDS, FROZEN, "frozen"),
        (0, SILENT, FROZEN, "frozen"),
        (0, PLAYS, UNKNOWN, "plane suspect"),
        (1, None, UNKNOWN, "suspect"),
        (29, None, UNKNOWN, "suspect"),
        (29, VAGUE, UNKNOWN, "suspect"),
        (29, STANDS, FROZEN, "frozen"),
        (29, SILENT, FROZEN, "frozen"),
        (29, PLAYS, OK, "ok"),
        (30, None, OK, "ok"),
        (30, STANDS, OK, "ok"),
        (30, SILENT, OK, "ok"),
    ],
)
def test_the_three_bands_of_a_video(moved: int, witness: Witness | None, status: str, reason: str) -> None:
    verdict = one(replace(burst(moved), witness=witness))
    assert (verdict.status, verdict.reason) == (status, reason)


@pytest.mark.parametrize("page", [Page.ERROR, Page.CRASHED])
@pytest.mark.parametrize("advances", [True, False, None])
def test_a_page_that_failed_is_a_fault_whatever_moves(page: Page, advances: bool | None) -> None:
    verdict = one(replace(burst(), witness=Witness("devtools", advances, page=page)), STILL)
    assert (verdict.status, verdict.reason) == (FROZEN, page.value)


def test_the_browser_knows_better_than_a_likeness() -> None:
    look = replace(burst(), known="error page", witness=Witness("devtools", page=Page.FINE))
    assert one(look).status is OK
    assert one(replace(look, known="console")).status is FROZEN


@pytest.mark.parametrize("look", [EMPTY, replace(burst(), windows=0), replace(burst(), known="desktop"), burst(0)])
def test_a_player_that_plays_on_is_not_restarted(look: Burst) -> None:
    assert one(look).is_fault
    assert one(replace(look, witness=PLAYS)).reason == "plane suspect"


@pytest.mark.parametrize("moved", [0, 1, 500])
@pytest.mark.parametrize("witness", WITNESSES)
def test_what_never_moves_is_never_frozen(moved: int, witness: Witness | None) -> None:
    memory = Memory("a", 990.0, 100_000.0)
    assert one(replace(burst(moved), witness=witness), STILL, memory).status is OK


@pytest.mark.parametrize(("moved", "status"), [(0, FROZEN), (3, FROZEN), (4, OK), (40, OK)])
def test_a_line_of_text_has_to_run(moved: int, status: str) -> None:
    verdict = one(burst(moved), TICKER)
    assert (verdict.status, verdict.reason) == (status, "ticker stuck" if status == FROZEN else "ok")


def looks(expected: Expected, every_s: float, *bursts: Look) -> list[Verdict]:
    memory, verdicts = Memory(), []
    for number, look in enumerate(bursts):
        verdict, memory = judge(look, expected, memory, 100.0 + every_s * number, POLICY)
        verdicts.append(verdict)
    return verdicts


def test_a_stuck_clock_is_seen_after_more_than_a_minute() -> None:
    still = [burst(0)] * 5
    assert [verdict.status for verdict in looks(CLOCK, 30.0, *still)] == [OK, OK, OK, FROZEN, FROZEN]
    ticks = [burst(0, digest=str(number // 2)) for number in range(12)]
    assert {verdict.status for verdict in looks(CLOCK, 30.0, *ticks)} == {OK}
    moves = [burst(2)] * 12
    assert {verdict.status for verdict in looks(CLOCK, 30.0, *moves)} == {OK}


def test_a_slide_show_may_be_a_little_late() -> None:
    still = [burst(0)] * 6
    assert [verdict.status for verdict in looks(SLIDES, 10.0, *still)] == [OK] * 3 + [FROZEN] * 3
    assert {verdict.status for verdict in looks(Expected(Motion.WITHIN), 10.0, *still)} == {OK}


def test_nobody_knows_what_a_blind_hour_showed() -> None:
    assert [verdict.status for verdict in looks(CLOCK, 3600.0, *[burst(0)] * 5)] == [OK] * 5


def test_a_screencast_is_another_picture_at_every_look() -> None:
    changing = [burst(0, digest=str(number)) for number in range(5)]
    assert [verdict.status for verdict in looks(VIDEO, 30.0, *changing)] == [FROZEN] + [UNKNOWN] * 4
    asked = [replace(look, witness=PLAYS) for look in changing]
    assert [verdict.status for verdict in looks(VIDEO, 30.0, *asked)] == [UNKNOWN] + [OK] * 4
    stuck = [replace(look, witness=STANDS) for look in changing]
    assert {verdict.status for verdict in looks(VIDEO, 30.0, *stuck)} == {FROZEN}


@pytest.mark.parametrize("look", [burst(0), EMPTY])
def test_a_film_may_rest_for_a_minute_while_it_plays(look: Burst) -> None:
    film, rest = replace(burst(), witness=PLAYS), replace(look, witness=PLAYS)
    reasons = [verdict.reason for verdict in looks(VIDEO, 20.0, rest, film, rest, rest, rest, rest, film, rest)]
    assert reasons == ["plane suspect", "ok", "ok", "ok", "ok", "plane suspect", "ok", "ok"]
    desktop = replace(rest, windows=0)
    assert looks(VIDEO, 20.0, film, desktop)[1].reason == "plane suspect"
    pointer = replace(burst(5), witness=PLAYS)
    assert looks(VIDEO, 20.0, pointer, rest)[1].reason == "plane suspect"


def test_one_frame_tells_nothing_of_motion() -> None:
    single = replace(burst(0), content=(900,), median=(90,), changed=(), span_s=0.0)
    assert one(single).reason == "suspect"
    assert one(replace(single, witness=STANDS)).reason == "suspect"
    assert one(single, TICKER).status is OK
    assert one(replace(EMPTY, content=(0,), median=(0,), changed=())).status is BLACK


@pytest.mark.parametrize("reason", list(Blindness))
def test_blind_is_unknown(reason: Blindness) -> None:
    memory = Memory("a", 900.0, 50.0)
    verdict, after = judge(Blind(reason, "it said so"), VIDEO, memory, 1000.0, POLICY)
    assert (verdict.status, verdict.reason, after) == (UNKNOWN, reason.value, memory)
    assert "it said so" in verdict.text


some_looks = st.one_of(
    st.builds(Blind, st.sampled_from(Blindness)),
    st.builds(
        lambda moved, content, median, digest, witness, windows, known: replace(
            burst(moved, content, median, digest=digest), witness=witness, windows=windows, known=known
        ),
        st.integers(0, 2108),
        st.integers(0, 2108),
        st.integers(0, 255),
        st.sampled_from("ab"),
        st.sampled_from(WITNESSES),
        st.sampled_from((None, 0, 1)),
        st.sampled_from((None, "console")),
    ),
)
expectations = st.sampled_from((VIDEO, STILL, TICKER, CLOCK, SLIDES, Expected(Motion.WITHIN)))


@given(some_looks, expectations, st.floats(0, 1e6), st.sampled_from((None, 999.0, 2.0)))
def test_a_player_that_plays_on_is_never_at_fault(
    look: Look, expected: Expected, still: float, at: float | None
) -> None:
    verdict = one(look, expected, Memory("a", at, still))
    assert verdict.reason and verdict.text
    if isinstance(look, Blind) or look.witness is PLAYS:
        assert not verdict.is_fault
    elif look.windows != 0 and look.known is None and max(look.content) > POLICY.content_tiles and expected == STILL:
        assert verdict.status is OK


# --- several in a row -------------------------------------------------------------------------------------------------

GOOD = Verdict(OK, "ok", "fine")
DARK, STUCK = Verdict(BLACK, "black", "dark"), Verdict(FROZEN, "frozen", "stuck")
DOUBT, PLANE = Verdict(UNKNOWN, "suspect", "hm"), Verdict(UNKNOWN, "plane suspect", "hm")
OFF = Verdict(UNKNOWN, Blindness.DISPLAY_OFF.value, "off")
ALL = (GOOD, DARK, STUCK, DOUBT, PLANE, OFF)


def run(*verdicts: Verdict, every_s: float = 10.0) -> tuple[ScreenState, list[Change]]:
    state = ScreenState()
    changes: list[Change] = []
    for number, verdict in enumerate(verdicts):
        state, new = observe(state, verdict, every_s * number, POLICY)
        changes += new
    return state, changes


def test_three_equal_faults_are_believed() -> None:
    state, changes = run(GOOD, DARK, DARK)
    assert (changes, state.shown, fault(state, POLICY)) == ([], GOOD, None)
    state, changes = run(GOOD, DARK, DARK, DARK)
    assert changes == [Confirmed(DARK, 10.0)]
    assert (state.shown, state.since, fault(state, POLICY)) == (DARK, 30.0, "black")


@pytest.mark.parametrize(
    "verdicts",
    [
        (DARK, DARK, GOOD, DARK, DARK),
        (DARK, STUCK, DARK, STUCK, DARK, STUCK),
        (STUCK, STUCK, DOUBT, STUCK, STUCK),
        (STUCK, STUCK, PLANE, STUCK, STUCK),
        (DARK, OFF, OFF, OFF, DARK, OFF),
    ],
)
def test_these_are_not(verdicts: tuple[Verdict, ...]) -> None:
    assert run(*verdicts)[1] == []


def test_blind_looks_do_not_count() -> None:
    state, changes = run(DARK, OFF, DARK, OFF, DARK)
    assert changes == [Confirmed(DARK, 0.0)]
    state, _ = observe(state, OFF, 50.0, POLICY)
    assert (state.shown, fault(state, POLICY)) == (OFF, None)
    state, changes = run(DARK, DARK, DARK, GOOD, OFF, GOOD)
    assert changes[1:] == [Recovered(30.0, "black")]


def test_looks_too_far_apart_are_not_in_a_row() -> None:
    assert run(DARK, DARK, DARK, DARK, every_s=POLICY.gap_s + 1)[1] == []
    assert run(DARK, DARK, DARK, every_s=POLICY.gap_s)[1] == [Confirmed(DARK, 0.0)]
    patient = replace(POLICY, check_s=600.0)
    assert patient.gap_s > 3 * 600


def test_before_it_is_believed_it_is_not_told() -> None:
    state, _ = run(DARK)
    assert (state.shown.status, state.shown.reason, state.latest) == (UNKNOWN, "checking", DARK)
    assert run(OFF, STUCK, STUCK)[0].shown.reason == "checking"
    assert run(GOOD, STUCK, STUCK)[0].shown is GOOD
    assert ScreenState().shown is NOT_YET


def test_a_new_player_gets_its_chance_and_the_outage_goes_on() -> None:
    state, _ = run(DARK, DARK, DARK)
    state = restarted(state)
    for now, expected in ((30.0, None), (40.0, None), (50.0, "black")):
        state, changes = observe(state, DARK, now, POLICY)
        assert (changes, fault(state, POLICY)) == ((), expected)
    state, changes = observe(restarted(state), GOOD, 60.0, POLICY)
    assert (changes, state.shown) == ((), DARK)
    state, changes = observe(state, GOOD, 70.0, POLICY)
    assert (changes, state.shown) == ((Recovered(60.0, "black"),), GOOD)


@given(st.lists(st.sampled_from((DOUBT, PLANE, OFF, GOOD))))
def test_doubt_never_confirms(verdicts: list[Verdict]) -> None:
    state, changes = run(*verdicts)
    assert changes == [] and not state.shown.is_fault and fault(state, POLICY) is None


@given(st.lists(st.sampled_from(ALL), max_size=60), st.lists(st.booleans(), min_size=60, max_size=60))
def test_an_outage_begins_and_ends_once(verdicts: list[Verdict], replaced: list[bool]) -> None:
    """Against a second telling of the rules: no blind looks, then runs of three of a kind and of two good ones."""
    state, open_since = ScreenState(), None
    seen: list[tuple[float, Verdict]] = []
    for number, verdict in enumerate(verdicts):
        now = 10.0 * number
        state, changes = observe(state, verdict, now, POLICY)
        if verdict is not OFF:
            seen.append((now, verdict))
        elif seen and now - seen[-1][0] > POLICY.gap_s - 10:
            seen.clear()
        run_of_bad = len(seen) >= 3 and seen[-1][1] in (DARK, STUCK) and len({verdict for _, verdict in seen[-3:]}) == 1
        for change in changes:
            if isinstance(change, Confirmed):
                assert open_since is None and run_of_bad and verdict.is_fault
                open_since = change.since
            else:
                assert open_since is not None and verdict is GOOD
                assert change.outage_s > 0 and open_since + change.outage_s <= now
                open_since = None
        if run_of_bad and verdict.is_fault and not any(replaced[max(0, number - 9) : number]):
            assert open_since is not None
        assert (fault(state, POLICY) is not None) <= (open_since is not None and verdict.is_fault)
        if replaced[number]:
            state = restarted(state)


@given(st.lists(st.sampled_from((OFF, DOUBT)), max_size=8), st.integers(3, 9), st.integers(2, 5))
def test_the_length_of_an_outage_is_that_of_the_wrong_picture(before: list[Verdict], bad: int, good: int) -> None:
    _, changes = run(*before, *[STUCK] * bad, *[GOOD] * good)
    assert changes == [Confirmed(STUCK, 10.0 * len(before)), Recovered(10.0 * bad, "frozen")]
