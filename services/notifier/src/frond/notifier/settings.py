"""What the notifier reads from its environment."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from frond.contracts.signing import check_secrets
from frond.notifier.delivery import LONGEST_S
from frond.runtime import ServiceSettings

NO_SENDER: Final = "frond@localhost"
"""Whom e-mails come from where nobody says; hardly a mail server takes it."""


class NotifierSettings(ServiceSettings):
    """Settings of the notifier.

    ``WEBHOOK_MAX_RETRIES`` and ``WEBHOOK_RETRY_DELAY`` keep the names they always had; the rest
    are ``FROND_`` variables.
    """

    webhook_max_retries: int = Field(
        default=10, ge=0, description="attempts after the first",
        validation_alias=AliasChoices("WEBHOOK_MAX_RETRIES", "FROND_WEBHOOK_MAX_RETRIES"),
    )  # fmt: skip
    webhook_retry_delay: float = Field(
        default=5.0, gt=0, description="seconds before the first retry; each next one three times",
        validation_alias=AliasChoices("WEBHOOK_RETRY_DELAY", "FROND_WEBHOOK_RETRY_DELAY"),
    )  # fmt: skip
    webhook_longest_s: float = Field(
        default=LONGEST_S, gt=0, description="the longest pause between two attempts"
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="whsec_… ; several, separated by blanks, while one replaces another; each "
        "tenant's is made from it; empty: webhooks are not signed",
    )
    smtp_url: SecretStr = Field(
        default=SecretStr(""), description="smtp://user:password@host:port, smtps:// for TLS"
    )
    mail_from: str = Field(default=NO_SENDER, min_length=1, description="whom e-mails come from")
    public_url: str = Field(default="", description="how people reach the REST service, for links")
    deadline_s: float = Field(default=15.0, gt=0, description="of one attempt")
    lease_s: float = Field(
        default=30.0, description="how soon an attempt counts as lost, when its notifier was killed"
    )
    rescan_s: float = Field(
        default=10.0,
        gt=0,
        description="how often deliveries that nobody attends to are looked for: replayed ones, too",
    )

    @model_validator(mode="after")
    def _leases_outlast_attempts(self) -> NotifierSettings:
        if self.lease_s < 1.5 * self.deadline_s:
            raise ValueError("FROND_LEASE_S must be 1.5 times FROND_DEADLINE_S or more")
        return self

    @field_validator("webhook_secret")
    @classmethod
    def _is_a_secret(cls, value: SecretStr) -> SecretStr:
        check_secrets(value.get_secret_value())
        return value

    @field_validator("smtp_url")
    @classmethod
    def _is_a_server(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text:
            url = urlsplit(text)
            if url.scheme not in ("smtp", "smtps") or not url.hostname:
                raise ValueError("write smtp://user:password@host:port")
            _ = url.port
        return value
