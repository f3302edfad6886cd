"""The agent's configuration: defaults, the environment's word, and every mistake told at once with its place."""

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infoscreen_device import config as module
from infoscreen_device.config import Config, ConfigError, Places, config_from, load_config, places
from infoscreen_device.core.model import Restart, Way
from infoscreen_device.core.picture import Expected, Motion
from infoscreen_device.settings import PicturesConfig
from infoscreen_shared.messages import EventType, LogLevel

SHIPPED = Path(module.__file__).with_name("default.toml")
UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"


def problems(document: dict[str, Any], **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config_from(document, environ)
    return caught.value.problems


def from_text(tmp_path: Path, text: str | bytes, **environ: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, environ)


def secret(tmp_path: Path, content: bytes = b"s3cret\n", mode: int = 0o640) -> str:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def test_the_shipped_file_changes_nothing() -> None:
    assert load_config(SHIPPED, {}) == Config()


def test_every_setting_in_the_shipped_file_exists_and_shows_its_default() -> None:
    """With the comment signs taken away the file must be valid; what it shows as default must be the default."""
    lines = []
    for line in SHIPPED.read_text().splitlines():
        bare = line.removeprefix("# ")
        is_setting = line.startswith("# ") and (bare.startswith("[") or bare.partition(" = ")[0].isidentifier())
        lines.append(bare if is_setting else line)
    document = tomllib.loads("\n".join(lines))
    document["client"]["uuid"] = UUID
    document["player"]["user"] = "nobody"
    for section, names in {"broker": ["password_file", "ca_file"], "http": ["token_file", "ca_file"]}.items():
        for name in names:
            del document[section][name]
    document["control"]["group"] = "root"
    config = config_from(document, {})
    assert config.restart == Config().restart.__class__(session_unit="lightdm.service")
    assert (config.outbox, config.clock, config.report) == (Config().outbox, Config().clock, Config().report)
    assert config.pictures == Config().pictures
    shown = replace(Config().screen, ignore=((0.85, 0.0, 0.15, 0.08),), quiet=((22 * 60, 6 * 60),))
    assert config.screen == shown
    assert config.broker.url == Config().broker.url
    assert config.player is not None
    assert config.player.restart.unit == "player.service"


def test_the_screen(tmp_path: Path) -> None:
    hashed = "0f" * 16
    config = from_text(
        tmp_path,
        f"""
        [screen]
        fast = true
        still_s = 5
        ignore = [[0, 0.5, 1, 0.25]]
        quiet = ["22:00-06:00", "12:15 - 13:00"]
        known = {{ desktop = "{hashed}", "error page" = "{hashed} {hashed}" }}
        [pictures]
        max_size = "1MiB"
        max_count = 3
        max_age_days = 0.5
        thumbnail_s = 0
        blur = true
        [player]
        process = "mpv"
        motion = "within: 90 s"
        """,
    )
    assert (config.screen.interval_s, config.screen.confirm_s, config.screen.still_s) == (1.0, 0.2, 5.0)
    assert config.screen.ignore == ((0.0, 0.5, 1.0, 0.25),)
    assert config.screen.quiet == ((1320, 360), (735, 780))
    assert config.screen.known == {"desktop": hashed, "error page": f"{hashed} {hashed}"}
    assert config.pictures == PicturesConfig(2**20, 3, 43_200.0, 0.0, True)
    assert config.player is not None
    assert config.player.motion == Expected(Motion.WITHIN, 90.0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[screen]\nignore = [0, 0, 1, 1]", "screen.ignore: expected up to 32 lists of [left, top, width, height]"),
        ("[screen]\nignore = [[0, 0, 1, 1.5]]", "screen.ignore: expected up to 32 lists"),
        ('[screen]\nquiet = ["25:00-06:00"]', 'screen.quiet: expected local times such as ["22:00-06:00"]'),
        ('[screen]\nquiet = ["24:30-06:00"]', "screen.quiet: expected local times"),
        ('[screen.known]\ndesktop = "blue"', "screen.known.desktop: expected hashes as"),
        ("[screen]\nspan_s = 9", "screen.span_s: expected a number from 0.2 to 5"),
        ("[screen]\ninterval = 9", "screen.interval: unknown setting (did you mean interval_s?)"),
        ('[pictures]\nmax_size = "1kB"', "pictures.max_size: expected a size from 64 KiB to 1024 GiB"),
        ('[player]\nprocess = "mpv"\nmotion = "vidoe"', "player.motion: expected "),
        ('[player]\nprocess = "mpv"\nmotion = "within"', "player.motion: expected "),
    ],
)
def test_what_is_wrong_with_the_screens_settings_is_told(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, text)
    assert [line for line in caught.value.problems if line.startswith(problem)], caught.value.problems


def test_a_full_file(tmp_path: Path) -> None:
    config = from_text(
        tmp_path,
        f"""
        state_dir = "/srv/state"
        enabled = false
        client.uuid = "{UUID.upper()}"
        [broker]
        url = "mqtts://broker.example:8884"
        username = "kiosk"
        password_file = "{secret(tmp_path)}"
        [http]
        url = "https://server.example/base/"
        [outbox]
        max_size = "2MiB"
        max_age_days = 1.5
        deadline_s = {{ info = 60 }}
        [player]
        process = "mpv"
        event_id = 42
        type = "video"
        user = "nobody"
        restart = ["mpv", "--fs", "film.mkv"]
        environment = {{ DISPLAY = ":0" }}
        [restart]
        ladder = ["player", "reboot"]
        """,
    )
    assert config.client.uuid == UUID
    assert (config.state_dir, config.enabled) == (Path("/srv/state"), False)
    broker = config.broker
    assert (broker.host, broker.port, broker.tls, broker.password) == ("broker.example", 8884, True, "s3cret")
    assert config.http.url == "https://server.example/base"
    assert (config.outbox.max_bytes, config.outbox.max_age_s) == (2**21, 129_600)
    assert config.outbox.deadline_s[LogLevel.INFO] == 60
    assert config.outbox.deadline_s[LogLevel.WARN] == 5
    assert config.player is not None
    assert (config.player.event_id, config.player.event_type) == (42, EventType.VIDEO)
    assert config.player.restart == Restart(
        Way.ARGV, argv=("mpv", "--fs", "film.mkv"), user="nobody", environment=(("DISPLAY", ":0"),)
    )
    assert config.restart.ladder == ("player", "reboot")


def test_all_mistakes_are_told_at_once_with_place_and_mend() -> None:
    found = problems(
        {
            "brokr": {},
            "broker": {"url": "mqtt://me:hunter2@host", "keep_alive": 3},
            "outbox": {"max_size": "64 apples", "deadline_s": {"fatal": 1}},
            "player": {"proces": "mpv", "type": "movie", "restart": "unti:x", "pid": 3},
            "restart": {"max_restarts": True, "ladder": ["reboot", "player"], "window_s": -1},
            "control": {"group": "no-such-group"},
        },
        WATCHDOG_ENABLED="maybe",
        MAX_RESTARTS="many",
        CLIENT_UUID="me",
    )
    assert found == [
        "CLIENT_UUID: expected a uuid such as 0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11",
        "WATCHDOG_ENABLED: expected true or false",
        "broker.keep_alive: unknown setting (did you mean keepalive_s?)",
        "broker.url: a URL must not carry a user name or password: "
        "write broker.username and broker.password_file instead",
        "outbox.deadline_s.fatal: unknown setting",
        'outbox.max_size: expected a size such as "64MiB", or a number of bytes',
        'player.restart: expected "unit:NAME", "user-unit:NAME", "handler", "none" '
        'or a list ["program", "argument", …] (did you mean unit?)',
        "player.process: is missing: name the player's process, such as mpv",
        "player.type: expected one of video, website, presentation (did you mean video?)",
        "player.proces: unknown setting (did you mean process?)",
        "player.pid: unknown setting",
        "restart.max_restarts: expected a whole number from 1 to 100",
        "MAX_RESTARTS: expected a whole number from 1 to 100",
        "restart.window_s: expected a number from 1 to 86400",
        "restart.ladder: expected each rung once, in the order player, session, reboot",
        "control.group: there is no group no-such-group on this machine",
        "brokr: unknown setting (did you mean broker?)",
    ]
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("value", "url", "host", "port", "tls"),
    [
        ("broker", "mqtt://broker", "broker", 1883, False),
        ("10.0.0.7:1884", "mqtt://10.0.0.7:1884", "10.0.0.7", 1884, False),
        ("mqtt://broker:1885/", "mqtt://broker:1885/", "broker", 1885, False),
        ("mqtts://broker", "mqtts://broker", "broker", 8883, True),
        ("[::1]:1884", "mqtt://[::1]:1884", "::1", 1884, False),
    ],
)
def test_mqtt_broker_wins_over_the_file(value: str, url: str, host: str, port: int, tls: bool) -> None:
    broker = config_from({"broker": {"url": "mqtt://other"}}, {"MQTT_BROKER": value}).broker
    assert (broker.url, broker.host, broker.port, broker.tls) == (url, host, port, tls)


@pytest.mark.parametrize(
    "value", ["http://broker", "mqtt://", "broker:port", "broker:99999", "broker:0", "a b", "mqtt://h/x?y", "me@broker"]
)
def test_a_bad_broker_address_names_the_variable(value: str) -> None:
    (problem,) = problems({}, MQTT_BROKER=value)
    assert problem.startswith("MQTT_BROKER: ")


def test_the_environment_wins_and_its_empty_values_do_not() -> None:
    document = {"enabled": False, "client": {"uuid": "no"}, "restart": {"max_restarts": 4}}
    config = config_from(document, {"WATCHDOG_ENABLED": "Yes", "CLIENT_UUID": UUID, "MAX_RESTARTS": "7"})
    assert (config.enabled, config.client.uuid, config.restart.max_restarts) == (True, UUID, 7)
    assert config_from({"enabled": False}, {"WATCHDOG_ENABLED": "", "MQTT_BROKER": " "}).enabled is False


def test_no_mqtt_at_all() -> None:
    assert config_from({"broker": {"url": ""}}, {}).broker.url is None


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    path = secret(tmp_path)
    config = config_from({"broker": {"password_file": path}, "http": {"token_file": path}}, {})
    assert (config.broker.password, config.http.token) == ("s3cret", "s3cret")
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        (b"s3cret", 0o644, "is open to every user: chmod 640"),
        (b"", 0o600, "expected one line of text"),
        (b"two\nlines", 0o600, "expected one line of text"),
        (b"\xff\xfe", 0o600, "not UTF-8"),
    ],
)
def test_a_bad_secret_file_is_refused(tmp_path: Path, content: bytes, mode: int, expected: str) -> None:
    (problem,) = problems({"broker": {"password_file": secret(tmp_path, content, mode)}})
    assert problem.startswith("broker.password_file: ")
    assert expected in problem
    assert "s3cret" not in problem


def test_a_missing_secret_file_and_a_directory_are_named(tmp_path: Path) -> None:
    found = problems({"broker": {"password_file": str(tmp_path / "none")}, "http": {"token_file": str(tmp_path)}})
    assert found == [
        f"broker.password_file: {tmp_path}/none: No such file or directory",
        f"http.token_file: {tmp_path}: Is a directory",
    ]


def test_secrets_come_as_systemd_credentials(tmp_path: Path) -> None:
    for name in ("mqtt", "http-token"):
        path = tmp_path / name
        path.write_text(f"the {name}")
        path.chmod(0o400)
    config = config_from({}, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (config.broker.password, config.http.token) == ("the mqtt", "the http-token")


@pytest.mark.parametrize("restart", [["mpv", "x"], "user-unit:player.service"])
@pytest.mark.parametrize("user", [None, "root"])
def test_a_restart_never_has_roots_rights(restart: object, user: str | None) -> None:
    (problem,) = problems({"player": {"process": "mpv", "restart": restart} | ({"user": user} if user else {})})
    assert problem == "player.user: name the user whose rights the restart is to have (never root)"


def test_a_ca_file_without_encryption_is_a_mistake(tmp_path: Path) -> None:
    (problem,) = problems({"broker": {"ca_file": secret(tmp_path)}})
    assert problem == "broker.ca_file: is of no use without encryption: write mqtts:// in broker.url"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\n[broker\n", "at line 2, column 8"),
        ("a = 1\nb = 2\nc = ", "at end of document"),
        (b"a = 1\nb = '\xff'", "not UTF-8 (at line 2)"),
        ("a = " + "[" * 50_000, "nested too deeply"),
        ("a = " + "9" * 10_000, "4300"),
        ("#" * 1_000_001, "larger than"),
    ],
)
def test_a_file_that_is_no_toml_is_one_problem_with_its_place(tmp_path: Path, text: str | bytes, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, text)
    (problem,) = caught.value.problems
    assert expected in problem
    assert str(tmp_path) in problem


def test_a_named_file_must_exist_the_default_one_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml", {})
    monkeypatch.setattr(module, "DEFAULT_PATH", tmp_path / "none.toml")
    assert load_config(None, {}) == Config()
    (tmp_path / "none.toml").write_text("enabled = false")
    assert load_config(None, {}).enabled is False


def test_the_places_are_found_by_those_who_may_not_read_the_rest(tmp_path: Path) -> None:
    default = Places(Config().control.socket, Config().state_dir)
    path = tmp_path / "config.toml"
    path.write_text('state_dir = "/srv"\nenabled = 3\nbroker.password_file = "/none"\ncontrol.socket = "/run/x.sock"')
    assert places(path) == Places(Path("/run/x.sock"), Path("/srv"))
    path.write_text("control = 3")
    assert places(path) == default
    path.write_text("broken")
    assert places(path) == default
    assert places(tmp_path / "none") == default


KNOWN = {
    "": ["state_dir", "enabled"],
    "client": ["uuid"],
    "broker": ["url", "username", "password_file", "ca_file", "keepalive_s"],
    "http": ["url", "token_file", "ca_file", "after_failures"],
    "outbox": ["max_size", "max_age_days", "deadline_s"],
    "clock": ["trusted", "max_wait_s"],
    "player": ["process", "event_id", "type", "cmdline", "user", "restart", "directory", "environment"],
    "restart": ["max_restarts", "ladder", "session_unit", "window_s", "backoff_cap_s"],
    "report": ["heartbeat_s", "health_s"],
    "control": ["socket", "group", "units"],
}
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    [
        "mpv",
        "unit:a",
        "handler",
        "/",
        "/etc/passwd",
        "/etc/shadow\0",
        "root",
        "nobody",
        "64MiB",
        "mqtts://[",
        "a@b",
        "x://",
    ]
)
SCALARS = st.none() | WORDS | st.integers() | st.booleans() | st.floats() | st.datetimes()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    document: dict[str, Any] = draw(st.dictionaries(WORDS, VALUES, max_size=2))
    for section, names in KNOWN.items():
        table = draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=3))
        if section == "":
            document.update(table)
        elif table:
            document[section] = draw(st.just(table) | VALUES)
    return document


@given(documents(), st.dictionaries(st.sampled_from(["MQTT_BROKER", "CLIENT_UUID", "MAX_RESTARTS"]), WORDS))
def test_any_document_gives_a_config_or_a_config_error(document: dict[str, Any], environ: dict[str, str]) -> None:
    try:
        config_from(document, environ)
    except ConfigError as error:
        assert error.problems
        assert all("\n" not in problem for problem in error.problems)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.binary(max_size=200))
def test_any_bytes_give_a_config_or_a_config_error(content: str | bytes) -> None:
    read, write = os.pipe()
    os.write(write, content if isinstance(content, bytes) else content.encode())
    os.close(write)
    try:
        load_config(Path(f"/proc/self/fd/{read}"), {})
    except ConfigError as error:
        assert error.problems
    finally:
        os.close(read)


def test_a_strange_key_cannot_forge_a_line() -> None:
    (problem,) = problems({"a\nb: fine": 1})
    assert problem == json.dumps("a\nb: fine") + ": unknown setting"
