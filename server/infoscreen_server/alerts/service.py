"""The part `alerts`: every few seconds a round of evaluation, and delivery whenever there is something to deliver.

One thread, which waits for children and for the time; it is the thread the children die with.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from infoscreen_server.alerts import evaluate
from infoscreen_server.alerts.dead_man import DeadMan
from infoscreen_server.alerts.deliver import Delivery
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import make_engine

log = logging.getLogger(__name__)

_DATABASE = "database"
ROUND_EVERY_S = 5.0
FINISH_WITHIN_S = 1.0
"""After SIGTERM: for messages that are on their way. Killing costs a message that may arrive twice."""
END_WITHIN_S = 2
"""After SIGTERM, whatever the database does."""


def run(config: ServerConfig) -> int:
    """Work until SIGTERM or SIGINT. Returns an exit code."""
    engine = make_engine(config.database_url, hide_parameters=True)
    try:
        return Service(config, engine).run()
    finally:
        engine.dispose()


@dataclass(slots=True)
class Service:
    config: ServerConfig
    engine: Engine
    delivery: Delivery = field(init=False)
    dead_man: DeadMan | None = field(init=False)
    stopping: bool = False
    troubles: dict[str, str] = field(default_factory=dict)
    """What failed the last time, by what was tried: it is logged once."""

    def __post_init__(self) -> None:
        self.delivery = Delivery(self.engine, self.config.alert_allow_local, self.config.language)
        url = self.config.dead_man_url
        self.dead_man = None if url is None else DeadMan(url, self.config.dead_man_seconds)

    def run(self) -> int:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        round_at = 0.0
        while not self.stopping:
            if time.monotonic() >= round_at:
                round_at = time.monotonic() + ROUND_EVERY_S
                self._round()
            self._try("delivery", lambda: self.delivery.step(datetime.now(UTC)))
            self._wait(wake_read, round_at)
        self._end(wake_read)
        return 0

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True
        # By the default action of this signal: the database may be what keeps it.
        signal.alarm(END_WITHIN_S)

    def _round(self) -> None:
        went_well = self._try("round", lambda: evaluate.round(self.engine, self.config, datetime.now(UTC)))
        if went_well and self.dead_man is not None:
            self.dead_man.tend(time.monotonic())

    def _try(self, name: str, work: Callable[[], object]) -> bool:
        """Whether it went well. What a rule or the database does must not keep messages from being sent."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  # noted below
            self._note(name, error)
            return False
        if self.troubles.pop(name, None) is not None and not self.troubles:
            log.info("%s works again", name)
        return True

    def _note(self, name: str, error: Exception) -> None:
        trouble = _DATABASE if isinstance(error, DBAPIError) else type(error).__name__
        known = self.troubles.get(name) == trouble
        if isinstance(error, DBAPIError):
            # The others find the same, each in its own words.
            if _DATABASE not in self.troubles.values():
                log.error("database: %s", str(error.orig).partition("\n")[0])
        elif not known:
            log.error("%s failed", name, exc_info=error)
        self.troubles[name] = trouble

    def _wait(self, wake: int, until: float) -> None:
        """For a signal, the end of a child, or the time."""
        until = min([until, *self.delivery.deadlines()])
        with ExitStack() as opened:
            pidfds = [os.pidfd_open(each.child.process.pid) for each in self.delivery.running]
            for each in pidfds:
                opened.callback(os.close, each)
            readable, _, _ = select.select([wake, *pidfds], [], [], max(0.0, until - time.monotonic()))
            if wake in readable:
                os.read(wake, 64)

    def _end(self, wake: int) -> None:
        deadline = time.monotonic() + FINISH_WITHIN_S
        while self.delivery.running and time.monotonic() < deadline:
            self._wait(wake, deadline)
            self.delivery.reap(datetime.now(UTC))
        self._try("delivery", lambda: self.delivery.stop(datetime.now(UTC)))
