"""API keys by REST, for admins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

_Ask = Callable[..., dict[str, Any]]


class Keys:
    """``Client.keys``: make, list and revoke API keys. Needs a key with the scope ``admin``."""

    def __init__(self, ask: _Ask) -> None:
        self._ask = ask

    def create(
        self,
        name: str,
        *,
        tenant: str | None = None,
        scopes: Sequence[str] = ("submit", "read"),
        expires: datetime | None = None,
    ) -> dict[str, Any]:
        """Make a key. Its ``key`` is shown in this answer and never again.

        Args:
            tenant: whose jobs it makes and sees; None: ``default``, for an admin's key nobody's.
        """
        body = {
            "name": name, "tenant": tenant, "scopes": list(scopes),
            "expires": expires.isoformat() if expires else None,
        }  # fmt: skip
        return self._ask("POST", "/keys", body)

    def list(self) -> list[dict[str, Any]]:
        """All keys, the oldest first, without their secrets."""
        return list(self._ask("GET", "/keys")["keys"])

    def revoke(self, key_id: str) -> dict[str, Any]:
        """Make a key good for nothing, within five seconds. Doing so again changes nothing."""
        return self._ask("DELETE", f"/keys/{quote(key_id, safe='')}")
