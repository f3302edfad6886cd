"""Has the screen looked at, and keeps what was seen: when to look, what is told about it, what is kept as evidence.

The pictures are taken by the capture helper (infoscreen_device.screen), which is asked over the control socket; what a
look means is for core.screen, what is done about a wrong picture for core.recovery.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from infoscreen_device.control import ControlServer, Reply, Request
from infoscreen_device.core import screen
from infoscreen_device.core.drafts import about
from infoscreen_device.core.likeness import matches
from infoscreen_device.core.model import Draft, Expectation, ProcessKey
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.core.picture import Blind, Blindness, Burst, Expected, Look, Motion, usual
from infoscreen_device.incidents import Incident, Incidents, Periodic
from infoscreen_device.looks import Picture, look_from, question
from infoscreen_device.probes import process as probe
from infoscreen_device.probes import system
from infoscreen_device.screen_settings import is_quiet
from infoscreen_device.settings import Config
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus

FRAMES = 3
CAPTURE_LIMIT_S = 8.0
"""Beyond the burst itself: how long capture and reckoning may take before they are killed."""
GRACE_S = 3.0
"""After that the helper itself is not waited for any more."""
HASH_S = 300.0
"""How often the perceptual hash is wanted, which costs more than all else of a look."""
HASH_KNOWN_S = 30.0
"""The same where it is looked for known pictures."""
JITTER = 0.2
"""Looks are this share earlier or later, so as not to beat with a slide show or a film that loops every 12 s."""
UNSEEN_LOOKS = 3
"""After so many looks that saw nothing, for the same reason, a record says so."""
CHANGE_S = 5.0
"""After a change of what the same player plays."""
MAX_DEMANDS = 4
"""People who want to see the screen at once: each may hold pictures in memory."""
NO_PLAYER = "no player runs"
EXPECTED_BLINDNESS = frozenset({Blindness.SETTLING, Blindness.QUIET_HOURS, Blindness.DISPLAY_OFF, Blindness.LOCKED})


@dataclass(frozen=True, slots=True)
class ScreenView:
    """What is told about the picture in health, heartbeat, STATUS and `status`."""

    status: ScreenHealthStatus = ScreenHealthStatus.UNKNOWN
    reason: str = "not looked at yet"
    text: str = ""
    hash: str | None = None
    analyzed_at: datetime | None = None


@dataclass(slots=True)
class _Asked:
    id: int
    due: float
    demand: Reply | None = None
    """Somebody who wants to know now; None for a look of our own."""


@dataclass(slots=True)
class _Subject:
    """What is judged: a player that runs, and what it is to show."""

    player: ProcessKey
    expectation: Expectation
    settled_at: float

    @property
    def expected(self) -> Expected:
        return self.expectation.motion or usual(self.expectation.event_type)


class ScreenWatch:
    """`look` and `answer` are called from the agent's loop and return records to submit."""

    def __init__(self, config: Config, control: ControlServer, incidents: Incidents) -> None:
        self._config, self._pictures = config.screen, config.pictures
        self._control, self._incidents = control, incidents
        self._policy = screen.Policy(check_s=max(config.screen.interval_s, config.screen.still_s))
        self._state = screen.ScreenState()
        self._memory = screen.Memory()
        self._subject: _Subject | None = None
        self._asked: dict[int, _Asked] = {}
        self._own: int | None = None
        """Number of our own look that is under way."""
        self._number = 0
        self._next_at = 0.0
        self._hash_at = self._thumbnail_at = 0.0
        self._blind: tuple[Blindness, int] | None = None
        self.view = ScreenView() if self._config.enabled else ScreenView(reason="not looked at: screen.enabled = false")

    def fault(self, state: State) -> str | None:
        """What is wrong with the picture of this player, once it is known and is to be acted upon.

        Another player, or another programme, is not to pay for what was seen of the one before.
        """
        subject = self._subject
        if subject is None or not self._config.restart:
            return None
        same = subject.player == state.player and subject.expectation == state.expectation
        return screen.fault(self._state, self._policy) if same else None

    # --- turns of the loop --------------------------------------------------------------------------------------------

    def turn(self, state: State, now: float, utc: datetime) -> list[Draft]:
        """Looks, if it is time to."""
        self._follow(state, now)
        drafts = self._expire(now, utc)
        if self._subject is None or self._own is not None or now < self._next_at or not self._config.enabled:
            return drafts
        blind = self._blind_by_itself(now, utc)
        if blind is not None:
            return drafts + self._judge(blind, {}, now, utc)
        return drafts + self._ask(now, utc)

    def wake_at(self) -> float | None:
        times = [asked.due for asked in self._asked.values()]
        if self._subject is not None and self._own is None and self._config.enabled:
            times.append(self._next_at)
        return min(times, default=None)

    def answer(self, request: Request, now: float, utc: datetime) -> list[Draft]:
        """The helper's answer to a look."""
        asked = self._asked.pop(int(request.body["id"]), None)
        if asked is None:
            _close(request.fds)
            return []
        fds = _by_kind(request)
        look = self._named(look_from(request.body))
        if asked.demand is not None:
            self._reply(asked.demand, look, fds, now)
            return []
        self._own = None
        return self._judge(look, fds, now, utc)

    def _named(self, look: Look) -> Look:
        """With the name of the known picture that it looks like."""
        return replace(look, known=matches(look.hash, self._config.known)) if isinstance(look, Burst) else look

    def demand(self, request: Request, now: float) -> None:
        """Somebody wants to know now (`infoscreen-watchdog screen`, `screenshot`). Raises ValueError."""
        word = request.body.get("picture")
        if word is not None and word not in list(Picture):
            raise ValueError(f"picture: expected one of {', '.join(Picture)}")
        pictures = () if word is None else (Picture(word),)
        tiles = request.body.get("tiles") is True
        if sum(asked.demand is not None for asked in self._asked.values()) >= MAX_DEMANDS:
            raise ValueError("too many want to see the screen at once: try again")
        if not self._put(now, pictures, hashed=True, tiles=tiles, demand=request.reply):
            raise ValueError(
                "no capture helper is attached: run infoscreen-capture as the user whose screen it is, "
                "such as by: systemctl enable --now infoscreen-capture@USER"
            )

    # --- whom to look at ----------------------------------------------------------------------------------------------

    def _follow(self, state: State, now: float) -> None:
        """A player that was just started, or plays something else, is judged afresh."""
        expectation, player = state.expectation, state.player
        if state.phase is not Phase.RUNNING or expectation is None or player is None or state.stopped_since is not None:
            if self._subject is not None:
                self._forget("the player is stopped" if state.stopped_since is not None else NO_PLAYER)
            if expectation is None:
                # Nothing is to be shown: no outage goes on.
                self._state = screen.ScreenState()
            return
        old = self._subject
        if old is not None and old.player == player and old.expectation == expectation:
            return
        counted = self._state
        self._forget(Blindness.SETTLING)
        settle_s = self._config.settle_s
        if old is not None and old.expectation != expectation:
            # Another programme. A screen that is black is so whatever is on: short ones must not hide that for ever.
            if counted.bad_status is ScreenHealthStatus.BLACK:
                self._state = counted
            settle_s = min(settle_s, CHANGE_S) if old.player == player else settle_s
        self._subject = _Subject(player, expectation, now + settle_s)
        self._next_at = now
        self._hash_at = 0.0

    def _forget(self, reason: str) -> None:
        self._subject, self._own, self._blind = None, None, None
        self._state, self._memory = screen.restarted(self._state), screen.Memory()
        if self._config.enabled:
            self.view = replace(self.view, status=ScreenHealthStatus.UNKNOWN, reason=reason, text="")
        self._asked = {number: asked for number, asked in self._asked.items() if asked.demand is not None}

    # --- looks --------------------------------------------------------------------------------------------------------

    def _blind_by_itself(self, now: float, utc: datetime) -> Blind | None:
        assert self._subject is not None
        local = utc.astimezone()
        if is_quiet(self._config.quiet, local.hour * 60 + local.minute):
            return Blind(Blindness.QUIET_HOURS)
        if now < self._subject.settled_at:
            return Blind(Blindness.SETTLING)
        return None

    def _ask(self, now: float, utc: datetime) -> list[Draft]:
        pictures: list[Picture] = []
        if self._state.bad + 1 >= self._policy.bad_checks and self._state.confirmed is None:
            # This look may be the one that decides: its picture is the evidence.
            pictures = [Picture.JPEG, Picture.THUMBNAIL]
        elif self._incidents.sends and self._pictures.thumbnail_s and now >= self._thumbnail_at:
            pictures = [Picture.THUMBNAIL]
        # A look without a hash would find nothing wrong with a desktop that the last one knew.
        in_doubt = bool(self._state.bad or self._state.confirmed)
        hashed = now >= self._hash_at or bool(pictures) or (bool(self._config.known) and in_doubt)
        if self._put(now, pictures, hashed=hashed):
            self._own = self._number
            return []
        return self._judge(Blind(Blindness.NO_HELPER), {}, now, utc)

    def _put(
        self, now: float, pictures: Sequence[Picture], *, hashed: bool, tiles: bool = False, demand: Reply | None = None
    ) -> bool:
        """Asks the helper; False if there is none."""
        subject = self._subject
        self._number += 1
        deadline_s = self._config.span_s + CAPTURE_LIMIT_S
        body = question(
            frames=FRAMES,
            span_s=self._config.span_s,
            deadline_s=deadline_s,
            ignore=self._config.ignore,
            pid=None if subject is None else subject.player.pid,
            pictures=pictures,
            blur=self._pictures.blur and demand is None,
            hashed=hashed,
            tiles=tiles,
        )
        user = None if subject is None else subject.expectation.user
        if not self._control.ask_look({"id": self._number, **body}, user):
            return False
        self._asked[self._number] = _Asked(self._number, now + deadline_s + GRACE_S, demand)
        return True

    def _expire(self, now: float, utc: datetime) -> list[Draft]:
        drafts: list[Draft] = []
        for asked in [asked for asked in self._asked.values() if now >= asked.due]:
            del self._asked[asked.id]
            blind = Blind(Blindness.TIMEOUT, "the capture helper does not answer")
            if asked.demand is not None:
                self._reply(asked.demand, blind, {}, now)
            else:
                self._own = None
                drafts += self._judge(blind, {}, now, utc)
        return drafts

    # --- what a look means --------------------------------------------------------------------------------------------

    def _judge(self, look: Look, fds: dict[Picture, int], now: float, utc: datetime) -> list[Draft]:
        subject = self._subject
        if subject is None:
            _close(fds.values())
            return []
        try:
            verdict, self._memory = screen.judge(look, subject.expected, self._memory, now, self._policy)
            self._state, changes = screen.observe(self._state, verdict, now, self._policy)
            self._note(look, now, utc)
            drafts = self._say_blind(look)
            for change in changes:
                match change:
                    case screen.Confirmed(found):
                        drafts.append(self._confirmed(subject, found, look, fds, utc))
                    case screen.Recovered(outage_s, reason):
                        drafts.append(_recovered(subject, outage_s, reason))
            self._send_periodic(verdict, fds, now, utc)
        finally:
            _close(fds.values())
        return drafts

    def _note(self, look: Look, now: float, utc: datetime) -> None:
        shown, found, analyzed_at = self._state.shown, self.view.hash, self.view.analyzed_at
        if isinstance(look, Burst):
            analyzed_at = utc
            if look.hash is not None:
                self._hash_at, found = now + (HASH_KNOWN_S if self._config.known else HASH_S), look.hash
        self.view = ScreenView(shown.status, shown.reason, shown.text, found, analyzed_at)
        self._next_at = self._next_look(look, now)

    def _next_look(self, look: Look, now: float) -> float:
        assert self._subject is not None
        if now < self._subject.settled_at:
            return self._subject.settled_at
        moving = self._subject.expected.motion in (Motion.VIDEO, Motion.TICKER)
        wait = self._config.interval_s if moving else self._config.still_s
        state = self._state
        in_doubt = 0 < state.bad < self._policy.bad_checks or (state.confirmed is not None and state.good > 0)
        if in_doubt:
            wait = min(wait, self._config.confirm_s)
        return now + wait * (1 + JITTER * (2 * random.random() - 1))

    def _confirmed(
        self,
        subject: _Subject,
        verdict: screen.Verdict,
        look: Look,
        fds: dict[Picture, int],
        utc: datetime,
    ) -> Draft:
        facts = about(subject.expectation, subject.player) | {"reason": verdict.reason}
        numbers = _numbers(look)
        # Kept before the restart goes out: what is in memory now is written while it does.
        self._incidents.keep(
            Incident(
                utc,
                str(verdict.status),
                verdict.reason,
                facts | {"text": verdict.text, "look": numbers, **system.evidence(), **probe.facts(subject.player)},
                subject.expectation.restart,
                fds.pop(Picture.JPEG, None),
                fds.pop(Picture.THUMBNAIL, None),
                self.view.hash,
            )
        )
        code = "screen.black" if verdict.status is ScreenHealthStatus.BLACK else "screen.frozen"
        return Draft(LogLevel.ERROR, code, verdict.text, facts | {"look": numbers})

    def _say_blind(self, look: Look) -> list[Draft]:
        """Once for each reason, when it has lasted."""
        if not isinstance(look, Blind):
            self._blind = None
            return []
        count = self._blind[1] + 1 if self._blind is not None and self._blind[0] is look.reason else 1
        self._blind = (look.reason, count)
        if count != UNSEEN_LOOKS or look.reason in EXPECTED_BLINDNESS:
            return []
        detail = f": {look.detail}" if look.detail else ""
        text = f"The picture cannot be looked at: {look.reason}{detail}"
        return [Draft(LogLevel.WARN, "screen.unseen", text, {"reason": str(look.reason), "detail": look.detail})]

    def _send_periodic(self, verdict: screen.Verdict, fds: dict[Picture, int], now: float, utc: datetime) -> None:
        if not self._pictures.thumbnail_s or now < self._thumbnail_at:
            return
        small = fds.pop(Picture.THUMBNAIL, None)
        if small is not None:
            self._thumbnail_at = now + self._pictures.thumbnail_s
            self._incidents.keep(Periodic(utc, str(verdict.status), verdict.reason, small, self.view.hash))

    def _reply(self, reply: Reply, look: Look, fds: dict[Picture, int], now: float) -> None:
        expected = Expected() if self._subject is None else self._subject.expected
        verdict, _ = screen.judge(look, expected, self._memory, now, self._policy)
        answer: dict[str, Any] = {
            "ok": True,
            "screen": {"status": verdict.status, "reason": verdict.reason, "text": verdict.text},
            "expected": {"motion": expected.motion, "within_s": expected.within_s},
            "look": _numbers(look),
            "shown": {"status": self.view.status, "reason": self.view.reason},
            "pictures": list(fds),
        }
        reply(answer, list(fds.values()))


def _recovered(subject: _Subject, outage_s: float, reason: str) -> Draft:
    text = f"The screen shows {subject.expectation.process} again after {outage_s:.0f} s"
    context = about(subject.expectation, subject.player) | {"outage_s": round(outage_s, 3), "reason": reason}
    return Draft(LogLevel.INFO, "screen.recovered", text, context)


def _numbers(look: Look) -> dict[str, Any]:
    return {name: value for name, value in asdict(look).items() if value not in (None, (), "")}


def _by_kind(request: Request) -> dict[Picture, int]:
    """The pictures that came, by what they are said to be; what is not named is closed."""
    named = request.body.get("pictures")
    kinds = [each.get("kind") for each in named if isinstance(each, dict)] if isinstance(named, list) else []
    found: dict[Picture, int] = {}
    for kind, fd in zip(kinds, request.fds, strict=False):
        if kind in list(Picture) and Picture(kind) not in found:
            found[Picture(kind)] = fd
    _close(fd for fd in request.fds if fd not in found.values())
    return found


def _close(fds: Any) -> None:
    for fd in list(fds):
        os.close(fd)
