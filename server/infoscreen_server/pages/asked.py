"""Numbers and places out of addresses and forms, where anybody may have typed anything."""

from flask import request

from infoscreen_server.queries import Cursor

ID_DIGITS = 18
"""As many as always fit into the database's 64 bits."""


def whole(text: str | None, digits: int = ID_DIGITS) -> int | None:
    """A whole number from 0 on with so many digits at most; None for anything else.

    >>> whole("042"), whole("-1"), whole("1e3"), whole("²"), whole("123", 2), whole("")
    (42, None, None, None, None, None)
    """
    if not text or len(text) > digits or not text.isascii() or not text.isdecimal():
        return None
    return int(text)


def cursor() -> Cursor | None:
    """Where the page of a list begins."""
    try:
        return Cursor.parse(request.args.get("before", ""))
    except ValueError:
        return None
