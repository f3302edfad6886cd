"""kill -9 of agent, broker and ingest in seeded random order: what was on the card arrives once and in order."""

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from parts.broker import Broker
from parts.server import COMMAND, Server
from parts.wait import wait_for

SEED = int(os.environ.get("INFOSCREEN_SEED", "2026"))
KILLS = int(os.environ.get("INFOSCREEN_KILLS", "60"))
UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"


class Kiosk:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.journal = folder / "journal"
        self.journal.touch()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, feeding: bool = True) -> None:
        first = str(self.last("i") + 1 if feeding else 0)
        command = [sys.executable, str(FEEDER), str(self.folder / "state"), str(self.port), UUID]
        with (self.folder / "kiosk.log").open("ab") as log:
            self.process = subprocess.Popen([*command, str(self.journal), first], stdout=log, stderr=log)

    def last(self, kind: str) -> int:
        lines = self.journal.read_text().splitlines()
        return max((int(line[2:]) for line in lines if line.startswith(kind + " ") and line[2:].isdigit()), default=0)

    def durable(self) -> set[int]:
        """All numbers that some run knew to be on the card; what was younger when it was killed may be lost."""
        known: set[int] = set()
        first = 0
        for line in self.journal.read_text().splitlines():
            kind, number = line.split()
            if kind == "s":
                first = int(number)
            elif kind == "d":
                known.update(range(max(first, max(known, default=0) + 1), int(number) + 1))
        return known

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


FEEDER = Path(__file__).parents[1] / "parts/feeder.py"


def rows(database: Path, sql: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(database) as db:
        found = db.execute(sql).fetchall()
    db.close()
    return found


def start_ingest(server: Server) -> "subprocess.Popen[bytes]":
    with server.log.open("ab") as log:
        command = [*COMMAND, "ingest", "--config", str(server.config)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=server.environment)


@pytest.mark.timeout(300)
def test_kills_in_random_order(tmp_path: Path, broker: Broker) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    database = tmp_path / "server.db"
    kiosk = Kiosk(tmp_path, broker.port)
    server = Server(tmp_path, f"sqlite:///{database}", broker.url)
    server.call("migrate")
    ingest = start_ingest(server)
    try:
        kiosk.start()
        for _ in range(KILLS):
            target = rng.choice(["agent", "broker", "ingest"])
            goal = kiosk.last("i") + rng.randrange(1, 60)
            wait_for(lambda goal=goal: kiosk.last("i") >= goal, "the kiosk issues records")  # type: ignore[misc]
            if target == "agent":
                kiosk.kill()
                kiosk.start()
            elif target == "broker":
                broker.kill()
                if rng.random() < 0.5:
                    broker.wipe()
                broker.start()
            else:
                ingest.kill()
                ingest.wait()
                ingest = start_ingest(server)
        kiosk.kill()
        durable = kiosk.durable()
        kiosk.start(feeding=False)
        assert kiosk.process is not None
        wait_for(lambda: kiosk.process is not None and kiosk.process.poll() == 0, "everything is acknowledged", 90)
    finally:
        ingest.kill()
        ingest.wait()
        if kiosk.process is not None:
            kiosk.kill()
    stored = [str(row[0]) for row in rows(database, "SELECT message FROM client_logs WHERE code = 'x.y'")]
    assert len(stored) == len(set(stored)), "doubled"
    missing = {f"ERROR {number}" for number in durable} - set(stored)
    assert not missing, f"{len(missing)} of {len(durable)} lost, seed {SEED}: {sorted(missing)[:5]}"
    accounts = rows(database, "SELECT cursor, stored + unwanted + dead, gap FROM lanes")
    assert all(cursor == kept and not gap for cursor, kept, gap in accounts)
    for (lane,) in rows(database, "SELECT id FROM lanes"):
        ours = f"SELECT seq, message FROM client_logs WHERE lane_id = {lane} ORDER BY id"
        found = rows(database, ours)
        numbers = [row[0] for row in found]
        assert numbers == list(range(1, len(numbers) + 1)), "out of order"
        issued = [int(str(row[1]).split()[1]) for row in found if str(row[1]).split()[0] in ("ERROR", "INFO")]
        assert issued == sorted(issued)
    assert len(durable) > KILLS
