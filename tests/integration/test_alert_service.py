"""The part `alerts` as a real process: killed, stopped, without its database, under `run`."""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from infoscreen_server.alerts.outbox import LEASE
from parts.figures import Figure
from parts.fleet import Fleet
from parts.mailbox import Webhook
from parts.postgres import Postgres
from parts.posting import add_channel, errors, post, statuses
from parts.server import COMMAND, Server
from parts.wait import wait_for

KILLS, MESSAGES, CHANNELS = 20, 100, 4


class Alerts(Server):
    """The part alone. It answers nothing: what it does is seen elsewhere."""

    def start(self, verb: str = "alerts", **environment: str) -> "Alerts":
        with self.log.open("ab") as log:
            argv = [*COMMAND, verb, "--config", str(self.config)]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=self.environment | environment)
        return self


@pytest.fixture
def fleet(database_url: str) -> Iterator[Fleet]:
    with Fleet(database_url) as fleet:
        yield fleet


@contextmanager
def alerts(directory: Path, fleet: Fleet, **settings: Any) -> Iterator[Alerts]:
    part = Alerts(directory, fleet.url, alert_allow_local=True, **settings)
    with part:
        yield part


def all_sent(fleet: Fleet) -> Callable[[], bool]:
    return lambda: set(statuses(fleet).values()) == {"sent"}


def test_delivers_what_is_there_and_keeps_small(fleet: Fleet, tmp_path: Path, figure: Figure) -> None:
    with Webhook() as hook, alerts(tmp_path, fleet) as part:
        post(fleet, add_channel(fleet, "hook", hook.url("s3cret")), ["one", "two"], datetime.now(UTC))
        part.start()
        wait_for(all_sent(fleet), "both are sent")
        assert sorted(hook.titles) == ["one", "two"]
        assert part.process is not None
        size = psutil.Process(part.process.pid).memory_info().rss / 1e6
        figure("alerts, resident", f"{size:.0f} MB")
        assert size < 80
        assert part.stop() == 0
        assert "s3cret" not in part.log.read_text()


def test_stops_in_time_and_gives_back_what_hangs(fleet: Fleet, tmp_path: Path) -> None:
    with Webhook(hangs=True) as hanging, Webhook() as hook, alerts(tmp_path, fleet) as part:
        for name in ("a", "b"):
            post(fleet, add_channel(fleet, name, hanging.url()), [name], datetime.now(UTC))
        part.start()
        wait_for(lambda: len(hanging.asked) == 2, "both hang")
        family = part.family()
        begun = time.monotonic()
        assert part.stop() == 0
        assert time.monotonic() - begun < 2.5
        assert not any(each.is_running() for each in family)
        assert fleet.rows("SELECT DISTINCT status, error FROM alert_messages") == [("pending", "cut off")]
        assert fleet.one("SELECT count(*) FROM alert_attempts WHERE ended_at IS NULL") == 2
        # And the next tries them at once.
        fleet.run(f"UPDATE alert_channels SET url = '{hook.url()}'")
        part.start()
        wait_for(all_sent(fleet), "both are sent")
        assert sorted(hook.titles) == ["a", "b"]


@pytest.mark.timeout(300)
def test_killed_again_and_again_it_loses_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """Twice comes only what was under way at a kill; the lease of those is made to run out at once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    open_at_kill: Counter[str] = Counter()
    with Webhook() as hook, alerts(tmp_path, fleet) as part:
        for number in range(CHANNELS):
            channel = add_channel(fleet, f"c{number}", hook.url())
            titles = [f"[#{number}-{each}]" for each in range(MESSAGES // CHANNELS)]
            post(fleet, channel, titles, datetime.now(UTC))
        for _ in range(KILLS):
            part.start()
            before = len(hook.asked)
            if dice.random() < 0.7 and not all_sent(fleet)():
                wait_for(lambda before=before: len(hook.asked) > before or all_sent(fleet)(), "it sends")  # type: ignore[misc]
            time.sleep(dice.uniform(0, 1.2))
            family = part.family()
            part.stop(signal.SIGKILL)
            wait_for(lambda family=family: not any(alive(each) for each in family), "its children are gone")  # type: ignore[misc]
            open_at_kill.update(fleet.rows("SELECT title FROM alert_messages WHERE status = 'sending'"))
            shorten_leases(fleet)
        part.start()
        wait_for(all_sent(fleet), "all are sent", 120)
        arrived = Counter(hook.titles)
        assert len(arrived) == MESSAGES
        twice = {title: number for title, number in arrived.items() if number > 1}
        assert all(number <= 1 + open_at_kill[title] for title, number in twice.items())
        print(f"{sum(open_at_kill.values())} under way at {KILLS} kills, {len(twice)} came twice")
        assert open_at_kill


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def shorten_leases(fleet: Fleet) -> None:
    """As if they had been waited for."""
    now = datetime.now(UTC) - LEASE
    text = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if fleet.url.startswith("sqlite") else now.isoformat()
    fleet.run(f"UPDATE alert_messages SET due_at = '{text}' WHERE status = 'sending'")


def test_pings_while_all_is_well_and_not_without_its_database(tmp_path: Path) -> None:
    with Postgres(tmp_path / "own") as postgres, Fleet(postgres.new_database()) as fleet, Webhook() as outside:
        ping = f"http://127.0.0.1:{outside.port}/ping/s3cret?status=up"
        with alerts(tmp_path, fleet, dead_man_url=ping, dead_man_seconds=5) as part, Webhook() as hook:
            part.start()
            wait_for(lambda: len(outside.asked) >= 2, "it pings")
            assert set(outside.asked) == {"GET /ping/s3cret?status=up"}
            fleet.engine.dispose()
            postgres.stop("immediate")
            try:
                wait_for(lambda: "ERROR" in part.log.read_text(), "it says that the database is away")
                pings, until = len(outside.asked), time.monotonic() + 11
                wait_for(lambda: time.monotonic() > until, "two rounds more")
                assert len(outside.asked) == pings
                assert part.log.read_text().count("ERROR") == 1
            finally:
                postgres.start()
            wait_for(lambda: len(outside.asked) > pings, "it pings again")
            post(fleet, add_channel(fleet, "hook", hook.url()), ["later"], datetime.now(UTC))
            wait_for(all_sent(fleet), "it delivers again")
            assert part.stop() == 0
            assert "s3cret" not in part.log.read_text()


def test_a_ping_that_fails_is_told_of_once_and_by_its_host(fleet: Fleet, tmp_path: Path) -> None:
    with Webhook() as other, Webhook(302, f"http://127.0.0.1:{other.port}/") as outside:
        ping = f"http://127.0.0.1:{outside.port}/s3cret"
        with alerts(tmp_path, fleet, dead_man_url=ping, dead_man_seconds=5) as part:
            part.start()
            wait_for(lambda: len(outside.asked) >= 2, "it pings")
            outside.status = 200
            wait_for(lambda: "answers again" in part.log.read_text(), "it is well again")
            assert part.log.read_text().count("dead man's switch: 127.0.0.1: answered 302") == 1
            assert "s3cret" not in part.log.read_text()
            assert other.asked == []


def test_what_came_of_a_message_is_kept_while_the_database_is_away(tmp_path: Path) -> None:
    with (
        Postgres(tmp_path / "own") as postgres,
        Fleet(postgres.new_database()) as fleet,
        Webhook(hangs=True) as hook,
        alerts(tmp_path, fleet) as part,
    ):
        post(fleet, add_channel(fleet, "hook", hook.url()), ["message"], datetime.now(UTC))
        part.start()
        wait_for(lambda: hook.asked, "it is under way")
        (child,) = part.family()
        fleet.engine.dispose()
        postgres.stop("immediate")
        try:
            child.kill()
            wait_for(lambda: not alive(child), "the child is gone")
            wait_for(lambda: "ERROR" in part.log.read_text(), "it cannot say so")
        finally:
            postgres.start()
        wait_for(lambda: errors(fleet) == ["the sending process ended with exit code -9"], "it is said")


def test_the_whole_runs_it_and_starts_it_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'server.db'}"
    with (
        Server(tmp_path, url, alert_allow_local=True).start() as server,
        Fleet(url, migrated=False) as fleet,
        Webhook() as hook,
    ):
        before = server.part("alerts")
        before.kill()
        wait_for(lambda: "alerts ended with signal 9" in server.log.read_text(), "its end is seen")
        post(fleet, add_channel(fleet, "hook", hook.url()), ["message"], datetime.now(UTC))
        wait_for(all_sent(fleet), "it is sent")
        assert server.part("alerts").pid != before.pid
        assert server.stop() == 0
