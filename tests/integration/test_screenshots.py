"""Pictures of kiosks' screens: sent once however often, few kept of each kiosk, shown to those who may see logs."""

import http.client
import subprocess
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from infoscreen_server import api_screenshots as routes
from infoscreen_server.db import writing
from infoscreen_server.models import Client, Screenshot, TokenRole
from infoscreen_server.screenshots import MAX_BYTES
from infoscreen_shared.messages import timestamp_text
from parts.api import NOW, OTHER, UUID, Api
from parts.jpegs import jpeg
from parts.server import Server

LIST = f"/api/clients/{UUID}/screenshots"
GOOD = jpeg()


def listed(api: Api, query: str = "", uuid: str = UUID) -> list[dict[str, Any]]:
    answer = api.get(f"/api/clients/{uuid}/screenshots{query}")
    assert answer.status_code == 200, answer.json
    routes.ScreenshotPage.model_validate_json(answer.data)
    found: list[dict[str, Any]] = answer.json["screenshots"]
    assert answer.json["count"] == len(found)
    return found


def send(api: Api, number: int, minutes: float, **said: str) -> Any:
    taken = timestamp_text(NOW + timedelta(minutes=minutes))
    answer = api.upload(jpeg(note=b"%d" % number), id=f"picture-{number}", taken_at=taken, **said)
    assert answer.status_code == 201, answer.json
    return answer


# --- one picture ------------------------------------------------------------------------------------------------------


def test_from_the_kiosk_to_the_api(api: Api) -> None:
    api.now = NOW + timedelta(seconds=3)
    said = {"kind": "incident", "status": "BLACK", "reason": "black behind clock", "hash": "ffee00"}
    answer = api.upload(GOOD, id="one-picture", taken_at="2026-06-01T14:00:00+02:00", **said)
    assert answer.status_code == 201
    number = answer.json["id"]
    assert answer.json == {"id": number}
    (found,) = listed(api)
    assert found == said | {
        "id": number,
        "taken_at": timestamp_text(NOW),
        "device_taken_at": None,
        "received_at": timestamp_text(NOW + timedelta(seconds=3)),
        "width": 320,
        "height": 180,
        "bytes": len(GOOD),
        "url": f"{LIST}/{number}.jpg",
    }
    shown = api.get(found["url"])
    assert (shown.status_code, shown.content_type, shown.data) == (200, "image/jpeg", GOOD)


def test_a_picture_may_be_kept_by_the_browser_alone(api: Api) -> None:
    url = f"{LIST}/{api.upload(GOOD).json['id']}.jpg"
    shown = api.get(url)
    kept = ("Cache-Control", "Vary", "X-Content-Type-Options")
    assert [shown.headers[name] for name in kept] == ["private, max-age=3600", "Authorization, Cookie", "nosniff"]
    header = {"Authorization": f"Bearer {api.token(TokenRole.ADMIN)}"}
    again = api.client.get(url, headers=header | {"If-None-Match": shown.headers["ETag"]})
    assert (again.status_code, again.data, again.headers["Cache-Control"]) == (304, b"", "private, max-age=3600")
    assert api.client.get(url, headers=header | {"If-None-Match": '"other"'}).status_code == 200
    assert api.client.get(url, headers={"If-None-Match": shown.headers["ETag"]}).status_code == 401
    assert api.client.head(url, headers=header).headers["Content-Length"] == str(len(GOOD))


@pytest.mark.parametrize("size", ["320x180", "180x320"])
def test_what_an_encoder_makes_is_taken_and_what_tests_make_can_be_decoded(api: Api, size: str) -> None:
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=1", "-frames:v", "1", "-q:v", "10"]
    made = ffmpeg(*source, "-f", "mjpeg", "-")
    assert api.upload(made).status_code == 201
    (found,) = listed(api)
    assert f"{found['width']}x{found['height']}" == size
    assert ffmpeg("-i", "-", "-f", "rawvideo", "-pix_fmt", "gray", "-", data=GOOD) == bytes([128]) * (320 * 180)


def ffmpeg(*argv: str, data: bytes = b"") -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", *argv], input=data, capture_output=True, check=True).stdout


def test_a_picture_is_a_sign_of_life(api: Api) -> None:
    api.upload(GOOD)
    assert [api.get(f"/api/clients/{UUID}").json[name] for name in ("online", "last_alive")] == [
        True,
        timestamp_text(NOW),
    ]


def test_a_time_out_of_reason_is_clamped_and_kept(api: Api) -> None:
    for number, (told, clamped) in enumerate(
        [
            ("1970-01-01T00:00:09Z", NOW - timedelta(days=90)),
            ("2026-06-01T12:05:01Z", NOW + timedelta(minutes=5)),
            ("0001-01-01T00:00:00Z", NOW - timedelta(days=90)),
            ("9999-12-31T23:59:59.999999Z", NOW + timedelta(minutes=5)),
        ]
    ):
        answer = api.upload(GOOD, id=f"picture-{number}", taken_at=told, kind="incident")
        (found,) = [each for each in listed(api) if each["id"] == answer.json["id"]]
        assert found["taken_at"] == timestamp_text(clamped)
        assert found["device_taken_at"] == (told if "." in told else told.replace("Z", ".000000Z"))


# --- sent again -------------------------------------------------------------------------------------------------------


def test_a_picture_that_is_sent_again_is_stored_once(api: Api) -> None:
    first = api.upload(GOOD, id="the-same-1")
    again = api.upload(jpeg(8, 8), id="the-same-1", status="BLACK")
    other = api.upload(GOOD, id="the-same-1", uuid=OTHER)
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert first.json == again.json != other.json
    assert [each["status"] for each in listed(api)] == ["OK"]
    assert len(listed(api, uuid=OTHER)) == 1


def test_the_same_picture_from_many_sides_at_once_is_stored_once(api: Api) -> None:
    api.token(TokenRole.DEVICE, UUID)
    together = threading.Barrier(6, timeout=60)
    answers: list[tuple[int, int]] = []

    def kiosk() -> None:
        for turn in range(8):
            together.wait()
            answer = api.upload(GOOD, id=f"picture-{turn}")
            answers.append((answer.json.get("id", 0), answer.status_code))

    threads = [threading.Thread(target=kiosk) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 48
    assert [status for _, status in sorted(answers)] == [200, 200, 200, 200, 200, 201] * 8
    assert {number for number, _ in answers} == {each["id"] for each in listed(api)}


# --- how many stay ----------------------------------------------------------------------------------------------------


def test_the_newest_stay_of_each_kind_and_client(database_url: str) -> None:
    api = Api(database_url, periodic_screenshots_kept=3, incident_screenshots_kept=2)
    api.upload(GOOD, uuid=OTHER)
    for number in range(5):
        send(api, number, number - 60, kind="periodic")
        send(api, number + 10, number - 50, kind="incident")
    old = send(api, 99, -90, kind="periodic")
    assert [each["taken_at"][14:16] for each in listed(api)] == ["14", "13", "04", "03", "02"]
    assert api.get(f"{LIST}/{old.json['id']}.jpg").status_code == 404
    assert len(listed(api, uuid=OTHER)) == 1
    api.close()


def test_none_may_be_kept(database_url: str) -> None:
    api = Api(database_url, periodic_screenshots_kept=0)
    assert [api.upload(GOOD).status_code for _ in range(2)] == [201, 201]
    assert listed(api) == []
    api.close()


def test_a_number_is_never_given_twice(database_url: str) -> None:
    """Browsers keep a picture under its address."""
    api = Api(database_url, periodic_screenshots_kept=1)
    numbers = [send(api, number, -number).json["id"] for number in range(4)]
    assert len(set(numbers)) == 4
    api.close()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_pages_follow_without_gap_or_overlap(api: Api) -> None:
    for number in range(20):
        send(api, number, (number // 3) - 60, kind="incident")
    everything = [each["id"] for each in listed(api)]
    assert len(everything) == 20
    seen: list[int] = []
    following: str | None = ""
    while following is not None:
        answer = api.get(f"{LIST}?limit=7" + (f"&before={following}" if following else ""))
        seen += [each["id"] for each in answer.json["screenshots"]]
        following = answer.json["next"]
        send(api, 100 + len(seen), 1, kind="incident")
    assert seen == everything


WRONG_GET = [
    (f"{LIST}?limit=0", 400, "limit: "),
    (f"{LIST}?before=ZZZ", 400, "before: "),
    (f"{LIST}?ZZZ=1", 400, "ZZZ: "),
    ("/api/clients/ZZZ/screenshots", 400, "uuid: "),
    ("/api/clients/ZZZ/screenshots/1.jpg", 400, "uuid: "),
    (f"{LIST}/ZZZ.jpg", 400, "id: "),
    (f"{LIST}/0.jpg", 400, "id: "),
    (f"{LIST}/-1.jpg", 400, "id: "),
    (f"{LIST}/1.0.jpg", 400, "id: "),
    (f"{LIST}/%D9%A1.jpg", 400, "id: "),
    (f"{LIST}/{'9' * 5000}.jpg", 400, "id: "),
    (f"{LIST}/{'9' * 18}.jpg", 404, "id: "),
    (f"{LIST}/1", 404, "there is nothing"),
    (f"{LIST}/1.png", 404, "there is nothing"),
    (LIST, 404, "uuid: there is no such client"),
]


def test_wrong_questions(api: Api) -> None:
    for path, status, text in WRONG_GET:
        answer = api.get(path)
        assert (path, answer.status_code) == (path, status)
        assert answer.json["error"].startswith(text), (path, answer.json)


def test_anothers_picture_is_not_there(api: Api) -> None:
    number = api.upload(GOOD).json["id"]
    api.upload(GOOD, uuid=OTHER, id="picture-2")
    assert api.get(f"/api/clients/{OTHER}/screenshots/{number}.jpg").status_code == 404
    assert api.get(f"{LIST}/{number}.jpg").status_code == 200


def test_a_kiosk_sends_its_own_pictures_only_and_sees_none(api: Api) -> None:
    number = api.upload(GOOD).json["id"]
    header = {"Authorization": f"Bearer {api.token(TokenRole.DEVICE, UUID)}"}
    query = "?id=picture-2&taken_at=2026-06-01&kind=periodic&status=OK"
    path = f"/api/ingest/{OTHER}/screenshots{query}"
    assert api.client.post(path, headers=header, data=GOOD, content_type="image/jpeg").status_code == 403
    for shown in (LIST, f"{LIST}/{number}.jpg"):
        assert api.client.get(shown, headers=header).status_code == 403
        assert api.get(shown, TokenRole.USER).status_code == 403
        assert api.get(shown, TokenRole.ADMIN).status_code == 200


# --- what is refused --------------------------------------------------------------------------------------------------

WRONG_SAID: list[tuple[dict[str, Any], str]] = [
    ({"id": None}, "id: "),
    ({"id": ""}, "id: "),
    ({"id": "short"}, "id: expected 8 to 64 letters, digits, - or _"),
    ({"id": "Z" * 65}, "id: "),
    ({"id": "with blank"}, "id: "),
    ({"id": "picture-1\n"}, "id: "),
    ({"taken_at": None}, "taken_at: "),
    ({"taken_at": "ZZZ"}, "taken_at: expected an ISO 8601 time"),
    ({"taken_at": "0001-01-01T00:00:00+02:00"}, "taken_at: "),
    ({"kind": None}, "kind: "),
    ({"kind": "ZZZ"}, "kind: expected 'incident' or 'periodic'"),
    ({"status": None}, "status: "),
    ({"status": "ok"}, "status: expected 'OK', 'BLACK', 'FROZEN' or 'UNKNOWN'"),
    ({"reason": "Z" * 256}, "reason: expected text of at most 255 characters"),
    ({"hash": "Z" * 256}, "hash: expected text of at most 255 characters"),
    ({"ZZZ": "1"}, "ZZZ: unknown parameter"),
]
WRONG_BODIES: list[tuple[bytes, str, int, str]] = [
    (b"", "image/jpeg", 400, "body: not a JPEG"),
    (b"ZZZ", "image/jpeg", 400, "body: not a JPEG"),
    (GOOD[:-2], "image/jpeg", 400, "body: a JPEG that is damaged or cut off"),
    (GOOD, "image/png", 400, "Content-Type: expected image/jpeg"),
    (GOOD, "", 400, "Content-Type: expected image/jpeg"),
    (jpeg(length=MAX_BYTES + 1), "image/jpeg", 413, "body: larger than 20000 bytes"),
    (b"Z" * 2_000_000, "image/jpeg", 413, "body: larger than 20000 bytes"),
]


def test_what_is_wrong_is_named_and_not_repeated(api: Api) -> None:
    for said, text in WRONG_SAID:
        answer = api.upload(GOOD, **said)
        assert (said, answer.status_code) == (said, 400)
        assert answer.json["error"].startswith(text), (said, answer.json)
        assert "ZZZ" not in answer.json["error"].removeprefix("ZZZ: ")
    for body, kind, status, text in WRONG_BODIES:
        answer = api.upload(body, content_type=kind)
        assert (answer.status_code, answer.json) == (status, {"error": text})
    with api.engine.connect() as connection:
        assert connection.execute(select(Screenshot.id)).all() == []


def test_the_largest_that_is_taken(api: Api) -> None:
    long = "\u00e4\U0001f5a5" * 127
    answer = api.upload(
        jpeg(length=MAX_BYTES), content_type="image/jpeg; charset=x", reason=long, hash="\0", id="Z" * 64
    )
    assert answer.status_code == 201
    (found,) = listed(api)
    assert (found["bytes"], found["reason"], found["hash"]) == (MAX_BYTES, long, "\ufffd")


def test_a_client_that_is_not_registered_is_turned_away(database_url: str) -> None:
    api = Api(database_url, auto_register=False)
    answer = api.upload(GOOD)
    assert (answer.status_code, answer.json) == (404, {"error": "uuid: there is no such client"})
    with writing(api.engine) as connection:
        connection.execute(insert(Client).values(uuid=UUID, registered_at=NOW, online=False))
    assert api.upload(GOOD).status_code == 201
    api.close()


RAW = st.binary(max_size=12).map(quote_from_bytes)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["picture-1", "picture-2"]) | RAW,
        "taken_at": st.sampled_from(["2026-06-01T12:00:00Z", "0001-01-01", "9999-12-31T23:59:59-14:00"]) | RAW,
        "kind": st.sampled_from(["incident", "periodic"]) | RAW,
        "status": st.sampled_from(["OK", "UNKNOWN"]) | RAW,
        "reason": RAW,
        "hash": RAW,
        "other": RAW,
    },
)
NEAR = st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4)).map(
    lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]
)
BODIES = st.just(GOOD) | NEAR | st.binary(max_size=40)
KINDS = st.just("image/jpeg") | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SAID, BODIES, KINDS, st.booleans())
def test_whatever_comes_is_stored_or_refused(
    api: Api, said: dict[str, str], body: bytes, kind: str, whole: bool
) -> None:
    usual = {"id": "picture-1", "taken_at": "2026-06-01", "kind": "periodic", "status": "OK"}
    query = "&".join(f"{name}={value}" for name, value in ((usual if whole else {}) | said).items())
    header = {"Authorization": f"Bearer {api.token(TokenRole.DEVICE, UUID)}", "Content-Type": kind}
    answer: Any = api.client.post(f"/api/ingest/{UUID}/screenshots?{query}", headers=header, data=body)
    assert answer.status_code in (200, 201, 400), answer.json
    assert list(answer.json) == (["error"] if answer.status_code == 400 else ["id"])


def test_a_body_of_untold_length_is_bounded_too(tmp_path: Path) -> None:
    """Over a real socket: what comes in chunks is read no further than the bound."""
    server = Server(tmp_path, f"sqlite:///{tmp_path}/server.db").start("run")
    try:
        token = server.token("device", UUID)
        said = {"id": "picture-1", "taken_at": timestamp_text(NOW), "kind": "periodic", "status": "OK"}
        for body, status in ((GOOD, 201), (jpeg(length=MAX_BYTES), 200), (jpeg(length=MAX_BYTES + 1), 413)):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            chunks = (body[start : start + 1000] for start in range(0, len(body), 1000))
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
            path = f"/api/ingest/{UUID}/screenshots?{urlencode(said)}"
            with closing(connection):
                connection.request("POST", path, chunks, headers, encode_chunked=True)
                answer = connection.getresponse()
                answer.read()
                assert (len(body), answer.status) == (len(body), status)
    finally:
        server.stop()
