"""What the screen shows, from the numbers of a look: `judge` for one look, `observe` for several in a row.

A wrong verdict costs more than a late one, so between "frozen" and "fine" lies "suspect", which nothing but the player
itself can settle, and nothing is confirmed by one look.

    pixels                                     player's clock: none   advances        still, or no answer
    desktop, console, error page               FROZEN                 plane suspect   FROZEN
    one colour                                 BLACK                  plane suspect*  BLACK
    nothing moved (video, ticker, clock)       FROZEN                 plane suspect*  FROZEN
    little moved, or only between looks        suspect                OK              FROZEN
    enough moved                               OK                     OK              OK

    * OK for a minute after enough moved: a fade, a title card

The numbers were measured on 284 labelled sequences and then tried on others (`./run bench screen` does it anew): any
change at all in a picture without noise is motion, but a spinner over a frozen film (12 tiles of 2304) moves no less
than a talking head (18 to 24). A screencast that changes every few seconds looks still in many a burst, but is another
picture every time.
"""

from dataclasses import dataclass, replace

from infoscreen_device.core.picture import Blind, Blindness, Burst, Expected, Look, Motion, Page, Witness
from infoscreen_shared.messages import ScreenHealthStatus

OK, BLACK, FROZEN, UNKNOWN = (
    ScreenHealthStatus.OK,
    ScreenHealthStatus.BLACK,
    ScreenHealthStatus.FROZEN,
    ScreenHealthStatus.UNKNOWN,
)


@dataclass(frozen=True, slots=True)
class Policy:
    bad_checks: int = 3
    """So many faults of one status in a row are believed: fades and title cards are black or still for 2 to 6 s."""
    good_checks: int = 2
    check_s: float = 30.0
    """How often somebody looks."""
    content_tiles: int = 4
    """An empty screen has no more tiles with content (a pointer has 2 to 4); from 6 on sparse pages count as empty."""
    black_grey: int = 32
    """An empty screen is black up to this median grey level (of 255): with raised black levels it is 16."""
    white_grey: int = 224
    """And white from here on."""
    one_colour_grey: int = 16
    """By no more may the median change during a look at an empty screen: else a picture fades in or out."""
    alive_share: float = 32 / 2304
    """Share of the tiles that has to move for a video that needs no further proof."""
    ticker_tiles: int = 4
    """A running line of text moves 30 and more tiles; a pointer that twitches over a stuck one up to 3."""
    clock_s: float = 75.0
    """A clock that shows minutes changes every 60 s."""
    rest_s: float = 60.0
    """A film that its player plays may rest or be black for so long before its picture is doubted."""
    within_spare: float = 0.25
    """A slide show may be late by this share of its period, and by 5 s."""

    @property
    def gap_s(self) -> float:
        """Looks further apart are not in a row: in between the screen may have shown anything."""
        return max(120.0, 4 * self.check_s)


@dataclass(frozen=True, slots=True)
class Verdict:
    status: ScreenHealthStatus
    reason: str
    """A short stable word: "ok", "black", "frozen", "suspect", …; of UNKNOWN also any Blindness."""
    text: str
    """A sentence for people, with the numbers."""

    @property
    def is_fault(self) -> bool:
        return self.status in (BLACK, FROZEN)


@dataclass(frozen=True, slots=True)
class Memory:
    """How long the picture has been the same, look after look."""

    digest: str = ""
    at: float | None = None
    still_s: float = 0.0
    other: bool = False
    """The picture of the last look was another one than that of the look before, in a row."""
    moved_at: float | None = None
    """When as much moved last as in a video."""


def judge(look: Look, expected: Expected, memory: Memory, now: float, policy: Policy) -> tuple[Verdict, Memory]:
    """What one look says. `now` is monotonic, in seconds, at the end of the look."""
    if isinstance(look, Blind):
        detail = f": {look.detail}" if look.detail else ""
        return Verdict(UNKNOWN, look.reason.value, f"The screen cannot be seen ({look.reason}{detail})"), memory
    memory = _remember(look, memory, now, policy)
    page = look.witness.page if look.witness else None
    if page in (Page.ERROR, Page.CRASHED):
        assert look.witness is not None
        return Verdict(FROZEN, page.value, f"The browser says: {page}{_detail(look.witness)}"), memory
    if look.tiles == 0:
        return Verdict(UNKNOWN, "all ignored", "All of the screen lies in regions that are ignored"), memory
    fault = _appearance(look, page, policy) or _stillness(look, expected, memory, policy)
    if fault is not None:
        return _cross_examined(fault, look.witness, memory, now, policy), memory
    if expected.motion is Motion.VIDEO and look.moved < policy.alive_share * look.tiles:
        return _settled(look, memory), memory
    return Verdict(OK, "ok", _fine(look, expected)), memory


# --- one look ---------------------------------------------------------------------------------------------------------


def _remember(look: Burst, memory: Memory, now: float, policy: Policy) -> Memory:
    passed = None if memory.at is None or now - memory.at > policy.gap_s else max(0.0, now - memory.at)
    other = passed is not None and look.digest != memory.digest
    still_s = look.span_s if passed is None or other else memory.still_s + passed
    moved = bool(look.moved) or not look.changed
    much = bool(look.moved) and look.moved >= policy.alive_share * look.tiles
    return Memory(look.digest, now, 0.0 if moved else still_s, other, now if much else memory.moved_at)


def _appearance(look: Burst, page: Page | None, policy: Policy) -> Verdict | None:
    """A fault that the picture shows whatever is expected of it."""
    if look.windows == 0:
        return Verdict(FROZEN, "bare desktop", "No program has a window on the screen")
    if look.known is not None and not (look.known == Page.ERROR and page is Page.FINE):
        return Verdict(FROZEN, look.known, f"The screen looks like the reference picture of: {look.known}")
    spread = max(look.median) - min(look.median)
    if max(look.content) > policy.content_tiles or spread > policy.one_colour_grey:
        return None
    numbers = f"{max(look.content)} of {look.tiles} tiles with content, median grey {look.median[-1]} of 255"
    if max(look.median) > policy.black_grey:
        white = min(look.colour) >= policy.white_grey
        name = "white" if white else "uniform"
        what = "white" if white else "of one colour, rgb({}, {}, {})".format(*look.colour)
        return Verdict(BLACK, name, f"All of the screen is {what} ({numbers})")
    if max(look.content) > 0:
        return Verdict(BLACK, "black behind clock", f"The screen is black but for a pointer or a clock ({numbers})")
    return Verdict(BLACK, "black", f"The screen is black ({numbers})")


def _stillness(look: Burst, expected: Expected, memory: Memory, policy: Policy) -> Verdict | None:
    """A fault that there is too little motion, for what is expected."""
    if not look.changed:
        return None
    if expected.motion is Motion.VIDEO and look.moved == 0 and not memory.other:
        return Verdict(FROZEN, "frozen", f"Not one pixel of the video changed in {look.span_s:.1f} s")
    if expected.motion is Motion.TICKER and look.moved < policy.ticker_tiles:
        numbers = f"{look.moved} of {look.tiles} tiles moved in {look.span_s:.1f} s"
        return Verdict(FROZEN, "ticker stuck", f"The line of text does not run ({numbers})")
    limit = _limit_s(expected, policy)
    if limit is not None and memory.still_s > limit:
        text = f"Nothing changed for {memory.still_s:.0f} s, where something should at least every {limit:.0f} s"
        return Verdict(FROZEN, "frozen", text)
    return None


def _limit_s(expected: Expected, policy: Policy) -> float | None:
    if expected.motion is Motion.CLOCK:
        return policy.clock_s
    if expected.motion is Motion.WITHIN and expected.within_s is not None:
        return expected.within_s * (1 + policy.within_spare) + 5
    return None


def _cross_examined(fault: Verdict, witness: Witness | None, memory: Memory, now: float, policy: Policy) -> Verdict:
    """The player that plays on may be on a hardware plane that no capture sees; or its film rests for a moment."""
    if witness is None or witness.advances is not True:
        return fault
    moved_s = None if memory.moved_at is None else now - memory.moved_at
    if moved_s is not None and moved_s <= policy.rest_s and (fault.status is BLACK or fault.reason == "frozen"):
        return Verdict(
            OK, "ok", f"{fault.text}; it moved {moved_s:.0f} s ago, and the player plays on{_detail(witness)}"
        )
    text = f"{fault.text}; but the player plays on{_detail(witness)}, so perhaps the picture cannot be captured"
    return Verdict(UNKNOWN, "plane suspect", text)


def _settled(look: Burst, memory: Memory) -> Verdict:
    """Little moved, where a video should play: only the player knows."""
    witness = look.witness
    numbers = f"{look.moved} of {look.tiles} tiles moved in {look.span_s:.1f} s"
    if not look.changed:
        numbers = "there is one frame only"
    elif not look.moved and memory.other:
        numbers += ", yet it is another picture than at the last look"
    if witness is not None and witness.advances is True:
        return Verdict(OK, "ok", f"The picture hardly moves ({numbers}), and the player plays on{_detail(witness)}")
    if look.changed and witness is not None and (witness.advances is False or not witness.answers):
        what = "stands still" if witness.answers else "does not answer"
        text = f"The picture hardly moves ({numbers}), and the player {what}{_detail(witness)}"
        return Verdict(FROZEN, "frozen", text)
    return Verdict(UNKNOWN, "suspect", f"The picture hardly moves ({numbers}), and no player tells whether it plays")


def _fine(look: Burst, expected: Expected) -> str:
    numbers = f"{max(look.content)} of {look.tiles} tiles with content, {look.moved} moved in {look.span_s:.1f} s"
    return f"The screen shows a picture ({numbers}; expected motion: {expected.motion})"


def _detail(witness: Witness) -> str:
    return f" ({witness.kind}: {witness.detail})" if witness.detail else f" ({witness.kind})"


# --- several looks in a row -------------------------------------------------------------------------------------------

NOT_YET = Verdict(UNKNOWN, "not looked yet", "Nobody has looked at the screen yet")
_BLIND = frozenset(reason.value for reason in Blindness) | {NOT_YET.reason, "all ignored"}


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The fault is believed."""

    verdict: Verdict
    since: float
    """Of the first look that showed it."""


@dataclass(frozen=True, slots=True)
class Recovered:
    outage_s: float
    """From the first look that showed the fault to the first that showed a good picture again."""
    reason: str
    """Of the fault."""


Change = Confirmed | Recovered


@dataclass(frozen=True, slots=True)
class ScreenState:
    shown: Verdict = NOT_YET
    """What is told: a fault only once it is confirmed."""
    since: float = 0.0
    """Since when that is told, with this status and reason."""
    latest: Verdict = NOT_YET
    """Of the last look, on its own."""
    seen_at: float | None = None
    """Of the last look that was not blind."""
    bad: int = 0
    """Faults of one status in a row; blind looks in between do not count."""
    bad_status: ScreenHealthStatus | None = None
    bad_since: float = 0.0
    good: int = 0
    good_since: float = 0.0
    confirmed: Verdict | None = None
    """The fault of this outage, until it is over."""
    confirmed_since: float = 0.0
    """Of the first look that showed it."""


def observe(state: ScreenState, verdict: Verdict, now: float, policy: Policy) -> tuple[ScreenState, tuple[Change, ...]]:
    """The next state, and what became certain."""
    state = replace(state, latest=verdict)
    if verdict.reason in _BLIND:
        return _show(state, verdict, now), ()
    if state.seen_at is not None and now - state.seen_at > policy.gap_s:
        state = replace(state, bad=0, good=0)
    state = replace(state, seen_at=now)
    if verdict.is_fault:
        return _bad(state, verdict, now, policy)
    if verdict.status is OK:
        return _good(state, verdict, now, policy)
    # Something moves, or the player plays on: no fault, and no proof of the opposite.
    return _show(replace(state, bad=0), verdict, now), ()


def fault(state: ScreenState, policy: Policy) -> str | None:
    """Why the player is to be replaced: the reason of a fault that is confirmed, seen last, and not yet acted upon."""
    believed = state.confirmed is not None and state.bad >= policy.bad_checks
    return state.latest.reason if believed and state.latest.is_fault else None


def restarted(state: ScreenState) -> ScreenState:
    """The player was replaced, or something else is shown now. An outage goes on, but the fault is to be seen anew."""
    return replace(state, bad=0, good=0)


def _bad(state: ScreenState, verdict: Verdict, now: float, policy: Policy) -> tuple[ScreenState, tuple[Change, ...]]:
    again = state.bad > 0 and state.bad_status is verdict.status
    state = replace(
        state,
        bad=state.bad + 1 if again else 1,
        bad_status=verdict.status,
        bad_since=state.bad_since if again else now,
        good=0,
    )
    if state.confirmed is not None:
        return _show(state, verdict, now), ()
    if state.bad >= policy.bad_checks:
        state = replace(state, confirmed=verdict, confirmed_since=state.bad_since)
        return _show(state, verdict, now), (Confirmed(verdict, state.bad_since),)
    if state.shown.status is OK:
        return state, ()
    text = f"{verdict.text}; look {state.bad} of {policy.bad_checks} that it takes to believe it"
    return _show(state, Verdict(UNKNOWN, "checking", text), now), ()


def _good(state: ScreenState, verdict: Verdict, now: float, policy: Policy) -> tuple[ScreenState, tuple[Change, ...]]:
    state = replace(state, bad=0, good=state.good + 1, good_since=state.good_since if state.good else now)
    if state.confirmed is None:
        return _show(state, verdict, now), ()
    if state.good < policy.good_checks:
        return state, ()
    over = Recovered(state.good_since - state.confirmed_since, state.confirmed.reason)
    return _show(replace(state, confirmed=None), verdict, now), (over,)


def _show(state: ScreenState, verdict: Verdict, now: float) -> ScreenState:
    same = (state.shown.status, state.shown.reason) == (verdict.status, verdict.reason)
    return replace(state, shown=verdict, since=state.since if same else now)
