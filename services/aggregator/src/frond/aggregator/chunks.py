"""What the store holds of an image's chunks: results, and records of those that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from frond.aggregator.images import ChunkFailure, failed_outcome, rejected_outcome
from frond.contracts import keys
from frond.contracts.ids import chunk_id
from frond.contracts.jobs import ImageOutcome
from frond.contracts.plan import ImagePlan
from frond.merge import Detections, from_ipc
from frond.store import ObjectStore

_READS: Final = 8


@dataclass(frozen=True, slots=True)
class Chunks:
    """How many of a plan's chunks are missing, and which failed."""

    missing: int = 0
    failures: tuple[ChunkFailure, ...] = ()
    dismissed: ChunkFailure | None = None

    def outcome(self, plan: ImagePlan) -> ImageOutcome | None:
        """The image's outcome if a chunk of it failed, or was not run in a cancelled job."""
        if self.missing and self.dismissed is not None:
            return rejected_outcome(
                plan.job_id, plan.image_id, plan.image, plan.name, self.dismissed.reason,
                self.dismissed.detail, plan,
            )  # fmt: skip
        return failed_outcome(plan, list(self.failures)) if self.failures else None


class Crowded(Exception):
    """An image's chunks have more rows than may be loaded."""


def failure_key(job_id: str, image_id: str, chunk: str) -> str:
    """Where it is kept that windows of a chunk failed."""
    return f"{keys.chunks_prefix(job_id, image_id)}{chunk}.failed.json"


def dismissal_key(job_id: str, image_id: str) -> str:
    """Where it is kept that chunks were not run because the job was cancelled."""
    return f"{keys.chunks_prefix(job_id, image_id)}dismissed.json"


async def look(store: ObjectStore, plan: ImagePlan) -> Chunks:
    """List a plan's chunks; objects of another plan of the image are passed over."""
    ordinals = {chunk_id(plan.image_id, plan.plan_digest, n): n for n in range(plan.chunks)}
    results: set[int] = set()
    failed: list[str] = []
    dismissal, dismissed = dismissal_key(plan.job_id, plan.image_id), None
    async for item in store.list(keys.chunks_prefix(plan.job_id, plan.image_id)):
        name, _, kind = item.key.rsplit("/", 1)[-1].partition(".")
        ordinal = ordinals.get(name)
        if item.key == dismissal:
            dismissed = ChunkFailure.model_validate_json(await store.get(item.key))
        elif ordinal is None:
            continue
        elif kind == "arrow":
            results.add(ordinal)
        elif kind == "failed.json":
            failed.append(item.key)
    failures = [ChunkFailure.model_validate_json(raw) for raw in await _read(store, failed)]
    there = results | {f.ordinal for f in failures}
    # a chunk that failed whole and was done later by a copy of its event is done
    failures = [f for f in failures if not (f.whole and f.ordinal in results)]
    return Chunks(plan.chunks - len(there), tuple(failures), dismissed)


async def _read(store: ObjectStore, names: Iterable[str]) -> list[bytes]:
    reading = asyncio.Semaphore(_READS)

    async def one(name: str) -> bytes:
        async with reading:
            return await store.get(name)

    return await asyncio.gather(*(one(name) for name in names))


async def load(store: ObjectStore, plan: ImagePlan, most: int) -> list[Detections]:
    """What the plan's chunks hold; no more in memory than so many rows and one chunk's.

    Raises:
        Crowded: there are more.
        ObjectMissing: one is not there.
    """
    reading = asyncio.Semaphore(_READS)
    rows = 0

    async def one(ordinal: int) -> Detections:
        nonlocal rows
        chunk = chunk_id(plan.image_id, plan.plan_digest, ordinal)
        key = keys.chunk_result(plan.job_id, plan.image_id, chunk)
        async with reading:
            raw = await store.get(key) if rows <= most else b""
        # others' rows may have come in the meantime
        if rows > most:
            return Detections.empty()
        part = from_ipc(raw)[0]
        rows += len(part)
        return part

    parts = await asyncio.gather(*(one(n) for n in range(plan.chunks)))
    if rows > most:
        raise Crowded
    return parts
