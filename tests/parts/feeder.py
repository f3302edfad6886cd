"""A kiosk's delivery that is fed without end, as a process that may be killed at any moment.

Arguments: state folder, broker port, uuid, journal, first number. The journal gets a line for each number issued
("i 7") and for the highest number known to be on the card or settled ("d 7"), after the first one of the run ("s 7").
"""

import sys
import time
from pathlib import Path

from infoscreen_device.clock import system_clocks
from infoscreen_device.core.model import Draft
from infoscreen_device.delivery import Delivery
from infoscreen_device.settings import BrokerConfig, ClockConfig, Config
from infoscreen_shared.messages import LogLevel


def main() -> None:
    folder, port, uuid, journal, first = sys.argv[1:6]
    config = Config(
        state_dir=Path(folder),
        broker=BrokerConfig(url=f"mqtt://127.0.0.1:{port}", host="127.0.0.1", port=int(port)),
        clock=ClockConfig(trusted=True),
    )
    delivery = Delivery(config, uuid, system_clocks(trusted=True), "feeder")
    delivery.start()
    number = int(first)
    with Path(journal).open("a", buffering=1) as lines:
        lines.write(f"s {number}\n")
        while number:
            lines.write(f"i {number}\n")  # before the fact, so that no later run gives the same number again
            for level in (LogLevel.ERROR, LogLevel.INFO):
                delivery.submit(Draft(level, "x.y", f"{level} {number}"))
            durable = delivery.status().lanes[LogLevel.ERROR].durable
            if durable:
                lines.write(f"d {int(first) + durable - 1}\n")
            number += 1
            time.sleep(0.002)
        while True:  # first = 0: only drain
            time.sleep(0.05)
            if delivery.status().connected and not delivery.status().pending:
                break
    delivery.stop(5)


main()
