"""The verbs `screen` and `screenshot`: ask the agent, which asks the capture helper, and say it for people."""

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoscreen_device.client import WatchdogAwayError, WatchdogError
from infoscreen_device.core.tiles import learn_regions
from infoscreen_device.incidents import MAX_PICTURE_BYTES, read_picture

TIMEOUT_S = 20.0
"""A look and its limits; the agent answers sooner, if it answers at all."""
MAX_LINE = 1_000_000
WATCH_S = 2.0


def ask(path: Path, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The agent's answer and the pictures with it. Raises WatchdogError, WatchdogAwayError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(body).encode() + b"\n")
            line, fds = _receive(connection)
    except OSError as error:
        raise WatchdogAwayError(f"{path}: {error.strerror or 'no answer in time'}") from error
    try:
        answer = json.loads(line)
        pictures = [read_picture(fd, MAX_PICTURE_BYTES) for fd in fds]
    except ValueError as error:
        raise WatchdogError(f"the agent's answer: {error}") from None
    finally:
        for fd in fds:
            os.close(fd)
    if answer.get("ok") is not True:
        raise WatchdogError(str(answer.get("error", "refused")))
    return answer, pictures


def _receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    line, fds = bytearray(), []
    while not line.endswith(b"\n") and len(line) < MAX_LINE:
        data, more, _flags, _address = socket.recv_fds(connection, 65_536, 4, socket.MSG_CMSG_CLOEXEC)
        fds += more
        if not data:
            raise ConnectionResetError(0, "hung up without an answer")
        line += data
    return bytes(line), fds


def screenshot(path: Path, options: argparse.Namespace) -> int:
    """One picture into a file, or to standard output."""
    target: Path | None = options.output
    kind = "jpeg" if target is not None and target.suffix.lower() in (".jpg", ".jpeg") else "png"
    answer, pictures = ask(path, {"op": "screen", "picture": kind})
    if not pictures:
        print(f"infoscreen-watchdog: {answer['screen']['text']}", file=sys.stderr)
        return 1
    _write(pictures[0], target)
    return 0


def screen(path: Path, options: argparse.Namespace) -> int:
    """One verdict now; or one after the other; or a picture that explains it; or where a clock is."""
    if options.learn is not None:
        return _learn(path, options.learn)
    if options.remember is not None:
        return _remember(path, options.remember)
    while True:
        answer, pictures = ask(path, {"op": "screen", "picture": "explain" if options.explain else None})
        print(json.dumps(answer, ensure_ascii=False) if options.json else describe(answer), flush=True)
        if options.explain:
            if not pictures:
                return 1
            _write(pictures[0], options.explain)
        if not options.watch:
            return 0
        time.sleep(WATCH_S)


def _write(picture: bytes, target: Path | None) -> None:
    if target is None:
        if sys.stdout.isatty():
            raise WatchdogError("a picture is nothing for a terminal: name a file with -o FILE")
        sys.stdout.buffer.write(picture)
        return
    try:
        # The screen may show what is not meant for everyone.
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(picture)
    except OSError as error:
        raise WatchdogError(f"{target}: {error.strerror}") from None
    print(f"{target}: {len(picture):,} bytes", file=sys.stderr)


def describe(answer: Mapping[str, Any]) -> str:
    """For people: the verdict, the reason, and the numbers behind it."""
    found, look, expected = answer["screen"], answer.get("look", {}), answer.get("expected", {})
    lines = [f"{found['status']} · {found['reason']}", f"  {found['text']}"]
    if "width" in look:
        motion = expected.get("motion", "none")
        within = expected.get("within_s")
        wanted = f"within {within:g} s" if within else motion
        size = f"{look['width']} x {look['height']}"
        lines.append(f"  seen by {look.get('backend', '?')}, {size}; expected motion: {wanted}")
    witness = look.get("witness")
    if witness:
        says = {True: "its position advances", False: "its position stands still", None: "tells no position"}
        word = says[witness.get("advances")] if witness.get("answers", True) else "does not answer"
        detail = f" ({witness['detail']})" if witness.get("detail") else ""
        lines.append(f"  the player's own word ({witness['kind']}): {word}{detail}")
    if "hash" in look:
        lines.append(f"  picture hash {look['hash']}")
    return "\n".join(lines)


def _remember(path: Path, name: str) -> int:
    """What is on the screen now is wrong, whenever it is seen again: a desktop, a console, an error page."""
    answer, _ = ask(path, {"op": "screen"})
    found = answer.get("look", {}).get("hash")
    if found is None:
        raise WatchdogError(f"this picture has no hash, for it is empty or cannot be seen: {answer['screen']['text']}")
    print(f'[screen.known]\n{json.dumps(name)} = "{found}"')
    return 0


def _learn(path: Path, seconds: float) -> int:
    """Watches while all is well, and says which regions alone moved: a clock, a logo."""
    history, size, end = [], (0, 0), time.monotonic() + seconds
    print(f"looking for {seconds:g} s; the picture should be as it is when all is well", file=sys.stderr)
    while True:
        answer, _ = ask(path, {"op": "screen", "tiles": True})
        look = answer.get("look", {})
        if "width" not in look:
            raise WatchdogError(answer["screen"]["text"])
        size = (look["width"], look["height"])
        history.append(tuple(look.get("tiles_moved", ())))
        if time.monotonic() >= end:
            break
        time.sleep(WATCH_S)
    regions = learn_regions(history, *size)
    if not regions:
        print("nothing was found that moves by itself in one place while the rest stands still")
        return 1
    written = ", ".join(f"[{', '.join(f'{number:.3f}' for number in region)}]" for region in regions)
    print(f"[screen]\nignore = [{written}]")
    return 0
