"""How many records a second the store commits: decode, one transaction of several batches, commit, acks.

python bench/store_rate.py DATABASE_URL [batches in a transaction] [records in all]
"""

import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from infoscreen_server import db
from infoscreen_server.models import ClientLog
from infoscreen_server.store import Arrival, Policy, ingest
from infoscreen_shared.messages import Clock, LogLevel, Record, decode_logs, encode_batch, encode_record

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
BATCH = 500


def payloads(count: int) -> list[bytes]:
    """Batches of records of 246 bytes on average."""
    start = datetime.now(UTC) - timedelta(hours=1)

    def record(seq: int) -> bytes:
        context = {"pid": 800 + seq % 99, "event_id": 42, "load": 0.25, "note": "all is well"}
        message = f"player answered in time, frame {seq:6d} of many shown"
        when = start + timedelta(milliseconds=seq)
        return encode_record(
            Record(when, message, context, None, None, seq, "5a2c1f7e94a54f0c9a550d9b3f7c2a11", Clock.SYNCED)
        )

    return [
        encode_batch("e1", 0, [record(seq) for seq in range(first, first + BATCH)])
        for first in range(1, count + 1, BATCH)
    ]


def main() -> None:
    url, together, count = sys.argv[1], int((sys.argv[2:] or ["20"])[0]), int((sys.argv[3:] or ["200000"])[0])
    db.upgrade(url)
    engine = db.make_engine(url)
    sent = payloads(count)
    policy = Policy(debug_mode=True)
    rates, began, cpu = [], time.perf_counter(), time.process_time()
    for start in range(0, len(sent), together):
        before = time.perf_counter()
        arrivals = [Arrival(UUID, decode_logs(LogLevel.INFO, one)) for one in sent[start : start + together]]
        ingest(engine, arrivals, datetime.now(UTC), policy, "bench")
        rates.append(BATCH * len(arrivals) / (time.perf_counter() - before))
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    with engine.connect() as connection:
        rows = connection.execute(select(func.count()).select_from(ClientLog)).scalar_one()
    size = sum(map(len, sent)) / count
    print(f"{rows} rows of {size:.0f} B, {together * BATCH} a transaction: {rows / wall:,.0f}/s over all,", end=" ")
    print(f"median transaction {statistics.median(rates):,.0f}/s, best {max(rates):,.0f}/s,", end=" ")
    print(f"CPU {cpu / rows * 1e6:.2f} us/record")
    engine.dispose()


if __name__ == "__main__":
    main()
