"""Where this installation may connect to because a user said so: the one place that decides.

A user's webhook address must not reach what only this machine, or its network, can see. Public
addresses are free; every other one must be on the operator's list. An e-mail goes through the
operator's own server, so of its address the domain alone is looked at. Names are resolved once, each
address that comes out is looked at, and the caller connects to one of these and resolves nothing
again: a name that means something else a moment later leads nowhere else.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import httpx

from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason
from frond.runtime.lookups import Lookups

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int, str | None], Awaitable[Sequence[str]]]
"""From a name and a port to addresses, the best first, for a tenant. Raises OSError."""

_NAME: Final = re.compile(r"^(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?$")
# RFC 5322's dot-atom: what a header's reader takes as it stands. RFC 2047's =? it would decode
_ATOM: Final = r"[^@\s<>,;:\\\"()\[\].]+"
_MAIL: Final = re.compile(
    rf"(?!.*=\?)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@([^@\s<>,;\"]{{1,253}})"
)
_NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        # IANA's special-purpose registry, written out: Python's own list changes with its version
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        # Azure's platform service: a public number that only machines inside reach
        "168.63.129.16/32",
        # Teredo and other assignments to protocols, documentation, 6to4
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip
_GLOBAL_V6: Final = ipaddress.ip_network("2000::/3")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_LABEL: Final = r"[^@\s<>,;:/\\\"()\[\].]{1,63}"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
_NO_DOMAIN: Final = (
    "mail goes to public domains, not to addresses, this machine or names without a dot. Give an "
    "address like name@example.org, or have the operator add its domain to FROND_EGRESS_ALLOW"
)
_NO_NAME: Final = (
    "it is no URL, or its host can be no name: it has no ASCII form by IDNA 2008, say. Write the "
    "host's name as its owner registered it"
)
_INSIDE: Final = (
    "it leads to the machine that Frond runs on, or into a private network. Give a public address, "
    "or have the operator add this one to FROND_EGRESS_ALLOW"
)


class Egress:
    """The guard, with the operator's exceptions.

    Args:
        allow: networks (``10.2.0.0/16``), addresses and host names, separated by commas. A name on
            the list may resolve to anything.
        resolve: asks for a name's addresses; the system's resolver by default.

    Raises:
        ValueError: an entry is neither.
    """

    def __init__(self, allow: str = "", resolve: Resolve | None = None) -> None:
        self.resolve = resolve or Lookups().ask
        self.networks: list[Network] = []
        self.names: set[str] = set()
        for entry in (e.strip() for e in allow.split(",")):
            if entry:
                self._add(entry)

    def _add(self, entry: str) -> None:
        try:
            self.networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            return
        except ValueError:
            name = _plain(entry)
        # 127.0.0.0/33 and 10.2.3 are slips of the pen, not names
        if not _NAME.match(name) or name.replace(".", "").isdigit():
            raise ValueError(
                f"{entry!r} is no network, address or host name; write 10.2.0.0/16,hooks.example"
            )
        self.names.add(name.rstrip("."))

    def check(self, url: str) -> None:
        """Let an address pass, or say why not, without resolving its name.

        A name of another script is taken in its ASCII form, here and wherever it goes.

        Raises:
            JobRejected: nothing may be sent there, now or later.
        """
        host, _ = self._target(url)
        if host in self.names:
            return
        found = ipaddress.IPv4Address("127.0.0.1") if _is_here(host) else number_of(host)
        if found is not None and not self.permits(found):
            raise _refused(url, _INSIDE)

    def check_mail(self, address: str) -> None:
        """Let an e-mail address pass, or say why not. Where its domain's mail goes is the mail
        server's to find out: no name is resolved.

        Raises:
            JobRejected: it is none, or its domain is an address or a name of the inside.
        """
        match = _MAIL.fullmatch(address)
        if match is None or any(unicodedata.category(c) in _UNSEEN for c in address):
            raise _refused(address, "it is not of the form name@example.org", "e-mail")
        domain = _plain(match[1]).rstrip(".")
        if domain in self.names:
            return
        # a name without a dot is whatever the mail server's own network takes it for
        if not _DOMAIN.fullmatch(domain) or _is_here(domain) or number_of(domain) is not None:
            raise _refused(address, _NO_DOMAIN, "e-mail")

    async def addresses(self, url: str, tenant: str | None = None) -> Sequence[str]:
        """The addresses to connect to, the best first.

        Args:
            tenant: who named the URL: nobody's names have all look-ups to themselves.

        Raises:
            JobRejected: as :meth:`check`, or one of the name's addresses is not permitted.
            OSError: the name cannot be resolved now.
        """
        self.check(url)
        host, port = self._target(url)
        try:
            found = await self.resolve(host, port, tenant)
        except UnicodeError:
            raise _refused(url, "its host cannot be a name") from None
        # all, not some: a name that points outside and inside at once is a trick or a mistake
        if host not in self.names and not all(
            self.permits(ipaddress.ip_address(one)) for one in found
        ):
            raise _refused(url, _INSIDE)
        return found

    def permits(self, address: Address) -> bool:
        """Whether a connection may go to this address."""
        address = _unmapped(address)
        if any(address.version == n.version and address in n for n in self.networks):
            return True
        if isinstance(address, ipaddress.IPv6Address):
            if address in _NAT64:
                # what a network without IPv4 makes of an IPv4 address
                return self.permits(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
            if address not in _GLOBAL_V6:
                return False
        return not any(address.version == n.version and address in n for n in _NOT_PUBLIC)

    def _target(self, url: str) -> tuple[str, int]:
        try:
            # as the client reads it: what is looked at here is looked up, and stands in Host and TLS
            parts = httpx.URL(url)
            host, port = parts.raw_host.decode(), parts.port
        except (httpx.InvalidURL, ValueError):
            raise _refused(url, _NO_NAME) from None
        if parts.scheme not in ("http", "https"):
            raise _refused(url, "it does not begin with http:// or https://")
        plain = host.lower().rstrip(".")
        if not plain:
            raise _refused(url, "it names no host")
        if number_of(plain) is None and not _NAME.match(plain):
            raise _refused(url, _NO_NAME)
        if port is None:
            port = 443 if parts.scheme == "https" else 80
        if not 0 < port < 1 << 16:
            raise _refused(url, "its port is not one of 1 to 65535")
        return plain, port


def number_of(host: str) -> Address | None:
    """The address that a host is, in any way of writing one (``127.1``, ``0x7f000001``, ``::1``);
    None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        # takes what the C library's resolver takes; it would also take trailing words
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host.isascii() else None
    except (OSError, ValueError):
        return None


def _plain(host: str) -> str:
    # full-width digits, circled letters, ideographic full stops: what IDNA makes of them
    return unicodedata.normalize("NFKC", host).replace("\u3002", ".").strip().lower()


def _is_here(host: str) -> bool:
    return host == "localhost" or host.endswith((".localhost", ".localdomain"))


def _unmapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _refused(target: str, why: str, what: str = "webhook") -> JobRejected:
    shown = target[:200].encode("utf-8", "replace").decode()
    return JobRejected(Reason.BAD_REQUEST, f"The {what} address {shown!r} is refused: {why}.")
