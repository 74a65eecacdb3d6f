"""Who may call: one key for the installation, until key management comes."""

from __future__ import annotations

import hmac

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from frond.contracts.reasons import Reason
from frond.ingest.context import ingest_of
from frond.ingest.problems import Refused

_bearer = HTTPBearer(auto_error=False, description="FROND_API_KEY, where one is set")


async def require_key(
    request: Request, sent: HTTPAuthorizationCredentials | None = Security(_bearer)
) -> None:
    """Let a request pass that carries the key; every request where no key is set."""
    key = ingest_of(request).settings.api_key.get_secret_value()
    if not key:
        return
    given = sent.credentials if sent else ""
    if not hmac.compare_digest(given.encode(), key.encode()):
        raise Refused(
            Reason.UNAUTHORIZED,
            "Send the installation's key as 'Authorization: Bearer KEY'."
            if not given
            else "This key is not the installation's.",
        )
