"""A job out of a prefix: its rasters are listed, recorded and published a page at a time.

The wish to list is stored before it is answered, so that a killed process's listing is taken up
again from the start; every step of it may be done twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.contracts.ids import parse_s3_uri
from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, names, places
from frond.ingest.context import Ingest
from frond.ingest.desk import Wish
from frond.ingest.intake import File
from frond.ingest.problems import Refused
from frond.runtime import get_logger

_PAGE: Final = 500
_log = get_logger(__name__)


class Listing(BaseModel):
    """What a job was started with, stored at ``listing.json``; ``done`` once it is sealed."""

    bucket: str
    prefix: str
    done: bool = False


def source_of(ingest: Ingest, s3_url: str) -> tuple[str, str]:
    """Bucket and key or prefix of ``s3_url``. Raises JobRejected or Refused."""
    bare = s3_url.strip()
    # a whole bucket is a prefix, too, and parse_s3_uri wants a key
    whole = bare.removeprefix("s3://").rstrip("/")
    if bare.startswith("s3://") and whole and "/" not in whole:
        bucket, _ = parse_s3_uri(f"s3://{whole}/x")
        key = ""
    else:
        bucket, key = parse_s3_uri(bare)
    require_bucket(ingest, bucket)
    return bucket, key


def require_bucket(ingest: Ingest, bucket: str) -> None:
    """Raise Refused unless rasters may lie in this bucket."""
    if bucket not in ingest.settings.buckets:
        raise Refused(
            Reason.BUCKET_NOT_ALLOWED,
            f"Rasters may not be read from bucket {bucket!r} here. "
            "The operator lists others in FROND_ALLOWED_BUCKETS.",
        )


async def named_object(ingest: Ingest, uri: str, name: str | None = None) -> File:
    """An object that is there. Raises Refused: the bucket is not allowed, or nothing is there."""
    bucket, key = parse_s3_uri(uri)
    require_bucket(ingest, bucket)
    try:
        found = await ingest.store.stat(key, bucket=bucket)
    except ObjectMissing:
        raise Refused(Reason.OBJECT_MISSING, f"Nothing can be read at {uri[:500]}.") from None
    shown = names.display_name(name or key.rsplit("/", 1)[-1] or key)
    return File(name=shown, image=uri, mark=f"etag:{found.etag}", size=found.size)


async def start(ingest: Ingest, s3_url: str, job_id: str, wish: Wish, traceparent: str) -> JobSpec:
    """Begin a job with an object, or with all rasters under a prefix (listed in :func:`expand`).

    Raises:
        Refused: nothing is there, the bucket is not allowed, the job was begun otherwise.
    """
    wish.check()
    bucket, key = source_of(ingest, s3_url)
    if key and not key.endswith("/"):
        try:
            await ingest.store.stat(key, bucket=bucket)
        except ObjectMissing:
            pass
        else:
            return await _start_one(ingest, f"s3://{bucket}/{key}", job_id, wish, traceparent)
    if not await _any_raster(ingest, bucket, key):
        raise Refused(
            Reason.OBJECT_MISSING,
            f"There is no raster at s3://{bucket}/{key}, and none under it "
            f"({', '.join(names.RASTER_SUFFIXES[:6])}, …).",
        )
    spec = await desk.pin(ingest, job_id, wish)
    mine = Listing(bucket=bucket, prefix=key)
    stored = Listing.model_validate_json(
        await ingest.store.put_if_absent(places.listing(job_id), mine.model_dump_json().encode())
    )
    if (stored.bucket, stored.prefix) != (bucket, key):
        raise Refused(Reason.CONFLICT, f"Job {job_id!r} was started with another address.")
    if not stored.done:
        await desk.open_for_work(ingest, spec, None)
    return spec


async def _start_one(
    ingest: Ingest, uri: str, job_id: str, wish: Wish, traceparent: str
) -> JobSpec:
    file = await named_object(ingest, uri)
    spec = await desk.pin(ingest, job_id, wish)
    await desk.open_for_work(ingest, spec, 1)
    events = [intake.uploaded(spec, file, 1)]
    await intake.record(ingest, events)
    await desk.seal(ingest, job_id, 1, traceparent)
    await intake.publish(ingest, events, traceparent)
    return spec


async def _any_raster(ingest: Ingest, bucket: str, prefix: str) -> bool:
    async for found in ingest.store.list(prefix, bucket=bucket):
        if _wanted(found.key, found.size):
            return True
    return False


def _wanted(key: str, size: int) -> bool:
    # what the services themselves keep in the bucket is nobody's input
    own = key.startswith((keys.JOBS, keys.MODELS, keys.OPEN, places.DELETED))
    return names.is_raster(key) and size > 0 and not own


async def expand(ingest: Ingest, job_id: str, traceparent: str) -> None:
    """List, record and publish; then seal. Safe to repeat, and to run twice at once.

    Raises ObjectMissing when the job was not started with a prefix.
    """
    if job_id in ingest.listing:
        return
    ingest.listing.add(job_id)
    try:
        await _expand(ingest, job_id, traceparent)
    finally:
        ingest.listing.discard(job_id)


async def _expand(ingest: Ingest, job_id: str, traceparent: str) -> None:
    raw = await ingest.store.get(places.listing(job_id))
    listing = Listing.model_validate_json(raw)
    if listing.done:
        return
    spec = await desk.spec_of(ingest, job_id)
    count = 0
    page: list[File] = []
    async for found in ingest.store.list(listing.prefix, bucket=listing.bucket):
        if not _wanted(found.key, found.size) or count >= ingest.settings.max_files:
            continue
        name = found.key.removeprefix(listing.prefix).lstrip("/") or found.key
        uri = f"s3://{listing.bucket}/{found.key}"
        page.append(File(name=name[-names.MAX_NAME :], image=uri, mark="", size=found.size))
        count += 1
        if len(page) == _PAGE:
            await _publish(ingest, spec, page, traceparent)
            page = []
    await _publish(ingest, spec, page, traceparent)
    if await ingest.store.exists(keys.job_cancelled(job_id)):
        return
    # a listing that was taken up again may see other objects than the first time: count records
    total = 0
    async for _ in ingest.store.list(keys.job_inputs(job_id)):
        total += 1
    await desk.seal(ingest, job_id, total, traceparent)
    done = listing.model_copy(update={"done": True})
    await ingest.store.put(
        places.listing(job_id), done.model_dump_json().encode(), "application/json"
    )
    await desk.show(ingest, spec, total)


async def _publish(ingest: Ingest, spec: JobSpec, page: Sequence[File], traceparent: str) -> None:
    if page:
        await intake.add(ingest, spec, page, traceparent)


async def expand_in_background(ingest: Ingest, job_id: str, traceparent: str) -> None:
    """:func:`expand`, leaving what fails to the sweeper."""
    try:
        await expand(ingest, job_id, traceparent)
    except (StoreUnavailable, ObjectMissing, Refused) as e:
        _log.warning("a listing waits for the sweeper", job_id=job_id, error=repr(e))
