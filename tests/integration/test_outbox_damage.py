"""A damaged outbox: the agent always starts, sends what is whole, and accounts for what is not."""

import json
import os
import random
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infoscreen_device.backlog import Backlog
from infoscreen_device.core.model import Draft
from infoscreen_device.records import Stamp
from infoscreen_device.settings import OutboxConfig
from infoscreen_shared.messages import Ack, LogLevel

SEED = int(os.environ.get("INFOSCREEN_SEED", "7"))
POSITIONS = int(os.environ.get("INFOSCREEN_DAMAGE_POSITIONS", "400"))
NOW = Stamp(datetime(2026, 1, 1, tzinfo=UTC), 100.0, True)
CONFIG = OutboxConfig(max_bytes=2**20, deadline_s=dict.fromkeys(LogLevel, 1000.0))

Row = tuple[str, LogLevel, int]


def open_backlog(folder: Path) -> Backlog:
    return Backlog(folder / "outbox.db", CONFIG, "boot", NOW)


def fill(folder: Path, copy: Path | None = None) -> set[Row]:
    """Two openings with records in three lanes, big and small segments; `copy`: the files as a kill -9 leaves them."""
    rows: set[Row] = set()
    for opening in range(2):
        backlog = open_backlog(folder)
        for turn in range(15):
            for level in (LogLevel.ERROR, LogLevel.WARN, LogLevel.INFO):
                for _ in range(1 + 40 * (turn == 9)):
                    rows.add(
                        (backlog.held.current.epoch, level, backlog.held.lanes[backlog.held.current.epoch, level].next)
                    )
                    backlog.append(Draft(level, "x.y", f"opening {opening} turn {turn} " + os.urandom(30).hex()), NOW)
            backlog.keeper.flush(100.0, everything=True)
        if opening and copy is not None:
            shutil.copytree(folder, copy)
        backlog.keeper.close(100.0)
    return rows


def drain(backlog: Backlog) -> list[Row]:
    """Take everything out as a server would that acknowledges at once."""
    rows: list[Row] = []
    for _ in range(1000):
        greeted = set(backlog.held.epochs)
        batch = backlog.next_batch(100.0, greeted)
        if batch is None:
            if not backlog.pending():
                break
            continue
        rows += [(batch.epoch, batch.level, record["seq"]) for record in json.loads(batch.payload)["records"]]
        backlog.on_ack(Ack(batch.epoch, {batch.level: batch.last}), 100.0)
    assert not backlog.pending()
    return rows


def open_and_account(folder: Path, original: set[Row]) -> str:
    backlog = open_backlog(folder)
    assert backlog.keeper.trouble is None
    rows = drain(backlog)
    assert len(rows) == len(set(rows)), "doubled"
    own = {row for row in rows if row[0] != backlog.held.current.epoch}
    assert own <= original, "invented"
    for epoch, level in {(epoch, level) for epoch, level, _ in rows}:
        numbers = [seq for e, lane, seq in rows if (e, lane) == (epoch, level)]
        assert numbers == sorted(numbers)
    damage = [draft.context for draft in backlog.keeper.incidents if draft.code == "outbox.damaged"]
    backlog.append(Draft(LogLevel.ERROR, "after.damage", "still working"), NOW)
    backlog.keeper.flush(100.0, everything=True)
    assert backlog.keeper.trouble is None
    backlog.keeper.drop_file()
    lost = len(original) - len(own)
    if not lost:
        return "nothing lost"
    assert damage, f"{lost} records lost without a word"
    said = [lane["lost"] for context in damage for lane in context["lanes"]]
    if not said or None in said:
        return "lost, number unknown"
    assert sum(said) == lost
    return "lost, number exact"


def overwrite(file: Path, position: int) -> None:
    with file.open("r+b") as handle:
        handle.seek(position)
        byte = handle.read(1)[0]
        handle.seek(position)
        handle.write(bytes([byte ^ 0xFF]))


def test_any_byte_overwritten(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    source = tmp_path / "source"
    source.mkdir()
    original = fill(source)
    size = (source / "outbox.db").stat().st_size
    rng = random.Random(SEED)
    header = list(range(0, 200))
    positions = sorted(rng.sample(header, min(60, POSITIONS)) + rng.sample(range(size), min(size, POSITIONS)))
    outcomes: Counter[str] = Counter()
    folder = tmp_path / "damaged"
    for position in positions:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        overwrite(folder / "outbox.db", position)
        try:
            outcomes[open_and_account(folder, original)] += 1
        except AssertionError as error:
            raise AssertionError(f"byte {position} of {size}, seed {SEED}: {error}") from error
    print(dict(outcomes))
    assert outcomes["lost, number unknown"] == 0
    assert outcomes["lost, number exact"] > 0


def test_any_byte_of_the_write_ahead_log_overwritten(tmp_path: Path) -> None:
    """SQLite drops all commits behind a bad frame in silence; we do not."""
    print(f"seed {SEED}")
    source = tmp_path / "source"
    live = tmp_path / "live"
    live.mkdir()
    original = fill(live, source)
    rng = random.Random(SEED)
    size = (source / "outbox.db-wal").stat().st_size
    folder = tmp_path / "damaged"
    silent = 0
    for position in sorted([*range(0, 60, 3), *rng.sample(range(size), POSITIONS // 4)]):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        overwrite(folder / "outbox.db-wal", position)
        backlog = open_backlog(folder)
        rows = {row for row in drain(backlog) if row[0] != backlog.held.current.epoch}
        assert backlog.keeper.trouble is None
        assert rows <= original
        said = any(draft.code == "outbox.damaged" for draft in backlog.keeper.incidents)
        backlog.keeper.drop_file()
        lost = len(original) - len(rows)
        if lost and not said:
            # The last commit only: the same file as after a power cut in the middle of it.
            assert lost <= 3, f"byte {position}: {lost} lost without a word"
            silent += 1
    assert silent < POSITIONS // 10


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float) -> None:
    original = fill(tmp_path)
    file = tmp_path / "outbox.db"
    with file.open("r+b") as handle:
        handle.truncate(int(file.stat().st_size * share))
    open_and_account(tmp_path, original) if share else open_backlog(tmp_path).keeper.drop_file()


def test_overwritten_with_another_file(tmp_path: Path) -> None:
    original = fill(tmp_path)
    (tmp_path / "outbox.db").write_bytes(os.urandom(20_000))
    assert open_and_account(tmp_path, original) == "lost, number unknown"


def test_damage_under_a_running_agent(tmp_path: Path) -> None:
    """The card goes bad while the agent runs: it goes on with a new file."""
    backlog = open_backlog(tmp_path)
    for number in range(100):
        backlog.append(Draft(LogLevel.INFO, "x.y", f"record {number}"), NOW)
    backlog.keeper.flush(100.0, everything=True)
    assert backlog.keeper.file is not None
    backlog.keeper.file._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for position in range(2000, (tmp_path / "outbox.db").stat().st_size, 500):
        overwrite(tmp_path / "outbox.db", position)
    backlog.keeper.file._db.execute("PRAGMA shrink_memory")
    drain(backlog)
    assert [draft.code for draft in backlog.keeper.incidents] == ["outbox.damaged"]
    backlog.keeper.drop_file()
