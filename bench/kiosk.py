"""A kiosk's delivery as a process of its own: `fill` its outbox without a broker, or `drain` it to one.

kiosk.py fill FOLDER COUNT | kiosk.py drain FOLDER PORT; prints what it took as JSON.
"""

import json
import sys
import time
from pathlib import Path

from infoscreen_device import delivery as module
from infoscreen_device.clock import system_clocks
from infoscreen_device.core.model import Draft
from infoscreen_device.delivery import Delivery
from infoscreen_device.settings import BrokerConfig, ClockConfig, Config
from infoscreen_shared.messages import LogLevel

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"
# The end of the replay is to be seen to the millisecond.
module.STATUS_S = 0.002


def main() -> None:
    verb, folder, number = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    port = number if verb == "drain" else 9
    config = Config(
        state_dir=folder,
        broker=BrokerConfig(url=f"mqtt://127.0.0.1:{port}", host="127.0.0.1", port=port),
        clock=ClockConfig(trusted=True),
    )
    folder.mkdir(exist_ok=True)
    delivery = Delivery(config, UUID, system_clocks(trusted=True), "bench")
    began, cpu, written = time.monotonic(), time.process_time(), written_bytes()
    delivery.start(60)
    if verb == "fill":
        fill(delivery, number)
    else:
        while not (delivery.status().connected and not delivery.status().pending):
            time.sleep(0.001)
    if verb == "drain":
        took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    delivery.stop(60)
    if verb == "fill":  # all of it is on disk only now
        took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    stored = sum(file.stat().st_size for file in folder.glob("outbox.db*"))
    print(json.dumps({**took, "stored": stored, "written": written_bytes() - written}))


def fill(delivery: Delivery, count: int) -> None:
    """Records of 246 bytes on average, as on a kiosk that has a bad day; all are wanted by the server."""
    for number in range(count):
        context = {"pid": 800 + number % 99, "event_id": 42, "load": 0.25}
        message = f"player answered in time, frame {number:6d} of many shown"
        delivery.submit(Draft(LogLevel.INFO, "bench.record", message, context))


def written_bytes() -> int:
    """What this process gave to disks; 0 on a file system in memory."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


main()
