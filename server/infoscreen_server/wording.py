"""Words that pages and messages share. Loads nothing of the web: the part that sends alerts stays small."""

from infoscreen_server.i18n import gettext

MINUTE, HOUR, DAY = 60, 3600, 86_400


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
