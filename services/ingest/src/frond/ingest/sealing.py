"""Sealing a job at the images it was given, none of them left out.

Who adds an image claims its name, then looks whether the job is closed or being closed, then
records it. Who seals marks the job as being closed, then waits until every claim has its record.
So of the two, one always sees the other. Each who seals has a mark of its own: one that gives up takes
away no other's.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.ids import image_id
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, places
from frond.ingest.context import Ingest, age
from frond.ingest.intake import LEASE_S, File
from frond.ingest.manifests import seals_itself
from frond.ingest.problems import Refused
from frond.runtime import crash_point
from frond.store import Listed

_PATIENCE_S: Final = 15.0  # well below intake.SEALING_S
_LONGEST_PAUSE_S: Final = 2.0


async def seal(ingest: Ingest, job_id: str, size: int | None, traceparent: str) -> int:
    """Close a job at ``size`` images, by default at those it has; returns its size.

    With more than it has, it stays open for those that are missing.

    Raises:
        Refused: CONFLICT: it has more images, was sealed with another size, is still being read
            in, or images are still on their way. TOO_MANY: it may not have so many.
    """
    sealed = await _stored(ingest, job_id)
    if sealed is not None and not sealed.get("declared"):
        # whoever sealed it may have died before this; the size that is stored closes the job now
        await ingest.store.delete_prefix(places.sealing(job_id))
        wanted = int(sealed["job_size"]) if size is None else size
        return await desk.seal(ingest, job_id, wanted, traceparent)
    if sealed is None and await seals_itself(ingest, job_id):
        raise Refused(
            Reason.CONFLICT,
            f"The images of job {job_id!r} are still being read in; it seals itself.",
            headers={"Retry-After": "5"},
        )
    mark = places.sealing_by(job_id, intake.new_attempt())
    await ingest.store.put(mark, b"", "application/octet-stream")
    crash_point("ingest.sealing-marked")
    try:
        has = await _settled(ingest, job_id)
        if size is None:
            size = has if sealed is None else int(sealed["job_size"])
        if size < has:
            raise Refused(
                Reason.CONFLICT,
                f"Job {job_id!r} has {has} images already, more than {size}. "
                "Seal it without a size to take all of them.",
            )
        if sealed is None and size > has:
            # a size that it has is no wish: it was declared before there was this limit
            desk.require_size(ingest, size)
        await desk.seal(ingest, job_id, size, traceparent, declared=size > has)
        if size == has:
            # closed for good: the marks of those who died guard nothing any more
            await ingest.store.delete_prefix(places.sealing(job_id))
        return size
    finally:
        await ingest.store.delete(mark)
        crash_point("ingest.sealing-ended")


async def _stored(ingest: Ingest, job_id: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(await ingest.store.get(keys.job_sealed(job_id))))
    except ObjectMissing:
        return None


async def _settled(ingest: Ingest, job_id: str) -> int:
    """How many images are recorded, once no claim waits for its record."""
    deadline = time.monotonic() + _PATIENCE_S
    pause = 0.1
    while True:
        claims = [c async for c in ingest.store.list(places.claims(job_id)) if c.size]
        prefix = keys.job_inputs(job_id)
        recorded = {
            r.key.removeprefix(prefix).removesuffix(".json")
            async for r in ingest.store.list(prefix)
        }
        under_way = 0
        if len(claims) > len(recorded):
            under_way = await _under_way(ingest, job_id, claims, recorded)
        if not under_way:
            return len(recorded)
        if time.monotonic() > deadline:
            raise Refused(
                Reason.CONFLICT,
                f"{under_way} images of job {job_id!r} are still being stored. "
                "Seal it once they are answered.",
                headers={"Retry-After": "5"},
            )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


async def _under_way(ingest: Ingest, job_id: str, claims: list[Listed], recorded: set[str]) -> int:
    async def waits(claim: Listed) -> bool:
        try:
            raw = await ingest.store.get(claim.key)
        except ObjectMissing:
            return False
        if not raw:
            return False
        file = File.model_validate_json(raw)
        return image_id(job_id, file.image) not in recorded

    # an older claim is a dead request's
    young = [c for c in claims if age(c) < LEASE_S]
    return sum(await intake.in_parallel(young, waits))
