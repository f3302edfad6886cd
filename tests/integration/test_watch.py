"""What is seen of a player that is being replaced: real processes, as a browser has them, of one name."""

import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infoscreen_device.core.model import Expectation, ProcessKey
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.probes import process as probe
from infoscreen_device.watch import Watch

FAMILY = "import os, time; os.fork() or os.fork(); print('up', flush=True); time.sleep(600)"


@pytest.fixture
def family(tmp_path: Path) -> Iterator[ProcessKey]:
    """A program with children and grandchildren of the same name."""
    program = tmp_path / "manyfold"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True) as started:
        assert started.stdout is not None
        for _ in range(3):
            started.stdout.readline()
        key = probe.key_of(started.pid)
        assert key is not None
        yield key
        subprocess.run(["pkill", "-KILL", "-s", str(started.pid)], check=False)


def test_of_a_replaced_player_no_child_is_taken_for_the_new_one(family: ProcessKey) -> None:
    with selectors.DefaultSelector() as selector:
        watch = Watch(selector)
        expectation = Expectation("manyfold")
        running = State(Phase.RUNNING, expectation, family)
        assert watch.see(running, 1.0, None, ()) == (family, False)
        watch.search_soon(2.0)
        replaced = State(Phase.RESTARTING, expectation, None, replaced=family)
        assert watch.see(replaced, 2.0, None, ()) == (None, False)
        assert watch.searched
        # Its children outlive it for a moment.
        subprocess.run(["kill", "-KILL", str(family.pid)], check=True)
        watch.search_soon(3.0)
        assert watch.see(replaced, 3.0, None, ()) == (None, False)
        watch.drop()
