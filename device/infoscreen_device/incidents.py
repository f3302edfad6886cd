"""Evidence of wrong pictures: a bounded folder on the kiosk, and small pictures for the server.

Works in a thread of its own, for cards and networks may take their time: the restart does not wait for it. Nothing here
judges a picture. An incident's small picture is sent until the server has it; of the periodic ones only the newest is.
"""

import contextlib
import fcntl
import json
import logging
import os
import queue
import re
import shutil
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from infoscreen_device.core.model import Restart
from infoscreen_device.evidence import last_lines
from infoscreen_device.settings import HttpConfig, PicturesConfig
from infoscreen_shared.messages import timestamp_text

log = logging.getLogger(__name__)

MAX_PICTURE_BYTES = 32 * 2**20
MAX_THUMBNAIL_BYTES = 20_000
"""The server takes no more."""
LOOK_S = 3_600.0
"""How often the folder is looked through for what has become too old."""
RETRY_S = 60.0
"""How often the server is tried again for incidents that it does not have yet."""
MAX_WAITING = 16
SENT, THUMBNAIL, PICTURE, FACTS = "sent", "thumbnail.jpg", "screen.jpg", "facts.json"


@dataclass(frozen=True, slots=True)
class Incident:
    """A wrong picture, confirmed. The file descriptors are closed when it was kept."""

    at: datetime
    status: str
    reason: str
    facts: Mapping[str, Any]
    restart: Restart
    """Whose journal is looked at."""
    picture: int | None = None
    thumbnail: int | None = None
    hash: str | None = None


@dataclass(frozen=True, slots=True)
class Periodic:
    at: datetime
    status: str
    reason: str
    thumbnail: int
    hash: str | None = None


class Incidents:
    def __init__(self, folder: Path, config: PicturesConfig, http: HttpConfig, uuid: str) -> None:
        self._folder, self._config, self._http, self._uuid = folder, config, http, uuid
        self._inbox: queue.Queue[Incident | Periodic | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, name="pictures", daemon=True)
        self._trouble = ""

    @property
    def sends(self) -> bool:
        """There is a door for pictures."""
        return self._http.url is not None

    def start(self) -> None:
        self._thread.start()

    def keep(self, item: Incident | Periodic) -> None:
        """Returns at once. What does not fit any more (the card hangs) is let go of."""
        try:
            self._inbox.put_nowait(item)
        except queue.Full:
            _close(item)
            log.warning("a picture was let go of: the card or the network is too slow")

    def close(self, timeout_s: float) -> None:
        with contextlib.suppress(queue.Full):
            self._inbox.put_nowait(None)
        self._thread.join(timeout_s)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        wait_s = 0.0  # what an earlier run left is looked at first
        while True:
            item: Incident | Periodic | str | None = "retry"
            with contextlib.suppress(queue.Empty):
                item = self._inbox.get(timeout=wait_s)
            if item is None:
                return
            try:
                self._take(item)
                prune(self._folder, self._config, time.time())
                wait_s = RETRY_S if self.sends and self._unsent() else LOOK_S
            except Exception:
                # A full or read-only card: the next picture may find it well again.
                log.exception("a picture could not be kept")
                wait_s = RETRY_S
            finally:
                _close(item)

    def _take(self, item: Incident | Periodic | str) -> None:
        if isinstance(item, str):
            self._send_incidents()
            return
        if isinstance(item, Periodic):
            small = read_picture(item.thumbnail, MAX_THUMBNAIL_BYTES)
            name = f"{stamp(item.at)}-periodic"
            about = {"id": name, "kind": "periodic", "taken_at": timestamp_text(item.at), "status": item.status}
            about |= {"reason": item.reason} | ({} if item.hash is None else {"hash": item.hash})
            self._send(name, small, about)
            return
        self._write(item)
        self._send_incidents()

    def _write(self, incident: Incident) -> None:
        """A folder of its own, under its name only when it is whole."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        # A reason may be a name from the settings; the server takes no more than this in an id.
        name = f"{stamp(incident.at)}-{re.sub('[^A-Za-z0-9_-]+', '-', incident.reason)[:40]}"
        fresh = self._folder / f".{name}"
        fresh.mkdir(mode=0o750)
        if incident.picture is not None:
            (fresh / PICTURE).write_bytes(read_picture(incident.picture, MAX_PICTURE_BYTES))
        if incident.thumbnail is not None:
            (fresh / THUMBNAIL).write_bytes(read_picture(incident.thumbnail, MAX_THUMBNAIL_BYTES))
        facts = {
            "at": timestamp_text(incident.at),
            "status": incident.status,
            "reason": incident.reason,
            "hash": incident.hash,
            **incident.facts,
            "journal": last_lines(incident.restart),
        }
        (fresh / FACTS).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        fresh.rename(self._folder / name)

    # --- to the server ------------------------------------------------------------------------------------------------

    def _unsent(self) -> list[Path]:
        """Incidents that the server does not have, the newest first."""
        found = [path for path in kept(self._folder) if (path / THUMBNAIL).exists() and not (path / SENT).exists()]
        return list(reversed(found))

    def _send_incidents(self) -> None:
        if not self.sends:
            return
        for path in self._unsent():
            try:
                facts = json.loads((path / FACTS).read_text())
                small = (path / THUMBNAIL).read_bytes()
            except (OSError, ValueError) as error:
                log.warning("%s: %s", path, error)
                (path / SENT).write_text(f"not sent: {error}\n")
                continue
            about = {name: facts.get(name) for name in ("status", "reason", "hash")}
            about |= {"id": path.name, "kind": "incident", "taken_at": facts.get("at")}
            if not self._send(path.name, small, {name: str(value) for name, value in about.items() if value}, path):
                return

    def _send(self, name: str, small: bytes, about: Mapping[str, str], path: Path | None = None) -> bool:
        """False if the door does not answer, or not as it should. A picture that it refuses is not sent again."""
        if not self.sends:
            return False
        # Not before it is used: an HTTP client takes a megabyte.
        from infoscreen_device.http_door import RefusedError, post_picture

        outcome = "sent"
        try:
            post_picture(self._http, self._uuid, small, about)
            self._trouble = ""
        except RefusedError as error:
            outcome = f"refused: {error}"
            self._told(f"picture {name} {outcome}")
        except (OSError, ValueError) as error:
            self._told(f"pictures wait for the HTTP door: {error}")
            return False
        if path is not None:
            (path / SENT).write_text(f"{outcome}\n")
        return True

    def _told(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("%s", trouble)


# --- the folder -------------------------------------------------------------------------------------------------------


def stamp(at: datetime) -> str:
    """Sorts by time, and is a file's name."""
    return at.strftime("%Y%m%dT%H%M%S%fZ")


def kept(folder: Path) -> list[Path]:
    """The incidents in the folder, the oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def prune(folder: Path, config: PicturesConfig, now: float) -> None:
    """Takes the oldest incidents away until the folder is within its bounds. `now`: seconds of the wall clock.

    What was not finished goes too: only whoever calls this writes here.
    """
    for unfinished in folder.glob(".2*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    found = [(path, _size(path), path.stat().st_mtime) for path in kept(folder)]
    total = sum(size for _, size, _ in found)
    for number, (path, size, written) in enumerate(found):
        fits = len(found) - number <= config.max_count and total <= config.max_bytes
        if fits and now - written <= config.max_age_s:
            continue
        shutil.rmtree(path, ignore_errors=True)
        total -= size


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


# --- pictures from the helper -----------------------------------------------------------------------------------------


def read_picture(fd: int, limit: int) -> bytes:
    """The bytes of a picture in memory. Raises OSError, ValueError.

    The helper belongs to another user: only a memory file is read, for reading any other could wait for ever.
    """
    fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
        raise ValueError(f"expected a picture of at most {limit} bytes")
    return os.pread(fd, limit, 0)


def _close(item: Incident | Periodic | str) -> None:
    if isinstance(item, str):
        return
    for fd in (item.thumbnail,) if isinstance(item, Periodic) else (item.picture, item.thumbnail):
        if fd is not None:
            os.close(fd)
