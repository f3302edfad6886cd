"""What is to be seen of each rule now, read from the database: a few queries a rule, none over the whole log.

Only reads. What follows from it is for machine; a pair of rule and client that is not named here is clear.
"""

from collections import Counter as Tally
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, exists, func, or_, select

from infoscreen_server.alerts.machine import CLEAR, Sight
from infoscreen_server.alerts.outage import Known, Life, Outage, outage
from infoscreen_server.alerts.texts import MOST_LISTED
from infoscreen_server.db import portions
from infoscreen_server.models import Client, ClientLog, ClientTag, Counter, Removal, UtcTime
from infoscreen_server.models_alerts import RuleKind
from infoscreen_server.models_history import Incident, IncidentEvent, IncidentKind, RecordDrop
from infoscreen_server.queries import label_of
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus

FLEET = ""
"""Stands for the client in what is about all of them."""
CRASHES = ("player.crashed", "player.exited", "player.missing")
GAVE_UP = "player.gave_up"


@dataclass(frozen=True, slots=True)
class Screen:
    """What of a client matters to alerts."""

    uuid: str
    label: str
    site: str | None
    tags: frozenset[str]
    last_alive: datetime | None
    offline: bool
    """Once heard of, and not heard of for three heartbeats, or said to be gone. Never heard of is not offline."""
    status: ScreenHealthStatus | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    sight: Sight
    detail: Mapping[str, Any]
    """The figures behind it, for the words."""


def screens(connection: Connection, now: datetime, silence: timedelta) -> dict[str, Screen]:
    """Those that are being removed are left out: of them nothing is said any more."""
    tags: dict[str, set[str]] = {}
    for uuid, tag in connection.execute(select(ClientTag.client_uuid, ClientTag.tag)):
        tags.setdefault(uuid, set()).add(tag)
    columns = (
        Client.uuid,
        Client.name,
        Client.hostname,
        Client.location,
        Client.online,
        Client.last_alive,
        Client.screen_health_status,
        Client.screen_reason,
    )
    found = {}
    removed = exists().where(Removal.client_uuid == Client.uuid)
    for row in connection.execute(select(*columns).where(~removed)):
        # A time as far ahead was told by a clock that was wrong; who is there is heard of again within a heartbeat.
        heard = row.last_alive is not None and abs(now - row.last_alive) <= silence
        found[row.uuid] = Screen(
            row.uuid,
            label_of(row.name, row.hostname, row.uuid),
            row.location,
            frozenset(tags.get(row.uuid, ())),
            row.last_alive,
            row.last_alive is not None and not (row.online and heard),
            row.screen_health_status,
            row.screen_reason,
        )
    return found


def fleet_outage(there: Iterable[Screen], share: float, known: Known | None) -> Outage:
    lives = [Life(each.uuid, each.last_alive, each.offline) for each in there if each.last_alive is not None]
    return outage(lives, share, known)


def offline(fleet: Mapping[str, Screen], gone: Outage, now: datetime, *, deaf: bool) -> dict[str, Seen]:
    """`deaf`: the server itself was away, so that nobody's silence proves anything yet."""
    found = {}
    for each in fleet.values():
        if each.offline and each.last_alive is not None:
            held = deaf or gone.speaks_for(each.uuid, each.last_alive, now)
            found[each.uuid] = Seen(Sight(holds=True, since=each.last_alive, held=held), {})
    return found


def screen(fleet: Mapping[str, Screen]) -> dict[str, Seen]:
    found = {}
    for each in fleet.values():
        if each.offline or each.status in (None, ScreenHealthStatus.UNKNOWN):
            found[each.uuid] = Seen(Sight(holds=None), {})
        elif each.status is not ScreenHealthStatus.OK:
            found[each.uuid] = Seen(Sight(holds=True), {"status": str(each.status), "reason": each.reason})
    return found


def errors(connection: Connection, now: datetime, window: timedelta, threshold: int, clear: int) -> dict[str, Seen]:
    """Only clients that had so many in 24 hours are counted, each along its own part of the index."""
    late = (ClientLog.client_uuid == Counter.client_uuid, ClientLog.timestamp > now - window)
    number_of = select(func.count()).where(ClientLog.level == LogLevel.ERROR, *late).scalar_subquery()
    rows = connection.execute(select(Counter.client_uuid, number_of).where(Counter.error > clear))
    return {uuid: Seen(Sight(holds=number > threshold, clear=number <= clear), {"n": number}) for uuid, number in rows}


def crash_loop(connection: Connection, now: datetime, window: timedelta, threshold: int, clear: int) -> dict[str, Seen]:
    """More than so many crashes in the window, or a player that was given up and is not back."""
    since = now - window
    late = or_(Incident.ended_at.is_(None), Incident.ended_at > since)
    rows = connection.execute(
        select(Incident.client_uuid, Incident.began_at, Incident.ended_at).where(
            Incident.kind == IncidentKind.PLAYER, late
        )
    )
    # Of each the newest: one that lasts is the last. Sorted here: in the database that would read all there ever were.
    newest = sorted(rows, key=lambda row: row.began_at)
    down = {uuid: began_at if ended_at is None else None for uuid, began_at, ended_at in newest}
    given_up = _given_up(connection, {uuid: began_at for uuid, began_at in down.items() if began_at is not None})
    crashes = _crashes(connection, list(down), since)
    found = {}
    for uuid in crashes.keys() | given_up:
        number = crashes.get(uuid, 0)
        holds = number > threshold or uuid in given_up
        found[uuid] = Seen(Sight(holds=holds, clear=not holds and number <= clear), {"n": number})
    return found


def _crashes(connection: Connection, uuids: list[str], since: datetime) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in portions(uuids):
        rows = connection.execute(
            select(IncidentEvent.client_uuid, func.count())
            .where(IncidentEvent.client_uuid.in_(some), IncidentEvent.at > since, IncidentEvent.code.in_(CRASHES))
            .group_by(IncidentEvent.client_uuid)
        )
        found.update((uuid, number) for uuid, number in rows)
    return found


def _given_up(connection: Connection, down: Mapping[str, datetime]) -> set[str]:
    """Of players that are down since then."""
    found: set[str] = set()
    for some in portions(list(down)):
        rows = connection.execute(
            select(IncidentEvent.client_uuid, func.max(IncidentEvent.at, type_=UtcTime()))
            .where(IncidentEvent.client_uuid.in_(some), IncidentEvent.at >= min(down[uuid] for uuid in some))
            .where(IncidentEvent.code == GAVE_UP)
            .group_by(IncidentEvent.client_uuid)
        )
        found.update(uuid for uuid, at in rows if at >= down[uuid])
    return found


def dropped(connection: Connection, now: datetime, window: timedelta) -> dict[str, Seen]:
    """By when the server heard of it: it is told when the kiosk is back, mostly long after it happened."""
    statement = select(RecordDrop.client_uuid, RecordDrop.message).where(RecordDrop.received_at > now - window)
    return {uuid: Seen(Sight(holds=True), {"text": text}) for uuid, text in connection.execute(statement)}


def server(found: Outage, fleet: Mapping[str, Screen], *, deaf: bool) -> dict[str, Seen]:
    """`deaf`: as for a single client, what is silent counts from when the server hears again."""
    if not found:
        return {FLEET: Seen(Sight(holds=None) if deaf else CLEAR, {})}
    figures = {"n": len(found.gone), "of": found.of, **_silent([fleet[uuid] for uuid in found.gone])}
    return {FLEET: Seen(Sight(holds=True, since=found.since, held=deaf), figures)}


def _silent(gone: Collection[Screen]) -> dict[str, Any]:
    """Sites with how many, the most first, then screens without a site: what a message lists, and how many more."""
    sites = Tally(each.site for each in gone if each.site)
    most_first = sorted(sites.items(), key=lambda each: (-each[1], each[0]))
    named: list[tuple[str, int | None]] = [*most_first]
    named += [(label, None) for label in sorted(each.label for each in gone if not each.site)]
    return {"silent": named[:MOST_LISTED], "more": max(0, len(named) - MOST_LISTED)}


def of_rule(
    connection: Connection, rule: Any, fleet: Mapping[str, Screen], now: datetime, gone: Outage, *, deaf: bool
) -> dict[str, Seen]:
    """By client; those that are not named are clear."""
    window, threshold = timedelta(seconds=rule.window or 0), rule.threshold or 0
    clear = threshold if rule.clear_threshold is None else rule.clear_threshold
    match rule.kind:
        case RuleKind.OFFLINE:
            return offline(fleet, gone, now, deaf=deaf)
        case RuleKind.SCREEN:
            return screen(fleet)
        case RuleKind.ERRORS:
            return errors(connection, now, window, threshold, clear)
        case RuleKind.CRASH_LOOP:
            return crash_loop(connection, now, window, threshold, clear)
        case RuleKind.BUFFER:
            return dropped(connection, now, window)
        case _:
            return server(gone, fleet, deaf=deaf)
