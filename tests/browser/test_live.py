"""A kiosk's player crashes, and whoever looks sees it: a real agent, mosquitto, player and browser."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from parts.agent import LIVES, Agent, Player
from parts.broker import Broker
from parts.dashboard import Dashboard
from parts.figures import Figure
from parts.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'live.db'}"
    else:
        with Postgres(tmp_path / "postgres") as running:
            yield running.new_database()


def live(page: Page) -> None:
    expect(page.locator("[data-state=live]").first).to_be_visible()


@pytest.mark.timeout(240)
def test_a_crash_is_seen_as_it_happens(browser: Browser, database_url: str, tmp_path: Path, figure: Figure) -> None:
    kiosk = tmp_path / "kiosk"
    kiosk.mkdir()
    restart = {"backoff_first_s": 4, "backoff_cap_s": 4, "max_restarts": 50}
    report = {"heartbeat_s": 1, "health_s": 1}
    with (
        Broker(tmp_path / "broker") as broker,
        Player() as player,
        Dashboard(tmp_path / "server", database_url, broker.url, count=1) as dashboard,
        Agent(kiosk, broker.url, player=player.expected(), restart=restart, report=report) as agent,
    ):
        _crash_before_the_eyes(browser, dashboard, agent, player, figure)


def _crash_before_the_eyes(
    browser: Browser, dashboard: Dashboard, agent: Agent, player: Player, figure: Figure
) -> None:
    pid = agent.plays()
    uuid = (agent.state_dir / "uuid").read_text().strip()
    with dashboard.visitor(browser, "admin") as viewer, dashboard.visitor(browser, "user") as guest:
        home = guest.open(f"/?q={uuid}")
        row = home.get_by_role("row").filter(has=home.locator(f"a[href*='{uuid}']"))
        expect(row).to_contain_text("Running")
        page = viewer.open(f"/clients/{uuid}/logs")
        live(page)
        # It cannot be started again, so that it stays down long enough to be seen.
        player.write("exit 1")
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        crash = page.get_by_role("listitem").filter(has_text="was killed by signal 9")
        expect(crash).to_be_visible()
        figure(
            f"player killed to seen in the browser, {dashboard.server.environment['DATABASE_URL'][:6]}, s",
            round(time.monotonic() - began, 2),
        )
        expect(crash).to_have_count(1)
        expect(crash).to_contain_text("player.crashed")
        expect(row).to_contain_text("Crashed")
        player.write(LIVES)
        expect(row).to_contain_text("Running")
        # The permalink leads to the very record.
        crash.get_by_role("link", name="Link").click()
        page.wait_for_url(re.compile(r"id=\d+"))
        expect(page.get_by_role("main")).to_contain_text("was killed by signal 9")
