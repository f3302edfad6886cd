"""What the agent tells about itself: health, heartbeat, the STATUS line and the status document. Data in, data out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from infoscreen_device.core.budget import used
from infoscreen_device.core.model import Expectation
from infoscreen_device.core.phases import Phase, State
from infoscreen_device.core.picture import usual
from infoscreen_device.core.policy import RestartPolicy
from infoscreen_device.core.recovery import view
from infoscreen_device.delivery import DeliveryStatus
from infoscreen_device.expectation import motion_text
from infoscreen_device.screen_watch import ScreenView
from infoscreen_shared.messages import (
    Health,
    Heartbeat,
    ScreenHealthStatus,
    encode_health,
    encode_heartbeat,
    timestamp_text,
)

NOTHING_EXPECTED = "nothing is expected: name a player with 'infoscreen-watchdog expect' or in [player]"


@dataclass(frozen=True, slots=True)
class Identity:
    uuid: str
    version: str


def health(state: State, screen: ScreenView, system: dict[str, Any], utc: datetime) -> bytes:
    player = view(state)
    expected = state.expectation
    return encode_health(
        Health(
            timestamp=utc,
            expected_event_id=None if expected is None else expected.event_id,
            expected_event_type=None if expected is None else expected.event_type,
            process=player.process,
            process_pid=player.pid,
            process_status=player.status,
            screen_status=screen.status,
            screen_reason=screen.reason,
            screen_hash=screen.hash,
            screen_analyzed_at=screen.analyzed_at,
            system=system,
        )
    )


def heartbeat(state: State, screen: ScreenView, delivery: DeliveryStatus, identity: Identity, utc: datetime) -> bytes:
    player = view(state)
    return encode_heartbeat(
        Heartbeat(
            uuid=identity.uuid,
            timestamp=utc,
            current_process=player.process,
            process_pid=player.pid,
            process_status=player.status,
            current_event_id=None if state.expectation is None else state.expectation.event_id,
            screen_health_status=screen.status,
            outbox_pending=delivery.pending,
            outbox_oldest=delivery.oldest,
            version=identity.version,
        )
    )


def status_line(state: State, screen: ScreenView, delivery: DeliveryStatus) -> str:
    """For `systemctl status`: one line that says what matters."""
    player = view(state)
    what = NOTHING_EXPECTED
    if player.process is not None:
        pid = "" if player.pid is None else f" (pid {player.pid})"
        what = f"{player.process} {'given up' if state.phase is Phase.GAVE_UP else player.status}{pid}"
    broker = "broker connected" if delivery.connected else "broker away"
    trouble = "" if delivery.trouble is None else f" · {delivery.trouble}"
    waiting = "1 record waiting" if delivery.pending == 1 else f"{delivery.pending} records waiting"
    return f"{what} · {screen_words(screen)} · {broker} · {waiting}{trouble}"


def status_document(
    state: State,
    screen: ScreenView,
    delivery: DeliveryStatus,
    identity: Identity,
    *,
    enabled: bool,
    broker_url: str | None,
    policy: RestartPolicy,
    now: float,
    started: float,
) -> dict[str, Any]:
    """What `infoscreen-watchdog status --json` prints. `now` and `started` are boottime seconds."""
    player = view(state)
    due = state.due if state.phase in (Phase.BACKOFF, Phase.GAVE_UP) else None
    lanes = {level.lower(): [lane.base, lane.next, lane.durable] for level, lane in delivery.lanes.items()}
    return {
        "version": identity.version,
        "uuid": identity.uuid,
        "enabled": enabled,
        "expectation": None if state.expectation is None else _expectation(state.expectation),
        "player": {"process": player.process, "pid": player.pid, "status": player.status},
        "screen": {
            "status": screen.status,
            "reason": screen.reason,
            "text": screen.text,
            "hash": screen.hash,
            "analyzed_at": None if screen.analyzed_at is None else timestamp_text(screen.analyzed_at),
        },
        "restarts": {
            "used": used(state.budget, now, policy),
            "max": policy.max_restarts,
            "window_s": policy.window_s,
            "next_in_s": None if due is None else round(max(0.0, due - now), 3),
            "gave_up": state.budget.gave_up,
        },
        "broker": {"connected": delivery.connected, "url": broker_url},
        "outbox": {
            "pending": delivery.pending,
            "oldest": None if delivery.oldest is None else timestamp_text(delivery.oldest),
            "epoch": delivery.epoch,
            "lanes": lanes,
            "trouble": delivery.trouble,
        },
        "uptime_s": round(now - started, 3),
    }


def screen_words(screen: ScreenView) -> str:
    """
    >>> screen_words(ScreenView())
    'screen not looked at yet'
    """
    if screen.status is ScreenHealthStatus.UNKNOWN:
        return f"screen {screen.reason}" if "screen" not in screen.reason else screen.reason
    detail = "" if screen.reason in ("ok", screen.status.lower()) else f" ({screen.reason})"
    return f"screen {screen.status}{detail}"


def _expectation(expectation: Expectation) -> dict[str, Any]:
    """Without the environment, which is nobody else's business."""
    restart = expectation.restart
    return {
        "event_id": expectation.event_id,
        "type": expectation.event_type,
        "motion": motion_text(expectation.motion or usual(expectation.event_type)),
        "process": expectation.process,
        "pid": expectation.pid,
        "cmdline": list(expectation.cmdline),
        "user": expectation.user,
        "restart": list(restart.argv) or (f"{restart.way}:{restart.unit}" if restart.unit else restart.way),
        "source": expectation.source,
    }
