"""The MQTT door: one ingester with a fixed client id and a persistent session, in one thread.

Gathers what has arrived, gives it to the store in one transaction, and only then acknowledges: to the agents (ack) and
to the broker (PUBACK). What cannot be decoded goes to the dead letters and never stops the worker. A standby may be
started with the same client id: the broker closes the older connection.
"""

import contextlib
import logging
import random
import selectors
import signal
import socket
import ssl
import time
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from infoscreen_server import store
from infoscreen_server.config import Mqtt, ServerConfig
from infoscreen_server.db import make_engine
from infoscreen_server.store import Arrival, Dead, Online
from infoscreen_shared import topics
from infoscreen_shared.messages import (
    WireError,
    decode_health,
    decode_heartbeat,
    decode_hello,
    decode_logs,
    encode_ack,
)

log = logging.getLogger(__name__)

GATHER_MESSAGES = 64
GATHER_BYTES = 4_000_000
"""One transaction takes at most so much; under load larger ones are faster, when idle nothing waits."""
KEEPALIVE_S = 30
RETRY_FIRST_S, RETRY_CAP_S = 0.5, 30.0
EXCERPT_BYTES = 2_000


def run(config: ServerConfig) -> int:
    """Serve until SIGTERM or SIGINT. Returns an exit code."""
    assert config.mqtt is not None
    engine = make_engine(config.database_url, hide_parameters=True)
    wake_read, wake_write = socket.socketpair()
    wake_write.setblocking(False)
    wake_read.setblocking(False)
    ingester = Ingester(config, config.mqtt, engine, wake_read)

    def stop(_number: int, _frame: FrameType | None) -> None:
        ingester.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.set_wakeup_fd(wake_write.fileno())
    try:
        ingester.run()
    finally:
        signal.set_wakeup_fd(-1)
        wake_read.close()
        wake_write.close()
        engine.dispose()
    return 0


class Ingester:
    def __init__(self, config: ServerConfig, broker: Mqtt, engine: Engine, wake: socket.socket) -> None:
        self.config, self.broker, self.engine = config, broker, engine
        self.stopping = False
        self.gathered: list[tuple[mqtt.MQTTMessage, Arrival]] = []
        self.gathered_bytes = 0
        self.failure: str | None = None
        self.retry_s = RETRY_FIRST_S
        self.wake = wake
        self.client = self._new_client()

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.broker.client_id,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
        )
        if self.broker.username is not None:
            client.username_pw_set(self.broker.username, self.broker.password)
        if self.broker.tls:
            cafile = None if self.broker.ca_file is None else str(self.broker.ca_file)
            client.tls_set_context(ssl.create_default_context(cafile=cafile))
        client.max_inflight_messages_set(0)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_socket_open = _no_delay  # type: ignore[assignment]
        return client

    def run(self) -> None:
        while not self.stopping:
            try:
                self._connect()
                self._serve()
            except (OSError, ValueError) as error:
                self.failure = str(error)
            if self.failure is not None and not self.stopping:
                log.warning("broker: %s", self.failure)
                self._pause()
        with contextlib.suppress(OSError, ValueError):
            self.client.disconnect()
            self.client.loop_write()

    def _connect(self) -> None:
        # A new client for each connection: paho would publish old acks again, and they are worth nothing by then.
        self.failure = None
        self.gathered.clear()
        self.gathered_bytes = 0
        self.client = self._new_client()
        self.client.connect(self.broker.host, self.broker.port, KEEPALIVE_S)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.wake, selectors.EVENT_READ)
            selector.register(self.client.socket(), selectors.EVENT_READ)  # type: ignore[arg-type]
            while not self.stopping and self.failure is None:
                self._turn(selector)

    def _turn(self, selector: selectors.BaseSelector) -> None:
        sock: Any = self.client.socket()
        if sock is None:
            self.failure = self.failure or "connection lost"
            return
        wants = selectors.EVENT_WRITE if self.client.want_write() else 0
        selector.modify(sock, selectors.EVENT_READ | wants)
        for key, mask in selector.select(5.0):
            if key.fileobj is self.wake:
                with contextlib.suppress(BlockingIOError):
                    self.wake.recv(64)
                continue
            if mask & selectors.EVENT_WRITE:
                self.client.loop_write()
            if mask & selectors.EVENT_READ:
                self._gather(sock)
        self.client.loop_misc()
        if self.gathered and self.failure is None:
            self._commit()

    def _gather(self, sock: Any) -> None:
        """Read on while more is there, up to the bounds of one transaction."""
        with selectors.DefaultSelector() as ready:
            ready.register(sock, selectors.EVENT_READ)
            while self.failure is None and self.client.socket() is not None:
                self.client.loop_read()
                if len(self.gathered) >= GATHER_MESSAGES or self.gathered_bytes >= GATHER_BYTES:
                    break
                pending = getattr(sock, "pending", None)  # TLS keeps what it has decrypted to itself
                if not (pending and pending()) and (sock.fileno() < 0 or not ready.select(0)):
                    break

    def _commit(self) -> None:
        """Store all that was gathered, then acknowledge it. While the database is away nothing is acknowledged."""
        arrivals = [arrival for _, arrival in self.gathered]
        wait = RETRY_FIRST_S
        while True:
            try:
                acks = store.ingest(self.engine, arrivals, datetime.now(UTC), self.config, "mqtt")
                break
            except DBAPIError as error:
                log.error("database: %s", str(error.orig).partition("\n")[0])
                if self.stopping:
                    return
                time.sleep(wait)
                wait = min(wait * 2, RETRY_CAP_S / 3)
                self.client.loop_misc()
        for uuid, ack in acks:
            self.client.publish(topics.topic(uuid, "ack"), encode_ack(ack), qos=1)
        for message, _ in self.gathered:
            if message.qos:
                self.client.ack(message.mid, message.qos)
        self.gathered.clear()
        self.gathered_bytes = 0

    def _pause(self) -> None:
        """Wait with jitter before the next attempt; a signal ends it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.wake, selectors.EVENT_READ)
            if selector.select(self.retry_s * random.uniform(0.5, 1.0)):
                with contextlib.suppress(BlockingIOError):
                    self.wake.recv(64)
        self.retry_s = min(self.retry_s * 2, RETRY_CAP_S)

    # --- paho's callbacks ---------------------------------------------------------------------------------------------

    def _connected(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self.failure = f"refused: {reason}"
            return
        self.retry_s = RETRY_FIRST_S
        client.subscribe([(name, 1) for name in topics.subscriptions()])
        log.info("listening on mqtt://%s:%d", self.broker.host, self.broker.port)

    def _disconnected(self, _client: mqtt.Client, _data: object, _flags: object, reason: Any, _props: object) -> None:
        self.failure = self.failure or f"connection lost ({reason})"

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        arrival = arrival_of(message.topic, bytes(message.payload), retained=message.retain)
        if isinstance(arrival.content, Dead):
            # %r: what a client puts into a topic must not forge lines of our log.
            log.warning("%r: %s", message.topic[:200], arrival.content.reason)
        self.gathered.append((message, arrival))
        self.gathered_bytes += len(message.payload)


def arrival_of(name: str, payload: bytes, *, retained: bool) -> Arrival:
    """Decode one message. Never raises: what cannot be read becomes Dead."""
    uuid = None
    try:
        topic = topics.parse(name)
        uuid = topic.uuid
        if topic.kind == "status":
            if payload not in (topics.ONLINE, topics.OFFLINE):
                raise WireError("status: expected online or offline")
            return Arrival(uuid, Online(payload == topics.ONLINE), name)
        if retained:
            raise WireError("a retained message, which only a status may be")
        if topic.level is not None:
            return Arrival(uuid, decode_logs(topic.level, payload), name)
        if topic.kind == "hello":
            return Arrival(uuid, decode_hello(payload), name)
        if topic.kind == "health":
            return Arrival(uuid, decode_health(payload), name)
        if topic.kind == "heartbeat":
            beat = decode_heartbeat(payload)
            if beat.uuid and beat.uuid.lower() != uuid:
                raise WireError("uuid: differs from that of the topic")
            return Arrival(uuid, beat, name)
        raise WireError("nobody here takes this kind of message")
    except ValueError as error:
        excerpt = payload[:EXCERPT_BYTES].decode("utf-8", "replace")
        return Arrival(uuid, Dead(name, str(error), excerpt), name)


def _no_delay(_client: mqtt.Client, _data: object, sock: socket.socket) -> None:
    """Without it each ack waits for the other side's 40 ms delayed ACK."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
