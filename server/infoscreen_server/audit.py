"""Who did what to accounts and keys, as lines of the server's log. Every value is escaped: none forges a line."""

import logging

from flask import g, request

from infoscreen_server.throttle import client_address

log = logging.getLogger(__name__)

MAX_VALUE = 100


def address() -> str:
    """Of whoever made this request."""
    return client_address(request.remote_addr, request.headers.get("X-Forwarded-For"))


def note(event: str, **about: object) -> None:
    """Within a request. Never with a password or the text of a token.

    sign-in failed: name='anna' address='192.0.2.7'
    """
    # A public page has no caller, but may have someone who is signed in.
    signed = g.get("signed")
    caller = g.get("caller") or (signed and signed.caller)
    by = {"by": caller.name} if caller else {}
    facts = " ".join(
        f"{name}={str(value)[:MAX_VALUE]!r}" for name, value in {**about, **by, "address": address()}.items()
    )
    log.info("%s: %s", event, facts)
