"""The System monitor: what is wrong in the fleet, everything that comes in as it comes, and how ingest does."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, NamedTuple

from babel.numbers import format_decimal
from flask import Blueprint, Response, abort, flash, make_response, redirect, render_template, request, url_for
from markupsafe import Markup
from sqlalchemy import Connection, Row, select
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import fleet, ingest_figures, issues, live_source, queries
from infoscreen_server.accounts import Access
from infoscreen_server.api import MAX_TEXT
from infoscreen_server.context import access, caller, parts
from infoscreen_server.i18n import gettext, language, lazy
from infoscreen_server.ingest_figures import Figures
from infoscreen_server.issues import Issue
from infoscreen_server.live_source import Wish
from infoscreen_server.log_search import folded, log_of
from infoscreen_server.models import Client
from infoscreen_server.pages import charts
from infoscreen_server.pages.numbered import numbered
from infoscreen_server.pages.visible import visible
from infoscreen_server.pages.words import LEVEL_BUTTONS
from infoscreen_server.wording import duration
from infoscreen_shared import __version__
from infoscreen_shared.messages import MAX_CODE_CHARS, LogLevel, clean

blueprint = Blueprint("system", __name__)

LINES, LETTERS = 20, 20
ISSUES, KNOWN, CLIENTS = 40, 20, 50
"""On one page: issues, those that are acknowledged, and who shows one."""
ISSUE_ROOM, LINE_ROOM, LETTER_ROOM = 400, 800, 400
"""Bytes of HTML for one text."""
CHART_GAP = timedelta(minutes=5)
"""Between two samples: longer than this nothing was sampled, and no line is drawn."""
COUNTED = {
    "duplicate": lazy("Duplicates skipped"),
    "unwanted": lazy("Not wanted (DEBUG_MODE is off)"),
    "rejected": lazy("Messages rejected"),
    "dead": lazy("Records rejected"),
    "cut": lazy("Records shortened"),
    "out_of_order": lazy("Batches asked for again"),
    "retained": lazy("Retained messages ignored"),
    "unknown_client": lazy("Messages of unknown clients"),
}
"""What the doors count, in the order in which it is shown."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an address asks for of the live lines."""

    level: LogLevel | None
    text: str
    client: str
    """As it was typed."""
    uuid: str | None
    """Whose it is; None where that is nobody's, or several clients', or nobody is asked for."""
    is_ambiguous: bool = False

    @property
    def is_unknown(self) -> bool:
        return bool(self.client) and self.uuid is None

    def wish(self) -> Wish:
        levels = frozenset([self.level] if self.level else [])
        return Wish(uuid=self.uuid, levels=levels, text=self.text)

    def filters(self, **other: Any) -> dict[str, Any]:
        """As parameters of an address, `other` ones in place of these."""
        usual = {"level": self.level and str(self.level), "q": self.text, "client": self.client}
        return {name: value for name, value in {**usual, **other}.items() if value}


class Line(NamedTuple):
    id: int
    timestamp: str
    level: LogLevel
    message: Markup
    cut: bool
    code: Markup
    context: Markup | None
    uuid: str
    label: str
    url: str


@blueprint.get("/system")
@access(Access.SUPERADMIN)
def page() -> Response:
    now = parts().now()
    with parts().engine.connect() as connection:
        wanted = wanted_of(connection, request.args)
        # Before the lines are read: what comes between is in the stream then.
        after = live_source.position(connection)
        found = issues.active_issues(connection, now)
        lines = [] if wanted.is_unknown else _lines(connection, wanted)
        figures = ingest_figures.figures(connection, now)
        letters = _letters(connection)
    known = [_issue(each) for each in found if each["acknowledgement"] is not None]
    chart = _chart(figures, now)
    text = render_template(
        "system.html",
        active=numbered(
            [_issue(each) for each in found if each["acknowledgement"] is None],
            "system.page",
            size=ISSUES,
            **wanted.filters(),
        ),
        acknowledged=known[:KNOWN],
        known=len(known),
        figures=figures,
        lag=figures.lag and {"half": _lag(figures.lag.p50), "most": _lag(figures.lag.p95), "n": figures.lag.records},
        chart=chart,
        rates=_rates(figures, chart),
        counted=_counted(figures),
        letters=letters,
        lines=lines,
        wanted=wanted,
        buttons=LEVEL_BUTTONS,
        address=lambda **other: url_for("system.page", **wanted.filters(**other)),
        stream=None if wanted.is_unknown else _stream(wanted, after),
        most_issues=issues.MAX_ISSUES if len(found) >= issues.MAX_ISSUES else None,
        max_note=issues.MAX_NOTE,
        now=now,
        server_version=__version__,
    )
    return make_response(text)


@blueprint.get("/system/issue")
@access(Access.SUPERADMIN)
def issue() -> Response:
    """Who shows one issue."""
    asked = _asked(request.args)
    if asked is None:
        abort(HTTPStatus.NOT_FOUND)
    now = parts().now()
    with parts().engine.connect() as connection:
        clients = issues.clients_of_issue(connection, asked, now)
    for each in clients:
        each["label"] = queries.label_of(each["name"], each["hostname"], each["uuid"])
        each["message"] = visible(each["last_message"], ISSUE_ROOM)[0]
    text = render_template(
        "system_issue.html",
        issue=asked,
        shown=visible(asked.code, ISSUE_ROOM)[0],
        clients=numbered(clients, "system.issue", size=CLIENTS, level=asked.level, code=asked.code),
        most=issues.MAX_CLIENTS,
        now=now,
    )
    return make_response(text)


@blueprint.post("/system/acknowledge")
@access(Access.SUPERADMIN)
def acknowledge() -> AnyResponse:
    asked, note = _asked(request.form), clean(request.form.get("note", "").strip())
    if asked is None:
        abort(HTTPStatus.BAD_REQUEST)
    if not note or len(note) > issues.MAX_NOTE:
        flash(gettext("A note of 1 to %(most)s characters is needed.", most=issues.MAX_NOTE))
    elif issues.acknowledge(parts().engine, asked, note, caller().name, parts().now()):
        flash(gettext("The issue is acknowledged until it is gone, or another client shows it."))
    else:
        flash(gettext("This issue is gone."))
    return redirect(url_for("system.page"), HTTPStatus.SEE_OTHER)


@blueprint.post("/system/unacknowledge")
@access(Access.SUPERADMIN)
def unacknowledge() -> AnyResponse:
    asked = _asked(request.form)
    if asked is None:
        abort(HTTPStatus.BAD_REQUEST)
    if issues.unacknowledge(parts().engine, asked):
        flash(gettext("The acknowledgement is taken back."))
    return redirect(url_for("system.page"), HTTPStatus.SEE_OTHER)


# --- out of an address ------------------------------------------------------------------------------------------------


def _asked(given: Any) -> Issue | None:
    level, code = given.get("level", ""), given.get("code", "")
    if level not in (LogLevel.ERROR, LogLevel.WARN) or len(code) > MAX_CODE_CHARS or "\0" in code:
        return None
    return Issue(LogLevel(level), code)


def wanted_of(connection: Connection, given: Any) -> Wanted:
    """In an address may stand anything: what is unknown asks for nothing."""
    level = given.get("level", "").upper()
    client = given.get("client", "").strip()[:100]
    found = _called(connection, client) if client else []
    return Wanted(
        LogLevel(level) if level in set(LogLevel) else None,
        given.get("q", "").strip()[:MAX_TEXT],
        client,
        found[0] if len(found) == 1 else None,
        len(found) > 1,
    )


def _called(connection: Connection, text: str) -> list[str]:
    """The uuids of those whose uuid, name or host name this is: as it stands, or else without regard to case."""
    found = fleet.called(connection, text)
    if found:
        return found
    alike = folded(text)
    rows = connection.execute(select(Client.uuid, Client.name, Client.hostname))
    return [uuid for uuid, *names in rows if alike in (folded(name or "") for name in names)]


# --- onto the page ----------------------------------------------------------------------------------------------------


def _issue(found: dict[str, Any]) -> dict[str, Any]:
    message, cut = visible(found["last_message"], ISSUE_ROOM)
    key = hashlib.sha256(f"{found['level']} {found['code']}".encode()).hexdigest()[:12]
    shown = visible(found["code"], ISSUE_ROOM)[0]
    return found | {"message": message + Markup(" …") if cut else message, "key": key, "shown": shown}


def _lines(connection: Connection, wanted: Wanted) -> list[Line]:
    rows = live_source.newest_logs(connection, wanted.wish(), LINES).rows[::-1]
    labels = live_source.labels(connection, {row.client_uuid for row in rows})
    return [_line(row, labels.get(row.client_uuid, row.client_uuid)) for row in rows]


def _line(row: Row[Any], label: str) -> Line:
    log, uuid = log_of(row), row.client_uuid
    message, message_cut = visible(log["message"], LINE_ROOM)
    context, context_cut = None, False
    if log["context"]:
        context, context_cut = visible(json.dumps(log["context"], indent=2, ensure_ascii=False), LINE_ROOM)
    return Line(
        id=log["id"],
        timestamp=log["timestamp"],
        level=log["level"],
        message=message,
        cut=message_cut or context_cut,
        code=visible(log["code"] or "", LINE_ROOM)[0],
        context=context,
        uuid=uuid,
        label=label,
        url=url_for("logs.page", uuid=uuid, id=log["id"], _anchor=f"log-{log['id']}"),
    )


def _stream(wanted: Wanted, after: str) -> str:
    filters = wanted.filters(client="", uuid=wanted.uuid)
    return url_for("live.stream", **filters, after=after)


def _letters(connection: Connection) -> list[dict[str, Any]]:
    letters = ingest_figures.dead_letters(connection, LETTERS)
    # Some are of nobody that is known.
    labels = live_source.labels(connection, {letter["client_uuid"] for letter in letters if letter["client_uuid"]})
    found = []
    for letter in letters:
        payload, cut = visible(letter["payload"], LETTER_ROOM)
        shown = {name: visible(letter[name], LETTER_ROOM)[0] for name in ("topic", "reason")}
        found.append(letter | shown | {"payload": payload, "cut": cut, "label": labels.get(letter["client_uuid"])})
    return found


def _rates(figures: Figures, chart: charts.Line | None) -> dict[str, str]:
    found = {"now": figures.now_rate, "hour": figures.hour_rate}
    if chart is not None:
        found |= {"last": chart.last, "most": chart.high}
    return {name: "–" if rate is None else _rate(rate) for name, rate in found.items()}


def _rate(number: float) -> str:
    return str(format_decimal(number, format="#,##0.0", locale=language()))


def _lag(seconds: float) -> str:
    return gettext("%(s)s s", s=_rate(seconds)) if seconds < 10 else duration(seconds)


def _chart(figures: Figures, now: datetime) -> charts.Line | None:
    return charts.line(figures.per_minute, now - ingest_figures.KEPT, now, CHART_GAP, 0.0)


def _counted(figures: Figures) -> list[tuple[str, str, int | None, int]]:
    """Door, what, in the last hour, in all: of what there is any."""
    found = []
    for source, names in sorted(figures.total.items()):
        for name in sorted(names, key=lambda name: (list(COUNTED).index(name) if name in COUNTED else 99, name)):
            word = gettext(COUNTED[name]) if name in COUNTED else name
            hour = figures.last_hour.get(source, {}).get(name) if figures.last_hour else None
            found.append((source, word, hour, names[name]))
    return found
