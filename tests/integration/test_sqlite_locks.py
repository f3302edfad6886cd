"""Several connections of one process to a SQLite file, and other processes that come and go beside them."""

import subprocess
import sys
from pathlib import Path

from infoscreen_server.db import make_engine, upgrade
from parts.fleet import Fleet, batch

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
