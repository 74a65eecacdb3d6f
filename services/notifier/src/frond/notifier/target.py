"""Where webhooks may go: the one place that decides."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason
from frond.notifier.settings import NotifierSettings

_PRIVATE = "it leads to the machine that Frond runs on, or into its private network"


def check_target(url: str, settings: NotifierSettings) -> None:
    """Let a webhook address pass, or say why not.

    http or https, with a host; what is private by its address only where
    ``FROND_WEBHOOK_ALLOW_PRIVATE`` is set. Names are not resolved here: see public_address.

    Raises:
        JobRejected: nothing is sent there, now or later.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _refused(url, "it is no URL") from None
    if parts.scheme not in ("http", "https"):
        raise _refused(url, "it does not begin with http:// or https://")
    if not host:
        raise _refused(url, "it names no host")
    if settings.webhook_allow_private:
        return
    if host == "localhost" or host.endswith(".localhost") or not _is_public(host, unknown=True):
        raise _refused(url, _PRIVATE)


async def public_address(url: str) -> str:
    """The address to connect to for a webhook that must stay outside: whoever connects to this one
    and does not resolve the name again cannot be led elsewhere.

    Raises:
        JobRejected: one of the host's addresses is not public.
        OSError: the name cannot be resolved now.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            parts.hostname, port, type=socket.SOCK_STREAM
        )
    except UnicodeError:
        raise _refused(url, "its host cannot be a name") from None
    addresses = [str(one[4][0]) for one in found]
    if not all(_is_public(a) for a in addresses):
        raise _refused(url, _PRIVATE)
    return addresses[0]


def _is_public(address: str, *, unknown: bool = False) -> bool:
    """Whether an IP address is one of the open internet; ``unknown`` for what is no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return unknown
    if isinstance(ip, ipaddress.IPv6Address) and (ip.sixtofour or ip.teredo):
        # an IPv4 address, perhaps a private one, in the clothes of a public one
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def _refused(url: str, why: str) -> JobRejected:
    return JobRejected(Reason.BAD_REQUEST, f"The webhook address {url[:200]!r} is refused: {why}.")
