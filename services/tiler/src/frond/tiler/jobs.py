"""What the tiler knows of jobs: pinned specs, markers, seals; cached as long as that is right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime
from typing import Final

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.events import ImageUploaded
from frond.contracts.jobs import JobSpec
from frond.models.registry import Registry
from frond.runtime import crash_point
from frond.store import Marks, ObjectStore
from frond.tiler.decide import completed_spec, spec_of

_OPEN_S: Final = 30.0
_MOST: Final = 10_000


class Jobs:
    """Jobs in the object store. Every write may be repeated, and be done by several at once."""

    def __init__(self, store: ObjectStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._specs: dict[str, JobSpec] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._marks = Marks(store)
        self._asking: dict[str, asyncio.Future[None]] = {}

    async def look(self, job_id: str) -> None:
        """Ask the store at once for what is asked of a job one after the other from here on.

        A job's seal and its images come together: who comes while it is asked waits for the answers.
        """
        asking = self._asking.get(job_id)
        if asking is None:
            asking = self._asking[job_id] = asyncio.ensure_future(self._ask(job_id))
            asking.add_done_callback(lambda _: self._asking.pop(job_id, None))
        # whoever is cancelled leaves the others their answers
        await asyncio.shield(asking)

    async def _ask(self, job_id: str) -> None:
        await asyncio.gather(
            self.completed(job_id),
            self.cancelled(job_id),
            self._look(job_id, "open", keys.open_marker(job_id)),
            self._look(job_id, "sealed", keys.job_sealed(job_id)),
            self._look_at_spec(job_id),
        )

    async def _look_at_spec(self, job_id: str) -> None:
        # one that is none troubles whoever needs it
        with contextlib.suppress(ValueError):
            await self._known_spec(job_id)

    async def _look(self, job_id: str, kind: str, key: str) -> None:
        if not self._lately(kind, job_id) and await self._store.exists(key):
            self._remember(kind, job_id)

    async def cancelled(self, job_id: str) -> bool:
        """Whether the job was cancelled; may be two seconds late."""
        return await self._marks.there(keys.job_cancelled(job_id))

    def known_cancelled(self, job_id: str) -> bool:
        """Whether this process has heard that the job was cancelled."""
        return self._marks.known(keys.job_cancelled(job_id))

    async def completed(self, job_id: str) -> bool:
        """Whether the job has ended; may be two seconds late."""
        return await self._marks.there(keys.job_completed(job_id))

    async def deleted(self, job_id: str) -> bool:
        """Whether the job was deleted: of one that was, its cancellation alone is left, for those who
        come late. May be two seconds late itself."""
        if not await self.cancelled(job_id) or await self.completed(job_id):
            return False
        return not await self._store.exists(keys.open_marker(job_id))

    async def open(self, job_id: str) -> None:
        """Mark the job as not finished, so that the reconciler looks after it."""
        if self._lately("open", job_id):
            return
        await self._store.put_if_absent(keys.open_marker(job_id), b"")
        crash_point("tiler.open-marked")
        self._remember("open", job_id)

    async def cancel(self, job_id: str) -> bool:
        """Mark the job as cancelled; False when whoever has marked it tells the job stage itself."""
        stored = await self._store.put_if_absent(keys.job_cancelled(job_id), b"")
        crash_point("tiler.cancel-stored")
        self._marks.made(keys.job_cancelled(job_id))
        return stored != keys.TOLD

    async def seal(self, job_id: str, size: int) -> int:
        """Fix how many images the job has; returns what was fixed first."""
        # whoever says it has stored it, as a rule
        raw = await self._store.get_or_put(
            keys.job_sealed(job_id), json.dumps({"job_size": size}).encode()
        )
        crash_point("tiler.seal-stored")
        return int(json.loads(raw)["job_size"])

    async def sealed_once(self, job_id: str, size: int) -> None:
        """As :meth:`seal`, asked of the store once in a while only."""
        if not self._lately("sealed", job_id):
            await self.seal(job_id, size)
            self._remember("sealed", job_id)

    async def keep_addresses(self, event: ImageUploaded) -> None:
        """Store whom the job's end is to be told, whether or not the job is ever given a spec."""
        spec = self._specs.get(event.job_id)
        if spec is not None and completed_spec(spec, event) is spec:
            return  # it tells of all that are to be told
        if not self._lately("notify", event.job_id):
            addresses = event.model_dump_json(include={"webhook_url", "email", "tenant"})
            await self._store.put_if_absent(keys.job_notify(event.job_id), addresses.encode())
            crash_point("tiler.addresses-stored")
            self._remember("notify", event.job_id)

    async def pinned(self, event: ImageUploaded) -> JobSpec:
        """The job's spec: that of the first image that could be given a model.

        Raises:
            ModelRejected: nothing is pinned yet, and the model that the image names is not there, or
                the shadow that it names cannot run beside it.
        """
        spec = await self._known_spec(event.job_id)
        if spec is None:
            spec = self._keep(await self._pin(event))
        if completed_spec(spec, event) is not spec:
            spec = self._specs[event.job_id] = await self._complete(event, spec)
        return spec

    async def _known_spec(self, job_id: str) -> JobSpec | None:
        known = self._specs.get(job_id)
        if known is None:
            found = await self._stored(job_id)
            known = self._keep(found) if found is not None else None
        return known

    def _keep(self, spec: JobSpec) -> JobSpec:
        if len(self._specs) >= _MOST:
            self._specs.clear()
        # of two that were read, the first is the one that may have been completed since
        return self._specs.setdefault(spec.job_id, spec)

    async def _complete(self, event: ImageUploaded, known: JobSpec) -> JobSpec:
        # what we have cached may be older than what another image has completed already
        spec = await self._stored(event.job_id) or known
        full = completed_spec(spec, event)
        if full is not spec:
            await self._store.put(
                keys.job_spec(event.job_id),
                full.model_dump_json(exclude_none=True).encode(),
                "application/json",
            )
            crash_point("tiler.spec-completed")
        return full

    async def _stored(self, job_id: str) -> JobSpec | None:
        try:
            return JobSpec.model_validate_json(await self._store.get(keys.job_spec(job_id)))
        except ObjectMissing:
            return None

    async def _pin(self, event: ImageUploaded) -> JobSpec:
        model = await self._registry.resolve(event.model)
        shadow = await self._registry.shadows.pinned(model, event.model, event.shadow)
        spec = spec_of(event, model, datetime.now(UTC), shadow)
        raw = await self._store.put_if_absent(
            keys.job_spec(event.job_id), spec.model_dump_json(exclude_none=True).encode()
        )
        crash_point("tiler.spec-pinned")
        return JobSpec.model_validate_json(raw)

    def _lately(self, kind: str, job_id: str) -> bool:
        return time.monotonic() - self._seen.get((kind, job_id), float("-inf")) < _OPEN_S

    def _remember(self, kind: str, job_id: str) -> None:
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[kind, job_id] = time.monotonic()
