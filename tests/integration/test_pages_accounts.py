"""The pages of users, tokens and one's own account, and the command's verbs for the same."""

import io
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from infoscreen_server import accounts, cli, sessions, set_up, users
from infoscreen_server.accounts import AccountError, add_token, add_user, caller_of
from infoscreen_server.models import Role, Scope, Token, TokenRole, User
from parts.api import OTHER, UUID, Api
from parts.person import PASSWORD, Person, text_of, with_user


def user_id(api: Api, name: str) -> str:
    return str(users.named(api.engine, name, api.now).id)


def link_in(page: str) -> str:
    found = re.search(r"/set-up/[A-Za-z0-9_-]{43}", page)
    assert found is not None
    return found[0]


def token_in(page: str) -> str:
    found = re.search(r"is[td]_[0-9a-f]{12}_[A-Za-z0-9_-]{43}", page)
    assert found is not None
    return found[0]


# --- users ------------------------------------------------------------------------------------------------------------


def test_a_new_user_chooses_their_password_by_a_link_that_is_shown_once(api: Api, root: Person) -> None:
    added = root.post("/users", name="anna", role="admin")
    assert added.status_code == 200
    link = link_in(added.text)
    assert "Link not used yet" in added.text
    assert "/set-up/" not in root.get("/users").text
    anna = Person(api)
    assert anna.sign_in("anna", "").status_code == 401
    assert "For anna." in text_of(anna.get(link))
    assert anna.post(link, password=PASSWORD, again=PASSWORD).status_code == 303
    assert anna.get("/tokens").status_code == 200
    assert anna.get("/users").status_code == 403
    assert "Link not used yet" not in root.get("/users").text


def test_roles_have_their_names_in_each_readers_language(root: Person) -> None:
    """Whoever reads the page first."""
    for language, names in (("en", "Super administrator"), ("de", "Hauptadministrator"), ("en", "Super administrator")):
        root.post("/display", "/users", language=language, theme="auto", next="/users")
        shown = root.get("/users").text.partition('id="roles-title"')[2]
        assert f"<dt>{names}</dt>" in shown


@pytest.mark.parametrize(
    ("form", "page"),
    [("/users/link", "/users"), ("/account/password", "/account"), ("/alerts/rules/edit", "/alerts/rules")],
)
def test_the_language_can_be_changed_on_a_page_that_answers_a_form(root: Person, form: str, page: str) -> None:
    answer = root.post(form, page, user="1", id="999", current="x", password="y", again="y")
    assert answer.status_code in (200, 400, 409)
    assert f'name="next" value="{page}"' in answer.text


def test_links_begin_with_the_address_that_people_type(database_url: str) -> None:
    api = Api(database_url, public_url="https://screens.example.org")
    root = with_user(api, "root", Role.SUPERADMIN)
    assert "https://screens.example.org/set-up/" in root.post("/users", name="anna", role="user").text
    api.close()


@pytest.mark.parametrize(
    ("name", "role", "expected"),
    [
        ("root", "user", "there is a user root already"),
        ("", "user", "expected 1 to 64 letters"),
        ("<b>", "user", "expected 1 to 64 letters"),
        ("a\0b", "user", "expected 1 to 64 letters"),
        ("x" * 65, "user", "expected 1 to 64 letters"),
        ("anna", "device", "Choose a role."),
        ("anna", "", "Choose a role."),
    ],
)
def test_users_that_cannot_be_added(api: Api, root: Person, name: str, role: str, expected: str) -> None:
    answer = root.post("/users", name=name, role=role)
    assert answer.status_code == 400
    assert expected in text_of(answer)
    assert "/set-up/" not in answer.text
    assert len(users.everyone(api.engine, api.now)) == 1


def test_role_disable_enable_and_a_new_link(api: Api, root: Person) -> None:
    anna = with_user(api, "anna")
    who = user_id(api, "anna")
    assert root.post("/users/role", "/users", user=who, role="admin").location == "/users"
    assert "anna now has the role Administrator." in text_of(root.get("/users"))
    assert not anna.is_signed_in()
    anna.sign_in("anna")
    assert anna.get("/tokens").status_code == 200
    assert root.post("/users/disable", "/users", user=who).status_code == 303
    assert not anna.is_signed_in()
    assert anna.sign_in("anna").status_code == 401
    assert root.post("/users/link", "/users", user=who).status_code == 409
    assert root.post("/users/enable", "/users", user=who).status_code == 303
    link = link_in(root.post("/users/link", "/users", user=who).text)
    assert anna.sign_in("anna").status_code == 303, "until the link is used the old password is good"
    assert anna.post(link, password="another horse battery", again="another horse battery").status_code == 303
    assert Person(api).sign_in("anna").status_code == 401


def test_the_last_superadmin_stays(api: Api, root: Person) -> None:
    me = user_id(api, "root")
    for path, fields in (("/users/disable", {}), ("/users/role", {"role": "admin"})):
        answer = root.post(path, "/users", user=me, **fields)
        assert answer.status_code == 409
        assert "the last super administrator has to stay one, and enabled" in text_of(answer)
    assert root.is_signed_in()
    add_user(api.engine, "two", PASSWORD, Role.SUPERADMIN, api.now)
    users.set_disabled(api.engine, int(user_id(api, "two")), True, api.now)
    assert root.post("/users/disable", "/users", user=me).status_code == 409, "one who is disabled is none"
    users.set_disabled(api.engine, int(user_id(api, "two")), False, api.now)
    assert root.post("/users/role", "/users", user=me, role="user").status_code == 303
    assert not root.is_signed_in()


def test_two_superadmins_cannot_shut_each_other_out_at_once(api: Api) -> None:
    names = ("one", "two")
    for name in names:
        add_user(api.engine, name, PASSWORD, Role.SUPERADMIN, api.now)
    numbers = [int(user_id(api, name)) for name in names]
    refused: list[int] = []
    start = threading.Barrier(2)

    def disable(number: int) -> None:
        start.wait()
        try:
            users.set_disabled(api.engine, number, True, api.now)
        except AccountError:
            refused.append(number)

    threads = [threading.Thread(target=disable, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert sum(not person.disabled for person in users.everyone(api.engine, api.now)) == 1


@pytest.mark.parametrize("user", ["", "0", "-1", "x", "1" * 18, "9" * 40, "1\0", "１", "1 OR 1=1"])
def test_a_user_that_there_is_not(api: Api, root: Person, user: str) -> None:
    for path in ("/users/disable", "/users/enable", "/users/link", "/users/role"):
        answer = root.post(path, "/users", user=user, role="admin")
        assert answer.status_code == 409
        assert "there is no such user" in text_of(answer)


# --- what someone may no longer ---------------------------------------------------------------------------------------


def token_of(api: Api, name: str, role: TokenRole, client: str | None = None) -> str:
    return add_token(api.engine, "t", role, now=api.now, client_uuid=client, created_by=int(user_id(api, name)))


def works(api: Api, token: str) -> bool:
    return caller_of(api.engine, token, api.now) is not None


def test_tokens_go_with_what_their_maker_may_no_longer(api: Api) -> None:
    for name in ("anna", "root", "spare"):
        add_user(api.engine, name, PASSWORD, Role.SUPERADMIN, api.now)
    high, middle, low = (
        token_of(api, "anna", role) for role in (TokenRole.SUPERADMIN, TokenRole.ADMIN, TokenRole.USER)
    )
    kiosk, others = token_of(api, "anna", TokenRole.DEVICE, UUID), token_of(api, "root", TokenRole.SUPERADMIN)
    users.set_role(api.engine, int(user_id(api, "anna")), Role.ADMIN, api.now)
    assert [works(api, each) for each in (high, middle, low, kiosk, others)] == [False, True, True, True, True]
    users.set_disabled(api.engine, int(user_id(api, "anna")), True, api.now)
    assert [works(api, each) for each in (high, middle, low, kiosk, others)] == [False, False, False, True, True]
    users.set_disabled(api.engine, int(user_id(api, "anna")), False, api.now)
    assert not works(api, low)


@pytest.mark.parametrize("role", ["superadmin", "device", "user"])
@pytest.mark.parametrize("loss", ["demoted", "disabled"])
def test_whoever_was_demoted_since_they_were_let_in_makes_no_token(
    api: Api, root: Person, monkeypatch: pytest.MonkeyPatch, role: str, loss: str
) -> None:
    add_user(api.engine, "spare", PASSWORD, Role.SUPERADMIN, api.now)
    number, add = int(user_id(api, "root")), accounts.add_token

    def late(*given: Any, **more: Any) -> str:
        if loss == "demoted":
            users.set_role(api.engine, number, Role.USER, api.now)
        else:
            users.set_disabled(api.engine, number, True, api.now)
        return add(*given, **more)

    monkeypatch.setattr(accounts, "add_token", late)
    client = UUID if role == "device" else ""
    refused = root.post("/tokens", name="late", role=role, scope="all", days="", client=client)
    assert refused.status_code == 400
    assert "choose a role that you may give" in refused.text
    assert accounts.tokens(api.engine) == []


@pytest.mark.parametrize("how", ["disable", "demote"])
def test_links_go_with_what_their_maker_may_no_longer(api: Api, root: Person, how: str) -> None:
    """Whoever keeps a link to another's password would be that other."""
    add_user(api.engine, "boss", PASSWORD, Role.SUPERADMIN, api.now)
    boss, stranger = Person(api), Person(api)
    boss.sign_in("boss")
    page = root.post("/users/link", "/users", user=user_id(api, "boss"))
    link = link_in(page.text)
    me = user_id(api, "root")
    if how == "disable":
        assert boss.post("/users/disable", "/users", user=me).status_code == 303
    else:
        assert boss.post("/users/role", "/users", user=me, role="admin").status_code == 303
    assert stranger.get(link).status_code == 404
    assert boss.is_signed_in()
    # With anybody else nothing happens to the links of others.
    add_user(api.engine, "anna", PASSWORD, Role.USER, api.now)
    link = link_in(boss.post("/users/link", "/users", user=user_id(api, "anna")).text)
    add_user(api.engine, "otto", PASSWORD, Role.USER, api.now)
    boss.post("/users/disable", "/users", user=user_id(api, "otto"))
    assert stranger.get(link).status_code == 200


@pytest.mark.parametrize("what", ["link", "add", "role", "disable"])
def test_whoever_is_no_superadmin_any_more_changes_nobody(
    api: Api, root: Person, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A request that was let in before, and comes to its work after."""
    add_user(api.engine, "anna", PASSWORD, Role.USER, api.now)
    add_user(api.engine, "boss", PASSWORD, Role.SUPERADMIN, api.now)
    anna, me = user_id(api, "anna"), int(user_id(api, "root"))
    csrf, let_in = root.csrf("/users"), users.changing

    def late(*given: Any) -> Any:
        monkeypatch.undo()
        users.set_disabled(api.engine, me, True, api.now)
        return let_in(*given)

    monkeypatch.setattr(users, "changing", late)
    monkeypatch.setattr(set_up, "changing", late)
    forms = {
        "link": ("/users/link", {"user": anna}),
        "add": ("/users", {"name": "new", "role": "superadmin"}),
        "role": ("/users/role", {"user": anna, "role": "superadmin"}),
        "disable": ("/users/disable", {"user": anna}),
    }
    path, data = forms[what]
    refused = root.client.post(path, data={"csrf_token": csrf, **data})
    assert refused.status_code == 409
    assert "you are no super administrator any more" in text_of(refused)
    with api.engine.connect() as connection:
        found = connection.execute(select(User.name, User.role, User.disabled).order_by(User.name)).all()
    assert [tuple(row) for row in found] == [
        ("anna", "user", False),
        ("boss", "superadmin", False),
        ("root", "superadmin", True),
    ]


def test_a_token_waits_for_whoever_changes_its_maker(api: Api) -> None:
    for name in ("anna", "spare"):
        add_user(api.engine, name, PASSWORD, Role.SUPERADMIN, api.now)
    number, seen = int(user_id(api, "anna")), []

    def make() -> None:
        try:
            seen.append(token_of(api, "anna", TokenRole.SUPERADMIN))
        except accounts.AccountError as error:
            seen.append(error.field)

    thread = threading.Thread(target=make)
    with users.changing(api.engine) as connection:
        connection.execute(update(User).where(User.id == number).values(role=Role.ADMIN))
        thread.start()
        thread.join(0.5)
        assert seen == [], "it waits"
    thread.join()
    assert seen == ["role"]


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_in_no_cookie_or_address(api: Api, root: Person) -> None:
    made = root.post("/tokens", name="wall", role="user", scope="read", days="30")
    assert made.status_code == 200
    token = token_in(made.text)
    found = caller_of(api.engine, token, api.now)
    assert found is not None
    assert (found.name, found.role, found.scope) == ("wall", TokenRole.USER, Scope.READ)
    assert made.headers["Cache-Control"] == "no-store"
    again = root.get("/tokens")
    secret = token[-43:]
    with root.client.session_transaction() as session:
        assert secret not in repr(dict(session))
    assert accounts.prefix_of(token) in again.text
    assert secret not in again.text
    assert "made by root" in text_of(again)
    assert caller_of(api.engine, token, api.now + timedelta(days=29)) is not None
    assert caller_of(api.engine, token, api.now + timedelta(days=30)) is None


def test_a_token_that_is_revoked_is_void_at_once(api: Api, root: Person) -> None:
    token = token_in(root.post("/tokens", name="wall", role="user", scope="all", days="").text)
    prefix = accounts.prefix_of(token)
    ask = {"Authorization": f"Bearer {token}"}
    assert api.client.get("/api/clients", headers=ask).status_code == 200
    assert root.post("/tokens/revoke", "/tokens", prefix=prefix).status_code == 303
    assert api.client.get("/api/clients", headers=ask).status_code == 401
    assert "Revoked" in root.get("/tokens").text
    for wrong in (prefix, "nosuch", "", "\0", "%"):
        assert root.post("/tokens/revoke", "/tokens", prefix=wrong).status_code == 409


@pytest.mark.parametrize(
    ("role", "scope", "method", "path", "expected"),
    [
        ("admin", "all", "GET", "/api/clients", 200),
        ("admin", "read", "GET", "/api/clients", 200),
        ("admin", "read", "HEAD", "/api/clients", 200),
        ("admin", "read", "POST", "/api/clients", 405),
        ("user", "read", "GET", "/api/client-logs/summary", 403),
        ("superadmin", "metrics", "GET", "/api/clients", 403),
        ("superadmin", "metrics", "GET", "/metrics", 200),
        ("user", "read", "GET", "/metrics", 200),
    ],
)
def test_a_scope_narrows_the_role(
    api: Api, root: Person, role: str, scope: str, method: str, path: str, expected: int
) -> None:
    token = token_in(root.post("/tokens", name="t", role=role, scope=scope, days="1").text)
    answer = api.client.open(path, method=method, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == expected


def test_a_kiosks_token_is_bound_to_its_uuid(api: Api, root: Person) -> None:
    made = root.post("/tokens", name="lobby", role="device", scope="all", days="", client=UUID.upper())
    header = {"Authorization": f"Bearer {token_in(made.text)}"}
    assert api.client.post(f"/api/ingest/{UUID}/logs", headers=header, json={"batches": []}).status_code == 200
    assert api.client.post(f"/api/ingest/{OTHER}/logs", headers=header, json={"batches": []}).status_code == 403


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": ""}, "expected 1 to 64 letters"),
        ({"name": "<script>"}, "expected 1 to 64 letters"),
        ({"role": "root"}, "choose a role that you may give"),
        ({"role": ""}, "choose a role that you may give"),
        ({"scope": "write"}, "choose what the token is good for"),
        ({"days": "0"}, "expected 1 to 365 days"),
        ({"days": "366"}, "expected 1 to 365 days"),
        ({"days": "-1"}, "expected 1 to 365 days"),
        ({"days": "1e9"}, "expected 1 to 365 days"),
        ({"days": "٣"}, "expected 1 to 365 days"),
        ({"role": "device", "scope": "all"}, "a device token needs the uuid"),
        ({"role": "user", "client": UUID}, "a device token needs the uuid"),
        ({"role": "device", "client": "a\0", "scope": "all"}, "expected a uuid"),
        ({"role": "device", "client": UUID, "scope": "read"}, "a device token only sends"),
    ],
)
def test_tokens_that_cannot_be_made(api: Api, root: Person, fields: dict[str, str], expected: str) -> None:
    answer = root.post("/tokens", **{"name": "t", "role": "user", "scope": "read", "days": "1", **fields})
    assert answer.status_code == 400
    assert expected in text_of(answer)
    assert accounts.tokens(api.engine) == []


def test_admins_make_and_see_tokens_of_their_own(api: Api, root: Person) -> None:
    anna = with_user(api, "anna", Role.ADMIN)
    theirs = token_in(root.post("/tokens", name="theirs", role="user", scope="read", days="1").text)
    by_command = add_token(api.engine, "command", TokenRole.USER, now=api.now)
    mine = token_in(anna.post("/tokens", name="mine", role="admin", scope="read", days="1").text)
    for role in ("superadmin", "device"):
        refused = anna.post("/tokens", name="t", role=role, scope="all", days="1", client=UUID)
        assert refused.status_code == 400
    page = anna.get("/tokens").text
    assert "mine" in page
    for other in (theirs, by_command):
        prefix = accounts.prefix_of(other)
        assert prefix not in page
        assert anna.post("/tokens/revoke", "/tokens", prefix=prefix).status_code == 409
        assert works(api, other)
    all_of_them = root.get("/tokens").text
    assert all(accounts.prefix_of(token) in all_of_them for token in (theirs, by_command, mine))
    assert root.post("/tokens/revoke", "/tokens", prefix=accounts.prefix_of(mine)).status_code == 303
    with api.engine.connect() as connection:
        made_by = connection.execute(select(Token.name, Token.created_by).order_by(Token.id)).all()
    assert [tuple(row) for row in made_by] == [
        ("theirs", int(user_id(api, "root"))),
        ("command", None),
        ("mine", int(user_id(api, "anna"))),
    ]


# --- one's own account ------------------------------------------------------------------------------------------------


def test_a_new_password_ends_all_other_sessions(api: Api) -> None:
    anna = with_user(api, "anna")
    elsewhere = Person(api)
    elsewhere.sign_in("anna")
    new = "another horse battery"
    assert anna.post("/account/password", "/account", current=PASSWORD, password=new, again=new).status_code == 303
    assert anna.is_signed_in()
    assert not elsewhere.is_signed_in()
    assert elsewhere.sign_in("anna").status_code == 401
    assert elsewhere.sign_in("anna", new).status_code == 303


@pytest.mark.parametrize(
    ("current", "password", "again", "expected"),
    [
        ("wrong horse", "another horse", "another horse", "This is not your password."),
        ("", "another horse", "another horse", "This is not your password."),
        (PASSWORD, "another horse", "another hose", "The two passwords differ."),
        (PASSWORD, "short", "short", "expected 10 to 1024 characters"),
        (PASSWORD, "", "", "expected 10 to 1024 characters"),
        (PASSWORD, "x" * 1025, "x" * 1025, "expected 10 to 1024 characters"),
    ],
)
def test_passwords_that_are_not_taken(api: Api, current: str, password: str, again: str, expected: str) -> None:
    anna = with_user(api, "anna")
    answer = anna.post("/account/password", "/account", current=current, password=password, again=again)
    assert answer.status_code == 400
    assert expected in text_of(answer)
    assert password == "" or password not in answer.text
    assert Person(api).sign_in("anna").status_code == 303


def test_a_password_that_was_reset_while_the_old_one_was_checked_stays(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever knows the old one, and sits at a session of the user's, is not to win against a superadmin's reset."""
    anna, mallory = with_user(api, "anna"), "mallory's horse"
    fits = accounts.password_fits

    def slowly(password_hash: str | None, password: str) -> bool:
        found = fits(password_hash, password)
        users.set_password(api.engine, int(user_id(api, "anna")), "another horse battery")
        return found

    monkeypatch.setattr(accounts, "password_fits", slowly)
    refused = anna.post("/account/password", "/account", current=PASSWORD, password=mallory, again=mallory)
    monkeypatch.undo()
    assert "This is not your password." in text_of(refused)
    assert Person(api).sign_in("anna", mallory).status_code == 401
    assert Person(api).sign_in("anna", "another horse battery").status_code == 303


def test_an_open_browser_is_no_place_to_guess_the_password(api: Api) -> None:
    anna = with_user(api, "anna")
    new = "another horse battery"

    def change(current: str) -> int:
        return anna.post("/account/password", "/account", current=current, password=new, again=new).status_code

    assert [change("wrong horse") for _ in range(6)] == [400] * 5 + [429]
    assert change(PASSWORD) == 429
    assert anna.is_signed_in()
    api.now += timedelta(seconds=30)
    assert change(PASSWORD) == 303


def test_sessions_are_listed_and_ended_one_by_one_or_all(api: Api) -> None:
    anna = with_user(api, "anna")
    others = [Person(api) for _ in range(3)]
    for number, other in enumerate(others):
        data = {"csrf_token": other.csrf("/sign-in"), "name": "anna", "password": PASSWORD}
        other.client.post("/sign-in", data=data, headers={"User-Agent": f"<i>Browser {number}"})
    page = anna.get("/account").text
    assert "&lt;i&gt;Browser 1" in page
    assert page.count('name="session"') == 3, "one's own cannot be ended there"
    listed = sessions.of_user(api.engine, int(user_id(api, "anna")), api.now)
    of_one = next(row.token_hash for row in listed if row.browser == "<i>Browser 1")
    anna.post("/account/sessions/end", "/account", session=of_one)
    assert [other.is_signed_in() for other in others] == [True, False, True]
    for nonsense in ("x", "\0", "%", "F" * 64):
        anna.post("/account/sessions/end", "/account", session=nonsense)
    assert [other.is_signed_in() for other in others] == [True, False, True]
    anna.post("/account/sessions/end", "/account")
    assert [other.is_signed_in() for other in others] == [False, False, False]
    assert anna.is_signed_in()


def test_nobody_ends_anothers_session(api: Api) -> None:
    anna, otto = with_user(api, "anna"), with_user(api, "otto", Role.SUPERADMIN)
    (of_anna,) = sessions.of_user(api.engine, int(user_id(api, "anna")), api.now)
    otto.post("/account/sessions/end", "/account", session=of_anna.token_hash)
    assert anna.is_signed_in()


def test_a_token_is_no_way_to_pages(api: Api) -> None:
    header = {"Authorization": f"Bearer {api.token(TokenRole.SUPERADMIN)}"}
    for path in ("/account", "/users", "/tokens"):
        answer = api.client.get(path, headers=header)
        assert (answer.status_code, answer.location) == (303, f"/sign-in?next={path}")


# --- the command ------------------------------------------------------------------------------------------------------

Run = Callable[..., str]


@pytest.fixture
def run(api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What a verb prints; what it complains of comes back as its last line."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def call(*argv: str, typed: str = "", code: int = 0) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        capsys.readouterr()
        assert cli.main(argv) == code
        out, err = capsys.readouterr()
        return (out if code == 0 else err).strip()

    return call


def test_the_commands_verbs_for_users(api: Api, run: Run) -> None:
    run("user", "add", "root", "--role", "superadmin", typed=f"{PASSWORD}\n")
    run("user", "add", "anna", "--role", "user", typed=f"{PASSWORD}\n")
    assert run("user", "list").splitlines() == [
        "anna\tuser\tenabled\tnot signed in",
        "root\tsuperadmin\tenabled\tnot signed in",
    ]
    anna = Person(api)
    anna.sign_in("anna")
    run("user", "role", "anna", "admin")
    assert not anna.is_signed_in()
    anna.sign_in("anna")
    run("user", "password", "anna", typed="another horse battery\n")
    assert not anna.is_signed_in()
    assert anna.sign_in("anna", "another horse battery").status_code == 303
    run("user", "disable", "anna")
    assert not anna.is_signed_in()
    assert run("user", "list").splitlines()[0] == "anna\tadmin\tdisabled\tnot signed in"
    run("user", "enable", "anna")
    assert anna.sign_in("anna", "another horse battery").status_code == 303


def test_what_the_command_refuses(run: Run) -> None:
    run("user", "add", "root", "--role", "superadmin", typed=f"{PASSWORD}\n")
    for argv in (["disable", "root"], ["role", "root", "admin"]):
        assert "the last super administrator has to stay one" in run("user", *argv, code=1)
    for verb in ("disable", "enable", "password"):
        assert "user: there is no such user" in run("user", verb, "nobody", code=1)
    assert "password: expected" in run("user", "password", "root", typed="short\n", code=1)
    assert "there is a super administrator already" in run("set-up", code=1)
    assert "there is no such user" in run("set-up", "--reset", "nobody", code=1)


def test_set_up_prints_a_link(api: Api, run: Run) -> None:
    link = run("set-up")
    assert link.startswith("http://127.0.0.1:8000/set-up/")
    api.now = datetime.now(UTC)
    first = Person(api)
    path = link.removeprefix("http://127.0.0.1:8000")
    assert first.post(path, name="root", password=PASSWORD, again=PASSWORD).status_code == 303
    other = run("set-up", "--reset", "root").removeprefix("http://127.0.0.1:8000")
    assert first.post(other, password="another horse battery", again="another horse battery").status_code == 303
    assert Person(api).sign_in("root", "another horse battery").status_code == 303


def test_the_command_makes_tokens_with_a_scope(api: Api, run: Run) -> None:
    found = caller_of(api.engine, run("token", "add", "t", "--role", "admin", "--scope", "metrics"), api.now)
    assert found is not None
    assert found.scope is Scope.METRICS
