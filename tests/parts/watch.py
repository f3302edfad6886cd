"""A fleet with alerts: the time in the test's hand, what kiosks say by real ingest, rounds of evaluation."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, update

from infoscreen_server import db, housekeeping
from infoscreen_server.alerts import evaluate
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import writing
from infoscreen_server.ledger import Arrival
from infoscreen_server.models import Client, ClientTag
from infoscreen_server.models_alerts import AlertChannel, AlertRule, AlertSilence, OpeningHours
from infoscreen_server.store import ingest
from infoscreen_shared.messages import Heartbeat, LogLevel, ProcessStatus, ScreenHealthStatus, timestamp_text
from parts.fleet import ALL, NOW, Fleet, of_items, uuid_of

MINUTE = timedelta(minutes=1)
STEP = timedelta(seconds=10)
LONG = timedelta(seconds=30)
"""Between rounds where much time has to go by: still often enough for all to count as there."""


class Watch(Fleet):
    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url)
        self.config = ServerConfig(database_url=url, heartbeat_seconds=15, **settings)
        self.now = NOW
        self.alive: dict[str, ScreenHealthStatus] = {}
        self.crashed: set[str] = set()
        """Whose player does not run."""
        self.seqs: dict[str, int] = {}
        self.channel("ops")

    def __enter__(self) -> "Watch":
        return self

    def turn(self, span: timedelta, every: timedelta = STEP) -> None:
        """Let time go by: heartbeats of the living, then a round, again and again."""
        end = self.now + span
        while self.now < end:
            self.now += every
            self.beat()
            evaluate.round(self.engine, self.config, self.now)

    def beat(self) -> None:
        said = [Arrival(uuid, self._heartbeat(uuid, status)) for uuid, status in self.alive.items()]
        if said:
            ingest(self.engine, said, self.now, ALL, "mqtt")

    def _heartbeat(self, uuid: str, status: ScreenHealthStatus) -> Heartbeat:
        process = ProcessStatus.CRASHED if uuid in self.crashed else ProcessStatus.RUNNING
        return Heartbeat("", self.now, "vlc", 1, process, 1, status, 0, None, "1")

    def restart(self) -> None:
        """Nothing is left but what the database has."""
        self.engine.dispose()
        self.engine = db.make_engine(self.url)

    def start(self, *numbers: int, site: str | None = None, tag: str | None = None) -> None:
        uuids = [uuid_of(number) for number in numbers]
        self.show(ScreenHealthStatus.OK, *numbers)
        self.turn(STEP)
        with writing(self.engine) as connection:
            for number, uuid in zip(numbers, uuids, strict=True):
                connection.execute(
                    update(Client).where(Client.uuid == uuid).values(name=f"Screen {number}", location=site)
                )
                if tag:
                    connection.execute(insert(ClientTag).values(client_uuid=uuid, tag=tag))
        self.turn(MINUTE)

    def show(self, status: ScreenHealthStatus, *numbers: int) -> None:
        self.alive.update(dict.fromkeys(map(uuid_of, numbers), status))

    def lose(self, *numbers: int) -> None:
        for number in numbers:
            del self.alive[uuid_of(number)]

    def record(self, number: int, level: LogLevel, code: str, count: int = 1) -> None:
        uuid = uuid_of(number)
        for _ in range(count):
            seq = self.seqs[f"{uuid} {level}"] = self.seqs.get(f"{uuid} {level}", 0) + 1
            item = {"timestamp": timestamp_text(self.now), "message": code, "context": {}, "seq": seq, "code": code}
            ingest(self.engine, [Arrival(uuid, of_items([item], level=level))], self.now, ALL, "mqtt")

    # --- what people set ----------------------------------------------------------------------------------------------

    def channel(self, name: str) -> None:
        with writing(self.engine) as connection:
            connection.execute(insert(AlertChannel).values(name=name, url="json://ops.example", created_at=NOW))

    def rule(self, kind: str, **values: Any) -> None:
        with writing(self.engine) as connection:
            connection.execute(update(AlertRule).where(AlertRule.kind == kind).values(**values))

    def silence(self, scope: str, target: str, span: timedelta) -> None:
        values = {"starts_at": self.now, "ends_at": self.now + span, "note": "", "by": "anna", "created_at": NOW}
        with writing(self.engine) as connection:
            connection.execute(insert(AlertSilence).values(scope=scope, target=target, **values))

    def open_daily(self, tag: str, opens: datetime, closes: datetime) -> None:
        week = str([[[opens.hour * 60 + opens.minute, closes.hour * 60 + closes.minute]]] * 7)
        with writing(self.engine) as connection:
            connection.execute(insert(OpeningHours).values(tag=tag, zone="UTC", week=week, closed="[]"))

    # --- what came of it ----------------------------------------------------------------------------------------------

    def titles(self) -> list[str]:
        return self.rows("SELECT title FROM alert_messages ORDER BY id")

    def heads(self) -> list[str]:
        return [title.partition(" ")[0] for title in self.titles()]

    def tidied(self) -> tuple[int, int, int]:
        """Alerts, messages and silences that housekeeping leaves."""
        housekeeping.prune(self.engine, self.config, self.now)
        counts = [self.one(f"SELECT count(*) FROM {name}") for name in ("alerts", "alert_messages", "alert_silences")]
        return int(counts[0]), int(counts[1]), int(counts[2])

    def unsettled(self) -> int:
        return int(self.one("SELECT count(*) FROM alerts WHERE closed_at IS NULL"))
