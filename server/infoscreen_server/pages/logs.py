"""The log viewer: one client's records by level, text, code and time, and each of them by an address of its own."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, abort, make_response, render_template, request, url_for
from markupsafe import Markup
from sqlalchemy import Connection, func, select

from infoscreen_server import fleet, live_source, log_search, queries
from infoscreen_server.accounts import Access
from infoscreen_server.api import MAX_CODES, MAX_TEXT
from infoscreen_server.context import access, moment, parts
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.incidents import CODES
from infoscreen_server.log_search import LogPage
from infoscreen_server.models import ClientLog
from infoscreen_server.models_history import IncidentEvent, IssueCount
from infoscreen_server.pages import asked
from infoscreen_server.pages.clients import known_uuid
from infoscreen_server.pages.timeline import PERIODS
from infoscreen_server.pages.visible import visible
from infoscreen_server.pages.words import LEVEL_BUTTONS, csv_form
from infoscreen_server.queries import Cursor, time_text
from infoscreen_shared.messages import MAX_CODE_CHARS, LogLevel, WireError, parse_timestamp

blueprint = Blueprint("logs", __name__)

PAGE, AROUND = 20, 10
"""Records of a page, and of one that shows what came before a certain record, this included."""
RANGES = {
    "1h": (lazy("1 hour"), timedelta(hours=1)),
    **{str(period): (text, period.length) for period, text in PERIODS.items()},
}
LATE = timedelta(minutes=5)
"""What arrives so long after it was made is marked: the kiosk was offline."""
MESSAGE_ROOM, CONTEXT_ROOM, CODE_ROOM = 2_500, 4_000, 500
WHOLE_ROOM = 50_000
"""Bytes of HTML for a record's texts, and for message and context each where it is the one that was asked for."""
RECENT_EVENTS = 500
MOST_CODES = 100
"""To choose from, the most used; one that is not among them can be typed."""
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an address asks for. The range, which moves with the time, is for who names no times."""

    levels: tuple[LogLevel, ...] = ()
    text: str = ""
    codes: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    span: str = ""

    def filters(self, **other: Any) -> dict[str, Any]:
        """As parameters of an address, `other` ones in place of these; what asks for nothing is left out."""
        usual = {
            "level": [str(level) for level in self.levels],
            "q": self.text,
            "code": list(self.codes),
            "since": time_text(self.since),
            "until": time_text(self.until),
            "range": self.span,
        }
        return {name: value for name, value in {**usual, **other}.items() if value}

    def since_when(self, now: datetime) -> datetime | None:
        return now - RANGES[self.span][1] if self.span else self.since


@dataclass(frozen=True, slots=True)
class Line:
    """A record as it is shown."""

    log: dict[str, Any]
    message: Markup
    code: Markup
    context: Markup | None
    cut: bool
    late: float | None
    """Seconds from its making to its arrival, where that is long."""


@blueprint.get("/clients/<uuid>/logs")
@access(Access.ADMIN_OR_HIGHER)
def page(uuid: str) -> Response:
    uuid, at = known_uuid(uuid), moment()
    number = _number(request.args.get("id"))
    wanted, wrong = wanted_of(request.args)
    with parts().engine.connect() as connection:
        # Before the records are read: what comes between is in the stream then.
        after = None if number or "before" in request.args else live_source.position(connection)
        client = queries.client(connection, uuid, at.now, at.silence)
        if client is None:
            abort(HTTPStatus.NOT_FOUND)
        found = _before(connection, uuid, number) if number else _search(connection, uuid, wanted)
        shared = {"counts": fleet.log_counts(connection, uuid), "codes": _codes(connection, uuid)}
        anything = bool(found and found.logs) or _has_any(connection, uuid)
    text = render_template(
        "logs.html",
        uuid=uuid,
        label=queries.label_of(client["name"], client["hostname"], uuid),
        lines=[_line(log, log["id"] == number) for log in found.logs] if found else [],
        asked=number,
        gone=found is None,
        anything=anything,
        wanted=wanted,
        wrong=wrong,
        debug_mode=parts().config.debug_mode,
        retention=parts().config.log_retention_days,
        buttons=[(level, gettext(word)) for level, word in LEVEL_BUTTONS],
        ranges={name: gettext(word) for name, (word, _) in RANGES.items()},
        address=lambda **other: url_for("logs.page", uuid=uuid, **wanted.filters(**other)),
        export=lambda kind: _export(uuid, wanted, kind),
        record=lambda log: url_for("logs.page", uuid=uuid, id=log["id"], _anchor=f"log-{log['id']}"),
        whole=lambda log: _whole(uuid, log),
        older=url_for("logs.page", uuid=uuid, before=found.following.text(), **wanted.filters())
        if found and found.following
        else None,
        is_first="before" not in request.args,
        searched_to=found.searched_to if found else None,
        stream=_stream(uuid, wanted, after),
        **shared,
    )
    return make_response(text, HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK)


# --- out of an address ------------------------------------------------------------------------------------------------


def wanted_of(given: Any) -> tuple[Wanted, dict[str, str]]:
    """In an address may stand anything: what is unknown asks for nothing. What is no time is said by its name."""
    wrong: dict[str, str] = {}
    since, until = _time(given, "since", wrong), _time(given, "until", wrong)
    span = given.get("range", "")
    levels = [text.upper() for text in given.getlist("level")]
    codes = [code.strip()[:MAX_CODE_CHARS] for text in given.getlist("code") for code in text.split(",")]
    found = Wanted(
        tuple(level for level in LogLevel if level in levels),
        given.get("q", "").strip()[:MAX_TEXT],
        tuple(dict.fromkeys(code for code in codes if code))[:MAX_CODES],
        since,
        until,
        span if span in RANGES and since is None and until is None else "",
    )
    return found, wrong


def _time(given: Any, name: str, wrong: dict[str, str]) -> datetime | None:
    """A time with a zone, or one of a form, which then is UTC."""
    text = given.get(name, "").strip()
    if not text:
        return None
    try:
        # A plus sign that was not percent-encoded arrives as a space.
        return parse_timestamp(text.replace(" ", "+") if "T" in text else text)
    except WireError:
        wrong[name] = gettext("This is not a time.")
        return None


def _number(text: str | None) -> int | None:
    number = asked.whole(text, 19)
    return number if number is not None and 0 < number <= _MAX_ID else None


# --- out of the database ----------------------------------------------------------------------------------------------


def _search(connection: Connection, uuid: str, wanted: Wanted) -> LogPage:
    return log_search.search(
        connection,
        uuid,
        levels=wanted.levels,
        codes=wanted.codes,
        text=wanted.text,
        since=wanted.since_when(parts().now()),
        until=wanted.until,
        before=asked.cursor(),
        limit=PAGE,
    )


def _before(connection: Connection, uuid: str, number: int) -> LogPage | None:
    """A certain record and what came before it; None if it is not there any more."""
    statement = select(ClientLog.timestamp).where(ClientLog.id == number, ClientLog.client_uuid == uuid)
    when = connection.execute(statement).scalar()
    if when is None:
        return None
    return log_search.search(connection, uuid, before=_behind(when, number), limit=AROUND)


def _behind(when: datetime, number: int) -> Cursor:
    """The place behind which a record is the first."""
    return Cursor(when, min(number + 1, _MAX_ID))


def _codes(connection: Connection, uuid: str) -> list[str]:
    """That this client used lately, as far as they are counted or part of incidents: to choose from."""
    counted = (
        select(IssueCount.code)
        .where(IssueCount.client_uuid == uuid, IssueCount.code != "")
        .group_by(IssueCount.code)
        .order_by(func.sum(IssueCount.n).desc(), IssueCount.code)
        .limit(MOST_CODES)
        .subquery()
    )
    events = (
        select(IncidentEvent.code)
        .where(IncidentEvent.client_uuid == uuid, IncidentEvent.code.in_(CODES))
        .order_by(IncidentEvent.at.desc())
        .limit(RECENT_EVENTS)
        .subquery()
    )
    return sorted(connection.execute(select(counted.c.code).union(select(events.c.code))).scalars())


def _has_any(connection: Connection, uuid: str) -> bool:
    return connection.execute(select(ClientLog.id).where(ClientLog.client_uuid == uuid).limit(1)).first() is not None


# --- onto the page ----------------------------------------------------------------------------------------------------


def _line(log: dict[str, Any], whole: bool) -> Line:
    message, message_cut = visible(log["message"], WHOLE_ROOM if whole else MESSAGE_ROOM)
    context, context_cut = None, False
    if log["context"]:
        text = json.dumps(log["context"], indent=2, ensure_ascii=False)
        context, context_cut = visible(text, WHOLE_ROOM if whole else CONTEXT_ROOM)
    code, _ = visible(log["code"] or "", CODE_ROOM)
    late = parse_timestamp(log["received_at"]) - parse_timestamp(log["timestamp"])
    return Line(
        log,
        message,
        code,
        context,
        message_cut or context_cut,
        late.total_seconds() if late >= LATE and log["device_timestamp"] is None else None,
    )


def _export(uuid: str, wanted: Wanted, kind: str) -> str:
    """The same records as a file. A range is given as the time at which it begins now."""
    since = wanted.since_when(parts().now())
    filters = wanted.filters(range="", since=time_text(since))
    if kind == "csv":
        filters |= csv_form()
    return url_for("exports.csv_file" if kind == "csv" else "exports.ndjson", uuid=uuid, **filters)


def _stream(uuid: str, wanted: Wanted, after: str | None) -> str | None:
    """Where new records of this kind come from; None where there can be none, or they do not belong on the page."""
    if wanted.until is not None or after is None:
        return None
    return url_for("live.stream", uuid=uuid, clients="false", after=after, **wanted.filters(range="", since=""))


def _whole(uuid: str, log: dict[str, Any]) -> str:
    """A record's address at the API, which cuts nothing."""
    place = _behind(parse_timestamp(log["timestamp"]), log["id"])
    return url_for("api.client_logs", uuid=uuid, before=place.text(), limit=1)
