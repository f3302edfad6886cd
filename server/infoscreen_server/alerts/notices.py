"""What there is to say now of the alerts that are not settled yet: whom to tell of together, and when. Pure.

An alert is settled when nothing more will be said of it: it was told of and its end was told of, or it came and went
unheard, under a silence or while its screen was told of as flapping. What is held back is no state of its own: it
follows each time from what was said already, so that no silence and no restart can lose it.

Of one rule and one client the last word is true when it is said: one alert's end comes before the next one's begin, and
not without it. A flapping alert takes the place of the others of its rule and client; apart from that it is told of as
they are, in messages of its own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from infoscreen_server.models_alerts import MessageKind

GROUP_WAIT = timedelta(seconds=30)
"""How long the first of a site waits for others, so that a site that goes dark is one message."""
GROUP_INTERVAL = timedelta(minutes=5)
"""What comes after that message comes together so long after it."""

Group: TypeAlias = tuple[int, str | None]
"""Rule and site. Screens without a site are one group."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    id: int
    rule_id: int
    client: str | None
    site: str | None
    flapping: bool
    fired_at: datetime
    ended_at: datetime | None
    announced_at: datetime | None
    last_notice_at: datetime | None

    @property
    def group(self) -> Group:
        return self.rule_id, self.site

    @property
    def pair(self) -> tuple[int, str | None]:
        return self.rule_id, self.client


@dataclass(frozen=True, slots=True)
class Notice:
    kind: MessageKind
    alerts: tuple[Unsettled, ...]
    """All of one group, and of as many clients."""
    also: tuple[Unsettled, ...] = ()
    """Told of by the way: what still holds when flapping screens are steady again."""


@dataclass(slots=True)
class Plan:
    notices: list[Notice] = field(default_factory=list)
    settled: list[Unsettled] = field(default_factory=list)
    """Of these nothing will be said."""


@dataclass(frozen=True, slots=True)
class Round:
    """What the plan goes by besides the alerts."""

    now: datetime
    muted: Callable[[Unsettled], bool]
    was_muted: Callable[[Unsettled], bool]
    """At some time since it fired."""
    is_open: Callable[[Unsettled], bool]
    coming: frozenset[Group]
    """Groups of which more may begin to fire within GROUP_WAIT."""
    recovered_at: Mapping[Group, datetime]
    """When a recovery was last told of, for groups where that was lately."""
    repeat: Mapping[int, timedelta]
    """By rule: after how long to remind; nothing for a rule that never does."""


@dataclass(slots=True)
class _Part:
    """Of a group the flapping alerts, or the others; without those of which there is nothing to say now."""

    fresh: list[Unsettled] = field(default_factory=list)
    """To be told of."""
    known: list[Unsettled] = field(default_factory=list)
    """Told of, and not over."""
    over: list[Unsettled] = field(default_factory=list)
    """Told of, and their end is not."""
    also: list[Unsettled] = field(default_factory=list)
    """What still holds of those that flapped."""


Key: TypeAlias = tuple[Group, bool]
"""Group, and whether it is the part of it that flaps."""


def plan(alerts: Iterable[Unsettled], what: Round) -> Plan:
    """`alerts` are all that are not settled, the oldest first."""
    made = Plan()
    pairs: dict[tuple[int, str | None], list[Unsettled]] = defaultdict(list)
    for alert in alerts:
        pairs[alert.pair].append(alert)
    parts: dict[Key, _Part] = defaultdict(_Part)
    waiting: dict[Group, list[Unsettled]] = defaultdict(list)
    for members in pairs.values():
        _sort(members, what, parts, waiting, made)
    begins, ends = _due(parts, what)
    for key in ends:
        kind = MessageKind.STEADY if key[1] else MessageKind.RECOVERED
        made.notices.append(Notice(kind, _in_order(parts[key].over), _in_order(parts[key].also)))
    for key in begins:
        kind = MessageKind.FLAPPING if key[1] else MessageKind.FIRING
        made.notices.append(Notice(kind, _in_order(parts[key].fresh)))
    for group, members in waiting.items():
        repeat = what.repeat.get(group[0])
        # By the one that waits longest: with ever new ones in its group nobody would be reminded of it. It names all,
        # so that a group has one reminder in that time and not one for each of its alerts.
        if repeat and what.now >= min(_last_notice(each) for each in members) + repeat:
            made.notices.append(Notice(MessageKind.REMINDER, _in_order(members)))
    return made


def _sort(
    members: list[Unsettled],
    what: Round,
    parts: dict[Key, _Part],
    waiting: dict[Group, list[Unsettled]],
    made: Plan,
) -> None:
    """All of one rule and one client."""
    # The newest knows best where the client is: one that was moved is silenced by what is said of its new place.
    muted = what.muted(members[-1])
    quiet = {each.id for each in members if each.announced_at is None and (muted or _is_held(each, what))}
    unheard = {each.id for each in members if each.id in quiet and each.ended_at is not None}
    flapping = [each for each in members if each.flapping and each.id not in unheard]
    single = [each for each in members if not each.flapping and each.id not in unheard]
    told = [each for each in flapping if each.announced_at is not None]
    made.settled += [each for each in members if each.id in unheard]
    if flapping:
        # Of one that was told of people wait for the end, until they know that it flaps.
        made.settled += [each for each in single if each.ended_at is not None and (told or each.announced_at is None)]
    speaks = flapping or single
    held = any(each.id in quiet for each in speaks)
    for each in speaks:
        part = parts[each.group, each.flapping]
        if each.announced_at is None:
            part.fresh += [] if each.id in quiet else [each]
        elif each.ended_at is None:
            part.known.append(each)
        elif not (muted or held):
            part.over.append(each)
            if flapping == [each]:
                part.also += [one for one in single if one.ended_at is None]
    # A flapping one that is held leaves the word to the others; one that is about to be told of does not.
    for each in told or (single if held else speaks):
        if each.announced_at is not None and each.ended_at is None and not muted and what.is_open(each):
            waiting[each.group].append(each)


def _is_held(alert: Unsettled, what: Round) -> bool:
    """What comes out of a silence when nobody is there has time until somebody is; nothing begins to fire then."""
    return not what.is_open(alert) and what.was_muted(alert)


def _due(parts: Mapping[Key, _Part], what: Round) -> tuple[list[Key], list[Key]]:
    """Whose begins to tell of now, and whose ends."""
    begins = {key for key, part in parts.items() if part.fresh and what.now >= _begin_due(key, part, what)}
    ends = {key for key, part in parts.items() if part.over and what.now >= _end_due(key, part, what)}
    fresh = {(each.pair, each.flapping): key for key, part in parts.items() for each in part.fresh}
    one = [(key, each) for key, part in parts.items() for each in part.over if (each.pair, each.flapping) in fresh]
    tied = [(fresh[each.pair, each.flapping], key) for key, each in one]
    # An end and the next begin of one client go together, and each takes its whole group with it.
    while any((begin in begins) != (end in ends) for begin, end in tied):
        for begin, end in tied:
            if begin in begins or end in ends:
                begins.add(begin)
                ends.add(end)
    return [key for key in parts if key in begins], [key for key in parts if key in ends]


def _begin_due(key: Key, part: _Part, what: Round) -> datetime:
    if any(each.ended_at is not None for each in part.fresh):
        return what.now  # The word that it began must not come after the word that it ended.
    group, flapping = key
    first = min(each.fired_at for each in part.fresh)
    # Which others are about to flap nobody knows.
    wait = first + GROUP_WAIT if flapping or group in what.coming else first
    if not part.known:
        return wait
    next_one = max(each.announced_at for each in part.known if each.announced_at is not None) + GROUP_INTERVAL
    return max(wait, next_one) if flapping else next_one


def _end_due(key: Key, part: _Part, what: Round) -> datetime:
    first = min(each.ended_at for each in part.over if each.ended_at is not None)
    if not part.known:
        return first
    last = what.recovered_at.get(key[0])
    return max(first + GROUP_WAIT, last + GROUP_INTERVAL) if last is not None else first + GROUP_WAIT


def _in_order(alerts: Iterable[Unsettled]) -> tuple[Unsettled, ...]:
    """The oldest first: the message bears its number."""
    return tuple(sorted(alerts, key=lambda each: each.id))


def _last_notice(alert: Unsettled) -> datetime:
    return alert.last_notice_at or alert.fired_at
