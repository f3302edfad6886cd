from pathlib import Path

import pytest

from infoscreen_server.config import DEFAULT_DATABASE, ConfigError, Mqtt, ServerConfig, load


def written(folder: Path, text: str, mode: int = 0o640) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def problems(path: Path | None, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environment or {})
    return caught.value.problems


def test_nothing_given_is_a_working_server(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), {}) == ServerConfig(DEFAULT_DATABASE, Mqtt("localhost", 1883))


def test_every_setting_is_read(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    text = f"""
        database_url = "postgresql://u@h/db"
        listen_host = "0.0.0.0"
        listen_port = 9000
        web_workers = 2
        web_connections = 50
        debug_mode = true
        log_retention_days = 7
        auto_register = false
        heartbeat_seconds = 60
        periodic_screenshots_kept = 0
        incident_screenshots_kept = 5
        public_url = "https://screens.example.org/"
        language = "de"
        alert_allow_local = true
        dead_man_url = "https://checks.example.org/ping/s3cret?status=up"
        dead_man_seconds = 30
        [mqtt]
        host = "broker"
        port = 8883
        tls = true
        username = "server"
        password = "pw"
        ca_file = "{ca}"
        client_id = "standby"
    """
    assert load(written(tmp_path, text), {}) == ServerConfig(
        "postgresql+psycopg://u@h/db",
        Mqtt("broker", 8883, True, "server", "pw", ca, "standby"),
        "0.0.0.0",
        9000,
        2,
        50,
        True,
        7,
        False,
        60,
        0,
        5,
        "https://screens.example.org",
        "de",
        True,
        "https://checks.example.org/ping/s3cret?status=up",
        30,
    )


def test_the_environment_wins(tmp_path: Path) -> None:
    path = written(
        tmp_path, 'database_url = "sqlite:////a"\ndebug_mode = false\nlog_retention_days = 9\n[mqtt]\nhost = "file"'
    )
    config = load(
        path,
        {
            "DATABASE_URL": "postgres://h/x",
            "DEBUG_MODE": "on",
            "LOG_RETENTION_DAYS": "30",
            "MQTT_BROKER": "other:1884",
        },
    )
    assert (config.database_url, config.debug_mode, config.log_retention_days) == ("postgresql+psycopg://h/x", True, 30)
    assert config.mqtt == Mqtt("other", 1884)


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    config = load(written(tmp_path, "log_retention_days = 9"), {"LOG_RETENTION_DAYS": "", "DEBUG_MODE": " "})
    assert (config.log_retention_days, config.debug_mode) == (9, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("broker", Mqtt("broker")),
        ("10.0.0.1:1884", Mqtt("10.0.0.1", 1884)),
        ("[::1]:1884", Mqtt("::1", 1884)),
        ("mqtt://broker", Mqtt("broker")),
        ("mqtts://broker", Mqtt("broker", 8883, tls=True)),
        ("mqtts://me:p%40ss@broker:1", Mqtt("broker", 1, True, "me", "p@ss")),
        ("", None),
        ("none", None),
    ],
)
def test_broker_as_host_or_url(tmp_path: Path, text: str, expected: Mqtt | None) -> None:
    assert load(written(tmp_path, ""), {"MQTT_BROKER": text}).mqtt == expected
    assert load(written(tmp_path, f'[mqtt]\nbroker = "{text}"'), {}).mqtt == expected


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    text = """
        databse_url = "sqlite:////x"
        log_retention_days = 0
        debug_mode = "maybe"
        listen_port = true
        [mqtt]
        prt = 1
        ca_file = "/no/such/file"
        broker = "http://broker"
    """
    assert problems(written(tmp_path, text), {"LOG_RETENTION_DAYS": "many"}) == [
        "databse_url: unknown setting, did you mean database_url?",
        "LOG_RETENTION_DAYS: expected a whole number from 1 to 3650",
        "debug_mode: expected true or false",
        "listen_port: expected a whole number from 1 to 65535",
        "mqtt.prt: unknown setting, did you mean mqtt.port?",
        "mqtt.ca_file: no such file",
        "mqtt.broker: expected a host, host:port or a URL that begins with mqtt:// or mqtts://",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('mqtt = "broker"', "mqtt: expected a table, [mqtt]"),
        ("[mqtt]\nbroker = 7", "mqtt.broker: expected a host or a URL"),
        ("[mqtt]\nport = 99999", "mqtt.port: expected a whole number from 1 to 65535"),
        ("[mqtt]\nbroker = 'h:port'", "mqtt.broker: expected a host, host:port or mqtt://host:port"),
        ("[mqtt]\nca_file = 'ca.pem'", "mqtt.ca_file: expected an absolute path"),
        ("[mqtt]\npassword_file = '/no/file'", "mqtt.password_file: cannot be read: No such file or directory"),
        ("zzz = 1", "zzz: unknown setting"),
        ("mqqt = 1", "mqqt: unknown setting, did you mean mqtt?"),
        ("database_url = 'mysql://h/x'", "database_url: expected sqlite:////path/to/file or postgresql://"),
        ("database_url = 'postgresql://'", "database_url: expected sqlite:////path/to/file or postgresql://"),
        ("listen_host = ''", "listen_host: expected text"),
        ("alert_allow_local = 'perhaps'", "alert_allow_local: expected true or false"),
        ("dead_man_url = 'checks.example.org/s3cret'", "dead_man_url: expected a URL to ask for"),
        ("dead_man_url = 'https://me:s3cret@h/'", "dead_man_url: expected a URL to ask for"),
        ("dead_man_url = 'ftp://h/s3cret'", "dead_man_url: expected a URL to ask for"),
        ("dead_man_url = 'http://h:x/s3cret'", "dead_man_url: expected a URL to ask for"),
        ("dead_man_url = 'http://h/s3cret#x'", "dead_man_url: expected a URL to ask for"),
        ("dead_man_url = 'http://h/s3 cret'", "dead_man_url: expected a URL to ask for"),
        ("dead_man_seconds = 4", "dead_man_seconds: expected a whole number from 5 to 86400"),
    ],
)
def test_a_mistake_names_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(written(tmp_path, text))
    assert problem.startswith(expected)
    assert "s3" not in problem


def test_broken_toml_and_missing_file(tmp_path: Path) -> None:
    (broken,) = problems(written(tmp_path, "a = "))
    assert "not TOML" in broken
    assert problems(tmp_path / "none.toml") == [f"{tmp_path / 'none.toml'}: no such file"]


def test_password_from_a_file_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    config = load(written(tmp_path, f'[mqtt]\npassword_file = "{secret}"', 0o644), {})
    assert config.mqtt is not None
    assert config.mqtt.password == "s3cret"


@pytest.mark.parametrize(
    "text",
    [
        '[mqtt]\npassword = "s3cret"',
        '[mqtt]\nbroker = "mqtt://u:s3cret@h"',
        'database_url = "postgresql://u:s3cret@h/d"',
        'dead_man_url = "https://checks.example.org/ping/s3cret"',
    ],
)
def test_secrets_are_neither_world_readable_nor_repeated(tmp_path: Path, text: str) -> None:
    (problem,) = problems(written(tmp_path, text, 0o644))
    assert problem.endswith("holds a secret and can be read by everyone; mend it with chmod 640")
    assert "s3cret" not in problem
    assert "s3cret" not in repr(load(written(tmp_path, text), {}))


def test_who_knows_the_ping_url_could_ping_in_its_place(tmp_path: Path) -> None:
    config = load(written(tmp_path, "dead_man_url = 'https://h/s3cret'"), {})
    assert (config.dead_man_url, "s3cret" in repr(config)) == ("https://h/s3cret", False)


def test_a_wrong_value_is_not_repeated(tmp_path: Path) -> None:
    found = problems(
        written(tmp_path, ""), {"DATABASE_URL": "mysql://u:s3cret@h/d", "MQTT_BROKER": "http://u:s3cret@h"}
    )
    assert len(found) == 2
    assert "s3cret" not in " ".join(found)
