"""How events become incidents: one fold over a client's events in the order of their times. Pure.

Records of a kiosk arrive in lanes, and after days without a connection: the order of arrival says nothing. Hence the
fold runs over sorted events, and what arrives late is folded in anew from where it belongs (incident_store does that).

    event                                            player                          screen
    crashed exited missing stopped                   opens, or goes on with          -
      restart_failed gave_up; told: crashed            the last within 60 s
    black frozen gave_up; told: BLACK FROZEN         -                               opens, or goes on
    restarting (player, session), rebooting          one restart more if open        one restart more if open
    started; told: running                           ends                            -
    recovered                                        ends, if open, at the end of    ends
                                                       the outage that it tells
    expectation cleared                              ends: nothing is to play        ends
    thinned                                          stands for events of a long incident that were left out; see `thin`

What a kiosk tells of itself (heartbeat, health) counts where its events do not say the same: see `contradictions`.
Records may get lost, and a simple client sends none with a code.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from infoscreen_server.models_history import MESSAGE_CHARS, IncidentKind
from infoscreen_shared.messages import LogLevel

CONTINUES = timedelta(seconds=60)
"""A fault so soon after the end of an incident is still that incident: a crash loop is one."""

PLAYER, SCREEN = IncidentKind.PLAYER, IncidentKind.SCREEN

_TOLD = "told."
"""Begins the codes of events that are no records but states out of a heartbeat or health."""
_OPENS = {
    "player.crashed": PLAYER,
    "player.exited": PLAYER,
    "player.missing": PLAYER,
    "player.stopped": PLAYER,
    "player.restart_failed": PLAYER,
    "player.gave_up": PLAYER,
    "told.crashed": PLAYER,
    "screen.black": SCREEN,
    "screen.frozen": SCREEN,
    "screen.gave_up": SCREEN,
    "told.BLACK": SCREEN,
    "told.FROZEN": SCREEN,
}
_STEPS = frozenset({"player.restarting", "session.restarting", "system.rebooting"})
_ENDS = {
    "player.started": (PLAYER,),
    "player.recovered": (PLAYER,),
    "told.running": (PLAYER,),
    "screen.recovered": (SCREEN,),
    "told.OK": (SCREEN,),
    "expectation.cleared": (PLAYER, SCREEN),
}
_THINNED = {f"thinned.{kind}": kind for kind in (PLAYER, SCREEN)}
"""Codes of events that are no records either. One sorts behind the faults of its time and before what they lead to."""
_GAVE_UP = "player.gave_up"
"""The newest of an incident is never left out: alerts ask for it."""
_SHOWN_ONLY = frozenset({"buffer.dropped"})
CODES = frozenset({*_OPENS, *_STEPS, *_ENDS, *_SHOWN_ONLY} - {code for code in (*_OPENS, *_ENDS) if code[:5] == _TOLD})
"""Of records that are kept as events."""
TOLD = {
    **{code.removeprefix(_TOLD): (kind, True) for code, kind in _OPENS.items() if code.startswith(_TOLD)},
    **{code.removeprefix(_TOLD): (kinds[0], False) for code, kinds in _ENDS.items() if code.startswith(_TOLD)},
}
"""States that say something about an incident: of which kind, and whether there is one."""


class Event(NamedTuple):
    """Something that happened to a client. Events sort as the fold wants them: at one time the faults come first."""

    at: datetime
    code: str
    level: LogLevel
    message: str = ""
    detail: str | None = None
    """Parts of the record's context, a JSON object as text."""

    @property
    def place(self) -> tuple[Any, ...]:
        rank = 0 if self.code in _OPENS or self.code in _THINNED else 1 if self.code in _STEPS else 2
        return self.at, rank, self.code, self.message, self.detail or "", self.level

    def number(self, name: str) -> float | None:
        value = json.loads(self.detail).get(name) if self.detail else None
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


class Incident(NamedTuple):
    """As far as it is known; also all that the fold has to know to go on."""

    kind: IncidentKind
    began_at: datetime
    ended_at: datetime | None
    code: str
    """Of the event that opened it, as is `message`."""
    message: str
    restarts: int
    last_event_at: datetime

    def goes_on_at(self, when: datetime) -> bool:
        return self.ended_at is None or when - self.ended_at <= CONTINUES


def fold(events: Iterable[Event], last: Iterable[Incident] = ()) -> list[Incident]:
    """The incidents that events make, in the order of their beginning; `last`, at most one of a kind, go on first.

    >>> from datetime import UTC
    >>> def at(second): return datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)
    >>> crash, again = (Event(at(when), "player.crashed", LogLevel.ERROR, "mpv crashed") for when in (1, 20))
    >>> started = [Event(at(when), "player.started", LogLevel.INFO) for when in (3, 25)]
    >>> for incident in fold([crash, again, *started]):
    ...     print(incident.kind, incident.began_at.second, incident.ended_at.second, incident.message)
    player 1 25 mpv crashed
    """
    now = {incident.kind: incident for incident in last}
    found: list[Incident] = []
    for event in sorted(events, key=lambda one: one.place):
        for kind in _kinds_of(event):
            before = now.get(kind)
            after = _after(kind, event, before)
            if before is not None and after is not None and after.began_at != before.began_at:
                found.append(before)
            if after is not None:
                now[kind] = after
    return sorted((*found, *now.values()), key=lambda incident: (incident.began_at, incident.kind))


def _kinds_of(event: Event) -> tuple[IncidentKind, ...]:
    """Of the incidents that it may be about."""
    one = _OPENS.get(event.code) or _THINNED.get(event.code)
    if one is not None:
        return (one,)
    return (PLAYER, SCREEN) if event.code in _STEPS else _ENDS.get(event.code, ())


def _after(kind: IncidentKind, event: Event, before: Incident | None) -> Incident | None:
    """The newest incident of the kind after an event of that kind."""
    if event.code in _OPENS:
        return _opened(kind, event, before if before is not None and before.goes_on_at(event.at) else None)
    if before is None:
        return None
    if event.code in _THINNED:
        restarts = before.restarts + int(event.number("restarts") or 0)
        return before._replace(ended_at=None, restarts=restarts, last_event_at=event.at)
    return before if before.ended_at is not None else _changed(before, event)


def _opened(kind: IncidentKind, event: Event, before: Incident | None) -> Incident:
    if before is not None:
        return before._replace(ended_at=None, last_event_at=event.at)
    return Incident(kind, event.at, None, event.code, event.message[:MESSAGE_CHARS], 0, event.at)


def _changed(incident: Incident, event: Event) -> Incident:
    """An open incident after a step or an end."""
    if event.code in _STEPS:
        # The first start of a player that the watchdog itself starts is numbered 0 and brings nothing back.
        restarts = incident.restarts + (event.number("restart") != 0)
        return incident._replace(restarts=restarts, last_event_at=event.at)
    ended_at = event.at
    outage = event.number("outage_s") if event.code == "player.recovered" else None
    if outage is not None and 0 <= outage < (event.at - incident.began_at).total_seconds():
        # Its start was lost on the way; the record comes only when the player has been stable for a while.
        ended_at = max(incident.last_event_at, incident.began_at + timedelta(seconds=outage))
    return incident._replace(ended_at=ended_at, last_event_at=event.at)


# --- long incidents ---------------------------------------------------------------------------------------------------


class Thinned(NamedTuple):
    """What may be left out of a run of events, by place, and what is to stand for it: the fold stays the same."""

    gone: list[int]
    instead: list[Event]


def thin(events: Sequence[Event], last: Iterable[Incident] = ()) -> Thinned:
    """Leave out what an incident that goes on is made of: all behind its opener up to where it was open the last time.

    `events` in the order of the fold, `last` as for it. A stand-in for each kind says that the incident went on till
    then, and how many restarts are left out with it. So an end that comes late, from before it, no longer parts the
    incident in two, and a fault of the other kind that comes late has none of these restarts; all else counts as ever.
    """
    last = list(last)
    runs, affected = _runs(events, last)
    gave_up = max((place for place, one in enumerate(events) if one.code == _GAVE_UP), default=-1)
    gone = {place for place, one in enumerate(events) if place != gave_up and _is_covered(one, place, runs, affected)}
    kept = [one for place, one in enumerate(events) if place not in gone]
    kinds = {kind for place in gone for kind in _kinds_of(events[place])}
    parted = [run.incident for kind, run in runs.items() if kind in kinds]
    true = fold(events, last)
    wanted, reached = (
        {(one.kind, one.began_at): one.restarts for one in found}
        for found in (true, fold([*kept, *(_stand_in(one, 0) for one in parted)], last))
    )
    instead = [
        _stand_in(one, wanted[one.kind, one.began_at] - reached.get((one.kind, one.began_at), 0)) for one in parted
    ]
    if len(gone) <= len(instead) or fold([*kept, *instead], last) != true:
        return Thinned([], [])
    return Thinned(sorted(gone), instead)


class _Run(NamedTuple):
    """Of the newest incident of a kind."""

    first: int
    """The place of its opener; -1 if that is not among the events."""
    until: int
    """The place of the event behind which it was open the last time."""
    incident: Incident
    """As it was then."""


def _runs(
    events: Sequence[Event], last: Iterable[Incident]
) -> tuple[dict[IncidentKind, _Run], set[tuple[int, IncidentKind]]]:
    """Where incidents go on, and which event changes which kind."""
    now = {incident.kind: incident for incident in last}
    first: dict[IncidentKind, int] = {}
    runs: dict[IncidentKind, _Run] = {}
    affected: set[tuple[int, IncidentKind]] = set()
    for place, event in enumerate(events):
        for kind in _kinds_of(event):
            before, after = now.get(kind), _after(kind, event, now.get(kind))
            if after is None:
                continue
            if before is None or after.began_at != before.began_at:
                first[kind] = place
                runs.pop(kind, None)
            if after != before:
                affected.add((place, kind))
            now[kind] = after
            if after.ended_at is None:
                runs[kind] = _Run(first.get(kind, -1), place, after)
    return runs, affected


def _is_covered(
    event: Event, place: int, runs: Mapping[IncidentKind, _Run], affected: Container[tuple[int, IncidentKind]]
) -> bool:
    """Whether the stand-ins say all that this event does."""
    covered = {kind for kind, run in runs.items() if run.first < place <= run.until}
    about = _kinds_of(event)
    if not covered or (about and not covered.intersection(about)):
        return False
    return all(kind in covered or (place, kind) not in affected for kind in about)


def _stand_in(incident: Incident, restarts: int) -> Event:
    detail = json.dumps({"restarts": restarts})
    return Event(incident.last_event_at, f"thinned.{incident.kind}", LogLevel.INFO, "", detail)


class Told(NamedTuple):
    """A state out of a heartbeat or health, and when the device told it."""

    state: str
    at: datetime
    pid: int | None = None


def contradictions(told: Iterable[Told], last: Sequence[Incident]) -> list[Event]:
    """The events that states make: down where there is no incident, well where there is one. In order of telling.

    `last`: the newest incident of each kind. A state that is older than the newest event of it says nothing.
    """
    reached = {one.kind: (one.ended_at is None, one.last_event_at) for one in last}
    found: list[Event] = []
    for state, at, pid in told:
        if state not in TOLD:
            continue
        kind, down = TOLD[state]
        is_open, since = reached.get(kind, (False, None))
        if down == is_open or (since is not None and at <= since):
            continue
        reached[kind] = down, at
        level = LogLevel.ERROR if down else LogLevel.INFO
        detail = None if pid is None else json.dumps({"pid": pid})
        found.append(Event(at, _TOLD + state, level, "", detail))
    return found
