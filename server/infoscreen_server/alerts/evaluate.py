"""A round: look at all rules and clients, note what changed, and put into the outbox what is to be said of it.

What is seen is read first; what follows is written in one transaction, by the one process that moves the round's number
on. So several processes double nothing, ingest waits only where something changed, and a process that dies between
leaves the round to the next.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, update

from infoscreen_server.alerts import machine
from infoscreen_server.alerts.hours import any_open, open_time
from infoscreen_server.alerts.machine import CLEAR, Sight, State, Timing
from infoscreen_server.alerts.observe import FLEET, Seen
from infoscreen_server.alerts.tell import plan, tell
from infoscreen_server.alerts.world import Pair, World, away_since, deaf_time, read, unsettled
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import portions, writing
from infoscreen_server.models import UtcTime
from infoscreen_server.models_alerts import Alert, AlertMark, AlertState

NOTED_EVERY = timedelta(seconds=20)
"""How often a round without anything to write is noted."""


@dataclass(slots=True)
class Changes:
    states: dict[Pair, State] = field(default_factory=dict)
    opened: list[dict[str, Any]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    """Alerts whose rule is off or no longer about that client: they end, and nothing is said of it."""
    gone: list[Pair] = field(default_factory=list)
    """States of such pairs, and of those with nothing to remember."""

    def __bool__(self) -> bool:
        return bool(self.states or self.opened or self.ended or self.dropped or self.gone)


def round(engine: Engine, config: ServerConfig, now: datetime) -> int:
    """Do one round at `now`. Returns how many messages it put into the outbox. Raises DBAPIError."""
    with engine.connect() as connection:
        world = read(connection, config, now)
    changes, planned = _changes(world), plan(world)
    if not (changes or planned.notices or planned.settled or _to_note(world)):
        return 0
    with writing(engine) as connection:
        if not _take(connection, world, config):
            return 0
        if world.set_back:
            _pull_back(connection, world.now)
        _write(connection, world, changes)
        world.unsettled = unsettled(connection)
        return tell(connection, world, config)


# --- what changes -----------------------------------------------------------------------------------------------------


def _changes(world: World) -> Changes:
    made = Changes()
    open_of: dict[Pair, Row[Any]] = {}
    flapping: dict[Pair, Row[Any]] = {}
    for alert in world.unsettled:
        pair = alert.rule_id, alert.client_uuid or FLEET
        if not _is_meant(world, pair):
            made.dropped.append(alert.id)
        elif alert.ended_at is None:
            (flapping if alert.flapping else open_of)[pair] = alert
    made.gone += [pair for pair in world.states if not _is_meant(world, pair)]
    seen = {(rule_id, uuid) for rule_id, found in world.seen.items() for uuid in found}
    for pair in sorted(seen | world.states.keys() | open_of.keys() | flapping.keys()):
        if _is_meant(world, pair):
            _look(world, pair, made, open_of=open_of.get(pair), flapping=flapping.get(pair))
    return made


def _is_meant(world: World, pair: Pair) -> bool:
    rule = world.rules.get(pair[0])
    return rule is not None and world.is_meant(rule, pair[1])


def _look(world: World, pair: Pair, made: Changes, *, open_of: Row[Any] | None, flapping: Row[Any] | None) -> None:
    rule, uuid = world.rules[pair[0]], pair[1]
    before = world.states.get(pair, State())
    seen = world.seen[rule.id].get(uuid, Seen(CLEAR, {}))
    after = _step(world, rule, uuid, before, seen.sight)
    if after.fires and not before.fires and open_of is None:
        since = min(each for each in (before.since, seen.sight.since, world.now) if each is not None)
        made.opened.append(_opened(world, rule, uuid, since, seen, flapping=False))
    elif not after.fires and open_of is not None:
        made.ended.append(open_of.id)
    if flapping is not None:
        if machine.is_steady(after, world.now):
            made.ended.append(flapping.id)
            after = machine.calmed(after)
    elif after != before and machine.begins_to_flap(after, world.now):
        made.opened.append(_opened(world, rule, uuid, after.changes[0], seen, flapping=True))
    if machine.forgotten(after, world.now):
        made.gone += [pair] if pair in world.states else []
    elif after != before:
        made.states[pair] = after


def _step(world: World, rule: Row[Any], uuid: str, before: State, sight: Sight) -> State:
    tables = world.hours_for(rule, uuid)
    timing = Timing(timedelta(seconds=rule.hold), timedelta(seconds=rule.keep))
    return machine.step(
        before,
        sight,
        world.now,
        timing,
        is_open=any_open(tables, world.now),
        open_time=lambda begin, end: open_time(tables, begin, end),
    )


def _opened(world: World, rule: Row[Any], uuid: str, since: datetime, seen: Seen, *, flapping: bool) -> dict[str, Any]:
    place = world.fleet.get(uuid)
    return {
        "rule_id": rule.id,
        "rule_name": rule.name,
        "kind": rule.kind,
        "flapping": flapping,
        "client_uuid": uuid or None,
        "site": place.site if place else None,
        "began_at": since,
        "fired_at": world.now,
        "detail": json.dumps(dict(seen.detail), ensure_ascii=False),
        "notices": 0,
    }


def _to_note(world: World) -> bool:
    """Or where the mark is ahead by so much: by it, it is told that the clock was set back."""
    return world.mark.evaluated_at is None or abs(world.now - world.mark.evaluated_at) >= NOTED_EVERY


# --- writing ----------------------------------------------------------------------------------------------------------


def _take(connection: Connection, world: World, config: ServerConfig) -> bool:
    """Whether this round is ours: another process may have done it since it was read."""
    values: dict[str, Any] = {"round": world.mark.round + 1, "evaluated_at": world.now}
    if world.away:
        values |= {"deaf_until": world.now + deaf_time(config), "away_since": away_since(world)}
    statement = update(AlertMark).where(AlertMark.round == world.mark.round).values(values)
    return connection.execute(statement).rowcount == 1


# Nothing waits for `began_at`; of an outage it is compared with what the same clock said of the clients.
_TIMES = (Alert.fired_at, Alert.ended_at, Alert.announced_at, Alert.last_notice_at)


def _pull_back(connection: Connection, now: datetime) -> None:
    """Times ahead of now become now: else what is to be said next would wait for the clock to come to them."""
    for column in _TIMES:
        connection.execute(update(Alert).where(Alert.closed_at.is_(None), column > now).values({column: now}))
    connection.execute(update(Alert).where(Alert.closed_at > now).values(closed_at=now))


def _write(connection: Connection, world: World, changes: Changes) -> None:
    _write_states(connection, world.states, changes)
    if changes.opened:
        connection.execute(insert(Alert), changes.opened)
    for some in portions(changes.ended):
        connection.execute(update(Alert).where(Alert.id.in_(some)).values(ended_at=world.now))
    over = {"ended_at": func.coalesce(Alert.ended_at, world.now, type_=UtcTime()), "closed_at": world.now}
    for some in portions(changes.dropped):
        connection.execute(update(Alert).where(Alert.id.in_(some)).values(over))
    world.states |= changes.states


_ONE = (AlertState.rule_id == bindparam("of_rule")) & (AlertState.client_uuid == bindparam("of_client"))
_NEW: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("phase", "since", "changes")}


def _write_states(connection: Connection, known: Mapping[Pair, State], changes: Changes) -> None:
    gone = [{"of_rule": rule_id, "of_client": uuid} for rule_id, uuid in changes.gone]
    fresh: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for (rule_id, uuid), state in changes.states.items():
        times = json.dumps([each.isoformat() for each in state.changes])
        values = {"phase": str(state.phase), "since": state.since, "changes": times}
        if (rule_id, uuid) in known:
            renamed = {f"new_{name}": value for name, value in values.items()}
            changed.append({"of_rule": rule_id, "of_client": uuid, **renamed})
        else:
            fresh.append({"rule_id": rule_id, "client_uuid": uuid, **values})
    for statement, rows in (
        (delete(AlertState).where(_ONE), gone),
        (update(AlertState).where(_ONE).values(_NEW), changed),
        (insert(AlertState), fresh),
    ):
        if rows:
            connection.execute(statement, rows)
