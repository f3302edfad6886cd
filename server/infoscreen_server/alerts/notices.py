"""What there is to say now of the alerts that are not settled yet: whom to tell of together, and when. Pure.

An alert is settled when nothing more will be said of it: it was told of and its end was told of, or it came and went
unheard, under a silence or while its screen was flapping. What is held back is no state of its own: it follows each
time from what was said already, so that no silence and no restart can lose it.
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
    """All of one group; of one client where it flaps."""
    also: tuple[Unsettled, ...] = ()
    """Told of by the way: what still holds when a flapping screen is steady again."""


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
    is_open: Callable[[Unsettled], bool]
    coming: frozenset[Group]
    """Groups of which more may begin to fire within GROUP_WAIT."""
    recovered_at: Mapping[Group, datetime]
    """When a recovery was last told of, for groups where that was lately."""
    repeat: Mapping[int, timedelta]
    """By rule: after how long to remind; nothing for a rule that never does."""


def plan(alerts: Iterable[Unsettled], what: Round) -> Plan:
    made = Plan()
    flapping = {each.pair: each for each in alerts if each.flapping}
    groups: dict[Group, list[Unsettled]] = defaultdict(list)
    for alert in alerts:
        if alert.flapping:
            continue
        if alert.pair not in flapping:
            groups[alert.group].append(alert)
        elif alert.ended_at is not None:
            made.settled.append(alert)
    for each in flapping.values():
        _flapping(each, alerts, what, made)
    for group, members in groups.items():
        _of_group(group, members, what, made)
    return made


def _flapping(alert: Unsettled, alerts: Iterable[Unsettled], what: Round, made: Plan) -> None:
    if alert.announced_at is None:
        if alert.ended_at is not None:
            made.settled.append(alert)
        elif not what.muted(alert):
            made.notices.append(Notice(MessageKind.FLAPPING, (alert,)))
    elif alert.ended_at is not None and not what.muted(alert):
        still = [each for each in alerts if each.pair == alert.pair and not each.flapping and each.ended_at is None]
        made.notices.append(Notice(MessageKind.STEADY, (alert,), tuple(still)))


def _of_group(group: Group, members: list[Unsettled], what: Round, made: Plan) -> None:
    muted = {each.id for each in members if what.muted(each)}
    made.settled += [each for each in members if each.id in muted and each.announced_at is None and each.ended_at]
    heard = [each for each in members if each.id not in muted]
    fresh = [each for each in heard if each.announced_at is None]
    known = [each for each in members if each.announced_at is not None and each.ended_at is None]
    over = [each for each in heard if each.announced_at is not None and each.ended_at is not None]
    if fresh and what.now >= _firing_due(group, fresh, known, what):
        made.notices.append(Notice(MessageKind.FIRING, tuple(fresh)))
    if over and what.now >= _recovered_due(group, over, bool(known), what):
        made.notices.append(Notice(MessageKind.RECOVERED, tuple(over)))
    waiting = [each for each in known if each.id not in muted and what.is_open(each)]
    repeat = what.repeat.get(group[0])
    if waiting and repeat and what.now >= max(_last_notice(each) for each in known) + repeat:
        made.notices.append(Notice(MessageKind.REMINDER, tuple(waiting)))


def _firing_due(group: Group, fresh: list[Unsettled], known: list[Unsettled], what: Round) -> datetime:
    if any(each.ended_at is not None for each in fresh):
        return what.now  # The word that it began must not come after the word that it ended.
    if known:
        return max(each.announced_at for each in known if each.announced_at is not None) + GROUP_INTERVAL
    first = min(each.fired_at for each in fresh)
    return first + GROUP_WAIT if group in what.coming else first


def _recovered_due(group: Group, over: list[Unsettled], others: bool, what: Round) -> datetime:
    first = min(each.ended_at for each in over if each.ended_at is not None)
    if not others:
        return first
    last = what.recovered_at.get(group)
    return max(first + GROUP_WAIT, last + GROUP_INTERVAL) if last is not None else first + GROUP_WAIT


def _last_notice(alert: Unsettled) -> datetime:
    return alert.last_notice_at or alert.fired_at
