"""One viewer of the live view: what waits for it, and how events are put.

The queue is bounded: who is too slow loses the oldest lines, is told how many, and costs nobody else anything.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from infoscreen_server.live_source import Wish
from infoscreen_server.log_search import log_of
from infoscreen_server.tail import Position, either

MAX_QUEUE = 500
"""Lines that wait for one viewer."""
MAX_MESSAGE, MAX_CONTEXT = 2_000, 4_000
"""Characters of one line here; the whole record is in the log."""


class Place(NamedTuple):
    """How far someone has come in both tables."""

    logs: Position
    states: Position

    def text(self) -> str:
        return f"{self.logs.text()}/{self.states.text()}"

    def and_logs_of(self, other: "Place | None") -> "Place":
        """With what someone has seen of the log elsewhere."""
        return self if other is None else Place(either(self.logs, other.logs), self.states)

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises ValueError."""
        logs, _, states = text.partition("/")
        return cls(Position.parse(logs), Position.parse(states))


# --- events as text ---------------------------------------------------------------------------------------------------


def event(name: str, data: dict[str, Any], place: str | None = None) -> bytes:
    """One event of a stream. JSON has no line breaks of its own, so that no text within can end the event."""
    number = "" if place is None else f"id: {place}\n"
    return f"event: {name}\n{number}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def log_event(row: Row[Any], label: str, place: str) -> bytes:
    line = log_of(row) | {"client_uuid": row.client_uuid, "client_label": label, "cut": False}
    if len(row.message) > MAX_MESSAGE:
        line |= {"message": row.message[:MAX_MESSAGE], "cut": True}
    if len(row.context or "") > MAX_CONTEXT:
        line |= {"context": {}, "cut": True}
    return event("log", line, place)


def place_event(place: str) -> bytes:
    """Moves where a stream would go on. With data: a browser keeps an `id` alone to itself (HTML standard, 9.2.6)."""
    return event("place", {}, place)


def dropped_event(logs: int, about: bool, clients: bool) -> bytes:
    return event("dropped", {"logs": logs, "about": about, "clients": clients})


# --- viewers ----------------------------------------------------------------------------------------------------------


class Viewer:
    """One stream. Filled by the hub under its lock, emptied by whoever writes to the browser."""

    def __init__(self, owner: str, wish: Wish, has_seen: Place | None) -> None:
        self.owner = owner
        self.wish = wish
        self.closed = False
        self.is_gone: Callable[[], bool] = lambda: False
        """Whether the other side has closed the connection."""
        self.opening: list[bytes] = []
        """What comes before all else: what was missed since the last time."""
        self._has_seen = has_seen
        self._lines: deque[bytes] = deque(maxlen=MAX_QUEUE)
        self._clients: dict[str, bytes] = {}
        self._dropped = 0
        self._about = False
        self._clients_dropped = False
        self._filled = threading.Event()

    def put(self, rows: Sequence[tuple[int, bytes]], place: Place) -> None:
        """`rows` are wanted ones; those that this viewer has from another process already are left out."""
        if self._has_seen is not None:
            seen = self._has_seen.logs
            rows = [(number, self._put_back(line)) for number, line in rows if number not in seen]
            if place.logs.high >= seen.high and not any(first <= seen.high for first, _ in place.logs.gaps):
                self._has_seen = None
        if rows:
            self._dropped += max(0, len(self._lines) + len(rows) - MAX_QUEUE)
            self._lines.extend(line for _, line in rows)
            self._filled.set()

    def _put_back(self, line: bytes) -> bytes:
        """The same event, at a place that includes what this viewer has from elsewhere."""
        name, number, rest = line.split(b"\n", 2)
        place = Place.parse(number.removeprefix(b"id: ").decode())
        return b"\n".join((name, b"id: " + place.and_logs_of(self._has_seen).text().encode(), rest))

    def put_clients(self, events: dict[str, bytes]) -> None:
        """The newest state of each is enough, so that nothing is lost here however slow the viewer is."""
        if self.wish.uuid is not None:
            events = {uuid: text for uuid, text in events.items() if uuid == self.wish.uuid}
        if self.wish.clients and events:
            self._clients |= events
            self._filled.set()

    def lose(self, logs: int, clients: bool) -> None:
        """Something was passed over for all: of how much this viewer would have wanted nobody knows."""
        if self.wish.logs and logs:
            self._dropped += logs
            self._about = True
        self._clients_dropped |= self.wish.clients and clients
        if self._dropped or self._clients_dropped:
            self._filled.set()

    def close(self) -> None:
        self.closed = True
        self._filled.set()

    def wait(self, seconds: float) -> None:
        self._filled.wait(seconds)
        self._filled.clear()

    def place(self, place: Place) -> str:
        """Where this viewer is when it has all that the hub has read."""
        return place.and_logs_of(self._has_seen).text()

    def drain(self, place: str) -> bytes:
        """All that waits. Clients first and without a place: come again they do no harm, lost they would."""
        parts: list[bytes] = []
        if self._dropped or self._clients_dropped:
            parts.append(dropped_event(self._dropped, self._about, self._clients_dropped))
            self._dropped, self._about, self._clients_dropped = 0, False, False
        parts += self._clients.values()
        parts += self._lines
        self._clients.clear()
        self._lines.clear()
        if parts:
            parts.append(place_event(place))
        return b"".join(parts)
