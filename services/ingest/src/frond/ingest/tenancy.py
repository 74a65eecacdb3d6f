"""Whose is what: jobs, their ids, and the places that rasters may be named in.

Another tenant's job is answered like one that does not exist, after the same work.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from frond.auth import Place, Principal
from frond.contracts import keys
from frond.contracts.errors import JobRejected, ObjectMissing
from frond.contracts.ids import check_job_id, digest
from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest.context import Ingest
from frond.ingest.problems import Refused, not_found
from frond.ingest.readmodel import queries
from frond.ingest.readmodel.apply import CONTESTED


async def require_visible(ingest: Ingest, job_id: str, who: Principal) -> None:
    """Raise Refused (404) unless this job is theirs; JobRejected when it could be nobody's."""
    check_job_id(job_id)
    if not who.admin and not await _is_theirs(ingest, job_id, who):
        raise not_found(job_id)


async def require_usable(ingest: Ingest, job_id: str, who: Principal) -> None:
    """Raise Refused (409) when a job of this id is there, or was, and is not theirs."""
    check_job_id(job_id)
    if who.admin or await _is_theirs(ingest, job_id, who):
        return
    taken = await queries.is_known(ingest.db, job_id)
    # asked for in either case: one takes as long as the other
    for key in (keys.job_spec(job_id), keys.open_marker(job_id), keys.tombstone(job_id)):
        taken |= await ingest.store.exists(key)
    if taken:
        raise unusable(job_id)


def unusable(job_id: str) -> Refused:
    """The answer for an id that somebody else has, or that was used up."""
    return Refused(Reason.CONFLICT, f"Job id {job_id!r} cannot be used. Choose another one.")


async def _is_theirs(ingest: Ingest, job_id: str, who: Principal) -> bool:
    row = await queries.job(ingest.db, job_id)
    if row is not None and who.sees(row.tenant):
        return True
    # the same work whether there is such a job, it is another's, or the read model is behind
    deleted = await queries.is_deleted(ingest.db, job_id)
    spec: JobSpec | None = None
    with contextlib.suppress(ObjectMissing):
        spec = JobSpec.model_validate_json(await ingest.store.get(keys.job_spec(job_id)))
    unclaimed = row is None or row.tenant in (None, CONTESTED)
    return unclaimed and not deleted and spec is not None and who.sees(spec.tenant)


@contextlib.asynccontextmanager
async def room_for_job(ingest: Ingest, job_id: str, who: Principal) -> AsyncIterator[None]:
    """Hold a place among the tenant's open jobs while one is made.

    A job that is there already needs none. Jobs of no tenant, those of the installation's own key,
    are counted together as one tenant's are. Exact within a process.

    Raises:
        Refused: 429: the tenant has as many open jobs as it may.
    """
    limit = ingest.settings.max_open_jobs
    tenant = who.tenant
    if not limit or await queries.job(ingest.db, job_id) is not None:
        yield
        return
    # from the count to the place: of two requests at once, the second sees the first
    async with ingest.admitting:
        # before the rows are counted: one that ends meanwhile is counted twice, never not at all
        begun = ingest.beginning.get(tenant, 0)
        if await queries.count_open(ingest.db, tenant) + begun >= limit:
            raise Refused(
                Reason.TOO_MANY,
                f"{tenant or 'The key of this installation'} has {limit} open jobs, which is as "
                "many as it may have here (FROND_MAX_OPEN_JOBS). Wait for one to end, or cancel one.",
                status=429,
                headers={"Retry-After": "30"},
            )
        ingest.beginning[tenant] = ingest.beginning.get(tenant, 0) + 1
    try:
        yield
    finally:
        ingest.beginning[tenant] -= 1
        if not ingest.beginning[tenant]:
            del ingest.beginning[tenant]


def upload_tag(who: Principal) -> str:
    """What the names of a tenant's form uploads begin with, so that they can be told apart."""
    return "u-" if who.tenant is None else f"u-{digest('tenant', who.tenant)[:12]}-"


async def require_place(ingest: Ingest, bucket: str, key: str, who: Principal) -> None:
    """Raise Refused unless they may name this object, or all objects with this prefix.

    In the installation's own bucket: nobody what its services keep there; a tenant only uploads
    of its own jobs, and places that it was given. Elsewhere: the allowed buckets, or those places.
    """
    if bucket not in ingest.settings.buckets:
        raise Refused(
            Reason.BUCKET_NOT_ALLOWED,
            f"Rasters may not be read from bucket {bucket!r} here. "
            "The operator lists others in FROND_ALLOWED_BUCKETS.",
        )
    own = bucket == ingest.store.bucket
    if own and key.startswith(keys.INTERNAL):
        raise Refused(
            Reason.BUCKET_NOT_ALLOWED,
            f"What lies under {key.split('/', 1)[0]}/ is kept by Frond itself, and is no raster.",
        )
    if who.admin:
        return
    given = ingest.settings.places
    mine = given.get(who.tenant or "", ())
    if any(place.holds(bucket, key) for place in mine):
        return
    if not own:
        if not given:
            return
        raise Refused(
            Reason.BUCKET_NOT_ALLOWED,
            f"Your rasters lie elsewhere than in {bucket!r}: in {_told(mine)}. "
            "The operator lists your places in FROND_TENANT_PLACES.",
        )
    if not await _is_own_upload(ingest, key, who):
        # what is another's is answered like what is not there
        raise nothing_at(f"s3://{bucket}/{key}")


def nothing_at(uri: str) -> Refused:
    """The answer for an address that leads to nothing."""
    return Refused(Reason.OBJECT_MISSING, f"Nothing can be read at {uri[:500]}.")


def _told(mine: tuple[Place, ...]) -> str:
    return ", ".join(map(str, mine)) or "no place that was told so far"


async def _is_own_upload(ingest: Ingest, key: str, who: Principal) -> bool:
    folder, slash, _ = key.removeprefix(keys.UPLOADS).partition("/")
    if not key.startswith(keys.UPLOADS) or not slash:
        return False
    if folder.startswith(upload_tag(who)) and who.tenant is not None:
        return True
    try:
        await require_visible(ingest, folder, who)
    except (Refused, JobRejected):
        return False
    return True
