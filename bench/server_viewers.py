"""Viewers of the live stream, each a connection of its own; what they saw, as JSON.

python -m bench.server_viewers < {"port": …, "seconds": …, "viewers": [[token, query], …]}

A line's delay is from the moment that it was received, before it was written and committed, to its arrival here.
"""

import json
import re
import selectors
import socket
import sys
import time
from datetime import datetime
from typing import Any

from bench.table import percentile

SETTLE_S = 3.0
"""Until then lines do not count: not all have come in."""
_RECEIVED = re.compile(rb'"received_at":"([^"]{27})"')


def main() -> None:
    wanted = json.load(sys.stdin)
    watched: list[tuple[str, socket.socket]] = []
    with selectors.DefaultSelector() as selector:
        for token, query in wanted["viewers"]:
            viewer = _open(wanted["port"], token, query)
            selector.register(viewer, selectors.EVENT_READ, query)
            watched.append((query, viewer))
        print(json.dumps(_watch(selector, wanted["seconds"], len(watched))))


def _open(port: int, token: str, query: str) -> socket.socket:
    viewer = socket.create_connection(("127.0.0.1", port), timeout=20)
    viewer.sendall(f"GET /api/stream?{query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    head = viewer.recv(4096)
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise SystemExit(f"a viewer was refused: {head[:300]!r}")
    viewer.setblocking(False)
    return viewer


def _watch(selector: selectors.BaseSelector, seconds: float, count: int) -> dict[str, Any]:
    delays: list[float] = []
    dropped = ended = size = 0
    saw: set[int] = set()
    counts_from, until = time.monotonic() + SETTLE_S, time.monotonic() + SETTLE_S + seconds
    while (now := time.monotonic()) < until:
        for key, _ in selector.select(until - now):
            viewer = key.fileobj
            assert isinstance(viewer, socket.socket)
            data = viewer.recv(262_144)
            if not data:
                ended += 1
                selector.unregister(viewer)
                continue
            arrived = time.time()
            if time.monotonic() < counts_from:
                continue
            size += len(data)
            dropped += data.count(b"event: dropped")
            received = [datetime.fromisoformat(text.decode()).timestamp() for text in _RECEIVED.findall(data)]
            delays += [arrived - each for each in received]
            if received:
                saw.add(viewer.fileno())
    return {
        "viewers": count,
        "with_lines": len(saw),
        "ended": ended,
        "dropped": dropped,
        "lines": len(delays),
        "megabytes": size / 1e6,
        "seconds": seconds,
        "p50_ms": percentile(delays or [float("inf")], 50) * 1000,
        "p95_ms": percentile(delays or [float("inf")], 95) * 1000,
        "worst_ms": max(delays, default=float("inf")) * 1000,
    }


if __name__ == "__main__":
    main()
