"""The records of the recovery: their codes, levels and words, in one place."""

from infoscreen_device.core.actions import ReportDeath
from infoscreen_device.core.model import Death, Draft, Expectation, ProcessKey
from infoscreen_shared.messages import LogLevel


def about(expectation: Expectation, player: ProcessKey | None = None) -> dict[str, object]:
    """The part of a record's context that says which player it is about."""
    context: dict[str, object] = {"process": expectation.process}
    if expectation.event_id is not None:
        context["event_id"] = expectation.event_id
    if player is not None:
        context["pid"] = player.pid
    return context


def expectation_draft(expectation: Expectation) -> Draft:
    event = "" if expectation.event_id is None else f" for event {expectation.event_id}"
    context = about(expectation) | {"source": expectation.source, "restart": str(expectation.restart.way)}
    if expectation.event_type is not None:
        context["event_type"] = str(expectation.event_type)
    return Draft(LogLevel.INFO, "expectation.set", f"{expectation.process} is expected{event}", context)


def death_draft(report: ReportDeath, death: Death, evidence: dict[str, object]) -> Draft:
    """ERROR for a signal or a failure status; WARN for status 0 and where nobody knows the status."""
    process, key = report.expectation.process, death.key
    context = about(report.expectation, key) | {"ran_s": round(report.ran_s, 3)} | evidence
    if death.signal is not None:
        text = f"{process} (pid {key.pid}) was killed by signal {death.signal}"
        return Draft(LogLevel.ERROR, "player.crashed", text, context | {"signal": death.signal})
    if death.code:
        text = f"{process} (pid {key.pid}) exited with status {death.code}"
        return Draft(LogLevel.ERROR, "player.crashed", text, context | {"exit_code": death.code})
    how = "exited while it should be running" if death.code == 0 else "is gone; its exit status is not known"
    context["exit_code"] = death.code
    return Draft(LogLevel.WARN, "player.exited", f"{process} (pid {key.pid}) {how}", context)
