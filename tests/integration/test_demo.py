"""`./run demo`, as a newcomer meets it: the story comes true, and nothing is left behind, however it ends."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts.wait import wait_for

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]


class Demo:
    def __init__(self, tmp: Path, *arguments: str, path: str | None = None) -> None:
        # In a folder of its own: what the demo leaves behind would be there, and in the arguments of its processes.
        self.tmp = tmp
        self.output = tmp.parent / "output"
        environment = {**os.environ, "TMPDIR": str(tmp), **({"PATH": path} if path else {})}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [ROOT / "run", "demo", *arguments],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and str(self.tmp).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                pass
        return found

    def assert_nothing_is_left(self) -> None:
        assert list(self.tmp.iterdir()) == []
        wait_for(lambda: not self.processes(), "all processes of the demo are gone")


@pytest.fixture
def tmp() -> Iterator[Path]:
    """Short, for a Unix socket's path has at most 107 bytes; open to pass, for the player is another user."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        Path(folder).chmod(0o711)
        (Path(folder) / "t").mkdir(mode=0o711)
        yield Path(folder) / "t"


def test_the_story_comes_true(tmp: Path) -> None:
    demo = Demo(tmp, "--once")
    assert demo.process.wait(100) == 0, demo.text
    for told in (
        "ms later mpv starts again",
        "records replayed and committed in",
        "0 lost, 0 doubled",
        "every lane: issued = stored",
    ):
        assert told in demo.text
    assert "\033[" not in demo.text, "colours are for terminals"
    demo.assert_nothing_is_left()


@pytest.mark.parametrize(
    ("moment", "number"), [("The story", signal.SIGTERM), ("Ctrl-C", signal.SIGINT)], ids=["in the story", "after it"]
)
def test_it_cleans_up_when_told_to_end(tmp: Path, moment: str, number: signal.Signals) -> None:
    demo = Demo(tmp)
    try:
        wait_for(lambda: moment in demo.text or demo.process.poll() is not None, f"it says {moment}", 90)
        assert demo.process.poll() is None, demo.text
        assert demo.processes(), "the parts are up"
    finally:
        demo.process.send_signal(number)
        assert demo.process.wait(30) == 128 + number
    demo.assert_nothing_is_left()


def test_a_step_that_fails_is_named_with_the_logs(tmp: Path) -> None:
    """A player that ends at once: the story cannot begin."""
    programs = tmp.parent / "programs"
    programs.mkdir()
    programs.chmod(0o755)
    broken = programs / "mpv"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    demo = Demo(tmp, "--once", path=f"{programs}:{os.environ['PATH']}")
    assert demo.process.wait(100) == 1, demo.text
    assert "the agent has used up its restarts" in demo.text
    assert "logs of all parts are in .cache/demo/logs/" in demo.text
    assert (ROOT / ".cache/demo/logs/agent.log").exists()
    demo.assert_nothing_is_left()
