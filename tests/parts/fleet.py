"""A migrated database and short words for what clients say to it."""

import json
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from sqlalchemy import Engine, text

from infoscreen_server import db, removal
from infoscreen_server.store import Arrival, Body, Policy, ingest
from infoscreen_shared.messages import Ack, Batch, LogLevel, decode_logs, timestamp_text

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
OTHER = "1b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a12"
NOW = datetime.now(UTC).replace(microsecond=123456)
ALL = Policy(debug_mode=True)


def uuid_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def item(seq: int | None, when: datetime = NOW, **more: Any) -> dict[str, Any]:
    numbered = {} if seq is None else {"seq": seq}
    return {"timestamp": timestamp_text(when), "message": f"m{seq}", "context": {"n": seq}, **numbered, **more}


def batch(
    numbers: Iterable[int], *, base: int = 0, epoch: str = "e", level: LogLevel = LogLevel.INFO, **more: Any
) -> Any:
    return of_items([item(number, **more) for number in numbers], base=base, epoch=epoch, level=level)


def of_items(items: list[Any], *, base: int = 0, epoch: str = "e", level: LogLevel = LogLevel.INFO) -> Batch:
    return decode_logs(level, json.dumps({"epoch": epoch, "base": base, "records": items}).encode())


class Fleet:
    def __init__(self, url: str, *, migrated: bool = True) -> None:
        self.url = url
        if migrated:
            db.upgrade(url)
        self.engine = db.make_engine(url)

    def say(self, *bodies: Body, uuid: str = UUID, policy: Policy = ALL, now: datetime = NOW) -> list[tuple[str, Ack]]:
        return ingest(self.engine, [Arrival(uuid, body) for body in bodies], now, policy, "mqtt")

    def cursor(self, *bodies: Body, policy: Policy = ALL, level: LogLevel = LogLevel.INFO) -> int:
        """Say it and return what the one ack says of the level's lane."""
        acks = self.say(*bodies, policy=policy)
        assert len(acks) == 1
        return acks[0][1].lanes[level]

    def rows(self, sql: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return [tuple(row) if len(row) > 1 else row[0] for row in connection.execute(text(sql), values)]

    def one(self, sql: str) -> Any:
        (found,) = self.rows(sql)
        return found

    def run(self, sql: str) -> None:
        with db.writing(self.engine) as connection, closing(connection.exec_driver_sql(sql)):
            pass

    def messages(self) -> list[str]:
        return self.rows("SELECT message FROM client_logs ORDER BY id")

    def stats(self) -> dict[str, int]:
        return dict(self.rows("SELECT name, n FROM ingest_stats"))

    def account(self) -> tuple[int, int, int, int, int]:
        """cursor, stored, unwanted, dead, gap over all lanes."""
        names = ("cursor", "stored", "unwanted", "dead", "gap")
        sums = ", ".join(f"CAST(COALESCE(SUM({name}), 0) AS INTEGER)" for name in names)
        found: tuple[int, int, int, int, int] = self.one(f"SELECT {sums} FROM lanes")
        return found

    def counters_agree(self) -> bool:
        """Whether counters and daily say what the log says."""
        for level in LogLevel:
            counted = "SELECT client_uuid, {0} FROM counters WHERE {0} <> 0 ORDER BY 1".format(level.lower())
            real = (
                "SELECT client_uuid, count(*) FROM client_logs, counter_mark WHERE level = :level "
                "AND timestamp > counted_out_to GROUP BY client_uuid ORDER BY 1"
            )
            if self.rows(counted) != self.rows(real, level=level):
                return False
        return True

    def issues_agree(self) -> bool:
        """Whether the counts of issues say what the log says."""
        counted = "SELECT client_uuid, level, code, n FROM issue_counts ORDER BY 1, 2, 3"
        real = (
            "SELECT client_uuid, level, COALESCE(code, ''), count(*) FROM client_logs, counter_mark "
            "WHERE level IN ('ERROR', 'WARN') AND timestamp > counted_out_to GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        return self.rows(counted) == self.rows(real)

    def daily_agrees(self) -> bool:
        days = "SELECT client_uuid, substr(CAST(day AS TEXT), 1, 10), level, n FROM daily ORDER BY 1, 2, 3"
        real = (
            "SELECT client_uuid, substr(CAST(timestamp AS TEXT), 1, 10), level, count(*) FROM client_logs "
            "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        return self.rows(days) == self.rows(real)

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.engine.dispose()


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


def finish_removals(engine: Engine, now: datetime = NOW) -> None:
    """As housekeeping does, however many turns it takes."""
    while removal.go_on(engine, now):
        pass
