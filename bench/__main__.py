"""`./run bench [NAME …]`: without names all of them, about an hour."""

import argparse
import platform
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil

from bench import ROOT, backlog, disk, frozen, kills, rest, restart, screen, server
from bench.table import Row, render

MEASUREMENTS = {
    "restart": restart.run,
    "backlog": backlog.run,
    "kills": kills.run,
    "disk": disk.run,
    "rest": rest.run,
    "screen": screen.run,
    "frozen": frozen.run,
    "server": server.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"{', '.join(MEASUREMENTS)}; by default all")
    parser.add_argument("--quick", action="store_true", help="a tenth of the repetitions: to see that it works")
    parser.add_argument("--rows", type=int, action="append", help="server: another size of the log; may be repeated")
    parser.add_argument("--database", choices=server.KINDS, action="append", help="server: only with this one")
    options = parser.parse_args()
    unknown = set(options.name) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"no measurement is called {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}")
    measurements = MEASUREMENTS | {
        "server": partial(server.run, sizes=options.rows or server.SIZES, kinds=options.database or server.KINDS)
    }
    rows: list[Row] = []
    # In the checkout, not in /tmp: that may be memory, and what a disk costs is to be measured.
    base = ROOT / ".cache/bench"
    base.mkdir(parents=True, exist_ok=True)
    for name in options.name or MEASUREMENTS:
        began = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
        folder.chmod(0o755)
        try:
            rows += measurements[name](folder, options.quick)
        except Exception:
            # What was measured until then took long enough.
            print(render(rows))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(render(rows))
    machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total >> 30} GiB, Linux {platform.release()}"
    command = " ".join(["./run bench", *sys.argv[1:]])
    print(f"\n{machine}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d', time.gmtime())}: {command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
