"""All that a round goes by, read in one go: rules, screens and what is to be seen of them, what is known already."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select

from infoscreen_server.alerts import notices, observe
from infoscreen_server.alerts.hours import Hours, any_open
from infoscreen_server.alerts.machine import Phase, State
from infoscreen_server.alerts.observe import FLEET, Screen, Seen
from infoscreen_server.alerts.outage import HELD_MOST, Known, Outage, went_at
from infoscreen_server.alerts.silences import Place, Scope, Silence, is_muted
from infoscreen_server.alerts.tables import hours_of, silence_of
from infoscreen_server.config import ServerConfig
from infoscreen_server.models import UtcTime
from infoscreen_server.models_alerts import (
    Alert,
    AlertMark,
    AlertRule,
    AlertSilence,
    AlertState,
    OpeningHours,
    RuleKind,
)

AWAY_AFTER = timedelta(seconds=60)
"""Without a round for so long the server counts as having been away. So it does where the last round was so far ahead:
the clock was set back, and what its times said of silences is worth nothing. Less is what clocks of several differ by.
"""
DEAF_HEARTBEATS = 2
"""After the server was away, before a silence proves anything."""

BACK_AFTER = timedelta(minutes=5)
"""Of hearing again: whatever fell silent meanwhile has been told of by then."""

Pair = tuple[int, str]
"""Rule and client, FLEET for all of them."""


@dataclass(slots=True)
class World:
    now: datetime
    mark: Row[Any]
    away: bool
    """The server was not there until now."""
    set_back: bool
    """It was, because its clock was set back: there are times ahead of now."""
    deaf: bool
    """Or for so short a time that nobody's silence proves anything yet."""
    rules: dict[int, Row[Any]]
    fleet: dict[str, Screen]
    gone: Outage
    seen: dict[int, dict[str, Seen]]
    states: dict[Pair, State]
    unsettled: list[Row[Any]]
    silences: list[Silence]
    hours: dict[str, Hours]
    """By tag; the empty one is for clients whose tags have none."""
    recovered_at: dict[notices.Group, datetime]

    def hours_for(self, rule: Row[Any], uuid: str | None) -> tuple[Hours, ...]:
        """What is about the whole fleet keeps to the hours of those that are gone."""
        if not rule.in_hours:
            return ()
        return self.tables_of([uuid] if uuid else self.gone.gone)

    def tables_of(self, uuids: Iterable[str]) -> tuple[Hours, ...]:
        """Their opening hours; none if one of them is always open."""
        found: dict[Hours, None] = {}
        for tags in {self.fleet[uuid].tags if uuid in self.fleet else frozenset() for uuid in uuids}:
            own = [self.hours[tag] for tag in sorted(tags) if tag in self.hours]
            if not own and "" not in self.hours:
                return ()
            found |= dict.fromkeys(own or [self.hours[""]])
        return tuple(found)

    def is_open(self, rule: Row[Any], uuid: str | None) -> bool:
        return any_open(self.hours_for(rule, uuid), self.now)

    def is_meant(self, rule: Row[Any], uuid: str) -> bool:
        """Whether the rule is about this client, if it is there at all."""
        if uuid == FLEET:
            return True
        return uuid in self.fleet and (not rule.tag or rule.tag in self.fleet[uuid].tags)

    def place(self, uuid: str | None, site: str | None) -> Place:
        tags = self.fleet[uuid].tags if uuid in self.fleet else frozenset()
        return Place(uuid or None, site, tags)


def deaf_time(config: ServerConfig) -> timedelta:
    return timedelta(seconds=DEAF_HEARTBEATS * config.heartbeat_seconds)


def read(connection: Connection, config: ServerConfig, now: datetime) -> World:
    # First of all: whoever finds it unchanged when it writes knows that what was read after it is still so.
    mark = connection.execute(select(*AlertMark.__table__.columns)).one()
    set_back = mark.evaluated_at is not None and mark.evaluated_at - now > AWAY_AFTER
    away = mark.evaluated_at is None or set_back or now - mark.evaluated_at > AWAY_AFTER
    rows = connection.execute(select(*AlertRule.__table__.columns).order_by(AlertRule.id))
    world = World(
        now=now,
        mark=mark,
        away=away,
        set_back=set_back,
        # No further ahead than it is ever written: that was a clock that was wrong.
        deaf=away or (mark.deaf_until is not None and now < mark.deaf_until <= now + deaf_time(config)),
        rules={row.id: row for row in rows if row.enabled},
        fleet=observe.screens(connection, now, timedelta(seconds=config.silence_s)),
        gone=Outage(),
        seen={},
        states={
            (row.rule_id, row.client_uuid): _state_of(row)
            for row in connection.execute(select(*AlertState.__table__.columns))
        },
        unsettled=unsettled(connection),
        silences=[silence_of(row) for row in connection.execute(select(*AlertSilence.__table__.columns))],
        hours={row.tag: hours_of(row) for row in connection.execute(select(*OpeningHours.__table__.columns))},
        recovered_at=_recovered_at(connection, now),
    )
    world.gone = _gone(world)
    world.seen = {
        rule.id: observe.of_rule(connection, rule, world.fleet, now, world.gone, deaf=world.deaf)
        for rule in world.rules.values()
    }
    return world


def _gone(world: World) -> Outage:
    """By the first rule about outages. Silenced screens are none, nor, where hours matter, those off for the night.

    But those that began one stay in it: that a place closes or is silenced is no recovery. And none begins with screens
    that an outage does not speak for any more: that a place opens, or that its silence is over, is no event.
    """
    rule = next((rule for rule in world.rules.values() if rule.kind is RuleKind.OUTAGE), None)
    if rule is None:
        return Outage()
    known = _known(world, rule)
    # A silence over all of them keeps the outage's own alert quiet. It is still one event, not one of each site.
    silences = [each for each in world.silences if each.scope is not Scope.ALL and each.is_active(world.now)]

    newest = timedelta(seconds=rule.hold) + HELD_MOST

    def counts(each: Screen) -> bool:
        if known is not None and each.offline and went_at(known.since, each.last_alive):
            return True
        if each.offline and _silent_for(world, each) >= newest:
            return False
        return world.is_open(rule, each.uuid) and not is_muted(silences, world.place(each.uuid, each.site), world.now)

    there = [each for each in world.fleet.values() if counts(each)]
    return observe.fleet_outage(there, (rule.threshold or 0) / 100, known)


def _silent_for(world: World, screen: Screen) -> timedelta:
    """As far as the server was there to hear it: before it was away the last time, and since it hears again."""
    if screen.last_alive is None:
        return timedelta()
    left, back = away_since(world), world.now if world.away else world.mark.deaf_until
    before = left - screen.last_alive if left is not None else timedelta()
    since = world.now - max(screen.last_alive, back or screen.last_alive)
    return max(before, timedelta()) + max(since, timedelta())


def away_since(world: World) -> datetime | None:
    """When the server went away the last time; one that was back for a moment only was away all the time."""
    mark = world.mark
    left: datetime | None = mark.away_since
    if world.away and (mark.deaf_until is None or mark.evaluated_at >= mark.deaf_until + BACK_AFTER):
        left = mark.evaluated_at
    return left and min(left, world.now)


def _known(world: World, rule: Row[Any]) -> Known | None:
    """The outage that is told of already, as it was found then."""
    if not world.states.get((rule.id, FLEET), State()).fires:
        return None
    told = [each for each in world.unsettled if each.rule_id == rule.id and each.ended_at is None]
    first = min((each for each in told if not each.flapping), key=lambda each: each.began_at, default=None)
    return Known(first.began_at, json.loads(first.detail).get("of", 0)) if first else None


def unsettled(connection: Connection) -> list[Row[Any]]:
    columns = Alert.__table__.columns
    return list(connection.execute(select(*columns).where(Alert.closed_at.is_(None)).order_by(Alert.id)))


def _recovered_at(connection: Connection, now: datetime) -> dict[notices.Group, datetime]:
    rows = connection.execute(
        select(Alert.rule_id, Alert.site, func.max(Alert.closed_at, type_=UtcTime()))
        .where(Alert.closed_by.is_not(None), Alert.closed_at > now - notices.GROUP_INTERVAL)
        .group_by(Alert.rule_id, Alert.site)
    )
    return {(rule, site): at for rule, site, at in rows}


def _state_of(row: Row[Any]) -> State:
    changes = tuple(datetime.fromisoformat(each).astimezone(UTC) for each in json.loads(row.changes))
    return State(Phase(row.phase), row.since, changes)
