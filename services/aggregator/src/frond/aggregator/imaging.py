"""The image stage's effects: from an image's stored chunks to its stored outcome.

Everything is read from and written to names made of ids, the outcome last and only once: whatever
is killed is done again to the same bytes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from frond.aggregator import metrics, room
from frond.aggregator.chunks import Chunks, Crowded, dismissal_key, failure_key, load, look
from frond.aggregator.images import ChunkFailure, completed_outcome, is_dismissed, rejected_outcome
from frond.aggregator.masking import ARROW_TYPE, Masking
from frond.aggregator.settings import MAX_IMAGE_DETECTIONS
from frond.artifacts import Legend, write_image_artifacts
from frond.contracts import keys
from frond.contracts.errors import ModelRejected, ObjectMissing, RasterRejected
from frond.contracts.events import ChunkDetected, ImageEmpty, ImageFinished, ImageRejected
from frond.contracts.jobs import ImageOutcome, Timings
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.provenance import provenance
from frond.contracts.reasons import Reason
from frond.masks.table import Polygons
from frond.merge import Detections, merge, to_ipc
from frond.models import Registry, effective_thresholds
from frond.runtime import crash_point, get_logger
from frond.store import Marks, ObjectStore

_SHARED: Final = 4
"""All slots together merge at most one part in so many of what one image may have."""
_log = get_logger(__name__)


class Imaging:
    """Finishes images. Safe to run twice, at once, and beside a zombie.

    Args:
        slots: how many images are merged at once, beside those whose masks are made and one that
            has more than a slot's share of detections.
        max_detections: of one image, as its windows have them: an image with more is turned down.
    """

    def __init__(
        self,
        store: ObjectStore,
        slots: int,
        masking: Masking | None = None,
        max_detections: int = MAX_IMAGE_DETECTIONS,
    ) -> None:
        self.store = store
        self.masking = masking or Masking(store)
        self._slots = asyncio.Semaphore(slots)
        self._max_detections = max_detections
        # memory is bounded for all: what is more than a slot's share is merged one by one
        self._share = max_detections // (_SHARED * slots)
        self._large = asyncio.Lock()
        self.registry = Registry(store)
        self._marks = Marks(store)

    async def outcome(self, job_id: str, image_id: str) -> ImageOutcome | None:
        """The image's stored outcome, if it is finished."""
        try:
            raw = await self.store.get(keys.image_outcome(job_id, image_id))
        except ObjectMissing:
            return None
        return ImageOutcome.model_validate_json(raw)

    async def _cancelled(self, job_id: str, asked: bool) -> bool:
        return asked and await self._marks.there(keys.job_cancelled(job_id))

    async def _deleted(self, job_id: str) -> bool:
        """Whether the job was deleted: what was written of it now would stay for ever."""
        gone = await self._marks.there(keys.tombstone(job_id))
        if gone:
            metrics.LATE.inc()
            _log.info("an event of a job that was deleted is ignored", job_id=job_id)
        return gone

    async def plan(self, job_id: str, image_id: str) -> ImagePlan | None:
        """The image's stored plan, if it was planned."""
        try:
            raw = await self.store.get(keys.image_plan(job_id, image_id))
        except ObjectMissing:
            return None
        return ImagePlan.model_validate_json(raw)

    async def note_failure(self, event: ChunkDetected) -> bool:
        """Store that windows of a chunk failed, before the ledger counts it.

        A cancelled job's image has one record for all chunks that were not run.

        Returns:
            False where the job was deleted: nothing was written then.
        """
        if await self._deleted(event.job_id):
            return False
        key = failure_key(event.job_id, event.image_id, event.chunk_id)
        record = ChunkFailure.of(event).model_dump_json().encode()
        if is_dismissed(event):
            await self.store.put_if_absent(dismissal_key(event.job_id, event.image_id), record)
        else:
            await self.store.put(key, record, "application/json")
        crash_point("aggregator.failure-noted")
        return True

    async def finish(
        self,
        job_id: str,
        image_id: str,
        *,
        timings: Timings | None = None,
        job_size: int | None = None,
        seen: str = "",
        unless_cancelled: bool = False,
    ) -> ImageFinished | None:
        """Merge an image's chunks, write what it gives, and store its outcome.

        Args:
            seen: digest of a plan of which every chunk was seen and none failed: its chunks are
                not listed then.
            unless_cancelled: an image of a cancelled job is left as it is: the job ends without it,
                and merging it would keep others waiting for nothing.

        Returns:
            The event that tells of it; None when the store does not hold the plan or not every
            chunk of it, or the job was cancelled: nothing was written then.
        """
        stored, plan, cancelled = await asyncio.gather(
            self.outcome(job_id, image_id),
            self.plan(job_id, image_id),
            self._cancelled(job_id, unless_cancelled),
        )
        if cancelled:
            return None
        if stored is not None:
            return self._told(stored, plan, timings, job_size)
        if plan is None:
            _log.warning("an image without a plan", job_id=job_id, image_id=image_id)
            return None
        chunks = Chunks() if seen == plan.plan_digest else await look(self.store, plan)
        if chunks.missing and chunks.dismissed is None:
            _log.warning(
                "chunks are missing", job_id=job_id, image_id=image_id, missing=chunks.missing
            )
            return None
        outcome = chunks.outcome(plan)
        took = 0.0
        if outcome is None:
            try:
                merged = await self._made(plan, unless_cancelled)
            except ModelRejected as e:
                # it was removed meanwhile
                merged = _rejected(plan, e.reason, e.detail), 0.0
            if merged is None:
                return None
            outcome, took = merged
            metrics.MERGING.observe(took)
        return await self._store(
            outcome, plan, (timings or Timings()) + Timings(merge=took), job_size
        )

    async def _made(
        self, plan: ImagePlan, unless_cancelled: bool
    ) -> tuple[ImageOutcome, float] | None:
        manifest = await self.registry.manifest(plan.model)
        masks = manifest.task == "segmentation"
        # masks take minutes: they take no place of a merge, only their own partition waits
        slots = self.masking.slots if masks else self._slots
        try:
            return await self._in_turn(slots, plan, manifest, self._share, unless_cancelled)
        except Crowded:
            return await self._in_turn(
                self._large, plan, manifest, self._max_detections, unless_cancelled
            )

    async def reject(self, event: ImageRejected) -> ImageFinished | None:
        """Store that an image was turned down; None as of :meth:`fail`."""
        return await self.fail(
            event.job_id, event.image_id, event.image, event.name, event.reason, event.detail,
            event.job_size,
        )  # fmt: skip

    async def fail(
        self,
        job_id: str,
        image_id: str,
        image: str,
        name: str,
        reason: Reason,
        detail: str,
        job_size: int | None,
    ) -> ImageFinished | None:
        """Store that an image failed, unless it is finished already; None where its job was deleted."""
        plan = await self.plan(job_id, image_id)
        # of a job that is there most images have one, and nothing is asked
        if plan is None and await self._deleted(job_id):
            return None
        outcome = rejected_outcome(job_id, image_id, image, name, reason, detail, plan)
        return await self._store(outcome, plan, Timings(), job_size)

    async def empty(self, event: ImageEmpty) -> ImageFinished | None:
        """Store that an image has no window to run; None when its plan is not stored: it is before
        its event is sent, so the job was deleted since, or the event is not the tiler's."""
        return await self.finish(event.job_id, event.image_id, job_size=event.job_size)

    async def _store(
        self,
        outcome: ImageOutcome,
        plan: ImagePlan | None,
        timings: Timings,
        job_size: int | None,
    ) -> ImageFinished:
        stored = ImageOutcome.model_validate_json(
            await self.store.put_if_absent(
                keys.image_outcome(outcome.job_id, outcome.image_id),
                outcome.model_dump_json(exclude_none=True).encode(),
            )
        )
        crash_point("aggregator.outcome-stored")
        metrics.IMAGES.labels(stored.status.value).inc()
        _log.info(
            "image finished", job_id=stored.job_id, image_id=stored.image_id,
            status=stored.status.value, reason=stored.reason and stored.reason.value,
        )  # fmt: skip
        return self._told(stored, plan, timings, job_size)

    def _told(
        self,
        outcome: ImageOutcome,
        plan: ImagePlan | None,
        timings: Timings | None,
        job_size: int | None,
    ) -> ImageFinished:
        return ImageFinished(
            job_id=outcome.job_id,
            outcome=outcome,
            job_size=job_size or (plan.job_size if plan else None),
            model=plan.model if plan else None,
            timings=timings or Timings(),
        )

    async def _in_turn(
        self,
        turns: asyncio.Semaphore | asyncio.Lock,
        plan: ImagePlan,
        manifest: ModelManifest,
        most: int,
        unless_cancelled: bool,
    ) -> tuple[ImageOutcome, float] | None:
        """:meth:`_merge` when it is this image's turn, and the seconds it took."""
        async with turns:
            # others' masks may have taken an hour before it was this one's turn
            if await self._cancelled(plan.job_id, unless_cancelled):
                return None
            began = time.monotonic()
            outcome = await self._merge(plan, manifest, most)
            return (outcome, time.monotonic() - began) if outcome else None

    async def _merge(
        self, plan: ImagePlan, manifest: ModelManifest, most: int
    ) -> ImageOutcome | None:
        """What the image's chunks give, written; None where one of them is not there.

        Raises:
            Crowded: they have more than so many rows, and fewer than an image may have, perhaps.
        """
        try:
            merged, polygons = await self._found(plan, manifest, most)
        except ObjectMissing as e:
            _log.warning("a chunk is missing", image_id=plan.image_id, error=str(e))
            return None
        except Crowded:
            if most < self._max_detections:
                raise
            return _rejected(
                plan, Reason.TOO_MANY,
                f"The model finds more than {most} objects in the windows of this image; no more "
                "are taken. Ask for a higher score, or cut the image into parts.",
            )  # fmt: skip
        except RasterRejected as e:
            return _rejected(plan, e.reason, e.detail)
        outcome = completed_outcome(plan, _by_class(merged, manifest.classes))
        with room.needed_for("an image's files"):
            await asyncio.gather(
                self._keep_legend(plan.job_id, manifest),
                self._write_detections(plan, merged),
                write_image_artifacts(
                    self.store,
                    plan,
                    outcome,
                    merged,
                    manifest,
                    polygons=polygons,
                    stored=lambda name: crash_point(f"aggregator.image-{name}"),
                ),
            )
        return outcome

    async def _found(
        self, plan: ImagePlan, manifest: ModelManifest, most: int
    ) -> tuple[Detections, Polygons | None]:
        """The image's detections; those of a segmentation as regions, too."""
        if manifest.task == "segmentation":
            regions = await self.masking.make(plan, manifest)
            windows = regions.windows(plan.grid)
            return Detections.of(regions.boxes, regions.scores, regions.classes, windows), regions
        parts = await load(self.store, plan, most)
        iou = effective_thresholds(manifest, plan.thresholds).merge_iou
        return await asyncio.to_thread(_merged, parts, plan, iou), None

    async def _keep_legend(self, job_id: str, manifest: ModelManifest) -> None:
        key = keys.job_legend(job_id)
        if self._marks.known(key):
            return
        legend = Legend(task=manifest.task, classes=manifest.classes)
        await self.store.put(key, legend.model_dump_json().encode(), "application/json")
        self._marks.made(key)

    async def legend(self, job_id: str) -> Legend | None:
        """What says how the job's finds are to be read, if any image of it had its windows merged."""
        try:
            return Legend.model_validate_json(await self.store.get(keys.job_legend(job_id)))
        except ObjectMissing:
            return None

    async def _write_detections(self, plan: ImagePlan, merged: Detections) -> None:
        data = await asyncio.to_thread(
            to_ipc, merged, {"image_id": plan.image_id, **provenance(plan)}
        )
        await self.store.put(
            keys.image_detections(plan.job_id, plan.image_id), data,
            ARROW_TYPE,
        )  # fmt: skip
        crash_point("aggregator.detections-stored")


def _rejected(plan: ImagePlan, reason: Reason, detail: str) -> ImageOutcome:
    return rejected_outcome(plan.job_id, plan.image_id, plan.image, plan.name, reason, detail, plan)


def _merged(parts: list[Detections], plan: ImagePlan, iou: float) -> Detections:
    rows = Detections.concat(parts)
    # whoever loaded them holds them, too
    parts.clear()
    return merge(rows, plan.grid, iou)


def _by_class(detections: Detections, classes: tuple[str, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for index in sorted(set(detections.classes.tolist())):
        name = classes[index] if 0 <= index < len(classes) else f"class {index}"
        counts[name] = int((detections.classes == index).sum())
    return counts
