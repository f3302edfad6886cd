"""Ten minutes of a kiosk, three times side by side: at rest, busy without a broker, busy with one.

Defaults, one player, a real server. Busy is 10 records a minute: one of them WARN, and of a hundred one ERROR. A day is
144 times what ten minutes took. Each agent has a small ext4 of its own on a loop device, whose written sectors are
counted: what the file system adds is in them. The agent is started as its package starts it: without the hooks of a
virtual environment.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil

from bench import ROOT
from bench.table import US, Row, verdict
from infoscreen_device.client import Watchdog
from parts.broker import Broker
from parts.server import Server
from parts.wait import wait_for

MINUTES = 10
EVERY_S = 6
FOLDERS = [str(ROOT / "device"), str(ROOT / "shared"), sysconfig.get_path("platlib")]
START = f"import sys; sys.path += {FOLDERS!r}; from infoscreen_device.cli import entry; entry()"
SETTLED_S = 40.0
"""From the start to the first figure: what an agent tells of its start is on the card and at the server by then."""


class _Card:
    """An SD card of 100 MB."""

    def __init__(self, folder: Path) -> None:
        image, self.mounted = folder / "card", folder / "state"
        self.mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(100_000_000)
        at_once = "lazy_itable_init=0,lazy_journal_init=0"  # nothing is left for the background to write
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", at_once, image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.mounted], check=True)
        self._device = self.mounted.stat().st_dev

    def written(self) -> int:
        """Bytes, once everything that is to be written was."""
        subprocess.run(["sync", "-f", self.mounted], check=True)
        path = Path(f"/sys/dev/block/{os.major(self._device)}:{os.minor(self._device)}/stat")
        return int(path.read_text().split()[6]) * 512

    def remove(self) -> None:
        subprocess.run(["umount", self.mounted], check=True)


class _Kiosk:
    def __init__(self, folder: Path, number: int, port: int, player: Path) -> None:
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o777)
        own = folder / f"player-{number}"
        shutil.copy2(player, own)
        user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else "nobody"
        self.card = _Card(folder)
        (folder / "agent.toml").write_text(
            f'state_dir = "{self.card.mounted}"\n[client]\nuuid = "{number}b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"\n'
            f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n[player]\nprocess = "{own.name}"\nuser = "{user}"\n'
            f"restart = {json.dumps([str(own), f'{folder}/starts'])}\n[restart]\nstart_timeout_s = 1\n"
            f'[control]\nsocket = "{folder}/c"\n[clock]\ntrusted = true\n'
        )
        self.watchdog = Watchdog(f"{folder}/c")
        command = [sys.executable, "-S", "-c", START, "run", "--config", str(folder / "agent.toml")]
        # On a kiosk the log is the journal's business.
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.agent = psutil.Process(self.process.pid)

    def ready(self) -> bool:
        status = self.watchdog.status() or {}
        return bool(status.get("player", {}).get("status") == "running")

    def figures(self) -> tuple[float, int]:
        """CPU seconds, bytes given to the disk."""
        times = self.agent.cpu_times()
        return times.user + times.system, self.card.written()

    def peak(self) -> int:
        """Resident bytes at most (VmHWM)."""
        lines = Path(f"/proc/{self.agent.pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    def stop(self) -> None:
        for child in self.agent.children():
            child.kill()
        self.process.terminate()
        self.process.wait(10)
        self.card.remove()


def run(folder: Path, quick: bool) -> list[Row]:
    seconds = 60.0 * (1 if quick else MINUTES)
    player = folder / "player"
    subprocess.run(["cc", "-O2", "-o", player, ROOT / "bench/peers/player.c"], check=True)
    kiosks: list[_Kiosk] = []
    with Broker(folder) as broker, Server(folder, f"sqlite:///{folder}/server.db", broker.url) as server:
        server.call("migrate")
        server.start()
        try:
            for number, port in enumerate((broker.port, 9, broker.port), 1):
                kiosks.append(_Kiosk(folder / f"k{number}", number, port, player))
            for kiosk in kiosks:
                wait_for(kiosk.ready, "the player runs", 30)
            time.sleep(SETTLED_S)
            before = [kiosk.figures() for kiosk in kiosks]
            _live(kiosks[1:], seconds)
            after = [kiosk.figures() for kiosk in kiosks]
            return _rows(before, after, [kiosk.peak() for kiosk in kiosks], seconds)
        finally:
            for kiosk in kiosks:
                kiosk.stop()


def _live(busy: list[_Kiosk], seconds: float) -> None:
    began = time.monotonic()
    for number in range(int(seconds / EVERY_S)):
        time.sleep(max(0.0, began + EVERY_S * number - time.monotonic()))
        for kiosk in busy:
            level = "ERROR" if number % 100 == 50 else "WARN" if number % 10 == 5 else "INFO"
            said = {
                "op": "log",
                "level": level,
                "message": f"the display answered after {number} ms",
                "code": "bench.record",
            }
            kiosk.watchdog.request(said)
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def _rows(
    before: list[tuple[float, int]], after: list[tuple[float, int]], peaks: list[int], seconds: float
) -> list[Row]:
    cpu, written = zip(
        *((late[0] - early[0], late[1] - early[1]) for early, late in zip(before, after, strict=True)), strict=True
    )
    share, memory = cpu[0] / seconds * 100, peaks[0] / 1e6
    day = 86_400 / seconds
    met = share < 0.3 and memory < 30 and not written[0]
    offline, online = (written[number] * day / 1e6 for number in (1, 2))
    minutes = f"{seconds / 60:.0f} minutes"
    return [
        Row(
            f"agent at rest, {minutes}",
            US,
            f"{share:.2f} % of a core, peak RSS {memory:.1f} MB, {written[0]:,} bytes written",
            "",
            verdict("< 0.3 %, < 30 MB, 0 bytes", met=met),
        ),
        Row(
            "10 records a minute, no broker",
            US,
            f"{offline:.1f} MB a day written",
            "",
            verdict("< 40 MB", met=offline < 40),
        ),
        Row(
            "10 records a minute, online",
            US,
            f"{online:.2f} MB a day written",
            "",
            verdict("about 0 (only ERRORs)", met=online < 4),
        ),
    ]
