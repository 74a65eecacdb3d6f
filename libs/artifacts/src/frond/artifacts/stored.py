"""Artifacts of what lies in the object store, written into it.

A job's images are read ahead, few and small enough that memory does not grow with the job.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final

from frond.artifacts.common import ImageResult, JobInfo, Legend
from frond.artifacts.writer import write_image, write_job
from frond.contracts import keys
from frond.contracts.jobs import Artifact, ImageOutcome, ImageStatus, JobSpec
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.masks.table import Polygons
from frond.masks.table import from_ipc as polygons_from_ipc
from frond.merge import Detections, from_ipc
from frond.store import MultipartWriter, ObjectStore

IMAGES_AHEAD: Final = 16
DETECTIONS_AHEAD: Final = 250_000
SEGMENTED_AHEAD: Final = 2
"""Images with regions: a few large ones may have hundreds of megabytes of outlines."""


async def write_image_artifacts(
    store: ObjectStore,
    plan: ImagePlan,
    outcome: ImageOutcome,
    detections: Detections,
    manifest: ModelManifest,
    *,
    polygons: Polygons | None = None,
    stored: Callable[[str], None] = lambda _: None,
) -> Sequence[Artifact]:
    """Write one completed image's files to ``images/{image}/``, side by side.

    Args:
        polygons: the detections as regions, where the model finds those.
        stored: called in a thread with the name of each file once it is there.

    Raises:
        StoreUnavailable: the store does not take them; files that are there are whole.
    """
    job = JobInfo(plan.job_id, plan.model, manifest, plan.thresholds)
    files = _Files(store, lambda n: keys.image_artifact(plan.job_id, plan.image_id, n), stored)
    made = await asyncio.to_thread(
        write_image,
        ImageResult(outcome, plan, detections, polygons),
        job,
        files.open,
        files.uri,
        bucket=store.bucket,
    )
    await files.close()
    return made


async def write_job_artifacts(
    store: ObjectStore,
    job_id: str,
    outcomes: Iterable[ImageOutcome],
    spec: JobSpec | None,
    manifest: ModelManifest | Legend | None,
    *,
    stored: Callable[[str], None] = lambda _: None,
) -> Sequence[Artifact]:
    """Write a job's files to ``results/``, from the stored plans and merged detections.

    Args:
        outcomes: every image's, in the order of (name, image id); iterated several times, in one thread.
        spec: None where no image was ever accepted; then ``manifest`` is None, too.
        stored: called in a thread with the name of each file once it is there.

    Raises:
        ObjectMissing: a completed image's plan, detections or regions are gone.
        StoreUnavailable: the store does not answer; files that are there are whole.
    """
    job = JobInfo(
        job_id,
        spec.model if spec else None,
        manifest,
        *((spec.thresholds,) if spec else ()),
    )
    results = _ReadAhead(
        store, job_id, outcomes, asyncio.get_running_loop(),
        regions=manifest is not None and manifest.task == "segmentation",
    )  # fmt: skip
    files = _Files(store, lambda name: keys.result(job_id, name), stored)
    try:
        made = await asyncio.to_thread(write_job, results, outcomes, job, files.open, files.uri)
    except asyncio.CancelledError:
        # a thread cannot be cancelled: its next image fails, and its files are never seen
        results.stop()
        raise
    await files.close()
    return made


class _Files:
    """Files that are written one beside the other, and appear together once all are written.

    Args:
        key: a file's key by its name.
        stored: called in a thread with the name of each file once it is there.
    """

    def __init__(
        self, store: ObjectStore, key: Callable[[str], str], stored: Callable[[str], None]
    ) -> None:
        self._store = store
        self._key = key
        self._stored = stored
        self._written: list[tuple[str, MultipartWriter]] = []

    def uri(self, name: str) -> str:
        return self._store.uri(self._key(name))

    @contextmanager
    def open(self, name: str, media_type: str) -> Iterator[MultipartWriter]:
        """An ``OpenSink``, whose file does not appear before :meth:`close`."""
        writer = self._store.writer(self._key(name), media_type)
        try:
            yield writer
        except BaseException:
            writer.abort()
            raise
        self._written.append((name, writer))

    async def close(self) -> None:
        """Let the files appear, each whole.

        Raises:
            StoreUnavailable: the store does not take one of them.
        """

        def appear(name: str, writer: MultipartWriter) -> None:
            writer.close()
            self._stored(name)

        await asyncio.gather(*(asyncio.to_thread(appear, *one) for one in self._written))


class _ReadAhead:
    """Iterates a job's images in a thread, while the loop reads those that come next."""

    def __init__(
        self,
        store: ObjectStore,
        job_id: str,
        outcomes: Iterable[ImageOutcome],
        loop: asyncio.AbstractEventLoop,
        *,
        regions: bool,
    ) -> None:
        self._store = store
        self._job_id = job_id
        self._outcomes = outcomes
        self._loop = loop
        self._regions = regions
        self._most = SEGMENTED_AHEAD if regions else IMAGES_AHEAD
        self._ahead: deque[tuple[int, Future[ImageResult]]] = deque()
        self._stopped = False

    def __iter__(self) -> Iterator[ImageResult]:
        held = 0
        try:
            for outcome in self._outcomes:
                weight = sum(outcome.detections.values())
                while self._ahead and (
                    len(self._ahead) >= self._most or held + weight > DETECTIONS_AHEAD
                ):
                    done, result = self._next()
                    held -= done
                    yield result
                    del result
                self._check()
                future = asyncio.run_coroutine_threadsafe(self._load(outcome), self._loop)
                self._ahead.append((weight, future))
                held += weight
            while self._ahead:
                yield self._next()[1]
        finally:
            for _, future in self._ahead:
                future.cancel()

    def _next(self) -> tuple[int, ImageResult]:
        weight, future = self._ahead[0]
        result = future.result()
        self._ahead.popleft()
        return weight, result

    def _check(self) -> None:
        if self._stopped:
            raise asyncio.CancelledError

    def stop(self) -> None:
        """Let the iterating thread fail soon."""
        self._stopped = True
        for _, future in tuple(self._ahead):
            future.cancel()

    async def _load(self, outcome: ImageOutcome) -> ImageResult:
        if outcome.status is not ImageStatus.COMPLETED:
            return ImageResult(outcome)
        of_plan = self._store.get(keys.image_plan(self._job_id, outcome.image_id))
        if not any(outcome.detections.values()):
            return ImageResult(outcome, ImagePlan.model_validate_json(await of_plan))
        planned, data = await asyncio.gather(
            of_plan, self._store.get(keys.image_detections(self._job_id, outcome.image_id))
        )
        detections, _ = await asyncio.to_thread(from_ipc, data)
        plan, polygons = ImagePlan.model_validate_json(planned), await self._polygons(outcome)
        return ImageResult(outcome, plan, detections, polygons)

    async def _polygons(self, outcome: ImageOutcome) -> Polygons | None:
        if not self._regions:
            return None
        data = await self._store.get(keys.image_polygons(self._job_id, outcome.image_id))
        return (await asyncio.to_thread(polygons_from_ipc, data))[0]
