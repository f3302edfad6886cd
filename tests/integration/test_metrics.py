"""/metrics: what Prometheus reads, against what the database holds."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infoscreen_server.accounts import add_token
from infoscreen_server.ledger import Arrival
from infoscreen_server.models import Scope, TokenRole
from infoscreen_server.store import ingest
from infoscreen_shared.messages import Heartbeat, LogLevel, ProcessStatus, ScreenHealthStatus, timestamp_text
from parts.api import Api
from parts.fleet import ALL, NOW, batch, uuid_of


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    running.now = NOW
    yield running
    running.close()


def beat(status: ProcessStatus, screen: ScreenHealthStatus, pending: int) -> Heartbeat:
    return Heartbeat(
        uuid="",
        timestamp=NOW,
        current_process="vlc",
        process_pid=1,
        process_status=status,
        current_event_id=1,
        screen_health_status=screen,
        outbox_pending=pending,
        outbox_oldest=None,
        version="1",
    )


def figures(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_fleet_in_figures(api: Api) -> None:
    said = [
        Arrival(uuid_of(1), beat(ProcessStatus.RUNNING, ScreenHealthStatus.OK, 3)),
        Arrival(uuid_of(2), beat(ProcessStatus.CRASHED, ScreenHealthStatus.BLACK, 4)),
        Arrival(uuid_of(1), batch([1, 2], level=LogLevel.ERROR, timestamp=timestamp_text(NOW))),
        Arrival(uuid_of(1), batch([1, 2], level=LogLevel.ERROR, timestamp=timestamp_text(NOW))),
    ]
    ingest(api.engine, said, NOW, ALL, "mqtt")
    # Silent for longer than three heartbeats, and what it said last counts no more.
    ingest(
        api.engine,
        [Arrival(uuid_of(3), beat(ProcessStatus.RUNNING, ScreenHealthStatus.OK, 0))],
        NOW - timedelta(minutes=2),
        ALL,
        "http",
    )
    answer = api.get("/metrics", TokenRole.USER)
    assert answer.content_type.startswith("text/plain")
    found = figures(answer.text)
    assert found["infoscreen_clients", ("online",)] == 2
    assert found["infoscreen_clients", ("offline",)] == 1
    assert found["infoscreen_clients_process", ("running",)] == 1
    assert found["infoscreen_clients_process", ("crashed",)] == 1
    assert found["infoscreen_clients_screen", ("black",)] == 1
    assert found["infoscreen_clients_screen", ("frozen",)] == 0
    assert found["infoscreen_outbox_pending", ()] == 7
    assert found["infoscreen_records_24h", ("error",)] == 2
    assert found["infoscreen_ingest_total", ("mqtt", "duplicate")] == 2
    assert found["infoscreen_last_message_timestamp_seconds", ()] == NOW.timestamp()


def test_an_empty_database_has_figures_too(api: Api) -> None:
    found = figures(api.get("/metrics").text)
    assert found["infoscreen_clients", ("online",)] == 0
    assert ("infoscreen_last_message_timestamp_seconds", ()) not in found


def test_a_token_for_metrics_opens_nothing_else(api: Api) -> None:
    token = add_token(api.engine, "prometheus", TokenRole.USER, now=NOW, scope=Scope.METRICS)
    sent = {"Authorization": f"Bearer {token}"}
    assert api.client.get("/metrics", headers=sent).status_code == 200
    assert api.client.get("/api/clients", headers=sent).status_code == 403


def test_openmetrics_where_it_is_asked_for(api: Api) -> None:
    sent = {"Authorization": f"Bearer {api.token(TokenRole.USER)}", "Accept": "application/openmetrics-text"}
    answer = api.client.get("/metrics", headers=sent)
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
