"""The public keys of a token issuer (RFC 7517), fetched with a deadline and kept for a while."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import jwt
from jwt import PyJWK

from frond.auth.settings import is_loopback
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

FRESH_S: Final = 600.0
"""How long keys are used before they are fetched anew."""
STALE_S: Final = 3600.0
"""How long they are used while the issuer does not answer."""
ANEW_S: Final = 30.0
"""How often, at most, an unknown key id has them fetched."""
_DEADLINE_S: Final = 5.0
_MOST_BYTES: Final = 1 << 20
_CONFIGURATION: Final = "/.well-known/openid-configuration"


class PublicKey(NamedTuple):
    """A key that can verify; ``algorithm``: the only one that it is meant for, where it says so."""

    key: Any
    algorithm: str | None


class Unfetched(Exception):
    """The issuer did not answer, or not with keys. The message is for the log."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def fetch_json(url: str) -> Any:
    """A JSON document. Blocking, with a deadline; follows no redirect. Raises Unfetched."""
    parts = urlsplit(url)
    here = is_loopback(parts.hostname or "")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise Unfetched(f"{url} is not https")
    # nothing on this machine is reached by way of a proxy
    proxies = urllib.request.ProxyHandler({}) if here else urllib.request.ProxyHandler()
    opener = urllib.request.build_opener(proxies, _NoRedirects)
    end = time.monotonic() + _DEADLINE_S
    body = bytearray()
    try:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 # checked above
        with opener.open(request, timeout=_DEADLINE_S) as answer:
            while piece := answer.read1(64 << 10):
                body += piece
                if len(body) > _MOST_BYTES or time.monotonic() > end:
                    raise Unfetched(f"{url}: too large or too slow")
        return json.loads(body)
    except (OSError, urllib.error.URLError, HTTPException, ValueError) as e:
        raise Unfetched(f"{url}: {e!r}") from e


def usable(document: Any) -> dict[str, PublicKey]:
    """The document's keys by id that can verify our algorithms. Others are passed over."""
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise Unfetched("the document holds no keys")
    found: dict[str, PublicKey] = {}
    for n, data in enumerate(listed[:100]):
        if not isinstance(data, Mapping) or data.get("use", "sig") != "sig":
            continue
        # a symmetric key in a public document would let everybody sign
        if data.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = PublicKey(PyJWK(dict(data)).key, data.get("alg"))
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        found[str(data.get("kid") or f"\n{n}")] = key
    return found


class KeySet:
    """The keys of one issuer, as a process knows them."""

    def __init__(
        self,
        issuer: str,
        jwks_url: str = "",
        *,
        fetch: Callable[[str], Any] = fetch_json,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._issuer = issuer
        self._url = jwks_url
        self._fetch = fetch
        self._clock = clock
        self._log = log
        self._keys: dict[str, PublicKey] = {}
        self._at: float | None = None
        self._asked: float | None = None
        self._turn = asyncio.Lock()

    async def key(self, kid: str | None) -> PublicKey | None:
        """The key of this id; the only one, where a token names none. None: there is none.

        Raises:
            JobRejected: UNAVAILABLE: the issuer does not answer, and nothing recent is known.
        """
        if self._older_than(FRESH_S):
            await self._refresh()
        if self._older_than(STALE_S):
            raise JobRejected(
                Reason.UNAVAILABLE,
                "The issuer of tokens does not answer, so that none can be checked. Try again.",
            )
        found = self._find(kid)
        if found is None and kid is not None:
            await self._refresh()
            found = self._find(kid)
        return found

    def _find(self, kid: str | None) -> PublicKey | None:
        if kid is not None:
            return self._keys.get(kid)
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _older_than(self, seconds: float) -> bool:
        return self._at is None or self._clock() - self._at >= seconds

    async def _refresh(self) -> None:
        """Fetch, unless that was tried a moment ago."""
        async with self._turn:
            if self._asked is not None and self._clock() - self._asked < ANEW_S:
                return
            self._asked = self._clock()
            try:
                async with asyncio.timeout(2 * _DEADLINE_S + 1):
                    keys = usable(await asyncio.to_thread(self._load))
            except (Unfetched, TimeoutError) as e:
                self._log(f"no keys from the issuer: {e!r}")
                return
            self._keys, self._at = keys, self._asked

    def _load(self) -> Any:
        if not self._url:
            told = self._fetch(self._issuer.rstrip("/") + _CONFIGURATION)
            if not isinstance(told, Mapping) or told.get("issuer") != self._issuer:
                raise Unfetched("the openid-configuration is another issuer's")
            return self._fetch(str(told.get("jwks_uri") or ""))
        return self._fetch(self._url)
