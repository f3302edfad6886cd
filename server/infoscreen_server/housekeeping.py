"""What has to be done again and again: the sliding counters, who is offline, incidents that ingest left over, the end
of what is too old, and that of clients that people have removed.

All of it in small transactions with pauses between, so that ingest never waits for longer than a moment.
"""

import logging
import signal
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from sqlalchemy import Engine, Row, case, delete, exists, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased

from infoscreen_server import (
    chronicle,
    facts,
    incident_store,
    ingest_figures,
    issues,
    persist,
    removal,
    screenshots,
)
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import CHUNK_ROWS, PAUSE_S, delete_some, make_engine, portions, writing
from infoscreen_server.happenings import ISSUE_LEVELS, LATE, Turn
from infoscreen_server.ledger import Settings
from infoscreen_server.live_signal import announce
from infoscreen_server.models import Client, ClientLog, Counter, CounterMark, Daily, DeadLetter, Gap, Lane, Screenshot
from infoscreen_server.models_alerts import Alert, AlertMessage, AlertSilence
from infoscreen_server.models_history import (
    FactSample,
    Incident,
    IncidentBacklog,
    IncidentEvent,
    IncidentKind,
    SpanKind,
    StateSpan,
)
from infoscreen_server.queries import SUMMARY_HOURS

log = logging.getLogger(__name__)

WINDOW = timedelta(hours=SUMMARY_HOURS)
"""What `counters` count over."""
FIRST_STEP, SHORTEST_STEP = timedelta(hours=1), timedelta(minutes=1)
"""How far the window moves in one transaction when it lies far behind; by what that took, twice or half as far."""
STEP_S = 0.1
EVERY_S = 60.0
OFFLINE_EVERY_S = 5.0
PRUNE_EVERY_S = 3600.0
DAILY_KEPT = timedelta(days=400)
"""Of the daily rollups: this year's figures beside last year's."""


def run(config: ServerConfig) -> int:
    """Work until SIGTERM or SIGINT. Returns an exit code."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return run_housekeeping(config, stop)


def run_housekeeping(config: ServerConfig, stop: threading.Event) -> int:
    """Work until `stop` is set: offline clients every 5 s, counters and long incidents each minute, old rows each hour.

    Removals go on in every turn, behind what nobody may wait for.
    """
    engine = make_engine(config.database_url, hide_parameters=True)
    silence = timedelta(seconds=config.silence_s)
    hearing = Hearing(silence, by_broker=config.mqtt is not None)
    count_at = prune_at = time.monotonic()
    thinning = Thinning()
    try:
        while not stop.is_set():
            pause = OFFLINE_EVERY_S
            try:
                mark_offline(engine, silence, datetime.now(UTC), hearing)
                fold_backlog(engine, stop)
                if time.monotonic() >= count_at:
                    ingest_figures.take_sample(engine, datetime.now(UTC))
                    count_out(engine, datetime.now(UTC), stop)
                    thin_incidents(engine, thinning, datetime.now(UTC), stop)
                    count_at = time.monotonic() + EVERY_S
                if time.monotonic() >= prune_at:
                    prune(engine, config, datetime.now(UTC), stop)
                    prune_at = time.monotonic() + PRUNE_EVERY_S
                if removal.go_on(engine, datetime.now(UTC), stop):
                    pause = PAUSE_S
            except DBAPIError as error:
                log.error("database: %s", str(error.orig).partition("\n")[0])
            stop.wait(pause)
    finally:
        engine.dispose()
    return 0


OUTAGE_LEAST, OUTAGE_SHARE = 5, 0.5
"""Of the clients that are online: so many that fall silent together are not so many deaths. All of them are so, too."""
DOUBT_MOST = timedelta(minutes=30)
"""For so long it may be the server that does not hear. Alerts give an outage as long (alerts/outage.py)."""


@dataclass(slots=True)
class Hearing:
    """Whether the silence of clients proves anything. Decided here alone for all whom housekeeping marks offline. Pure.

    Nobody is marked for the length of `silence` after the server could not hear, for what the broker kept meanwhile has
    to come in first; who is still silent then is marked back to its last word. The server could not hear

    - before the first look, and where none was made for long: it was off, asleep, or without its database, or its clock
      was set;
    - as long as most clients fall silent at once: ingest is away, or the broker. Of real deaths the broker tells (last
      will). Not for ever, and not where clients have no broker: a site that is cut off is silent at once as well.

    Of a single client that is online the second cannot be told from its death.
    """

    silence: timedelta
    by_broker: bool
    looked_at: datetime | None = None
    deaf_until: datetime | None = None
    doubts_since: datetime | None = None

    @property
    def doubtful(self) -> timedelta:
        """Half of the silence that counts: most are doubted before the first of them could be marked."""
        return self.silence / 2

    def proves(self, now: datetime, online: int, silent: int) -> bool:
        """To be asked at every look. `silent`: of those online, how many were not heard of for `doubtful`."""
        away = max(self.doubtful, timedelta(seconds=2 * OFFLINE_EVERY_S))
        was_there = self.looked_at is not None and timedelta() <= now - self.looked_at <= away
        self.looked_at = now
        if not was_there:
            self.doubts_since = None
        if not was_there or self._doubts(now, online, silent):
            self.deaf_until = now + self.silence
        return self.deaf_until is None or now >= self.deaf_until

    def _doubts(self, now: datetime, online: int, silent: int) -> bool:
        many = silent == online > 1 or (silent >= OUTAGE_LEAST and silent > OUTAGE_SHARE * online)
        if not (self.by_broker and many):
            # Beats that come together make many look silent, and not, by turns: that is one doubt.
            if self.deaf_until is None or now >= self.deaf_until:
                self.doubts_since = None
            return False
        self.doubts_since = self.doubts_since or now
        return now - self.doubts_since < DOUBT_MOST


def mark_offline(engine: Engine, silence: timedelta, now: datetime, hearing: Hearing | None = None) -> int:
    """Clients that were not heard of for `silence` are offline, if that proves anything (`hearing`; None: it does).

    Returns how many that are anew.
    """
    if hearing is not None and not hearing.proves(now, *_online_and_silent(engine, now - hearing.doubtful)):
        return 0
    quiet = Client.online.is_(True) & (Client.last_alive < now - silence)
    with engine.connect() as connection:
        # A look first: a transaction that writes would hold up ingest for nothing nearly every time.
        if connection.execute(select(Client.uuid).where(quiet).limit(1)).first() is None:
            return 0
    with writing(engine) as connection:
        rows = connection.execute(
            select(Client.uuid, Client.last_alive).where(quiet).order_by(Client.uuid).with_for_update(key_share=True)
        ).all()
        for some in portions([row.uuid for row in rows]):
            connection.execute(update(Client).where(Client.uuid.in_(some)).values(online=False))
        chronicle.turn(connection, [Turn(uuid, SpanKind.LINK, chronicle.OFFLINE, heard) for uuid, heard in rows])
    announce(engine)
    return len(rows)


def _online_and_silent(engine: Engine, since: datetime) -> tuple[int, int]:
    """How many clients are online, and how many of them were not heard of since then."""
    silent = func.count(case((Client.last_alive < since, 1)))
    with engine.connect() as connection:
        online, quiet = connection.execute(select(func.count(), silent).where(Client.online.is_(True))).one()
    return online, quiet


def fold_backlog(engine: Engine, stop: threading.Event | None = None) -> int:
    """Make the incidents of clients that had too many events for one ingest. Returns how many clients those were.

    One client a transaction: SQLite's one writer is held up for the time that its events take, about 5 us each.
    """
    stop = stop or threading.Event()
    with engine.connect() as connection:
        waiting = list(connection.scalars(select(IncidentBacklog.client_uuid).order_by(IncidentBacklog.client_uuid)))
    for uuid in waiting:
        if stop.is_set():
            break
        with writing(engine) as connection:
            lock = select(Client.uuid).where(Client.uuid == uuid).with_for_update(key_share=True)
            connection.execute(lock)
            mine = IncidentBacklog.client_uuid == uuid
            since = connection.execute(select(IncidentBacklog.since).where(mine)).scalar()
            if since is not None:
                incident_store.refold(connection, uuid, since)
                connection.execute(delete(IncidentBacklog).where(mine))
        stop.wait(PAUSE_S)
    return len(waiting)


THIN_S = 10.0
"""Longest stretch of it: who fell silent must not wait for a client with a week of such events."""


@dataclass(slots=True)
class Thinning:
    """How far it is, in ids of events.

    An event is left to the pass after the one that finds it. By then its kiosk has told what it still holds, if it ever
    does: what was long in the making arrives lane by lane, and an incident whose end is not here yet only seems to be a
    long one.
    """

    done: int | None = None
    """All up to here were looked at; None: none."""
    found: int | None = None


def thin_incidents(engine: Engine, state: Thinning, now: datetime, stop: threading.Event | None = None) -> None:
    """Bound the events of incidents that do not end.

    A transaction folds a bounded number of events three times and deletes as many rows: some 50 ms.
    """
    stop = stop or threading.Event()
    until = time.monotonic() + THIN_S
    upto = state.found
    with engine.connect() as connection:
        state.found = connection.execute(select(func.max(IncidentEvent.id))).scalar()
        if upto is None:
            return
        fresh = select(Client.uuid)
        if state.done is not None:
            fresh = select(IncidentEvent.client_uuid).where(IncidentEvent.id.between(state.done + 1, upto)).distinct()
        uuids = sorted(connection.scalars(fresh))
    for uuid in uuids:
        with engine.connect() as connection:
            found = incident_store.overfull(connection, uuid)
        for began_at in found:
            while _thin(engine, uuid, began_at, now):
                if stop.wait(PAUSE_S) or time.monotonic() >= until:
                    return
    state.done = upto


def _thin(engine: Engine, uuid: str, began_at: datetime, now: datetime) -> bool:
    """Whether it pays to go on with this incident. What waits, here to be folded or on the kiosk, is not known yet."""
    waits = exists().where(IncidentBacklog.client_uuid == Client.uuid)
    numbered = exists().where(Lane.client_uuid == Client.uuid).label("numbered")
    columns = (Client.online, Client.outbox_pending, Client.outbox_oldest, numbered)
    lock = select(*columns).where(Client.uuid == uuid, ~waits).with_for_update(key_share=True)
    with writing(engine) as connection:
        client = connection.execute(lock).first()
        if client is None:
            return False
        before = _all_here_before(client, now)
        return incident_store.thin_out(connection, uuid, began_at, before) > incident_store.FOLD_EVENTS // 4


UNTOLD = timedelta(days=7)
"""What a kiosk may still hold that is away, or says nothing of it because it comes by HTTP alone."""


def _all_here_before(client: Row[Any], now: datetime) -> datetime:
    """Up to when nothing older is expected any more."""
    if not client.numbered or (client.online and client.outbox_pending == 0):
        return datetime.max.replace(tzinfo=UTC)
    oldest: datetime | None = client.outbox_oldest if client.online else None
    return now - UNTOLD if oldest is None else oldest - LATE


# --- the sliding counters ---------------------------------------------------------------------------------------------


def count_out(engine: Engine, now: datetime, stop: threading.Event | None = None) -> None:
    """Move the window of `counters` up to 24 hours before `now` and take out the rows that it has left.

    Exact at every moment: rows with a timestamp after the mark are counted, and the mark cannot move while an ingest
    transaction is open that has read it.
    """
    stop = stop or threading.Event()
    target, step = now - WINDOW, FIRST_STEP
    while not stop.is_set():
        began = time.monotonic()
        if _move_mark(engine, target, step):
            return
        step = step * 2 if time.monotonic() - began < STEP_S else max(SHORTEST_STEP, step / 2)
        stop.wait(PAUSE_S)


def _move_mark(engine: Engine, target: datetime, step: timedelta) -> bool:
    """One step of the window; whether it is at the target now."""
    with writing(engine) as connection:
        mark = persist.counter_mark(connection, alone=True)
        if target <= mark:
            return True
        reached = min(target, mark + step)
        # By client: there is no index over the whole log, and most counters are 0. The expression keeps SQLite from
        # walking through all of the log and looking up the counter of each row: seconds under the write lock.
        of_client = ClientLog.client_uuid == Counter.client_uuid.concat("")
        counted = Counter.error + Counter.warn + Counter.info + Counter.debug > 0
        left = connection.execute(
            select(ClientLog.client_uuid, ClientLog.level, func.count())
            .join(Counter, of_client & counted)
            .where(ClientLog.timestamp > mark, ClientLog.timestamp <= reached)
            .group_by(ClientLog.client_uuid, ClientLog.level)
        ).all()
        issues_left = connection.execute(
            select(ClientLog.client_uuid, ClientLog.level, ClientLog.code, func.count())
            .join(Counter, of_client & (Counter.error + Counter.warn > 0))
            .where(ClientLog.level.in_(ISSUE_LEVELS), ClientLog.timestamp > mark, ClientLog.timestamp <= reached)
            .group_by(ClientLog.client_uuid, ClientLog.level, ClientLog.code)
        ).all()
        persist.subtract(connection, left)
        issues.subtract(connection, issues_left)
        issues.forget_ended(connection, reached + WINDOW)
        connection.execute(update(CounterMark).values(counted_out_to=reached))
    return reached == target


# --- the end of what is too old ---------------------------------------------------------------------------------------


def prune(engine: Engine, settings: Settings, now: datetime, stop: threading.Event | None = None) -> int:
    """Delete what is older than LOG_RETENTION_DAYS; returns the number of log rows.

    Of lanes and their gaps go those that nothing was heard of for as long, of pictures also those beyond the number
    that stays, of states, incidents, alerts and silences those that ended before. Counts out first, so that no row goes
    that is still in the counters.
    """
    stop = stop or threading.Event()
    count_out(engine, now, stop)
    limit = now - timedelta(days=settings.log_retention_days)
    deleted = _prune_logs(engine, limit, stop)
    # A lane with rows in the log is not older than they are, so none of them loses its lane.
    for table, old in (
        (DeadLetter, DeadLetter.received_at < limit),
        (Gap, Gap.lane_id.in_(select(Lane.id).where(Lane.last_seen < limit))),
        (Lane, Lane.last_seen < limit),
    ):
        _in_chunks(engine, table, old, stop)
    _in_chunks(engine, Screenshot, Screenshot.received_at < limit, stop, screenshots.CHUNK_ROWS)
    _trim_screenshots(engine, settings, stop)
    _prune_history(engine, limit, stop)
    _prune_facts(engine, now - facts.KEPT, stop)
    _prune_alerts(engine, limit, stop)
    with writing(engine) as connection:
        connection.execute(delete(Daily).where(Daily.day < (now - DAILY_KEPT).date()))
    return deleted


def _prune_logs(engine: Engine, limit: datetime, stop: threading.Event) -> int:
    return _by_client(engine, ClientLog, ClientLog.timestamp < limit, stop)


def _prune_history(engine: Engine, limit: datetime, stop: threading.Event) -> None:
    _by_client(engine, StateSpan, StateSpan.ended_at < limit, stop)
    _by_client(engine, Incident, (Incident.kind == IncidentKind.LINK) & (Incident.ended_at < limit), stop)
    # What waits to be folded is not known yet.
    waits = exists().where(IncidentBacklog.client_uuid == Client.uuid)
    old = exists().where(IncidentEvent.client_uuid == Client.uuid, IncidentEvent.at < limit)
    with engine.connect() as connection:
        uuids = list(connection.scalars(select(Client.uuid).where(old, ~waits).order_by(Client.uuid)))
    for some in portions(uuids, CLIENTS_AT_ONCE):
        if stop.is_set():
            break
        with writing(engine) as connection:
            lock = select(Client.uuid).where(Client.uuid.in_(some), ~waits).order_by(Client.uuid)
            for uuid in list(connection.scalars(lock.with_for_update(key_share=True))):
                incident_store.forget(connection, uuid, limit)
        stop.wait(PAUSE_S)


def _by_client(engine: Engine, table: Any, old: Any, stop: threading.Event) -> int:
    """Client after client along the index by client and time, where there is none over the whole table."""
    deleted, behind = 0, ""
    while not stop.is_set():
        with writing(engine) as connection:
            rows = connection.execute(
                select(table.id, table.client_uuid)
                .join(Client, Client.uuid == table.client_uuid)
                .where(Client.uuid >= behind, old)
                .order_by(Client.uuid)
                .limit(CHUNK_ROWS)
            ).all()
            if rows:
                connection.execute(delete(table).where(table.id.in_([row.id for row in rows])))
        deleted += len(rows)
        if len(rows) < CHUNK_ROWS:
            break
        behind = rows[-1].client_uuid
        stop.wait(PAUSE_S)
    return deleted


CLIENTS_AT_ONCE = 20
"""Whose incidents are pruned in one transaction."""
FACTS_OF_CLIENTS = 100
"""In one transaction: what they said in an hour is about CHUNK_ROWS."""


def _prune_facts(engine: Engine, limit: datetime, stop: threading.Event) -> None:
    with engine.connect() as connection:
        uuids = list(connection.scalars(select(Client.uuid).order_by(Client.uuid)))
    for some in portions(uuids, FACTS_OF_CLIENTS):
        if stop.is_set():
            break
        old = (FactSample.client_uuid.in_(some), FactSample.at < limit)
        with writing(engine) as connection:
            gone = connection.execute(delete(FactSample).where(*old)).rowcount
        if gone:
            stop.wait(PAUSE_S)


def _prune_alerts(engine: Engine, limit: datetime, stop: threading.Event) -> None:
    """What is settled. The first alert of a group stays as long as one of it is open, and so do their messages: it
    counts them, and they tell which channels have to hear of the end.
    """
    member = aliased(Alert)
    is_open = exists().where(member.closed_at.is_(None))
    done = AlertMessage.due_at.is_(None) & (AlertMessage.created_at < limit)
    _in_chunks(engine, AlertMessage, done & ~is_open.where(member.announced_by == AlertMessage.alert_id), stop)
    _in_chunks(engine, Alert, (Alert.closed_at < limit) & ~is_open.where(member.announced_by == Alert.id), stop)
    _in_chunks(engine, AlertSilence, AlertSilence.ends_at < limit, stop)


def _in_chunks(engine: Engine, table: Any, old: Any, stop: threading.Event, size: int | None = None) -> None:
    size = size or CHUNK_ROWS
    while not stop.is_set():
        with writing(engine) as connection:
            rows = delete_some(connection, table, old, size)
        if rows < size:
            return
        stop.wait(PAUSE_S)


def _trim_screenshots(engine: Engine, settings: Settings, stop: threading.Event) -> None:
    """Uploads do this too; a kiosk that sends none after the settings were lowered would keep what it has."""
    with engine.connect() as connection:
        overfull = screenshots.overfull(connection, settings)
    for uuid, kind in overfull:
        deleted = screenshots.CHUNK_ROWS
        while deleted == screenshots.CHUNK_ROWS and not stop.is_set():
            with writing(engine) as connection:
                deleted = screenshots.trim(connection, uuid, kind, screenshots.kept_of(settings, kind))
            stop.wait(PAUSE_S)
