"""The power goes at any moment: the outbox always opens, and has everything that was committed before.

A real agent's backlog writes its files under strace; every write between two syncs is then dropped, kept or torn, as a
card without power may leave it, and the result is opened again.
"""

import ast
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from infoscreen_device.backlog import Backlog
from infoscreen_device.outbox import LEVELS, read_outbox
from infoscreen_device.records import Stamp
from infoscreen_device.settings import OutboxConfig

SEED = 20260101
SECTOR = 512

WRITER = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from infoscreen_device import outbox
from infoscreen_device.backlog import Backlog
from infoscreen_device.core.model import Draft
from infoscreen_device.records import Stamp
from infoscreen_device.settings import OutboxConfig
from infoscreen_shared.messages import Ack, LogLevel

outbox.CHECKPOINT_PAGES = 40  # so that checkpoints, the dangerous moments, are among the sync points
now = Stamp(datetime(2026, 1, 1, tzinfo=UTC), 100.0, True)
config = OutboxConfig(max_bytes=2**20, deadline_s=dict.fromkeys(LogLevel, 1000.0))
backlog = Backlog(Path(sys.argv[1]), config, "boot", now)
marks = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
serial = 0
for turn in range(40):
    for level in (LogLevel.ERROR, LogLevel.INFO):
        for _ in range(1 + turn % 5):
            serial += 1
            backlog.append(Draft(level, "x.y", f"record {serial} " + "x" * (turn * 7 % 300)), now)
    backlog.keeper.flush(100.0, everything=True)
    assert backlog.keeper.trouble is None and not backlog.keeper.incidents
    lanes = [backlog.held.lanes[backlog.held.current.epoch, level].next - 1 for level in LogLevel]
    os.write(marks, b"durable " + b" ".join(b"%d" % last for last in lanes))
    if turn in (15, 30):
        error = backlog.held.lanes[backlog.held.current.epoch, LogLevel.ERROR]
        upto = error.next - 3
        os.write(marks, b"acked %d" % upto)
        backlog.on_ack(Ack(backlog.held.current.epoch, {LogLevel.ERROR: upto}), 100.0)
os._exit(0)  # no clean close
"""


@dataclass
class Step:
    kind: str  # write, truncate, unlink, sync, mark
    name: str
    offset: int = 0
    data: bytes = b""


FOLDER = "."
CALL = re.compile(r"^(?:\d+\s+)?(\w+)\((.*)\)\s+=\s+(-?\d+)")


def parse_trace(text: str, folder: str) -> Iterator[Step]:
    """The file operations below `folder`, in order, out of strace's lines."""
    names: dict[int, str] = {}
    for line in text.splitlines():
        found = CALL.match(line)
        if not found or int(found[3]) < 0:
            continue
        call, args, result = found[1], found[2], int(found[3])
        if call == "openat":
            path = ast.literal_eval("b" + re.search(r'"(?:\\.|[^"])*"', args)[0]).decode()  # type: ignore[index]
            names[result] = path.removeprefix(folder + "/") if path.startswith(folder + "/") else ""
            if path == folder:
                names[result] = FOLDER
            if "O_TRUNC" in args and names[result]:
                yield Step("truncate", names[result], 0)
        elif call == "unlink":
            path = ast.literal_eval("b" + args).decode()
            yield Step("unlink", path.removeprefix(folder + "/"))
        else:
            fd = int(args.split(",")[0].split(")")[0])
            name = names.get(fd, "")
            if not name:
                continue
            if call in ("pwrite64", "write"):
                data = ast.literal_eval("b" + re.search(r'"(?:\\.|[^"])*"', args)[0])[:result]  # type: ignore[index]
                offset = int(args.rsplit(",", 1)[1]) if call == "pwrite64" else 0
                yield Step("mark" if name == "marks" else "write", name, offset, data)
            elif call == "ftruncate":
                yield Step("truncate", name, int(args.rsplit(",", 1)[1]))
            elif call in ("fdatasync", "fsync"):
                yield Step("sync", name)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    folder = tmp_path_factory.mktemp("traced")
    log = folder.parent / "strace.log"
    calls = "trace=openat,pwrite64,write,ftruncate,fdatasync,fsync,unlink"
    command: list[str | Path] = [
        "strace",
        "-f",
        "-xx",
        "-s",
        "200000",
        "-e",
        calls,
        "-o",
        log,
        sys.executable,
        "-c",
        WRITER,
    ]
    subprocess.run([*command, folder / "outbox.db", folder / "marks"], check=True)
    steps = list(parse_trace(log.read_text(), str(folder)))
    assert sum(step.kind == "sync" for step in steps) > 50
    return steps


def apply(files: dict[str, bytearray], step: Step) -> None:
    if step.kind == "unlink":
        files.pop(step.name, None)
    elif step.kind == "truncate":
        file = files.setdefault(step.name, bytearray())
        file[:] = file[: step.offset].ljust(step.offset, b"\0")
    elif step.kind == "write":
        file = files.setdefault(step.name, bytearray())
        if len(file) < step.offset:
            file.extend(bytes(step.offset - len(file)))
        file[step.offset : step.offset + len(step.data)] = step.data


def survivors(pending: list[Step], way: str, rng: random.Random) -> list[Step]:
    """What of the writes since the last sync reached the card."""
    if way == "none":
        return []
    if way == "all":
        return pending
    kept = [step for step in pending if step.kind != "write" or rng.random() < 0.5]
    if way == "torn" and kept and kept[-1].kind == "write":
        whole = kept[-1]
        cut = rng.randrange(0, len(whole.data) // SECTOR + 1) * SECTOR
        kept[-1] = Step("write", whole.name, whole.offset, whole.data[:cut])
    return kept


def stored(path: Path) -> list[tuple[str, int, int]]:
    """(level, seq, serial) of every record on the card."""
    rows = read_outbox(path)
    return [(level, seq, int(json.loads(record)["message"].split()[1])) for _, level, seq, record in rows]


@pytest.mark.parametrize("way", ["none", "all", "some", "torn"])
def test_every_sync_point(trace: list[Step], tmp_path: Path, way: str) -> None:
    rng = random.Random(f"{SEED}-{way}")
    print(f"seed {SEED}-{way}")
    synced: dict[str, bytearray] = {}
    pending: list[Step] = []
    durable, acked, opened = [0, 0, 0, 0], 0, 0
    for step in trace:
        if step.kind == "mark":
            word, *numbers = step.data.split()
            if word == b"durable":
                durable = [int(number) for number in numbers]
            else:
                acked = int(numbers[0])
        elif step.kind == "sync":
            files = {name: bytearray(data) for name, data in synced.items()}
            for survivor in survivors(pending, way, rng):
                apply(files, survivor)
            folder = tmp_path / str(opened)
            check(files, folder, durable, acked)
            opened += 1
            # A sync makes durable what was written to that file, one of the folder what was unlinked; the rest of what
            # is under way stays uncertain.
            done = [entry for entry in pending if step.name == (FOLDER if entry.kind == "unlink" else entry.name)]
            for entry in done:
                apply(synced, entry)
            pending = [entry for entry in pending if entry not in done]
        else:
            pending.append(step)
    assert opened > 50


def check(files: dict[str, bytearray], folder: Path, durable: list[int], acked: int) -> None:
    """`durable`: per level the last number that was committed; `acked`: up to where ERROR may be deleted."""
    folder.mkdir()
    for name, data in files.items():
        if not name.endswith("-shm"):
            (folder / name).write_bytes(data)
    config = OutboxConfig(max_bytes=2**20, deadline_s=dict.fromkeys(LEVELS, 1000.0))
    now = Stamp(datetime(2026, 1, 1, tzinfo=UTC), 100.0, True)
    backlog = Backlog(folder / "outbox.db", config, "boot 2", now)
    assert backlog.keeper.trouble is None
    assert not backlog.keeper.incidents, "a power cut is no damage"
    rows = stored(folder / "outbox.db")
    backlog.keeper.drop_file()
    for level, last in zip(LEVELS, durable, strict=True):
        numbers = [seq for lane, seq, _ in rows if lane == level]
        first = numbers[0] if numbers else 1
        assert numbers == list(range(first, first + len(numbers)))
        assert first <= (acked if level == "ERROR" else 0) + 1
        assert first + len(numbers) - 1 >= last, f"{level}: committed up to {last}, found {numbers[-1:]}"
