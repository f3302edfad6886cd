"""The words of alerts on pages: what a rule says, whom a silence is about, when it holds. Pure but for language."""

import re
from collections.abc import Collection, Mapping
from datetime import date
from functools import cache
from typing import Any

from babel.dates import format_date, get_day_names

from infoscreen_server.alerts import week as weeks
from infoscreen_server.alerts.hours import Hours
from infoscreen_server.alerts.silences import Scope
from infoscreen_server.i18n import gettext, language, lazy, plain
from infoscreen_server.models_alerts import MessageKind, MessageStatus, RuleKind
from infoscreen_server.wording import length

KINDS = {
    RuleKind.OFFLINE: lazy("Screen is offline"),
    RuleKind.SCREEN: lazy("Picture is black or frozen"),
    RuleKind.ERRORS: lazy("Many errors"),
    RuleKind.CRASH_LOOP: lazy("Player crashes again and again"),
    RuleKind.BUFFER: lazy("Records are dropped"),
    RuleKind.OUTAGE: lazy("Many screens fall silent at once"),
}
_SAYS = {
    RuleKind.OFFLINE: lazy("Nothing is heard of a screen."),
    RuleKind.SCREEN: lazy("The picture of a screen is black or frozen."),
    RuleKind.ERRORS: lazy("A screen has more than %(n)s errors within %(window)s."),
    RuleKind.CRASH_LOOP: lazy("The player crashes more than %(n)s times within %(window)s, or is given up."),
    RuleKind.BUFFER: lazy("A screen had to drop records within the last %(window)s."),
    RuleKind.OUTAGE: lazy("More than %(n)s percent of the screens fall silent at about the same time."),
}
_OVER = {
    RuleKind.ERRORS: lazy("It is over at %(n)s or fewer."),
    RuleKind.CRASH_LOOP: lazy("It is over at %(n)s or fewer."),
}
THRESHOLDS = {
    RuleKind.ERRORS: lazy("More errors than"),
    RuleKind.CRASH_LOOP: lazy("More crashes than"),
    RuleKind.OUTAGE: lazy("More screens than (percent)"),
}
SCOPES = {
    Scope.ALL: lazy("All screens"),
    Scope.CLIENT: lazy("One screen"),
    Scope.SITE: lazy("One place"),
    Scope.TAG: lazy("One tag"),
}
MESSAGE_KINDS = {
    MessageKind.FIRING: lazy("Alert"),
    MessageKind.REMINDER: lazy("Reminder"),
    MessageKind.RECOVERED: lazy("Recovered"),
    MessageKind.FLAPPING: lazy("On and off"),
    MessageKind.STEADY: lazy("Steady again"),
}
STATUSES = {
    MessageStatus.PENDING: (lazy("To be sent"), "info"),
    MessageStatus.SENDING: (lazy("Being sent"), "info"),
    MessageStatus.SENT: (lazy("Sent"), "good"),
    MessageStatus.FAILED: (lazy("Failed"), "bad"),
}

ERRORS = (
    lazy("it answered %(code)s"),
    lazy("it answered %(code)s, to send it elsewhere; that is not done"),
    lazy("the mail server answered %(code)s"),
    lazy("the sending process ended with exit code %(code)s"),
    lazy("the name %(host)s is not known"),
    lazy("%(address)s is an address of this machine or its surroundings; alert_allow_local permits it"),
)
"""What the sender says with something filled in, which is how the database has it."""


def says(rule: Mapping[str, Any]) -> str:
    """When a rule holds, in a sentence or two."""
    said, over = _SAYS[rule["kind"]], _OVER.get(rule["kind"])
    sentence = gettext(said) % {"n": rule["threshold"], "window": length(rule["window"] or 0)}
    if over is None:
        return sentence
    clear = rule["threshold"] if rule["clear_threshold"] is None else rule["clear_threshold"]
    if not clear:
        over = lazy("It is over when there was none for that long.")
    return f"{sentence} {gettext(over, n=clear)}"


def why(error: str) -> str:
    """Why a message did not arrive. Where the text was filled in already, it is found again by its form."""
    for pattern, text in _forms():
        if found := pattern.fullmatch(error):
            return gettext(text, **found.groupdict())
    return plain(error)


@cache
def _forms() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>\\S+)", re.escape(text))), text) for text in ERRORS]


def day_names() -> list[str]:
    """Monday first, in the reader's language."""
    names = get_day_names("wide", locale=language())
    return [str(names[number]) for number in range(7)]


def week_rows(hours: Hours) -> list[tuple[str, str]]:
    """Days with the same times together, as a table: Monday – Friday, 08:00–18:00. Nothing where it is closed."""
    names, rows, first = day_names(), [], 0
    table = weeks.table_text(hours)
    for number in range(7):
        if number == 6 or table[number + 1] != table[number]:
            days = names[first] if first == number else f"{names[first]} – {names[number]}"
            rows.append((days, table[number].replace("-", "–")))
            first = number + 1
    return rows


def closed_days(closed: Collection[date], today: date) -> list[str]:
    """Those to come, in the reader's way, and days in a row as one: 24 Dec 2026 – 6 Jan 2027."""
    found = weeks.runs(each for each in closed if each >= today)
    return [day_text(first) if first == last else f"{day_text(first)} – {day_text(last)}" for first, last in found]


def day_text(day: date) -> str:
    return format_date(day, "medium", locale={"en": "en_GB"}.get(language(), language()))
