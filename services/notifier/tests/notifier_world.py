"""Jobs that have ended, and what is stored of their notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from frond.contracts import keys
from frond.contracts.deliveries import Delivery
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobSpec, JobStatus, ModelRef, WindowCounts
from frond.notifier.delivery import deliveries_of
from frond.store import ObjectStore


def completed(job_id: str) -> JobCompleted:
    return JobCompleted(
        job_id=job_id, status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED,
        images=ImageCounts(expected=2, completed=2), windows=WindowCounts(total=2, done=2),
        detections={"palm": 7}, finished=datetime(2026, 1, 2, tzinfo=UTC),
    )  # fmt: skip


async def job(
    store: ObjectStore, job_id: str, webhook_url: str | None = None, email: str | None = None
) -> Any:
    """Store a job's spec; returns the delivery that its completed event will make, if any."""
    spec = JobSpec(
        job_id=job_id, model=ModelRef(name="m", digest="0" * 64), webhook_url=webhook_url,
        email=email,
    )  # fmt: skip
    await store.put(keys.job_spec(job_id), spec.model_dump_json().encode())
    made = deliveries_of(completed(job_id), spec, datetime.now(UTC))
    return made[0] if made else None


async def recorded(
    store: ObjectStore, delivery: Delivery, wanted: Callable[[Delivery], bool]
) -> Delivery:
    """The record, once it is as wanted: the store tells nobody when it changes."""
    async with asyncio.timeout(120):
        while True:
            with suppress(ObjectMissing):
                raw = await store.get(keys.delivery(delivery.job_id, delivery.id))
                if wanted(found := Delivery.model_validate_json(raw)):
                    return found
            await asyncio.sleep(0.02)
