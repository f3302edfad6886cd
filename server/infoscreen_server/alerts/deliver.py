"""Messages from the outbox to their channels: a few children at a time, one a channel, so that one that hangs delays
no other. Keeps nothing that is not in the database, but what came of a child while the database is away.
"""

import logging
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Engine

from infoscreen_server.alerts import outbox
from infoscreen_server.alerts.channels import ChannelError, shown
from infoscreen_server.alerts.child import DEADLINE_S, TOO_SLOW, Child, Errand, Failure, run
from infoscreen_server.i18n import FALLBACK, gettext, speaking
from infoscreen_server.models_alerts import MessageKind, MessageStatus

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Children: 35 MB each, half a second of a processor."""
DOUBTFUL_AT_ONCE = 2
"""Of them for channels that failed the last time, so that some that hang leave room for the others."""
_TONES = {
    MessageKind.FIRING: "failure",
    MessageKind.REMINDER: "failure",
    MessageKind.FLAPPING: "warning",
    MessageKind.RECOVERED: "success",
    MessageKind.STEADY: "success",
}


def send_test(url: str, title: str, body: str, allow_local: bool, timeout: float = DEADLINE_S) -> None:
    """One message, now. Raises ChannelError with why it was not sent."""
    failure = run(Errand(url, title, body, allow_local=allow_local), timeout)
    if failure is not None:
        raise ChannelError(failure.text, **failure.values)


@dataclass(slots=True)
class Sending:
    claim: outbox.Claim
    child: Child
    deadline: float
    """Of time.monotonic()."""


@dataclass(slots=True)
class Ended:
    claim: outbox.Claim
    failure: Failure | None
    at: datetime


@dataclass(slots=True)
class Delivery:
    engine: Engine
    allow_local: bool
    language: str = FALLBACK
    """Of messages."""
    worker: str = field(default_factory=lambda: str(uuid.uuid4()))
    running: list[Sending] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    """Not yet in the database."""
    doubtful: set[int] = field(default_factory=set)
    """Channels whose last message failed."""

    def step(self, now: datetime) -> None:
        """Note which children have ended, and start others for what is due. Raises what the database raises."""
        self.reap(now)
        self._record()
        while self._start(now):
            pass

    def deadlines(self) -> Iterator[float]:
        return (each.deadline for each in self.running)

    def reap(self, now: datetime) -> None:
        for each in list(self.running):
            if each.child.ended:
                failure = each.child.result()
            elif time.monotonic() >= each.deadline:
                each.child.kill()
                failure = TOO_SLOW
            else:
                continue
            self.running.remove(each)
            self.ended.append(Ended(each.claim, failure, now))

    def _record(self) -> None:
        while self.ended:
            each = self.ended[0]
            if each.failure is None:
                outbox.sent(self.engine, each.claim, each.at)
                self.doubtful.discard(each.claim.channel_id)
            else:
                self._record_failure(each, each.failure)
            self.ended.pop(0)

    def _record_failure(self, each: Ended, failure: Failure) -> None:
        error, chance = str(failure), random.random()
        status = outbox.failed(self.engine, each.claim, error, each.at, chance, unwanted=failure.unwanted)
        self.doubtful.add(each.claim.channel_id)
        then = "it is given up" if status is MessageStatus.FAILED else "it is tried again"
        log.warning(
            "message %d to %r (%s), attempt %d: %s; %s",
            each.claim.id,
            each.claim.channel_name,
            shown(each.claim.url),
            each.claim.attempt,
            error,
            then,
        )

    def _start(self, now: datetime) -> bool:
        """Whether something was taken, so that there may be more."""
        room = AT_ONCE - len(self.running)
        busy = {each.claim.channel_id for each in self.running}
        if not room:
            return False
        if len(busy & self.doubtful) >= DOUBTFUL_AT_ONCE:
            busy |= self.doubtful
        # One at a time, because each may use up the room for channels that are in doubt.
        taken = outbox.claim(self.engine, self.worker, now, busy, 1)
        for claim in taken:
            with speaking(self.language):
                cut = gettext("… cut here: this service takes no longer message")
            errand = Errand(claim.url, claim.title, claim.body, _TONES[claim.kind], cut, self.allow_local)
            self.running.append(Sending(claim, Child(errand), time.monotonic() + DEADLINE_S))
        return bool(taken)

    def stop(self, now: datetime) -> None:
        """Kill the children and give their messages back. Raises what the database raises."""
        self.reap(now)
        cut = [each.claim for each in self.running]
        for each in self.running:
            each.child.kill()
        self.running.clear()
        self._record()
        outbox.release(self.engine, cut, now)
