"""A client on MQTT by hand: says what a test tells it to, and keeps what is answered."""

import json
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from infoscreen_shared import topics
from infoscreen_shared.messages import Ack, Hello, LaneSpan, LogLevel, decode_ack, encode_hello
from parts.fleet import UUID, item
from parts.wait import wait_for


def numbered(numbers: Iterable[int], *, base: int = 0, epoch: str = "e", **more: Any) -> bytes:
    """A batch as an agent sends it."""
    return json.dumps({"epoch": epoch, "base": base, "records": [item(number, **more) for number in numbers]}).encode()


def hello(*, base: int = 0, upcoming: int = 1, epoch: str = "e", level: LogLevel = LogLevel.ERROR) -> bytes:
    return encode_hello(Hello(epoch, {level: LaneSpan(base, upcoming)}, "1.0"))


class Kiosk:
    def __init__(self, port: int, uuid: str = UUID) -> None:
        self.port, self.uuid = port, uuid
        self.acks: list[Ack] = []
        self.listening = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.client.max_inflight_messages_set(1000)
        self.client.on_connect = lambda client, *_: client.subscribe(topics.topic(uuid, "ack"), 1)
        self.client.on_subscribe = lambda *_: self.listening.set()
        self.client.on_message = self._on_message

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.acks.append(decode_ack(message.payload))

    def publish(self, *messages: tuple[str, bytes], retain: bool = False) -> None:
        """On full topic names, at QoS 1; returns once the broker has all of them."""
        sent = [self.client.publish(name, payload, qos=1, retain=retain) for name, payload in messages]
        for info in sent:
            info.wait_for_publish(20)
            assert info.is_published()

    def say(self, kind: str, *payloads: bytes, retain: bool = False) -> None:
        """On the client's own topic `kind`."""
        self.publish(*((topics.topic(self.uuid, kind), payload) for payload in payloads), retain=retain)

    def answer(self, kind: str, payload: bytes) -> Ack:
        """Say it and wait for the one ack."""
        before = len(self.acks)
        self.say(kind, payload)
        wait_for(lambda: len(self.acks) > before, f"{kind} is acknowledged")
        return self.acks[before]

    def __enter__(self) -> "Kiosk":
        self.client.connect("127.0.0.1", self.port)
        connection: Any = self.client.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.loop_start()
        assert self.listening.wait(20)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.client.disconnect()
        self.client.loop_stop()
