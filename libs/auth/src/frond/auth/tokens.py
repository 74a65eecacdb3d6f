"""JSON Web Tokens of the one issuer that an installation trusts (RFC 7519, RFC 8725)."""

from __future__ import annotations

import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from frond.auth.jwks import KeySet, PublicKey
from frond.auth.principal import DEFAULT_TENANT, Principal, Scope, check_tenant, scopes_of
from frond.contracts.errors import JobRejected
from frond.contracts.reasons import Reason

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
"""Asymmetric only: with an HMAC, the issuer's public key would be taken for a shared secret."""
_LEEWAY_S: Final = 30
_MOST_CHARS: Final = 8192
_LEAST_RSA_BITS: Final = 2048


def _denied(detail: str) -> JobRejected:
    return JobRejected(Reason.UNAUTHORIZED, detail)


class Tokens:
    """Tells whose a token is.

    Args:
        tenant_claim: empty: all tokens are of one tenant.
        max_age_s: how old a token may be, whatever its ``exp`` says; 0: no limit.
    """

    def __init__(
        self, keys: KeySet, issuer: str, audience: str, tenant_claim: str, max_age_s: float = 0.0
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._claim = tenant_claim
        self._max_age_s = max_age_s
        self._required = ["exp", "iss", "aud", "sub", *(["iat"] if max_age_s else [])]

    async def verify(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            JobRejected: UNAUTHORIZED: it is not good. UNAVAILABLE: the issuer does not answer.
        """
        if len(token) > _MOST_CHARS:
            raise _denied("The token is too long.")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise _denied("This is neither a key nor a token of ours.") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise _denied(f"Tokens are signed with {', '.join(ALGORITHMS)} here, nothing else.")
        key = await self._keys.key(kid if isinstance(kid, str) else None)
        if key is None or not _fits(key, algorithm):
            raise _denied("The token is signed with a key that its issuer does not have.")
        try:
            claims = jwt.decode(
                token, key.key, algorithms=[algorithm], audience=self._audience,
                issuer=self._issuer, leeway=_LEEWAY_S,
                options={"require": self._required},
            )  # fmt: skip
            if self._max_age_s and time.time() - int(claims["iat"]) > self._max_age_s + _LEEWAY_S:
                raise _denied(
                    f"The token is older than the {self._max_age_s:g} s that are taken here "
                    "(FROND_JWT_MAX_AGE_S). Get a new one from its issuer."
                )
        except jwt.ExpiredSignatureError:
            raise _denied("The token has expired. Get a new one from its issuer.") from None
        except jwt.ImmatureSignatureError:
            raise _denied("The token is not good yet; are the clocks right?") from None
        except jwt.InvalidAudienceError:
            raise _denied("The token is for another service: its audience is not ours.") from None
        except jwt.InvalidIssuerError:
            raise _denied("The token is another issuer's than the one trusted here.") from None
        except jwt.MissingRequiredClaimError as e:
            raise _denied(f"The token has no claim {e.claim!r}.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
            raise _denied("The token cannot be verified.") from None
        return self._principal(claims)

    def _principal(self, claims: dict[str, Any]) -> Principal:
        scopes = scopes_of(_words(claims.get("scope")) + _words(claims.get("scp")))
        subject = f"jwt:{claims['sub']}"[:512]
        tenant = claims.get(self._claim) if self._claim else DEFAULT_TENANT
        if tenant is None and Scope.ADMIN in scopes:
            return Principal(subject, None, scopes)
        if not isinstance(tenant, str):
            raise _denied(
                f"The token does not say whose jobs it is for: it has no claim {self._claim!r}."
            )
        try:
            check_tenant(tenant)
        except JobRejected as e:
            raise _denied(e.detail) from None
        return Principal(subject, tenant, scopes)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.split()
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _fits(key: PublicKey, algorithm: str) -> bool:
    """Whether a key may be used with an algorithm: by its kind, and by what it says itself."""
    if key.algorithm is not None and key.algorithm != algorithm:
        return False
    public = key.key
    match algorithm:
        case "RS256" | "PS256":
            return isinstance(public, rsa.RSAPublicKey) and public.key_size >= _LEAST_RSA_BITS
        case "ES256":
            return isinstance(public, ec.EllipticCurvePublicKey) and isinstance(
                public.curve, ec.SECP256R1
            )
        case _:
            return isinstance(public, ed25519.Ed25519PublicKey)
