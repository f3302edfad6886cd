"""The messages that wait to be sent, as statements: who sends which, what came of it, when to try again.

Each message is sent at least once, and whoever sends says so before: a worker takes it under a lease (`claim`) and
writes what came of it (`sent`, `failed`). Of a worker that died nobody knows whether the message arrived, so that it is
tried again when the lease has run out: there, and there only, it may arrive twice, with the same number in its title.
(A receiver that takes a message and does not say so in time has failed, as far as can be told, and gets it again too.)
Any number of workers may do this at once.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, or_, select, update

from infoscreen_server.db import writing
from infoscreen_server.i18n import lazy
from infoscreen_server.models_alerts import AlertAttempt, AlertChannel, AlertMessage, MessageKind, MessageStatus

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
"""Twice what a child may take: what it did is written long before."""
FIRST_RETRY, LAST_RETRY = timedelta(seconds=30), timedelta(minutes=30)
AHEAD = LAST_RETRY + LEASE
"""Nothing waits for so long: what is due later was written by a clock that has been set back since, and is due now."""
GIVE_UP_AFTER = timedelta(hours=24)
MOST_REFUSALS = 5
"""Of a message that a service refuses as such, within some ten minutes if nothing else failed before: later ones of its
topic wait for it. Not fewer, because some gateways, Signal's for one, answer so to whatever ails them for a moment.
"""
NO_CHANNEL = lazy("the channel was deleted")
CUT_OFF = lazy("cut off")


@dataclass(frozen=True, slots=True)
class Claim:
    """A message and the right to send it until the lease runs out."""

    id: int
    attempt: int
    worker: str
    channel_id: int
    channel_name: str
    kind: MessageKind
    title: str
    body: str
    created_at: datetime
    url: str = field(repr=False)


def retry_after(attempts: int, chance: float) -> timedelta:
    """How long to wait after so many attempts; `chance`, from 0 to 1, keeps many from coming back at once.

    >>> [retry_after(n, 0.5).total_seconds() for n in (1, 2, 3, 7, 50)]
    [30.0, 60.0, 120.0, 1800.0, 1800.0]
    """
    wait = FIRST_RETRY * 2.0 ** min(attempts - 1, 10) * (0.75 + chance / 2)
    return max(FIRST_RETRY, min(LAST_RETRY, wait))


# --- taking -----------------------------------------------------------------------------------------------------------


def claim(engine: Engine, worker: str, now: datetime, busy: Collection[int], limit: int) -> list[Claim]:
    """Take up to `limit` messages that are due, one a channel, and none of the channels that are busy.

    Those that can no longer be sent are failed on the way.
    """
    with engine.connect() as connection:
        # A look first: a transaction that writes would hold up ingest for nothing nearly every time.
        if not _due(connection, now, busy, limit) and not _orphans(connection, 1):
            return []
    with writing(engine) as connection:
        for row in _orphans(connection, 100):
            _finish(connection, row, MessageStatus.FAILED, now, NO_CHANNEL)
        taken: list[Claim] = []
        # More than are wanted: other workers may be quicker with some.
        for row in _due(connection, now, busy, 4 * limit):
            if len(taken) < limit and (one := _take(connection, row, worker, now)) is not None:
                taken.append(one)
    return taken


_COLUMNS = (
    AlertMessage.id,
    AlertMessage.channel_id,
    AlertMessage.channel_name,
    AlertMessage.kind,
    AlertMessage.title,
    AlertMessage.body,
    AlertMessage.created_at,
    AlertMessage.status,
    AlertMessage.due_at,
    AlertMessage.attempts,
)


def _due(connection: Connection, now: datetime, busy: Collection[int], limit: int) -> list[Row[Any]]:
    """Of each channel the oldest that is due and first of its topic, those that wait longest before the others."""
    waits = AlertMessage.due_at.is_not(None)
    first_of_topic = (
        select(func.min(AlertMessage.id)).where(waits).group_by(AlertMessage.channel_id, AlertMessage.topic)
    )
    first_of_channel = (
        select(func.min(AlertMessage.id))
        .where(AlertMessage.id.in_(first_of_topic), or_(AlertMessage.due_at <= now, AlertMessage.due_at > now + AHEAD))
        .where(AlertMessage.channel_id.is_not(None), AlertMessage.channel_id.not_in(busy))
        .group_by(AlertMessage.channel_id)
    )
    return list(
        connection.execute(
            select(*_COLUMNS, AlertChannel.url)
            .join(AlertChannel, AlertChannel.id == AlertMessage.channel_id)
            .where(AlertMessage.id.in_(first_of_channel))
            .order_by(AlertMessage.due_at, AlertMessage.id)
            .limit(limit)
        )
    )


def _orphans(connection: Connection, limit: int) -> list[Row[Any]]:
    lost = AlertMessage.due_at.is_not(None) & AlertMessage.channel_id.is_(None)
    return list(connection.execute(select(*_COLUMNS).where(lost).order_by(AlertMessage.id).limit(limit)))


def _take(connection: Connection, row: Row[Any], worker: str, now: datetime) -> Claim | None:
    """None where another worker was quicker, or the try that was cut off was a last one: begun when it was that old."""
    began = min(row.due_at - LEASE, now)  # Not what a clock said that has been set back since.
    if row.status == MessageStatus.SENDING and began - row.created_at >= GIVE_UP_AFTER:
        _finish(connection, row, MessageStatus.FAILED, now, CUT_OFF)
        return None
    attempt = row.attempts + 1
    values = {"status": MessageStatus.SENDING, "due_at": now + LEASE, "worker": worker, "attempts": attempt}
    if connection.execute(update(AlertMessage).where(_unchanged(row)).values(values)).rowcount == 0:
        return None
    connection.execute(insert(AlertAttempt).values(message_id=row.id, number=attempt, at=now))
    return Claim(
        id=row.id,
        attempt=attempt,
        worker=worker,
        channel_id=row.channel_id,
        channel_name=row.channel_name,
        kind=row.kind,
        title=row.title,
        body=row.body,
        created_at=row.created_at,
        url=row.url,
    )


def _unchanged(row: Row[Any]) -> Any:
    return (AlertMessage.id == row.id) & (AlertMessage.attempts == row.attempts) & (AlertMessage.due_at == row.due_at)


def _finish(connection: Connection, row: Row[Any], status: MessageStatus, now: datetime, error: str) -> None:
    values = {"status": status, "due_at": None, "worker": None, "finished_at": now, "error": error}
    if connection.execute(update(AlertMessage).where(_unchanged(row)).values(values)).rowcount:
        log.error("message %d to %r is given up: %s", row.id, row.channel_name, error)


# --- what came of it --------------------------------------------------------------------------------------------------


def sent(engine: Engine, done: Claim, now: datetime) -> None:
    with writing(engine) as connection:
        _end_attempt(connection, done, now, None)
        values = {"status": MessageStatus.SENT, "due_at": None, "worker": None, "finished_at": now, "error": None}
        # Also where another took it over meanwhile: it has arrived, and a further try would only double it.
        mine = (AlertMessage.id == done.id) & AlertMessage.due_at.is_not(None)
        connection.execute(update(AlertMessage).where(mine).values(values))


def failed(
    engine: Engine, done: Claim, error: str, now: datetime, chance: float, *, unwanted: bool = False
) -> MessageStatus:
    """To be tried again, or given up: what it is now. `unwanted`: the service refuses this very message."""
    over = now - done.created_at >= GIVE_UP_AFTER
    with writing(engine) as connection:
        _end_attempt(connection, done, now, error)
        if unwanted:
            over = over or _times(connection, done, error) >= MOST_REFUSALS
        values: dict[str, Any] = {"worker": None, "error": error}
        url = connection.scalar(select(AlertChannel.url).where(AlertChannel.id == done.channel_id))
        if url is not None and url != done.url:
            # It was tried at an address that is no longer the channel's.
            over, wait = False, timedelta()
        else:
            wait = retry_after(done.attempt, chance)
        status = MessageStatus.FAILED if over else MessageStatus.PENDING
        values |= {"status": status, "due_at": None if over else now + wait}
        if over:
            values["finished_at"] = now
        connection.execute(update(AlertMessage).where(_held(done)).values(values))
    return status


def hurry(connection: Connection, channel_id: int, now: datetime) -> None:
    """What waits for the channel is due: it has another address. What is under way is looked after by `failed`."""
    waits = (AlertMessage.channel_id == channel_id) & (AlertMessage.status == MessageStatus.PENDING)
    connection.execute(update(AlertMessage).where(waits, AlertMessage.due_at > now).values(due_at=now))


def release(engine: Engine, cut: Collection[Claim], now: datetime) -> None:
    """Give back what was cut off, to be tried at once by the next; nobody knows whether it arrived."""
    if not cut:
        return
    with writing(engine) as connection:
        for each in sorted(cut, key=lambda claim: claim.id):
            values = {"status": MessageStatus.PENDING, "due_at": now, "worker": None, "error": CUT_OFF}
            connection.execute(update(AlertMessage).where(_held(each)).values(values))


def _held(done: Claim) -> Any:
    mine = (AlertMessage.id == done.id) & (AlertMessage.worker == done.worker)
    return mine & (AlertMessage.attempts == done.attempt)


def _times(connection: Connection, done: Claim, error: str) -> int:
    """How often it failed just so at the channel's present address: a service that was away for a while, or another
    one before it, must not have used up its refusals.
    """
    changed = select(AlertChannel.url_changed_at).where(AlertChannel.id == done.channel_id).scalar_subquery()
    mine = (AlertAttempt.message_id == done.id) & (AlertAttempt.error == error)
    late = AlertAttempt.at >= func.coalesce(changed, AlertAttempt.at)
    return connection.execute(select(func.count()).where(mine, late)).scalar_one()


def _end_attempt(connection: Connection, done: Claim, now: datetime, error: str | None) -> None:
    mine = (AlertAttempt.message_id == done.id) & (AlertAttempt.number == done.attempt)
    connection.execute(update(AlertAttempt).where(mine).values(ended_at=now, error=error))
