"""Death of the player -> the restart command runs: our agent beside those who restart programs on other machines.

Every one has a player of its own, the same small C program, and all run side by side, so that they find the same
machine. Each player is killed at a random moment when it ran for at least as long as all of them take to call it up.
"""

import json
import os
import pwd
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from bench import ROOT
from bench.table import US, Row, median, percentile, verdict

SEED = 2026
KILLS = 100
SETTLED_S = 1.5
"""runit and supervisord take a program that ran for less than 1 s for one that cannot run."""
LAST_S = 30.0


class Peer(ABC):
    """One supervisor with its player."""

    name: str
    kills = KILLS

    def __init__(self, folder: Path, program: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        self.folder.chmod(0o777)
        self.log = folder / "starts"
        self.log.touch()
        self.log.chmod(0o666)
        # A program of its own name: who looks for players by name is to find this one.
        self.player = folder / f"player-{folder.name}"
        shutil.copy2(program, self.player)
        self.command = [str(self.player), str(self.log)]
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None: ...

    def launch(self, *argv: str | Path) -> None:
        with (self.folder / "output").open("wb") as output:
            self.process = subprocess.Popen([*map(str, argv)], stdout=output, stderr=output, cwd=self.folder)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)

    def starts(self) -> list[int]:
        """Monotonic nanoseconds of each start."""
        return [int(line.split()[0]) for line in self.log.read_text().splitlines()]

    def pids(self) -> list[int]:
        """As seen from here, also of one in a container."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if line.split(b"\0")[:1] == [str(self.player).encode()]:
                found.append(int(entry.name))
        return found

    def await_start(self, number: int, seconds: float = LAST_S) -> int:
        end = time.monotonic() + seconds
        while len(starts := self.starts()) < number:
            if time.monotonic() > end:
                text = (self.folder / "output").read_text() if (self.folder / "output").exists() else ""
                raise RuntimeError(f"{self.name}: start {number} did not come within {seconds:g} s\n{text[-2000:]}")
            time.sleep(0.02)
        return starts[number - 1]

    def measure(self, kills: int, rng: random.Random) -> list[float]:
        """Milliseconds from the kill to the start."""
        self.await_start(1)
        found = []
        for number in range(2, kills + 2):
            time.sleep(SETTLED_S + rng.random())
            (pid,) = self.pids()
            killed = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            found.append((self.await_start(number) - killed) / 1e6)
        return found


class Agent(Peer):
    name = US

    def start(self) -> None:
        user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else "nobody"
        # As installed, the agent is not root; and none of the others changes the user for its player.
        drop = () if os.getuid() else ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        config = self.folder / "agent.toml"
        # A fault is forgiven sooner than on a kiosk: it is the first restart that is measured, not the wait after many.
        config.write_text(
            f'state_dir = "{self.folder}/state"\n[broker]\nurl = "mqtt://127.0.0.1:9"\n'
            f'[player]\nprocess = "{self.player.name}"\nuser = "{user}"\nrestart = {json.dumps(self.command)}\n'
            f'directory = "{self.folder}"\n[restart]\nstart_timeout_s = 1\nstable_s = 1\n'
            f'[control]\nsocket = "{self.folder}/c"\n[clock]\ntrusted = true\n'
        )
        self.launch(*drop, Path(sys.executable).with_name("infoscreen-watchdog"), "run", "--config", config)


class Loop(Peer):
    name = "psutil loop, every 5 s"
    kills = KILLS * 2 // 5

    def start(self) -> None:
        self.launch(sys.executable, Path(__file__).parent / "peers/poll_loop.py", self.player.name, *self.command)


class Runit(Peer):
    name = "runit"

    def start(self) -> None:
        service = self.folder / "service"
        service.mkdir()
        (service / "run").write_text(f"#!/bin/sh\nexec {' '.join(self.command)}\n")
        (service / "run").chmod(0o755)
        self.launch("runsv", service)


class Supervisord(Peer):
    name = "supervisord"

    def start(self) -> None:
        config = self.folder / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nnodaemon=true\nlogfile={self.folder}/log\npidfile={self.folder}/pid\nchildlogdir={self.folder}\n"
            f"[program:player]\ncommand={' '.join(self.command)}\nautorestart=true\n"
        )
        self.launch("supervisord", "-c", config)


class Monit(Peer):
    name = "monit, every 5 s"
    kills = KILLS * 2 // 5

    def start(self) -> None:
        starter = self.folder / "start"
        starter.write_text(
            f"#!/bin/sh\n{' '.join(self.command)} </dev/null >/dev/null 2>&1 &\necho $! >{self.folder}/player.pid\n"
        )
        starter.chmod(0o755)
        config = self.folder / "monitrc"
        config.write_text(
            f"set daemon 5\nset log {self.folder}/log\nset pidfile {self.folder}/pid\nset idfile {self.folder}/id\n"
            f"set statefile {self.folder}/state\n"
            f'check process player with pidfile {self.folder}/player.pid\n  start program = "{starter}"\n'
        )
        config.chmod(0o600)
        self.launch("monit", "-I", "-c", config)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


class Systemd(Peer):
    """In a container of its own, with this machine's files: it has to be process 1."""

    name = "systemd, Restart=always"
    more = ""

    def start(self) -> None:
        units = self.folder / "units"
        units.mkdir()
        (units / "player.service").write_text(
            f"[Unit]\nStartLimitIntervalSec=0\nDefaultDependencies=no\n"
            f"[Service]\nExecStart={' '.join(self.command)}\nRestart=always\n{self.more}"
        )
        (units / "bench.target").write_text("[Unit]\nDefaultDependencies=no\nWants=player.service\n")
        root = self.folder / "root"
        root.mkdir()
        memory = self.folder / "memory"
        memory.mkdir()
        mount("-t", "tmpfs", "tmpfs", memory)
        for name in ("up", "work"):
            (memory / name).mkdir()
        mount("-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={memory}/up,workdir={memory}/work", root)
        self.launch(
            *("systemd-nspawn", "-q", "-D", root, "--register=no", "--keep-unit", "-b"),
            *("-M", f"bench{self.folder.name}", f"--bind={self.folder}", f"--bind-ro={units}:/run/systemd/system"),
            *("--", "systemd.unit=bench.target", "systemd.mask=systemd-journald.service"),
        )

    def launch(self, *argv: str | Path) -> None:
        os.environ["SYSTEMD_NSPAWN_UNIFIED_HIERARCHY"] = "1"
        super().launch(*argv)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        super().stop()
        for name in ("root", "memory"):
            subprocess.run(["umount", "-l", self.folder / name], check=False)


class SystemdAtOnce(Systemd):
    name = "systemd, and RestartSec=0"
    more = "RestartSec=0\n"


PEERS: tuple[Callable[[Path, Path], Peer], ...] = (Agent, Runit, SystemdAtOnce, Systemd, Supervisord, Loop, Monit)


def run(folder: Path, quick: bool) -> list[Row]:
    program = folder / "player"
    subprocess.run(["cc", "-O2", "-o", program, ROOT / "bench/peers/player.c"], check=True)
    peers = [peer(folder / f"{number}", program) for number, peer in enumerate(PEERS)]
    found: dict[str, list[float]] = {}
    failures: list[BaseException] = []

    def measure(peer: Peer, seed: int) -> None:
        try:
            found[peer.name] = peer.measure(max(2, peer.kills // (10 if quick else 1)), random.Random(seed))
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=measure, args=(peer, SEED + number)) for number, peer in enumerate(peers)]
    try:
        for peer in peers:
            peer.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for peer in peers:
            peer.stop()
    if failures:
        raise failures[0]
    return rows(found)


def rows(found: dict[str, list[float]]) -> list[Row]:
    ours = found[US]
    aim = "median < 4 ms, p99 < 15 ms"
    table = []
    for name, values in found.items():
        figure = f"median {median(values):,.1f} ms, p99 {percentile(values, 99):,.1f} ms ({len(values)} kills)"
        beside = "" if values is ours else f"{median(values) / median(ours):,.1f} times as long"
        met = median(ours) < 4 and percentile(ours, 99) < 15
        table.append(
            Row("player dead -> restart runs", name, figure, beside, verdict(aim, met=met) if values is ours else "")
        )
    return sorted(table, key=lambda row: row.program != US)
