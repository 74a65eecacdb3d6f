"""Webhooks and e-mails on their way, as they are stored beside their job.

The notifier makes and updates these records; ingest lists them, and asks for a further round by
storing one more record with its marker.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from frond.contracts.events import JobCompleted
from frond.contracts.ids import digest


class Kind(StrEnum):
    """By which road."""

    WEBHOOK = "webhook"
    EMAIL = "email"


class State(StrEnum):
    """Where a delivery stands; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GAVE_UP = "gave-up"


class Delivery(BaseModel):
    """One notice to one address, as stored beside its job. It holds all that an attempt needs.

    ``attempts`` counts the attempts that have ended, ``unmade`` those of them in which nothing was
    sent; ``next_attempt`` is None once it is final.
    ``round`` is empty for the notice that the job's end made, and names the replay otherwise.
    ``tenant`` is whose job it is: a webhook is signed with the secret of this tenant.
    ``public_url`` is the base of its links, so that they stay when the setting changes; None in
    records from before they had one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    job_id: str
    event_id: str
    kind: Kind
    target: str
    tenant: str | None = None
    public_url: str | None = None
    event: JobCompleted
    round: str = ""
    created: datetime | None = None
    state: State = State.PENDING
    attempts: int = 0
    unmade: int = 0
    next_attempt: datetime | None
    last_attempt: datetime | None = None
    last_answer: str = ""

    @property
    def final(self) -> bool:
        return self.state is not State.PENDING

    @classmethod
    def of(
        cls, event: JobCompleted, kind: Kind, target: str, now: datetime, round_: str = "",
        tenant: str | None = None, public_url: str | None = None,
    ) -> Delivery:  # fmt: skip
        """A notice that is due now. The same event, address and round give the same id."""
        parts = (event.event_id, kind, target, *([round_] if round_ else []))
        return cls(
            id=digest("delivery", *parts)[:20], job_id=event.job_id, event_id=event.event_id,
            kind=kind, target=target, tenant=tenant, public_url=public_url, event=event,
            round=round_, created=now, next_attempt=now,
        )  # fmt: skip

    def again(self, round_: str, now: datetime, owner: str | None = None) -> Delivery:
        """The same notice in a further round: same event, hence the same ``webhook-id`` and body.

        Args:
            owner: whose job it is, for records from before they named a tenant.
        """
        tenant = owner if self.tenant is None else self.tenant
        return Delivery.of(self.event, self.kind, self.target, now, round_, tenant, self.public_url)
