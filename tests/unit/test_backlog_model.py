"""The outbox and the cursor rule against a small model: whatever happens, each record arrives once and in order.

The real Backlog on a real SQLite file talks to a server of thirty lines; Hypothesis cuts, doubles, delays, crashes,
evicts, restores old cards, clones them and loses the server's database.
"""

import json
import shutil
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from infoscreen_device.backlog import Backlog, Batch
from infoscreen_device.core.model import Draft
from infoscreen_device.outbox import LEVELS
from infoscreen_device.records import Stamp
from infoscreen_device.settings import OutboxConfig
from infoscreen_shared.messages import DEFAULT_WANTED, Ack, Hello, LogLevel

Key = tuple[str, LogLevel]
START = datetime(2026, 1, 1, tzinfo=UTC)


class ModelServer:
    """The cursor rule of DESIGN section 4, and what it has stored."""

    def __init__(self) -> None:
        self.cursor: dict[Key, int] = defaultdict(int)
        self.gaps: dict[Key, list[tuple[int, int]]] = defaultdict(list)
        self.rows: dict[Key, list[tuple[int, str]]] = defaultdict(list)

    def _skip(self, key: Key, up_to: int) -> None:
        if up_to > self.cursor[key]:
            self.gaps[key].append((self.cursor[key] + 1, up_to))
            self.cursor[key] = up_to

    def hello(self, hello: Hello) -> Ack:
        for level, span in hello.lanes.items():
            self._skip((hello.epoch, level), span.base)
        lanes = {level: self.cursor[hello.epoch, level] for level in hello.lanes}
        return Ack(hello.epoch, lanes, dict(DEFAULT_WANTED))

    def batch(self, batch: Batch) -> Ack:
        key = (batch.epoch, batch.level)
        body = json.loads(batch.payload)
        if batch.first > self.cursor[key] + 1 and body["base"] >= batch.first - 1:
            self._skip(key, batch.first - 1)
        if batch.first <= self.cursor[key] + 1:
            for record in body["records"]:
                if record["seq"] > self.cursor[key]:
                    self.rows[key].append((record["seq"], record["message"]))
                    self.cursor[key] = record["seq"]
        return Ack(batch.epoch, {batch.level: self.cursor[key]})


class Card:
    """A kiosk's SD card with an agent running on it."""

    def __init__(self, folder: Path, now: float, max_bytes: int, durable: set[str]) -> None:
        self.folder = folder
        self.durable = set(durable)
        """The texts of the records that were committed to this card."""
        self.max_bytes = max_bytes
        self.boot(now)

    def boot(self, now: float) -> None:
        config = OutboxConfig(max_bytes=self.max_bytes, deadline_s=dict.fromkeys(LEVELS, 1000.0))
        self.backlog = Backlog(self.folder / "outbox.db", config, "boot", Stamp(START, now, True))
        self.greeted: set[str] = set()
        self.down: list[Ack] = []
        self.up: list[Hello | Batch] = []

    def crash(self, now: float) -> None:
        """kill -9: what was not committed is gone."""
        self.backlog.keeper.drop_file()
        self.boot(now)


class Delivery(RuleBasedStateMachine):
    cards = Bundle("cards")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="outbox-model-"))
        self.server = ModelServer()
        self.lost_servers: list[ModelServer] = []
        self.now = 1000.0
        self.serial = 0
        self.names = 0
        self.card = self._new_card(None)
        self.others: list[Card] = []
        self.issued: dict[str, Key] = {}
        self.evicting = False
        self.snapshot: Path | None = None
        self.on_image: set[str] = set()

    def teardown(self) -> None:
        for card in [self.card, *self.others]:
            card.backlog.keeper.drop_file()
        shutil.rmtree(self.root)

    def _new_card(self, source: Path | None) -> Card:
        self.names += 1
        folder = self.root / str(self.names)
        folder.mkdir()
        if source is not None:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        return Card(folder, self.now, 2**20, self.on_image if source else set())

    # --- the kiosk ---

    @rule(level=st.sampled_from(LEVELS), many=st.integers(1, 40))
    def append(self, level: LogLevel, many: int) -> None:
        for _ in range(many):
            self.serial += 1
            text = f"record {self.serial}"
            self.issued[text] = (self.card.backlog.held.current.epoch, level)
            self.card.backlog.append(Draft(level, "x.y", text), Stamp(START, self.now, True))

    @rule()
    def flush(self) -> None:
        backlog = self.card.backlog
        waiting = [json.loads(r)["message"] for lane in backlog.held.lanes.values() for r, _ in lane.tail]
        backlog.keeper.flush(self.now, everything=True)
        assert backlog.keeper.trouble is None
        self.card.durable.update(waiting)

    @rule()
    def crash(self) -> None:
        self.card.crash(self.now)

    @rule()
    def clean_restart(self) -> None:
        self.flush()
        self.card.backlog.keeper.close(self.now)
        self.card.boot(self.now)

    @rule()
    def reconnect(self) -> None:
        """The connection breaks: what was on its way either way is lost."""
        self.card.up.clear()
        self.card.down.clear()
        self.card.greeted.clear()
        self.card.backlog.go_back()
        self.card.up += self.card.backlog.hellos("test")

    @rule(many=st.integers(1, 5))
    def send(self, many: int) -> None:
        for _ in range(many):
            batch = self.card.backlog.next_batch(self.now, self.card.greeted)
            if batch is not None:
                self.card.up.append(batch)

    @rule(limit=st.integers(200, 3000))
    def evict(self, limit: int) -> None:
        """The bound is reached: the oldest of the lowest level goes."""
        backlog = self.card.backlog
        backlog.keeper.config = OutboxConfig(max_bytes=limit, deadline_s=backlog.keeper.config.deadline_s)
        self.flush()
        backlog.keeper.config = OutboxConfig(max_bytes=2**20, deadline_s=backlog.keeper.config.deadline_s)
        for draft in backlog.keeper.incidents:
            assert draft.code == "buffer.dropped"
            self.evicting = True
        backlog.keeper.incidents.clear()

    # --- the wire: in order and whole, but it may lose, double and delay ---

    @rule(position=st.integers(0, 3))
    def lose(self, position: int) -> None:
        if position < len(self.card.up):
            del self.card.up[position]

    @rule(position=st.integers(0, 3))
    def double(self, position: int) -> None:
        if position < len(self.card.up):
            self.card.up.insert(position, self.card.up[position])

    @rule()
    @precondition(lambda self: len(self.card.up) > 1)
    def reorder(self) -> None:
        self.card.up[0], self.card.up[1] = self.card.up[1], self.card.up[0]

    @rule(many=st.integers(1, 5))
    def serve(self, many: int) -> None:
        for _ in range(min(many, len(self.card.up))):
            message = self.card.up.pop(0)
            ack = self.server.hello(message) if isinstance(message, Hello) else self.server.batch(message)
            self.card.down.append(ack)

    @rule()
    def lose_ack(self) -> None:
        del self.card.down[:1]

    @rule()
    def answer(self) -> None:
        while self.card.down:
            ack = self.card.down.pop(0)
            fits = self.card.backlog.on_ack(ack, self.now)
            if ack.wanted is not None:
                self.card.greeted.add(ack.epoch)
            if not fits:
                self.reconnect()

    # --- people ---

    @rule()
    def take_image(self) -> None:
        """Someone copies the card of the stopped kiosk."""
        self.clean_restart()
        self.snapshot = self.root / f"image{self.serial}-{self.names}-{len(self.others)}"
        shutil.rmtree(self.snapshot, ignore_errors=True)
        self.card.backlog.keeper.close(self.now)
        self.on_image = set(self.card.durable)
        shutil.copytree(self.card.folder, self.snapshot)
        self.card.boot(self.now)

    @rule()
    @precondition(lambda self: self.snapshot is not None)
    def restore_image(self) -> None:
        """The old card is put back: what came after is gone from it."""
        self.flush()
        self.card.backlog.keeper.drop_file()
        self.card = self._new_card(self.snapshot)

    @rule()
    @precondition(lambda self: self.snapshot is not None and len(self.others) < 2)
    def clone(self) -> None:
        """A second kiosk is made from the image, same uuid and all; both go on."""
        self.others.append(self._new_card(self.snapshot))

    @rule()
    @precondition(lambda self: bool(self.others))
    def switch(self) -> None:
        self.others.append(self.card)
        self.card = self.others.pop(0)

    @rule()
    def lose_server(self) -> None:
        """The server's database is gone; what it had is not asked for again."""
        self.lost_servers.append(self.server)
        self.server = ModelServer()

    # --- what must hold ---

    @invariant()
    def nothing_is_doubled_or_out_of_order(self) -> None:
        for server in [self.server, *self.lost_servers]:
            texts = [text for rows in server.rows.values() for _, text in rows]
            assert len(texts) == len(set(texts))
            for rows in server.rows.values():
                assert [seq for seq, _ in rows] == sorted({seq for seq, _ in rows})

    @invariant()
    def every_number_is_accounted_for(self) -> None:
        for key, cursor in self.server.cursor.items():
            gaps = sum(last - first + 1 for first, last in self.server.gaps[key])
            assert len(self.server.rows[key]) + gaps == cursor

    @rule()
    def in_the_end_everything_durable_is_there(self) -> None:
        """The network heals: all cards drain, and what was on disk is stored unless a bound took it."""
        self.flush()
        durable: set[str] = set()
        for _ in range(1 + len(self.others)):
            for _round in range(400):
                if not self.card.backlog.pending() and not self.card.backlog.undeclared():
                    break
                if not self.card.up and not self.card.down:
                    batch = self.card.backlog.next_batch(self.now, self.card.greeted)
                    if batch is None:
                        self.reconnect()
                    else:
                        self.card.up.append(batch)
                self.serve(5)
                self.answer()
            assert not self.card.backlog.pending()
            durable |= self.card.durable
            if self.others:
                self.switch()
        if not self.evicting:
            stored = {
                text
                for server in [self.server, *self.lost_servers]
                for rows in server.rows.values()
                for _, text in rows
            }
            assert durable <= stored


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
