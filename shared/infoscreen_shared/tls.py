"""What both sides expect of a TLS server's certificate."""

import ssl
from pathlib import Path


def client_context(ca_file: Path | None) -> "ssl.SSLContext":
    """Checks certificate and host name against this CA file, or the system's. Raises OSError.

    Python 3.13 refuses certificates that lack what RFC 5280 asks for beyond what is checked (VERIFY_X509_STRICT), such
    as a CA's keyUsage: those that many sites made for themselves, and that Debian 12 takes. A kiosk must not lose its
    server by an upgrade to Debian 13, so the same is checked on both.
    """
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
