"""/metrics for Prometheus: how the fleet stands and what the doors counted, read from the database at each scrape.

From the database and not from counters in memory: so all web processes give the same figures, and a restart loses none.
"""

from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from sqlalchemy import Connection, false, func, select

from infoscreen_server import queries
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, parts
from infoscreen_server.forms import TOKEN, Problem
from infoscreen_server.models import Client, Counter, IngestStat, UtcTime
from infoscreen_shared import __version__
from infoscreen_shared.messages import ProcessStatus, ScreenHealthStatus

_TEXT: dict[str, Any] = {"description": "Prometheus' text format, or OpenMetrics", "content": {"text/plain": {}}}

metrics = APIBlueprint("metrics", __name__)


@metrics.get(
    "/metrics",
    operation_id="metrics",
    security=TOKEN,
    responses={200: _TEXT, HTTPStatus.UNAUTHORIZED: Problem, HTTPStatus.FORBIDDEN: Problem, 503: Problem},
)
@access(Access.USER_OR_HIGHER)
def scrape() -> Response:
    """Figures for Prometheus. A token with the scope `metrics` is enough."""
    registry = CollectorRegistry()
    with parts().engine.connect() as connection:
        registry.register(_Fleet(connection, parts().now(), parts().config.silence_s))
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=content_type)


class _Fleet(Collector):
    def __init__(self, connection: Connection, now: datetime, silence_s: float) -> None:
        self.connection, self.now, self.silence_s = connection, now, silence_s

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("infoscreen_server_info", "Version of the server.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield from self._clients()
        yield from self._records()

    def _clients(self) -> Iterator[Metric]:
        """A client that is offline has no process and screen: what it said last is no state."""
        heard = queries.is_online(self.now, self.silence_s)
        # Never heard of is null there, which is offline too.
        online = func.coalesce(heard, false()).label("online")
        all_of = select(online, Client.process_status, Client.screen_health_status).subquery()
        rows = self.connection.execute(select(*all_of.c, func.count().label("n")).group_by(*all_of.c)).all()
        clients = GaugeMetricFamily("infoscreen_clients", "Clients, by whether they are heard of.", labels=["state"])
        for state, wanted in (("online", True), ("offline", False)):
            clients.add_metric([state], sum(row.n for row in rows if bool(row.online) is wanted))
        yield clients
        for name, column, states in (
            ("process", "process_status", ProcessStatus),
            ("screen", "screen_health_status", ScreenHealthStatus),
        ):
            family = GaugeMetricFamily(
                f"infoscreen_clients_{name}", f"Online clients by {name} state.", labels=["state"]
            )
            told = [row for row in rows if row.online]
            for state in (*states, None):
                number = sum(row.n for row in told if getattr(row, column) == state)
                family.add_metric([str(state or "untold").lower()], number)
            yield family
        pending, newest = self.connection.execute(
            select(func.coalesce(func.sum(Client.outbox_pending), 0), func.max(Client.last_alive, type_=UtcTime()))
        ).one()
        yield GaugeMetricFamily("infoscreen_outbox_pending", "Records that clients hold, as last told.", int(pending))
        if newest is not None:
            text = "When anything came in from any client, in seconds since 1970."
            yield GaugeMetricFamily("infoscreen_last_message_timestamp_seconds", text, newest.timestamp())

    def _records(self) -> Iterator[Metric]:
        levels = ("error", "warn", "info", "debug")
        sums = [func.coalesce(func.sum(getattr(Counter, level)), 0) for level in levels]
        recent = GaugeMetricFamily(
            "infoscreen_records_24h", "Records of the last 24 hours, by level.", labels=["level"]
        )
        for level, number in zip(levels, self.connection.execute(select(*sums)).one(), strict=True):
            recent.add_metric([level], int(number))
        yield recent
        counted = CounterMetricFamily(
            "infoscreen_ingest", "What the doors counted since the database was made.", labels=["source", "what"]
        )
        for source, name, number in self.connection.execute(select(IngestStat.source, IngestStat.name, IngestStat.n)):
            counted.add_metric([source, name], number)
        yield counted
