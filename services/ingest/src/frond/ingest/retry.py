"""Failed images of an ended job, run again as a job of their own (docs/adr/0010).

A job that has ended never changes: its retry is ``JOB-retry-N``, with the same pinned model,
thresholds and addresses. What it consists of is stored before it begins, so that whoever dies on the
way leaves it to the sweeper, and the same request made twice begins one job.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from frond.auth import Principal
from frond.contracts import keys
from frond.contracts.errors import JobRejected, ObjectMissing
from frond.contracts.events import JobCompleted
from frond.contracts.ids import canonical_json, digest, parse_s3_uri
from frond.contracts.jobs import JobOutcome, JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, names, tenancy, uploads
from frond.ingest.context import Ingest
from frond.ingest.intake import File
from frond.ingest.manifests import RETRY, Manifest
from frond.ingest.places import manifest as manifest_key
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.runtime import crash_point

_INFIX: Final = "-retry-"
_LONGEST_BASE: Final = 112
_MOST: Final = 1000
# summary.json: quotes inside a string are escaped, so this ends its failures and nothing else
_FAILURES: Final = b'"failures":['
_END: Final = b'],"images":['
_BETWEEN: Final = re.compile(r"[\s,]*")


async def begin(
    ingest: Ingest, job_id: str, reasons: Collection[Reason], who: Principal, traceparent: str
) -> JobSpec:
    """Begin the retry of a job's failed images, or go on with one that has not ended.

    Args:
        reasons: only images that failed for one of these; empty: all.

    Raises:
        Refused: 404; CONFLICT: the job has not ended, was cancelled, or nothing of it failed so;
            TOO_MANY: more images of it failed than a job may have; 429: its tenant has as many open
            jobs as it may; as :func:`tenancy.require_place`.
    """
    await desk.row_of(ingest, job_id)
    spec = await _spec(ingest, job_id)
    files = await _failed(ingest, job_id, reasons)
    await _require_places(ingest, files, who)
    marks = canonical_json(sorted((f.name, f.image) for f in files)).decode()
    mine = Manifest(
        content=digest("retry", job_id, marks),
        upload_id=f"{RETRY}{job_id}",
        files=files,
    )
    base = base_of(spec)
    for n in range(1, _MOST + 1):
        new_id = f"{base}{_INFIX}{n}"
        async with tenancy.room_for_job(ingest, new_id, who):
            begun = await _take(ingest, new_id, spec, mine)
            if begun is not None:
                await uploads.carry_out(ingest, begun, mine, traceparent)
                return begun
    raise Refused(Reason.TOO_MANY, f"Job {job_id!r} was run again {_MOST} times already.")


def base_of(spec: JobSpec) -> str:
    """What the ids of a job's retries begin with; those of a retry are numbered on."""
    if spec.retry_of is not None and _INFIX in spec.job_id:
        return spec.job_id.rpartition(_INFIX)[0]
    if len(spec.job_id) <= _LONGEST_BASE:
        return spec.job_id
    return f"{spec.job_id[: _LONGEST_BASE - 11]}-{digest('retry', spec.job_id)[:10]}"


async def _take(ingest: Ingest, new_id: str, spec: JobSpec, mine: Manifest) -> JobSpec | None:
    """Make this id the retry's; None where it is another job's, or one that has ended."""
    if await queries.is_deleted(ingest.db, new_id):
        return None
    try:
        there = JobSpec.model_validate_json(await ingest.store.get(keys.job_spec(new_id)))
        if there.retry_of != spec.job_id:
            return None
    except ObjectMissing:
        pass
    for ended in (keys.job_completed(new_id), keys.job_cancelled(new_id)):
        if await ingest.store.exists(ended):
            return None
    wanted = spec.model_copy(
        update={
            "job_id": new_id, "retry_of": spec.job_id, "by_key": spec.tenant is not None,
            "created": datetime.now(UTC),
        }
    )  # fmt: skip
    # first: whoever has the id has what its manifest names
    begun = JobSpec.model_validate_json(
        await ingest.store.put_if_absent(keys.job_spec(new_id), wanted.model_dump_json().encode())
    )
    if (begun.retry_of, begun.tenant) != (spec.job_id, spec.tenant):
        return None
    crash_point("ingest.retry-spec-stored")
    # decides between two requests at once
    stored = Manifest.model_validate_json(
        await ingest.store.put_if_absent(manifest_key(new_id), mine.model_dump_json().encode())
    )
    if (stored.content, stored.upload_id) != (mine.content, mine.upload_id):
        return None
    crash_point("ingest.retry-manifest-stored")
    return begun


async def _require_places(ingest: Ingest, files: Sequence[File], who: Principal) -> None:
    """Raise Refused unless they may name these images now: places may have changed since."""
    folders: dict[tuple[str, str], str] = {}
    for file in files:
        bucket, key = parse_s3_uri(file.image)
        folders.setdefault((bucket, key.rpartition("/")[0]), key)
    for (bucket, _), key in folders.items():
        await tenancy.require_place(ingest, bucket, key, who)


async def _spec(ingest: Ingest, job_id: str) -> JobSpec:
    try:
        completed = JobCompleted.model_validate_json(
            await ingest.store.get(keys.job_completed(job_id))
        )
    except ObjectMissing:
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} has not ended. Retry its failed images once it has, or cancel it.",
        ) from None
    if completed.outcome is JobOutcome.DISMISSED:
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} was cancelled before all of its images had their turn. "
            "Send it again as a new job.",
        )
    if not completed.images.failed:
        raise Refused(Reason.CONFLICT, f"No image of job {job_id!r} failed: nothing to retry.")
    most = ingest.settings.max_files
    if completed.images.failed > most:
        raise Refused(
            Reason.TOO_MANY,
            f"{completed.images.failed} images of job {job_id!r} failed, and a job may have {most} "
            "here. Send them again as new jobs.",
        )
    try:
        return JobSpec.model_validate_json(await ingest.store.get(keys.job_spec(job_id)))
    except ObjectMissing:
        raise Refused(
            Reason.CONFLICT,
            f"Job {job_id!r} was never given a model, since none of its images was accepted. "
            "Send it again as a new job.",
        ) from None


async def _failed(ingest: Ingest, job_id: str, reasons: Collection[Reason]) -> list[File]:
    """The failed images, by the job's own summary: the store knows, however old the job is."""
    raw = await _failures(ingest, job_id)
    return await asyncio.to_thread(_chosen, job_id, raw, {r.value for r in reasons})


def _chosen(job_id: str, failures: bytes, reasons: Collection[str]) -> list[File]:
    told = list(_one_by_one(failures.decode()))
    wanted = [f for f in told if not reasons or f["reason"] in reasons]
    if not wanted:
        there = ", ".join(sorted({str(f["reason"]) for f in told}))
        raise Refused(
            Reason.CONFLICT,
            f"No image of job {job_id!r} failed for the reason asked for. Its reasons: {there}.",
        )
    files = [
        # without a hash: these bytes came as another job's, and are not this one's to delete
        File(name=(f["name"] or "unnamed")[: names.MAX_NAME], image=f["uri"], mark="", size=0)
        for f in wanted
        if _is_an_address(f["uri"])
    ]
    if not files:
        raise Refused(
            Reason.CONFLICT,
            f"The failed images of job {job_id!r} have addresses that cannot be read. "
            "Rename the objects and send them in a new job.",
        )
    return files


async def _failures(ingest: Ingest, job_id: str) -> bytes:
    """What stands between the brackets of the summary's list of failures."""
    read = bytearray()
    end = -1
    async for piece in ingest.store.stream(keys.result(job_id, "summary.json")):
        # of what was looked at already, the end may begin what is looked for
        looked = max(0, len(read) - len(_END) + 1)
        read += piece
        end = read.find(_END, looked)
        if end >= 0:
            break
    found = read.find(_FAILURES, 0, max(0, end))
    if found < 0:
        raise Refused(Reason.INTERNAL, f"The summary of job {job_id!r} lists no failures.")
    return bytes(read[found + len(_FAILURES) : end])


def _one_by_one(listed: str) -> Iterator[dict[str, Any]]:
    # a list that is parsed at once lets no other thread run until it is
    decoder = json.JSONDecoder()
    at = 0
    while (between := _BETWEEN.match(listed, at)) and between.end() < len(listed):
        failure, at = decoder.raw_decode(listed, between.end())
        yield failure


def _is_an_address(uri: str) -> bool:
    try:
        parse_s3_uri(uri)
    except JobRejected:
        return False
    return True
