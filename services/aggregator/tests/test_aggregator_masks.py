"""An image of a segmentation model: what is written of it, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aggregator_world as world
import numpy as np
import pytest
import rasterio
import yaml
from rasterio.io import MemoryFile

from frond.aggregator.closing import Closing
from frond.aggregator.imaging import Imaging
from frond.aggregator.masking import Masking
from frond.artifacts import write_job_artifacts
from frond.contracts import keys
from frond.contracts.errors import StoreUnavailable
from frond.contracts.jobs import ImageStatus, JobSpec, Timings
from frond.contracts.modelspec import DecoderSpec, ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.masks import WindowMask, to_ipc
from frond.masks.build import Built, build
from frond.masks.table import from_ipc
from frond.merge import from_ipc as detections_from_ipc
from frond.raster.planning import chunks_of
from frond.raster.sandbox import ReaderFailed
from frond.runtime import folder_on_disk
from frond.store import Marks, ObjectStore
from support.waiting import until

pytestmark = pytest.mark.stack

MANIFEST = world.MANIFEST.model_copy(
    update={
        "task": "segmentation",
        "decoder": DecoderSpec(name="semantic", params={"background": 0, "min_area": 1}),
    }
)


@pytest.fixture
async def w(service_env: dict[str, str]) -> AsyncIterator[world.World]:
    async with world.World(service_env) as made:
        key = keys.model_version(world.MODEL.name, world.MODEL.digest) + "model.yaml"
        await made.store.put(key, yaml.safe_dump(MANIFEST.model_dump(mode="json")).encode())
        yield made


def truth(plan: ImagePlan) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Palms (1) in a frame with a hole, bushes (2) in a corner that windows share."""
    classes = np.zeros((plan.grid.height, plan.grid.width), np.uint8)
    classes[70:130, 40:120] = 1
    classes[85:110, 60:100] = 0
    classes[100:140, 130:] = 2
    return classes


async def planned(w: world.World, n: int = 0) -> ImagePlan:
    """An image whose chunks are stored: each window sees what is there."""
    plan = w.plan(n)
    await w.store_plan(plan)
    classes = truth(plan)
    for chunk in chunks_of(plan):
        masks = []
        for window in chunk.windows:
            box = plan.grid.window(window)
            seen = classes[box.y0 : box.y1, box.x0 : box.x1]
            planes = np.stack([np.where(seen == k, 230, 10) for k in (1, 2)])
            rival = np.where(seen == 0, 230, 20)[None]
            masks.append(WindowMask(window, np.concatenate([planes, rival]).astype(np.uint8)))
        key = keys.chunk_result(plan.job_id, plan.image_id, chunk.chunk_id)
        await w.store.put(key, to_ipc(masks, {}))
    return plan


def folders(scratch: Path) -> list[Path]:
    return [left for left in scratch.glob("masks-*") if left.is_dir()]


async def finish(w: world.World, plan: ImagePlan, masking: Masking) -> Any:
    try:
        finished = await Imaging(w.store, 2, masking).finish(plan.job_id, plan.image_id)
        return finished and finished.outcome
    finally:
        await asyncio.to_thread(masking.close)


def killed(folder: Path, plan: ImagePlan, manifest: ModelManifest) -> Built:
    with (folder.parent / "deaths").open("a") as deaths:
        deaths.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crashes(folder: Path, plan: ImagePlan, manifest: ModelManifest) -> Built:
    with (folder.parent / "deaths").open("a") as deaths:
        deaths.write("x")
    os.abort()


def killed_once(folder: Path, plan: ImagePlan, manifest: ModelManifest) -> Built:
    if not (folder.parent / "deaths").exists():
        killed(folder, plan, manifest)
    return build(folder, plan, manifest)


def greedy(folder: Path, plan: ImagePlan, manifest: ModelManifest) -> Built:
    np.ones(1 << 31)
    raise AssertionError


def crowded(folder: Path, plan: ImagePlan, manifest: ModelManifest) -> Built:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def endless(folder: Path, plan: ImagePlan, manifest: ModelManifest) -> Built:
    (folder.parent / "begun").touch()
    while True:
        time.sleep(1)


async def test_chunks_become_a_raster_and_regions(w: world.World, tmp_path: Path) -> None:
    """The class raster is the truth; regions, detections and the job's files tell of the same;
    made twice they are the same bytes; nothing is left on disk."""
    plan = await planned(w)
    outcome = await finish(w, plan, Masking(w.store, tmp_path))
    assert outcome.status is ImageStatus.COMPLETED
    first = await w.hashes()
    stat = await w.store.stat(keys.image_classes(plan.job_id, plan.image_id))
    assert "cloud-optimized" in stat.content_type
    data = await w.store.get(keys.image_classes(plan.job_id, plan.image_id))
    with MemoryFile(data) as file, file.open() as raster:
        got = raster.read(1)
        assert raster.crs == rasterio.CRS.from_epsg(32647)
    skipped = np.zeros(got.shape, bool)
    for window in set(range(plan.grid.count)) - {w for c in chunks_of(plan) for w in c.windows}:
        core = plan.grid.core(window)
        skipped[core.y0 : core.y1, core.x0 : core.x1] = True
    # what a skipped window alone would have seen is nodata
    assert np.array_equal(got[got != 255], truth(plan)[got != 255])
    assert skipped[got == 255].all() and (got == 255).any()

    regions, _ = from_ipc(await w.store.get(keys.image_polygons(plan.job_id, plan.image_id)))
    found, _ = detections_from_ipc(
        await w.store.get(keys.image_detections(plan.job_id, plan.image_id))
    )
    assert regions.areas.tolist() == [60 * 80 - 25 * 40, 40 * 60]
    assert np.array_equal(found.boxes, regions.boxes)
    assert outcome.detections == {"bush": 1, "palm": 1}
    coco = json.loads(
        await w.store.get(keys.image_artifact(plan.job_id, plan.image_id, "coco.json"))
    )
    assert [type(a["segmentation"]) for a in coco["annotations"]] == [dict, list]
    assert not folders(tmp_path)

    spec = JobSpec(job_id=w.job_id, model=world.MODEL)
    await write_job_artifacts(w.store, w.job_id, [outcome], spec, MANIFEST)
    job = json.loads(await w.store.get(keys.result(w.job_id, "coco.json")))
    assert job["annotations"] == coco["annotations"]

    await w.store.delete(keys.image_outcome(plan.job_id, plan.image_id))
    await w.store.delete_prefix(f"{keys.job_prefix(w.job_id)}results/")
    await finish(w, plan, Masking(w.store, tmp_path))
    assert await w.hashes() == first


@pytest.mark.parametrize("legend", [True, False])
async def test_a_job_ends_as_it_would_when_its_model_is_gone_by_then(
    w: world.World, tmp_path: Path, legend: bool
) -> None:
    """A version is deleted to be pushed again, or a newer one is more than this worker can read: a
    job's files have its regions and its classes nevertheless. One whose images were finished before
    there were legends is read by its manifest."""
    plan = await planned(w)
    await finish(w, plan, Masking(w.store, tmp_path))
    image = json.loads(
        await w.store.get(keys.image_artifact(plan.job_id, plan.image_id, "coco.json"))
    )
    if legend:
        await w.store.delete_prefix(keys.MODELS)
    else:
        await w.store.delete(keys.job_legend(w.job_id))
    closing = Closing(w.store, w.producer, Imaging(w.store, 2))
    ids = [bytes.fromhex(plan.image_id)]
    assert await closing.close(w.job_id, ids, size=1, cancelled=False, timings=Timings())
    job = json.loads(await w.store.get(keys.result(w.job_id, "coco.json")))
    assert job["annotations"] == image["annotations"]
    assert [c["name"] for c in job["categories"]] == list(MANIFEST.classes)
    summary = json.loads(await w.store.get(keys.result(w.job_id, "summary.json")))
    assert [c["area_pixels"] for c in summary["classes"]] == [60 * 80 - 25 * 40, 40 * 60]


@pytest.mark.parametrize(
    ("build", "limits", "said"),
    [
        (killed, {}, "again and again"),
        (crashes, {}, "again and again"),
        (greedy, {"memory_mb": 1500}, "FROND_MASKS_MEMORY_MB"),
        (endless, {"timeout_s": 1}, "FROND_MASKS_TIMEOUT_S"),
    ],
)
async def test_what_cannot_be_made_fails_the_image_once(
    w: world.World, tmp_path: Path, build: Any, limits: Any, said: str
) -> None:
    """A child that is killed, crashes, swells or hangs: the image fails with a reason and what to do,
    is not begun for ever, and leaves nothing on disk."""
    plan = await planned(w)
    masking = Masking(w.store, tmp_path, build=build, **limits)
    masking._children._pauses_s = (0.0,)
    outcome = await finish(w, plan, masking)
    assert (outcome.status, outcome.reason) == (ImageStatus.FAILED, Reason.MASKS_FAILED)
    assert said in outcome.detail
    assert outcome.windows.failed == plan.grid.count - plan.windows_skipped
    if build in (killed, crashes):
        assert (tmp_path / "deaths").read_text() == "xx"
    assert not folders(tmp_path)


async def test_one_death_is_forgiven(w: world.World, tmp_path: Path) -> None:
    """The kernel may have killed it for somebody else's hunger: it is made again."""
    plan = await planned(w)
    outcome = await finish(w, plan, Masking(w.store, tmp_path, build=killed_once))
    assert outcome.status is ImageStatus.COMPLETED


async def test_images_leave_nothing_in_the_children(w: world.World, tmp_path: Path) -> None:
    """What a child was told is told once, not once an image and kept for ever."""
    masking = Masking(w.store, tmp_path)
    for n in range(3):
        plan = await planned(w, n)
        await Imaging(w.store, 2, masking).finish(plan.job_id, plan.image_id)
    (child,) = masking._children._children
    assert len(child._known) == 1
    await asyncio.to_thread(masking.close)


def disk(monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
    usage = SimpleNamespace(total=total, used=total - free, free=free)
    monkeypatch.setattr("frond.aggregator.masking.shutil.disk_usage", lambda _: usage)


async def test_an_image_larger_than_the_disk_fails_with_its_reason(
    w: world.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No waiting makes room for it; nothing is fetched."""
    plan = await planned(w)
    disk(monkeypatch, 1000, 1000)
    outcome = await finish(w, plan, Masking(w.store, tmp_path))
    assert outcome.reason is Reason.MASKS_FAILED
    assert "FROND_CACHE_DIR" in outcome.detail
    assert not folders(tmp_path)


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_disk_that_is_full_just_now_is_waited_for(
    w: world.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the chunks are fetched, and where what is made of them finds no room, or a folder for them
    does: an outage that says what it lacks, until somebody makes some."""
    plan = await planned(w)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "mkdir", no_room)
        with pytest.raises(StoreUnavailable, match="no room for masks"):
            await Imaging(w.store, 2).finish(plan.job_id, plan.image_id)
    disk(monkeypatch, 1 << 40, 0)
    masking = Masking(w.store, tmp_path)
    with pytest.raises(StoreUnavailable, match="no room for masks"):
        await Imaging(w.store, 2, masking).finish(plan.job_id, plan.image_id)
    await asyncio.to_thread(masking.close)
    disk(monkeypatch, 1 << 40, 1 << 23)
    masking = Masking(w.store, tmp_path, build=crowded)
    with pytest.raises(StoreUnavailable, match="no room for masks"):
        await Imaging(w.store, 2, masking).finish(plan.job_id, plan.image_id)
    assert not folders(tmp_path)
    monkeypatch.undo()
    with pytest.raises(ReaderFailed, match="No space left"):
        await Imaging(w.store, 2, masking).finish(plan.job_id, plan.image_id)
    await asyncio.to_thread(masking.close)
    outcome = await finish(w, plan, Masking(w.store, tmp_path))
    assert outcome.status is ImageStatus.COMPLETED


async def test_a_missing_chunk_is_no_failure(w: world.World, tmp_path: Path) -> None:
    """Nothing is written, and nothing is said of the image: the reconciler finds what is true."""
    plan = await planned(w)
    (chunk, *_) = chunks_of(plan)
    await w.store.delete(keys.chunk_result(plan.job_id, plan.image_id, chunk.chunk_id))
    masking = Masking(w.store, tmp_path)
    imaging = Imaging(w.store, 1, masking)
    assert await imaging.finish(plan.job_id, plan.image_id, seen=plan.plan_digest) is None
    assert not await w.store.exists(keys.image_classes(plan.job_id, plan.image_id))
    assert not folders(tmp_path)


async def test_an_image_whose_job_was_cancelled_before_its_turn_is_not_made(
    w: world.World, tmp_path: Path
) -> None:
    """Others' masks take long: what was not cancelled when it began to wait may be by then."""
    plan = await planned(w)
    asked = asyncio.Event()

    class Seen(Marks):
        async def there(self, key: str) -> bool:
            found = await super().there(key)
            asked.set()
            return found

    masking = Masking(w.store, tmp_path, build=endless)
    imaging = Imaging(w.store, 1, masking)
    imaging._marks = Seen(w.store, keep_s=0)
    async with asyncio.timeout(60):
        async with masking.slots:
            finishing = asyncio.create_task(
                imaging.finish(plan.job_id, plan.image_id, unless_cancelled=True)
            )
            await asked.wait()
            await w.store.put(keys.job_cancelled(plan.job_id), keys.TOLD)
        assert await finishing is None
    assert not folders(tmp_path)


async def test_whoever_is_cancelled_leaves_no_child(w: world.World, tmp_path: Path) -> None:
    """A worker that stops kills what it was making, and its files go."""
    plan = await planned(w)
    masking = Masking(w.store, tmp_path, build=endless)
    task = asyncio.create_task(Imaging(w.store, 1, masking).finish(plan.job_id, plan.image_id))
    await asyncio.to_thread(until, (tmp_path / "begun").exists, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(120):
        await asyncio.to_thread(masking.close)
    assert not folders(tmp_path)


def test_what_the_dead_have_left_is_removed(tmp_path: Path) -> None:
    """Whoever begins removes the folders of aggregators that were killed; those of one that lives stay."""
    killed = "masks-0123456789abcdef"
    (tmp_path / killed).mkdir()
    (tmp_path / f"{killed}.lock").touch()
    with folder_on_disk(tmp_path, "masks") as living:
        Masking(cast(ObjectStore, None), tmp_path).close()
        assert folders(tmp_path) == [living]
