"""What kiosks send and people write is text and nothing else, on every page and live, whatever it looks like."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, expect

from infoscreen_server import store
from infoscreen_server.db import make_engine, writing
from infoscreen_server.incoming import arrival_of
from infoscreen_shared.messages import timestamp_text
from parts import alarms, crowd
from parts.browser import Visitor
from parts.dashboard import Dashboard, page_routes
from parts.jpegs import jpeg
from parts.looks import refused

PAYLOADS = (
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "'><svg/onload=window.pwned=1>",
    "javascript:window.pwned=1//",
    "</textarea></title></style></template></script><script>window.pwned=1</script>",
    "\" autofocus onfocus=window.pwned=1 x=' onmouseover=window.pwned=1 y=`",
    "<a href=javascript:window.pwned=1 class=button>x</a><base href=//evil.example/>",
    "<iframe srcdoc='<script>top.pwned=1</script>'></iframe><meta http-equiv=refresh content=0;//evil.example>",
    "{{7*7}}{% raw %}${7*7}<%= 7*7 %>%(name)s&lt;script&gt;&#60;b&#62;",
    "\u202egnp.exe\u2066\x1b[31m\x1b]0;x\x07\x00\x9b2J\u2028\ufeff\u200b",
    "<!--<style>*{display:none}</style><noscript><p title='</noscript><img src=x onerror=window.pwned=1>'>",
)
FOREIGN = r"""
[...document.querySelectorAll("*")].filter((each) =>
  ["IFRAME", "BASE", "OBJECT", "EMBED", "STYLE"].includes(each.tagName) || each.httpEquiv ||
  (each.tagName === "SCRIPT" && !each.src) ||
  [...each.attributes].some(({ name, value }) => /^(on|style|srcdoc)/.test(name) ||
    (["href", "src", "action", "formaction"].includes(name) && /^\s*(javascript|data|vbscript):/i.test(value)))
).map((each) => each.outerHTML.slice(0, 200))
"""
"""Elements that no page of ours has."""
STEERING = re.compile("[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u202a-\u202e\u2028\u2066-\u2069\ufeff]")


def uuid_of(number: int) -> str:
    return f"{number:08x}-bad0-4bad-8bad-00000000bad0"


def messages(number: int, bad: str, now: datetime) -> Iterator[tuple[str, Any]]:
    """All that a client can say, with the payload in every string of it."""
    when, uuid = timestamp_text(now), uuid_of(number)
    context: dict[str, Any] = {bad: bad, "list": [bad, {bad: bad}], "process": bad, "reason": bad, "error": bad}
    record = {"timestamp": when, "message": bad, "context": context, "boot_id": bad[:64]}
    codes = [bad[:64], "player.crashed", "screen.black", "player.gave_up", "buffer.dropped", "session.restarting"]
    numbered = [{**record, "code": code, "seq": seq} for seq, code in enumerate(codes, 1)]
    topic = f"infoscreen/{uuid}"
    yield f"{topic}/hello", {"epoch": bad[:64], "lanes": {"error": {"base": 0, "next": 1}}, "version": bad[:64]}
    yield f"{topic}/logs/error", {"epoch": bad[:64], "base": 0, "records": numbered}
    for level in ("warn", "info"):
        for _ in range(7):
            yield f"{topic}/logs/{level}", record | {"code": bad[:64]}
    yield (
        f"{topic}/health",
        {
            "timestamp": when,
            "expected_state": {"event_id": number, "event_type": "video"},
            "actual_state": {"process": bad, "pid": 1, "status": "crashed"},
            "screen": {"status": "BLACK", "reason": bad, "hash": bad, "analyzed_at": when},
            "system": {
                "hostname": bad,
                "boot_id": bad,
                "load": [bad],
                "cpu_temperature": bad,
                bad: bad,
                "uptime_s": bad,
            },
        },
    )
    yield (
        f"{topic}/heartbeat",
        {"uuid": uuid, "timestamp": when, "current_process": bad, "version": bad[:64], "process_status": "crashed"},
    )
    yield f"{topic}/logs/error", {"epoch": "f", "base": 0, "records": [{"seq": 1, "message": bad, bad: bad}]}
    yield f"infoscreen/{bad}/logs/error", {"message": bad}
    yield f"{topic}/health", [bad]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("hostile")
    with Dashboard(folder, f"sqlite:///{folder / 'server.db'}", count=1) as running:
        _fill(running)
        yield running


def _fill(dashboard: Dashboard) -> None:
    engine = make_engine(dashboard.database_url)
    now = datetime.now(UTC)
    for number, bad in enumerate(PAYLOADS):
        arrivals = [
            arrival_of(topic, json.dumps(body).encode("utf-8", "replace")) for topic, body in messages(number, bad, now)
        ]
        store.ingest(engine, arrivals, now, store.Policy(debug_mode=True), "mqtt")
    # What the kiosks told would make rules of ours send messages.
    alarms.clear(dashboard.database_url)
    with writing(engine) as connection:
        for number, bad in enumerate(PAYLOADS):
            crowd.hostile(connection, number, uuid_of(number), bad, now)
    engine.dispose()
    admin = dashboard.server.token("superadmin")
    for number, bad in enumerate(PAYLOADS):
        _upload(dashboard, number, bad, now)
        plain = "".join(char for char in bad if char.isprintable())
        body = json.dumps({"name": plain[:100], "location": plain[:100], "tags": [plain[:50].replace(",", " ")]})
        _patch(dashboard, f"/api/clients/{uuid_of(number)}", admin, body.encode())


def _upload(dashboard: Dashboard, number: int, bad: str, now: datetime) -> None:
    token = dashboard.server.token("device", uuid_of(number))
    said = {"id": bad[:64], "taken_at": timestamp_text(now), "kind": "incident", "status": "BLACK", "reason": bad}
    query = "&".join(f"{name}={quote(value)}" for name, value in (said | {"hash": bad}).items())
    path = f"/api/ingest/{uuid_of(number)}/screenshots?{query}"
    status, answer = dashboard.server.request(path, token, jpeg(), Content_Type="image/jpeg")
    assert status in (201, 400), answer


def _patch(dashboard: Dashboard, path: str, token: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with urlopen(Request(f"{dashboard.origin}{path}", body, headers, method="PATCH"), timeout=20) as answer:
        assert answer.status == 200


def addresses(number: int) -> list[str]:
    """Of every page that shows something of a client, the first time, and of those that are about this one."""
    uuid = uuid_of(number)
    paths = [route.rule for route in page_routes() if "token>" not in route.rule]
    if number:
        paths = [path for path in paths if "uuid>" in path]
    found = [re.sub("<[^>]*uuid>", uuid, path) for path in paths if path != "/system/issue"]
    tag = quote(crowd.hostile_tag(number, PAYLOADS[number]))
    alerts = [f"rules?rule={crowd.HOSTILE + number}", f"hours?tag={tag}", f"silences?scope=client&target={uuid}"]
    alerts += [f"silences?scope=site&target={quote(PAYLOADS[number][:100])}"]
    issue = [] if number else ["/system/issue?level=ERROR&code=player.crashed"]
    return [*found, *issue, f"/clients/{uuid}/logs?level=ERROR", *(f"/alerts/{path}" for path in alerts)]


def check(visitor: Visitor, where: str) -> None:
    page = visitor.page
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert page.evaluate("window.pwned") is None, where
    assert page.evaluate(FOREIGN) == [], where
    shown = page.locator("body").inner_text()
    assert not STEERING.search(shown), (where, STEERING.findall(shown))
    assert visitor.dialogs == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scripts", [True, False])
def test_no_text_of_a_client_does_anything(browser: Browser, hostile: Dashboard, scripts: bool) -> None:
    numbers = range(len(PAYLOADS)) if scripts else range(3)
    with hostile.visitor(browser, scripts=scripts) as visitor:
        for number in numbers:
            for path in addresses(number):
                visitor.open(path)
                check(visitor, f"{path} of {PAYLOADS[number]!r}")


def test_no_text_of_a_form_that_came_back_does_anything(browser: Browser, hostile: Dashboard) -> None:
    with hostile.visitor(browser) as visitor:
        for bad in PAYLOADS:
            plain = "".join(char for char in bad if char.isprintable())
            for stop in (
                refused("/alerts/silences", scope="client", target=f"no {plain}", note=plain),
                refused("/alerts/hours", tag=plain, zone=plain, day2=plain, closed=plain),
                refused("/alerts/channels", name=plain, url=plain),
            ):
                stop.go(visitor)
                check(visitor, f"{stop.path} of {bad!r}")


def test_texts_of_clients_are_there_to_be_read(browser: Browser, hostile: Dashboard) -> None:
    """Shown as they are, not left out: else the test above would see nothing."""
    with hostile.visitor(browser) as visitor:
        for number, bad in enumerate(PAYLOADS[:8]):
            page = visitor.open(f"/clients/{uuid_of(number)}/logs")
            assert bad in page.get_by_role("main").inner_text()
            assert bad[:60] in visitor.open(f"/clients/{uuid_of(number)}").get_by_role("main").inner_text()
        for path in ("", "/silences", "/rules", "/channels", "/hours"):
            page = visitor.open(f"/alerts{path}")
            page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
            shown = page.get_by_role("main").inner_text()
            assert [bad for bad in PAYLOADS[:8] if bad[:40] not in shown] == [], path
        page = visitor.open(f"/clients/{uuid_of(9)}/logs")
        assert r"\u202egnp.exe" in page.get_by_role("main").inner_text()


@pytest.mark.parametrize("path", ["/system", "/clients/{uuid}/logs"])
def test_live_lines_are_text_too(browser: Browser, hostile: Dashboard, path: str) -> None:
    uuid = uuid_of(0)
    engine = make_engine(hostile.database_url)
    with hostile.visitor(browser) as visitor:
        page = visitor.open(path.format(uuid=uuid))
        expect(page.locator("[data-state=live]")).to_be_visible()
        for number, bad in enumerate(PAYLOADS):
            now = datetime.now(UTC)
            said = {"timestamp": timestamp_text(now), "message": f"live {number} {bad}", "context": {bad: bad}}
            arrival = arrival_of(f"infoscreen/{uuid}/logs/warn", json.dumps(said | {"code": bad[:64]}).encode())
            store.ingest(engine, [arrival], now, store.Policy(debug_mode=True), "mqtt")
            expect(page.get_by_text(re.compile(f"live {number} ")).first).to_be_visible()
        check(visitor, path)
    engine.dispose()


def users(dashboard: Dashboard) -> list[list[str]]:
    return [line.split("\t")[:2] for line in dashboard.server.call("user", "list").splitlines()]


def test_a_form_of_another_site_changes_nothing(browser: Browser, hostile: Dashboard, tmp_path: Path) -> None:
    """The browser leaves the session's cookie out, and there is no token to guess."""
    with hostile.visitor(browser) as visitor:
        before = users(hostile)
        fields = '<input name="name" value="mallory"><input name="role" value="superadmin"><button>Win a prize</button>'
        html = f'<!doctype html><form method="post" action="{hostile.origin}/users">{fields}</form>'
        (tmp_path / "prize.html").write_text(html)
        visitor.page.goto((tmp_path / "prize.html").as_uri())
        visitor.page.get_by_role("button").click()
        visitor.page.wait_for_url(f"{hostile.origin}/**")
        assert users(hostile) == before
        assert visitor.open("/users").get_by_role("heading", level=1).inner_text() == "Users"


def test_no_page_can_be_framed(browser: Browser, hostile: Dashboard, tmp_path: Path) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(f'<!doctype html><iframe src="{hostile.origin}/sign-in"></iframe>')
    with hostile.visitor(browser, "nobody") as visitor:
        visitor.page.goto(frame.as_uri())
        expect(visitor.page.frame_locator("iframe").get_by_label("Password")).to_have_count(0)
        assert any("frame" in fault for fault in visitor.faults)
        visitor.faults.clear()
