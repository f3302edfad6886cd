"""How values are worded on pages: states, durations, sizes, roles. The templates' filters; pure but for language."""

from collections.abc import Callable
from datetime import MAXYEAR, UTC, datetime, timedelta
from typing import Any

from babel.numbers import format_decimal, get_decimal_symbol

from infoscreen_server.accounts import Access, Caller, allowed
from infoscreen_server.i18n import gettext, language, lazy, ngettext
from infoscreen_server.wording import DAY, HOUR, MINUTE, duration

_STATES = {
    "running": lazy("Running"),
    "crashed": lazy("Crashed"),
    "starting": lazy("Starting"),
    "stopped": lazy("Stopped"),
    "unknown": lazy("Unknown"),
    "OK": lazy("OK"),
    "BLACK": lazy("Black"),
    "FROZEN": lazy("Frozen"),
    "UNKNOWN": lazy("Unknown"),
    "online": lazy("Online"),
    "offline": lazy("Offline"),
    "never": lazy("Never seen"),
    "ERROR": lazy("Error"),
    "WARN": lazy("Warning"),
    "INFO": lazy("Info"),
    "DEBUG": lazy("Debug"),
    "user": lazy("User"),
    "admin": lazy("Administrator"),
    "superadmin": lazy("Super administrator"),
    "device": lazy("Kiosk"),
    "auto": lazy("As the system"),
    "light": lazy("Light"),
    "dark": lazy("Dark"),
}
_KINDS = {
    "running": "good",
    "OK": "good",
    "online": "good",
    "crashed": "bad",
    "BLACK": "bad",
    "FROZEN": "bad",
    "ERROR": "bad",
    "offline": "off",
    "stopped": "warn",
    "starting": "warn",
    "WARN": "warn",
    "INFO": "info",
}


def may(caller: Caller, rule: Access | str) -> bool:
    return allowed(Access(rule), caller, None)


def word(value: object) -> str:
    """A state, level or role in the reader's language; what is not one of ours stays as it is."""
    text = "unknown" if value is None else str(value)
    return gettext(_STATES[text]) if text in _STATES else text


LEVEL_BUTTONS = (
    (None, lazy("All")),
    ("ERROR", lazy("Errors")),
    ("WARN", lazy("Warnings")),
    ("INFO", lazy("Info")),
)
"""Of what lists records."""
_ACCESS = {
    "public": lazy("everybody, without a token"),
    "user_or_higher": lazy("users and higher"),
    "admin_or_higher": lazy("administrators and higher"),
    "superadmin": lazy("super administrators"),
    "own_device": lazy("the kiosk itself, with its own token"),
}


def access_word(rule: str) -> str:
    """Whom a route is for."""
    return gettext(_ACCESS[rule])


def kind(value: object) -> str:
    """How a state is drawn: good, warn, bad, off, info or none."""
    return _KINDS.get(str(value), "none")


def ago(when: datetime, now: datetime) -> str:
    seconds = (now - when).total_seconds()
    if seconds < MINUTE:
        return gettext("just now")
    if seconds < HOUR:
        return ngettext("%(n)d minute ago", "%(n)d minutes ago", int(seconds // MINUTE))
    if seconds < DAY:
        return ngettext("%(n)d hour ago", "%(n)d hours ago", int(seconds // HOUR))
    return ngettext("%(n)d day ago", "%(n)d days ago", int(seconds // DAY))


def size(number: float | None) -> str:
    """Bytes in binary units: 512 B, 1.4 MiB."""
    if number is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{decimal(number, 0 if unit == 'B' or number >= 100 else 1)} {unit}"
        number /= 1024
    raise AssertionError


def percent(share: float | None) -> str:
    """A share of one, cut and not rounded: what was not always up is never 100 %."""
    return "–" if share is None else f"{decimal(int(share * 10_000) / 100, 2)} %"


def decimal(number: float, places: int) -> str:
    """With the language's sign before the fraction."""
    return f"{number:.{places}f}".replace(".", get_decimal_symbol(language()))


def count(number: int | None) -> str:
    """With the language's sign between thousands: 18,412."""
    if number is None:
        return "–"
    # Small ones are the same everywhere, and a list has hundreds of them.
    return str(number) if 0 <= number < 1000 else str(format_decimal(number, locale=language()))


def moment(value: datetime | str | None) -> datetime | None:
    """The API's dicts have times as text."""
    return datetime.fromisoformat(value).astimezone(UTC) if isinstance(value, str) else value


def utc(value: datetime | str) -> str:
    when = moment(value)
    assert when is not None
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def utc_minute(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def iso(value: datetime | str) -> str:
    when = moment(value)
    assert when is not None
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def csv_form() -> dict[str, Any]:
    """Parameters of a CSV's address. Where numbers have a decimal comma, Excel wants a semicolon."""
    return {"separator": "semicolon"} if language() == "de" else {}


def form_time(when: datetime, up: bool = False) -> str:
    """For a datetime-local field, in UTC to the second; `up` to the next one: an end stays behind its records."""
    if up and when.microsecond and when.year < MAXYEAR:
        when += timedelta(seconds=1)
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


FILTERS: dict[str, Callable[..., Any]] = {
    "word": word,
    "kind": kind,
    "access_word": access_word,
    "duration": duration,
    "ago": ago,
    "size": size,
    "percent": percent,
    "count": count,
    "moment": moment,
    "utc": utc,
    "utc_minute": utc_minute,
    "iso": iso,
    "form_time": form_time,
}
