"""Where webhooks may go: the one place that decides."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason
from frond.notifier.settings import NotifierSettings


def check_target(url: str, settings: NotifierSettings) -> None:
    """Let a webhook address pass, or say why not.

    Now: http or https, with a host; this host only where ``FROND_WEBHOOK_ALLOW_PRIVATE`` is set.
    Names are not resolved, so a name that means a private address passes.

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
    if not settings.webhook_allow_private and _is_here(host):
        raise _refused(url, "it leads to the machine that Frond runs on")


def _is_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refused(url: str, why: str) -> JobRejected:
    return JobRejected(Reason.BAD_REQUEST, f"The webhook address {url[:200]!r} is refused: {why}.")
