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
from dataclasses import asdict
from typing import Any

import requests

from infoscreen_server.alerts.channels import ChannelError, Target, check_host, is_allowed, target
from infoscreen_server.alerts.child import Failure
from infoscreen_server.i18n import lazy
from infoscreen_server.supervise import die_with

NOT_UNDERSTOOD = Failure(lazy("the URL is not complete, or not as this service wants it"))
NOT_SENT = Failure(lazy("it was not taken"))
_FORBIDDEN = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Ear:
    """Hears what goes wrong: Apprise says no more than that something did, or all of it with the URL."""

    def __init__(self) -> None:
        self.heard: Failure | None = None
        self.refused: Failure | None = None

    def hear(self, text: str, **values: Any) -> None:
        self.heard = Failure(text, values)

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
        _guard(ear, errand["allow_local"])
        # The mail server follows from the address; of large providers Apprise knows it.
        host = getattr(plugin, "smtp_host", None) or found.own_host
        if host is not None:
            check_host(host, errand["allow_local"])
    except ChannelError as error:
        return Failure(error.text, error.values)
    return _send(plugin, errand, ear) if errand["send"] else None


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
        return kind(**parsed, asset=asset) if parsed else None
    except Exception:  # noqa: BLE001  # plugins raise what they like, and say the URL in it
        return None


def _send(plugin: Any, errand: dict[str, Any], ear: Ear) -> Failure | None:
    from apprise import Apprise

    sending = Apprise()
    sending.add(plugin)
    try:
        done = sending.notify(
            title=errand["title"], body=errand["body"], notify_type=errand["tone"], body_format="text"
        )
    except Exception as error:  # noqa: BLE001
        ear.hear_error(error)
        done = False
    return None if done else ear.failure


def _listen(ear: Ear) -> None:
    send, connect = requests.Session.send, smtplib.SMTP.connect
    getreply, starttls = smtplib.SMTP.getreply, smtplib.SMTP.starttls

    def heard_send(self: Any, request: Any, **options: Any) -> Any:
        try:
            answer = send(self, request, **options | {"allow_redirects": False})
        except requests.RequestException as error:
            ear.hear_error(error)
            raise
        if answer.is_redirect:
            ear.hear(lazy("it answered %(code)s, to send it elsewhere; that is not done"), code=answer.status_code)
        elif answer.status_code >= 400:
            ear.hear(lazy("it answered %(code)s"), code=answer.status_code)
        return answer

    def heard_reply(self: Any) -> Any:
        code, text = getreply(self)
        if code >= 400:
            ear.hear(lazy("the mail server answered %(code)s"), code=code)
        return code, text

    def heard(step: Any) -> Any:
        def hearing(self: Any, *args: Any, **options: Any) -> Any:
            try:
                return step(self, *args, **options)
            except OSError as error:
                if not isinstance(error, smtplib.SMTPException):
                    ear.hear_error(error)
                raise

        return hearing

    for where, name, what in (
        (requests.Session, "send", heard_send),
        (smtplib.SMTP, "getreply", heard_reply),
        (smtplib.SMTP, "connect", heard(connect)),
        (smtplib.SMTP, "starttls", heard(starttls)),
    ):
        setattr(where, name, what)


def _guard(ear: Ear, allow_local: bool) -> None:
    """For good: an audit hook cannot be taken away, and what it raises ends what was about to be done."""

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect":
            address = args[1][0] if isinstance(args[1], tuple) else None
            if address is None or not is_allowed(address, allow_local):
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
