"""The words of a message: one title, a few lines. Pure but for the language, which the caller chooses.

What comes from kiosks and people is cut and freed of control characters, so that it can neither make lines of its own
nor headers of a mail.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any

from infoscreen_server.i18n import gettext, lazy, ngettext
from infoscreen_server.models_alerts import MessageKind, RuleKind
from infoscreen_server.wording import lasted, length, rule_name

MOST_LISTED = 20
MAX_NAME = 80
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class About:
    """One alert, as a message tells of it."""

    uuid: str | None
    """None: the whole fleet, which has no label."""
    label: str
    since: datetime
    ended_at: datetime | None
    detail: str
    zone: tzinfo = UTC
    silent: Sequence[str] = ()
    """Of an outage: see `silent`."""


_WHAT = {
    RuleKind.OFFLINE: lazy("offline"),
    RuleKind.SCREEN: lazy("picture wrong"),
    RuleKind.ERRORS: lazy("many errors"),
    RuleKind.CRASH_LOOP: lazy("player crashes again and again"),
    RuleKind.BUFFER: lazy("records dropped"),
    RuleKind.OUTAGE: lazy("many screens fell silent at once: server, broker or network"),
}
UNSEEN = lazy("Unknown")
_SCREEN = {"BLACK": lazy("Black"), "FROZEN": lazy("Frozen")}
_ENDED = {
    RuleKind.OFFLINE: lazy("online again"),
    RuleKind.SCREEN: lazy("picture right again"),
    RuleKind.ERRORS: lazy("no longer many errors"),
    RuleKind.CRASH_LOOP: lazy("player steady again"),
    RuleKind.BUFFER: lazy("no more records dropped"),
    RuleKind.OUTAGE: lazy("no longer many screens silent at once"),
}
_HEADS = {
    MessageKind.FIRING: lazy("ALERT"),
    MessageKind.REMINDER: lazy("STILL"),
    MessageKind.RECOVERED: lazy("RECOVERED"),
    MessageKind.FLAPPING: lazy("FLAPPING"),
    MessageKind.STEADY: lazy("STEADY"),
}


def plain(text: str, longest: int = MAX_NAME) -> str:
    """One line, without anything that a reader does not see.

    >>> plain("Hall 1\\r\\nBcc: all@example.org")
    'Hall 1 Bcc: all@example.org'
    """
    one = _CONTROL.sub(" ", text).strip()
    return one if len(one) <= longest else one[: longest - 1] + "…"


def detail(kind: RuleKind, figures: dict[str, object], window: int | None) -> str:
    """What the figures behind an alert say."""
    number = figures.get("n")
    span = length(window or 0)
    if kind is RuleKind.SCREEN:
        reason = figures.get("reason")
        status = gettext(_SCREEN.get(str(figures.get("status")), UNSEEN))
        return f"{status}: {plain(str(reason), 200)}" if reason else status
    if kind is RuleKind.ERRORS:
        return gettext("%(n)s errors in %(span)s", n=number, span=span)
    if kind is RuleKind.CRASH_LOOP:
        return gettext("%(n)s crashes in %(span)s", n=number, span=span)
    if kind is RuleKind.BUFFER:
        return plain(str(figures.get("text", "")), 200)
    if kind is RuleKind.OUTAGE:
        return gettext("%(n)s of %(of)s screens", n=number, of=figures.get("of"))
    return ""


def silent(figures: Mapping[str, Any]) -> list[str]:
    """What an outage silenced, a line each: sites with how many, screens that have none; no more than were noted.

    >>> silent({"silent": [["Linz", 5], ["Hall 1", None]], "more": 3})
    ['Linz: 5 screens', 'Hall 1', '… and 3 more']
    """
    lines = []
    for name, number in figures.get("silent", ())[:MOST_LISTED]:
        many = "" if number is None else ": " + ngettext("%(n)d screen", "%(n)d screens", number)
        lines.append(plain(name) + many)
    return [*lines, gettext("… and %(n)s more", n=figures["more"])] if figures.get("more") else lines


def title(kind: MessageKind, rule: RuleKind, site: str | None, abouts: Sequence[About], number: str) -> str:
    """ALERT Hall 1, Linz: offline [#12-1]."""
    if rule is RuleKind.OUTAGE:
        who = gettext("All screens")
    elif len(abouts) == 1:
        who = plain(abouts[0].label)
    else:
        who = ngettext("%(n)d screen", "%(n)d screens", len(abouts))
    where = f", {plain(site)}" if site else ""
    ended = kind is MessageKind.RECOVERED
    what = gettext((_ENDED if ended else _WHAT)[rule])
    if kind is MessageKind.FLAPPING:
        what = gettext("%(what)s, on and off", what=what)
    elif kind is MessageKind.STEADY:
        what = gettext("no longer on and off")
    return f"{gettext(_HEADS[kind])} {who}{where}: {what} [#{number}]"


def body(kind: MessageKind, rule: str, abouts: Sequence[About], also: Sequence[About], address: str | None) -> str:
    lines = _some([_line(each, kind) for each in abouts])
    if kind not in (MessageKind.RECOVERED, MessageKind.STEADY):
        lines += [line for each in abouts[:MOST_LISTED] for line in each.silent]
    if also:
        names = [gettext("All screens") if each.uuid is None else plain(each.label) for each in also]
        lines.append(gettext("Still the case: %(names)s", names=", ".join(_some(names))))
    lines += ["", gettext("Rule: %(name)s", name=plain(rule_name(rule)))]
    if address is not None:
        links = [f"{address}/clients/{each.uuid}" for each in abouts[:MOST_LISTED] if each.uuid]
        lines += links if len(links) == 1 else [address + "/"]
    return "\n".join(lines)


def _some(texts: list[str]) -> list[str]:
    """As many as a message lists, and how many more there are."""
    more = len(texts) - MOST_LISTED
    return texts if more <= 0 else [*texts[:MOST_LISTED], gettext("… and %(n)s more", n=more)]


def _line(about: About, kind: MessageKind) -> str:
    since = about.since.astimezone(about.zone)
    when = f"{since:%Y-%m-%d %H:%M} {since.tzname()}"
    name = plain(about.label)
    if kind is MessageKind.RECOVERED and about.ended_at is not None:
        span = lasted((about.ended_at - about.since).total_seconds())
        if about.uuid is None:
            return gettext("For %(length)s, since %(when)s", length=span, when=when)
        return gettext("%(name)s: for %(length)s, since %(when)s", name=name, length=span, when=when)
    if about.uuid is None:
        line = gettext("Since %(when)s", when=when)
    else:
        line = gettext("%(name)s: since %(when)s", name=name, when=when)
    return f"{line}. {about.detail}" if about.detail else line
