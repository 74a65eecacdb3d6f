"""A job out of a prefix: its rasters are listed, recorded and published a page at a time.

The wish to list is stored before it is answered, so that a killed process's listing is taken up
again from the start; every step of it may be done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pydantic import BaseModel

from frond.auth import Principal
from frond.bus import Outgoing
from frond.contracts import keys, topics
from frond.contracts.errors import (
    BrokerUnavailable,
    JobRejected,
    ObjectMissing,
    StoreUnavailable,
)
from frond.contracts.events import ImageRejected
from frond.contracts.ids import image_id, parse_s3_uri
from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, names, places, tenancy
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.problems import Refused
from frond.ingest.wishes import Wish
from frond.runtime import crash_point, get_logger
from frond.store import Listed

_PAGE: Final = 64
"""So many objects at a time: what is done for a page without a pause delays no answer for long."""
_AT_ONCE: Final = 8
"""Nobody waits for a listing as for an upload: it leaves the machine to others."""
_log = get_logger(__name__)


class Listing(BaseModel):
    """What a job was started with, stored once at ``listing.json``. It was read to its end when the
    job is sealed.

    ``single``: ``prefix`` is the key of the job's one object.
    """

    bucket: str
    prefix: str
    single: bool = False


def source_of(s3_url: str) -> tuple[str, str]:
    """Bucket and key or prefix of ``s3_url``. Raises JobRejected."""
    bare = s3_url.strip()
    # a whole bucket is a prefix, too, and parse_s3_uri wants a key
    whole = bare.removeprefix("s3://").rstrip("/")
    if bare.startswith("s3://") and whole and "/" not in whole:
        bucket, _ = parse_s3_uri(f"s3://{whole}/x")
        key = ""
    else:
        # nor does a prefix that ends with a slash name an object
        filler = "x" if bare.endswith("/") else ""
        bucket, key = parse_s3_uri(bare + filler)
        key = key.removesuffix(filler)
    return bucket, key


async def named_object(ingest: Ingest, uri: str, who: Principal, name: str | None = None) -> File:
    """An object that is there. Raises Refused: the place is not allowed, or nothing is there."""
    bucket, key = parse_s3_uri(uri)
    await tenancy.require_place(ingest, bucket, key, who)
    try:
        found = await ingest.store.stat(key, bucket=bucket)
    except ObjectMissing:
        raise tenancy.nothing_at(uri) from None
    shown = names.display_name(name or key.rsplit("/", 1)[-1] or key)
    return File(name=shown, image=uri, mark=f"etag:{found.etag}", size=found.size)


async def start(
    ingest: Ingest, s3_url: str, job_id: str, wish: Wish, who: Principal, traceparent: str
) -> JobSpec:
    """Begin a job with an object, or with all rasters under a prefix (listed in :func:`expand`).

    Raises:
        Refused: nothing is there, the bucket is not allowed, the job was begun otherwise.
    """
    wish.check(ingest.egress)
    bucket, key = source_of(s3_url)
    await tenancy.require_place(ingest, bucket, key, who)
    if key and not key.endswith("/"):
        try:
            await ingest.store.stat(key, bucket=bucket)
        except ObjectMissing:
            pass
        else:
            mine = Listing(bucket=bucket, prefix=key, single=True)
            spec = await _begin(ingest, mine, job_id, wish, who)
            await expand(ingest, job_id, traceparent)
            return spec
    limit = ingest.settings.max_files
    found = await _rasters(ingest, bucket, key, limit + 1)
    if found > limit:
        raise Refused(
            Reason.TOO_MANY,
            f"There are more than {limit} rasters under s3://{bucket}/{key}, and a job may have "
            f"{limit} here. Start a job for each of several longer prefixes.",
        )
    if not found:
        raise Refused(
            Reason.OBJECT_MISSING,
            f"There is no raster at s3://{bucket}/{key}, and none under it "
            f"({', '.join(names.RASTER_SUFFIXES[:6])}, …).",
        )
    return await _begin(ingest, Listing(bucket=bucket, prefix=key), job_id, wish, who)


async def _begin(ingest: Ingest, mine: Listing, job_id: str, wish: Wish, who: Principal) -> JobSpec:
    spec = await desk.pin(ingest, job_id, wish, who)
    stored = Listing.model_validate_json(
        await ingest.store.put_if_absent(places.listing(job_id), mine.model_dump_json().encode())
    )
    crash_point("ingest.listing-stored")
    if stored != mine:
        raise Refused(Reason.CONFLICT, f"Job {job_id!r} was started with another address.")
    if not await ingest.store.exists(keys.job_sealed(job_id)):
        await desk.open_for_work(ingest, spec, 1 if mine.single else None)
    return spec


async def _rasters(ingest: Ingest, bucket: str, prefix: str, most: int) -> int:
    """How many rasters are under a prefix, counted up to ``most``."""
    count = 0
    wanted = _wanted(ingest, bucket, prefix)
    async for found in ingest.store.list(prefix, bucket=bucket):
        count += wanted(found)
        if count >= most:
            break
    return count


def _wanted(ingest: Ingest, bucket: str, prefix: str) -> Callable[[Listed], bool]:
    # what the services themselves keep in their bucket is nobody's input, uploads when asked for
    own: tuple[str, ...] = ()
    if bucket == ingest.store.bucket:
        uploads = () if prefix.startswith(keys.UPLOADS) else (keys.UPLOADS,)
        own = (*keys.INTERNAL, *uploads)

    def wanted(found: Listed) -> bool:
        return names.is_raster(found.key) and found.size > 0 and not found.key.startswith(own)

    return wanted


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
    if await ingest.store.exists(keys.job_sealed(job_id)):
        return
    spec = await desk.spec_of(ingest, job_id)
    if listing.single:
        total = await _one(ingest, spec, listing, traceparent)
    else:
        total = await _all(ingest, spec, listing, traceparent)
    if await ingest.store.exists(keys.job_cancelled(job_id)):
        return
    await desk.seal(ingest, job_id, total, traceparent)
    crash_point("ingest.listing-done")
    await desk.show(ingest, spec, total)


async def _one(ingest: Ingest, spec: JobSpec, listing: Listing, traceparent: str) -> int:
    uri = f"s3://{listing.bucket}/{listing.prefix}"
    base = listing.prefix.rsplit("/", 1)[-1] or listing.prefix
    event = intake.uploaded(spec, File(name=base[-names.MAX_NAME :], image=uri, mark="", size=0), 1)
    await intake.record(ingest, [event])
    await intake.publish(ingest, [event], traceparent)
    return 1


async def _all(ingest: Ingest, spec: JobSpec, listing: Listing, traceparent: str) -> int:
    """Record and publish every raster, until the job is cancelled; returns how many images it has."""
    wanted = _wanted(ingest, listing.bucket, listing.prefix)
    page: list[File] = []
    room = ingest.settings.max_files
    async for found in ingest.store.list(listing.prefix, bucket=listing.bucket):
        if not wanted(found):
            continue
        if not room:
            # more came after the job was started: those it had then were as many as it may have
            break
        room -= 1
        name = found.key.removeprefix(listing.prefix).lstrip("/") or found.key
        uri = f"s3://{listing.bucket}/{found.key}"
        page.append(File(name=name[-names.MAX_NAME :], image=uri, mark="", size=found.size))
        if len(page) == _PAGE:
            if await ingest.store.exists(keys.job_cancelled(spec.job_id)):
                return 0
            await _publish(ingest, spec, page, traceparent)
            page = []
    await _publish(ingest, spec, page, traceparent)
    # a listing that was taken up again may see other objects than the first time: count records
    total = 0
    for prefix in (keys.job_inputs(spec.job_id), keys.job_refused(spec.job_id)):
        async for _ in ingest.store.list(prefix):
            total += 1
    return total


async def _publish(ingest: Ingest, spec: JobSpec, page: Sequence[File], traceparent: str) -> None:
    good: list[File] = []
    bad: list[ImageRejected] = []
    for file in page:
        try:
            parse_s3_uri(file.image)
        except JobRejected:
            bad.append(_rejected(spec.job_id, file))
        else:
            good.append(file)
    if good:
        await intake.add(ingest, spec, good, traceparent, at_once=_AT_ONCE)
    if not bad:
        return

    async def keep(event: ImageRejected) -> None:
        key = keys.job_refused_record(spec.job_id, event.image_id)
        await ingest.store.put(key, event.model_dump_json().encode(), "application/json")
        crash_point("ingest.refusal-recorded")

    await intake.in_parallel(bad, keep)
    crash_point("ingest.refused-recorded")
    # not left to the sweeper: while this fails the listing is not done, and is gone over again
    await ingest.producer.send([Outgoing(topics.DETECTED, e) for e in bad], traceparent=traceparent)
    crash_point("ingest.refused-sent")


def _rejected(job_id: str, file: File) -> ImageRejected:
    """An object whose address no event can hold: a failed image, not one that is left out."""
    return ImageRejected(
        job_id=job_id, image_id=image_id(job_id, file.image), image=file.image, name=file.name,
        reason=Reason.BAD_IMAGE_URI,
        detail="The object's key has control characters, or is too long. Rename the object.",
    )  # fmt: skip


async def expand_in_background(ingest: Ingest, job_id: str, traceparent: str) -> None:
    """:func:`expand`, leaving what fails to the sweeper."""
    try:
        await expand(ingest, job_id, traceparent)
    except (StoreUnavailable, BrokerUnavailable, ObjectMissing, Refused) as e:
        _log.warning("a listing waits for the sweeper", job_id=job_id, error=repr(e))
    except Exception as e:
        _log.error("a listing fails", job_id=job_id, exc_info=e)
