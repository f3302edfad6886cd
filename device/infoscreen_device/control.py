"""The agent's door for local programs: a Unix socket with one JSON object a line, each request answered by one.

Bytes, limits and who is at the other end. What an operation does is for the agent, who may ask for what for
admission.py. Nothing here waits: the agent's selector says when there is something to do, and a client that is slow,
silent or hostile costs a bounded buffer and in the end its connection.
"""

import contextlib
import errno
import fcntl
import os
import selectors
import shutil
import socket
import stat
import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from infoscreen_device.admission import (
    Peer,
    draft_from_request,
    expectation_from_request,
    pid_fault,
)
from infoscreen_device.core.model import Expectation
from infoscreen_device.core.picture import Blindness
from infoscreen_device.settings import ControlConfig
from infoscreen_device.table import did_you_mean
from infoscreen_shared.messages import WireError, clean, from_json, to_json

__all__ = ["ControlServer", "Peer", "Request", "draft_from_request", "expectation_from_request"]

OPS = ("expect", "clear", "status", "log", "screen", "attach", "attach-screen")
MAX_LINE = 64_000
MAX_CONNECTIONS = 32
MAX_PER_USER = 16
"""So that one user cannot push out the connections of another."""
MAX_AT_ONCE = 64
"""Requests in one read. A client that waits for its answers has one."""
MAX_UNSENT = 256_000
SCM_MAX_FD = 253
"""File descriptors that one message may carry, unix(7)."""
MAX_PICTURES = 2
"""File descriptors with one answer of a capture helper."""
_PEERCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `op` is one of OPS, or an answer to what was asked.

    Answers: `restarted`, the event handler's {"id", "pid"} or {"id", "error"}; `looked`, the capture helper's {"id",
    "burst"} or {"id", "blind"}, with `fds`, its pictures (memfd_create(2)), which whoever takes the request closes.

    `reply` is to be called once, now or later, with file descriptors to hand over, if any (they are closed then); where
    nothing is to be answered it does nothing.
    """

    op: str
    body: dict[str, Any]
    peer: Peer
    reply: "Reply"
    fds: tuple[int, ...] = ()


class Reply(Protocol):
    def __call__(self, body: dict[str, Any], fds: Sequence[int] = ()) -> None: ...


@dataclass(eq=False, slots=True)
class _Connection:
    socket: socket.socket
    peer: Peer
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    owed: int = 0
    """Requests not answered yet."""
    ended: bool = False
    """The other end sends no more; it may still wait for answers."""
    attached: bool = False
    asked: set[int] = field(default_factory=set)
    """Ids of the restarts, or looks at the screen, that have been asked for here."""
    looks: bool = False
    """A capture helper: it answers with pictures as file descriptors."""
    received_fds: list[int] = field(default_factory=list)
    unsent_fds: list[int] = field(default_factory=list)


class ControlServer:
    """Every socket is registered with the server itself as `key.data`: give those keys to `handle`."""

    def __init__(self, config: ControlConfig) -> None:
        self._path = config.socket
        self._group = config.group
        self._listener: socket.socket | None = None
        self._inode: int | None = None
        self._selector: selectors.BaseSelector | None = None
        self._connections: dict[int, _Connection] = {}
        """By file descriptor; the one that was quiet the longest comes first."""

    def open(self) -> None:
        """Listens. What an earlier agent left behind is replaced.

        Raises OSError if another agent listens there, if the path is taken by something else, or cannot be written.
        """
        self._refuse_if_taken()
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name[:64]}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(fresh))
            # Before listen(), so that nobody comes in through wider rights.
            if self._group is not None:
                shutil.chown(fresh, group=self._group)
            fresh.chmod(0o660)
            listener.listen(128)
            self._inode = fresh.stat().st_ino
            fresh.rename(self._path)
        except (OSError, LookupError) as error:
            listener.close()
            fresh.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise
            raise OSError(errno.EINVAL, f"there is no group {self._group}") from None
        self._listener = listener

    def _refuse_if_taken(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise FileExistsError(errno.EEXIST, "is in the way and no socket", str(self._path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            # EAGAIN: its queue is full, so somebody listens.
            if probe.connect_ex(str(self._path)) in (0, errno.EAGAIN):
                raise OSError(errno.EADDRINUSE, "another agent listens there", str(self._path))

    def register(self, selector: selectors.BaseSelector) -> None:
        assert self._listener is not None, "open() first"
        self._selector = selector
        selector.register(self._listener, selectors.EVENT_READ, self)

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        if self._listener is not None:
            self._unwatch(self._listener)
            self._listener.close()
            self._listener = None
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except OSError:
            pass

    # --- what the selector says -------------------------------------------------------------------------------------

    def handle(self, key: selectors.SelectorKey) -> list[Request]:
        """Does what this key is ready for. Never raises and never waits."""
        if self._listener is not None and key.fileobj is self._listener:
            return self._accept()
        connection = self._connections.get(key.fd)
        if connection is None:
            return []
        # The most recently used comes last.
        self._connections[key.fd] = self._connections.pop(key.fd)
        self._send(connection)
        return [] if connection.ended else self._receive(connection)

    def _accept(self) -> list[Request]:
        assert self._listener is not None
        gone: list[Request] = []
        for _ in range(8):
            try:
                accepted, _address = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    gone += self._make_room(list(self._connections.values()))
                break
            accepted.setblocking(False)
            pid, uid, gid = _PEERCRED.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
            everyone = list(self._connections.values())
            same = [connection for connection in everyone if connection.peer.uid == uid]
            if len(same) >= MAX_PER_USER:
                gone += self._make_room(same)
            elif len(everyone) >= MAX_CONNECTIONS:
                gone += self._make_room(everyone)
            connection = _Connection(accepted, Peer(uid, gid, pid))
            self._connections[accepted.fileno()] = connection
            self._watch(connection)
        return gone

    def _make_room(self, candidates: list[_Connection]) -> list[Request]:
        """Closes the connection that was quiet the longest; an event handler's only when there is no other."""
        ordered = sorted(candidates, key=lambda connection: connection.attached)
        return self._drop(ordered[0]) if ordered else []

    def _receive(self, connection: _Connection) -> list[Request]:
        try:
            data = self._read(connection)
        except BlockingIOError:
            return []
        except OSError:
            return self._drop(connection)
        if not data:
            connection.ended = True
            gone = self._unanswered(connection)
            self._settle(connection)
            return gone
        *lines, rest = (bytes(connection.received) + data).split(b"\n")
        if len(lines) > MAX_AT_ONCE or len(rest) > MAX_LINE or any(len(line) > MAX_LINE for line in lines):
            self._answer(connection, _refusal(f"at most {MAX_AT_ONCE} requests at once, of {MAX_LINE} bytes each"))
            return self._drop(connection)
        connection.received[:] = rest
        return [request for line in lines if line.strip() and (request := self._parse(connection, line)) is not None]

    def _read(self, connection: _Connection) -> bytes:
        """Raises OSError. Memory files of a capture helper that was asked are all that is taken of file descriptors."""
        data, fds, _flags, _address = socket.recv_fds(connection.socket, MAX_LINE, SCM_MAX_FD, socket.MSG_CMSG_CLOEXEC)
        welcome = MAX_PICTURES * len(connection.asked) if connection.looks else 0
        if len(connection.received_fds) + len(fds) > welcome or not all(_is_memory(fd) for fd in fds):
            # To close what is no memory file may take as long as its owner likes: a socket lingers, a FUSE file hangs.
            threading.Thread(target=_close, args=(fds,), daemon=True).start()
            raise OSError(errno.EBADMSG, "file descriptors that nobody asked for")
        connection.received_fds += fds
        return data

    def _parse(self, connection: _Connection, line: bytes) -> Request | None:
        """The request in this line; None if it needed no more than an answer."""
        try:
            body = from_json(line)
        except WireError as error:
            self._answer(connection, _refusal(f"expected one JSON object a line: {error}"))
            return None
        if not isinstance(body, dict):
            self._answer(connection, _refusal("expected one JSON object a line"))
            return None
        op = body.get("op")
        if op is None and "id" in body:
            return self._looked(connection, body) if connection.looks else self._restarted(connection, body)
        if not isinstance(op, str) or op not in OPS:
            hint = did_you_mean(op, OPS) if isinstance(op, str) else ""
            self._answer(connection, _refusal(f"op: expected one of {', '.join(OPS)}{hint}"))
            return None
        if op in ("attach", "attach-screen"):
            connection.attached, connection.looks = True, op == "attach-screen"
            self._answer(connection, {"ok": True})
            return Request(op, body, connection.peer, _no_reply)
        connection.owed += 1
        return Request(op, body, connection.peer, self._replier(connection))

    def _replier(self, connection: _Connection) -> Reply:
        answered = False

        def reply(body: dict[str, Any], fds: Sequence[int] = ()) -> None:
            nonlocal answered
            if answered or connection.socket.fileno() < 0:
                _close(fds)
                return
            if fds and connection.unsent_fds:
                # It asks for pictures and does not take them.
                _close(fds)
                self._hang_up(connection)
                return
            answered = True
            connection.owed -= 1
            connection.unsent_fds += fds
            self._answer(connection, body)
            self._settle(connection)

        return reply

    # --- the event handler ------------------------------------------------------------------------------------------

    def ask_restart(self, expectation: Expectation, request_id: int) -> bool:
        """Asks the attached event handler; False if there is none for this expectation.

        It is asked who registered the expectation; for one from the configuration, whoever is attached and may act for
        its user. The answer comes as a Request `restarted`, an error too if the handler goes away before.
        """
        for connection in reversed(list(self._connections.values())):
            handles = connection.attached and not connection.looks and not connection.ended
            if handles and _speaks_for(connection.peer, expectation):
                body = {"op": "restart", "id": request_id, "event_id": expectation.event_id}
                body |= {"type": expectation.event_type, "process": expectation.process}
                connection.asked.add(request_id)
                self._answer(connection, body)
                return True
        return False

    def _restarted(self, connection: _Connection, body: dict[str, Any]) -> Request | None:
        request_id = body.get("id")
        if type(request_id) is not int or request_id not in connection.asked:
            self._answer(connection, _refusal("id: no restart of this number has been asked for"))
            return None
        connection.asked.discard(request_id)
        error, pid = body.get("error"), body.get("pid")
        if error is None:
            error = "pid: expected a number"
            if type(pid) is int:
                error = pid_fault(pid, connection.peer, os.geteuid())
        found = (
            {"id": request_id, "pid": pid} if error is None else {"id": request_id, "error": clean(str(error)[:1_000])}
        )
        return Request("restarted", found, connection.peer, _no_reply)

    # --- the capture helper -----------------------------------------------------------------------------------------

    def ask_look(self, body: dict[str, Any], user: str | None) -> bool:
        """Asks a capture helper, of this user if one is named; False if none is attached.

        The answer comes with the `id` of `body` as a Request `looked`; blind, if the helper goes away before.
        """
        for connection in reversed(list(self._connections.values())):
            if connection.looks and not connection.ended and user in (None, connection.peer.name):
                connection.asked.add(body["id"])
                self._answer(connection, {"op": "look", **body})
                return True
        return False

    def _looked(self, connection: _Connection, body: dict[str, Any]) -> Request | None:
        pictures = body.get("pictures")
        count = len(pictures) if isinstance(pictures, list) else 0
        fds, connection.received_fds = connection.received_fds[:count], connection.received_fds[count:]
        look_id = body.get("id")
        if type(look_id) is not int or look_id not in connection.asked:
            _close(fds)
            self._answer(connection, _refusal("id: no look of this number has been asked for"))
            return None
        connection.asked.discard(look_id)
        return Request("looked", body, connection.peer, _no_reply, tuple(fds))

    # --- connections ------------------------------------------------------------------------------------------------

    def _answer(self, connection: _Connection, body: dict[str, Any]) -> None:
        if connection.socket.fileno() < 0:
            return
        connection.unsent += to_json(body) + b"\n"
        self._send(connection)
        if len(connection.unsent) > MAX_UNSENT:
            self._hang_up(connection)

    def _send(self, connection: _Connection) -> None:
        try:
            if connection.unsent_fds and connection.unsent:
                del connection.unsent[: socket.send_fds(connection.socket, [connection.unsent], connection.unsent_fds)]
                _close(connection.unsent_fds)
                connection.unsent_fds.clear()
            while connection.unsent:
                del connection.unsent[: connection.socket.send(connection.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._hang_up(connection)
        self._settle(connection)

    def _hang_up(self, connection: _Connection) -> None:
        """The selector then tells the end of it, as if the client had gone: one way out for all."""
        connection.unsent.clear()
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)

    def _settle(self, connection: _Connection) -> None:
        if connection.ended and not connection.owed and not connection.unsent:
            self._drop(connection)
        else:
            self._watch(connection)

    def _drop(self, connection: _Connection) -> list[Request]:
        if connection.socket.fileno() >= 0:
            self._unwatch(connection.socket)
            self._connections.pop(connection.socket.fileno(), None)
            connection.socket.close()
            _close(connection.received_fds)
            _close(connection.unsent_fds)
        return self._unanswered(connection)

    def _unanswered(self, connection: _Connection) -> list[Request]:
        """What the agent waits for and this event handler or capture helper will never answer."""
        lost = sorted(connection.asked)
        connection.asked.clear()
        if connection.looks:
            blind = {"reason": Blindness.NO_HELPER, "detail": "it went away"}
            return [Request("looked", {"id": each, "blind": blind}, connection.peer, _no_reply) for each in lost]
        error = "the event handler went away"
        return [Request("restarted", {"id": each, "error": error}, connection.peer, _no_reply) for each in lost]

    def _watch(self, connection: _Connection) -> None:
        if self._selector is None or connection.socket.fileno() < 0:
            return
        events = 0 if connection.ended else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if connection.unsent else 0
        watched = self._selector.get_map().get(connection.socket)
        if watched is None and events:
            self._selector.register(connection.socket, events, self)
        elif watched is not None and not events:
            self._selector.unregister(connection.socket)
        elif watched is not None and watched.events != events:
            self._selector.modify(connection.socket, events, self)

    def _unwatch(self, watched: socket.socket) -> None:
        if self._selector is not None and watched in self._selector.get_map():
            self._selector.unregister(watched)


def _refusal(error: str) -> dict[str, Any]:
    return {"ok": False, "error": error}


def _no_reply(body: dict[str, Any], fds: Sequence[int] = ()) -> None:
    _close(fds)


def _is_memory(fd: int) -> bool:
    """memfd_create(2); fcntl(2) tells seals of no other file."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _speaks_for(peer: Peer, expectation: Expectation) -> bool:
    if expectation.source.startswith("uid:"):
        return expectation.source == f"uid:{peer.uid}"
    return peer.uid in (0, os.geteuid()) or expectation.user in (None, peer.name)
