"""What the tiler knows of jobs: pinned specs, markers, seals; cached as long as that is right."""

from __future__ import annotations

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
from frond.store import ObjectStore
from frond.tiler.decide import completed_spec, spec_of

_CANCEL_S: Final = 2.0
_OPEN_S: Final = 30.0
_MOST: Final = 10_000


class Jobs:
    """Jobs in the object store. Every write may be repeated, and be done by several at once."""

    def __init__(self, store: ObjectStore, registry: Registry) -> None:
        self._store = store
        self._registry = registry
        self._specs: dict[str, JobSpec] = {}
        self._seen: dict[tuple[str, str], tuple[float, bool]] = {}

    async def cancelled(self, job_id: str) -> bool:
        """Whether the job was cancelled; may be two seconds late."""
        return await self._there("cancelled", job_id, keys.job_cancelled(job_id), _CANCEL_S)

    def known_cancelled(self, job_id: str) -> bool:
        """Whether this process has heard that the job was cancelled."""
        return self._seen.get(("cancelled", job_id), (0.0, False))[1]

    async def completed(self, job_id: str) -> bool:
        """Whether the job has ended; may be two seconds late."""
        return await self._there("completed", job_id, keys.job_completed(job_id), _CANCEL_S)

    async def open(self, job_id: str) -> None:
        """Mark the job as not finished, so that the reconciler looks after it."""
        at, _ = self._seen.get(("open", job_id), (-_OPEN_S, False))
        if time.monotonic() - at < _OPEN_S:
            return
        await self._store.put_if_absent(keys.open_marker(job_id), b"")
        crash_point("tiler.open-marked")
        self._remember("open", job_id, True)

    async def cancel(self, job_id: str) -> bool:
        """Mark the job as cancelled; False when whoever has marked it tells the job stage itself."""
        stored = await self._store.put_if_absent(keys.job_cancelled(job_id), b"")
        crash_point("tiler.cancel-stored")
        self._remember("cancelled", job_id, True)
        return stored != keys.TOLD

    async def seal(self, job_id: str, size: int) -> int:
        """Fix how many images the job has; returns what was fixed first."""
        raw = await self._store.put_if_absent(
            keys.job_sealed(job_id), json.dumps({"job_size": size}).encode()
        )
        crash_point("tiler.seal-stored")
        return int(json.loads(raw)["job_size"])

    async def sealed_once(self, job_id: str, size: int) -> None:
        """As :meth:`seal`, asked of the store once in a while only."""
        at, _ = self._seen.get(("sealed", job_id), (-_OPEN_S, False))
        if time.monotonic() - at >= _OPEN_S:
            await self.seal(job_id, size)
            self._remember("sealed", job_id, True)

    async def keep_addresses(self, event: ImageUploaded) -> None:
        """Store whom the job's end is to be told, whether or not the job is ever given a spec."""
        at, _ = self._seen.get(("notify", event.job_id), (-_OPEN_S, False))
        if time.monotonic() - at >= _OPEN_S:
            addresses = event.model_dump_json(include={"webhook_url", "email", "tenant"})
            await self._store.put_if_absent(keys.job_notify(event.job_id), addresses.encode())
            crash_point("tiler.addresses-stored")
            self._remember("notify", event.job_id, True)

    async def pinned(self, event: ImageUploaded) -> JobSpec:
        """The job's spec: that of the first image that could be given a model.

        Raises:
            ModelRejected: nothing is pinned yet, and the model that the image names is not there.
        """
        spec = self._specs.get(event.job_id)
        if spec is None:
            spec = await self._stored(event.job_id) or await self._pin(event)
            if len(self._specs) >= _MOST:
                self._specs.clear()
            self._specs[event.job_id] = spec
        if completed_spec(spec, event) is not spec:
            spec = self._specs[event.job_id] = await self._complete(event, spec)
        return spec

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
        spec = spec_of(event, await self._registry.resolve(event.model), datetime.now(UTC))
        raw = await self._store.put_if_absent(
            keys.job_spec(event.job_id), spec.model_dump_json(exclude_none=True).encode()
        )
        crash_point("tiler.spec-pinned")
        return JobSpec.model_validate_json(raw)

    async def _there(self, kind: str, job_id: str, key: str, keep_s: float) -> bool:
        at, known = self._seen.get((kind, job_id), (-keep_s, False))
        # neither marker is ever taken away again
        if not known and time.monotonic() - at >= keep_s:
            known = await self._store.exists(key)
            self._remember(kind, job_id, known)
        return known

    def _remember(self, kind: str, job_id: str, value: bool) -> None:
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[kind, job_id] = (time.monotonic(), value)
