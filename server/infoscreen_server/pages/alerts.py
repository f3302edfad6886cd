"""The admins' page of alerts: what fires now, messages that did not arrive, and what fired before."""

from collections import defaultdict
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from flask import Blueprint, render_template, url_for

from infoscreen_server.accounts import Access
from infoscreen_server.alerts import history, settings
from infoscreen_server.alerts.evaluate import NOTED_EVERY
from infoscreen_server.alerts.history import Message, Told
from infoscreen_server.context import access, parts
from infoscreen_server.models_alerts import RuleKind
from infoscreen_server.pages import alert_words, asked
from infoscreen_server.wording import lasted, rule_name

blueprint = Blueprint("alerts", __name__)

PER_PAGE = 20
MOST_SHOWN, MOST_OF_PLACE = 80, 10
"""Of what fires now, and of each place where not all of it is shown; an outage of a large fleet is one alert."""
MOST_HEAPS, MOST_UNSENT, MOST_TRIES = 3, 4, 5
"""Channels that messages did not reach, of each its messages, of each what came of it."""
MOST_MESSAGES = 6
"""Of one alert."""
IDLE_AFTER = 6 * NOTED_EVERY
"""Without a look at the rules for so long, nobody looks."""


class Site(NamedTuple):
    name: str | None
    number: int
    is_heard: bool
    """Not all of it is silenced."""
    shown: list[Told]


class Group(NamedTuple):
    rule: str
    number: int
    is_heard: bool
    sites: list[Site]


class Tries(NamedTuple):
    """Attempts in a row that came to the same."""

    number: int
    first_at: datetime
    last_at: datetime
    error: str | None
    is_open: bool
    """Under way, or cut off."""


class Heap(NamedTuple):
    """Messages that did not reach a channel."""

    channel: str
    number: int
    error: str | None
    """Of the newest attempt."""
    next_at: datetime | None
    messages: list[Message]


@blueprint.get("/alerts")
@access(Access.ADMIN_OR_HIGHER)
def page() -> str:
    now, before = parts().now(), asked.cursor()
    with parts().engine.connect() as connection:
        firing = without_doubles(history.current(connection, now))
        past = history.page(connection, now, limit=PER_PAGE, before=before)
        messages = history.messages_of(connection, {number for each in past.alerts for number in each.numbers})
        failed, late = history.failed_messages(connection, now), history.late_messages(connection)
        looked_at = history.looked_at(connection)
        has_channel = bool(settings.channel_names(connection))
        has_rule = any(each["enabled"] for each in settings.rules(connection))
    following = past.following and url_for("alerts.page", before=past.following.text(), _anchor="history")
    groups = grouped(firing, MOST_SHOWN)
    return render_template(
        "alerts.html",
        groups=groups,
        unseen=len(firing) - sum(len(site.shown) for group in groups for site in group.sites),
        firing=len(firing),
        silenced=sum(each.silenced for each in firing),
        past=past.alerts,
        messages_of=lambda alert: [each for number in sorted(alert.numbers) for each in messages.get(number, [])],
        failed=by_channel(failed),
        late=by_channel(late),
        most_heaps=MOST_HEAPS,
        tries=tries,
        most_messages=MOST_MESSAGES,
        looked_at=looked_at,
        idle=looked_at is None or now - looked_at > IDLE_AFTER,
        has_channel=has_channel,
        has_rule=has_rule,
        newest=url_for("alerts.page", _anchor="history") if before else None,
        older=following,
        message_kinds=alert_words.MESSAGE_KINDS,
        statuses=alert_words.STATUSES,
        rule_name=rule_name,
        lasted=lasted,
        why=alert_words.why,
        now=now,
    )


def without_doubles(firing: list[Told]) -> list[Told]:
    """Without what fires under one that is said to go on and off, which stands for it."""
    flapping = {(each.rule_id, each.client_uuid) for each in firing if each.flapping}
    return [each for each in firing if each.flapping or (each.rule_id, each.client_uuid) not in flapping]


def grouped(firing: list[Told], room: int) -> list[Group]:
    """By rule, then by site, with at most `room` alerts: what is about the whole fleet first, then the most."""
    most = room if len(firing) <= room else MOST_OF_PLACE
    rules: dict[tuple[bool, str, int], list[Told]] = defaultdict(list)
    for each in firing:
        rules[each.kind is not RuleKind.OUTAGE, each.rule, each.rule_id].append(each)
    found = []
    for (_, name, _), members in sorted(rules.items(), key=lambda item: (item[0][0], -len(item[1]), item[0])):
        sites = []
        for site, some in groupby(sorted(members, key=_place), key=lambda each: each.site):
            there = list(some)
            shown = there[: min(room, most)]
            room -= len(shown)
            if shown:
                sites.append(Site(site, len(there), _is_heard(there), shown))
        if sites:
            found.append(Group(name, len(members), _is_heard(members), sites))
    return found


def _place(alert: Told) -> tuple[bool, str, bool]:
    return alert.site is None, alert.site or "", alert.silenced


def _is_heard(alerts: list[Told]) -> bool:
    return not all(each.silenced for each in alerts)


def by_channel(messages: list[Message]) -> list[Heap]:
    channels: dict[str, list[Message]] = defaultdict(list)
    for each in messages:
        channels[each.channel].append(each)
    return [
        Heap(
            name,
            len(some),
            max(some, key=lambda each: (each.attempts[-1].at if each.attempts else each.created_at, each.id)).why,
            min((each.due_at for each in some if each.due_at), default=None),
            some[:MOST_UNSENT],
        )
        for name, some in channels.items()
    ]


def tries(message: Message) -> list[Tries]:
    """The last of them, the oldest first."""
    found = []
    for (error, is_open), some in groupby(message.attempts, key=lambda each: (each.error, each.ended_at is None)):
        same = list(some)
        found.append(Tries(len(same), same[0].at, same[-1].at, error, is_open))
    return found[-MOST_TRIES:]
