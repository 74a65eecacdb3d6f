"""The secrets that webhooks are signed with: each tenant has its own, made from the installation's.

A tenant that knows the secret of its own webhooks can forge nothing to another tenant's receiver, and
what Frond signs for one tenant is no signature in another's eyes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

_PREFIX: Final = "whsec_"
_USE: Final = b"frond.webhook-secret.tenant.v1\0"
_LEAST: Final = 24
"""Bytes, as Standard Webhooks asks for: a short secret can be guessed from one notice."""


def tenant_secrets(secrets: str, tenant: str | None) -> str:
    """What the webhooks of a tenant's jobs are signed with.

    Args:
        secrets: the installation's: ``whsec_…``, or several separated by blanks, while one replaces
            another. Empty: nothing is signed.
        tenant: whose job it is; None: nobody's, which the installation's own secrets stand for.

    Returns:
        As many ``whsec_…`` as were given, in the same order, separated by blanks.

    Raises:
        ValueError: one of them is no secret; see :func:`check_secrets`.
    """
    check_secrets(secrets)
    if tenant is None:
        return " ".join(secrets.split())
    return " ".join(_derived(one, tenant) for one in secrets.split())


def check_secrets(secrets: str) -> None:
    """Raises ValueError where one of them is not base64 of 24 bytes or more. ``whsec_`` before it and
    padding after it may be missing, as Standard Webhooks' own libraries have it."""
    for secret in secrets.split():
        if len(_key(secret)) < _LEAST:
            raise ValueError(
                f"a webhook secret is whsec_ and base64 of {_LEAST} bytes or more: "
                f"whsec_$(openssl rand -base64 {_LEAST})"
            )


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX) + "==")
    except ValueError:
        return b""


def _derived(secret: str, tenant: str) -> str:
    made = hmac.new(_key(secret), _USE + tenant.encode(), hashlib.sha256).digest()
    return _PREFIX + base64.b64encode(made).decode()
