"""One MQTT message into an arrival. Pure, and never raises: whatever cannot be read becomes a Refused."""

from infoscreen_server.store import Arrival, Body, Presence, Refused, Stale
from infoscreen_shared import topics
from infoscreen_shared.messages import WireError, clean, decode_health, decode_heartbeat, decode_hello, decode_logs

EXCERPT_BYTES = 16_384
"""How much of an unreadable payload is kept."""
MAX_TOPIC_CHARS = 512


def arrival_of(name: str, payload: bytes | bytearray, *, retained: bool = False) -> Arrival:
    """What a message on this topic says.

    The broker gives retained messages to every new subscriber: only a good status may be one, all else would be stored,
    or refused, again at each connection.
    """
    uuid = None
    try:
        topic = topics.parse(name)
        uuid = topic.uuid
        if retained and topic.kind != "status":
            return Arrival(uuid, Stale(), name)
        return Arrival(uuid, _body(topic, payload, retained), name)
    except (ValueError, RecursionError) as error:
        excerpt = bytes(payload[:EXCERPT_BYTES]).decode("utf-8", "replace").replace("\0", "\ufffd")
        reason = str(error) if isinstance(error, WireError) or uuid is None else "payload cannot be read"
        place = clean(name[:MAX_TOPIC_CHARS])
        if retained:
            return Arrival(uuid, Stale(), place)
        return Arrival(uuid, Refused(place, reason, excerpt), place)


def _body(topic: topics.Topic, payload: bytes | bytearray, retained: bool) -> Body:
    if topic.level is not None:
        return decode_logs(topic.level, payload)
    if topic.kind == "hello":
        return decode_hello(payload)
    if topic.kind == "health":
        return decode_health(payload)
    if topic.kind == "heartbeat":
        beat = decode_heartbeat(payload)
        if beat.uuid and beat.uuid.lower() != topic.uuid:
            raise WireError("uuid: differs from that of the topic")
        return beat
    if topic.kind == "status":
        if payload not in (topics.ONLINE, topics.OFFLINE):
            raise WireError("status: expected online or offline")
        return Presence(payload == topics.ONLINE, retained)
    raise WireError("commands are not known to this server")
