"""The outbox at its bound, on a full disk, in a read-only folder: records go on, and every loss is a record."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infoscreen_device import bounds, keeper
from infoscreen_device.backlog import Backlog
from infoscreen_device.core.model import Draft
from infoscreen_device.records import Stamp
from infoscreen_device.settings import OutboxConfig
from infoscreen_shared.messages import Ack, LogLevel

START = datetime(2026, 1, 1, tzinfo=UTC)
NEVER = dict.fromkeys(LogLevel, 1000.0)


def stamp(now: float) -> Stamp:
    return Stamp(START + timedelta(seconds=now), now, True)


def open_backlog(folder: Path, max_bytes: int = 2**22, now: float = 100.0) -> Backlog:
    return Backlog(folder / "outbox.db", OutboxConfig(max_bytes=max_bytes, deadline_s=NEVER), "boot", stamp(now))


def add(backlog: Backlog, level: LogLevel, count: int, now: float = 100.0, size: int = 200) -> None:
    for _ in range(count):
        backlog.append(Draft(level, "x.y", os.urandom(size // 2).hex()), stamp(now))


def take(backlog: Backlog, now: float = 100.0) -> dict[tuple[str, LogLevel], list[int]]:
    """Drain as a server would; the numbers that came, by lane."""
    came: dict[tuple[str, LogLevel], list[int]] = {}
    for _ in range(2000):
        batch = backlog.next_batch(now, set(backlog.held.epochs))
        if batch is None:
            if not backlog.pending():
                return came
            continue
        numbers = [record["seq"] for record in json.loads(batch.payload)["records"]]
        came.setdefault((batch.epoch, batch.level), []).extend(numbers)
        backlog.on_ack(Ack(batch.epoch, {batch.level: batch.last}), now)
    raise AssertionError(f"{backlog.pending()} records do not come out")


def codes(backlog: Backlog) -> list[str | None]:
    return [draft.code for draft in backlog.keeper.incidents]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("size", [300, 640, 1100, 2000, 9000])
def test_the_bound_is_that_of_the_file_whatever_the_records_size(tmp_path: Path, size: int) -> None:
    """Some sizes leave half of each page free: it is pages that fill a disk, and a full file takes no records."""
    bound = 2**19
    backlog = open_backlog(tmp_path, max_bytes=bound)
    for number in range(3 * bound // size):
        add(backlog, LogLevel.ERROR, 1, now=100.0 + number, size=size)
        backlog.keeper.commit(100.0 + number)
    assert backlog.keeper.trouble is None
    assert (tmp_path / "outbox.db").stat().st_size <= bound * 1.1
    kept = sum(len(numbers) for numbers in take(backlog).values())
    assert kept * size > bound / 4, "what is kept is in proportion to the bound"
    backlog.keeper.drop_file()


def test_more_than_the_bound_at_once(tmp_path: Path) -> None:
    """As after a long time on a full disk: the newest part is stored, the rest is told of."""
    backlog = open_backlog(tmp_path, max_bytes=2**17)
    add(backlog, LogLevel.INFO, 1500, size=1000)
    backlog.keeper.commit(100.0)
    assert backlog.keeper.trouble is None
    assert codes(backlog) == ["buffer.dropped"]
    (lane,) = take(backlog).values()
    assert lane[-1] == 1500
    assert lane == list(range(lane[0], 1501))
    backlog.keeper.drop_file()


def test_the_oldest_is_one_that_the_server_does_not_have(tmp_path: Path) -> None:
    """Acknowledged ones stay in the file for a moment."""
    backlog = open_backlog(tmp_path)
    for hour in range(6):
        add(backlog, LogLevel.INFO, 10, 100.0 + 3600 * hour)
        backlog.keeper.flush(100.0 + 3600 * hour, everything=True)
    now = 100.0 + 3600 * 48
    add(backlog, LogLevel.INFO, 1, now - 5)
    steps: list[tuple[int, int | None]] = [(0, 0), (5, 0), (10, 1), (25, 2), (30, 3), (60, None)]
    for acked, first in steps:
        while (batch := backlog.next_batch(now, set(backlog.held.epochs))) is not None and batch.last < acked:
            pass
        backlog.on_ack(Ack(next(iter(backlog.held.epochs)), {LogLevel.INFO: acked}), now)
        born = now - 5 if first is None else 100.0 + 3600 * first
        assert backlog.pending() == 61 - acked
        assert backlog.oldest() == START + timedelta(seconds=born)
    backlog.on_ack(Ack(next(iter(backlog.held.epochs)), {LogLevel.INFO: 61}), now)
    assert backlog.oldest() is None


def test_what_was_acknowledged_before_it_came_to_the_file_has_its_number_there_too(tmp_path: Path) -> None:
    """The power may fail then: a lane that ends before it begins is refused by the server, and holds all others up."""
    backlog = open_backlog(tmp_path)
    add(backlog, LogLevel.INFO, 2)
    backlog.keeper.flush(100.0, everything=True)
    add(backlog, LogLevel.INFO, 3)
    while (batch := backlog.next_batch(100.0, set(backlog.held.epochs))) is not None:
        backlog.on_ack(Ack(batch.epoch, {batch.level: batch.last}), 100.0)
    add(backlog, LogLevel.ERROR, 1)
    assert backlog.keeper.file is not None
    backlog.keeper.flush(102.0, everything=True)
    for extent in backlog.keeper.file.extents():
        assert extent.base < extent.next
    assert {extent.base for extent in backlog.keeper.file.extents() if extent.level is LogLevel.INFO} == {5}


def test_eviction_takes_the_oldest_of_the_lowest_level_and_says_so(tmp_path: Path) -> None:
    backlog = open_backlog(tmp_path, max_bytes=40_000)
    add(backlog, LogLevel.ERROR, 50)
    backlog.keeper.flush(100.0, everything=True)
    for _ in range(30):
        add(backlog, LogLevel.INFO, 20)
        backlog.keeper.flush(100.0, everything=True)
    assert set(codes(backlog)) == {"buffer.dropped"}
    dropped = [draft.context for draft in backlog.keeper.incidents]
    assert {context["level"] for context in dropped} == {"INFO"}
    came = take(backlog)
    epoch = backlog.held.current.epoch
    assert came[epoch, LogLevel.ERROR] == list(range(1, 51))
    kept = came[epoch, LogLevel.INFO]
    assert kept == list(range(kept[0], 601))
    assert sum(context["count"] for context in dropped) + len(kept) == 600
    assert (tmp_path / "outbox.db").stat().st_size < 40_000 * 2
    backlog.keeper.drop_file()


def test_old_records_go_by_age(tmp_path: Path) -> None:
    backlog = open_backlog(tmp_path)
    backlog.keeper.config = OutboxConfig(max_age_s=3600.0, deadline_s=NEVER)
    add(backlog, LogLevel.INFO, 5, now=100.0)
    backlog.keeper.flush(100.0, everything=True)
    add(backlog, LogLevel.INFO, 5, now=4000.0)
    backlog.keeper.flush(4000.0, everything=True)
    backlog.keeper.evict_aged(stamp(5000.0).utc, 5000.0)
    assert [draft.context["reason"] for draft in backlog.keeper.incidents] == ["age"]
    assert take(backlog)[backlog.held.current.epoch, LogLevel.INFO] == [6, 7, 8, 9, 10]
    backlog.keeper.drop_file()


def test_a_full_disk_is_survived_and_what_is_on_it_is_still_sent(small_disk: Path) -> None:
    backlog = open_backlog(small_disk)
    filler = small_disk / "filler"
    add(backlog, LogLevel.ERROR, 50)
    backlog.keeper.flush(100.0, everything=True)
    try:
        with filler.open("wb") as file:
            while True:
                file.write(bytes(1024))
                file.flush()
    except OSError:
        pass
    now = 100.0
    for _ in range(60):
        now += 10
        add(backlog, LogLevel.ERROR, 60, now)
        backlog.keeper.flush(now, everything=True)
    assert backlog.keeper.trouble is not None
    assert codes(backlog) == ["outbox.unwritable"]
    filler.unlink()
    now += keeper.RETRY_CAP_S
    backlog.keeper.flush(now, everything=True)
    assert backlog.keeper.trouble is None
    assert codes(backlog) == ["outbox.unwritable", "outbox.recovered"]
    assert take(backlog, now)[backlog.held.current.epoch, LogLevel.ERROR] == list(range(1, 3651))
    backlog.keeper.drop_file()


def test_a_full_disk_does_not_stop_delivery(small_disk: Path) -> None:
    backlog = open_backlog(small_disk)
    add(backlog, LogLevel.INFO, 100)
    backlog.keeper.flush(100.0, everything=True)
    (small_disk / "filler").write_bytes(bytes(100_000))
    with pytest.raises(OSError, match="No space"), (small_disk / "more").open("wb", buffering=0) as file:
        while True:
            if file.write(bytes(4096)) < 4096:
                file.write(bytes(4096))
    add(backlog, LogLevel.INFO, 400)
    backlog.keeper.flush(100.0, everything=True)
    assert take(backlog)[backlog.held.current.epoch, LogLevel.INFO] == list(range(1, 501))
    backlog.keeper.drop_file()


def test_memory_is_bounded_while_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MEMORY_BYTES", 50_000)
    backlog = open_backlog(tmp_path / "missing" / "folder")
    assert backlog.keeper.trouble is not None
    add(backlog, LogLevel.ERROR, 20)
    add(backlog, LogLevel.INFO, 400)
    assert sum(lane.tail_bytes for lane in backlog.held.lanes.values()) <= 50_000
    dropped = sum(draft.context["count"] for draft in backlog.keeper.incidents if draft.code == "buffer.dropped")
    came = take(backlog)
    assert came[backlog.held.current.epoch, LogLevel.ERROR] == list(range(1, 21))
    kept = came[backlog.held.current.epoch, LogLevel.INFO]
    assert kept == list(range(401 - len(kept), 401))
    assert dropped + len(kept) == 400


def test_a_folder_that_appears_later_is_used(tmp_path: Path) -> None:
    backlog = open_backlog(tmp_path / "later")
    add(backlog, LogLevel.ERROR, 3)
    backlog.keeper.flush(100.0, everything=True)
    assert codes(backlog) == ["outbox.unwritable"]
    (tmp_path / "later").mkdir()
    backlog.keeper.flush(200.0, everything=True)
    assert codes(backlog) == ["outbox.unwritable", "outbox.recovered"]
    backlog.keeper.drop_file()
    again = open_backlog(tmp_path / "later")
    assert again.pending() == 3
    again.keeper.drop_file()


def test_a_read_only_card(tmp_path: Path) -> None:
    """ext4 mounts a failing card read-only: records go on in memory, and what is on the card waits for its return."""
    folder = tmp_path / "card"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        backlog = open_backlog(folder)
        add(backlog, LogLevel.INFO, 10)
        backlog.keeper.close(100.0)
        before = backlog.held.current.epoch
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        backlog = open_backlog(folder)
        assert codes(backlog) == ["outbox.unwritable"]
        add(backlog, LogLevel.INFO, 7)
        assert take(backlog) == {(backlog.held.current.epoch, LogLevel.INFO): list(range(1, 8))}
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        add(backlog, LogLevel.INFO, 1)
        backlog.keeper.flush(200.0, everything=True)
        assert backlog.keeper.trouble is None
        assert take(backlog)[before, LogLevel.INFO] == list(range(1, 11))
        backlog.keeper.drop_file()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
