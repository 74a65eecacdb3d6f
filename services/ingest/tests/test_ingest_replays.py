"""Webhooks that are sent once more: a round after the other, and not without end."""
# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
from ingest_world import Tenants, new_job

from frond.contracts import keys
from frond.contracts.deliveries import Delivery, Kind, State
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobStatus, WindowCounts
from frond.ingest.webhooks import MOST_ROUNDS
from frond.store import ObjectStore

pytestmark = pytest.mark.stack


async def notified(api: httpx.Client, store: ObjectStore, job: str = "") -> str:
    """A job that has ended, and whose webhook was told."""
    job = job or f"job-{secrets.token_hex(4)}"
    over = JobCompleted(
        job_id=job, status=JobStatus.SUCCESSFUL, outcome=JobOutcome.COMPLETED,
        images=ImageCounts(expected=0), windows=WindowCounts(), detections={},
    )  # fmt: skip
    told = Delivery.of(over, Kind.WEBHOOK, "https://example.org/hook", datetime.now(UTC))
    await store.put(keys.job_completed(job), over.model_dump_json().encode())
    await put(store, told.model_copy(update={"state": State.DELIVERED, "next_attempt": None}))
    return job


async def put(store: ObjectStore, delivery: Delivery) -> None:
    key = keys.delivery(delivery.job_id, delivery.id)
    await store.put(key, delivery.model_dump_json().encode())


async def end(store: ObjectStore, job: str, delivery_id: str) -> None:
    """As the notifier does it."""
    raw = await store.get(keys.delivery(job, delivery_id))
    over = {"state": State.GAVE_UP, "next_attempt": None}
    await put(store, Delivery.model_validate_json(raw).model_copy(update=over))


async def test_one_round_at_a_time(api: httpx.Client, store: ObjectStore) -> None:
    """Of ten requests at once one begins a round, and until that has ended no further one begins,
    which may be hours later: nobody is told to wait for it. The same Idempotency-Key is answered with
    it."""
    job = await notified(api, store)
    url = f"/jobs/{job}/webhooks/replay"
    with ThreadPoolExecutor(10) as pool:
        heads = [{"Idempotency-Key": f"k{n}"} for n in range(10)]
        answers = list(pool.map(lambda h: api.post(url, headers=h), heads))
    assert sorted(a.status_code for a in answers) == [202] + [409] * 9, answers[0].text
    (won,) = (n for n, a in enumerate(answers) if a.status_code == 202)
    (notice,) = answers[won].json()["webhooks"]
    again = api.post(url, headers=heads[won])
    assert again.status_code == 202 and again.json()["webhooks"][0]["id"] == notice["id"]
    refused = api.post(url)
    assert refused.json()["reason"] == "conflict" and "retry-after" not in refused.headers
    await end(store, job, notice["id"])
    assert api.post(url).status_code == 202


async def test_rounds_have_an_end(api: httpx.Client, store: ObjectStore) -> None:
    """As many as a job may have; then 422."""
    job = await notified(api, store)
    for _ in range(MOST_ROUNDS):
        answer = api.post(f"/jobs/{job}/webhooks/replay")
        assert answer.status_code == 202, answer.text
        await end(store, job, answer.json()["webhooks"][0]["id"])
    last = api.post(f"/jobs/{job}/webhooks/replay")
    assert (last.status_code, last.json()["reason"]) == (422, "too-many"), last.text
    assert len(api.get(f"/jobs/{job}/webhooks").json()["webhooks"]) == 1 + MOST_ROUNDS


async def test_a_round_whose_beginner_died_is_sent(api: httpx.Client, store: ObjectStore) -> None:
    """Killed between a delivery and its marker, and never asked again under the same key: whoever
    asks next has the delivery promised, so that the round ends and the next one can begin."""
    job = await notified(api, store)
    begun = api.post(f"/jobs/{job}/webhooks/replay").json()["webhooks"][0]["id"]
    await store.delete(keys.delivery_marker(job, begun))
    refused = api.post(f"/jobs/{job}/webhooks/replay")
    assert refused.status_code == 409, refused.text
    assert await store.exists(keys.delivery_marker(job, begun))


async def test_who_may_not_read_is_told_that_a_round_has_begun(
    tenants: Tenants, store: ObjectStore
) -> None:
    """Neither where it is sent nor, asked again under its key, what became of it."""
    job = await notified(tenants.acme, store, new_job(tenants.acme))
    url, head = f"/jobs/{job}/webhooks/replay", {"Idempotency-Key": "once"}
    (begun,) = tenants.submits.post(url, headers=head).json()["webhooks"]
    await end(store, job, begun["id"])
    (again,) = tenants.submits.post(url, headers=head).json()["webhooks"]
    assert begun == again and (begun["target"], begun["state"]) == ("", "pending")
    (read,) = tenants.acme.post(url, headers=head).json()["webhooks"]
    assert (read["target"], read["state"]) == ("https://example.org/hook", "gave-up")
