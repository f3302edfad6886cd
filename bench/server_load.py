"""Requests of one person to a running server, over one connection that is kept: signed in for pages, by token else."""

import http.client
import json
import random
import re
import time
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from bench.server_fleet import SHOWS, Fleet

NOWHERE = "zzqx"
"""In no message."""


@dataclass(slots=True)
class Timing:
    seconds: list[float] = field(default_factory=list)
    largest: int = 0
    """Bytes of the largest answer."""


class Caller:
    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers: dict[str, str] = {}

    def sign_in(self, name: str, password: str) -> None:
        """Afterwards all requests are this user's."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.request("GET", "/sign-in")[1].decode())
        assert found is not None, "the sign-in page has no form"
        form = urlencode({"csrf_token": found[1], "name": name, "password": password, "next": "/"})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        status, _ = self.request("POST", "/sign-in", form, kind)
        assert status == 303, f"signing in was answered with {status}"

    def request(
        self, method: str, path: str, body: str | None = None, more: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        self.connection.request(method, path, body, self.headers | (more or {}))
        answer = self.connection.getresponse()
        content = answer.read()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            self.headers["Cookie"] = cookie.partition(";")[0]
        return answer.status, content

    def timed(self, path: str, timing: Timing) -> None:
        began = time.perf_counter()
        status, content = self.request("GET", path)
        timing.seconds.append(time.perf_counter() - began)
        timing.largest = max(timing.largest, len(content))
        assert status == 200, f"{path} was answered with {status}"

    def exists(self, path: str) -> bool:
        return self.request("GET", path)[0] == 200


class Paths:
    """What is asked for: each time another client, each as likely as any other."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.fleet = fleet
        self.chance = random.Random(seed)

    def any(self, pattern: str) -> str:
        uuid, word = self.chance.choice(self.fleet.kiosks).uuid, self.chance.choice(SHOWS)
        return pattern.format(uuid=uuid, word=quote(word), noisy=self.chance.choice(self.fleet.noisy).uuid)


NOTHING, NOISIEST = "text search, nothing to find", "the same, the noisiest clients"
BY_API = " (API)"
PAGES = {
    "Clients page": "/",
    "log page of a client": "/clients/{uuid}/logs",
    "its errors": "/clients/{uuid}/logs?level=ERROR",
    "text search": "/clients/{uuid}/logs?q={word}",
    NOTHING: f"/clients/{{uuid}}/logs?q={NOWHERE}",
    NOISIEST: f"/clients/{{noisy}}/logs?q={NOWHERE}",
    "page of a client": "/clients/{uuid}",
    "Reliability": "/reliability",
    "System monitor": "/system",
}
API = {
    "API: summary": "/api/client-logs/summary",
    "API: log page": "/api/client-logs/{uuid}/logs",
}
INSTEAD = {
    "Clients page": "/api/clients",
    "log page of a client": "/api/client-logs/{uuid}/logs?limit=20",
    "its errors": "/api/client-logs/{uuid}/logs?level=ERROR&limit=20",
    "text search": "/api/client-logs/{uuid}/logs?q={word}&limit=20",
    NOTHING: f"/api/client-logs/{{uuid}}/logs?q={NOWHERE}&limit=20",
    NOISIEST: f"/api/client-logs/{{noisy}}/logs?q={NOWHERE}&limit=20",
}
"""By the API where there is no such page."""


def routes(caller: Caller, paths: Paths) -> dict[str, str]:
    """What there is, by the name of its measurement; a page that there is not is measured by the API or not at all."""
    found: dict[str, str] = {}
    for name, pattern in PAGES.items():
        if caller.exists(paths.any(pattern)):
            found[name] = pattern
        elif name in INSTEAD:
            found[name + BY_API] = INSTEAD[name]
    return found | API


def measure(caller: Caller, paths: Paths, wanted: dict[str, str], count: int) -> dict[str, Timing]:
    """`count` requests of each, in turns, so that what disturbs one disturbs all."""
    found = {name: Timing() for name in wanted}
    for _ in range(count):
        for name, pattern in wanted.items():
            caller.timed(paths.any(pattern), found[name])
    return found


def stopped_share(caller: Caller, paths: Paths, name: str, count: int = 40) -> float:
    """How many searches of this name, by the API, did not come to the end of the log."""
    bodies = [caller.request("GET", paths.any(INSTEAD[name]))[1] for _ in range(count)]
    return sum("searched_to" in json.loads(body) for body in bodies) / count
