"""Run a job's failed images again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import retry, views
from frond.ingest.auth import who_asks
from frond.ingest.context import Ingest
from frond.ingest.routes.answers import PROBLEMS, IdempotencyKey, JobId, JsonRoute, make_once
from frond.ingest.routes.bodies import Body
from frond.ingest.tracing import traceparent

router = APIRouter(
    tags=["jobs"],
    responses=PROBLEMS,  # type: ignore[arg-type] # keys are strings
    route_class=JsonRoute,
)


class Retry(Body):
    """Which of the failed images."""

    reasons: list[Reason] = Field(
        default=[], max_length=100, description="only what failed for one of these; empty: all"
    )


@router.post(
    "/jobs/{job_id}/retry", status_code=201, response_model=views.JobAnswer,
    summary="Run the failed images of an ended job again, as a new job",
)  # fmt: skip
async def begin(
    request: Request,
    job_id: JobId,
    body: Retry | None = None,
    key: Annotated[str | None, IdempotencyKey] = None,
) -> Response:
    """The new job is `JOB-retry-N`, with the same model, thresholds and addresses; `retry_of` in its
    completed event names this one, which stays as it is. While a retry of the same images has not
    ended, asking again answers with it."""
    wanted, who = body or Retry(), who_asks(request)

    async def work(ingest: Ingest) -> JobSpec:
        return await retry.begin(ingest, job_id, wanted.reasons, who, traceparent(request))

    scope = f"retry/{job_id}"
    return await make_once(request, scope, key, wanted.model_dump(mode="json"), 201, work)
