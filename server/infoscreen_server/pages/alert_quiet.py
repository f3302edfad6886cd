"""Silences, which admins make and end, and opening hours, which are the superadmins'."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import audit, fleet
from infoscreen_server.accounts import Access
from infoscreen_server.alerts import quiet
from infoscreen_server.alerts import week as weeks
from infoscreen_server.alerts.hours import Hours
from infoscreen_server.alerts.quiet import Draft
from infoscreen_server.alerts.silences import Scope
from infoscreen_server.context import access, caller, parts
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.pages import alert_words
from infoscreen_server.pages.alert_settings import chosen, said
from infoscreen_server.pages.numbered import here, numbered
from infoscreen_server.wording import FieldError

blueprint = Blueprint("alert_quiet", __name__)

MORNING = 8
MOST_CLOSED = 8
"""Dates and runs of them that the list of hours shows of each."""
WHEN = {
    "hour": lazy("For 1 hour"),
    "morning": lazy("Until tomorrow 8:00"),
    "always": lazy("Until someone ends it"),
    "between": lazy("From a time to another"),
    "weekly": lazy("Every week at the same time"),
}
_FIELDS = ("scope", "target", "when", "begin", "end", "from", "to", "zone", "note")


# --- silences ---------------------------------------------------------------------------------------------------------


@blueprint.get("/alerts/silences")
@access(Access.ADMIN_OR_HIGHER)
def silences() -> Response:
    """`scope` and `target` fill in the form: other pages link to it."""
    given = {name: request.args[name] for name in ("scope", "target") if name in request.args}
    if given.get("scope") == Scope.CLIENT and "target" in given:
        with parts().engine.connect() as connection:
            given["target"] = quiet.named(connection, given["target"])
    return _silences(given=given)


@blueprint.post("/alerts/silences")
@access(Access.ADMIN_OR_HIGHER)
def add_silence() -> AnyResponse:
    given: dict[str, Any] = {name: request.form.get(name, "").strip() for name in _FIELDS}
    given["days"] = request.form.getlist("day")
    try:
        draft = _draft(given)
        quiet.add_silence(parts().engine, draft, caller().name, parts().now())
    except FieldError as error:
        return _silences(400, wrong={error.field: said(error)}, given=given)
    audit.note("silence added", scope=draft.scope, target=draft.target, until=draft.ends_at)
    flash(gettext("The silence is set. Everything is recorded as ever; only no message is sent."))
    return redirect(url_for("alert_quiet.silences"), 303)


@blueprint.post("/alerts/silences/end")
@access(Access.ADMIN_OR_HIGHER)
def end_silence() -> AnyResponse:
    number = chosen()
    try:
        quiet.end_silence(parts().engine, number, parts().now())
    except FieldError as error:
        return _silences(409, problem=said(error))
    audit.note("silence ended", id=number)
    flash(gettext("The silence is over. What still fires is told of now."))
    return redirect(url_for("alert_quiet.silences", **here()), 303)


def _draft(given: dict[str, Any]) -> Draft:
    """Raises FieldError."""
    if given["scope"] not in set(Scope):
        raise FieldError("scope", lazy("choose whom it is about"))
    if given["when"] not in WHEN:
        raise FieldError("when", lazy("choose when it holds"))
    where, now, when = quiet.zone("zone", given["zone"]), parts().now(), given["when"]
    start, end, weekly = now, None, None
    if when == "hour":
        end = now + timedelta(hours=1)
    elif when == "morning":
        tomorrow = now.astimezone(where).date() + timedelta(days=1)
        end = datetime(tomorrow.year, tomorrow.month, tomorrow.day, MORNING, tzinfo=where).astimezone(UTC)
    elif when in ("between", "weekly"):
        start, end = _moment(given, "begin", where) or now, _moment(given, "end", where)
    if when == "between" and end is None:
        raise FieldError("end", lazy("expected a day and a time"))
    if when == "weekly":
        weekly = _weekly(given, where)
    return Draft(Scope(given["scope"]), given["target"], start, end, weekly, given["note"])


def _moment(given: dict[str, Any], field: str, where: ZoneInfo) -> datetime | None:
    text = given[field]
    if not text:
        return None
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is not None or not 2000 <= when.year < 2200:
            raise ValueError
        return when.replace(tzinfo=where).astimezone(UTC)
    except ValueError:
        raise FieldError(field, lazy("expected a day and a time")) from None


def _weekly(given: dict[str, Any], where: ZoneInfo) -> Hours:
    try:
        spans = weeks.day(f"{given['from']}-{given['to']}")
    except ValueError:
        raise FieldError("from", lazy("expected a time of the day from and to, such as 02:00 and 03:30")) from None
    return Hours(where, tuple(spans if str(number) in given["days"] else () for number in range(7)))


def _silences(status: int = 200, **shown: Any) -> Response:
    now = parts().now()
    with parts().engine.connect() as connection:
        found = quiet.silences(connection, now)
        known = fleet.known(connection)
        zone = quiet.usual_zone(connection)
    usual: dict[str, Any] = {"wrong": {}, "problem": None}
    blank = dict.fromkeys(_FIELDS, "") | {"scope": "all", "when": "hour", "zone": zone, "days": []}
    given = blank | shown.pop("given", {})
    text = render_template(
        "alert_silences.html",
        listed=numbered(found, "alert_quiet.silences"),
        is_silent=any(each.active for each in found),
        given=given,
        zone_is_chosen=bool(request.form),
        known=known,
        scopes=[(scope, gettext(text)) for scope, text in alert_words.SCOPES.items()],
        scope_words=alert_words.SCOPES,
        when=[(name, gettext(text)) for name, text in WHEN.items()],
        days=alert_words.day_names(),
        zones=weeks.zones(),
        week_rows=alert_words.week_rows,
        now=now,
        **{**usual, **shown},
    )
    return make_response(text, status)


# --- opening hours ----------------------------------------------------------------------------------------------------


@blueprint.get("/alerts/hours")
@access(Access.SUPERADMIN)
def hours() -> Response:
    return _hours(edited=request.args.get("tag"))


@blueprint.post("/alerts/hours")
@access(Access.SUPERADMIN)
def set_hours() -> AnyResponse:
    tag = request.form.get("tag", "").strip()
    try:
        quiet.set_hours(parts().engine, tag, request.form, anew=request.form.get("new") == "1")
    except FieldError as error:
        return _hours(400, wrong={error.field: said(error)}, given=_given_hours())
    audit.note("opening hours set", tag=tag)
    flash(gettext("The opening hours are saved."))
    return redirect(url_for("alert_quiet.hours"), 303)


@blueprint.post("/alerts/hours/delete")
@access(Access.SUPERADMIN)
def delete_hours() -> AnyResponse:
    tag = request.form.get("tag", "")
    try:
        quiet.delete_hours(parts().engine, tag)
    except FieldError as error:
        return _hours(409, problem=said(error))
    audit.note("opening hours deleted", tag=tag)
    flash(gettext("The opening hours are deleted."))
    return redirect(url_for("alert_quiet.hours", **here()), 303)


def _given_hours() -> dict[str, Any]:
    form = request.form
    days = [form.get(f"day{number}", "") for number in range(7)]
    # Browsers end lines with \r\n; shown as it is, the \r would be named as something odd.
    closed = "\n".join(form.get("closed", "").splitlines())
    return {"tag": form.get("tag", ""), "zone": form.get("zone", ""), "closed": closed, "days": days}


def _hours(status: int = 200, edited: str | None = None, **shown: Any) -> Response:
    with parts().engine.connect() as connection:
        found = quiet.opening_hours(connection)
        tags = fleet.known(connection).tags
        zone = quiet.usual_zone(connection)
    usual: dict[str, Any] = {"wrong": {}, "problem": None}
    given: dict[str, Any] = {"tag": edited or "", "zone": zone, "days": ["08:00-18:00"] * 5 + ["", ""], "closed": ""}
    is_new = edited is None or edited not in found
    if edited is not None and edited in found:
        one = found[edited]
        closed = weeks.dates_text(one.closed)
        given = {"tag": edited, "zone": one.zone.key, "days": weeks.table_text(one), "closed": closed}
    given = shown.pop("given", given)
    text = render_template(
        "alert_hours.html",
        hours=numbered(sorted(found.items(), key=lambda item: not item[0]), "alert_quiet.hours"),
        given=given,
        is_new=request.form["new"] == "1" if "new" in request.form else is_new,
        today=parts().now().date(),
        tags=tags,
        days=alert_words.day_names(),
        zones=weeks.zones(),
        week_rows=alert_words.week_rows,
        closed_days=alert_words.closed_days,
        most_closed=MOST_CLOSED,
        **{**usual, **shown},
    )
    return make_response(text, status)
