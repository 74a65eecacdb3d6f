"""Artifacts of what lies in the object store, on the real one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from hashlib import sha256

import pytest
from artifact_support import (
    JOB,
    MANIFEST,
    MODEL,
    SEGMENTATION,
    blobs,
    detections,
    failure,
    image,
    job_files,
    regions_of,
    segmented,
)

from frond.artifacts import ImageResult, write_image_artifacts, write_job_artifacts
from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.jobs import ImageOutcome, JobSpec
from frond.masks import Polygons
from frond.masks.table import to_ipc as polygons_to_ipc
from frond.merge import Detections, to_ipc
from frond.store import ObjectStore, StoreSettings

pytestmark = pytest.mark.stack
SPEC = JobSpec(job_id=JOB.job_id, model=MODEL)
RESULTS = sorted(
    [
        *(image(f"{i:03d}.tif", detections(1 + 7 * i, i)) for i in range(40)),
        image("empty.tif", Detections.empty()),
        failure("bad.tif"),
    ],
    key=lambda r: (r.outcome.name, r.outcome.image_id),
)
OUTCOMES = [r.outcome for r in RESULTS]


@pytest.fixture
def store(service_env: dict[str, str]) -> Iterator[ObjectStore]:
    opened = ObjectStore(
        StoreSettings(
            service_env["FROND_S3_ENDPOINT"], service_env["FROND_S3_ACCESS_KEY"],
            service_env["FROND_S3_SECRET_KEY"], service_env["FROND_S3_BUCKET"],
        )
    )  # fmt: skip
    yield opened
    opened.close()


async def stored(store: ObjectStore, result: ImageResult) -> None:
    if result.plan is None:
        return
    image_id = result.outcome.image_id
    await store.put(keys.image_plan(JOB.job_id, image_id), result.plan.model_dump_json().encode())
    await store.put(keys.image_detections(JOB.job_id, image_id), to_ipc(result.detections))


async def test_a_job_is_written_from_what_is_stored(store: ObjectStore) -> None:
    """The files in the store are those of the same images in memory, with their sums and URIs."""
    await asyncio.gather(*(stored(store, r) for r in RESULTS))
    made = await write_job_artifacts(store, JOB.job_id, OUTCOMES, SPEC, MANIFEST)
    expected, _ = job_files(RESULTS)
    for artifact in made:
        data = await store.get(keys.result(JOB.job_id, artifact.name))
        assert data == expected[artifact.name]
        assert artifact.sha256 == sha256(data).hexdigest()
        assert artifact.uri == store.uri(keys.result(JOB.job_id, artifact.name))


async def test_regions_are_read_beside_their_detections(store: ObjectStore) -> None:
    """A segmentation's job is written from the stored polygons, images without any among them."""
    results = [
        segmented("a.tif", regions_of(blobs(1))[0]),
        segmented("b.tif", Polygons.empty()),
        segmented("c.tif", regions_of(blobs(2))[0]),
    ]
    for result in results:
        assert result.polygons is not None
        await stored(store, result)
        key = keys.image_polygons(JOB.job_id, result.outcome.image_id)
        await store.put(key, polygons_to_ipc(result.polygons))
    outcomes = [r.outcome for r in results]
    manifest = SEGMENTATION.manifest
    made = await write_job_artifacts(store, JOB.job_id, outcomes, SPEC, manifest)
    expected, _ = job_files(results, SEGMENTATION)
    for artifact in made:
        assert await store.get(keys.result(JOB.job_id, artifact.name)) == expected[artifact.name]


async def test_a_gap_in_the_store_is_named_and_leaves_nothing(store: ObjectStore) -> None:
    """A completed image whose plan is gone stops the job's files; none of them is half there."""
    await asyncio.gather(*(stored(store, r) for r in RESULTS[:-3]))
    with pytest.raises(ObjectMissing):
        await write_job_artifacts(store, JOB.job_id, OUTCOMES, SPEC, MANIFEST)
    assert not await store.exists(keys.result(JOB.job_id, "coco.json"))


async def test_a_cancelled_writing_ends_and_leaves_nothing(store: ObjectStore) -> None:
    """Cancelled in the middle, its thread ends by itself and no file appears."""
    await asyncio.gather(*(stored(store, r) for r in RESULTS))
    begun = threading.Event()

    class Endless(list[ImageOutcome]):
        """Tells when its hundredth outcome is asked for again: the writing is under way then."""

        passes = 0

        def __iter__(self) -> Iterator[ImageOutcome]:
            self.passes += 1
            for n, outcome in enumerate(super().__iter__()):
                if self.passes == 2 and n == 100:
                    begun.set()
                yield outcome

    endless = Endless(o for _ in range(2000) for o in OUTCOMES)
    task = asyncio.create_task(write_job_artifacts(store, JOB.job_id, endless, SPEC, MANIFEST))
    assert await asyncio.to_thread(begun.wait, 60)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(120):
        await asyncio.get_running_loop().shutdown_default_executor()
    assert not await store.exists(keys.result(JOB.job_id, "coco.json"))


async def test_an_image_is_written_beside_its_plan(store: ObjectStore) -> None:
    """Its four files; written twice they are the same."""
    result = RESULTS[5]
    assert result.plan is not None
    for _ in range(2):
        made = await write_image_artifacts(
            store, result.plan, result.outcome, result.detections, MANIFEST
        )
    for artifact in made:
        data = await store.get(
            keys.image_artifact(JOB.job_id, result.outcome.image_id, artifact.name)
        )
        assert sha256(data).hexdigest() == artifact.sha256
    stac = json.loads(
        await store.get(keys.image_artifact(JOB.job_id, result.outcome.image_id, "stac.json"))
    )
    assert stac["assets"]["model"]["href"].startswith(f"s3://{store.bucket}/models/palms/")
