"""The command's small verbs, in this process; `run` and what lives long are in test_server_run."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from infoscreen_server import cli
from infoscreen_server.accounts import caller_of, sign_in
from infoscreen_server.db import head, make_engine, revision, upgrade, writing
from infoscreen_server.models import Client, TokenRole
from parts.api import NOW, UUID

Run = Callable[..., int]


@pytest.fixture
def run(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """main() with an empty database, and `typed` as standard input."""
    for name in ("MQTT_BROKER", "DEBUG_MODE", "LOG_RETENTION_DAYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", empty_database_url)

    def call(*argv: str, typed: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return cli.main(argv)

    return call


@pytest.fixture
def engine(empty_database_url: str, run: Run, capsys: pytest.CaptureFixture[str]) -> Iterator[Engine]:
    """The migrated database behind `run`."""
    assert run("migrate") == 0
    capsys.readouterr()
    made = make_engine(empty_database_url)
    yield made
    made.dispose()


def test_migrate_goes_up_and_back(run: Run, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert revision(engine) == head()
    assert run("migrate", "--to", "0001") == 0
    assert revision(engine) == "0001"
    assert run("migrate", "--to", "base") == 0
    assert revision(engine) is None
    assert capsys.readouterr().out.splitlines() == ["the database is at 0001", "the database is at base"]
    assert run("migrate") == 0
    assert revision(engine) == head()
    assert run("migrate", "--to", "nonsense") == cli.EX_UNAVAILABLE
    assert "migrate: " in capsys.readouterr().err


def test_a_user_is_added_with_a_password_from_standard_input(run: Run, engine: Engine) -> None:
    assert run("user", "add", "anna", "--role", "admin", typed="correct horse\n") == 0
    assert sign_in(engine, "anna", "correct horse") is not None


def test_a_user_that_cannot_be(run: Run, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("user", "add", "anna", "--role", "admin", typed="hunter2\n") == 1
    assert "password: expected" in (told := capsys.readouterr().err)
    assert "hunter2" not in told
    with pytest.raises(SystemExit):
        run("user", "add", "anna", "--role", "device", typed="correct horse\n")


def test_a_token_is_printed_once_and_works(run: Run, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("token", "add", "monitor", "--role", "user", "--expires-days", "1") == 0
    token = capsys.readouterr().out.strip()
    found = caller_of(engine, token, NOW)
    assert found is not None
    assert found.role is TokenRole.USER
    assert run("token", "list") == 0
    listed = capsys.readouterr().out
    assert listed.startswith(token[:16])
    assert token[17:] not in listed
    assert run("token", "revoke", token[:16]) == 0
    assert caller_of(engine, token, NOW) is None
    assert run("token", "revoke", token[:16]) == 1


def test_a_device_token_is_bound(run: Run, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("token", "add", "lobby", "--role", "device", "--client", UUID.upper()) == 0
    found = caller_of(engine, capsys.readouterr().out.strip(), NOW)
    assert found is not None
    assert found.client_uuid == UUID
    assert run("token", "add", "lobby", "--role", "device") == 1
    assert "client: " in capsys.readouterr().err


def test_a_database_without_tables_is_said_plainly(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("token", "list") == cli.EX_UNAVAILABLE
    assert "infoscreen-server migrate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:s3cret@127.0.0.1:1/none", "database: "),
        ("sqlite:////no/such/folder/x.db", "the folder /no/such/folder does not exist"),
        ("postgresql://u:s3cret@s3cret@127.0.0.1:1/none", "with %40, %3A and %2F"),
        ("postgresql://u:s3cret:s3cret@s3cret:s3cret@127.0.0.1:1/none", "with %40, %3A and %2F"),
        ("postgresql://u:s3cret@127.0.0.1:s3cret/none", "with %40, %3A and %2F"),
        ("sqlite:////tmp/x.db?timeout=s3cret", "DATABASE_URL: expected"),
    ],
)
def test_a_database_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, expected: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    for argv in (["migrate"], ["token", "list"]):
        assert cli.main(argv) == cli.EX_UNAVAILABLE
        assert expected in (told := capsys.readouterr().err)
        assert "s3cret" not in told
        assert "Traceback" not in told


@pytest.mark.parametrize(
    "argv",
    [
        ["user", "disable", "\udcff"],
        ["user", "role", "\udcff", "user"],
        ["set-up", "--reset", "\udcff"],
        ["token", "revoke", "\udcff"],
        ["channel", "remove", "\udcff"],
        ["client", "remove", "\udcff"],
    ],
)
def test_what_is_not_utf8_is_said_plainly(run: Run, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert run("migrate") == 0
    assert run(*argv) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_name_of_a_kiosk_writes_nothing_of_its_own_to_a_terminal(
    run: Run, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("migrate") == 0
    with writing(engine) as connection:
        name = "x\n11111111-2222-4333-8444-555555555555\tlobby\x1b[2K\x1b]0;owned\x07ä"
        connection.execute(insert(Client).values(uuid=UUID, hostname=name, registered_at=NOW))
    capsys.readouterr()
    assert run("client", "list") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.count("\t") == 3
    assert line.replace("\t", "").isprintable()
    assert line.startswith(f"{UUID}\tx\\n1111")


@pytest.mark.parametrize("typed", [b"\xff\xfe\n", b""])
def test_a_password_that_cannot_be_one_is_said_plainly(tmp_path: Path, typed: bytes) -> None:
    url = f"sqlite:///{tmp_path}/server.db"
    upgrade(url)
    command = [sys.executable, "-m", "infoscreen_server", "user", "add", "anna", "--role", "user"]
    done = subprocess.run(
        command, input=typed, capture_output=True, check=False, env={**os.environ, "DATABASE_URL": url}
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_whoever_reads_the_answer_may_go_away(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/server.db"
    upgrade(url)
    command = [sys.executable, "-m", "infoscreen_server", "set-up"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, check=False, env={**os.environ, "DATABASE_URL": url}
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_wrong_settings_end_with_78_and_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEBUG_MODE", "perhaps")
    path = tmp_path / "config.toml"
    path.write_text("listen_prt = 1")
    assert os.EX_CONFIG == cli.EX_CONFIG
    for argv in (["--config", str(path), "run"], ["run", "--config", str(path)]):
        assert cli.main(argv) == os.EX_CONFIG
        told = capsys.readouterr().err.splitlines()
        assert [line.split(": ", 1)[1].split(":")[0] for line in told] == ["listen_prt", "DEBUG_MODE"]


def test_ingest_without_a_broker_is_a_wrong_setting(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_BROKER", "none")
    assert run("ingest") == os.EX_CONFIG


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("infoscreen-server ")
