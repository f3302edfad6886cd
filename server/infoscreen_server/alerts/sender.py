"""The process that sends one message to one URL, and ends: `python -m infoscreen_server.alerts.sender`.

Only here is Apprise loaded, and of it only the plugin in question. Reads an errand (child.Errand) from standard input
and prints what went wrong, null for nothing. What is sent to is checked where the connection is made, so that neither
a name that changes its address nor a redirect leads elsewhere; files are only read, and nothing is run.
"""

import importlib
import json
import logging
import os
import smtplib
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import requests

from infoscreen_server.alerts.channels import (
    ASKING_PORT,
    ChannelError,
    Target,
    check_host,
    check_options,
    may_send,
    target,
)
from infoscreen_server.alerts.child import Failure
from infoscreen_server.i18n import lazy
from infoscreen_server.supervise import die_with

NOT_UNDERSTOOD = Failure(lazy("the URL is not complete, or not as this service wants it"))
NOT_SENT = Failure(lazy("it was not taken"))
SEVERAL = Failure(lazy("the URL names several recipients; add a channel for each"))
_UNWANTED = frozenset({400, 413, 422})
"""HTTP: bad request, content too large, unprocessable content (RFC 9110, 15.5)."""
_RECIPIENTS = {
    "email.base": ("targets", "cc", "bcc"),
    "mattermost": ("channels", "targets"),
    "signal_api": ("targets",),
}
"""Where a plugin has those that its own count leaves out. (Mattermost's has none in Apprise 1.9.3.)"""
_LONGEST = {"ntfy": 4_000}
"""Bytes, where Apprise knows no better: of more than 4096 ntfy makes a file, if it may (message-size-limit)."""
_TITLE_ROOM = 32
"""Bytes around a title that becomes the first line of the text."""
_FORBIDDEN = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Ear:
    """Hears what goes wrong: Apprise says no more than that something did, or all of it with the URL."""

    def __init__(self) -> None:
        self.heard: Failure | None = None
        self.refused: Failure | None = None

    def hear(self, text: str, unwanted: bool = False, **values: Any) -> None:
        self.heard = Failure(text, values, unwanted)

    def hear_error(self, error: BaseException) -> None:
        cause: BaseException | None = error
        chain: list[BaseException] = []
        while cause is not None and cause not in chain:
            chain.append(cause)
            inner = [each for each in (getattr(cause, "reason", None), *cause.args) if isinstance(each, BaseException)]
            cause = inner[0] if inner else cause.__cause__ or cause.__context__
        self.hear(*_in_words(chain))

    @property
    def failure(self) -> Failure:
        return self.refused or self.heard or NOT_SENT


def _in_words(chain: list[BaseException]) -> tuple[str]:
    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in chain)

    if any_is(ssl.SSLCertVerificationError):
        return (lazy("its TLS certificate is not to be trusted"),)
    if any_is(ssl.SSLError):
        return (lazy("it does not speak TLS as it should"),)
    if any_is(socket.gaierror):
        return (lazy("its name is not known"),)
    if any_is(TimeoutError, requests.exceptions.Timeout):
        return (lazy("it did not answer in time"),)
    if any_is(ConnectionRefusedError):
        return (lazy("nothing listens there"),)
    return (lazy("the connection failed"),)


def work(errand: dict[str, Any]) -> Failure | None:
    ear = Ear()
    try:
        found = target(errand["url"])
        _listen(ear)
        plugin = _plugin(errand["url"], found)
        if plugin is None:
            return NOT_UNDERSTOOD
        if not errand["send"] and _has_several(plugin, found):
            return SEVERAL
        _guard(ear, errand["allow_local"])
        # The mail server follows from the address; of large providers Apprise knows it.
        host = getattr(plugin, "smtp_host", None) or found.own_host
        if host is not None:
            check_host(host, errand["allow_local"])
    except ChannelError as error:
        return Failure(error.text, error.values)
    return _send(plugin, errand, ear) if errand["send"] else None


def _has_several(plugin: Any, found: Target) -> bool:
    """Each gets a request or a mail of its own, or its own answer: what one refuses would go to all of them again, or
    count as sent because another took it. Of a channel that is there already the sender does not ask.
    """
    module = found.service.module
    named = sum(len(getattr(plugin, each, None) or ()) for each in _RECIPIENTS.get(module, ()))
    # It looks for all rooms that the user is in.
    every_room = module == "matrix" and plugin.mode == "off" and not plugin.rooms
    return every_room or max(named, len(plugin)) > 1


def _plugin(url: str, found: Target) -> Any:
    """Apprise's own way to it would load more than a hundred."""
    from apprise import AppriseAsset
    from apprise.plugins import NotifyBase

    module = importlib.import_module(f"apprise.plugins.{found.service.module}")
    (kind,) = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, NotifyBase) and each.__module__ == module.__name__
    ]
    asset = AppriseAsset(
        app_id="Infoscreen Watchdog", app_desc="Infoscreen Watchdog", app_url="", image_url_mask="", image_url_logo=""
    )
    try:
        # A room's name begins with #, which is not the end of the URL.
        parse = kind.parse_native_url if found.scheme == "https" else kind.parse_url
        parsed = parse(url.replace("/#", "/%23"))
        check_options(parsed["qsd"] if parsed else ())
        return kind(**parsed, asset=asset) if parsed else None
    except ChannelError:
        raise
    except Exception:  # noqa: BLE001  # plugins raise what they like, and say the URL in it
        return None


def _send(plugin: Any, errand: dict[str, Any], ear: Ear) -> Failure | None:
    from apprise import Apprise, OverflowMode

    # What does not fit is cut here; several pieces could be taken in part.
    plugin.overflow_mode = OverflowMode.TRUNCATE
    body = shortened(errand["body"], errand["cut"], lambda text: _fits(plugin, errand["title"], text))
    sending = Apprise()
    sending.add(plugin)
    try:
        done = sending.notify(title=errand["title"], body=body, notify_type=errand["tone"], body_format="text")
    except Exception as error:  # noqa: BLE001
        ear.hear_error(error)
        done = False
    return None if done else ear.failure


def _fits(plugin: Any, title: str, body: str) -> bool:
    """As the service gets it, with what Apprise makes of & and line ends. Bytes of UTF-8, where most services count
    characters and some code units of UTF-16: never less than these.
    """
    from apprise.conversion import convert_between

    def size(text: str) -> int:
        converted: str = convert_between("text", plugin.notify_format, text)  # type: ignore[no-untyped-call]
        return len(converted.encode())

    with_title = plugin.title_maxlen <= 0 or plugin.overflow_amalgamate_title
    taken = size(title) + _TITLE_ROOM if with_title else 0
    module = type(plugin).__module__.rpartition(".")[2]
    longest: int = min(plugin.body_maxlen, _LONGEST.get(module, plugin.body_maxlen))
    return taken + size(body) <= longest


def shortened(body: str, note: str, fits: Callable[[str], bool]) -> str:
    """Without the last lines of its first part, and with `note` instead, if it does not fit. What comes after the last
    empty line stays: which rule, and a link. If not even that fits, the text is cut wherever it has to be.
    """
    if fits(body):
        return body
    first, gap, end = body.rpartition("\n\n")
    lines = first.split("\n")
    for count in range(len(lines) - 1, 0, -1):
        shorter = "\n".join([*lines[:count], note]) + gap + end
        if fits(shorter):
            return shorter
    for text, rest in ((lines[0], f"\n{note}{gap}{end}"), (body, f"\n{note}"), (note, "")):
        least, most = 0, len(text)
        while least < most:
            middle = (least + most + 1) // 2
            least, most = (middle, most) if fits(text[:middle] + rest) else (least, middle - 1)
        if least:
            return text[:least] + rest
    return ""


def _listen(ear: Ear) -> None:
    _hear_http(ear)
    _hear_mail(ear)


def _hear_http(ear: Ear) -> None:
    send = requests.Session.send

    def heard_send(self: Any, request: Any, **options: Any) -> Any:
        try:
            answer = send(self, request, **options | {"allow_redirects": False})
        except requests.RequestException as error:
            ear.hear_error(error)
            raise
        if answer.is_redirect:
            ear.hear(lazy("it answered %(code)s, to send it elsewhere; that is not done"), code=answer.status_code)
        elif answer.status_code >= 400:
            ear.hear(lazy("it answered %(code)s"), answer.status_code in _UNWANTED, code=answer.status_code)
        return answer

    _replace(requests.Session, "send", heard_send)


def _hear_mail(ear: Ear) -> None:
    getreply, leave = smtplib.SMTP.getreply, smtplib.SMTP.quit

    def heard_reply(self: Any) -> Any:
        code, text = getreply(self)
        if code >= 400:
            ear.hear(lazy("the mail server answered %(code)s"), code=code)
        return code, text

    def unheard_quit(self: Any) -> Any:
        # Apprise calls it after all else, and takes any error of it for one of the mail, which was taken or not before.
        heard = ear.heard
        try:
            return leave(self)
        except OSError:
            self.close()
            return None
        finally:
            ear.heard = heard

    def heard(step: Any) -> Any:
        def hearing(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return step(self, *args, **options)
            except OSError as error:
                if not isinstance(error, smtplib.SMTPException):
                    ear.hear_error(error)
                raise

        return hearing

    _replace(smtplib.SMTP, "getreply", heard_reply)
    _replace(smtplib.SMTP, "connect", heard(smtplib.SMTP.connect))
    _replace(smtplib.SMTP, "starttls", heard(smtplib.SMTP.starttls))
    _replace(smtplib.SMTP, "quit", unheard_quit)


def _replace(where: type, name: str, what: Any) -> None:
    setattr(where, name, what)


def _guard(ear: Ear, allow_local: bool) -> None:
    """For good: an audit hook cannot be taken away, and what it raises ends what was about to be done."""

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            address, port = args[1][:2] if isinstance(args[1], tuple) else (None, None)
            if port == ASKING_PORT and args[0].type == socket.SOCK_DGRAM:
                # It is is_own() that asks.
                return
            if address is None or not may_send(address, allow_local):
                ear.refused = Failure(lazy("it leads to an address of this machine or its surroundings"))
                raise PermissionError("address")
        elif event in _FORBIDDEN or (event == "open" and isinstance(args[2], int) and args[2] & _WRITING):
            raise PermissionError(event)

    sys.addaudithook(look)


def main() -> None:
    errand = json.load(sys.stdin.buffer)
    die_with(errand.pop("parent"))
    sys.dont_write_bytecode = True
    logging.disable(logging.CRITICAL)
    failure = work(errand)
    json.dump(failure and asdict(failure), sys.stdout)


if __name__ == "__main__":
    main()
