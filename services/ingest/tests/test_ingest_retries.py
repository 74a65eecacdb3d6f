"""A retry's id is its job's tenant's: nobody takes it, at whatever moment, nor what it would read."""

# ruff: noqa: ASYNC212 (the loop has nothing else to do while a request is answered)
from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ingest_world import refused

from frond.auth import KeyStore, Scope
from frond.contracts import keys
from frond.contracts.events import JobCompleted
from frond.contracts.jobs import ImageCounts, JobOutcome, JobSpec, JobStatus, WindowCounts
from frond.ingest import places
from frond.ingest.intake import File
from frond.ingest.manifests import RETRY, Manifest
from frond.runtime.crashpoints import ENVIRONMENT, FIRED
from frond.stack import Endpoints
from frond.store import ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def armed(
    stack: Endpoints, start_door: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """An ingest that dies where it is told to."""
    folder = tmp_path_factory.mktemp("retries")
    (folder / "points").mkdir()
    more = {
        ENVIRONMENT: str(folder / "points"),
        "FROND_TENANT_PLACES": "acme=s3://frond-none/acme/",
    }
    with start_door(stack, folder, **more) as door:
        yield door, folder / "points"


async def client_of(door: Any, tenant: str) -> httpx.Client:
    store = door.store()
    try:
        _, key = await KeyStore(store).create(
            "test", tenant=tenant, scopes=(Scope.SUBMIT, Scope.READ)
        )
    finally:
        store.close()
    client: httpx.Client = door.client(headers={"Authorization": f"Bearer {key}"})
    return client


async def ended(
    store: ObjectStore, api: httpx.Client, image: str | None = None, failed: int = 1
) -> str:
    """A job of this caller that has ended, with one failed image, or so many of which one is told."""
    job = f"job-{secrets.token_hex(4)}"
    assert api.post("/jobs", json={"job_id": job}).status_code == 201
    uri = image or store.uri(f"uploads/{job}/a.tif")
    failure = {"image_id": "x", "name": "a.tif", "uri": uri, "reason": "reader-died"}
    summary = json.dumps({"failures": [failure], "images": []}, separators=(",", ":"))
    await store.put(keys.result(job, "summary.json"), summary.encode())
    over = JobCompleted(
        job_id=job, status=JobStatus.FAILED, outcome=JobOutcome.COMPLETED_WITH_ERRORS,
        images=ImageCounts(expected=failed, failed=failed), windows=WindowCounts(), detections={},
    )  # fmt: skip
    await store.put(keys.job_completed(job), over.model_dump_json().encode())
    return job


@pytest.mark.parametrize("point", ["ingest.retry-spec-stored", "ingest.retry-manifest-stored"])
async def test_a_retry_that_dies_between_its_puts_is_still_its_tenants(
    armed: Any, point: str
) -> None:
    """Whatever is there of it, the owner is: another tenant cannot have the id, and the same
    request goes on under it."""
    door, points = armed
    store = door.store()
    acme, beta = await client_of(door, "acme"), await client_of(door, "beta")
    job = await ended(store, acme)
    retry = f"{job}-retry-1"
    (points / f"{point}.1").touch()
    with pytest.raises(httpx.TransportError):
        acme.post(f"/jobs/{job}/retry", json={})
    assert (points / FIRED / f"{point}.1").exists()
    (points / FIRED / f"{point}.1").unlink()
    door.process.wait(30)
    door.start()
    spec = JobSpec.model_validate_json(await store.get(keys.job_spec(retry)))
    assert (spec.tenant, spec.retry_of, spec.by_key) == ("acme", job, True)
    for answer in (
        beta.post("/jobs", json={"job_id": retry}),
        beta.post("/upload", files={"f": ("b.tif", b"x")}, data={"job_id": retry}),
    ):
        assert answer.status_code == 422 and answer.json()["reason"] == "bad-job-id"
    assert beta.get(f"/jobs/{retry}").status_code == 404
    again = acme.post(f"/jobs/{job}/retry", json={})
    assert (again.status_code, again.json()["job_id"]) == (201, retry), again.text
    assert len([o async for o in store.list(keys.job_inputs(retry))]) == 1
    store.close()


async def test_a_manifest_that_is_not_its_jobs_is_not_carried_out(armed: Any) -> None:
    """A retry's manifest under a job that is no retry of it: the sweeper gives that job nothing."""
    door, _ = armed
    store = door.store()
    beta = await client_of(door, "beta")
    job, other = (f"job-{secrets.token_hex(4)}" for _ in range(2))
    images = [
        File(name=f"{n}.tif", image=store.uri(f"uploads/{other}/{n}.tif"), mark="", size=0)
        for n in range(2)
    ]
    foreign = Manifest(content="c", upload_id=f"{RETRY}{other}", files=images)
    await store.put(places.manifest(job), foreign.model_dump_json().encode())
    assert beta.post("/jobs", json={"job_id": job}).status_code == 201
    mine = beta.put(f"/jobs/{job}/images/own.tif", content=b"x").json()["image_id"]
    # the sweeper came by
    until(lambda: "a manifest is not its job's" in door.log.read_text())
    recorded = [o.key async for o in store.list(keys.job_inputs(job))]
    assert recorded == [keys.job_input_record(job, mine)]
    assert not await store.exists(keys.job_sealed(job))
    store.close()


async def test_places_are_asked_for_again(armed: Any) -> None:
    """What its tenant may not name any more is not run again; an id cannot be reserved."""
    door, _ = armed
    store = door.store()
    acme = await client_of(door, "acme")
    for image in (store.uri("survey/a.tif"), "s3://elsewhere/acme/a.tif"):
        job = await ended(store, acme, image)
        answer = acme.post(f"/jobs/{job}/retry", json={})
        assert answer.status_code in (403, 422), answer.text
        assert answer.json()["reason"] in ("object-missing", "bucket-not-allowed")
        assert not await store.exists(keys.job_spec(f"{job}-retry-1"))
        assert not await store.exists(places.manifest(f"{job}-retry-1"))
    for taken in ("x-retry-1", "x-retry-2-retry-10"):
        answer = acme.post("/jobs", json={"job_id": taken})
        assert answer.json()["reason"] == "bad-job-id", answer.text
    assert acme.post("/jobs", json={"job_id": f"retry-{secrets.token_hex(4)}-a"}).is_success
    store.close()


async def test_a_retry_has_no_more_images_than_a_job_may(armed: Any) -> None:
    """Refused by the count of the completed event, before the failures are read."""
    door, _ = armed
    store = door.store()
    acme = await client_of(door, "acme")
    job = await ended(store, acme, failed=100_001)
    told = refused(acme.post(f"/jobs/{job}/retry", json={}), 422, "too-many")
    assert told.startswith("100001 images of job") and "may have 100000 here" in told
    assert not await store.exists(keys.job_spec(f"{job}-retry-1"))
    store.close()
