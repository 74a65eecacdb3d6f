"""What a service with a door reads from its environment; mixed into its settings."""

from __future__ import annotations

import ipaddress
from typing import Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator


def is_loopback(host: str) -> bool:
    """Whether what listens here can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AuthSettings(BaseModel):
    """``FROND_`` variables of every service that people and programs send requests to."""

    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="the installation's own key: admin, all tenants; empty: there is none",
    )
    auth: Literal["required", "off"] = Field(
        default="required", description="off: everyone is let in; on loopback only"
    )
    jwt_issuer: str = Field(default="", description="whose tokens are taken; empty: nobody's")
    jwt_audience: str = Field(default="", description="the audience that tokens must name")
    jwt_jwks_url: str = Field(
        default="", description="the issuer's keys; empty: as its openid-configuration says"
    )
    jwt_tenant_claim: str = Field(
        default="tenant", description="the claim that names the tenant; empty: all have one"
    )
    request_rate: float = Field(default=0.0, ge=0, description="requests/s a key; 0: no limit")
    upload_rate: int = Field(
        default=0, ge=0, description="bytes/s that a key's bodies are taken at; 0: no limit"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        host = str(getattr(self, "http_host", "127.0.0.1"))
        if self.auth == "off" and not is_loopback(host):
            raise ValueError(
                f"FROND_AUTH=off is for loopback only, and FROND_HTTP_HOST is {host}: everybody who "
                "reaches this port would be let in. Set FROND_API_KEY instead."
            )
        if self.jwt_issuer and not self.jwt_audience:
            raise ValueError(
                "FROND_JWT_ISSUER is set and FROND_JWT_AUDIENCE is not: tokens that the issuer "
                "made for other services would be taken."
            )
        return self
