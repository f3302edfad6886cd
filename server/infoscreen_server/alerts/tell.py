"""What is to be said goes into the outbox, a row for each channel, and is noted with the alerts it tells of."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from infoscreen_server.alerts import notices, texts
from infoscreen_server.alerts.hours import open_time
from infoscreen_server.alerts.machine import Phase
from infoscreen_server.alerts.notices import Notice, Unsettled
from infoscreen_server.alerts.observe import FLEET
from infoscreen_server.alerts.silences import Silence, is_muted
from infoscreen_server.alerts.world import World
from infoscreen_server.config import ServerConfig
from infoscreen_server.i18n import gettext, speaking
from infoscreen_server.models_alerts import (
    Alert,
    AlertChannel,
    AlertMessage,
    AlertRuleChannel,
    MessageKind,
    MessageStatus,
)


def plan(world: World) -> notices.Plan:
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
        lambda each: _was_muted(world, each),
        lambda each: world.is_open(world.rules[each.rule_id], each.client),
        _coming(world),
        world.recovered_at,
        {rule.id: timedelta(seconds=rule.repeat) for rule in world.rules.values() if rule.repeat},
    )
    return notices.plan(alerts, what)


def _was_muted(world: World, alert: Unsettled) -> bool:
    """Whether a silence covered it at some time since it fired; one that is over stays as long as the log does."""
    place = world.place(alert.client, alert.site)
    return any(
        each.covers(place) and _was_active(each, alert.fired_at, min(each.ends_at or world.now, world.now))
        for each in world.silences
    )


def _was_active(silence: Silence, begin: datetime, end: datetime) -> bool:
    begin = max(begin, silence.starts_at)
    if silence.weekly is None:
        return begin < end
    return next(silence.weekly.stretches(begin, end), None) is not None


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


def tell(connection: Connection, world: World, config: ServerConfig) -> int:
    """Returns how many messages were made. Without a channel there are none, and all is noted as if there were."""
    made, rows = plan(world), {row.id: row for row in world.unsettled}
    if made.settled:
        _set(connection, made.settled, closed_at=world.now)
    if not made.notices:
        return 0
    channels = connection.execute(select(AlertChannel.id, AlertChannel.name).order_by(AlertChannel.id)).all()
    chosen: dict[int, set[int]] = {}
    for rule_id, channel_id in connection.execute(select(AlertRuleChannel.rule_id, AlertRuleChannel.channel_id)):
        chosen.setdefault(rule_id, set()).add(channel_id)
    messages = []
    for notice in made.notices:
        rule = world.rules[notice.alerts[0].rule_id]
        if notice.kind in (MessageKind.RECOVERED, MessageKind.STEADY):
            to_tell = _told(connection, {rows[each.id].announced_by for each in notice.alerts})
        else:
            to_tell = chosen.get(rule.id, {each.id for each in channels})
        to = [each for each in channels if each.id in to_tell]
        lead = rows[notice.alerts[0].id].announced_by or notice.alerts[0].id
        number = _next_number(connection, lead)
        message = {"alert_id": lead, "number": number, **_message(world, config, notice, rows, f"{lead}-{number}")}
        messages += [{"channel_id": each.id, "channel_name": each.name, **message} for each in to]
        _note(connection, world, notice, lead)
    if messages:
        connection.execute(insert(AlertMessage), messages)
    return len(messages)


def _told(connection: Connection, leads: Collection[int]) -> set[int]:
    """Channels that were told of these. They hear of the end, whatever the rule says by then, and nobody else does."""
    statement = select(AlertMessage.channel_id).where(AlertMessage.alert_id.in_(leads)).distinct()
    return {each for each in connection.scalars(statement) if each is not None}


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
        if notice.also:
            _set(connection, notice.also, last_notice_at=now)
        fresh = [each for each in notice.also if each.announced_at is None]
        if fresh:
            _set(connection, fresh, announced_at=now, announced_by=lead)


def _set(connection: Connection, alerts: Iterable[Unsettled], **values: Any) -> None:
    connection.execute(update(Alert).where(Alert.id.in_([each.id for each in alerts])).values(**values))


def _message(
    world: World, config: ServerConfig, notice: Notice, rows: Mapping[int, Row[Any]], number: str
) -> dict[str, Any]:
    rule = world.rules[notice.alerts[0].rule_id]
    with speaking(config.language):
        abouts = [_about(world, rule, rows[each.id]) for each in notice.alerts]
        if notice.kind is MessageKind.REMINDER:
            # A group is reminded of in one message: only its lines can tell which of them come and go.
            abouts = [
                _comes_and_goes(about) if each.flapping else about
                for about, each in zip(abouts, notice.alerts, strict=True)
            ]
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


def _comes_and_goes(about: texts.About) -> texts.About:
    return replace(about, detail=". ".join(filter(None, (gettext("On and off"), about.detail))))


def _about(world: World, rule: Row[Any], row: Row[Any]) -> texts.About:
    screen = world.fleet.get(row.client_uuid or "")
    tables = world.tables_of([row.client_uuid or ""])
    zone: tzinfo = tables[0].zone if tables else UTC
    label = screen.label if screen else row.client_uuid or ""
    figures = json.loads(row.detail)
    if row.client_uuid is None and row.ended_at is None:
        # Of an outage what is silent now: a reminder that names what is back would be wrong.
        figures |= world.seen[rule.id][FLEET].detail
    said = texts.detail(row.kind, figures, rule.window)
    return texts.About(row.client_uuid, label, row.began_at, row.ended_at, said, zone, texts.silent(figures))
