"""Several connections of one process to a SQLite file, and other processes that come and go beside them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from infoscreen_server import app
from infoscreen_server.db import make_engine, upgrade, writing
from parts.api import NOW, Api
from parts.fleet import Fleet, batch, item

COUNT = "SELECT count(*) FROM client_logs"
OTHER_PROCESS = """
import sys
from parts.fleet import Fleet, batch
with Fleet(sys.argv[1], migrated=False) as fleet:
    fleet.say(batch([1]), uuid=sys.argv[2])
"""
ELSEWHERE = "2b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a13"


def test_a_process_that_leaves_takes_nothing_from_those_that_stay(tmp_path: Path) -> None:
    """It must not think that it is the last one: it would take away the write-ahead log that others go on using."""
    url = f"sqlite:///{tmp_path / 'server.db'}"
    upgrade(url)
    engine = make_engine(url)
    with engine.connect() as first, engine.connect() as second, Fleet(url, migrated=False) as fleet:
        for connection in (first, second):
            connection.exec_driver_sql(COUNT).one()
            connection.rollback()
        for number in (1, 2):
            environment = {"PYTHONPATH": ":".join(sys.path)}
            subprocess.run([sys.executable, "-c", OTHER_PROCESS, url, ELSEWHERE], check=True, env=environment)
            fleet.say(batch([number]))
            for connection in (first, second):
                assert connection.exec_driver_sql(COUNT).scalar_one() == number + 1
                connection.rollback()
    engine.dispose()


def test_a_request_waits_only_a_while_for_another_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests of the process wait with it."""
    assert 2 * app.WRITER_WAIT_S < 20, "gunicorn ends what stands still for 30 s"
    monkeypatch.setattr(app, "WRITER_WAIT_S", 0.2)
    api = Api(f"sqlite:///{tmp_path / 'server.db'}")
    records = {"level": "ERROR", "records": [item(None, NOW)]}
    assert api.post(json=records).status_code == 200
    other = make_engine(f"sqlite:///{tmp_path / 'server.db'}")
    with writing(other):
        began = time.monotonic()
        assert api.post(json=records).status_code == 503
        assert time.monotonic() - began < 5
    assert api.post(json=records).status_code == 200
    other.dispose()
    api.close()
