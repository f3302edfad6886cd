"""The command infoscreen-watchdog: verbs, exit codes, what people read."""

import argparse
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infoscreen_device import cli
from infoscreen_device.cli import main
from infoscreen_device.core.model import Way
from infoscreen_device.outbox import Epoch, Outbox, Segment
from infoscreen_shared.messages import EventType, LogLevel
from parts.control_loop import ControlLoop

STATUS: dict[str, object] = {
    "version": "0.1.0",
    "uuid": "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11",
    "enabled": True,
    "expectation": {"process": "mpv", "event_id": 42, "event_type": "video", "source": "uid:1000"},
    "player": {"process": "mpv", "pid": 812, "status": "running"},
    "screen": {"status": "UNKNOWN", "reason": "settling"},
    "restarts": {"used": 3, "max": 3, "window_s": 600.0, "next_in_s": 250.2, "gave_up": True},
    "broker": {"connected": False, "url": "mqtt://" + "long-name." * 9 + "example:1883"},
    "outbox": {"pending": 12_345, "oldest": "2026-01-02T03:04:05Z", "epoch": "e", "lanes": {}},
    "uptime_s": 11_520,
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'state_dir = "{tmp_path}/state"\ncontrol.socket = "{tmp_path}/control.sock"\n')
    return path


@pytest.fixture
def loop(tmp_path: Path, config: Path) -> Iterator[ControlLoop]:
    with ControlLoop(tmp_path / "control.sock") as running:
        running.status = STATUS
        yield running


def verbs(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                yield prefix + name, sub, texts.get(name, "")
                yield from verbs(sub, f"{prefix}{name} ")


def test_every_verb_and_option_is_documented() -> None:
    found = {name: text for name, _, text in verbs(cli._parser())}
    expected = ["run", "check-config", "status", "screen", "screenshot", "expect", "clear", "outbox"]
    assert list(found) == [*expected, "outbox stats", "outbox export", "outbox vacuum", "polkit", "version"]
    assert [name for name, text in found.items() if not text] == []
    for name, parser, _ in verbs(cli._parser()):
        for action in parser._actions:
            assert action.help or not action.option_strings, f"{name}: {action.dest}"


def test_the_verbs_are_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for name, _, _ in verbs(cli._parser()):
        if name not in ("clear", "version"):
            assert name.split()[-1] in readme, name


def test_the_command_is_installed_and_light(config: Path) -> None:
    """`status` is called in a hurry, `run` stays: neither may drag in what only others need."""
    program = (
        "import sys; from infoscreen_device.cli import main; main(['status', '--config', sys.argv[1]]);"
        "print({m.split('.')[0] for m in sys.modules} & {'sqlite_utils', 'sqlite3', 'psutil', 'paho', 'asyncio'} or '')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(config)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    command = Path(sys.executable).with_name("infoscreen-watchdog")
    done = subprocess.run([command, "version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("infoscreen-watchdog 0.")


def test_check_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(config)]) == 0
    assert capsys.readouterr().out == f"{config}: no problem found\n"
    config.write_text("brokr.url = 1\n[player]\n")
    assert main(["check-config", "--config", str(config)]) == 78
    assert capsys.readouterr().err.splitlines() == [
        "infoscreen-watchdog: player.process: is missing: name the player's process, such as mpv",
        "infoscreen-watchdog: brokr: unknown setting (did you mean broker?)",
    ]


def test_run_refuses_a_wrong_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[a b]")
    assert main(["run", "--config", str(config)]) == 78
    assert "at line 1, column 4" in capsys.readouterr().err


def test_status_without_an_agent_says_what_to_do(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", str(config)]) == 3
    error = capsys.readouterr().err
    assert f"no agent answers at {config.parent}/control.sock" in error
    assert "systemctl status infoscreen-watchdog" in error


def test_status_for_people_fits_80_columns(loop: ControlLoop, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "infoscreen-watchdog 0.1.0 · up 3 h 12 min"
    assert "expected   mpv · event 42 (video) · registered by uid:1000" in lines
    assert "player     mpv · running · pid 812" in lines
    assert "screen     UNKNOWN · settling" in lines
    assert "restarts   3 of 3 in 10 min · GAVE UP, slow tries · next in 4 min 10 s" in lines
    assert "broker     NOT CONNECTED" in lines
    assert "outbox     12,345 records wait · oldest 2026-01-02 03:04:05 UTC" in lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("status", [{}, {"player": None, "outbox": 3, "uptime_s": "x", "broker": {}, "enabled": False}])
def test_status_of_another_version_is_shown_as_far_as_it_goes(
    loop: ControlLoop, config: Path, status: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    loop.status = status
    assert main(["status", "--config", str(config)]) == 0
    assert "expected   nothing" in capsys.readouterr().out


def test_status_for_programs(loop: ControlLoop, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--config", str(config)]) == 0
    assert json.loads(capsys.readouterr().out) == STATUS


def test_expect_and_clear(loop: ControlLoop, config: Path) -> None:
    where = ["--config", str(config)]
    arguments = ["--event-id", "42", "--type", "video", "--process", "vlc", "--pid", str(os.getpid())]
    more = ["--restart", "vlc 'my film.mkv'", "--cmdline", "vlc 'my film.mkv'", "--user", "nobody"]
    assert main(["expect", *arguments, *more, *where]) == 0
    assert main(["expect", "--process", "mpv", "--restart", "handler", *where]) == 0
    assert main(["expect", "--clear", *where]) == 0
    assert main(["clear", *where]) == 0
    full, second, third, fourth = loop.expectations
    assert full is not None
    assert second is not None
    assert (full.event_id, full.event_type, full.process, full.pid) == (42, EventType.VIDEO, "vlc", os.getpid())
    assert full.restart.argv == full.cmdline == ("vlc", "my film.mkv")
    assert full.restart.user == full.user == "nobody"
    assert second.restart.way is Way.HANDLER
    assert (third, fourth) == (None, None)


def test_expect_tells_what_is_wrong(loop: ControlLoop, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--config", str(config)]
    assert main(["expect", "--process", "mpv", "--restart", "hanlder", *where]) == 1
    assert "restart: expected" in (error := capsys.readouterr().err)
    assert "did you mean handler?" in error
    assert main(["expect", *where]) == 2
    assert "needs --process" in capsys.readouterr().err
    assert main(["expect", "--process", "mpv", "--restart", "mpv 'x", *where]) == 2
    assert "No closing quotation" in capsys.readouterr().err
    assert loop.expectations == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_not_use_the_socket_is_told_so(loop: ControlLoop, config: Path) -> None:
    for folder in [config.parent, *config.parent.parents]:
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    program = (
        "import os, sys; from infoscreen_device.cli import main\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main(['clear', '--config', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", program, config], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "join the group of control.group" in done.stderr
    assert loop.requests == []


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Two openings: 500 and 3 records, the first 100 of them settled."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "outbox.db"
    file = Outbox(path, 2**24)
    file.begin()
    for epoch, level, count in [("a" * 32, LogLevel.WARN, 500), ("b" * 32, LogLevel.ERROR, 3)]:
        file.put_epoch(Epoch(epoch, "boot", 0.0, None))
        for first in range(1, count + 1, 100):
            records = [b'{"seq":%d,"message":"m"}' % seq for seq in range(first, min(first + 100, count + 1))]
            file.add(Segment(epoch, level, first, len(records), 1_767_323_045.0, False, records))
    file.delete_settled("a" * 32, LogLevel.WARN, 100)
    file.commit()
    file.close()
    return path


def test_outbox_stats(outbox: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "stats", "--json", "--config", str(config)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["records"] == 403
    assert [(lane["level"], lane["records"], lane["base"], lane["next"]) for lane in found["lanes"]] == [
        ("WARN", 400, 100, 501),
        ("ERROR", 3, 0, 4),
    ]
    assert main(["outbox", "stats", "--config", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{outbox}: 403 records, ")
    assert "2026-01-02T03:04" in lines[2]
    assert max(map(len, lines[1:])) <= 80


def test_outbox_export_gives_every_record_in_order_beside_a_running_agent(
    outbox: Path, config: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    before = outbox.read_bytes()
    agent = Outbox(outbox, 2**24)
    try:
        command = [sys.executable, "-c", "from infoscreen_device.cli import entry; entry()"]
        done = subprocess.run([*command, "outbox", "export", "--config", config], capture_output=True, check=True)
    finally:
        agent.close()
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["epoch"][0], record["level"], record["seq"]) for record in records] == [
        *(("a", "WARN", seq) for seq in range(101, 501)),
        *(("b", "ERROR", seq) for seq in range(1, 4)),
    ]
    assert records[0]["message"] == "m"
    assert outbox.read_bytes() == before


def test_an_export_that_nobody_reads_on_ends_quietly(outbox: Path, config: Path) -> None:
    command = f"{sys.executable} -c 'from infoscreen_device.cli import entry; entry()' outbox export --config {config}"
    done = subprocess.run(["sh", "-c", f"{command} | head -c 10"], capture_output=True)
    assert (done.stderr, len(done.stdout)) == (b"", 10)


def test_outbox_vacuum_needs_the_file_alone(outbox: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (outbox.parent / "outbox.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["outbox", "vacuum", "--config", str(config)]) == 1
        assert "systemctl stop infoscreen-watchdog" in capsys.readouterr().err
    assert main(["outbox", "vacuum", "--config", str(config)]) == 0
    assert " now" in capsys.readouterr().out
    file = Outbox(outbox, 2**24)
    assert len(file.extents()) == 2
    file.close()


@pytest.mark.parametrize("verb", ["stats", "export", "vacuum"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 1_000])
def test_without_a_proper_outbox_every_verb_says_so(
    tmp_path: Path, config: Path, verb: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").mkdir()
    if content is not None:
        (tmp_path / "state" / "outbox.db").write_bytes(content)
    assert main(["outbox", verb, "--config", str(config)]) == 1
    assert "outbox.db" in capsys.readouterr().err
