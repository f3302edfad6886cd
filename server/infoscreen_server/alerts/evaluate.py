"""A round: look at all rules and clients, note what changed, and put into the outbox what is to be said of it.

What is seen is read first; what follows is written in one transaction, by the one process that moves the round's number
on. So several processes double nothing, ingest waits only where something changed, and a process that dies between
leaves the round to the next.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from infoscreen_server.alerts import machine, notices, observe, texts
from infoscreen_server.alerts.hours import Hours, any_open, open_time
from infoscreen_server.alerts.machine import CLEAR, Phase, Sight, State, Timing
from infoscreen_server.alerts.notices import Notice, Unsettled
from infoscreen_server.alerts.observe import FLEET, Screen, Seen
from infoscreen_server.alerts.silences import Place, Scope, Silence, is_muted
from infoscreen_server.alerts.tables import hours_of, week_of
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import writing
from infoscreen_server.i18n import speaking
from infoscreen_server.models import UtcTime
from infoscreen_server.models_alerts import (
    Alert,
    AlertChannel,
    AlertMark,
    AlertMessage,
    AlertRule,
    AlertRuleChannel,
    AlertSilence,
    AlertState,
    MessageKind,
    MessageStatus,
    OpeningHours,
    RuleKind,
)
from infoscreen_server.queries import SILENT_HEARTBEATS

AWAY_AFTER = timedelta(seconds=60)
"""Without a round for so long the server counts as having been away."""
DEAF_HEARTBEATS = 2
"""After it was away, before a silence proves anything."""
NOTED_EVERY = timedelta(seconds=20)
"""How often a round without anything to write is noted."""

Pair = tuple[int, str]
"""Rule and client, FLEET for all of them."""


@dataclass(slots=True)
class World:
    """All that a round goes by, as it was read."""

    now: datetime
    mark: Row[Any]
    away: bool
    """The server was not there until now."""
    rules: dict[int, Row[Any]]
    fleet: dict[str, Screen]
    seen: dict[int, dict[str, Seen]]
    states: dict[Pair, State]
    unsettled: list[Row[Any]]
    silences: list[Silence]
    hours: dict[str, Hours]
    """By tag; the empty one is for clients whose tags have none."""
    recovered_at: dict[notices.Group, datetime]

    def hours_for(self, rule: Row[Any], uuid: str | None) -> tuple[Hours, ...]:
        if not rule.in_hours:
            return ()
        tags = self.fleet[uuid].tags if uuid in self.fleet else frozenset()
        own = tuple(self.hours[tag] for tag in sorted(tags) if tag in self.hours)
        return own or tuple(self.hours[tag] for tag in ("",) if tag in self.hours)

    def place(self, uuid: str | None, site: str | None) -> Place:
        tags = self.fleet[uuid].tags if uuid in self.fleet else frozenset()
        return Place(uuid or None, site, tags)


@dataclass(slots=True)
class Changes:
    states: dict[Pair, State] = field(default_factory=dict)
    opened: list[dict[str, Any]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    """Alerts whose rule is gone or off: they end, and nothing is said of it."""

    def __bool__(self) -> bool:
        return bool(self.states or self.opened or self.ended or self.dropped)


def round(engine: Engine, config: ServerConfig, now: datetime) -> int:
    """Do one round at `now`. Returns how many messages it put into the outbox. Raises DBAPIError."""
    with engine.connect() as connection:
        world = _read(connection, config, now)
    changes = _changes(world)
    plan = _plan(world)
    if not (changes or plan.notices or plan.settled or _to_note(world)):
        return 0
    with writing(engine) as connection:
        if not _take(connection, world, config):
            return 0
        _write(connection, world, changes)
        world.unsettled = _unsettled(connection)
        return _tell(connection, world, config)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(connection: Connection, config: ServerConfig, now: datetime) -> World:
    mark = connection.execute(select(*AlertMark.__table__.columns)).one()
    away = mark.evaluated_at is None or now - mark.evaluated_at > AWAY_AFTER
    deaf = away or (mark.deaf_until is not None and now < mark.deaf_until)
    rules = {row.id: row for row in connection.execute(select(*AlertRule.__table__.columns)) if row.enabled}
    silence = timedelta(seconds=SILENT_HEARTBEATS * config.heartbeat_seconds)
    fleet = observe.screens(connection, now, silence)
    states = {
        (row.rule_id, row.client_uuid): _state_of(row)
        for row in connection.execute(select(*AlertState.__table__.columns))
    }
    guard = next((rule for rule in rules.values() if rule.kind is RuleKind.OUTAGE), None)
    lasting = guard is not None and states.get((guard.id, FLEET), State()).fires
    share = None if guard is None else (guard.threshold or 0) / 100
    gone = observe.fleet_outage(fleet, share, lasting=lasting)
    return World(
        now=now,
        mark=mark,
        away=away,
        rules=rules,
        fleet=fleet,
        seen={rule.id: observe.of_rule(connection, rule, fleet, now, gone, deaf=deaf) for rule in rules.values()},
        states=states,
        unsettled=_unsettled(connection),
        silences=[_silence_of(row) for row in connection.execute(select(*AlertSilence.__table__.columns))],
        hours={row.tag: hours_of(row) for row in connection.execute(select(*OpeningHours.__table__.columns))},
        recovered_at=_recovered_at(connection, now),
    )


def _unsettled(connection: Connection) -> list[Row[Any]]:
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


def _silence_of(row: Row[Any]) -> Silence:
    weekly = None if row.week is None else week_of(row.week, row.zone)
    return Silence(Scope(row.scope), row.target, row.starts_at, row.ends_at, weekly)


# --- what changes -----------------------------------------------------------------------------------------------------


def _changes(world: World) -> Changes:
    made = Changes()
    open_of: dict[Pair, Row[Any]] = {}
    flapping: dict[Pair, Row[Any]] = {}
    for alert in world.unsettled:
        if alert.rule_id not in world.rules:
            made.dropped.append(alert.id)
        elif alert.ended_at is None:
            (flapping if alert.flapping else open_of)[alert.rule_id, alert.client_uuid or FLEET] = alert
    for rule in world.rules.values():
        known = {uuid for rule_id, uuid in world.states if rule_id == rule.id}
        for uuid in sorted(known | world.seen[rule.id].keys()):
            _look(world, rule, uuid, made, open_of=open_of, flapping=flapping)
    return made


def _look(
    world: World,
    rule: Row[Any],
    uuid: str,
    made: Changes,
    *,
    open_of: Mapping[Pair, Row[Any]],
    flapping: Mapping[Pair, Row[Any]],
) -> None:
    pair = (rule.id, uuid)
    before = world.states.get(pair, State())
    seen = world.seen[rule.id].get(uuid, Seen(CLEAR, {}))
    outside = uuid != FLEET and (uuid not in world.fleet or (rule.tag and rule.tag not in world.fleet[uuid].tags))
    sight = CLEAR if outside else seen.sight
    after = _step(world, rule, uuid, before, sight)
    if after != before:
        made.states[pair] = after
    if after.fires and not before.fires:
        since = before.since or sight.since or world.now
        made.opened.append(_opened(world, rule, uuid, min(since, sight.since or since), seen, flapping=False))
    elif before.fires and not after.fires and pair in open_of:
        made.ended.append(open_of[pair].id)
    if pair in flapping:
        if machine.is_steady(after, world.now):
            made.ended.append(flapping[pair].id)
    elif after != before and machine.begins_to_flap(after, world.now):
        made.opened.append(_opened(world, rule, uuid, after.changes[0], seen, flapping=True))


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
    return world.mark.evaluated_at is None or world.now - world.mark.evaluated_at >= NOTED_EVERY


# --- writing ----------------------------------------------------------------------------------------------------------


def _take(connection: Connection, world: World, config: ServerConfig) -> bool:
    """Whether this round is ours: another process may have done it since it was read."""
    values: dict[str, Any] = {"round": world.mark.round + 1, "evaluated_at": world.now}
    if world.away:
        values["deaf_until"] = world.now + timedelta(seconds=DEAF_HEARTBEATS * config.heartbeat_seconds)
    statement = update(AlertMark).where(AlertMark.round == world.mark.round).values(values)
    return connection.execute(statement).rowcount == 1


def _write(connection: Connection, world: World, changes: Changes) -> None:
    for (rule_id, uuid), state in changes.states.items():
        key = (AlertState.rule_id == rule_id) & (AlertState.client_uuid == uuid)
        values = {
            "phase": str(state.phase),
            "since": state.since,
            "changes": json.dumps([each.isoformat() for each in state.changes]),
        }
        if machine.forgotten(state, world.now):
            connection.execute(delete(AlertState).where(key))
        elif (rule_id, uuid) in world.states:
            connection.execute(update(AlertState).where(key).values(values))
        else:
            connection.execute(insert(AlertState).values(rule_id=rule_id, client_uuid=uuid, **values))
    if changes.opened:
        connection.execute(insert(Alert), changes.opened)
    if changes.ended:
        connection.execute(update(Alert).where(Alert.id.in_(changes.ended)).values(ended_at=world.now))
    if changes.dropped:
        over = {"ended_at": func.coalesce(Alert.ended_at, world.now, type_=UtcTime()), "closed_at": world.now}
        connection.execute(update(Alert).where(Alert.id.in_(changes.dropped)).values(over))
    off = [rule_id for rule_id in {rule for rule, _ in world.states} if rule_id not in world.rules]
    if off:
        connection.execute(delete(AlertState).where(AlertState.rule_id.in_(off)))
    world.states |= changes.states


# --- what is said -----------------------------------------------------------------------------------------------------


def _plan(world: World) -> notices.Plan:
    rows = [row for row in world.unsettled if row.rule_id in world.rules]
    alerts = [
        Unsettled(
            row.id,
            row.rule_id,
            row.client_uuid,
            row.site,
            row.flapping,
            row.fired_at,
            row.ended_at,
            row.announced_at,
            row.last_notice_at,
        )
        for row in rows
    ]
    what = notices.Round(
        world.now,
        lambda each: is_muted(world.silences, world.place(each.client, each.site), world.now),
        lambda each: any_open(world.hours_for(world.rules[each.rule_id], each.client), world.now),
        _coming(world),
        world.recovered_at,
        {rule.id: timedelta(seconds=rule.repeat) for rule in world.rules.values() if rule.repeat},
    )
    return notices.plan(alerts, what)


def _coming(world: World) -> frozenset[notices.Group]:
    """Groups of which another client will fire within GROUP_WAIT, if nothing changes."""
    found = set()
    soon = world.now + notices.GROUP_WAIT
    for (rule_id, uuid), state in world.states.items():
        rule = world.rules.get(rule_id)
        if rule is None or state.phase is not Phase.PENDING or state.since is None or uuid not in world.fleet:
            continue
        if open_time(world.hours_for(rule, uuid), state.since, soon) >= timedelta(seconds=rule.hold):
            found.add((rule_id, world.fleet[uuid].site))
    return frozenset(found)


def _tell(connection: Connection, world: World, config: ServerConfig) -> int:
    plan, rows = _plan(world), {row.id: row for row in world.unsettled}
    if plan.settled:
        _set(connection, plan.settled, closed_at=world.now)
    if not plan.notices:
        return 0
    channels = connection.execute(select(AlertChannel.id, AlertChannel.name).order_by(AlertChannel.id)).all()
    chosen: dict[int, set[int]] = {}
    for rule_id, channel_id in connection.execute(select(AlertRuleChannel.rule_id, AlertRuleChannel.channel_id)):
        chosen.setdefault(rule_id, set()).add(channel_id)
    made = 0
    for notice in plan.notices:
        rule = world.rules[notice.alerts[0].rule_id]
        lead = rows[notice.alerts[0].id].announced_by or notice.alerts[0].id
        number = _next_number(connection, lead)
        message = _message(world, config, notice, rows, f"{lead}-{number}")
        to = [each for each in channels if rule.id not in chosen or each.id in chosen[rule.id]]
        for channel in to:
            values = {"channel_id": channel.id, "channel_name": channel.name, "alert_id": lead, "number": number}
            connection.execute(insert(AlertMessage).values(**values, **message))
        made += len(to)
        _note(connection, world, notice, lead)
    return made


def _next_number(connection: Connection, lead: int) -> int:
    connection.execute(update(Alert).where(Alert.id == lead).values(notices=Alert.notices + 1))
    number: int = connection.execute(select(Alert.notices).where(Alert.id == lead)).scalar_one()
    return number


def _note(connection: Connection, world: World, notice: Notice, lead: int) -> None:
    now = world.now
    if notice.kind in (MessageKind.FIRING, MessageKind.FLAPPING):
        _set(connection, notice.alerts, announced_at=now, announced_by=lead, last_notice_at=now)
    elif notice.kind is MessageKind.REMINDER:
        _set(connection, notice.alerts, last_notice_at=now)
    else:
        _set(connection, notice.alerts, closed_at=now, closed_by=lead)
        fresh = [each for each in notice.also if each.announced_at is None]
        if fresh:
            _set(connection, fresh, announced_at=now, announced_by=fresh[0].id, last_notice_at=now)


def _set(connection: Connection, alerts: Iterable[Unsettled], **values: Any) -> None:
    connection.execute(update(Alert).where(Alert.id.in_([each.id for each in alerts])).values(**values))


def _message(
    world: World, config: ServerConfig, notice: Notice, rows: Mapping[int, Row[Any]], number: str
) -> dict[str, Any]:
    rule = world.rules[notice.alerts[0].rule_id]
    with speaking(config.language):
        abouts = [_about(world, rule, rows[each.id]) for each in notice.alerts]
        also = [_about(world, rule, rows[each.id]) for each in notice.also]
        site = notice.alerts[0].site
        return {
            "kind": notice.kind,
            "topic": f"{rule.id} {site or ''}"[:200],
            "title": texts.title(notice.kind, rule.kind, site, abouts, number),
            "body": texts.body(notice.kind, rule.name, abouts, also, config.public_url),
            "created_at": world.now,
            "status": MessageStatus.PENDING,
            "due_at": world.now,
            "attempts": 0,
        }


def _about(world: World, rule: Row[Any], row: Row[Any]) -> texts.About:
    screen = world.fleet.get(row.client_uuid or "")
    tables = world.hours_for(rule, row.client_uuid)
    zone: tzinfo = tables[0].zone if tables else UTC
    figures = json.loads(row.detail)
    label = screen.label if screen else row.client_uuid or ""
    said = texts.detail(row.kind, figures, rule.window)
    about = texts.About(row.client_uuid, label, row.began_at, row.ended_at, said)
    return replace(about, zone=zone)
