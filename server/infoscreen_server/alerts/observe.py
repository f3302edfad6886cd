"""What is to be seen of each rule now, read from the database: a few queries a rule, none over the whole log.

Only reads. What follows from it is for machine; a pair of rule and client that is not named here is clear.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, or_, select

from infoscreen_server.alerts.machine import CLEAR, Sight
from infoscreen_server.alerts.outage import Life, Outage, outage
from infoscreen_server.models import Client, ClientLog, ClientTag, Counter
from infoscreen_server.models_alerts import RuleKind
from infoscreen_server.models_history import Incident, IncidentEvent, IncidentKind, IssueCount
from infoscreen_shared.messages import LogLevel, ScreenHealthStatus

FLEET = ""
"""Stands for the client in what is about all of them."""
CRASHES = ("player.crashed", "player.exited", "player.missing")
GAVE_UP = "player.gave_up"
DROPPED = "buffer.dropped"
_PORTION = 5_000


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
    for row in connection.execute(select(*columns)):
        heard = row.last_alive is not None and now - row.last_alive <= silence
        found[row.uuid] = Screen(
            row.uuid,
            row.name or row.hostname or row.uuid,
            row.location,
            frozenset(tags.get(row.uuid, ())),
            row.last_alive,
            row.last_alive is not None and not (row.online and heard),
            row.screen_health_status,
            row.screen_reason,
        )
    return found


def fleet_outage(fleet: Mapping[str, Screen], share: float | None, *, lasting: bool) -> Outage:
    """`share` None: nobody asked for it."""
    if share is None:
        return Outage()
    lives = [Life(each.uuid, each.last_alive, each.offline) for each in fleet.values() if each.last_alive is not None]
    return outage(lives, share, lasting=lasting)


def offline(fleet: Mapping[str, Screen], gone: frozenset[str], *, deaf: bool) -> dict[str, Seen]:
    """`deaf`: the server itself was away, so that nobody's silence proves anything yet."""
    return {
        each.uuid: Seen(Sight(holds=True, since=each.last_alive, held=deaf or each.uuid in gone), {})
        for each in fleet.values()
        if each.offline
    }


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
    statement = (
        select(ClientLog.client_uuid, func.count())
        .join(Counter, Counter.client_uuid == ClientLog.client_uuid)
        .where(Counter.error > clear, ClientLog.level == LogLevel.ERROR, ClientLog.timestamp > now - window)
        .group_by(ClientLog.client_uuid)
    )
    return {
        uuid: Seen(Sight(holds=number > threshold, clear=number <= clear), {"n": number})
        for uuid, number in connection.execute(statement)
    }


def crash_loop(connection: Connection, now: datetime, window: timedelta, threshold: int, clear: int) -> dict[str, Seen]:
    """More than so many crashes in the window, or a player that was given up and is not back."""
    since = now - window
    late = or_(Incident.ended_at.is_(None), Incident.ended_at > since)
    troubled = list(
        connection.scalars(select(Incident.client_uuid).where(Incident.kind == IncidentKind.PLAYER, late).distinct())
    )
    found: dict[str, Seen] = {}
    for start in range(0, len(troubled), _PORTION):
        some = troubled[start : start + _PORTION]
        rows = connection.execute(
            select(IncidentEvent.client_uuid, IncidentEvent.code, func.count())
            .where(
                IncidentEvent.client_uuid.in_(some),
                IncidentEvent.at > since,
                IncidentEvent.code.in_((*CRASHES, GAVE_UP)),
            )
            .group_by(IncidentEvent.client_uuid, IncidentEvent.code)
        )
        crashes: dict[str, int] = {}
        given_up: set[str] = set()
        for uuid, code, number in rows:
            if code == GAVE_UP:
                given_up.add(uuid)
            else:
                crashes[uuid] = crashes.get(uuid, 0) + number
        for uuid in crashes.keys() | given_up:
            number = crashes.get(uuid, 0)
            holds = number > threshold or uuid in given_up
            found[uuid] = Seen(Sight(holds=holds, clear=not holds and number <= clear), {"n": number})
    return found


def dropped(connection: Connection, now: datetime, window: timedelta) -> dict[str, Seen]:
    statement = select(IssueCount.client_uuid, IssueCount.last_message).where(
        IssueCount.level == LogLevel.WARN, IssueCount.code == DROPPED, IssueCount.last_at > now - window
    )
    return {uuid: Seen(Sight(holds=True), {"text": text}) for uuid, text in connection.execute(statement)}


def server(found: Outage, *, deaf: bool) -> dict[str, Seen]:
    if deaf:
        return {FLEET: Seen(Sight(holds=None), {})}
    if not found:
        return {FLEET: Seen(CLEAR, {})}
    return {FLEET: Seen(Sight(holds=True, since=found.since), {"n": len(found.gone), "of": found.of})}


def of_rule(
    connection: Connection, rule: Any, fleet: Mapping[str, Screen], now: datetime, gone: Outage, *, deaf: bool
) -> dict[str, Seen]:
    """By client; those that are not named are clear."""
    window, threshold = timedelta(seconds=rule.window or 0), rule.threshold or 0
    clear = threshold if rule.clear_threshold is None else rule.clear_threshold
    match rule.kind:
        case RuleKind.OFFLINE:
            return offline(fleet, gone.gone, deaf=deaf)
        case RuleKind.SCREEN:
            return screen(fleet)
        case RuleKind.ERRORS:
            return errors(connection, now, window, threshold, clear)
        case RuleKind.CRASH_LOOP:
            return crash_loop(connection, now, window, threshold, clear)
        case RuleKind.BUFFER:
            return dropped(connection, now, window)
        case _:
            return server(gone, deaf=deaf)
