"""The kiosk's uuid: configured, kept, or derived; never a reason not to start."""

import logging
import stat
from pathlib import Path

import pytest

from infoscreen_device.identity import resolve_uuid
from infoscreen_device.settings import ClientConfig, Config
from infoscreen_shared.topics import is_uuid

UUID = "0b6c0f5e-94a5-4f0c-9a55-0d9b3f7c2a11"


def test_the_configured_one_is_taken_and_nothing_is_written(tmp_path: Path) -> None:
    assert resolve_uuid(Config(client=ClientConfig(UUID), state_dir=tmp_path)) == UUID
    assert list(tmp_path.iterdir()) == []


def test_a_missing_one_is_made_once_and_kept(tmp_path: Path) -> None:
    config = Config(state_dir=tmp_path / "not" / "yet")
    made = resolve_uuid(config)
    assert is_uuid(made)
    assert resolve_uuid(config) == made
    assert [path.name for path in config.state_dir.iterdir()] == ["uuid"]
    assert stat.S_IMODE(config.state_dir.stat().st_mode) & 0o007 == 0


def test_two_kiosks_differ(tmp_path: Path) -> None:
    assert resolve_uuid(Config(state_dir=tmp_path / "a")) != resolve_uuid(Config(state_dir=tmp_path / "b"))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xff"])
def test_a_file_without_a_uuid_is_replaced(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "uuid").write_bytes(content)
    made = resolve_uuid(Config(state_dir=tmp_path))
    assert resolve_uuid(Config(state_dir=tmp_path)) == made
    assert "holds no uuid" in caplog.text


def test_where_nothing_can_be_kept_it_is_derived_and_always_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file stands where the state directory should be: even root cannot write there."""
    (tmp_path / "state").write_text("")
    (tmp_path / "machine-id").write_text("b08dfa6083e7567a1921a715000001fb\n")
    config = Config(state_dir=tmp_path / "state")
    with caplog.at_level(logging.WARNING):
        derived = resolve_uuid(config, tmp_path / "machine-id")
    assert derived == resolve_uuid(config, tmp_path / "machine-id")
    assert is_uuid(derived)
    assert "derived from the machine id" in caplog.text
    assert "b08dfa" not in caplog.text
    (tmp_path / "machine-id").write_text("another")
    assert resolve_uuid(config, tmp_path / "machine-id") != derived


def test_what_cannot_be_read_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "uuid").mkdir()
    assert is_uuid(resolve_uuid(Config(state_dir=tmp_path)))
    assert (tmp_path / "uuid").is_dir()
