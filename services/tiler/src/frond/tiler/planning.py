"""A plan for each image: from the store if there is one, made in a reader process if not."""

from __future__ import annotations

import asyncio
import errno
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from frond.contracts import keys
from frond.contracts.errors import (
    BrokerUnavailable,
    ObjectMissing,
    RasterRejected,
    StoreUnavailable,
    UserError,
)
from frond.contracts.events import ImageUploaded
from frond.contracts.ids import parse_s3_uri
from frond.contracts.jobs import JobSpec, ModelRef
from frond.contracts.plan import ImagePlan
from frond.contracts.reasons import Reason
from frond.models.registry import Registry
from frond.raster import DOUBTFUL, HEAD_BYTES, JUDGED_BYTES, PlanRequest
from frond.raster.sandbox import Sandbox
from frond.runtime import crash_point, get_logger
from frond.store import ObjectStore, Stat
from frond.tiler import metrics
from frond.tiler.decide import image_name, thresholds_of
from frond.tiler.reading import Copied, ModelNeeded, Task, plan_raster
from frond.tiler.settings import TilerSettings

_ATTEMPTS: Final = 2
# nothing was known of the object before: an outage may look like these, too
_DOUBTFUL: Final = DOUBTFUL | {Reason.OBJECT_MISSING, Reason.NOT_A_RASTER}
# a line that crawls takes as long as a raster that never ends
_AGAIN: Final = _DOUBTFUL | {Reason.OBJECT_CHANGED, Reason.READ_TIMEOUT}
# a model that brings its reader down, or is too large or too slow for it, does the same
_MAYBE_THE_MODEL: Final = {
    Reason.READER_DIED, Reason.UNAVAILABLE, Reason.TOO_LARGE, Reason.READ_TIMEOUT
}  # fmt: skip
_log = get_logger(__name__)

Seen = tuple[Stat, bytes]
"""An object's size and ETag, and its first bytes."""


class Planner:
    """Plans images, each once: whoever comes later is given what was stored first.

    Args:
        scratch: a folder of this process's own, for copies.
    """

    def __init__(
        self,
        settings: TilerSettings,
        store: ObjectStore,
        registry: Registry,
        sandbox: Sandbox,
        scratch: Path,
    ) -> None:
        self.settings = settings
        self.store = store
        self.registry = registry
        self.sandbox = sandbox
        self.scratch = scratch
        self._copies = itertools.count()
        self._fetching: dict[str, asyncio.Lock] = {}

    async def stored(self, event: ImageUploaded) -> bytes | None:
        """The plan that was stored for the image, if one was."""
        try:
            return await self.store.get(keys.image_plan(event.job_id, event.image_id))
        except ObjectMissing:
            return None

    async def look(self, event: ImageUploaded) -> Seen | None:
        """What planning asks of an image first; None: it will ask again, and say what is wrong."""
        bucket, key = parse_s3_uri(event.image)
        if bucket not in self.settings.buckets:
            return None
        try:
            return await self.store.head_bytes(key, HEAD_BYTES, bucket=bucket)
        except (ObjectMissing, StoreUnavailable):
            return None

    async def plan(
        self, event: ImageUploaded, spec: JobSpec, seen: Seen | None = None
    ) -> ImagePlan:
        """A new plan, stored before it is used; another's, if that was stored first.

        Args:
            seen: of the image, just now.
        """
        key = keys.image_plan(event.job_id, event.image_id)
        began = time.monotonic()
        doubtful = False
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                plan = await self._make_plan(event, spec, seen, whole=doubtful)
                break
            except (UserError, StoreUnavailable, BrokerUnavailable) as e:
                seen = None
                if not isinstance(e, RasterRejected) or e.reason not in _AGAIN:
                    raise
                if attempt == _ATTEMPTS:
                    # raises when the store is away: then the raster is not to blame
                    await self._head(*parse_s3_uri(event.image))
                    raise
                # GDAL takes an answer that broke off for the object's end, and says so to nobody
                doubtful = e.reason is not Reason.OBJECT_CHANGED
            except Exception as e:
                if attempt == _ATTEMPTS:
                    raise
                _log.warning("planning failed once", image_id=event.image_id, exc_info=e)
        metrics.PLANNING.observe(time.monotonic() - began)
        raw = await self.store.put_if_absent(key, plan.model_dump_json(exclude_none=True).encode())
        crash_point("tiler.plan-stored")
        stored = ImagePlan.model_validate_json(raw)
        metrics.WINDOWS.labels("skipped").inc(stored.windows_skipped)
        metrics.WINDOWS.labels("run").inc(stored.grid.count - stored.windows_skipped)
        return stored

    async def _make_plan(
        self, event: ImageUploaded, spec: JobSpec, seen: Seen | None, *, whole: bool = False
    ) -> ImagePlan:
        """Plan an image; ``whole``: from a local copy of it, if it is not too large for that."""
        bucket, key = parse_s3_uri(event.image)
        stat, head = seen or await self._head(bucket, key)
        request = PlanRequest(
            job_id=event.job_id,
            image_id=event.image_id,
            image=event.image,
            name=image_name(event),
            uri=event.image,
            etag=stat.etag,
            size=stat.size,
            model=spec.model,
            manifest=await self.registry.manifest(spec.model),
            thresholds=thresholds_of(event, spec),
            shadow=spec.shadow,
            job_size=event.job_size,
            checksum=stat.etag,
            windows_per_chunk=self.settings.windows_per_chunk,
            chunk_mb=self.settings.chunk_mb,
            limits=self.settings.limits,
        )
        # whoever clears temporary files may have taken the folder, too
        self.scratch.mkdir(parents=True, exist_ok=True)
        copy = self.scratch / f"{event.image_id}-{next(self._copies)}.tif"
        timeout = self.settings.tiler_timeout_s + stat.size / 1e6

        def clear() -> None:
            # also what a reader has left that was killed on its way
            for left in self.scratch.glob(copy.name + "*"):
                left.unlink(missing_ok=True)

        try:
            path = event.image
            if whole and stat.size <= JUDGED_BYTES:
                local = copy.with_name(f"{copy.name}.whole")
                await self.store.get_file(key, local, bucket=bucket)
                path = str(local)
            task = Task(request, path, head, copy)
            made = await self._read(task, timeout, clear, last=whole)
            if isinstance(made, ImagePlan):
                return made
            plan = await self._plan_copy(request, made.path, timeout)
        finally:
            clear()
        # inference sees the copy alone: an image replaced while it was copied shows only here
        if (await self._head(bucket, key))[0].etag != stat.etag:
            raise RasterRejected(
                Reason.OBJECT_CHANGED,
                "The image was replaced in the store while it was read. Send it in another job, "
                "once its upload is done.",
            )
        return plan

    async def _read(
        self,
        task: Task,
        timeout_s: float,
        clear: Callable[[], None] | None = None,
        *,
        last: bool,
    ) -> ImagePlan | Copied:
        """What a reader makes of a task; ``last``: a time-out is no slow line's any more."""
        made = await self.sandbox.run(plan_raster, task, timeout_s, abandoned=clear)
        if isinstance(made, ModelNeeded):
            # few rasters lack a scale: the others need not wait for a model
            task = replace(task, model=await self._fetch(task.request.model))
            try:
                made = await self.sandbox.run(plan_raster, task, timeout_s, abandoned=clear)
            except RasterRejected as e:
                again = e.reason is Reason.READ_TIMEOUT and not last
                if e.reason not in _MAYBE_THE_MODEL or again:
                    raise
                _log.warning(
                    "no scale estimated", image_id=task.request.image_id, reason=e.reason.value
                )
                # where the raster itself is to blame, it fails again
                task = replace(task, not_asked=e.reason.value)
                made = await self.sandbox.run(plan_raster, task, timeout_s, abandoned=clear)
        assert not isinstance(made, ModelNeeded)
        return made

    async def _fetch(self, ref: ModelRef) -> Path:
        # images in flight are mostly of one model: they need not each fetch it
        async with self._fetching.setdefault(ref.digest, asyncio.Lock()):
            try:
                return await self.registry.fetch(ref, self.settings.cache)
            except OSError as e:
                if e.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise StoreUnavailable(
                        f"no room for {ref.name} in {self.settings.cache}"
                    ) from e
                raise

    async def _head(self, bucket: str, key: str) -> Seen:
        try:
            return await self.store.head_bytes(key, HEAD_BYTES, bucket=bucket)
        except ObjectMissing:
            raise RasterRejected(
                Reason.OBJECT_MISSING,
                f"There is no object s3://{bucket}/{key}, or Frond may not read it. "
                "Upload it, then send its event again under another job.",
            ) from None

    async def _plan_copy(self, request: PlanRequest, path: Path, timeout: float) -> ImagePlan:
        metrics.COPIES.inc()
        key = keys.cog(request.job_id, request.image_id)
        await self.store.put_file(key, path, "image/tiff; application=geotiff")
        crash_point("tiler.cog-stored")
        stat = await self.store.stat(key)
        copied = replace(request, uri=self.store.uri(key), etag=stat.etag, size=stat.size)
        made = await self._read(Task(copied, str(path), None, None), timeout, last=True)
        assert isinstance(made, ImagePlan)
        return made
