"""What is delivered, and what the next step is: no network, no store, no clock of its own."""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

from frond.contracts.deliveries import Delivery, Kind, State
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import JobSpec

FACTOR: Final = 3.0
LONGEST_S: Final = 6 * 3600.0
LONGEST_ASKED_S: Final = 24 * 3600.0


class Answer(NamedTuple):
    """What an attempt came to.

    Attributes:
        state: PENDING asks for another attempt.
        told: for the record and the log.
        wait_s: how long the other side asked us to wait, at least.
        gone: whether the other side wants no notice at all any more.
        made: whether it was made at all. One that was not has its number; it is no retry, and ends
            nothing.
    """

    state: State
    told: str
    wait_s: float = 0.0
    gone: bool = False
    made: bool = True

    @property
    def delivered(self) -> bool:
        return self.state is State.DELIVERED


class Policy(NamedTuple):
    """How often, and how soon again."""

    max_retries: int
    delay_s: float
    longest_s: float = LONGEST_S


class Addresses(BaseModel):
    """Whom a job's end is told, and whose job it is: part of its spec, and of ``notify.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    webhook_url: str | None = None
    email: str | None = None
    tenant: str | None = None

    @property
    def complete(self) -> bool:
        return bool(self.webhook_url and self.email)

    def filled(self, other: Addresses) -> Addresses:
        """With the other's addresses where these have none, unless those are another tenant's."""
        if self.tenant is not None and other.tenant is not None and self.tenant != other.tenant:
            return self
        return Addresses(
            webhook_url=self.webhook_url or other.webhook_url,
            email=self.email or other.email,
            tenant=other.tenant if self.tenant is None else self.tenant,
        )


def deliveries_of(
    event: JobCompleted, to: Addresses | JobSpec, now: datetime, public_url: str | None = None
) -> list[Delivery]:
    """The notices that a completed job asks for. The same event gives the same ids."""
    wanted = ((Kind.WEBHOOK, to.webhook_url), (Kind.EMAIL, to.email))
    return [
        Delivery.of(event, kind, target, now, tenant=to.tenant, public_url=public_url)
        for kind, target in wanted
        if target
    ]


def classify(status: int, retry_after: str | None, now: datetime) -> Answer:
    """Read a receiver's answer.

    2xx is done; 410 says that nobody listens at this address any more, whatever the notice; all
    else, redirects too, which are not followed, is tried again, no sooner than Retry-After
    (RFC 9110 §10.2.3) says.
    """
    told = f"HTTP {status}"
    if 200 <= status < 300:
        return Answer(State.DELIVERED, told)
    if status == 410:
        return Answer(State.GAVE_UP, f"{told}: the receiver wants no more", gone=True)
    return Answer(State.PENDING, told, asked_wait(retry_after, now))


def unwanted(since: datetime) -> Answer:
    """The answer that stands for an attempt at an address which said 410."""
    return Answer(
        State.GAVE_UP,
        f"not sent: the receiver said 410 on {since:%Y-%m-%d %H:%M} UTC; replay to try again",
    )


def asked_wait(retry_after: str | None, now: datetime) -> float:
    """Seconds that a Retry-After header asks for, 0 up to a day; 0 for what is no such header."""
    if not retry_after:
        return 0.0
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_ASKED_S)
    try:
        seconds = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_ASKED_S)


def backoff(attempts: int, policy: Policy, jitter: float) -> float:
    """Seconds before the next attempt, after ``attempts`` that were made: delay·3ⁿ, with an upper bound.

    ``jitter`` in [0, 1) takes off up to a quarter, so that what failed together does not come
    back together.
    """
    grown = policy.delay_s * FACTOR ** min(max(attempts - 1, 0), 40)
    return min(grown, policy.longest_s) * (1 - jitter / 4)


def after(
    delivery: Delivery, answer: Answer, policy: Policy, now: datetime, jitter: float
) -> Delivery:
    """The record after an attempt."""
    attempts = delivery.attempts + 1
    unmade = delivery.unmade + (not answer.made)
    made = attempts - unmade
    state, told, due = answer.state, answer.told[:500], None
    if state is State.PENDING:
        if not answer.made:
            due = now
        elif made > policy.max_retries:
            state, told = State.GAVE_UP, f"{told}; gave up after {made} attempts"
        else:
            due = now + timedelta(seconds=max(backoff(made, policy, jitter), answer.wait_s))
    return delivery.model_copy(
        update={
            "state": state, "attempts": attempts, "unmade": unmade, "next_attempt": due,
            "last_attempt": now, "last_answer": told,
        }
    )  # fmt: skip
