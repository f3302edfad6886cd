"""The dead man's switch: asks for a URL outside for as long as alerts are looked after. Who listens there notices when
that ends, whatever the reason: the server, its database, its network.

The URL is a secret: who knows it could go on asking. Only its host is ever named.
"""

import logging
import threading
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0


class DeadMan:
    def __init__(self, url: str, seconds: float) -> None:
        self.url = url
        self.host = urlsplit(url).hostname
        self.seconds = seconds
        self.due = 0.0
        self.fails = False
        self._asking: threading.Thread | None = None

    def tend(self, now: float) -> None:
        """To be called after each round that went well; `now` of time.monotonic(). Does not wait for the answer."""
        if now < self.due or (self._asking is not None and self._asking.is_alive()):
            return
        self.due = now + self.seconds
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def _ask(self) -> None:
        problem = ping(self.url)
        if problem is not None and not self.fails:
            log.warning("dead man's switch: %s: %s", self.host, problem)
        if problem is None and self.fails:
            log.info("dead man's switch: %s answers again", self.host)
        self.fails = problem is not None


def ping(url: str) -> str | None:
    """Ask once, follow nothing. What went wrong, without the URL."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with closing(connect(parts.hostname or "", parts.port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path, headers={"User-Agent": "infoscreen-server"})
            status = connection.getresponse().status
    except OSError as error:
        return error.strerror or type(error).__name__
    except HTTPException as error:
        return type(error).__name__
    return None if 200 <= status < 300 else f"answered {status}"
