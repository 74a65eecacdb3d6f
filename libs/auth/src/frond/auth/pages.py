"""Requests of other people's web pages, where nobody is asked for a key.

A browser sends to this machine what any page that its user visits has it send. It says so in ``Origin``,
except where the page's own name has been made to lead to this machine (DNS rebinding): then ``Host``
has that name.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason


def require_own_page(host: str, origin: str | None, public_url: str) -> None:
    """Raise JobRejected (FORBIDDEN) for what a page has sent that is not the service's own.

    Args:
        host: the request's ``Host``.
        origin: its ``Origin``; None: it has none, as programs' requests have none.
        public_url: how clients reach the service; empty: as the request came.
    """
    public = urlsplit(public_url).netloc.lower()
    name = _name(host)
    if name != _name(public) and not _leads_nowhere_else(name):
        raise JobRejected(
            Reason.FORBIDDEN,
            f"FROND_AUTH is off, and {host[:100]!r} may be anybody's name for this machine. Ask "
            "127.0.0.1, localhost or the host of FROND_PUBLIC_URL, or set FROND_API_KEY.",
        )
    if origin is not None and _after_scheme(origin) not in {host.lower(), public} - {""}:
        raise JobRejected(
            Reason.FORBIDDEN,
            f"FROND_AUTH is off, and a web page of {origin[:100]!r} has sent this, which is neither "
            "the host asked nor that of FROND_PUBLIC_URL. Ask without a browser, or set FROND_API_KEY.",
        )


def _name(host: str) -> str | None:
    """Without the port; None: it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return None


def _after_scheme(origin: str) -> str:
    return origin.partition("://")[2].lower()


def _leads_nowhere_else(name: str | None) -> bool:
    """An address, or a name of one word, which nobody can have in the DNS."""
    if name is None:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name.removesuffix(".")
    return True
