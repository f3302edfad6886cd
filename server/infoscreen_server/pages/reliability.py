"""Which screens are least reliable, worst first, over a time of one's choice; the rules are in reliability."""

from typing import Any

from flask import Blueprint, Response, make_response, render_template, request, url_for

from infoscreen_server import fleet, reliability
from infoscreen_server.accounts import Access
from infoscreen_server.context import access, moment, parts, retention
from infoscreen_server.history import Period
from infoscreen_server.i18n import lazy
from infoscreen_server.pages import charts, timeline, words
from infoscreen_server.pages.clients import filters_of, wanted_of
from infoscreen_server.pages.numbered import numbered

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
        rows = reliability.fleet_reliability(connection, began, at.now, at.now, conditions, retention=retention())
        known = fleet.known(connection)
    filters = filters_of(wanted) | ({} if period == USUAL else {"period": period})
    text = render_template(
        "reliability.html",
        listed=numbered(rows, "reliability.page", size=PAGE, **filters),
        summary=_summary(rows),
        kept_days=retention().days,
        longest=max((row["down_s"] for row in rows), default=0.0),
        meter=charts.meter,
        known=known,
        wanted=wanted,
        filters=filters,
        period=period,
        periods=PERIODS,
        csv_url=url_for("past.reliability_csv", **filters, **words.csv_form()),
    )
    return make_response(text)


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
