"""Signing in, and what others try there: guessing, fixation, forged forms, links to elsewhere, forged log lines."""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from sqlalchemy import func, insert, select, update

from infoscreen_server import accounts, sessions, set_up, throttle, users
from infoscreen_server.accounts import Busy, add_user, password_fits
from infoscreen_server.app import create_app
from infoscreen_server.config import ServerConfig
from infoscreen_server.db import writing
from infoscreen_server.models import Role, SetUpLink, SignIn, SignInFailure, User
from infoscreen_server.throttle import NAME, PAIR
from parts.api import Api
from parts.person import PASSWORD, Person, text_of, with_user
from parts.server import Server


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    running = Api(database_url)
    add_user(running.engine, "anna", PASSWORD, Role.ADMIN, running.now)
    yield running
    running.close()


def count(api: Api, table: Any) -> int:
    with api.engine.connect() as connection:
        found: int = connection.execute(select(func.count()).select_from(table)).scalar_one()
    return found


def user_id(api: Api, name: str) -> int:
    return users.named(api.engine, name, api.now).id


# --- in and out -------------------------------------------------------------------------------------------------------


def test_in_and_out(api: Api) -> None:
    anna = Person(api)
    assert not anna.is_signed_in()
    answer = anna.sign_in("anna")
    assert (answer.status_code, answer.location) == (303, "/")
    assert anna.is_signed_in()
    assert anna.get("/sign-in").location == "/"
    answer = anna.post("/sign-out", form_at="/account")
    assert (answer.status_code, answer.location) == (303, "/sign-in")
    assert not anna.is_signed_in()
    assert count(api, SignIn) == 0


def test_one_is_led_back_to_where_one_wanted_to_go(api: Api) -> None:
    anna = Person(api)
    asked = anna.get("/account?x=1&y=%C3%A4")
    assert asked.status_code == 303
    form = anna.get(asked.location)
    assert 'name="next" value="/account?x=1&amp;y=' in form.text
    answer = anna.post("/sign-in", name="anna", password=PASSWORD, next="/account?x=1")
    assert answer.location == "/account?x=1"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "\\/evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        "javascript:alert(1)",
        "evil.example",
        "///evil.example",
        "/%0a/evil.example\n",
        "/ok\r\nSet-Cookie: a=b",
        "//[",
        "http://[",
        "//\u2100",
    ],
)
def test_nobody_is_led_elsewhere(api: Api, elsewhere: str) -> None:
    anna = Person(api)
    assert anna.post("/sign-in", name="anna", password=PASSWORD, next=elsewhere).location == "/"
    assert anna.get("/sign-in", query_string={"next": elsewhere}).location == "/"
    answer = anna.post("/display", form_at="/account", language="de", next=elsewhere)
    assert (answer.location, answer.headers.getlist("Set-Cookie")[-1].split("=")[0] != "a") == ("/", True)


def test_a_session_that_was_planted_is_worth_nothing(api: Api) -> None:
    """Whatever cookie the browser had before, signing in makes a new session."""
    thief = Person(api)
    thief.get("/sign-in")
    planted = thief.client.get_cookie("infoscreen")
    assert planted is not None
    anna = Person(api)
    anna.client.set_cookie("infoscreen", planted.value)
    assert anna.sign_in("anna").status_code == 303
    assert not thief.is_signed_in()
    first = anna.client.get_cookie("infoscreen")
    assert first is not None
    anna.client.delete_cookie("infoscreen")
    anna.client.set_cookie("infoscreen", first.value)
    anna.get("/account")
    token = anna.csrf("/account")
    # Signed in once more over a session that is still there: another token, and the form tokens of before are void.
    answer = anna.client.post("/sign-in", data={"csrf_token": token, "name": "anna", "password": PASSWORD})
    assert answer.status_code == 303
    after = anna.client.get_cookie("infoscreen")
    assert after is not None
    assert after.value != first.value
    assert anna.client.post("/sign-out", data={"csrf_token": token}).status_code == 400
    assert count(api, SignIn) == 1, "the one before has ended"


def test_a_cookie_of_before_the_end_of_its_session_is_worth_nothing(api: Api) -> None:
    anna = Person(api)
    anna.sign_in("anna")
    cookie = anna.client.get_cookie("infoscreen")
    assert cookie is not None
    anna.post("/sign-out", form_at="/account")
    anna.client.set_cookie("infoscreen", cookie.value)
    assert not anna.is_signed_in()


def test_the_cookie_is_kept_from_scripts_and_other_sites(api: Api) -> None:
    anna = Person(api)
    cookies = anna.sign_in("anna").headers.getlist("Set-Cookie")
    assert {cookie.partition("=")[0] for cookie in cookies} == {"infoscreen", "known"}
    for cookie in cookies:
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Secure" not in cookie
    anna.get("/")
    assert anna.get("/").headers.getlist("Set-Cookie") == [], "not again with each answer"
    form = anna.client.get("/sign-in", base_url="https://screens.example")
    assert "Secure" in Person(api).client.get("/sign-in", base_url="https://screens.example").headers["Set-Cookie"]
    assert form.headers["Strict-Transport-Security"]


def test_the_database_holds_no_session_token_and_no_link(api: Api) -> None:
    anna = Person(api)
    anna.sign_in("anna")
    link = set_up.for_user(api.engine, user_id(api, "anna"), api.now)
    with anna.client.session_transaction() as session:
        token = session[sessions.SESSION]
    with api.engine.connect() as connection:
        kept = repr(connection.execute(select(*SignIn.__table__.columns)).all())
        kept += repr(connection.execute(select(*SetUpLink.__table__.columns)).all())
    assert token not in kept
    assert link not in kept


def test_a_form_without_its_token_does_nothing(api: Api) -> None:
    anna = with_user(api, "otto", Role.SUPERADMIN)
    id_of_anna = str(user_id(api, "anna"))
    forms = {
        "/sign-in": {"name": "anna", "password": PASSWORD},
        "/sign-out": {},
        "/display": {"language": "de"},
        "/account/password": {"current": PASSWORD, "password": "x" * 20, "again": "x" * 20},
        "/account/sessions/end": {},
        "/users": {"name": "mallory", "role": "superadmin"},
        "/users/role": {"user": id_of_anna, "role": "superadmin"},
        "/users/link": {"user": id_of_anna},
        "/users/disable": {"user": id_of_anna},
        "/users/enable": {"user": id_of_anna},
        "/tokens": {"name": "t", "role": "superadmin", "scope": "all"},
        "/tokens/revoke": {"prefix": "x"},
        f"/set-up/{set_up.for_user(api.engine, user_id(api, 'anna'), api.now)}": {"password": "x" * 20},
    }
    posts = {rule.rule for rule in api.app.url_map.iter_rules() if "POST" in (rule.methods or ())}
    accounts_only = {rule for rule in posts if rule.startswith(("/sign", "/display", "/account", "/users", "/tokens"))}
    assert accounts_only <= set(forms), "a new form is to be tried here too"
    stranger = Person(api)
    foreign = stranger.csrf("/sign-in")
    for path, fields in forms.items():
        for token in ({}, {"csrf_token": ""}, {"csrf_token": foreign}):
            assert anna.client.post(path, data=fields | token).status_code == 400, path
    assert anna.is_signed_in()
    assert {person.name for person in users.everyone(api.engine, api.now)} == {"anna", "otto"}
    assert accounts.sign_in(api.engine, "otto", PASSWORD) is not None


# --- guessing ---------------------------------------------------------------------------------------------------------


def guess(person: Person, name: str, times: int) -> list[int]:
    token = person.csrf("/sign-in")
    data = {"csrf_token": token, "name": name, "password": "wrong horse battery"}
    base = {"REMOTE_ADDR": person.address}
    return [person.client.post("/sign-in", data=data, environ_base=base).status_code for _ in range(times)]


@pytest.mark.parametrize("name", ["anna", "nobody", "x" * 5000, "a\0b", "☃", ""])
def test_guesses_are_held_back_the_same_whether_there_is_such_a_user(api: Api, name: str) -> None:
    guesser = Person(api)
    assert guess(guesser, name, 7) == [401] * 5 + [429] * 2
    answer = guesser.sign_in(name, "again")
    assert answer.headers["Retry-After"] == "30"
    assert "There were too many wrong passwords. Try again in 30 s." in text_of(answer)
    api.now += timedelta(seconds=12)
    assert guesser.sign_in(name, "again").headers["Retry-After"] == "18"
    api.now += timedelta(seconds=18)
    assert guess(guesser, name, 2) == [401, 429]
    assert guesser.sign_in(name, "again").headers["Retry-After"] == "60"


def test_the_right_password_is_held_back_too(api: Api) -> None:
    """Else the answer would say that it was right."""
    anna = Person(api)
    guess(anna, "anna", 5)
    assert anna.sign_in("anna").status_code == 429
    api.now += timedelta(seconds=30)
    assert anna.sign_in("anna").status_code == 303
    assert guess(Person(api), "anna", 6) == [401] * 5 + [429], "after a success one begins anew"


def test_no_hash_is_made_for_who_is_held_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | None] = []

    def counted(password_hash: str | None, password: str) -> bool:
        made.append(password_hash)
        return password_fits(password_hash, password)

    monkeypatch.setattr(accounts, "password_fits", counted)
    guess(Person(api), "anna", 20)
    guess(Person(api, "192.0.2.2"), "nobody", 20)
    assert len(made) == 10
    assert made.count(None) == 5, "for a name that is unknown as many as for one that is known"


def test_one_who_guesses_locks_nobody_else_out(api: Api) -> None:
    guesser, anna = Person(api, "198.51.100.66"), Person(api, "192.0.2.1")
    for _ in range(60):
        guess(guesser, "anna", 3)
        api.now += timedelta(seconds=20)
        assert anna.sign_in("anna").status_code == 303
        anna.post("/sign-out", form_at="/account")
    assert guess(guesser, "anna", 1) == [429]


def test_many_who_guess_at_one_name_are_slowed_down_but_for_seconds(api: Api) -> None:
    let_through = 0
    for number in range(40):
        let_through += guess(Person(api, f"198.51.100.{number}"), "anna", 1) == [401]
    assert let_through == NAME.free
    anna = Person(api)
    assert anna.sign_in("anna").status_code == 429
    assert guess(Person(api), "otto", 1) == [401], "other names do not suffer"
    api.now += NAME.longest
    assert anna.sign_in("anna").status_code == 303


def test_many_who_go_on_guessing_do_not_hold_back_a_browser_that_is_known(api: Api) -> None:
    """From ever new addresses, whenever the pause is over."""
    anna, elsewhere, otto = Person(api), Person(api), Person(api)
    anna.sign_in("anna")
    anna.post("/sign-out", form_at="/account")
    add_user(api.engine, "otto", PASSWORD, Role.USER, api.now)
    otto.sign_in("otto")
    otto.post("/sign-out", form_at="/account")
    guesses = 0
    for second in range(600):
        api.now += timedelta(seconds=1)
        guesses += guess(Person(api, f"198.51.{second // 250}.{second % 250}"), "anna", 1) == [401]
        if second % 200 == 199:
            assert elsewhere.sign_in("anna").status_code == 429
            assert otto.sign_in("anna").status_code == 429, "known is who signed in, not any browser"
    assert guesses < 60
    assert anna.sign_in("anna").status_code == 303


def test_a_password_that_nobody_looked_at_was_not_wrong(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "HASH_WAIT_S", 0.01)
    anna = Person(api)
    for _ in range(accounts.HASHES_AT_ONCE):
        accounts._gate.acquire()
    try:
        assert [anna.sign_in("anna").status_code for _ in range(6)] == [429] * 6
    finally:
        for _ in range(accounts.HASHES_AT_ONCE):
            accounts._gate.release()
    assert count(api, SignInFailure) == 0
    assert anna.sign_in("anna").status_code == 303


def test_one_address_that_tries_many_names_is_held_back(api: Api) -> None:
    sprayer = Person(api)
    assert [guess(sprayer, f"name{number}", 1)[0] for number in range(32)] == [401] * 30 + [429] * 2
    assert guess(Person(api, "192.0.2.2"), "name1", 1) == [401]


def test_an_own_account_gives_no_more_guesses_at_others(api: Api) -> None:
    add_user(api.engine, "mallory", PASSWORD, Role.USER, api.now)
    sprayer = Person(api)
    let_through = 0
    for number in range(40):
        let_through += guess(sprayer, f"name{number}", 1) == [401]
        if sprayer.sign_in("mallory").status_code == 303:
            sprayer.post("/sign-out", form_at="/account")
    assert let_through == 30


def test_whom_a_proxy_on_this_machine_speaks_for_is_told_apart(api: Api) -> None:
    proxy = Person(api, "127.0.0.1")
    data = {"csrf_token": proxy.csrf("/sign-in"), "name": "anna", "password": "wrong horse battery"}

    def ask(forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded}
        base = {"REMOTE_ADDR": "127.0.0.1"}
        return proxy.client.post("/sign-in", data=data, headers=headers, environ_base=base).status_code

    assert [ask("192.0.2.7") for _ in range(6)] == [401] * 5 + [429]
    assert ask("forged, 192.0.2.7") == 429
    assert ask("192.0.2.8") == 401


def test_who_comes_directly_cannot_say_that_they_are_another(api: Api) -> None:
    guesser = Person(api)
    data = {"csrf_token": guesser.csrf("/sign-in"), "name": "anna", "password": "wrong horse battery"}
    base = {"REMOTE_ADDR": guesser.address}
    seen = [
        guesser.client.post(
            "/sign-in", data=data, headers={"X-Forwarded-For": f"10.0.0.{number}"}, environ_base=base
        ).status_code
        for number in range(6)
    ]
    assert seen == [401] * 5 + [429]


def test_guesses_at_once_are_no_more_than_one_after_the_other(api: Api) -> None:
    let_through: list[bool] = []
    start = threading.Barrier(16)

    def guesser() -> None:
        start.wait()
        try:
            throttle.begin(api.engine, "anna", "192.0.2.1", api.now)
        except throttle.Paused:
            let_through.append(False)
        else:
            let_through.append(True)

    threads = [threading.Thread(target=guesser) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_through) == 16
    assert sum(let_through) == PAIR.free


def test_failures_do_not_gather(api: Api) -> None:
    for number in range(10):
        throttle.begin(api.engine, f"name{number}", "192.0.2.1", api.now)
    with writing(api.engine) as connection:
        connection.execute(insert(SignInFailure).values(who="of a clock that ran ahead", at=api.now + timedelta(99)))
    assert count(api, SignInFailure) == 31
    api.now += throttle.KEPT + timedelta(seconds=1)
    throttle.begin(api.engine, "anna", "192.0.2.1", api.now)
    assert count(api, SignInFailure) == 3


def test_a_new_password_forgets_what_was_guessed(api: Api) -> None:
    add_user(api.engine, "otto", PASSWORD, Role.USER, api.now)
    anna, otto = Person(api), Person(api)
    guess(anna, "anna", 5)
    guess(otto, "otto", 5)
    users.set_password(api.engine, user_id(api, "anna"), "another horse battery")
    assert anna.sign_in("anna", "another horse battery").status_code == 303
    assert otto.sign_in("otto").status_code == 429


def test_who_is_locked_out_gets_in_by_a_link(api: Api) -> None:
    anna = Person(api)
    guess(anna, "anna", 6)
    path = f"/set-up/{set_up.for_user(api.engine, user_id(api, 'anna'), api.now)}"
    assert anna.post(path, password="another horse battery", again="another horse battery").status_code == 303
    assert anna.is_signed_in()


def test_only_a_few_hashes_are_made_at_once(monkeypatch: pytest.MonkeyPatch, api: Api) -> None:
    """Each takes 19 MiB: a flood waits for a while, and is then sent away."""
    monkeypatch.setattr(accounts, "HASH_WAIT_S", 0.0)
    for _ in range(accounts.HASHES_AT_ONCE):
        assert accounts._gate.acquire(blocking=False)
    try:
        with pytest.raises(Busy):
            password_fits(None, "x")
        answer = Person(api).sign_in("anna")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    finally:
        for _ in range(accounts.HASHES_AT_ONCE):
            accounts._gate.release()
    assert Person(api).sign_in("anna").status_code == 303


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_says_who_came_and_who_did_not(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "infoscreen_server")
    guess(Person(api, "198.51.100.66"), "anna\nERROR forged: \x1b[31m\u202e", 6)
    Person(api).sign_in("anna")
    lines = [record.getMessage() for record in caplog.records if record.name == "infoscreen_server.audit"]
    forged = r"'anna\nERROR forged: \x1b[31m\u202e'"
    assert lines == [
        *[f"sign-in failed: name={forged} address='198.51.100.66'"] * 5,
        f"sign-in held back: name={forged} address='198.51.100.66'",
        "signed in: name='anna' address='192.0.2.1'",
    ]


def test_no_secret_reaches_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    link = set_up.for_user(api.engine, user_id(api, "anna"), api.now)
    anna = Person(api)
    anna.sign_in("anna", "wrong horse battery")
    anna.sign_in("anna")
    anna.post(
        "/account/password", "/account", current=PASSWORD, password="new horse battery", again="new horse battery"
    )
    again = set_up.for_user(api.engine, user_id(api, "anna"), api.now)
    anna.post(f"/set-up/{again}", password="new horse battery", again="new horse battery")
    made = anna.post("/tokens", name="t", role="user", scope="all", days="1")
    token = made.text.partition("ist_")[2].partition("<")[0]
    assert len(token) > 50
    for secret in (link, again, "horse battery", token):
        assert secret not in caplog.text


# --- who may no longer ------------------------------------------------------------------------------------------------


def test_a_disabled_user_is_out_at_once_and_stays_out(api: Api) -> None:
    anna = Person(api)
    anna.sign_in("anna")
    users.set_disabled(api.engine, user_id(api, "anna"), True, api.now)
    assert not anna.is_signed_in()
    refused = anna.sign_in("anna")
    assert refused.status_code == 401
    assert "The name or the password is wrong." in refused.text
    users.set_disabled(api.engine, user_id(api, "anna"), False, api.now)
    assert not anna.is_signed_in(), "the old session does not come back"
    assert anna.sign_in("anna").status_code == 303


def test_a_password_that_was_changed_while_it_was_checked_begins_no_session(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sign-in may wait at the gate for hashes; all sessions have been ended when it comes to begin one."""
    thief, number, check = Person(api), user_id(api, "anna"), accounts.password_fits

    def slowly(password_hash: str | None, password: str) -> bool:
        fits = check(password_hash, password)
        users.set_password(api.engine, number, "another horse battery")
        return fits

    monkeypatch.setattr(accounts, "password_fits", slowly)
    refused = thief.sign_in("anna")
    assert refused.status_code == 401
    assert "The name or the password is wrong." in refused.text
    monkeypatch.undo()
    assert count(api, SignIn) == 0
    assert not thief.is_signed_in()
    assert count(api, SignInFailure) > 0, "it counts as one more guess"
    assert thief.sign_in("anna", "another horse battery").status_code == 303


@pytest.mark.parametrize("what", ["password", "disabled", "nothing"])
def test_a_session_waits_for_whoever_changes_its_user(api: Api, what: str) -> None:
    account = accounts.sign_in(api.engine, "anna", PASSWORD)
    assert account is not None
    assert account.password_hash not in repr(account)
    new, made = accounts.hash_password("another horse battery"), []

    def begin() -> None:
        made.append(sessions.begin(api.engine, account.id, account.password_hash, "browser", api.now))

    thread = threading.Thread(target=begin)
    with users.changing(api.engine) as connection:
        if what == "password":
            users.put_password(connection, account.id, new)
        elif what == "disabled":
            connection.execute(update(User).where(User.id == account.id).values(disabled=True))
            sessions.end_all(connection, account.id)
        thread.start()
        thread.join(0.5)
        assert what == "nothing" or made == [], "it waits"
    thread.join()
    assert len(made) == 1
    assert (made[0] is not None) == (what == "nothing")
    assert count(api, SignIn) == (what == "nothing")


def test_another_role_ends_the_sessions(api: Api) -> None:
    anna = Person(api)
    anna.sign_in("anna")
    users.set_role(api.engine, user_id(api, "anna"), Role.USER, api.now)
    assert not anna.is_signed_in()


def test_sessions_end_when_idle_and_after_all(api: Api) -> None:
    anna, otto = Person(api), with_user(api, "otto")
    anna.sign_in("anna")
    for _ in range(15):
        api.now += timedelta(days=6)
        assert anna.is_signed_in()
    assert not otto.is_signed_in()
    api.now += timedelta(days=1)
    assert not anna.is_signed_in(), "90 days"


# --- set-up links -----------------------------------------------------------------------------------------------------


def no_superadmin(api: Api) -> None:
    with writing(api.engine) as connection:
        connection.execute(User.__table__.delete())  # type: ignore[attr-defined]  # a table has it


def test_the_first_superadmin(api: Api) -> None:
    no_superadmin(api)
    assert "infoscreen-server set-up" in Person(api).get("/sign-in").text
    path = f"/set-up/{set_up.for_first(api.engine, api.now)}"
    first = Person(api)
    form = first.get(path)
    assert form.status_code == 200
    assert "You become the super administrator" in text_of(form)
    answer = first.post(path, name="root", password=PASSWORD, again=PASSWORD)
    assert (answer.status_code, answer.location) == (303, "/")
    assert first.get("/users").status_code == 200
    assert first.get(path).status_code == 404
    assert first.post(path, "/account", name="two", password=PASSWORD, again=PASSWORD).status_code == 404
    assert "infoscreen-server set-up" not in Person(api).get("/sign-in").text
    with pytest.raises(accounts.AccountError, match="already"):
        set_up.for_first(api.engine, api.now)


def test_a_mistake_does_not_use_the_link_up(api: Api) -> None:
    no_superadmin(api)
    path = f"/set-up/{set_up.for_first(api.engine, api.now)}"
    first = Person(api)
    for fields, expected in (
        ({"name": "root", "password": PASSWORD, "again": "other"}, "The two passwords differ."),
        ({"name": "root", "password": "short", "again": "short"}, "expected 10 to 1024 characters"),
        ({"name": "", "password": PASSWORD, "again": PASSWORD}, "expected 1 to 64 letters"),
        ({"name": "a\0", "password": PASSWORD, "again": PASSWORD}, "expected 1 to 64 letters"),
    ):
        answer = first.post(path, **fields)
        assert answer.status_code == 400
        assert expected in text_of(answer)
        assert PASSWORD not in answer.text
    assert first.post(path, name="root", password=PASSWORD, again=PASSWORD).status_code == 303


def test_a_link_for_the_first_is_void_once_there_is_one(api: Api) -> None:
    no_superadmin(api)
    path = f"/set-up/{set_up.for_first(api.engine, api.now)}"
    add_user(api.engine, "otto", PASSWORD, Role.SUPERADMIN, api.now)
    assert Person(api).get(path).status_code == 404


def test_a_name_that_is_taken_leaves_the_link(api: Api) -> None:
    path = f"/set-up/{set_up.for_first(api.engine, api.now)}"
    first = Person(api)
    answer = first.post(path, name="anna", password=PASSWORD, again=PASSWORD)
    assert answer.status_code == 400
    assert "there is a user anna already" in text_of(answer)
    assert first.post(path, name="root", password=PASSWORD, again=PASSWORD).status_code == 303


def test_links_end(api: Api) -> None:
    number = user_id(api, "anna")
    first = set_up.for_user(api.engine, number, api.now)
    second = set_up.for_user(api.engine, number, api.now)
    anna = Person(api)
    assert anna.get(f"/set-up/{first}").status_code == 404, "a newer one makes it void"
    assert anna.get(f"/set-up/{second}").status_code == 200
    for wrong in (second[:-1], second + "a", "x", "%00", "..%2f", "ä" * 300):
        assert anna.get(f"/set-up/{wrong}").status_code == 404
    api.now += set_up.LIFETIME
    assert anna.get(f"/set-up/{second}").status_code == 404
    third = set_up.for_user(api.engine, number, api.now)
    assert count(api, SetUpLink) == 1
    users.set_disabled(api.engine, number, True, api.now)
    assert anna.get(f"/set-up/{third}").status_code == 404
    with pytest.raises(accounts.AccountError, match="disabled"):
        set_up.for_user(api.engine, number, api.now)


def test_a_reset_ends_the_old_sessions(api: Api) -> None:
    thief, anna = Person(api), Person(api)
    thief.sign_in("anna")
    path = f"/set-up/{set_up.for_user(api.engine, user_id(api, 'anna'), api.now)}"
    assert anna.post(path, password="another horse battery", again="another horse battery").status_code == 303
    assert anna.is_signed_in()
    assert not thief.is_signed_in()
    assert thief.sign_in("anna").status_code == 401


def test_of_two_at_once_one_comes_too_late(api: Api) -> None:
    no_superadmin(api)
    token = set_up.for_first(api.engine, api.now)
    path = f"/set-up/{token}"
    people = [Person(api), Person(api)]
    tokens = [person.csrf(path) for person in people]
    seen: list[int] = []
    start = threading.Barrier(2)

    def take(number: int) -> None:
        data = {"csrf_token": tokens[number], "name": f"root{number}", "password": PASSWORD, "again": PASSWORD}
        start.wait()
        seen.append(people[number].client.post(path, data=data).status_code)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [303, 404]
    assert len(users.everyone(api.engine, api.now)) == 1
    assert sum(person.is_signed_in() for person in people) == 1


def test_the_address_of_a_link_is_told_to_nobody(api: Api) -> None:
    path = f"/set-up/{set_up.for_user(api.engine, user_id(api, 'anna'), api.now)}"
    anna = Person(api)
    answer = anna.get(path)
    assert answer.headers["Referrer-Policy"] == "strict-origin"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_link_works_behind_https(api: Api) -> None:
    """There the CSRF protection asks where the form came from; the page's referrer policy leaves the host."""
    path = f"/set-up/{set_up.for_user(api.engine, user_id(api, 'anna'), api.now)}"
    client = api.app.test_client()
    page = client.get(path, base_url="https://screens.example")
    data = {
        "csrf_token": page.text.partition('name="csrf_token" value="')[2].partition('"')[0],
        "password": "another horse battery",
        "again": "another horse battery",
    }
    for referrer, expected in ((None, 400), ("https://evil.example/", 400), ("https://screens.example/", 303)):
        headers = {} if referrer is None else {"Referer": referrer}
        answer = client.post(path, data=data, base_url="https://screens.example", headers=headers)
        assert answer.status_code == expected


def test_all_web_processes_share_their_sessions(api: Api) -> None:
    anna = Person(api)
    anna.sign_in("anna")
    cookie = anna.client.get_cookie("infoscreen")
    assert cookie is not None
    other = create_app(ServerConfig(database_url=str(api.engine.url.render_as_string(False))), lambda: api.now)
    client = other.test_client()
    client.set_cookie("infoscreen", cookie.value)
    assert client.get("/account").status_code == 200
    other.extensions["infoscreen_live"].close()
    other.extensions["infoscreen"].engine.dispose()


# --- the real web process ---------------------------------------------------------------------------------------------


def test_a_flood_of_sign_ins_neither_fills_the_memory_nor_stops_the_rest(database_url: str, tmp_path: Path) -> None:
    """From many addresses, as a proxy on this machine tells them: each is let through, a few hashes at a time."""
    flood = 40
    with Server(tmp_path, database_url) as server:
        server.call("migrate")
        server.start("web")
        origin = f"http://127.0.0.1:{server.port}"
        page = urlopen(f"{origin}/sign-in")
        cookie = page.headers["Set-Cookie"].partition(";")[0]
        token = page.read().decode().partition('name="csrf_token" value="')[2].partition('"')[0]
        seen: list[int] = []

        def guess(number: int) -> None:
            body = urlencode({"csrf_token": token, "name": f"name{number}", "password": "wrong horse"}).encode()
            headers = {"Cookie": cookie, "X-Forwarded-For": f"198.51.100.{number}"}
            try:
                urlopen(Request(f"{origin}/sign-in", data=body, headers=headers), timeout=60)
            except HTTPError as error:
                with error:
                    seen.append(error.code)

        (worker,) = server.family()
        before, most, slowest = worker.memory_info().rss, 0, 0.0
        threads = [threading.Thread(target=guess, args=(number,)) for number in range(flood)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            assert server.request("/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
            most = max(most, worker.memory_info().rss)
    assert len(seen) == flood
    assert set(seen) <= {401, 429}
    assert seen.count(401) >= 2 * accounts.HASHES_AT_ONCE
    assert most - before < (accounts.HASHES_AT_ONCE + 1) * 20 * 2**20 + 20 * 2**20
    assert slowest < 1.0
