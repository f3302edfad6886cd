"""The words of alerts on pages: what a rule says, whom a silence is about, when it holds. Pure but for language."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from babel.dates import get_day_names

from infoscreen_server.alerts import week as weeks
from infoscreen_server.alerts.hours import Hours
from infoscreen_server.alerts.settings import DAY, HOUR, MINUTE
from infoscreen_server.alerts.silences import Scope
from infoscreen_server.i18n import gettext, language, lazy
from infoscreen_server.models_alerts import MessageKind, MessageStatus, RuleKind

KINDS = {
    RuleKind.OFFLINE: lazy("Screen is offline"),
    RuleKind.SCREEN: lazy("Picture is black or frozen"),
    RuleKind.ERRORS: lazy("Many errors"),
    RuleKind.CRASH_LOOP: lazy("Player crashes again and again"),
    RuleKind.BUFFER: lazy("Records are dropped"),
    RuleKind.OUTAGE: lazy("Many screens fall silent at once"),
}
_SAYS = {
    RuleKind.OFFLINE: lazy("A screen is not heard of."),
    RuleKind.SCREEN: lazy("The picture of a screen is black or frozen."),
    RuleKind.ERRORS: lazy("More than %(n)s errors of a screen within %(window)s; over at %(clear)s."),
    RuleKind.CRASH_LOOP: lazy(
        "The player crashes more than %(n)s times within %(window)s, or is given up; over at %(clear)s."
    ),
    RuleKind.BUFFER: lazy("A screen had to drop records within %(window)s."),
    RuleKind.OUTAGE: lazy("More than %(n)s percent of the screens fall silent at about the same time."),
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


def length(seconds: int) -> str:
    """
    >>> length(600), length(43_200), length(5_400)
    ('10 min', '12 h', '1 h 30 min')
    """
    hours, minutes = seconds // HOUR, seconds % HOUR // MINUTE
    if seconds and seconds % DAY == 0:
        return gettext("%(d)d d", d=seconds // DAY)
    if hours and minutes:
        return gettext("%(h)d h %(m)d min", h=hours, m=minutes)
    if hours:
        return gettext("%(h)d h", h=hours)
    return gettext("%(m)d min", m=minutes) if minutes or not seconds else gettext("%(s)d s", s=seconds)


def says(rule: Mapping[str, Any]) -> str:
    """One sentence: when a rule holds."""
    clear = rule["threshold"] if rule["clear_threshold"] is None else rule["clear_threshold"]
    sentence = _SAYS[rule["kind"]]
    return gettext(sentence) % {"n": rule["threshold"], "window": length(rule["window"] or 0), "clear": clear}


def day_names() -> list[str]:
    """Monday first, in the reader's language."""
    names = get_day_names("wide", locale=language())
    return [str(names[number]) for number in range(7)]


def week_lines(hours: Hours) -> list[str]:
    """Days with the same times together: Monday – Friday 08:00-18:00."""
    names, lines, first = day_names(), [], 0
    table = weeks.table_text(hours)
    for number in range(7):
        if number == 6 or table[number + 1] != table[number]:
            days = names[first] if first == number else f"{names[first]} – {names[number]}"
            if table[number]:
                lines.append(f"{days} {table[number].replace('-', '–')}")
            first = number + 1
    return lines


def closed_text(closed: frozenset[date]) -> str:
    return ", ".join(each.isoformat() for each in sorted(closed))
