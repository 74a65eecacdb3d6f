"""Webhooks of a job: look at them, have them sent once more."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from frond.auth import Scope
from frond.contracts.deliveries import Delivery, Kind, State
from frond.ingest import webhooks
from frond.ingest.auth import who_asks
from frond.ingest.context import ingest_of
from frond.ingest.idempotency import check_key
from frond.ingest.routes.answers import PROBLEMS, IdempotencyKey, JobId

router = APIRouter(tags=["webhooks"], responses=PROBLEMS)  # type: ignore[arg-type] # keys are strings


class Notice(BaseModel):
    """A webhook or e-mail of a job, and how far it has come."""

    id: str
    kind: Kind
    target: str
    webhook_id: str = Field(description="the webhook-id header; the same in every round")
    round: str = Field(description="empty for the first; else the replay that it belongs to")
    state: State
    attempts: int = Field(description="that have ended")
    created: datetime | None
    last_attempt: datetime | None
    last_answer: str
    next_attempt: datetime | None


class NoticeList(BaseModel):
    """A job's notices, the oldest first."""

    job_id: str
    webhooks: list[Notice]


def _shown(job_id: str, found: list[Delivery]) -> NoticeList:
    return NoticeList(
        job_id=job_id,
        webhooks=[
            Notice(
                id=d.id, kind=d.kind, target=d.target, webhook_id=d.event_id, round=d.round,
                state=d.state, attempts=d.attempts, created=d.created,
                last_attempt=d.last_attempt, last_answer=d.last_answer,
                next_attempt=d.next_attempt,
            )
            for d in found
        ],
    )  # fmt: skip


@router.get(
    "/jobs/{job_id}/webhooks", response_model=NoticeList, summary="What became of the job's notices"
)
async def show(request: Request, job_id: JobId) -> NoticeList:
    return _shown(job_id, await webhooks.of_job(ingest_of(request), job_id))


@router.post(
    "/jobs/{job_id}/webhooks/replay", response_model=NoticeList, status_code=202,
    summary="Send the job's webhooks once more",
)  # fmt: skip
async def replay(
    request: Request, job_id: JobId, key: Annotated[str | None, IdempotencyKey] = None
) -> NoticeList:
    """Same ``webhook-id``, same body, signed anew; retried like the first. The answer lists the
    new round; it is empty for a job that asked for no webhook. A receiver that said 410 is sent
    replays alone; once one is answered with 2xx, the webhooks of other jobs, too. Without the scope
    `read`, neither addresses nor what became of the round are told."""
    check_key(key)
    begun = await webhooks.replay(ingest_of(request), job_id, key)
    if not who_asks(request).may(Scope.READ):
        begun = [_as_begun(d) for d in begun]
    return _shown(job_id, begun)


def _as_begun(delivery: Delivery) -> Delivery:
    return delivery.model_copy(
        update={
            "target": "", "state": State.PENDING, "attempts": 0, "last_attempt": None,
            "last_answer": "", "next_attempt": None,
        }
    )  # fmt: skip
