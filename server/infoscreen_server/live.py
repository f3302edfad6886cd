"""The hub of one web process: reads once what was committed, and hands it to all who watch.

One thread (under gevent a light one), which begins with the first viewer and ends a while after the last one: without
viewers nothing is done. Each event is put into words once. What waits for one viewer is live_viewer's part.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row

from infoscreen_server import live_signal, live_source, queries
from infoscreen_server.db import faults
from infoscreen_server.live_signal import FOLLOW_S, LOOK_EVERY_S
from infoscreen_server.live_source import LOGS, MAX_CLIENTS, STATES, News, Wish
from infoscreen_server.live_viewer import Place, Viewer, dropped_event, event, log_event, place_event
from infoscreen_server.models import Client
from infoscreen_server.tail import Tail, behind, between

log = logging.getLogger(__name__)

MAX_VIEWERS, MAX_OF_ONE = 500, 10
"""Streams at a time, of one process and of one caller."""
PACE_S = 0.05
"""From one look into the database to the next, at least."""
REST_AFTER_S = 10.0
"""Without viewers: who goes from page to page finds the hub awake."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
"""Between two attempts while the database fails."""
LABELS_KEPT_S = 60.0
_PORTION = 20
"""Missed lines that are put into words before the other requests of this process have their turn."""


class FullError(Exception):
    """No further stream is opened; the text says why."""


class Hub:
    def __init__(self, engine: Engine, now: Callable[[], datetime], silence: float) -> None:
        """`silence`: seconds after which a client counts as offline, as in queries."""
        self._engine = engine
        self._now = now
        self._silence = silence
        self._lock = threading.Lock()
        self._viewers: set[Viewer] = set()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._logs = Tail(0, in_order=True)
        self._states = Tail(0, in_order=True)
        self._place = self._here()
        self._left_at = 0.0
        self._labels: dict[str, str] = {}
        self._labels_at = 0.0

    def join(self, owner: str, wish: Wish, has_seen: Place | None = None) -> Viewer:
        """Open a stream. `has_seen`: where it broke off, what was missed since comes first.

        Raises FullError, and the database's errors.
        """
        with self._engine.connect() as connection:
            if has_seen is not None and has_seen.logs.high > live_source.highest(connection):
                has_seen = None  # Of another database: this one was put back, or made anew.
        viewer = Viewer(owner, wish, has_seen)
        with self._lock:
            if self._stop.is_set():
                raise FullError("streams: the server is stopping")
            self._make_room(owner)
            if self._thread is None:
                self._begin()
            here = self._here()
            self._viewers.add(viewer)
        if has_seen is not None:
            try:
                viewer.opening = self._missed(wish, has_seen, here)
            except BaseException:
                self.leave(viewer)
                raise
        viewer.opening.append(place_event(here.and_logs_of(has_seen).text()))
        return viewer

    def leave(self, viewer: Viewer) -> None:
        with self._lock:
            self._viewers.discard(viewer)
            self._left_at = time.monotonic()

    def take(self, viewer: Viewer, seconds: float) -> tuple[bytes, str]:
        """What is there for a viewer within so many seconds, if anything, and where that leaves it."""
        viewer.wait(seconds)
        with self._lock:
            place = viewer.place(self._place)
            return viewer.drain(place), place

    @property
    def watched(self) -> int:
        """How many streams are open."""
        return len(self._viewers)

    def close(self) -> None:
        """End all streams, for good."""
        self._stop.set()
        with self._lock:
            for viewer in self._viewers:
                viewer.close()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * LOOK_EVERY_S)

    def _make_room(self, owner: str) -> None:
        """Streams whose browser has left count for nothing: whoever goes from page to page leaves many behind."""
        if len(self._viewers) >= MAX_VIEWERS or self._number_of(owner) >= MAX_OF_ONE:
            for viewer in [each for each in self._viewers if each.is_gone()]:
                viewer.close()
                self._viewers.discard(viewer)
        if self._number_of(owner) >= MAX_OF_ONE:
            raise FullError(f"streams: {MAX_OF_ONE} of yours are open, which is the most for one caller")
        if len(self._viewers) >= MAX_VIEWERS:
            raise FullError(f"streams: {MAX_VIEWERS} are open, which is the most for one server process")

    def _number_of(self, owner: str) -> int:
        return sum(each.owner == owner for each in self._viewers)

    def _here(self) -> Place:
        return Place(self._logs.position, self._states.position)

    def _begin(self) -> None:
        now = time.monotonic()
        with self._engine.connect() as connection:
            self._logs = live_source.begin(connection, LOGS, now)
            self._states = live_source.begin(connection, STATES, now)
        self._place = self._here()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)
        self._thread.start()

    def _missed(self, wish: Wish, then: Place, here: Place) -> list[bytes]:
        events: list[bytes] = []
        spans = between(then.logs, here.logs) if wish.logs else []
        with self._engine.connect() as connection:
            missed = live_source.missed_logs(connection, spans, wish)
            changed: Sequence[str] | None = []
            if wish.clients:
                changed = live_source.missed_clients(connection, between(then.states, here.states), wish.uuid)
            if missed.more or changed is None:
                events.append(dropped_event(missed.more, True, changed is None))
            events += self._client_events(connection, changed or []).values()
            labels = live_source.labels(connection, {row.client_uuid for row in missed.rows})
        for number, row in enumerate(missed.rows, 1):
            # Still as if no state had been told: those come again if it breaks off within.
            place = Place(behind(here.logs, spans, row.id), then.states).and_logs_of(then)
            events.append(log_event(row, labels.get(row.client_uuid, row.client_uuid), place.text()))
            if number % _PORTION == 0:
                time.sleep(0)  # As in live_source.missed_logs.
        return events

    # --- the thread ---

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._may_rest():
            try:
                waker = live_signal.open_waker(self._engine)
                try:
                    self._look()
                    pause = FIRST_PAUSE_S
                    self._watch(waker)
                finally:
                    waker.close()
            except faults(self._engine) as error:
                log.error("live view, again in %.1f s: %s", pause, str(error).partition("\n")[0])
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            except Exception:
                # Whatever it was: those who watch are to have their view again.
                log.exception("live view, again in %.1f s", pause)
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _may_rest(self) -> bool:
        with self._lock:
            idle = not self._viewers and time.monotonic() - self._left_at >= REST_AFTER_S
            if idle or self._stop.is_set():
                self._thread = None
                return True
            return False

    def _watch(self, waker: live_signal.Waker) -> None:
        soon = False
        while not self._stop.is_set():
            self._stop.wait(PACE_S)
            told = waker.wait(FOLLOW_S if soon else LOOK_EVERY_S, self._stop)
            if not self._viewers and time.monotonic() - self._left_at >= REST_AFTER_S:
                return
            # What was committed so soon after an announcement that it was not announced is there at the next look.
            soon = self._look() or told

    def _look(self) -> bool:
        """Read what is new and hand it out; whether there is more to come in a moment."""
        now = time.monotonic()
        with self._engine.connect() as connection:
            states = live_source.news(connection, STATES, self._states, now)
            uuids = {row.client_uuid for row in states.rows}
            told = self._client_events(connection, sorted(uuids)) if len(uuids) <= MAX_CLIENTS else {}
            logs = live_source.news(connection, LOGS, self._logs, now)
            self._learn_labels(connection, logs, now)
        with self._lock:
            self._note_states(states, told, len(uuids) > MAX_CLIENTS, now)
            self._note_logs(logs, now)
            self._place = self._here()
        return states.held or logs.held

    def _note_states(self, states: News, told: dict[str, bytes], too_many: bool, now: float) -> None:
        skipped = self._states.skip(states.skipped_to)
        for row in states.rows:
            self._states.see(row.id, now)
        self._states.forget(now)
        skipped += self._states.given_up
        self._states.given_up = 0
        if not (told or too_many or skipped):
            return
        for viewer in self._viewers:
            viewer.put_clients(told)
            viewer.lose(0, bool(too_many or skipped))

    def _note_logs(self, logs: News, now: float) -> None:
        skipped = self._logs.skip(logs.skipped_to)
        states = self._states.position
        rows = [(row, Place(self._logs.position, states).text()) for row in logs.rows if self._logs.see(row.id, now)]
        self._logs.forget(now)
        skipped += self._logs.given_up
        self._logs.given_up = 0
        here = self._here()
        lines: dict[int, bytes] = {}
        wanted: dict[Wish, list[tuple[int, bytes]]] = {}
        for viewer in self._viewers:
            if viewer.wish not in wanted:
                wanted[viewer.wish] = self._matching(viewer.wish, rows, lines)
            if skipped:
                viewer.lose(skipped, False)
            viewer.put(wanted[viewer.wish], here)

    def _client_events(self, connection: Connection, uuids: Sequence[str]) -> dict[str, bytes]:
        if not uuids:
            return {}
        of_these = Client.uuid.in_(uuids)
        found = queries.clients_page(connection, len(uuids), None, self._now(), self._silence, of_these)
        return {client["uuid"]: event("client", client) for client in found}

    def _matching(
        self, wish: Wish, rows: Sequence[tuple[Row[Any], str]], lines: dict[int, bytes]
    ) -> list[tuple[int, bytes]]:
        """The events of the rows that are wanted; `lines` has those that are in words already."""
        matches = wish.filter()
        found = []
        for row, place in rows:
            if matches(row):
                line = lines.get(row.id)
                if line is None:
                    label = self._labels.get(row.client_uuid, row.client_uuid)
                    line = lines[row.id] = log_event(row, label, place)
                found.append((row.id, line))
        return found

    def _learn_labels(self, connection: Connection, logs: News, now: float) -> None:
        """What the clients of these rows are called; asked anew after a while, since people give names."""
        if now - self._labels_at >= LABELS_KEPT_S:
            self._labels.clear()
            self._labels_at = now
        unknown = {row.client_uuid for row in logs.rows} - self._labels.keys()
        self._labels |= live_source.labels(connection, unknown)
