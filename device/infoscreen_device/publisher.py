"""One connection to the broker: connect, subscribe, publish, and what comes in, without a thread of its own.

paho-mqtt's external loop is driven by the owner's selector. A connection is used once: paho would send everything again
on a reconnect, regardless of our window (eclipse/paho.mqtt.python#492), so after a loss a new one is made. Nothing is
queued here; what is delivered is for the backlog to know.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from infoscreen_device import lazily

# paho wants them for web sockets and for TLS: 10 MB of a kiosk's memory that most never need.
lazily.load("hashlib")
lazily.load("urllib.request")
lazily.load("ssl")

import paho.mqtt.client as mqtt  # noqa: E402

from infoscreen_device.settings import BrokerConfig  # noqa: E402
from infoscreen_shared import topics  # noqa: E402
from infoscreen_shared.tls import client_context  # noqa: E402

CONNECT_TIMEOUT_S = 5.0
_COMMANDS = ("ack",)


class Publisher:
    def __init__(self, config: BrokerConfig, uuid: str, on_message: Callable[[str, bytes], None]) -> None:
        self.uuid = uuid
        self.ready = False
        """The broker has accepted us and our subscriptions."""
        self.failure: str | None = None
        """Why the connection is over; None while it lives."""
        self._on_message = on_message
        self._client = _new_client(uuid)
        self._configure(config)
        self._config = config

    def _configure(self, config: BrokerConfig) -> None:
        client = self._client
        if config.username is not None:
            client.username_pw_set(config.username, config.password)
        if config.tls:
            client.tls_set_context(client_context(config.ca_file))
        client.will_set(topics.topic(self.uuid, "status"), topics.OFFLINE, qos=1, retain=True)
        client.max_inflight_messages_set(0)  # the window is ours; 0: no bound of paho's
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_disconnect = self._disconnected
        client.on_message = self._received
        client.on_socket_open = _no_delay  # type: ignore[assignment]

    def connect(self) -> None:
        """Open the connection; blocks for CONNECT_TIMEOUT_S at most. Raises OSError, ValueError."""
        self._client.connect(self._config.host, self._config.port, self._config.keepalive_s)

    def socket(self) -> Any:
        return None if self.failure is not None else self._client.socket()

    def read(self) -> None:
        self._client.loop_read()

    def write(self) -> None:
        self._client.loop_write()

    def misc(self) -> None:
        """Keepalive; call it every few seconds."""
        self._client.loop_misc()

    def want_write(self) -> bool:
        wants: bool = self._client.want_write()
        return wants

    def publish(self, kind: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to paho, QoS 1. It is not delivered before the server says so."""
        if self.failure is None:
            self._client.publish(topics.topic(self.uuid, kind), payload, qos=1, retain=retain)

    def close(self) -> None:
        """Say good-bye: the retained status becomes offline, as the will would say for us."""
        if self.ready and self.failure is None:
            self.publish("status", topics.OFFLINE, retain=True)
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
            self._client.loop_write()
        self.failure = self.failure or "closed"

    # Callbacks: paho 1.6 (Debian 12) and 2.1 (Debian 13) differ in their arguments, hence the open ends.

    def _connected(self, client: mqtt.Client, _userdata: object, _flags: object, reason: Any, *_: object) -> None:
        refused = reason.is_failure if hasattr(reason, "is_failure") else reason != 0
        if refused:
            text = mqtt.connack_string(reason) if isinstance(reason, int) else str(reason)
            self.failure = f"refused by the broker: {text}"
            return
        client.subscribe([(topics.topic(self.uuid, kind), 1) for kind in _COMMANDS])

    def _subscribed(self, _client: mqtt.Client, _userdata: object, _mid: int, *_: object) -> None:
        self.ready = True
        self.publish("status", topics.ONLINE, retain=True)

    def _disconnected(self, _client: mqtt.Client, _userdata: object, *details: object) -> None:
        reason = next((item for item in details if not hasattr(item, "is_disconnect_packet_from_server")), "")
        self.failure = self.failure or f"connection lost ({_reason_text(reason)})"

    def _received(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if not message.retain:
            self._on_message(message.topic, message.payload)


def _new_client(uuid: str) -> mqtt.Client:
    """A client that keeps no session at the broker: the outbox is the session."""
    options: dict[str, Any] = {"client_id": f"infoscreen-{uuid}", "clean_session": True, "protocol": mqtt.MQTTv311}
    if hasattr(mqtt, "CallbackAPIVersion"):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **options)
        client.connect_timeout = CONNECT_TIMEOUT_S
        return client
    client = mqtt.Client(**options)
    client._connect_timeout = CONNECT_TIMEOUT_S
    return client


def _no_delay(_client: mqtt.Client, _userdata: object, sock: socket.socket) -> None:
    """Without it each ack waits for the other side's 40 ms delayed ACK (measured: 13 times slower)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reason_text(reason: object) -> str:
    if isinstance(reason, int):
        return str(mqtt.error_string(reason))
    return str(reason)
