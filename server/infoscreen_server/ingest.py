"""The MQTT door: one ingester with a fixed client id and a persistent session, in one thread.

Gathers all that is there to read, gives it to the store in one transaction, and only after the commit acknowledges: to
the agents (ack) and to the broker (PUBACK). So a broker that restarts, a database that is away and a kill -9 of this
process all end in the same message arriving again. What a message means is for decode and the store.
"""

import contextlib
import logging
import random
import selectors
import signal
import socket
import threading
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import Engine

from infoscreen_server.config import Mqtt, ServerConfig
from infoscreen_server.db import make_engine
from infoscreen_server.incoming import arrival_of
from infoscreen_server.store import Arrival, Body, Refused, Stale, ingest
from infoscreen_shared import topics
from infoscreen_shared.messages import Batch, encode_ack
from infoscreen_shared.tls import client_context

log = logging.getLogger(__name__)

MOST_RECORDS, MOST_BYTES = 10_000, 4_000_000
"""Bounds of one transaction; past some thousand records larger ones are no faster."""
TURN_S = 1.0
"""Longest wait for anything; a stop without a signal is seen after so long at the latest."""
KEEPALIVE_S = 30
CONNECT_S = 1.5
"""A stop must not wait longer than this for a broker that does not answer."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 30.0
LONGEST_DATABASE_PAUSE_S = 10.0
STABLE_S = 10.0
"""A connection that lasted so long makes earlier failures forgotten; two ingesters with one id take turns slowly."""


def run(config: ServerConfig) -> int:
    """Serve until SIGTERM or SIGINT. Returns an exit code."""
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    wake, wake_write = socket.socketpair()
    for end_point in (wake, wake_write):
        end_point.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
    try:
        return run_ingest(config, stop, wake)
    finally:
        signal.set_wakeup_fd(-1)
        wake.close()
        wake_write.close()


def run_ingest(config: ServerConfig, stop: threading.Event, wake: socket.socket | None = None) -> int:
    """Serve until `stop` is set; `wake` becoming readable says at once to look at it. Returns an exit code."""
    assert config.mqtt is not None
    engine = make_engine(config.database_url, hide_parameters=True)
    try:
        Ingester(config, config.mqtt, engine, stop, wake).run()
    finally:
        engine.dispose()
    return 0


class Held(NamedTuple):
    """A message that the broker has not been answered for."""

    mid: int
    qos: int
    arrival: Arrival


class Ingester:
    def __init__(
        self, config: ServerConfig, broker: Mqtt, engine: Engine, stop: threading.Event, wake: socket.socket | None
    ) -> None:
        self.config, self.broker, self.engine, self.stop, self.wake = config, broker, engine, stop, wake
        self.held: list[Held] = []
        self.records = self.bytes = 0
        self.failure: str | None = None
        self.broker_pause = Backoff(LONGEST_PAUSE_S)
        self.database_pause = Backoff(LONGEST_DATABASE_PAUSE_S)
        self.commit_due = 0.0
        """On the monotonic clock: while the database is away, when to try it again."""
        self.connected_at: float | None = None
        self.session = ""
        self.client = self._new_client()

    def run(self) -> None:
        while not self.stop.is_set():
            self._connect()
            if self.failure is None:
                with selectors.DefaultSelector() as selector:
                    self._serve(selector)
            if self.failure is not None and not self.stop.is_set():
                pause = self.broker_pause.next()
                log.warning(
                    "broker %s:%d: %s, again in %.1f s", self.broker.host, self.broker.port, self.failure, pause
                )
                self._sleep(pause)
        with contextlib.suppress(OSError, ValueError):
            self.client.disconnect()
        self._close()

    # --- the connection -----------------------------------------------------------------------------------------------

    def _new_client(self) -> mqtt.Client:
        # One for each connection: paho would send acks of the old one again, and they are worth nothing by then.
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.broker.client_id,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
        )
        client.connect_timeout = CONNECT_S
        if self.broker.username is not None:
            client.username_pw_set(self.broker.username, self.broker.password)
        if self.broker.tls:
            client.tls_set_context(client_context(self.broker.ca_file))
        client.max_inflight_messages_set(0)
        client.max_queued_messages_set(0)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_socket_open = _no_delay  # type: ignore[assignment]
        return client

    def _connect(self) -> None:
        # What was not acknowledged comes again with the session.
        self._let_go()
        self.failure, self.connected_at = None, None
        self.client = self._new_client()
        try:
            self.client.connect(self.broker.host, self.broker.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            self.failure = getattr(error, "strerror", None) or str(error)
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection: Any = self.client.socket()
            if connection is not None:
                connection.close()

    def _on_connect(
        self, client: mqtt.Client, _data: object, flags: mqtt.ConnectFlags, reason: Any, _properties: object
    ) -> None:
        if reason.is_failure:
            self.failure = f"refuses the connection: {reason}"
            return
        self.connected_at = time.monotonic()
        self.session = "kept session" if flags.session_present else "new session"
        client.subscribe([(name, 1) for name in topics.subscriptions()])

    def _on_subscribe(self, _client: object, _data: object, _mid: int, reasons: list[Any], _properties: object) -> None:
        # Only from here on does the broker keep for us what clients publish.
        refused = [name for name, reason in zip(topics.subscriptions(), reasons, strict=False) if reason.is_failure]
        if refused:
            log.error("the broker refuses the subscription to %s; mend its access list", ", ".join(refused))
        log.info("listening on mqtt://%s:%d, %s", self.broker.host, self.broker.port, self.session)

    def _on_disconnect(self, _client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if not self.stop.is_set():
            self.failure = self.failure or f"connection lost ({reason})"

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _serve(self, selector: selectors.BaseSelector) -> None:
        connection: Any = self.client.socket()
        selector.register(connection, selectors.EVENT_READ)
        if self.wake is not None:
            selector.register(self.wake, selectors.EVENT_READ)
        while not self.stop.is_set() and self.failure is None:
            if not self._lives(connection):
                self.failure = "connection lost"
                return
            self._turn(selector, connection)

    def _lives(self, connection: Any) -> bool:
        """Paho drops the connection wherever it meets an error."""
        return bool(connection == self.client.socket() and connection.fileno() >= 0)

    def _turn(self, selector: selectors.BaseSelector, connection: Any) -> None:
        now = time.monotonic()
        full = self.records >= MOST_RECORDS or self.bytes >= MOST_BYTES
        events = (0 if full else selectors.EVENT_READ) | (selectors.EVENT_WRITE if self.client.want_write() else 0)
        timeout = min(TURN_S, max(0.0, self.commit_due - now)) if self.held else TURN_S
        if events:
            selector.modify(connection, events)
            ready = {key.fileobj: mask for key, mask in selector.select(timeout)}
        else:
            # The database is away and the hands are full: the broker has to wait too.
            ready = {}
            self._sleep(timeout)
        if self.wake in ready:
            self._drain_wake()
        if ready.get(connection, 0) & selectors.EVENT_WRITE:
            self.client.loop_write()
        if ready.get(connection, 0) & selectors.EVENT_READ:
            self._gather(connection)
        if self.held and self.failure is None and time.monotonic() >= self.commit_due:
            self._commit()
        self.client.loop_misc()
        if self.connected_at is not None and now - self.connected_at > STABLE_S:
            self.broker_pause.reset()

    def _gather(self, connection: Any) -> None:
        """Read on while more is there, up to the bounds of one transaction."""
        with selectors.DefaultSelector() as look:
            look.register(connection, selectors.EVENT_READ)
            while self.records < MOST_RECORDS and self.bytes < MOST_BYTES:
                if self.client.loop_read() != mqtt.MQTT_ERR_SUCCESS or not self._lives(connection):
                    return
                # TLS keeps to itself what it has decrypted already.
                if not (self.broker.tls and connection.pending()) and not look.select(0):
                    return

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes, or so long."""
        deadline = time.monotonic() + seconds
        while not self.stop.is_set() and (left := deadline - time.monotonic()) > 0:
            if self.wake is None:
                self.stop.wait(left)
                continue
            with selectors.DefaultSelector() as look:
                look.register(self.wake, selectors.EVENT_READ)
                if look.select(min(left, TURN_S)):
                    self._drain_wake()

    def _drain_wake(self) -> None:
        assert self.wake is not None
        with contextlib.suppress(BlockingIOError):
            self.wake.recv(64)

    # --- messages -----------------------------------------------------------------------------------------------------

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        arrival = arrival_of(message.topic, message.payload, retained=message.retain)
        trouble = _trouble(arrival.body)
        if trouble:
            # %r: what a client puts into a topic must not forge lines of our log.
            log.warning("%r: %s", message.topic[:200], trouble)
        self.records += len(arrival.body.records) if isinstance(arrival.body, Batch) else 1
        self.bytes += len(message.payload)
        self.held.append(Held(message.mid, message.qos, arrival))

    def _commit(self) -> None:
        """Store all that was gathered, then acknowledge it. While the database is away nothing is acknowledged."""
        arrivals = [held.arrival for held in self.held]
        try:
            acks = ingest(self.engine, arrivals, datetime.now(UTC), self.config, "mqtt")
        except Exception as error:  # noqa: BLE001 - whatever it is, what was not committed must not be acknowledged
            pause = self.database_pause.next()
            self.commit_due = time.monotonic() + pause
            log.error("database: %s, again in %.1f s", _first_line(error), pause)
            return
        self.database_pause.reset()
        for uuid, ack in acks:
            self.client.publish(topics.topic(uuid, "ack"), encode_ack(ack), qos=1)
        for held in self.held:
            if held.qos:
                self.client.ack(held.mid, held.qos)
        self._let_go()

    def _let_go(self) -> None:
        self.held.clear()
        self.records = self.bytes = 0
        self.commit_due = 0.0


class Backoff:
    """Pauses in seconds that double up to a longest one, with jitter, so that many do not come back at once."""

    def __init__(self, longest: float) -> None:
        self.longest = longest
        self.reset()

    def reset(self) -> None:
        self.current = FIRST_PAUSE_S

    def next(self) -> float:
        pause = self.current * random.uniform(0.5, 1.0)
        self.current = min(self.longest, self.current * 2)
        return pause


def _trouble(body: Body) -> str | None:
    """What is wrong with a message, for the log; all of it is in the dead letters, or in the counts."""
    if isinstance(body, Refused):
        return body.reason
    if isinstance(body, Stale):
        return "retained, passed over: only the status may be"
    if isinstance(body, Batch) and body.rejected:
        return f"{len(body.rejected)} of {len(body.rejected) + len(body.records)} records: {body.rejected[0].reason}"
    return None


def _first_line(error: Exception) -> str:
    """Of a driver's message; SQLAlchemy would go on with the statement."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}".partition("\n")[0]


def _no_delay(_client: mqtt.Client, _data: object, connection: socket.socket) -> None:
    """Without it each ack waits for the other side's 40 ms delayed ACK."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
