"""Rules, which admins see and superadmins edit, and channels, which are the superadmins'.

What a channel's URL says is never shown again, not even to whoever just mistyped it: it holds secrets.
"""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response, flash, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from infoscreen_server import audit, fleet
from infoscreen_server.accounts import Access
from infoscreen_server.alerts import deliver, history, settings
from infoscreen_server.alerts.channels import SCHEMES, ChannelError
from infoscreen_server.alerts.settings import HOUR, MINUTE, Rule
from infoscreen_server.context import access, caller, parts
from infoscreen_server.i18n import gettext, lazy
from infoscreen_server.models_alerts import RuleKind
from infoscreen_server.pages import alert_words, asked, words
from infoscreen_server.pages.numbered import here, numbered
from infoscreen_server.wording import FieldError, length, rule_name, stored_rule_name

blueprint = Blueprint("alert_settings", __name__)

TEST_S = 20.0
"""How long whoever presses the button waits at most."""
MAX_DIGITS = 9
MOST_NAMED = 8
"""Channels of a rule by name in the list of rules."""


def chosen(field: str = "id") -> int:
    """The number of the row that the form names; 0, which no row has, for anything else."""
    return asked.whole(request.form.get(field)) or 0


def said(error: FieldError | ChannelError) -> str:
    return gettext(error.text, **error.values)


# --- rules ------------------------------------------------------------------------------------------------------------

_TIMES = {"window": MINUTE, "hold": MINUTE, "keep": MINUTE, "repeat": HOUR}
"""Fields and their unit on the page."""


@blueprint.get("/alerts/rules")
@access(Access.ADMIN_OR_HIGHER)
def rules() -> Response:
    return _rules(edited=asked.whole(request.args.get("rule")))


@blueprint.post("/alerts/rules")
@access(Access.SUPERADMIN)
def add_rule() -> AnyResponse:
    name, kind = stored_rule_name(request.form.get("new_name", "")), request.form.get("new_kind", "")
    try:
        if kind not in set(RuleKind):
            raise FieldError("kind", lazy("choose what the rule looks at"))
        number = settings.add_rule(parts().engine, RuleKind(kind), name, parts().now())
    except FieldError as error:
        new = {"name": rule_name(name), "kind": kind}
        return _rules(400, wrong={f"new_{error.field}": said(error)}, new=new)
    audit.note("alert rule added", name=name, kind=kind)
    flash(gettext("The rule is there, and off: look at its values and switch it on."))
    return redirect(url_for("alert_settings.rules", rule=number, _anchor="edit"), 303)


@blueprint.post("/alerts/rules/edit")
@access(Access.SUPERADMIN)
def edit_rule() -> AnyResponse:
    number = chosen()
    try:
        rule = _rule_of_form()
        settings.change_rule(parts().engine, number, rule)
    except FieldError as error:
        if error.field == "rule":
            return _rules(409, problem=said(error))
        return _rules(400, edited=number, wrong={error.field: said(error)}, given=_given())
    audit.note("alert rule changed", name=rule.name, enabled=rule.enabled)
    flash(gettext("The rule %(name)s is saved.", name=rule_name(rule.name)))
    return redirect(url_for("alert_settings.rules"), 303)


@blueprint.post("/alerts/rules/delete")
@access(Access.SUPERADMIN)
def delete_rule() -> AnyResponse:
    try:
        name = settings.delete_rule(parts().engine, chosen())
    except FieldError as error:
        return _rules(409, problem=said(error))
    audit.note("alert rule deleted", name=name)
    flash(gettext("The rule %(name)s is deleted.", name=rule_name(name)))
    return redirect(url_for("alert_settings.rules"), 303)


def _rule_of_form() -> Rule:
    """Raises FieldError for what is no number; the rest is checked where it is written."""
    form = request.form
    times = {name: _number(name) * unit for name, unit in _TIMES.items()}
    numbers = [asked.whole(each) for each in form.getlist("channel")]
    if None in numbers:
        raise FieldError("channels", lazy("one of these channels is gone"))
    return Rule(
        name=stored_rule_name(form.get("name", "")),
        enabled=form.get("enabled") == "1",
        tag=form.get("tag", ""),
        threshold=_number("threshold"),
        clear_threshold=_number("clear_threshold"),
        in_hours=form.get("in_hours") == "1",
        channels=frozenset(each for each in numbers if each is not None) if form.get("to") == "some" else frozenset(),
        **times,
    )


def _number(field: str) -> int:
    """Of a field that the form of this kind may not have."""
    number = asked.whole(request.form.get(field, "1" if field == "window" else "0").strip(), MAX_DIGITS)
    if number is None:
        raise FieldError(field, lazy("expected a whole number"))
    return number


def _given() -> dict[str, Any]:
    form = request.form
    names = ("name", "tag", "threshold", "clear_threshold", *_TIMES)
    ticked = {name: form.get(name) == "1" for name in ("enabled", "in_hours")}
    return (
        {name: form.get(name, "") for name in names}
        | ticked
        | {"to": form.get("to"), "channels": form.getlist("channel")}
    )


def _values_of(rule: Mapping[str, Any]) -> dict[str, Any]:
    """As the form has them."""
    shown: dict[str, Any] = {name: -(-(rule[name] or 0) // unit) for name, unit in _TIMES.items()}
    channels = [str(each) for each in rule["channels"]]
    clear = rule["threshold"] if rule["clear_threshold"] is None else rule["clear_threshold"]
    shown["name"] = rule_name(rule["name"])
    return {**rule, **shown, "clear_threshold": clear, "channels": channels, "to": "some" if channels else "all"}


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    text = ", ".join(names[:MOST_NAMED])
    return f"{text} {gettext('… and %(n)s more', n=more)}" if more > 0 else text


def _rules(status: int = 200, edited: int | None = None, **shown: Any) -> Response:
    with parts().engine.connect() as connection:
        found = settings.rules(connection)
        channels = settings.channel_names(connection)
        tags = fleet.known(connection).tags
    may_edit = words.may(caller(), Access.SUPERADMIN)
    rule = next((each for each in found if each["id"] == edited and may_edit), None)
    usual: dict[str, Any] = {"wrong": {}, "problem": None, "new": {"name": "", "kind": ""}}
    given = shown.pop("given", None) or (rule and _values_of(rule))
    text = render_template(
        "alert_rules.html",
        rules=found,
        rule=rule,
        given=given,
        channels=channels,
        names_of=lambda rule: _listed([each.name for each in channels if each.id in rule["channels"]]),
        tags=tags,
        kinds=[(kind, gettext(text)) for kind, text in alert_words.KINDS.items()],
        kind_words=alert_words.KINDS,
        thresholds=alert_words.THRESHOLDS,
        counted=settings.COUNTED,
        windowed=settings.WINDOWED,
        says=alert_words.says,
        length=length,
        rule_name=rule_name,
        **{**usual, **shown},
    )
    return make_response(text, status)


# --- channels ---------------------------------------------------------------------------------------------------------


@blueprint.get("/alerts/channels")
@access(Access.SUPERADMIN)
def channels() -> Response:
    return _channels()


@blueprint.post("/alerts/channels")
@access(Access.SUPERADMIN)
def add_channel() -> AnyResponse:
    name, url = request.form.get("name", ""), request.form.get("url", "")
    local = parts().config.alert_allow_local
    try:
        settings.add_channel(parts().engine, name, url, parts().now(), allow_local=local)
    except FieldError as error:
        return _channels(400, wrong={error.field: said(error)}, name=name)
    audit.note("alert channel added", name=name)
    flash(gettext("The channel is saved. Send a test to see that it arrives."))
    return redirect(url_for("alert_settings.channels"), 303)


@blueprint.post("/alerts/channels/url")
@access(Access.SUPERADMIN)
def change_url() -> AnyResponse:
    number = chosen()
    # Each channel has such a field on the page.
    field, local = f"url-{number}", parts().config.alert_allow_local
    try:
        name = settings.change_url(
            parts().engine, number, request.form.get(field, ""), parts().now(), allow_local=local
        )
    except FieldError as error:
        if error.field == "url":
            return _channels(400, wrong={field: said(error)}, changed=number)
        return _channels(409, problem=said(error))
    audit.note("alert channel address changed", name=name)
    flash(gettext("The address of %(name)s is changed. Messages that wait are sent there now.", name=name))
    return redirect(url_for("alert_settings.channels", **here()), 303)


@blueprint.post("/alerts/channels/test")
@access(Access.SUPERADMIN)
def test_channel() -> AnyResponse:
    config = parts().config
    try:
        # The connection goes back before the message is on its way: that may take long.
        with parts().engine.connect() as connection:
            name, url = settings.channel_to_test(connection, chosen())
        title = gettext("Test of the channel %(name)s", name=name)
        body = gettext("Alerts of the infoscreens will arrive here.")
        deliver.send_test(url, title, body, config.alert_allow_local, TEST_S)
    except FieldError as error:
        return _channels(409, problem=said(error))
    except ChannelError as error:
        audit.note("alert channel tested", name=name, sent=False)
        told = gettext("The test message to %(name)s was not delivered: %(why)s", name=name, why=said(error))
        return _channels(409, problem=told)
    audit.note("alert channel tested", name=name, sent=True)
    flash(gettext("The test message to %(name)s was delivered.", name=name))
    return redirect(url_for("alert_settings.channels", **here()), 303)


@blueprint.post("/alerts/channels/delete")
@access(Access.SUPERADMIN)
def delete_channel() -> AnyResponse:
    try:
        name = settings.delete_channel(parts().engine, chosen())
    except FieldError as error:
        return _channels(409, problem=said(error))
    audit.note("alert channel deleted", name=name)
    flash(gettext("The channel %(name)s is deleted.", name=name))
    return redirect(url_for("alert_settings.channels", **here()), 303)


def _channels(status: int = 200, **shown: Any) -> Response:
    with parts().engine.connect() as connection:
        found = settings.channel_list(connection)
        late = {each.channel for each in history.late_messages(connection)}
    usual: dict[str, Any] = {"wrong": {}, "problem": None, "name": "", "changed": None}
    services = sorted({gettext(service.label) for service in SCHEMES.values()}, key=str.casefold)
    text = render_template(
        "alert_channels.html",
        channels=numbered(found, "alert_settings.channels"),
        late=late,
        services=services,
        now=parts().now(),
        **{**usual, **shown},
    )
    return make_response(text, status)
