"""Who this kiosk is: the uuid under which the server knows it. Found once at the start, never changed afterwards."""

import logging
import os
import uuid
from pathlib import Path

from infoscreen_device.settings import Config
from infoscreen_shared.topics import is_uuid

log = logging.getLogger(__name__)

MACHINE_ID = Path("/etc/machine-id")
# A namespace of our own (RFC 9562, section 6.6): machine-id(5) asks that the id itself is not given away.
_NAMESPACE = uuid.UUID("6f0c7b52-2c59-4d0c-8f0a-2b1f5f0f5a3e")


def resolve_uuid(config: Config, machine_id: Path = MACHINE_ID) -> str:
    """The configured uuid, else the one kept in the state directory, which is made at the first start.

    Never fails: where nothing can be kept or read, the uuid is derived from the machine id, the same at every start.
    """
    if config.client.uuid is not None:
        return config.client.uuid
    path = config.state_dir / "uuid"
    try:
        kept = path.read_text("ascii").strip().lower()
        if is_uuid(kept):
            return kept
        log.warning("%s holds no uuid; a new one is made", path)
    except FileNotFoundError:
        pass
    except UnicodeDecodeError:
        log.warning("%s holds no uuid; a new one is made", path)
    except OSError as error:
        # What cannot be read now may be read tomorrow: it is not overwritten.
        return _derived(machine_id, path, error)
    try:
        return _keep(path, str(uuid.uuid4()))
    except OSError as error:
        return _derived(machine_id, path, error)


def _keep(path: Path, made: str) -> str:
    """Written whole or not at all, and on the disk before it is used."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        with fresh.open("w", encoding="ascii") as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return made


def _derived(machine_id: Path, path: Path, error: OSError) -> str:
    try:
        seed = machine_id.read_text("ascii").strip()
    except (OSError, ValueError):
        seed = ""
    derived = str(uuid.uuid5(_NAMESPACE, seed or os.uname().nodename))
    log.warning("%s cannot be kept or read (%s): the uuid is derived from the machine id: %s", path, error, derived)
    return derived
