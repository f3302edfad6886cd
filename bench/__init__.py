"""`./run bench`: our figures beside those of other programs that do the same job, all of one run on one machine."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Broker, server and PostgreSQL are started as the tests start them.
sys.path.insert(0, str(ROOT / "tests"))
