"""The thread that brings records to disk and to the server, so that neither a slow card nor a dead network ever delays
the restart of a player.

It owns the backlog (and with it the outbox file) and the connection to the broker. The main thread hands drafts in and
reads a status; nothing else is shared. Times in seconds of the boot clock.
"""

import fcntl
import logging
import os
import queue
import random
import selectors
import threading
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from infoscreen_device.backlog import Backlog, Batch
from infoscreen_device.clock import Clocks
from infoscreen_device.core.model import Draft
from infoscreen_device.publisher import Publisher
from infoscreen_device.records import Stamp
from infoscreen_device.settings import Config
from infoscreen_shared.messages import (
    DEFAULT_WANTED,
    MAX_BATCH_RECORDS,
    Ack,
    LogLevel,
    Wanted,
    WireError,
    decode_ack,
    encode_hello,
)

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0
"""A batch or hello without an answer for so long is sent again; doubling up to ANSWER_CAP_S."""
ANSWER_CAP_S = 300.0
CONNECT_FIRST_S, CONNECT_CAP_S = 0.5, 30.0
"""Pause between attempts to reach the broker, doubling, with jitter so that a fleet does not come back in step."""
BEAT_S = 5.0
"""The thread completes a cycle at least so often; paho's keepalive is looked after then."""
BATCHES_PER_POST = 12
"""With 64 kB each they stay below what a receiver looks at (MAX_PAYLOAD_BYTES)."""
AGE_CHECK_S = 3600.0
BATCHES_PER_CYCLE = 16
"""Sent before acks are read again."""
CLOCK_STEP_S = 2.0
"""The wall clock moved against the boot clock by more than this: a step, not a slew (NTP steps beyond 0.128 s)."""
STATUS_S = 0.1
"""The status that others read is at most so old while something happens."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """All up to `base` is settled; `next` is not given yet; all up to `durable` is on disk or settled."""

    base: int
    next: int
    durable: int


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    connected: bool
    """The server answers (not only the broker)."""
    since: float
    pending: int
    oldest: datetime | None
    epoch: str
    beat: float
    """When the thread last completed a cycle."""
    trouble: str | None
    lanes: dict[LogLevel, LaneStatus] = field(default_factory=dict)


class Delivery:
    def __init__(self, config: Config, uuid: str, clocks: Clocks, version: str) -> None:
        self.config, self.uuid, self.clocks, self.version = config, uuid, clocks, version
        self._inbox: queue.SimpleQueue[tuple[Draft, Stamp]] = queue.SimpleQueue()
        self._state: dict[str, bytes] = {}
        self._state_lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._stopping = threading.Event()
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        now = clocks.boottime()
        self._status = DeliveryStatus(False, now, 0, None, "", now, None)

    # --- called by the main thread ------------------------------------------------------------------------------------

    def start(self, timeout_s: float = 5.0) -> None:
        """Start the thread; returns when the outbox is open, or after the time limit where the card is that slow."""
        self._thread.start()
        self._opened.wait(timeout_s)

    def submit(self, draft: Draft) -> None:
        stamp = Stamp(self.clocks.utc(), self.clocks.boottime(), self.clocks.synced())
        self._inbox.put((draft, stamp))
        self._wake()

    def publish(self, kind: str, payload: bytes) -> None:
        """Send a state (`health`, `heartbeat`): the newest wins, and none is kept while the broker is away."""
        with self._state_lock:
            self._state[kind] = payload
        self._wake()

    def status(self) -> DeliveryStatus:
        return self._status

    def stop(self, timeout_s: float) -> bool:
        """Bring everything to disk, send what can be sent at once, disconnect. False if that took longer."""
        self._stopping.set()
        self._wake()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        os.close(self._wake_read)
        os.close(self._wake_write)
        return True

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # it is awake already
        except OSError:
            log.debug("a record came after the end of delivery")

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """A defect in here must not end delivery for good: it is logged and the thread begins again."""
        while not self._stopping.is_set():
            try:
                _Loop(self).run()
            except Exception:
                log.exception("delivery failed; it starts again")
                self._stopping.wait(1.0)


class _Loop:
    """What one life of the thread holds."""

    def __init__(self, owner: Delivery) -> None:
        self.owner = owner
        self.config = owner.config
        self.clocks = owner.clocks
        now = self.clocks.boottime()
        self.lock = _lock(owner.config.state_dir)
        path = owner.config.state_dir / "outbox.db"
        stamp = Stamp(self.clocks.utc(), now, self.clocks.synced())
        self.backlog = Backlog(path, owner.config.outbox, self.clocks.boot_id, stamp)
        self.wanted: dict[LogLevel, Wanted] = dict(DEFAULT_WANTED)
        self.publisher: Publisher | None = None
        self.registered: object = None
        self.greeted: set[str] = set()
        self.hello_at: float | None = None
        """When the unanswered hello was sent."""
        self.answer_s = ANSWER_TIMEOUT_S
        self.declare_at, self.declare_s = now, ANSWER_TIMEOUT_S
        """When a loss may be declared again by a hello, and the pause after that."""
        self.failures = 0
        self.connect_at = now
        self.connected_at: float | None = None
        self.misc_at = now
        self.age_at = now + AGE_CHECK_S
        self.status_at = now
        self.unreported = True
        self.wall_offset = stamp.utc.timestamp() - now
        self.was_synced = stamp.synced
        self.up = False
        self.since = now
        self.selector = selectors.DefaultSelector()
        self.selector.register(owner._wake_read, selectors.EVENT_READ)

    def run(self) -> None:
        try:
            if self.backlog.keeper.was_unclean:
                self._note(LogLevel.INFO, "agent.unclean_start", "The last run did not end cleanly", {})
            self._report(self.clocks.boottime())
            self.owner._opened.set()
            while not self.owner._stopping.is_set():
                self._cycle()
            self._finish()
        finally:
            self.selector.close()
            if self.publisher is not None:
                self.publisher.close()
            self.backlog.keeper.close(self.clocks.boottime())
            if self.lock is not None:
                os.close(self.lock)
            self._report(self.clocks.boottime())

    def _cycle(self) -> None:
        now = self.clocks.boottime()
        events = self.selector.select(max(0.0, self._next_deadline(now) - now))
        now = self.clocks.boottime()
        self.unreported = self.unreported or bool(events) or now >= self.status_at + BEAT_S - STATUS_S
        for key, mask in events:
            if key.fileobj == self.owner._wake_read:
                _drain(self.owner._wake_read)
            elif self.publisher is not None:
                if mask & selectors.EVENT_READ:
                    self.publisher.read()
                if mask & selectors.EVENT_WRITE:
                    self.publisher.write()
        self._check_clock(now)
        self._take_in(now)
        self.backlog.keeper.flush(now)
        self._look_after_connection(now)
        self._send(now)
        if self.unreported and now >= self.status_at:
            self._report(now)

    def _next_deadline(self, now: float) -> float:
        """When the next thing is due that no event will announce."""
        times = [now + BEAT_S, self.misc_at]
        if self.unreported:
            times.append(self.status_at)
        if (flush := self.backlog.keeper.next_flush()) is not None:
            times.append(flush)
        if self.publisher is None and self.config.broker.url is not None:
            times.append(self.connect_at)
        if self.hello_at is not None:
            times.append(self.hello_at + self.answer_s)
        if (flight := self.backlog.oldest_flight()) is not None:
            times.append(flight + self.answer_s)
        if self.backlog.clock_undecided and self.connected_at is not None:
            times.append(now + 1.0)
        if not self.owner._inbox.empty():
            times.append(now)
        return min(times)

    # --- records in ---------------------------------------------------------------------------------------------------

    def _take_in(self, now: float) -> None:
        for _ in range(4 * MAX_BATCH_RECORDS):
            try:
                draft, stamp = self.owner._inbox.get_nowait()
            except queue.Empty:
                break
            if self._is_wanted(draft):
                self.backlog.append(draft, stamp)
            due = self.backlog.keeper.next_flush()
            if due is not None and due <= now and self.owner._inbox.empty():
                self.backlog.keeper.flush(now)
        self._take_incidents()

    def _is_wanted(self, draft: Draft) -> bool:
        wanted = self.wanted.get(draft.level, Wanted.ALL)
        return wanted is Wanted.ALL or (wanted is Wanted.CODED and draft.code is not None)

    def _note(self, level: LogLevel, code: str, message: str, context: dict[str, object]) -> None:
        """A record about delivery itself; the journal has it even if no server ever does."""
        log.log(logging.getLevelName("WARNING" if level is LogLevel.WARN else str(level)), "%s", message)
        stamp = Stamp(self.clocks.utc(), self.clocks.boottime(), self.clocks.synced())
        self.backlog.append(Draft(level, code, message, context), stamp)

    def _take_incidents(self) -> None:
        while self.backlog.keeper.incidents:
            draft = self.backlog.keeper.incidents.pop(0)
            assert draft.code is not None
            self._note(draft.level, draft.code, draft.message, draft.context)

    # --- the clock ----------------------------------------------------------------------------------------------------

    def _check_clock(self, now: float) -> None:
        offset = self.clocks.utc().timestamp() - self.clocks.boottime()
        moved, self.wall_offset = offset - self.wall_offset, offset
        synced = self.clocks.synced()
        context: dict[str, object] = {"moved_by_s": round(moved, 3)}
        if synced and not self.was_synced:
            self.was_synced = True
            self.backlog.decide_clock(offset - self.backlog.held.current.anchor, now)
            self._note(LogLevel.INFO, "clock.synced", "The clock is set; earlier times are corrected", context)
        elif abs(moved) > CLOCK_STEP_S:
            self._note(LogLevel.WARN, "clock.stepped", f"The wall clock stepped by {moved:.1f} s", context)
        if (
            self.backlog.clock_undecided
            and self.connected_at is not None
            and now - self.connected_at >= self.config.clock.max_wait_s
        ):
            self.backlog.decide_clock(0.0, now)
        if synced and now >= self.age_at:
            self.age_at = now + AGE_CHECK_S
            self.backlog.keeper.evict_aged(self.clocks.utc(), now)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _look_after_connection(self, now: float) -> None:
        if self.publisher is not None and now >= self.misc_at:
            self.publisher.misc()
        if now >= self.misc_at:
            self.misc_at = now + BEAT_S
        if self.publisher is not None and self.publisher.failure is not None:
            self._lost(self.publisher.failure, now)
        if self.publisher is None and self.config.broker.url is not None and now >= self.connect_at:
            self._connect(now)
        if self.publisher is not None and self.publisher.ready and self.connected_at is None:
            self.connected_at = now
            self._greet(now)
        self._check_answers(now)
        self._watch_socket()

    def _connect(self, now: float) -> None:
        self.publisher = Publisher(self.config.broker, self.owner.uuid, self._received)
        try:
            self.publisher.connect()
        except (OSError, ValueError) as error:
            self._lost(str(error), now)

    def _lost(self, reason: str, now: float) -> None:
        assert self.publisher is not None
        self._forget_socket()
        self.publisher.close()
        self.publisher = None
        self.failures += 1
        pause = min(CONNECT_CAP_S, CONNECT_FIRST_S * 2 ** min(self.failures - 1, 10))
        self.connect_at = now + pause * random.uniform(0.5, 1.0)
        self.connected_at = self.hello_at = None
        self.greeted.clear()
        self.backlog.go_back()
        self._set_up(False, reason, now)
        if self.failures == 1:
            log.warning("broker: %s", reason)
        self._try_http(now)

    def _greet(self, now: float) -> None:
        assert self.publisher is not None
        self.hello_at = now
        for hello in self.backlog.hellos(self.owner.version):
            self.publisher.publish("hello", encode_hello(hello))

    def _check_answers(self, now: float) -> None:
        """No word from the server for too long: go back, and ask with a hello instead of sending data again."""
        asked = self.hello_at if self.hello_at is not None else self.backlog.oldest_flight()
        if asked is None or now < asked + self.answer_s or self.publisher is None or not self.publisher.ready:
            return
        self.answer_s = min(self.answer_s * 2, ANSWER_CAP_S)
        self.failures += 1
        self.greeted.clear()
        self.backlog.go_back()
        self._set_up(False, "the server does not answer", now)
        self._greet(now)
        self._try_http(now)

    def _set_up(self, up: bool, reason: str, now: float) -> None:
        if up != self.up:
            self.up, before, self.since = up, self.since, now
            if up:
                away = round(now - before, 1)
                self._note(LogLevel.INFO, "broker.connected", "The server answers", {"away_s": away})
            else:
                self._note(LogLevel.WARN, "broker.lost", "The server is out of reach", {"reason": reason})

    def _watch_socket(self) -> None:
        sock = None if self.publisher is None else self.publisher.socket()
        if sock is not self.registered:
            self._forget_socket()
            if sock is not None:
                self.selector.register(sock, selectors.EVENT_READ)
                self.registered = sock
        if self.publisher is not None and sock is not None:
            wants = selectors.EVENT_WRITE if self.publisher.want_write() else 0
            if self.selector.get_key(sock).events != selectors.EVENT_READ | wants:
                self.selector.modify(sock, selectors.EVENT_READ | wants)

    def _forget_socket(self) -> None:
        if self.registered is not None:
            for key in list(self.selector.get_map().values()):
                if key.fileobj is self.registered:
                    self.selector.unregister(key.fileobj)
            self.registered = None

    # --- records out --------------------------------------------------------------------------------------------------

    def _send(self, now: float) -> None:
        if self.publisher is None or not self.publisher.ready:
            return
        with self.owner._state_lock:
            states, self.owner._state = self.owner._state, {}
        for kind, payload in states.items():
            self.publisher.publish(kind, payload)
        for _ in range(BATCHES_PER_CYCLE):
            batch = self.backlog.next_batch(now, self.greeted)
            if batch is None:
                break
            self.publisher.publish(f"logs/{batch.level.lower()}", batch.payload)
        self._declare(now)
        self._watch_socket()

    def _declare(self, now: float) -> None:
        """Tell the server of a loss that no batch will. A hello that it cannot take is not answered: no haste then."""
        if not self.backlog.undeclared():
            self.declare_at, self.declare_s = now, ANSWER_TIMEOUT_S
        elif self.hello_at is None and self.greeted and now >= self.declare_at:
            self.declare_at, self.declare_s = now + self.declare_s, min(self.declare_s * 2, ANSWER_CAP_S)
            self._greet(now)

    def _received(self, topic: str, payload: bytes) -> None:
        try:
            ack = decode_ack(payload)
        except WireError as error:
            log.warning("an ack that cannot be read: %s", error)
            return
        self._on_ack(ack, self.clocks.boottime())

    def _on_ack(self, ack: Ack, now: float) -> None:
        fits = self.backlog.on_ack(ack, now)
        if ack.wanted is not None:
            self.wanted.update(ack.wanted)
            self.greeted.add(ack.epoch)
            if ack.epoch == self.backlog.held.current.epoch:
                self.hello_at = None
        self.answer_s = ANSWER_TIMEOUT_S
        self.failures = 0
        self._set_up(True, "", now)
        if not fits and self.publisher is not None and self.hello_at is None:
            self.backlog.go_back()
            self._greet(now)

    def _try_http(self, now: float) -> None:
        """The second door, if there is one and the first has failed often enough."""
        if self.config.http.url is None or self.failures < self.config.http.after_failures:
            return
        from infoscreen_device import http_door  # 2 MB of modules that most kiosks never need

        greeted = set[str]()
        try:
            for hello in self.backlog.hellos(self.owner.version):
                self._take_acks(http_door.post(self.config.http, self.owner.uuid, hello, []), greeted, now)
            while not self.owner._stopping.is_set():
                self._take_in(now)
                self.backlog.keeper.flush(now)
                batches: list[Batch] = []
                while len(batches) < BATCHES_PER_POST and (batch := self.backlog.next_batch(now, greeted)):
                    batches.append(batch)
                before = self.backlog.pending()
                if batches:
                    self._take_acks(http_door.post(self.config.http, self.owner.uuid, None, batches), greeted, now)
                now = self.clocks.boottime()
                self._report(now)
                if self.backlog.pending() >= before:
                    break
        except (OSError, ValueError) as error:
            log.warning("http door: %s", error)
        self.backlog.go_back()

    def _take_acks(self, acks: list[Ack], greeted: set[str], now: float) -> None:
        for ack in acks:
            self.backlog.on_ack(ack, now)
            greeted.add(ack.epoch)
            self.wanted.update(ack.wanted or {})

    # --- the end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Everything to disk first, then what the network takes at once."""
        now = self.clocks.boottime()
        while not self.owner._inbox.empty():
            self._take_in(now)
        self.backlog.keeper.flush(now, everything=True)
        self._send(now)

    def _report(self, now: float) -> None:
        self.status_at, self.unreported = now + STATUS_S, False
        backlog = self.backlog
        lanes = {
            level: LaneStatus(lane.base, lane.next, lane.flushed)
            for level in LogLevel
            for lane in [backlog.held.lanes[backlog.held.current.epoch, level]]
        }
        self.owner._status = DeliveryStatus(
            self.up,
            self.since,
            backlog.pending(),
            backlog.oldest(),
            backlog.held.current.epoch,
            now,
            backlog.keeper.trouble,
            lanes,
        )


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def _lock(state_dir: Path) -> int | None:
    """Keep a second agent and `outbox vacuum` away from the file; None where that cannot be."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        fd = os.open(state_dir / "outbox.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("no lock on the outbox: %s", error)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        log.error("another agent uses %s", state_dir)
    return fd
