"""Jobs at the counter: begun, looked up, sealed, cancelled, deleted. Objects first, then events.

What makes a job exist is its ``job.json`` (which pins the model) and its marker under ``open/``;
both are there before anything is said on a topic.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime
from typing import Final

from frond.auth import Principal
from frond.bus import Outgoing
from frond.contracts import keys, topics
from frond.contracts.errors import (
    BrokerUnavailable,
    ModelRejected,
    ObjectMissing,
    StoreUnavailable,
)
from frond.contracts.events import JobCancelled, JobSealed
from frond.contracts.ids import check_job_id, parse_s3_uri
from frond.contracts.jobs import JobSpec, JobStatus, ModelRef, Shadow
from frond.contracts.reasons import Reason
from frond.ingest import intake, names, places, presigned, tenancy
from frond.ingest.context import Ingest
from frond.ingest.problems import Refused, not_found
from frond.ingest.readmodel import queries, rebuild
from frond.ingest.readmodel.rows import JobRow
from frond.ingest.wishes import Wish, met, same_but_moved
from frond.runtime import crash_point, get_logger

_DELETE_PATIENCE_S: Final = 15.0
_SEND_PATIENCE_S: Final = 10.0
_SHADOW_PATIENCE_S: Final = 2.0
_SPECS: Final = 1000
_log = get_logger(__name__)


def require_size(ingest: Ingest, size: int | None) -> None:
    """Raise Refused, TOO_MANY, for a job that is to have more images than one may have here."""
    limit = ingest.settings.max_files
    if size is not None and size > limit:
        raise Refused(Reason.TOO_MANY, f"A job may have {limit} images here, not {size}.")


async def pin(ingest: Ingest, job_id: str, wish: Wish, who: Principal) -> JobSpec:
    """Write ``job.json`` with the model resolved; the first to write it wins.

    Raises:
        ModelRejected: nobody knows the model, or the shadow cannot run beside it.
        Refused: the job is there already and was begun with other settings, or by another
            tenant; or was deleted.
    """
    wish.check(ingest.egress)
    await tenancy.require_usable(ingest, job_id, who)
    if await queries.is_deleted(ingest.db, job_id):
        raise Refused(Reason.CONFLICT, f"Job {job_id!r} was deleted; its id cannot be used again.")
    model = await ingest.registry.resolve(wish.model or None)
    spec = JobSpec(
        job_id=job_id, model=model, thresholds=wish.thresholds,
        webhook_url=wish.webhook_url or None, email=wish.email or None, tenant=who.tenant,
        by_key=who.tenant is not None, created=datetime.now(UTC),
        shadow=await _shadow(ingest, job_id, model, wish),
    )  # fmt: skip
    stored = JobSpec.model_validate_json(
        await ingest.store.put_if_absent(keys.job_spec(job_id), spec.model_dump_json().encode())
    )
    crash_point("ingest.spec-stored")
    if stored.tenant != spec.tenant:
        # decides between two tenants at once; an admin's wish is the owner's
        if not who.admin:
            raise tenancy.unusable(job_id)
        spec = spec.model_copy(update={"tenant": stored.tenant})
    # by which door it came to its tenant is nobody's wish
    spec = spec.model_copy(update={"by_key": stored.by_key})
    same = stored.model_copy(update={"created": None}) == spec.model_copy(update={"created": None})
    if not same and not same_but_moved(stored, spec, wish):
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} is there already, with another model, thresholds or addresses.",
        )
    return stored


async def _shadow(ingest: Ingest, job_id: str, model: ModelRef, wish: Wish) -> Shadow | None:
    try:
        return await ingest.registry.shadows.pinned(model, wish.model or None, wish.shadow)
    except ModelRejected:
        # it may have become production since the job began, and a job that began goes on
        with contextlib.suppress(Refused):
            if met(wish, stored := (await spec_of(ingest, job_id)).shadow):
                return stored
        raise


async def shadow_of(ingest: Ingest, job_id: str) -> Shadow | None:
    """What runs beside a job's model, as far as the store tells just now."""
    # a status is told whatever became of job.json, and also while the store is silent
    with contextlib.suppress(Refused, StoreUnavailable, ValueError, TimeoutError):
        async with asyncio.timeout(_SHADOW_PATIENCE_S):
            return (await spec_of(ingest, job_id)).shadow
    return None


async def open_for_work(ingest: Ingest, spec: JobSpec, expected: int | None) -> None:
    """Show the job: its marker, for whoever picks up what was left, and its row."""
    if not await ingest.store.exists(keys.job_completed(spec.job_id)):
        await mark_open(ingest, spec.job_id)
    await show(ingest, spec, expected)


async def mark_open(ingest: Ingest, job_id: str) -> None:
    """From now on the job is one that has not ended, for whoever picks up what was left."""
    await ingest.store.put(keys.open_marker(job_id), b"", "application/octet-stream")
    crash_point("ingest.open-marked")


async def show(ingest: Ingest, spec: JobSpec, expected: int | None) -> None:
    """Put the job into the read model before any event of it was seen."""
    at = int((spec.created or datetime.now(UTC)).timestamp() * 1000)
    await queries.accept(
        ingest.db,
        JobRow(
            spec.job_id, at, at, expected=expected, model_name=spec.model.name,
            model_digest=spec.model.digest, model_version=names.clean_text(spec.model.version),
            tenant=spec.tenant, pinned=spec.tenant is not None,
        ),
    )  # fmt: skip
    crash_point("ingest.row-accepted")
    ingest.hub.changed([spec.job_id])


async def spec_of(ingest: Ingest, job_id: str) -> JobSpec:
    """A job's pinned settings. Raises Refused (404)."""
    check_job_id(job_id)
    if job_id not in ingest.specs:
        try:
            raw = await ingest.store.get(keys.job_spec(job_id))
        except ObjectMissing:
            raise not_found(job_id) from None
        while len(ingest.specs) >= _SPECS:
            ingest.specs.pop(next(iter(ingest.specs)))
        ingest.specs[job_id] = JobSpec.model_validate_json(raw)
    return ingest.specs[job_id]


async def row_of(ingest: Ingest, job_id: str) -> JobRow:
    """A job as the read model has it, or as the store does where that is behind. Refused (404)."""
    check_job_id(job_id)
    row = await queries.job(ingest.db, job_id)
    if row is not None:
        return row
    if await queries.is_deleted(ingest.db, job_id):
        raise not_found(job_id)
    if not await rebuild.show(ingest, job_id):
        raise not_found(job_id)
    row = await queries.job(ingest.db, job_id)
    if row is None:
        raise not_found(job_id)
    return row


async def require_open(ingest: Ingest, job_id: str) -> JobSpec:
    """The job's settings if it is there and has not ended. Raises Refused: 404, or job-closed."""
    spec = await spec_of(ingest, job_id)

    async def ask() -> str:
        return (await row_of(ingest, job_id)).status

    # who is let in is judged once more when the name is claimed: a job that has ended is sealed
    status = await ingest.lately(("status", job_id), ask)
    marker = keys.job_cancelled(job_id)
    if JobStatus(status).final or await ingest.lately(marker, lambda: ingest.store.exists(marker)):
        raise Refused(
            Reason.JOB_CLOSED, f"Job {job_id!r} has ended ({status}) and takes no more images."
        )
    return spec


async def seal(
    ingest: Ingest, job_id: str, size: int, traceparent: str, *, declared: bool = False
) -> int:
    """Close the job at ``size`` images. Sealing again with the same size changes nothing.

    ``declared``: the size is known beforehand, and images are still to come.

    Raises:
        Refused: CONFLICT: it was sealed with another size.
    """
    await fix_size(ingest, job_id, size, declared=declared)
    await tell_sealed(ingest, job_id, size, traceparent)
    return size


async def fix_size(ingest: Ingest, job_id: str, size: int, *, declared: bool = False) -> None:
    """The half of :func:`seal` that is for good."""
    event = JobSealed(job_id=job_id, job_size=size)
    body = json.dumps(event.model_dump(mode="json") | {"declared": declared}).encode()
    stored = json.loads(await ingest.store.put_if_absent(keys.job_sealed(job_id), body))
    if int(stored["job_size"]) != size:
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} is sealed already, with {stored['job_size']} images, not {size}.",
        )
    if stored.get("declared") and not declared:
        await ingest.store.put(keys.job_sealed(job_id), body, "application/json")
    crash_point("ingest.seal-stored")


async def tell_sealed(ingest: Ingest, job_id: str, size: int, traceparent: str) -> None:
    """The other half: it is sent. If Kafka is away now, the sweeper sends it later."""
    out = Outgoing(topics.UPLOADED, JobSealed(job_id=job_id, job_size=size))
    try:
        async with asyncio.timeout(_SEND_PATIENCE_S):
            await ingest.producer.send(out, traceparent=traceparent)
        ingest.seals.told(job_id)
        crash_point("ingest.seal-sent")
    except (BrokerUnavailable, TimeoutError) as e:
        ingest.seals.forget(job_id)
        _log.warning("sealed, to be sent by the sweeper", job_id=job_id, error=repr(e))


async def cancel(ingest: Ingest, job_id: str, traceparent: str) -> JobRow:
    """Stop a job. Raises Refused: there is none, or it has ended otherwise already."""
    row = await row_of(ingest, job_id)
    if JobStatus(row.status).final and row.status != JobStatus.DISMISSED.value:
        raise Refused(Reason.CONFLICT, f"Job {job_id!r} has ended already ({row.status}).")
    marker = keys.job_cancelled(job_id)
    await ingest.store.put(marker, keys.TOLD, "application/octet-stream")
    crash_point("ingest.cancel-stored")
    ingest.learned(marker, True)
    ingest.learned(("status", job_id), JobStatus.DISMISSED.value)
    await tell_cancelled(ingest, job_id, traceparent)
    crash_point("ingest.cancel-sent")
    await presigned.give_up(ingest, places.parts_of(job_id))
    row.status, row.cancelled = JobStatus.DISMISSED.value, True
    return row


async def tell_cancelled(ingest: Ingest, job_id: str, traceparent: str) -> None:
    """Say that a job was cancelled: to where jobs end, so that it waits for nothing that is being
    read or merged; only then to where images are read, so that who hears of it there knows that the
    end was told."""
    for topic in (topics.IMAGED, topics.UPLOADED):
        out = Outgoing(topic, JobCancelled(job_id=job_id))
        await ingest.producer.send(out, traceparent=traceparent)
        crash_point("ingest.cancel-told")


async def delete(ingest: Ingest, job_id: str, traceparent: str) -> None:
    """Remove a job: cancelled first if it runs, then its objects and rows.

    Its events stay in Kafka as long as their topics keep them; a tombstone keeps them from
    bringing it back.
    """
    row = await row_of(ingest, job_id)
    if not JobStatus(row.status).final:
        await cancel(ingest, job_id, traceparent)
    if row.completion is None:
        await _ended(ingest, job_id)
    await ingest.store.put(keys.tombstone(job_id), b"", "application/octet-stream")
    crash_point("ingest.tombstone-stored")
    await finish_deleting(ingest, job_id)


async def finish_deleting(ingest: Ingest, job_id: str) -> None:
    """Remove what is left of a job that has a tombstone. May be repeated; the rows go last."""
    await presigned.give_up(ingest, places.parts_of(job_id))
    for prefix in sorted(await _upload_prefixes(ingest, job_id)):
        await ingest.store.delete_prefix(prefix)
    crash_point("ingest.uploads-deleted")
    await _delete_objects(ingest, job_id)
    crash_point("ingest.objects-deleted")
    await ingest.store.delete(keys.open_marker(job_id))
    crash_point("ingest.job-deleted")
    if not await queries.is_deleted(ingest.db, job_id):
        # the compacted topic forgets a key that is sent without a value
        await ingest.producer.send_raw(topics.STATUS, job_id.encode(), None, [])
        crash_point("ingest.status-cleared")
        await queries.tombstone(ingest.db, job_id, int(time.time() * 1000))
    ingest.counts.pop(job_id, None)
    ingest.specs.pop(job_id, None)
    ingest.hub.changed([job_id])


async def _delete_objects(ingest: Ingest, job_id: str) -> None:
    """Remove all objects of a deleted job but ``cancelled``: by it, workers whom one of the job's
    events still reaches know that there is nothing to do."""
    cancelled = keys.job_cancelled(job_id)
    await ingest.store.put_if_absent(cancelled, b"", "application/octet-stream")
    await ingest.store.delete_prefix(keys.job_prefix(job_id), spare=cancelled)


async def _upload_prefixes(ingest: Ingest, job_id: str) -> set[str]:
    """Where the job's uploads lie: forms have prefixes of their own, which its records tell."""
    records = [f.key async for f in ingest.store.list(keys.job_inputs(job_id))]

    async def prefix_of(key: str) -> str | None:
        try:
            record = json.loads(await ingest.store.get(key))
        except ObjectMissing:
            return None
        bucket, image = parse_s3_uri(record["image"])
        folder, _, file = image.removeprefix(keys.UPLOADS).partition("/")
        # with a hash: it came through here as this job's, and was not merely named by it
        form = image.startswith(f"{keys.UPLOADS}u-") and file and record.get("sha256")
        return places.upload_prefix(folder) if form and bucket == ingest.store.bucket else None

    found = await intake.in_parallel(records, prefix_of)
    return {p for p in found if p} | {f"{keys.UPLOADS}{job_id}/"}


async def _ended(ingest: Ingest, job_id: str) -> None:
    """Wait a while for the workers to let go, so that they leave no object behind."""
    deadline = time.monotonic() + _DELETE_PATIENCE_S
    with ingest.hub.watching(job_id) as bell:
        while (left := deadline - time.monotonic()) > 0:
            row = await queries.job(ingest.db, job_id)
            if row is None or row.completion is not None:
                return
            try:
                await asyncio.wait_for(bell.wait(), min(left, 1.0))
            except TimeoutError:
                continue
            bell.clear()
