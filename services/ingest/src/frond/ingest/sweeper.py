"""What was recorded and never sent, sent again: the other half of the outbox.

Looks at jobs with a marker under ``open/`` only. A job all of whose images were seen on the topic
costs one look at its row, and until the aggregator knows its size now and then one at its seal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Final

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from frond.bus import Outgoing
from frond.contracts import keys, topics
from frond.contracts.envelope import new_traceparent
from frond.contracts.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    ObjectMissing,
    StoreUnavailable,
)
from frond.contracts.events import ImageUploaded
from frond.contracts.jobs import JobStatus
from frond.ingest import desk, intake, listing, metrics, places, presigned, training, uploads
from frond.ingest.context import Ingest, age
from frond.ingest.manifests import Manifest
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries, rebuild
from frond.ingest.readmodel.apply import CONTESTED
from frond.ingest.readmodel.rows import JobRow
from frond.ingest.routes.jobs import caught_up
from frond.runtime import Service, crash_point, get_logger, wait_out
from frond.store import Listed

_PAGE: Final = 400
_DELETED_S: Final = 3600.0
_OUTAGES: Final = (StoreUnavailable, BrokerUnavailable, OperationalError, InterfaceError)
_log = get_logger(__name__)


async def sweep_forever(service: Service, ingest: Ingest) -> None:
    """Sweep every minute until the service is asked to stop. Outages cut a sweep short.

    Not before the read model has caught up: of a database that is new, all that its topics have not
    told yet would be sent again.
    """
    while not service.stop.is_set():
        if ingest.hub.caught_up and not service.health.waiting_for:
            try:
                await sweep(ingest)
            except (StoreUnavailable, BrokerUnavailable, SQLAlchemyError) as e:
                _log.warning("a sweep was cut short", error=repr(e))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(service.stop.wait(), ingest.settings.sweep_seconds)


async def remember_first(ingest: Ingest) -> None:
    """:func:`remember`, if the database is new: before the first event is applied to it.

    Whether it is new is told by its offsets, which the reader writes; so this comes before it.
    """

    async def once() -> None:
        try:
            if await queries.count_offsets(ingest.db) == 0:
                await ingest.store.ensure_bucket()
                await remember(ingest)
                crash_point("ingest.remembered")
        except (OperationalError, InterfaceError) as e:
            raise DatabaseUnavailable(str(e)) from e

    await wait_out(once, what="reading what only the store knows")


async def remember(ingest: Ingest) -> None:
    """Into a new database, what only the store knows: deleted jobs, and jobs without an image."""
    async for found in ingest.store.list(places.DELETED):
        job_id = found.key.removeprefix(places.DELETED)
        await queries.tombstone(ingest.db, job_id, int(time.time() * 1000))
    async for found in ingest.store.list(keys.OPEN):
        job_id = found.key.removeprefix(keys.OPEN)
        try:
            await desk.row_of(ingest, job_id)
        except _OUTAGES:
            raise
        except Exception as e:
            _log.info("not remembered", job_id=job_id, error=repr(e))


async def sweep(ingest: Ingest) -> int:
    """Go over the open jobs once; returns how many events were sent."""
    sent = 0
    async for found in ingest.store.list(keys.OPEN):
        job_id = found.key.removeprefix(keys.OPEN)
        if age(found) < ingest.settings.sweep_after_seconds:
            continue
        try:
            sent += await sweep_job(ingest, job_id)
        except _OUTAGES:
            raise
        except (Refused, ObjectMissing) as e:
            _log.info("not swept", job_id=job_id, error=str(e))
        except Exception as e:
            # one job that cannot be read must not keep the others from being swept
            _log.error("a job cannot be swept", job_id=job_id, exc_info=e)
    for row in await queries.unsettled_jobs(ingest.db):
        try:
            if row.tenant == CONTESTED:
                # which of them has it is in job.json
                await rebuild.show(ingest, row.job_id)
            # a job whose completed event has left Kafka is still in the store
            await caught_up(ingest, row)
        except _OUTAGES:
            raise
        except Exception as e:
            _log.error("a job cannot be settled by its objects", job_id=row.job_id, exc_info=e)
    async for found in ingest.store.list(places.DELETED):
        if age(found) < _DELETED_S:
            # whoever deleted it may have died; a worker that held it may have written since
            await desk.finish_deleting(ingest, found.key.removeprefix(places.DELETED))
    await training.sweep(ingest)
    await uploads.clear_abandoned(ingest)
    # by then no URL of theirs is good any more
    await presigned.give_up(ingest, older_than=ingest.settings.presign_seconds)
    return sent


async def sweep_job(ingest: Ingest, job_id: str) -> int:
    """Send what one open job still owes its topic; returns how many events that were."""
    row = await queries.job(ingest.db, job_id)
    if await queries.is_deleted(ingest.db, job_id):
        # a late event has opened it again
        await ingest.store.delete(keys.open_marker(job_id))
        return 0
    if row is not None and JobStatus(row.status).final and not row.cancelled:
        return 0
    trace = new_traceparent()
    if await ingest.store.exists(keys.job_cancelled(job_id)):
        if row is not None and row.cancelled:
            return 0
        await desk.tell_cancelled(ingest, job_id, trace)
        crash_point("ingest.cancel-swept")
        return 1
    whole = row is not None and row.expected is not None and row.seen >= row.expected
    sent = 0
    if not whole or await queries.any_unsent(ingest.db, job_id):
        sent = await _resend_images(ingest, job_id, trace)
    if row is None or not _size_was_told(row):
        await _resend_seal(ingest, job_id, trace, whole=whole)
    if sent:
        metrics.SWEPT.inc(sent)
        _log.warning("sent what was never sent", job_id=job_id, events=sent)
    return sent


async def _resend_images(ingest: Ingest, job_id: str, trace: str) -> int:
    await _finish_manifest(ingest, job_id, trace)
    with contextlib.suppress(ObjectMissing):
        await listing.expand(ingest, job_id, trace)
    return await _resend_inputs(ingest, job_id, trace)


async def _finish_manifest(ingest: Ingest, job_id: str, trace: str) -> None:
    """Records of an upload whose process died while it wrote them."""
    try:
        raw = await ingest.store.get(places.manifest(job_id))
    except ObjectMissing:
        return
    manifest = Manifest.model_validate_json(raw)
    recorded = 0
    async for _ in ingest.store.list(keys.job_inputs(job_id)):
        recorded += 1
    if recorded < len(manifest.files):
        spec = await desk.spec_of(ingest, job_id)
        await uploads.carry_out(ingest, spec, manifest, trace)


async def _resend_inputs(ingest: Ingest, job_id: str, trace: str) -> int:
    sent = 0
    page: list[Listed] = []

    async def send(some: list[Listed]) -> int:
        ids = [i.key.rsplit("/", 1)[-1].removesuffix(".json") for i in some]
        seen = await queries.uploaded_ids(ingest.db, job_id, ids)
        unseen = [i for i in ids if i not in seen]

        async def read(image_id: str) -> ImageUploaded:
            raw = await ingest.store.get(keys.job_input_record(job_id, image_id))
            return ImageUploaded.model_validate_json(raw)

        events = await intake.in_parallel(unseen, read)
        await ingest.producer.send(
            [Outgoing(topics.UPLOADED, e) for e in events], traceparent=trace
        )
        if events:
            crash_point("ingest.swept")
        return len(events)

    async for found in ingest.store.list(keys.job_inputs(job_id)):
        if age(found) < ingest.settings.sweep_after_seconds:
            continue
        page.append(found)
        if len(page) == _PAGE:
            sent += await send(page)
            page = []
    return sent + (await send(page) if page else 0)


def _size_was_told(row: JobRow) -> bool:
    """Whether the aggregator has said how many images the job has."""
    snapshot = json.loads(row.snapshot) if row.snapshot else {}
    return snapshot.get("images", {}).get("expected") is not None


async def _resend_seal(ingest: Ingest, job_id: str, trace: str, *, whole: bool) -> None:
    """Send the job's seal, if it has one, unless this process has done so lately."""
    if ingest.seals.told_lately(job_id):
        return
    try:
        sealed = json.loads(await ingest.store.get(keys.job_sealed(job_id)))
    except ObjectMissing:
        if whole:
            # its images' own events say its size
            ingest.seals.told(job_id)
        return
    await desk.tell_sealed(ingest, job_id, int(sealed["job_size"]), trace)
