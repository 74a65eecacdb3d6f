"""What a service with a door reads from its environment; mixed into its settings."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator

from frond.contracts.ids import API_KEY


def is_loopback(host: str) -> bool:
    """Whether what listens here can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def inherited_hosts(numbers: str) -> list[str]:
    """Where the sockets of FROND_HTTP_FD listen; ``localhost`` for those of this machine's files.

    Raises:
        ValueError: one of them is no socket.
    """
    hosts = []
    for number in filter(None, numbers.split(",")):
        try:
            # a duplicate: closing it leaves the service its own
            with socket.socket(fileno=os.dup(int(number))) as one:
                name = one.getsockname()
        except (OSError, OverflowError, ValueError) as e:
            raise ValueError(f"FROND_HTTP_FD: {number} is no inherited socket ({e})") from None
        hosts.append(str(name[0]) if isinstance(name, tuple) else "localhost")
    return hosts


class AuthSettings(BaseModel):
    """``FROND_`` variables of every service that people and programs send requests to."""

    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="the installation's own key: admin, all tenants; empty: there is none",
    )
    auth: Literal["required", "off"] = Field(
        default="required", description="off: everyone is let in; on loopback only"
    )
    public_url: str = Field(
        default="", description="how clients reach Frond; empty: as the request came"
    )
    jwt_issuer: str = Field(default="", description="whose tokens are taken; empty: nobody's")
    jwt_audience: str = Field(default="", description="the audience that tokens must name")
    jwt_jwks_url: str = Field(
        default="", description="the issuer's keys; empty: as its openid-configuration says"
    )
    jwt_tenant_claim: str = Field(
        default="tenant", description="the claim that names the tenant; empty: all have one"
    )
    jwt_max_age_s: float = Field(
        default=0.0, ge=0,
        description="how old a token may be, by its iat, whatever its exp says; 0: no limit",
    )  # fmt: skip
    request_rate: float = Field(default=0.0, ge=0, description="requests/s a key; 0: no limit")
    upload_rate: int = Field(
        default=0, ge=0, description="bytes/s that a key's bodies are taken at; 0: no limit"
    )
    bodies_at_once: int = Field(
        default=64, ge=0, description="bodies of a key that come in at once; 0: no limit"
    )
    body_silence_s: float = Field(
        default=60.0, gt=0, description="how long nothing may come of a body"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.auth == "off":
            self._only_loopback()
        if API_KEY.fullmatch(self.api_key.get_secret_value()):
            raise ValueError(
                "FROND_API_KEY is a key that `frond keys` made for somebody: as the installation's "
                "own key it would open everything to them. Unset it, or set a random text."
            )
        if self.jwt_issuer and not self.jwt_audience:
            raise ValueError(
                "FROND_JWT_ISSUER is set and FROND_JWT_AUDIENCE is not: tokens that the issuer "
                "made for other services would be taken."
            )
        return self

    def _only_loopback(self) -> None:
        host = str(getattr(self, "http_host", "127.0.0.1"))
        listening = [("FROND_HTTP_HOST is", host)]
        for there in inherited_hosts(str(getattr(self, "http_fd", ""))):
            listening.append(("the socket of FROND_HTTP_FD listens at", there))
        for what, where in listening:
            if not is_loopback(where):
                raise ValueError(
                    f"FROND_AUTH=off is for loopback only, and {what} {where}: everybody who "
                    "reaches this port would be let in. Set FROND_API_KEY instead."
                )
