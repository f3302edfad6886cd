"""Words that pages and messages share. Loads nothing of the web: the part that sends alerts stays small."""

from infoscreen_server.i18n import gettext, lazy, ngettext

MINUTE, HOUR, DAY = 60, 3600, 86_400
RULE_NAMES = (
    lazy("Screen is offline"),
    lazy("Screen is black or frozen"),
    lazy("Player crashes again and again"),
    lazy("Records are dropped"),
    lazy("Many errors"),
    lazy("Server or broker"),
)
"""Of the rules that a server begins with: in the database they are English, and each reads them in their language."""


class FieldError(ValueError):
    """Something cannot be set so; the text says why and is fit to be shown.

    `field` is what is wrong, `text` with `values` how, for gettext.
    """

    def __init__(self, field: str, text: str, **values: object) -> None:
        super().__init__(f"{field}: {text % values if values else text}")
        self.field = field
        self.text = text
        self.values = values


def duration(seconds: float | None) -> str:
    """The two largest units: 45 s, 3 min 5 s, 2 h 10 min, 4 d 3 h."""
    if seconds is None:
        return "–"
    total = max(0, round(seconds))
    if total < MINUTE:
        return gettext("%(s)d s", s=total)
    if total < HOUR:
        return gettext("%(m)d min %(s)d s", m=total // MINUTE, s=total % MINUTE)
    if total < DAY:
        return gettext("%(h)d h %(m)d min", h=total // HOUR, m=total % HOUR // MINUTE)
    return gettext("%(d)d d %(h)d h", d=total // DAY, h=total % DAY // HOUR)


def length(seconds: int) -> str:
    """Of a span that people set, in whole units.

    >>> length(600), length(43_200), length(5_400), length(172_800)
    ('10 min', '12 h', '1 h 30 min', '2 days')
    """
    hours, minutes = seconds // HOUR, seconds % HOUR // MINUTE
    if seconds > DAY and seconds % DAY == 0:
        return ngettext("%(n)d day", "%(n)d days", seconds // DAY)
    if hours and minutes:
        return gettext("%(h)d h %(m)d min", h=hours, m=minutes)
    if hours:
        return gettext("%(h)d h", h=hours)
    return gettext("%(m)d min", m=minutes) if minutes or not seconds else gettext("%(s)d s", s=seconds)


def lasted(seconds: float) -> str:
    """As duration, without seconds from a minute on.

    >>> lasted(45), lasted(725), lasted(7_261), lasted(360_000)
    ('45 s', '12 min', '2 h 1 min', '4 d 4 h')
    """
    return length(int(seconds)) if MINUTE <= seconds < DAY else duration(seconds)


def rule_name(name: str) -> str:
    return gettext(name) if name in RULE_NAMES else name


def stored_rule_name(given: str) -> str:
    """What rule_name made of it, taken back."""
    return next((name for name in RULE_NAMES if gettext(name) == given.strip()), given)
