"""The gate of a service: an Authorization header in, a principal out."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from frond.auth.cache import KeyCache
from frond.auth.jwks import KeySet
from frond.auth.keys import KeyStore, ParsedKey, parse
from frond.auth.pages import require_own_page
from frond.auth.principal import ANYBODY, INSTALLATION, Principal
from frond.auth.settings import AuthSettings
from frond.auth.tokens import Tokens
from frond.contracts.errors import JobRejected, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.store import ObjectStore

FIRST_KEY: Final = (
    "No key was made yet: set FROND_API_KEY for the services, or make one with "
    "`frond keys create --store --name first --scope admin` (it needs FROND_S3_…)."
)
_HINT_S: Final = 10.0


class Gate:
    """Knows the installation's key, stored keys and tokens. Nobody else is let in.

    ``log`` is given sentences for the operator.
    """

    def __init__(
        self, settings: AuthSettings, store: ObjectStore, log: Callable[[str], None]
    ) -> None:
        self.keys = KeyStore(store)
        self.open = settings.auth == "off"
        self._cache = KeyCache(self.keys)
        own = settings.api_key.get_secret_value()
        self._own = _hash(own) if own else None
        self._tokens: Tokens | None = None
        if settings.jwt_issuer:
            known = KeySet(settings.jwt_issuer, settings.jwt_jwks_url, log=log)
            self._tokens = Tokens(
                known, settings.jwt_issuer, settings.jwt_audience, settings.jwt_tenant_claim,
                settings.jwt_max_age_s,
            )  # fmt: skip
        self._public_url = settings.public_url
        self._hinted = (-_HINT_S, "")
        if self.open:
            log("FROND_AUTH is off: everybody who reaches this port is let in as admin")

    def require_own_page(self, headers: Mapping[str, str]) -> None:
        """Where everybody is let in, raise JobRejected (FORBIDDEN) for what other people's web pages
        send through a browser on this machine.

        Args:
            headers: the request's, by names in lower case.
        """
        if self.open:
            require_own_page(headers.get("host", ""), headers.get("origin"), self._public_url)

    async def identify(self, authorization: str | None) -> Principal:
        """Who sends a request with this Authorization header.

        Raises:
            JobRejected: UNAUTHORIZED with a sentence; UNAVAILABLE: the tokens' issuer is away.
            StoreUnavailable: keys cannot be looked up now.
        """
        if self.open:
            return ANYBODY
        sent = _sent(authorization)
        if not sent:
            raise JobRejected(
                Reason.UNAUTHORIZED,
                "Send a key as 'Authorization: Bearer KEY'." + await self._first_key(),
            )
        # hashed first: then the comparison tells nothing, not even the length
        if self._own is not None and hmac.compare_digest(_hash(sent), self._own):
            return INSTALLATION
        key = parse(sent)
        if key is not None:
            return await self._by_key(key)
        if self._tokens is not None and sent.count(".") == 2:
            return await self._tokens.verify(sent)
        raise JobRejected(
            Reason.UNAUTHORIZED, "This key is not known here." + await self._first_key()
        )

    async def _by_key(self, key: ParsedKey) -> Principal:
        record = await self._cache.get(key.id)
        if record is None or not record.matches(key.secret):
            raise JobRejected(Reason.UNAUTHORIZED, "This key is not known here.")
        state = record.state(datetime.now(UTC))
        if state != "active":
            # told only to who holds the secret
            raise JobRejected(
                Reason.UNAUTHORIZED, f"This key was {state}. Ask an admin for a new one."
                if state == "revoked"
                else "This key has expired. Ask an admin for a new one.",
            )  # fmt: skip
        return record.principal

    async def _first_key(self) -> str:
        if self._own is not None or self._tokens is not None:
            return ""
        at, told = self._hinted
        if time.monotonic() - at >= _HINT_S:
            # before it is known: anybody may ask, and one listing at a time is enough for all of them,
            # also while the store is away
            self._hinted = (time.monotonic(), told)
            try:
                told = "" if await self.keys.any() else f" {FIRST_KEY}"
            except StoreUnavailable:
                return ""
            self._hinted = (time.monotonic(), told)
        return told


def claimed_id(authorization: str | None) -> str | None:
    """The id of the key in this header, whether or not it is anybody's; None: there is no such key."""
    key = parse(_sent(authorization))
    return key.id if key else None


def _sent(authorization: str | None) -> str:
    """What is sent as a key or token; empty: nothing."""
    scheme, _, sent = (authorization or "").strip().partition(" ")
    return sent.strip() if scheme.lower() == "bearer" else ""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
