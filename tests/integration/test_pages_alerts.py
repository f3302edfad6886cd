"""The pages of alerts and the API's routes about them: what they show, what their forms take, what they keep secret."""

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from infoscreen_server.alerts import child
from infoscreen_server.alerts.hours import Span
from infoscreen_server.alerts.tables import hours_of, silence_of
from infoscreen_server.i18n import speaking
from infoscreen_server.models import Client, ClientTag, Role, TokenRole
from infoscreen_server.models_alerts import (
    Alert,
    AlertAttempt,
    AlertChannel,
    AlertMark,
    AlertMessage,
    AlertRule,
    AlertRuleChannel,
    AlertSilence,
    OpeningHours,
    RuleKind,
)
from infoscreen_server.pages import alert_words
from infoscreen_server.wording import RULE_NAMES
from parts.api import NOW, Api
from parts.catalogue import texts
from parts.fleet import uuid_of
from parts.mailbox import Webhook
from parts.person import Person, text_of, with_user
from parts.told import add, client_row

SECRET = "s3cret-word"
EVIL = "<script>alert(1)</script>\"'{{7*7}}"
HOUR = timedelta(hours=1)
SENDING = ("sender.py", "channels.py", "child.py", "outbox.py")
REFUSED_BEFORE = re.compile("no service|expected|option")
"""What is said of a URL before it is saved, and of no message."""


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url, alert_allow_local=True)
    yield running
    running.close()


@pytest.fixture
def anna(api: Api) -> Person:
    return with_user(api, "anna", Role.ADMIN)


def rows(api: Api, table: Any) -> list[Any]:
    with api.engine.connect() as connection:
        return list(connection.execute(select(*table.__table__.columns).order_by(*table.__table__.primary_key)))


def rule_of(api: Api, kind: RuleKind) -> Any:
    return next(row for row in rows(api, AlertRule) if row.kind == kind)


def screens(api: Api, *names: str, site: str | None = None, tag: str | None = None) -> None:
    """Numbered from 1 in the order in which they are added."""
    first = len(rows(api, Client)) + 1
    add(api, Client, *[client_row(first + at, name=name, location=site) for at, name in enumerate(names)])
    if tag:
        add(api, ClientTag, *[{"client_uuid": uuid_of(first + at), "tag": tag} for at in range(len(names))])


def fired(api: Api, client: int | None, **more: Any) -> dict[str, Any]:
    rule = rule_of(api, more.get("kind", RuleKind.OFFLINE))
    began = more.pop("began_at", NOW - HOUR)
    usual = {
        "rule_id": rule.id,
        "rule_name": rule.name,
        "kind": rule.kind,
        "flapping": False,
        "client_uuid": uuid_of(client) if client else None,
        "site": None,
        "began_at": began,
        "fired_at": began + timedelta(minutes=10),
        "ended_at": None,
        "detail": "{}",
        "notices": 0,
        "announced_at": None,
        "announced_by": None,
        "closed_at": None,
    }
    return usual | more


def message(alert: int, **more: Any) -> dict[str, Any]:
    usual = {
        "alert_id": alert,
        "number": 1,
        "kind": "firing",
        "channel_id": None,
        "channel_name": "ops",
        "topic": "1",
        "title": f"ALERT Foyer: offline [#{alert}-1]",
        "body": "",
        "created_at": NOW - HOUR,
        "status": "sent",
        "due_at": None,
        "attempts": 1,
        "finished_at": NOW - HOUR,
        "error": None,
    }
    return usual | more


def wrong_at(page: str, field: str) -> str:
    """What the page says is wrong with this field, beside it."""
    found = re.search(rf'id="{field}-hint"><strong class="wrong">([^<]*)</strong>', page)
    return html.unescape(found[1]) if found else ""


# --- what fires -------------------------------------------------------------------------------------------------------


def test_a_new_server_says_what_to_do_next(api: Api, root: Person, anna: Person) -> None:
    for person, then in ((root, "Add a channel"), (anna, "Ask a super administrator to add one.")):
        shown = text_of(person.get("/alerts"))
        for text in (
            "sent to nobody",
            then,
            "No alert is active.",
            "There was no alert yet.",
            "The rules were never looked at.",
        ):
            assert text in shown
    add(api, AlertChannel, {"name": "ops", "url": "json://ops.example", "created_at": NOW})
    with api.engine.begin() as connection:
        connection.execute(AlertMark.__table__.update().values(evaluated_at=NOW - timedelta(minutes=1)))  # type: ignore[attr-defined]
    shown = text_of(anna.get("/alerts"))
    assert "sent to nobody" not in shown
    assert "looked at" not in shown
    api.now += timedelta(minutes=2)
    assert "The rules were looked at last 3 minutes ago" in text_of(anna.get("/alerts"))


def test_what_fires_is_grouped_by_rule_and_site_and_leads_to_the_screens(api: Api, anna: Person) -> None:
    screens(api, "Foyer", "Kassa", site="Linz")
    screens(api, "Saal", site="Graz")
    screens(api, "Lager")
    black = fired(api, 4, kind=RuleKind.SCREEN, detail=json.dumps({"status": "BLACK", "reason": "uniform"}))
    add(api, Alert, *[fired(api, n, site="Linz") for n in (1, 2)], fired(api, 3, site="Graz"), black)
    add(api, AlertSilence, silence_row("site", "Graz"))
    page = anna.get("/alerts").text
    firing = page[page.index('id="firing"') : page.index('id="history"')]
    order = [
        "Screen is offline",
        "Graz",
        ">Saal<",
        "Linz",
        ">Foyer<",
        ">Kassa<",
        "Screen is black or frozen",
        ">Lager<",
    ]
    places = [firing.index(each) for each in order]
    assert places == sorted(places)
    assert f'href="/clients/{uuid_of(1)}"' in firing
    assert "Black: uniform" in firing
    assert "1 of them silenced" in text_of(anna.get("/alerts"))
    assert f"scope=client&amp;target={uuid_of(1)}" in firing
    assert f"scope=client&amp;target={uuid_of(3)}" not in firing, "it is silenced already"


def test_what_is_about_all_comes_first_and_what_flaps_stands_for_what_it_does(api: Api, anna: Person) -> None:
    screens(api, "Foyer", "Kassa", "Saal")
    add(api, Alert, *[fired(api, n) for n in (1, 2, 3)], fired(api, None, kind=RuleKind.OUTAGE))
    add(api, Alert, fired(api, 2, flapping=True))
    page = anna.get("/alerts").text
    firing = page[page.index('id="firing"') : page.index('id="history"')]
    assert firing.index("Server or broker") < firing.index("Screen is offline")
    assert firing.count(">Kassa<") == 1
    assert re.search(r">Kassa<.*\s.*On and off", firing)
    assert 'class="hint">4</span></h2>' in firing


def test_of_too_many_each_place_is_named(api: Api, anna: Person) -> None:
    for number in range(5):
        screens(api, *[f"{number}-{n}" for n in range(30)], site=f"Place {number}")
    add(api, Alert, *[fired(api, n, site=f"Place {(n - 1) // 30}") for n in range(1, 151)])
    shown = text_of(anna.get("/alerts"))
    assert all(f"Place {number} 30" in shown for number in range(5))
    assert shown.count("… and 20 more") == 5
    assert "100 are left out here" in shown


@pytest.mark.parametrize(
    ("scope", "target", "silenced"),
    [
        ("all", "", True),
        ("client", uuid_of(1), True),
        ("site", "Linz", True),
        ("tag", "4k", True),
        ("client", uuid_of(2), False),
        ("site", "Graz", False),
        ("tag", "outdoor", False),
    ],
)
def test_what_a_silence_covers_is_marked(api: Api, anna: Person, scope: str, target: str, silenced: bool) -> None:
    screens(api, "Foyer", site="Linz", tag="4k")
    add(api, Alert, fired(api, 1, site="Linz"))
    add(api, AlertSilence, silence_row(scope, target), silence_row("all", "", starts_at=NOW + HOUR, ends_at=None))
    assert ("1 of them silenced" in text_of(anna.get("/alerts"))) is silenced
    (alert,) = api.get("/api/alerts").json["alerts"]
    assert alert["silenced"] is silenced


def silence_row(scope: str, target: str, **more: Any) -> dict[str, Any]:
    usual = {"starts_at": NOW - HOUR, "ends_at": NOW + HOUR, "week": None, "zone": None, "note": "", "by": "anna"}
    return {"scope": scope, "target": target, "created_at": NOW, **usual, **more}


def test_the_history_is_paged_without_gaps(api: Api, anna: Person) -> None:
    screens(api, "Foyer")
    times = [NOW - timedelta(days=1, minutes=n // 3) for n in range(70)]
    add(api, Alert, *[fired(api, 1, began_at=at, ended_at=at + HOUR, closed_at=at + HOUR) for at in times])
    path, seen, pages = "/alerts", [], 0
    while path:
        page = anna.get(path).text
        past = page[page.index('id="history"') :]
        seen.append(past.count('<li class="row'))
        found = re.search(r'rel="next" href="([^"]+)"', past)
        path, pages = html.unescape(found[1]) if found else "", pages + 1
    assert seen == [20, 20, 20, 10]
    assert anna.get("/alerts?before=nonsense").status_code == 200
    following, ids = None, []
    while following != "":
        answer = api.get("/api/alerts?limit=20" + (f"&before={following}" if following else "")).json
        ids += [each["id"] for each in answer["alerts"]]
        following = answer["next"] or ""
    assert len(ids) == len(set(ids)) == 70
    assert ids[0] == 3, "the newest, of these the last"


def test_an_alert_of_a_screen_that_is_gone_leads_nowhere(api: Api, anna: Person) -> None:
    add(api, Alert, fired(api, 7, ended_at=NOW, closed_at=NOW))
    page = anna.get("/alerts").text
    assert f"<span>{uuid_of(7)}</span>" in page
    assert f"/clients/{uuid_of(7)}" not in page


def test_messages_with_their_attempts(api: Api, anna: Person) -> None:
    screens(api, "Foyer")
    add(api, Alert, fired(api, 1, announced_at=NOW - HOUR, announced_by=1))
    late = {"number": 3, "status": "pending", "due_at": NOW + HOUR, "finished_at": None}
    add(
        api,
        AlertMessage,
        message(1),
        message(1, number=2, status="failed", attempts=2, error="the server answered 500", title="ALERT failed"),
        message(1, attempts=1, title="ALERT late", **late),
        message(1, number=4, status="failed", title="ALERT old", created_at=NOW - timedelta(days=8)),
    )
    add(
        api,
        AlertAttempt,
        {"message_id": 1, "number": 1, "at": NOW - HOUR, "ended_at": NOW - HOUR, "error": None},
        {"message_id": 2, "number": 1, "at": NOW - HOUR, "ended_at": NOW - HOUR, "error": "no route"},
        {"message_id": 2, "number": 2, "at": NOW, "ended_at": None, "error": None},
        {"message_id": 3, "number": 1, "at": NOW - HOUR, "ended_at": NOW - HOUR, "error": "it took too long"},
    )
    shown = text_of(anna.get("/alerts"))
    failed, _, past = shown.partition("Messages that did not arrive")[2].partition("History")
    assert failed.index("ALERT late") < failed.index("ALERT failed")
    for text in ("it took too long", "the server answered 500", "2 attempts", "no route", "under way or cut off"):
        assert text in failed
    assert "ALERT old" not in failed
    assert "4 messages" in past


def test_what_the_sender_says_is_in_the_readers_language() -> None:
    """It is filled in already when it comes to the database, so that it has to be found by its form."""
    sender = [
        each.id for each in texts() if any(path.split("/")[-1] in SENDING for path, _ in each.locations) and each.id
    ]
    filled = [each for each in sender if isinstance(each, str) and "%(" in each and not REFUSED_BEFORE.search(each)]
    assert set(filled) == set(alert_words.ERRORS)
    with speaking("de"):
        assert alert_words.why("nothing listens there") == "Dort nimmt niemand Verbindungen an"
        assert alert_words.why("it answered 503") == "Die Gegenstelle antwortete mit 503"
        elsewhere = alert_words.why("it answered 302, to send it elsewhere; that is not done")
        assert elsewhere == "Die Gegenstelle antwortete mit 302 und leitet anderswohin weiter; dem wird nicht gefolgt"
        assert alert_words.why("something of its own") == "something of its own"


def test_nothing_of_a_name_or_note_is_markup(api: Api, root: Person) -> None:
    screens(api, EVIL, site=EVIL, tag="4k")
    add(api, AlertChannel, {"name": EVIL, "url": "json://ops.example", "created_at": NOW})
    add(api, AlertSilence, silence_row("site", EVIL, note=EVIL, by=EVIL), silence_row("client", uuid_of(1), note=EVIL))
    screen = json.dumps({"status": "BLACK", "reason": EVIL})
    add(api, Alert, fired(api, 1, site=EVIL, rule_name=EVIL, detail=screen, kind=RuleKind.SCREEN, announced_by=1))
    failed = message(1, title=EVIL, channel_name=EVIL, error=EVIL, status="failed")
    add(api, AlertMessage, failed, failed | {"number": 2})
    rule = str(rule_of(api, RuleKind.OFFLINE).id)
    good = {"name": EVIL, "tag": EVIL[:50], "window": "1", "hold": "1", "keep": "1", "repeat": "1"}
    assert root.post("/alerts/rules/edit", "/alerts/rules", id=rule, **good).status_code == 303
    assert root.post("/alerts/hours", tag="x", zone="UTC", day0="8:00-9:00").status_code == 303
    pages = ["", "/rules", f"/rules?rule={rule}", "/channels", "/silences", "/hours", "/hours?tag=" + EVIL]
    for path in [*pages, "/silences?scope=site&target=" + EVIL]:
        page = root.get("/alerts" + path)
        assert page.status_code == 200
        assert "<script>alert" not in page.text, path
        assert "49" not in re.sub(r"\?v=\w+|id=\S+|<option.*?</option>|value=\S+", "", page.text), path
    for path, fields in (
        ("/alerts/silences", {"scope": "client", "target": EVIL, "when": EVIL, "zone": EVIL, "note": EVIL}),
        ("/alerts/hours", {"tag": EVIL, "zone": EVIL, "day0": EVIL, "closed": EVIL}),
        ("/alerts/rules", {"new_name": EVIL, "new_kind": EVIL}),
        ("/alerts/channels", {"name": EVIL, "url": EVIL}),
    ):
        answer = root.post(path, **fields)
        assert answer.status_code == 400
        assert "<script>alert" not in answer.text


# --- rules ------------------------------------------------------------------------------------------------------------

GOOD = {
    "name": "Errors at night",
    "enabled": "1",
    "tag": "4k",
    "threshold": "20",
    "clear_threshold": "5",
    "window": "30",
    "hold": "2",
    "keep": "3",
    "repeat": "6",
    "to": "all",
}


def test_rules_are_seen_by_admins_and_edited_by_superadmins(api: Api, root: Person, anna: Person) -> None:
    shown = text_of(anna.get("/alerts/rules"))
    assert "A screen has more than 10 errors within 15 min. It is over at 2 or fewer." in shown
    assert "More than 30 percent of the screens fall silent at about the same time." in shown
    assert "alerts after 10 min · reminds every 12 h · within opening hours · to all channels" in shown
    number = rule_of(api, RuleKind.ERRORS).id
    assert "Save" not in text_of(anna.get(f"/alerts/rules?rule={number}"))
    assert "Save" in text_of(root.get(f"/alerts/rules?rule={number}"))
    answer = root.post("/alerts/rules/edit", f"/alerts/rules?rule={number}", id=str(number), **GOOD)
    assert answer.status_code == 303
    rule = rule_of(api, RuleKind.ERRORS)
    assert (rule.name, rule.enabled, rule.tag, rule.in_hours) == ("Errors at night", True, "4k", False)
    assert (rule.threshold, rule.clear_threshold, rule.window) == (20, 5, 1800)
    assert (rule.hold, rule.keep, rule.repeat) == (120, 180, 21_600)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("name", "", "expected 1 to 100 letters"),
        ("name", "x" * 101, "expected 1 to 100 letters"),
        ("name", "a\u202eb", "expected 1 to 100 letters"),
        ("tag", "x" * 51, "expected 0 to 50 letters"),
        ("threshold", "", "expected a whole number"),
        ("threshold", "-1", "expected a whole number"),
        ("threshold", "1e3", "expected a whole number"),
        ("threshold", "٣", "expected a whole number"),
        ("threshold", "100001", "expected 0 to 100000"),
        ("clear_threshold", "21", "expected 0 to 20"),
        ("window", "0", "expected 1 to 1440"),
        ("window", "1441", "expected 1 to 1440"),
        ("hold", "10081", "expected 0 to 10080"),
        ("hold", "999999999", "expected 0 to 10080"),
        ("hold", "9" * 30, "expected a whole number"),
        ("keep", "1441", "expected 0 to 1440"),
        ("repeat", "721", "expected 0 to 720"),
        ("repeat", "x", "expected a whole number"),
    ],
)
def test_values_that_a_rule_cannot_have(api: Api, root: Person, field: str, value: str, expected: str) -> None:
    before = rule_of(api, RuleKind.ERRORS)
    answer = root.post("/alerts/rules/edit", "/alerts/rules", id=str(before.id), **{**GOOD, field: value})
    assert answer.status_code == 400
    assert expected in wrong_at(answer.text, field)
    assert 'value="Errors at night"' in answer.text or field == "name", "what was typed is not lost"
    assert rule_of(api, RuleKind.ERRORS) == before


def test_a_rule_of_the_beginning_has_its_name_in_the_readers_language(api: Api, root: Person) -> None:
    number = rule_of(api, RuleKind.ERRORS).id
    root.post("/display", "/alerts/rules", language="de", theme="auto", next="/alerts")
    for rule in rows(api, AlertRule):
        assert rule.name in RULE_NAMES
        assert f">{rule.name} <" not in root.get("/alerts/rules").text
    form = {**GOOD, "id": str(number), "name": "Viele Fehler"}
    assert 'value="Viele Fehler"' in root.get(f"/alerts/rules?rule={number}").text
    assert root.post("/alerts/rules/edit", "/alerts/rules", **form).status_code == 303
    assert rule_of(api, RuleKind.ERRORS).name == "Many errors", "the others read it in theirs"
    assert root.post("/alerts/rules/edit", "/alerts/rules", **{**form, "name": "Zu viel"}).status_code == 303
    assert rule_of(api, RuleKind.ERRORS).name == "Zu viel"


@pytest.mark.parametrize("percent", ["0", "100"])
def test_percent_of_an_outage(api: Api, root: Person, percent: str) -> None:
    number = str(rule_of(api, RuleKind.OUTAGE).id)
    answer = root.post("/alerts/rules/edit", "/alerts/rules", id=number, **{**GOOD, "threshold": percent})
    assert "expected 1 to 99" in wrong_at(answer.text, "threshold")


def test_what_a_kind_does_not_know_stays_as_it_is(api: Api, root: Person) -> None:
    number = str(rule_of(api, RuleKind.OFFLINE).id)
    assert root.post("/alerts/rules/edit", "/alerts/rules", id=number, **GOOD).status_code == 303
    rule = rule_of(api, RuleKind.OFFLINE)
    assert (rule.threshold, rule.clear_threshold, rule.window) == (None, None, None)


def test_a_rule_goes_to_the_channels_that_are_chosen(api: Api, root: Person) -> None:
    add(api, AlertChannel, *[{"name": name, "url": "json://x.example", "created_at": NOW} for name in ("one", "two")])
    first, second = [row.id for row in rows(api, AlertChannel)]
    rule = str(rule_of(api, RuleKind.ERRORS).id)

    def edit(**more: str) -> int:
        return root.post("/alerts/rules/edit", "/alerts/rules", id=rule, **{**GOOD, **more}).status_code

    assert edit(to="some", channel=str(first)) == 303
    assert [tuple(row) for row in rows(api, AlertRuleChannel)] == [(int(rule), first)]
    assert "to one" in text_of(root.get("/alerts/rules"))
    assert edit(to="all", channel=str(second)) == 303
    assert rows(api, AlertRuleChannel) == []
    for gone in ("999", "x", "9" * 40, "-1"):
        assert edit(to="some", channel=gone) == 400
    assert rows(api, AlertRuleChannel) == []


def test_rules_are_added_switched_off_and_deleted(api: Api, root: Person) -> None:
    made = root.post("/alerts/rules", new_name="Night shift", new_kind="screen")
    assert made.status_code == 303
    rule = rows(api, AlertRule)[-1]
    assert (rule.name, rule.kind, rule.enabled, rule.hold) == ("Night shift", "screen", False, 300)
    for fields, expected in (
        ({"new_name": "", "new_kind": "screen"}, "expected 1 to 100 letters"),
        ({"new_name": "x", "new_kind": "weather"}, "choose what the rule looks at"),
        ({"new_name": "x", "new_kind": "outage"}, "there is one about the whole fleet already"),
    ):
        answer = root.post("/alerts/rules", **fields)
        assert answer.status_code == 400
        assert expected in text_of(answer)
    assert root.post("/alerts/rules/delete", "/alerts/rules", id=str(rule.id)).status_code == 303
    assert rule.id not in [row.id for row in rows(api, AlertRule)]
    for gone in (str(rule.id), "", "0", "-1", "x", "9" * 40):
        for path in ("delete", "edit"):
            answer = root.post(f"/alerts/rules/{path}", "/alerts/rules", **{**GOOD, "id": gone})
            assert answer.status_code == 409
            assert "there is no such rule" in text_of(answer)


# --- channels ---------------------------------------------------------------------------------------------------------


def test_a_channel_is_added_tested_and_deleted_and_its_secret_is_nowhere(api: Api, root: Person) -> None:
    with Webhook() as hook:
        url = f"json://anna:{SECRET}@127.0.0.1:{hook.port}/{SECRET}-path"
        assert root.post("/alerts/channels", name="ops", url=url).status_code == 303
        (channel,) = rows(api, AlertChannel)
        assert channel.url == url
        tested = root.post("/alerts/channels/test", "/alerts/channels", id=str(channel.id))
        assert tested.status_code == 303
        pages = [root.get("/alerts/channels")]
        assert "The test message to ops was delivered." in text_of(pages[0])
        assert hook.titles == ["Test of the channel ops"]
    failed = root.post("/alerts/channels/test", "/alerts/channels", id=str(channel.id))
    assert failed.status_code == 409
    assert "The test message to ops was not delivered:" in text_of(failed)
    again = root.post("/alerts/channels", name="ops", url=url)
    assert again.status_code == 400
    assert "there is a channel of this name already" in wrong_at(again.text, "name")
    rule = rule_of(api, RuleKind.ERRORS).id
    pages += [
        failed,
        again,
        *[root.get(f"/alerts{path}") for path in ("", "/rules", f"/rules?rule={rule}", "/silences")],
    ]
    answers = [api.get(path) for path in ("/api/alerts", "/api/alerts/silences", "/api/openapi.json")]
    assert not any(SECRET in each.text for each in [*pages, *answers])
    assert "json://127.0.0.1" in pages[0].text
    assert root.post("/alerts/channels/delete", "/alerts/channels", id=str(channel.id)).status_code == 303
    assert rows(api, AlertChannel) == []
    for path in ("test", "delete"):
        gone = root.post(f"/alerts/channels/{path}", "/alerts/channels", id=str(channel.id))
        assert gone.status_code == 409
        assert "there is no such channel" in text_of(gone)


def test_a_channel_gets_another_address_and_stays_itself(api: Api, root: Person) -> None:
    add(api, AlertChannel, *[{"name": each, "url": f"json://127.0.0.1/{SECRET}", "created_at": NOW} for each in "ab"])
    first, second = (each.id for each in rows(api, AlertChannel))
    later = message(1, channel_id=first, status="pending", due_at=NOW + HOUR, finished_at=None)
    add(api, AlertMessage, later)

    def change(number: int, url: str) -> Any:
        fields = {"id": str(number), f"url-{number}": url}
        return root.post("/alerts/channels/url", "/alerts/channels", **fields)

    url = f"json://me:{SECRET}-new@127.0.0.2/{SECRET}"
    assert change(first, url).status_code == 303
    shown = root.get("/alerts/channels")
    assert "The address of a is changed. Messages that wait are sent there now." in text_of(shown)
    assert "json://127.0.0.2" in shown.text
    assert [each.url for each in rows(api, AlertChannel)] == [url, f"json://127.0.0.1/{SECRET}"]
    assert [each.due_at for each in rows(api, AlertMessage)] == [NOW]
    refused = change(second, f"mailto://127.0.0.1?from=a@example.org&to={SECRET}@example.org,b@example.org")
    assert refused.status_code == 400
    assert "several recipients" in wrong_at(refused.text, f"url-{second}")
    assert f'<details id="address-{second}" open>' in refused.text
    assert f'<details id="address-{first}">' in refused.text
    gone = change(second + 1, url)
    assert gone.status_code == 409
    assert "there is no such channel" in text_of(gone)
    assert rows(api, AlertChannel)[1].url == f"json://127.0.0.1/{SECRET}"
    assert not any(SECRET in each.text for each in (shown, refused, gone))


@pytest.mark.parametrize(
    ("name", "url", "field"),
    [
        ("", "json://example.org", "name"),
        ("x" * 101, "json://example.org", "name"),
        ("ops", "", "url"),
        ("ops", f"nosuch://{SECRET}@example.org", "url"),
        ("ops", f"file:///{SECRET}", "url"),
        ("ops", f"json://{SECRET} {SECRET}", "url"),
        ("ops", f"{SECRET}\0", "url"),
        ("ops", f"json://127.0.0.1/{SECRET}?" + "x" * 2_001, "url"),
    ],
)
def test_channels_that_cannot_be(api: Api, root: Person, name: str, url: str, field: str) -> None:
    answer = root.post("/alerts/channels", name=name, url=url)
    assert answer.status_code == 400
    assert wrong_at(answer.text, field)
    assert SECRET not in answer.text
    assert rows(api, AlertChannel) == []


def test_a_channel_of_this_machine_needs_a_word_in_the_settings(database_url: str) -> None:
    api = Api(database_url)
    answer = with_user(api, "root", Role.SUPERADMIN).post("/alerts/channels", name="ops", url="json://127.0.0.1/x")
    assert "alert_allow_local" in wrong_at(answer.text, "url")
    api.close()


def test_whoever_waits_for_a_test_does_not_wait_for_ever(
    api: Api, root: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infoscreen_server.pages.alert_settings.TEST_S", 0.0)
    add(api, AlertChannel, {"name": "ops", "url": "json://127.0.0.1:9", "created_at": NOW})
    answer = root.post("/alerts/channels/test", "/alerts/channels", id=str(rows(api, AlertChannel)[0].id))
    assert child.TOO_SLOW.text in text_of(answer)


# --- silences ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"when": "hour"}, NOW + HOUR),
        ({"when": "always"}, None),
        # It is 14:00 in Vienna.
        ({"when": "morning"}, datetime(2026, 6, 2, 6, 0, tzinfo=UTC)),
        ({"when": "between", "end": "2026-06-01T15:30"}, datetime(2026, 6, 1, 13, 30, tzinfo=UTC)),
    ],
)
def test_a_silence_with_an_end(api: Api, anna: Person, fields: dict[str, str], ends: datetime | None) -> None:
    sent = {"scope": "all", "target": "", "zone": "Europe/Vienna", "note": "work on the roof", **fields}
    assert anna.post("/alerts/silences", **sent).status_code == 303
    (row,) = rows(api, AlertSilence)
    assert (row.starts_at, row.ends_at, row.by, row.note) == (NOW, ends, "anna", "work on the roof")
    page = text_of(anna.get("/alerts/silences"))
    assert "All screens" in page
    assert "by anna · work on the roof" in page
    assert anna.post("/alerts/silences/end", "/alerts/silences", id=str(row.id)).status_code == 303
    assert rows(api, AlertSilence)[0].ends_at == NOW
    assert "Nothing is silenced" in text_of(anna.get("/alerts/silences"))
    again = anna.post("/alerts/silences/end", "/alerts/silences", id=str(row.id))
    assert again.status_code == 409
    assert "it is over" in text_of(again)


def test_a_silence_to_come_is_shown_apart_and_goes_without_a_trace(api: Api, anna: Person) -> None:
    times = {"begin": "2026-06-02T10:00", "end": "2026-06-02T11:00"}
    sent = {"scope": "site", "target": "Linz", "when": "between", "zone": "UTC", **times}
    assert anna.post("/alerts/silences", **sent).status_code == 303
    (row,) = rows(api, AlertSilence)
    assert row.starts_at == datetime(2026, 6, 2, 10, 0, tzinfo=UTC)
    assert "To come" in text_of(anna.get("/alerts/silences"))
    assert anna.post("/alerts/silences/end", "/alerts/silences", id=str(row.id)).status_code == 303
    assert rows(api, AlertSilence) == []


def test_a_silence_that_comes_back_every_week(api: Api, anna: Person) -> None:
    form = {"scope": "tag", "target": "4k", "when": "weekly", "zone": "Europe/Vienna", "from": "22:00", "to": "02:00"}
    assert anna.post("/alerts/silences", **form, day="0").status_code == 303
    (row,) = rows(api, AlertSilence)
    silence = silence_of(row)
    assert silence.weekly is not None
    assert silence.weekly.week == ((Span(1320, 120),), *[()] * 6)
    # A Monday: 23:00 in Vienna.
    assert silence.is_active(datetime(2026, 6, 1, 21, 0, tzinfo=UTC))
    assert not silence.is_active(NOW)
    assert "Monday 22:00–02:00 Europe/Vienna" in text_of(anna.get("/alerts/silences"))


def test_a_screen_is_found_by_name_host_or_uuid(api: Api, anna: Person) -> None:
    screens(api, "Foyer", "Saal", "Saal")
    for target in ("Foyer", uuid_of(1), uuid_of(1).upper()):
        assert anna.post("/alerts/silences", scope="client", target=target, when="hour", zone="UTC").status_code == 303
    assert {row.target for row in rows(api, AlertSilence)} == {uuid_of(1)}
    shown = anna.get("/alerts/silences").text
    assert f'<a href="/clients/{uuid_of(1)}">Foyer</a>' in shown
    for target, expected in (("nobody", "there is no such client"), ("Saal", "there are several clients")):
        answer = anna.post("/alerts/silences", scope="client", target=target, when="hour", zone="UTC")
        assert answer.status_code == 400
        assert expected in wrong_at(answer.text, "target")


def test_a_link_to_the_form_names_the_screen(api: Api, anna: Person) -> None:
    """And not its uuid, unless it takes that to know which one is meant."""
    screens(api, "Foyer", "Saal", "Saal")
    for number, shown in ((1, "Foyer"), (2, uuid_of(2)), (9, uuid_of(9))):
        form = anna.get(f"/alerts/silences?scope=client&target={uuid_of(number)}").text
        assert re.search(rf'id="target" [^>]*value="{shown}"', form)


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"scope": "planet"}, "scope", "choose whom it is about"),
        ({"scope": "site", "target": ""}, "target", "expected 1 to 100 letters"),
        ({"scope": "tag", "target": "x" * 101}, "target", "expected 1 to 100 letters"),
        ({"when": "between", "end": ""}, "end", "expected a day and a time"),
        ({"when": "between", "end": "2026-06-01T11:59"}, "end", "expected a time behind the begin"),
        ({"when": "between", "end": "soon"}, "end", "expected a day and a time"),
        ({"when": "between", "end": "0001-01-01T00:00"}, "end", "expected a day and a time"),
        ({"when": "between", "end": "9999-12-31T23:59"}, "end", "expected a day and a time"),
        ({"when": "between", "begin": "x", "end": "2026-07-01T00:00"}, "begin", "expected a day and a time"),
        ({"when": "weekly", "from": "25:00", "to": "03:00"}, "from", "expected a time of the day"),
        ({"when": "weekly", "from": "02:00", "to": "02:00"}, "from", "expected a time of the day"),
        ({"zone": "Mars/Olympus"}, "zone", "expected a time zone"),
        ({"zone": "../../etc/passwd"}, "zone", "expected a time zone"),
        ({"zone": ""}, "zone", "expected a time zone"),
        ({"note": "x" * 201}, "note", "expected 0 to 200 letters"),
    ],
)
def test_silences_that_cannot_be(api: Api, anna: Person, fields: dict[str, str], field: str, expected: str) -> None:
    answer = anna.post("/alerts/silences", **{"scope": "all", "when": "hour", "zone": "UTC", **fields})
    assert answer.status_code == 400
    assert expected in wrong_at(answer.text, field)
    assert rows(api, AlertSilence) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"when": "never"}, "choose when it holds"),
        ({"when": "weekly", "from": "02:00", "to": "03:00"}, "choose at least one day"),
    ],
)
def test_choices_that_are_missing(api: Api, anna: Person, fields: dict[str, str], expected: str) -> None:
    answer = anna.post("/alerts/silences", **{"scope": "all", "zone": "UTC", **fields})
    assert answer.status_code == 400
    assert expected in text_of(answer)
    assert rows(api, AlertSilence) == []


# --- opening hours ----------------------------------------------------------------------------------------------------


def test_opening_hours_are_set_replaced_and_taken_away(api: Api, root: Person) -> None:
    week = {f"day{n}": "8:00-12:00, 13:00 - 18:00" for n in range(5)} | {"day5": "22:00-02:00", "day6": ""}
    sent = {"tag": "school", "zone": "Europe/Vienna", "closed": "2026-12-24\n2026-12-25", **week}
    assert root.post("/alerts/hours", **sent).status_code == 303
    (row,) = rows(api, OpeningHours)
    hours = hours_of(row)
    assert hours.week[0] == (Span(480, 720), Span(780, 1080))
    assert hours.week[5:] == ((Span(1320, 120),), ())
    assert {each.isoformat() for each in hours.closed} == {"2026-12-24", "2026-12-25"}
    shown = text_of(root.get("/alerts/hours"))
    assert "Monday – Friday 08:00–12:00, 13:00–18:00 Saturday 22:00–02:00 Sunday closed" in shown
    assert "Closed on 24 Dec 2026 – 25 Dec 2026" in shown
    form = root.get("/alerts/hours?tag=school").text
    assert 'value="08:00-12:00, 13:00-18:00"' in form
    assert root.post("/alerts/hours", tag="school", zone="UTC", day0="0:00-24:00").status_code == 303
    assert root.post("/alerts/hours", tag="", zone="UTC", day0="09:00-10:00").status_code == 303
    assert [(row.tag, hours_of(row).week[0]) for row in rows(api, OpeningHours)] == [
        ("", (Span(540, 600),)),
        ("school", (Span(0, 1440),)),
    ]
    assert "All other screens" in text_of(root.get("/alerts/hours"))
    assert root.post("/alerts/hours/delete", "/alerts/hours", tag="school").status_code == 303
    assert [row.tag for row in rows(api, OpeningHours)] == [""]
    assert root.post("/alerts/hours/delete", "/alerts/hours", tag="school").status_code == 409


def test_days_in_a_row_are_closed_together(api: Api, root: Person) -> None:
    typed = "24.12.2026 – 6.1.2027\r\n2027-05-01 - 2027-05-02, 2026-01-01"
    assert root.post("/alerts/hours", tag="t", zone="UTC", day0="8:00-9:00", closed=typed).status_code == 303
    assert len(hours_of(rows(api, OpeningHours)[0]).closed) == 17
    assert "Closed on 24 Dec 2026 – 6 Jan 2027, 1 May 2027 – 2 May 2027 " in text_of(root.get("/alerts/hours"))
    form = html.unescape(root.get("/alerts/hours?tag=t").text)
    assert ">2026-01-01\n2026-12-24 – 2027-01-06\n2027-05-01 – 2027-05-02<" in form


def test_what_was_typed_into_several_lines_comes_back_as_it_was(api: Api, root: Person) -> None:
    answer = root.post("/alerts/hours", tag="t", zone="UTC", day0="never", closed="2026-12-24\r\n2026-12-25")
    assert ">2026-12-24\n2026-12-25<" in answer.text


def test_new_hours_replace_none(api: Api, root: Person) -> None:
    form = {"new": "1", "tag": "", "zone": "UTC", "day0": "8:00-9:00"}
    assert root.post("/alerts/hours", **form).status_code == 303
    again = root.post("/alerts/hours", **{**form, "day0": "10:00-11:00"})
    assert "there are hours for it already" in wrong_at(again.text, "tag")
    assert hours_of(rows(api, OpeningHours)[0]).week[0] == (Span(480, 540),)


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({"tag": "x" * 51}, "tag", "expected 0 to 50 letters"),
        ({"zone": "Vienna"}, "zone", "expected a time zone"),
        ({"day0": ""}, "day0", "there has to be one open day"),
        ({"day3": "morning"}, "day3", "expected times such as"),
        ({"day3": "8:00-25:00"}, "day3", "expected times such as"),
        ({"day3": "8:00-24:30"}, "day3", "expected times such as"),
        ({"day3": "8:00-12:00, 11:00-13:00"}, "day3", "expected times such as"),
        ({"day3": "22:00-02:00, 23:00-23:30"}, "day3", "expected times such as"),
        ({"day3": "٨:00-12:00"}, "day3", "expected times such as"),
        ({"day3": ",".join(f"{n:02}:00-{n:02}:10" for n in range(11))}, "day3", "expected times such as"),
        ({"closed": "12/24/2026"}, "closed", "expected dates such as"),
        ({"closed": "2026-02-30"}, "closed", "expected dates such as"),
        ({"closed": "30.2.2026"}, "closed", "expected dates such as"),
        ({"closed": "2026-12-24 – 2026-12-23"}, "closed", "expected dates such as"),
        ({"closed": "2026-01-01 – 2027-06-01"}, "closed", "expected dates such as"),
        ({"closed": "0001-01-01 – 9999-12-31"}, "closed", "expected dates such as"),
        ({"closed": "2026-12-24 –"}, "closed", "expected dates such as"),
    ],
)
def test_hours_that_cannot_be(api: Api, root: Person, fields: dict[str, str], field: str, expected: str) -> None:
    answer = root.post("/alerts/hours", **{"tag": "t", "zone": "UTC", "day0": "08:00-18:00", **fields})
    assert answer.status_code == 400
    assert expected in wrong_at(answer.text, field)
    assert rows(api, OpeningHours) == []


# --- the API ----------------------------------------------------------------------------------------------------------


def call(api: Api, path: str, **body: Any) -> Any:
    header = {"Authorization": f"Bearer {api.token(TokenRole.ADMIN)}"}
    return api.client.post(f"/api/alerts/{path}", headers=header, json=body)


def test_the_api_tells_of_alerts(api: Api) -> None:
    screens(api, "Foyer", "Saal", site="Linz")
    over = {"ended_at": NOW, "closed_at": NOW, "announced_at": NOW}
    add(api, Alert, fired(api, 1, site="Linz"), fired(api, 2, **over), fired(api, None, kind=RuleKind.OUTAGE))
    found = {each["id"]: each for each in api.get("/api/alerts").json["alerts"]}
    assert (found[1]["client"], found[1]["site"], found[1]["firing"]) == ("Foyer", "Linz", True)
    assert (found[2]["firing"], found[2]["told_at"] is not None) == (False, True)
    assert (found[3]["kind"], found[3]["client_uuid"]) == ("outage", None)
    assert [each["id"] for each in api.get("/api/alerts?firing=true").json["alerts"]] == [3, 1]
    assert [each["id"] for each in api.get(f"/api/alerts?uuid={uuid_of(2)}").json["alerts"]] == [2]


def test_the_api_makes_and_ends_silences(api: Api) -> None:
    screens(api, "Foyer")
    made = call(api, "silences", scope="client", target="Foyer", note="paint", ends_at="2026-06-01T13:00:00Z")
    weekly = call(api, "silences", scope="all", week=["02:00-03:00", *[""] * 6], zone="Europe/Vienna")
    assert (made.status_code, weekly.status_code) == (200, 200)
    first, second = api.get("/api/alerts/silences").json["silences"]
    assert (first["target"], first["note"], first["active"], first["by"]) == (uuid_of(1), "paint", True, "admin")
    assert (second["week"][0], second["zone"], second["active"]) == ("02:00-03:00", "Europe/Vienna", False)
    assert call(api, "silences/end", id=first["id"]).json == {"ended": True}
    assert call(api, "silences/end", id=first["id"]).status_code == 404
    assert [each["id"] for each in api.get("/api/alerts/silences").json["silences"]] == [second["id"]]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "planet"}, "scope"),
        ({"scope": "client", "target": "nobody"}, "target"),
        ({"scope": "site"}, "target"),
        ({"scope": "all", "ends_at": "2026-06-01T11:00:00Z"}, "ends_at"),
        ({"scope": "all", "week": ["02:00-03:00"]}, "week"),
        ({"scope": "all", "week": [""] * 7}, "week"),
        ({"scope": "all", "week": ["x", *[""] * 6]}, "week"),
        ({"scope": "all", "week": ["02:00-03:00", *[""] * 6], "zone": "Mars"}, "zone"),
        ({"scope": "all", "note": "a\u202eb"}, "note"),
    ],
)
def test_silences_that_the_api_does_not_take(api: Api, body: dict[str, Any], field: str) -> None:
    answer = call(api, "silences", **body)
    assert answer.status_code == 400
    assert field in answer.json["error"]
    assert rows(api, AlertSilence) == []
