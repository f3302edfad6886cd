"""The agent's status document as a table of at most 80 columns for people. Text only; cli.py prints it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

WIDTH = 80
_LABEL = 11


def status_table(status: Mapping[str, Any]) -> str:
    """The document is described beside the agent that makes it; a part that is missing is shown as unknown."""
    rows = [
        ("kiosk", str(status.get("uuid", "unknown"))),
        ("expected", _expected(status.get("expectation"))),
        ("player", _player(_part(status, "player"))),
        ("screen", _joined(_part(status, "screen"), "status", "reason")),
        ("restarts", _restarts(_part(status, "restarts"), status.get("enabled", True))),
        ("broker", _broker(_part(status, "broker"))),
        ("outbox", _outbox(_part(status, "outbox"))),
    ]
    head = f"infoscreen-watchdog {status.get('version', '')} · up {duration(status.get('uptime_s'))}"
    return "\n".join([head, *(_row(label, text) for label, text in rows)])


def _row(label: str, text: str) -> str:
    """Long texts go on in the next line, broken at the dots between their parts where that is possible."""
    lines = [""]
    for part in text.split(" · "):
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if len(joined) <= WIDTH - _LABEL or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    width = WIDTH - _LABEL
    cut = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
    return "\n".join((label if number == 0 else "").ljust(_LABEL - 1) + " " + line for number, line in enumerate(cut))


def _part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = status.get(name)
    return part if isinstance(part, Mapping) else {}


def _joined(part: Mapping[str, Any], *names: str) -> str:
    return " · ".join(str(part[name]) for name in names if part.get(name) is not None) or "unknown"


def _expected(expectation: object) -> str:
    if not isinstance(expectation, Mapping):
        return "nothing: say what should be playing with `infoscreen-watchdog expect`"
    text = str(expectation.get("process"))
    if expectation.get("event_id") is not None:
        text += f" · event {expectation['event_id']}"
    kind = expectation.get("event_type") or expectation.get("type")
    if kind is not None:
        text += f" ({kind})"
    return text + f" · registered by {expectation.get('source', 'config')}"


def _player(player: Mapping[str, Any]) -> str:
    if not player.get("process"):
        return "none"
    text = f"{player['process']} · {player.get('status', 'unknown')}"
    return text if player.get("pid") is None else f"{text} · pid {player['pid']}"


def _restarts(restarts: Mapping[str, Any], enabled: object) -> str:
    if enabled is False:
        return "switched off (enabled = false)"
    if not restarts:
        return "unknown"
    text = f"{restarts.get('used', 0)} of {restarts.get('max', '?')} in {duration(restarts.get('window_s'))}"
    if restarts.get("gave_up"):
        text += " · GAVE UP, slow tries"
    if restarts.get("next_in_s") is not None:
        text += f" · next in {duration(restarts['next_in_s'])}"
    return text


def _broker(broker: Mapping[str, Any]) -> str:
    if not broker.get("url"):
        return "none configured"
    return f"{'connected' if broker.get('connected') else 'NOT CONNECTED'} · {broker['url']}"


def _outbox(outbox: Mapping[str, Any]) -> str:
    pending = outbox.get("pending")
    if not isinstance(pending, int):
        return "unknown"
    text = "1 record waits" if pending == 1 else f"{pending:,} records wait" if pending else "nothing waits"
    oldest = outbox.get("oldest")
    if pending and isinstance(oldest, str):
        text += f" · oldest {_moment(oldest)}"
    trouble = outbox.get("trouble")
    return f"{text} · {trouble}" if trouble else text


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return text


def duration(seconds: object) -> str:
    """
    >>> duration(59.6), duration(754), duration(90_000)
    ('60 s', '12 min 34 s', '1 d 1 h')
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return "unknown"
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if (amount := left // unit) and (unit > 1 or left < 60 or parts):
            parts.append(f"{amount} {name}")
        left %= unit
    if parts == ["1 min"]:
        return "60 s"
    return " ".join(parts[:2]) or "0 s"


def size(count: int) -> str:
    """
    >>> size(900), size(3 * 2**20)
    ('900 B', '3.0 MiB')
    """
    amount = float(count)
    for name in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {name}" if name == "B" else f"{amount:.1f} {name}"
        amount /= 1024
    return f"{amount:.1f} GiB"
