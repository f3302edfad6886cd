"""The admins' page of alerts: what fires now, messages that did not arrive, and what fired before."""

from collections import defaultdict
from itertools import groupby

from flask import Blueprint, render_template, request, url_for

from infoscreen_server.accounts import Access
from infoscreen_server.alerts import history, settings
from infoscreen_server.alerts.evaluate import NOTED_EVERY
from infoscreen_server.alerts.history import Told
from infoscreen_server.context import access, parts
from infoscreen_server.pages import alert_words
from infoscreen_server.queries import Cursor

blueprint = Blueprint("alerts", __name__)

PER_PAGE = 20
MOST_SHOWN = 300
"""Of what fires now; an outage of a large fleet is one alert."""
IDLE_AFTER = 6 * NOTED_EVERY
"""Without a look at the rules for so long, nobody looks."""


@blueprint.get("/alerts")
@access(Access.ADMIN_OR_HIGHER)
def page() -> str:
    now, before = parts().now(), _before()
    with parts().engine.connect() as connection:
        firing = history.current(connection, now)
        past = history.page(connection, now, limit=PER_PAGE, before=before)
        messages = history.messages_of(connection, {number for each in past.alerts for number in each.numbers})
        failed, late = history.failed_messages(connection, now), history.late_messages(connection)
        looked_at = history.looked_at(connection)
        has_channel = bool(settings.channel_list(connection))
    following = past.following and url_for("alerts.page", before=past.following.text(), _anchor="history")
    return render_template(
        "alerts.html",
        groups=grouped(firing[:MOST_SHOWN]),
        firing=len(firing),
        silenced=sum(each.silenced for each in firing),
        most_shown=MOST_SHOWN,
        past=past.alerts,
        messages_of=lambda alert: [each for number in sorted(alert.numbers) for each in messages.get(number, [])],
        failed=failed,
        late=late,
        looked_at=looked_at,
        idle=looked_at is None or now - looked_at > IDLE_AFTER,
        has_channel=has_channel,
        newest=url_for("alerts.page", _anchor="history") if before else None,
        older=following,
        kinds=alert_words.KINDS,
        message_kinds=alert_words.MESSAGE_KINDS,
        statuses=alert_words.STATUSES,
        now=now,
    )


def grouped(firing: list[Told]) -> list[tuple[str, list[tuple[str | None, list[Told]]]]]:
    """By rule, those with the most first, then by site."""
    rules: dict[tuple[str, int], list[Told]] = defaultdict(list)
    for each in firing:
        rules[each.rule, each.rule_id].append(each)
    return [
        (name, [(site or None, list(some)) for site, some in groupby(sorted(members, key=_site), key=_site)])
        for (name, _), members in sorted(rules.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _site(alert: Told) -> str:
    return alert.site or ""


def _before() -> Cursor | None:
    try:
        return Cursor.parse(request.args.get("before", ""))
    except ValueError:
        return None
