"""Which screens are least reliable, worst first, over a time of one's choice; the rules are in reliability."""

from typing import Any

from flask import Blueprint, Response, make_response, render_template, request, url_for

from infoscreen_server import fleet, reliability
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, moment, parts
from infoscreen_server.history import Period
from infoscreen_server.i18n import lazy
from infoscreen_server.pages import asked, charts, timeline
from infoscreen_server.pages.clients import filters_of, wanted_of

blueprint = Blueprint("reliability", __name__)

PAGE = 100
PERIODS = timeline.PERIODS | {Period.QUARTER: lazy("90 days")}
USUAL = Period.WEEK


@blueprint.get("/reliability")
@access(Access.USER_OR_HIGHER)
def page() -> Response:
    at, wanted = moment(), wanted_of(request.args)
    period = timeline.period_of(request.args.get("period"), PERIODS, USUAL)
    began = at.now - period.length
    with parts().engine.connect() as connection:
        conditions = fleet.conditions(connection, wanted, at)
        rows = reliability.fleet_reliability(connection, began, at.now, at.now, conditions)
        known = fleet.known(connection)
    number = _number(request.args.get("page"), len(rows))
    filters = filters_of(wanted) | ({} if period == USUAL else {"period": period})
    text = render_template(
        "reliability.html",
        rows=rows[(number - 1) * PAGE : number * PAGE],
        first=(number - 1) * PAGE + 1,
        total=len(rows),
        summary=_summary(rows),
        longest=max((row["down_s"] for row in rows), default=0.0),
        meter=charts.meter,
        known=known,
        wanted=wanted,
        filters=filters,
        period=period,
        periods=PERIODS,
        before_url=_url(filters, number - 1) if number > 1 else None,
        after_url=_url(filters, number + 1) if number * PAGE < len(rows) else None,
        csv_url=url_for("past.reliability_csv", **filters),
    )
    return make_response(text)


def _number(text: str | None, rows: int) -> int:
    """A page that there is."""
    last = max(1, -(-rows // PAGE))
    return min(asked.whole(text, 6) or 1, last)


def _url(filters: dict[str, Any], number: int) -> str:
    more: dict[str, Any] = {"page": number} if number > 1 else {}
    return url_for("reliability.page", **filters, **more)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """All of them together: a second of any screen counts the same."""
    observed = sum(row["observed_s"] for row in rows)
    down = sum(row["down_s"] for row in rows)
    return {
        "availability": 1 - down / observed if observed else None,
        "incidents": sum(row["incidents"] for row in rows),
        "down_s": down,
        "affected": sum(row["incidents"] > 0 for row in rows),
    }
