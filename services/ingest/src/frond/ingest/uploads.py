"""What a form brought, as a job: made one, added to one, carried out again after a death."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Sequence

from frond.auth import Principal
from frond.contracts import keys
from frond.contracts.errors import ObjectMissing
from frond.contracts.ids import image_id, parse_s3_uri
from frond.contracts.jobs import JobSpec
from frond.contracts.reasons import Reason
from frond.ingest import desk, intake, places, tenancy
from frond.ingest.context import Ingest, age
from frond.ingest.forms import Received
from frond.ingest.intake import File
from frond.ingest.manifests import Manifest
from frond.ingest.problems import Refused
from frond.ingest.readmodel import queries
from frond.ingest.rooms import make_room
from frond.ingest.wishes import Wish
from frond.runtime import crash_point, get_logger
from frond.store import Listed

_log = get_logger(__name__)


async def accept(
    ingest: Ingest,
    received: Received,
    upload_id: str,
    job_id: str,
    who: Principal,
    traceparent: str,
) -> JobSpec:
    """Make the received files a job, or add them to an open one. The same files twice: one result.

    Raises:
        Refused: CONFLICT or JOB_CLOSED: the job is there and has other files.
        ModelRejected: nobody knows the model.
    """
    wish = received.wish()
    wish.check(ingest.egress)
    await tenancy.require_usable(ingest, job_id, who)
    naming = asyncio.create_task(_name(ingest, upload_id, job_id))
    try:
        spec = await _accept(ingest, received, upload_id, job_id, wish, who, traceparent, naming)
    finally:
        # whoever is refused clears up next
        await asyncio.gather(naming, return_exceptions=True)
    await ingest.store.delete(places.receiving(upload_id))
    crash_point("ingest.form-unmarked")
    return spec


async def _name(ingest: Ingest, upload_id: str, job_id: str) -> None:
    """Note whose files the upload's are: from then on the job's records and claims keep them."""
    await ingest.store.put(places.receiving(upload_id), job_id.encode(), "text/plain")
    crash_point("ingest.form-named")


async def _accept(
    ingest: Ingest,
    received: Received,
    upload_id: str,
    job_id: str,
    wish: Wish,
    who: Principal,
    traceparent: str,
    naming: Awaitable[None],
) -> JobSpec:
    if await _exists(ingest, job_id) and not await ingest.store.exists(places.manifest(job_id)):
        plain = wish.model_copy(update={"job_id": None}) == Wish()
        spec = await (
            desk.spec_of(ingest, job_id) if plain else desk.pin(ingest, job_id, wish, who)
        )
        if not who.sees(spec.tenant):
            # another tenant's, begun since it was asked
            raise tenancy.unusable(job_id)
        await naming
        await _add(ingest, spec, received, traceparent)
        return spec
    async with tenancy.room_for_job(ingest, job_id, who):
        spec = await desk.pin(ingest, job_id, wish, who)
        await naming
        return await _begin(ingest, received, upload_id, spec, traceparent)


async def _begin(
    ingest: Ingest, received: Received, upload_id: str, spec: JobSpec, traceparent: str
) -> JobSpec:
    job_id = spec.job_id
    mine = Manifest(content=received.content, upload_id=upload_id, files=received.files)
    raw, ended = await asyncio.gather(
        ingest.store.put_if_absent(places.manifest(job_id), mine.model_dump_json().encode()),
        ingest.store.exists(keys.job_completed(job_id)),
    )
    crash_point("ingest.manifest-stored")
    stored = Manifest.model_validate_json(raw)
    if stored.content != mine.content:
        raise Refused(Reason.JOB_CLOSED, f"Job {job_id!r} is there already, with other files.")
    await carry_out(ingest, spec, stored, traceparent, ended=ended)
    if stored.upload_id != upload_id:
        await ingest.store.delete_prefix(places.upload_prefix(upload_id))
        crash_point("ingest.copies-deleted")
    return spec


async def carry_out(
    ingest: Ingest,
    spec: JobSpec,
    manifest: Manifest,
    traceparent: str,
    *,
    ended: bool | None = None,
) -> None:
    """Open, record and publish what a manifest says; may be done again at any time.

    One that is another job's is passed over.

    Args:
        ended: whether the job has its completed event, where that was asked just now.
    """
    if not manifest.is_of(spec):
        _log.error("a manifest is not its job's", job_id=spec.job_id, upload_id=manifest.upload_id)
        return
    size = len(manifest.files)
    if ended is None:
        ended = await ingest.store.exists(keys.job_completed(spec.job_id))
    if ended:
        await desk.show(ingest, spec, size)
        return
    events = [intake.uploaded(spec, f, size) for f in manifest.files]

    async def begin() -> None:
        await desk.mark_open(ingest, spec.job_id)
        await desk.show(ingest, spec, size)

    await asyncio.gather(
        begin(), intake.record(ingest, events), desk.fix_size(ingest, spec.job_id, size)
    )
    await asyncio.gather(
        desk.tell_sealed(ingest, spec.job_id, size, traceparent),
        intake.publish(ingest, events, traceparent),
    )


async def _exists(ingest: Ingest, job_id: str) -> bool:
    if await ingest.store.exists(keys.open_marker(job_id)):
        return True
    row = await queries.job(ingest.db, job_id)
    return row is not None


async def _add(ingest: Ingest, spec: JobSpec, received: Received, traceparent: str) -> None:
    new: list[File] = []
    known: list[tuple[File, File]] = []
    for file in received.files:
        had = await intake.claimed(ingest, spec.job_id, file.name)
        same = had is not None and had.mark == file.mark
        if had is not None and same and await intake.recorded(ingest, spec.job_id, had):
            known.append((file, had))
        else:
            new.append(file)
    if new:
        # with those that a dead request claimed and did not record: all have their place, or none is
        # recorded
        await desk.require_open(ingest, spec.job_id)
        room = await make_room(ingest, spec.job_id, [f.name for f in new])
        try:
            won = await intake.claim(ingest, spec.job_id, new, room)
        finally:
            room.leave()
        known += zip(new, won, strict=True)
    await intake.add(ingest, spec, [had for _, had in known], traceparent)
    for file, had in known:
        if file.image == had.image:
            continue
        _, key = parse_s3_uri(file.image)
        with contextlib.suppress(ObjectMissing):
            await ingest.store.delete(key)
            crash_point("ingest.copies-deleted")


async def kept(
    ingest: Ingest, job_id: str, upload_id: str, files: Sequence[File]
) -> frozenset[str]:
    """Keys of a refused form's files that are its job's all the same, or may become so."""
    with contextlib.suppress(ObjectMissing):
        raw = await ingest.store.get(places.manifest(job_id))
        if Manifest.model_validate_json(raw).upload_id == upload_id:
            return frozenset(parse_s3_uri(f.image)[1] for f in files)

    async def key(file: File) -> str:
        # another request that brings the same bytes may have joined its claim
        had = await intake.claimed(ingest, job_id, file.name)
        same = had is not None and had.image == file.image
        return parse_s3_uri(file.image)[1] if same else ""

    return frozenset(await intake.in_parallel(files, key)) - {""}


async def clear_abandoned(ingest: Ingest) -> int:
    """Remove what forms left whose requests died, unless their job has it; returns how many."""
    count = 0
    async for found in ingest.store.list(keys.RECEIVING):
        parts = found.key.startswith(places.PARTS)
        if parts or age(found) < ingest.settings.abandoned_seconds:
            continue
        upload_id = found.key.removeprefix(keys.RECEIVING)
        with contextlib.suppress(ObjectMissing):
            job_id = (await ingest.store.get(found.key)).decode()
            if await _clear(ingest, job_id, upload_id):
                await ingest.store.delete(found.key)
                count += 1
            else:
                # looked at again when it is as old once more
                await ingest.store.put(found.key, job_id.encode(), "text/plain")
    return count


async def _clear(ingest: Ingest, job_id: str, upload_id: str) -> bool:
    """Remove what the job has not of this upload; False: some of it may become the job's yet."""
    prefix = places.upload_prefix(upload_id)
    claimed: set[str] = set()
    if job_id:
        with contextlib.suppress(ObjectMissing):
            raw = await ingest.store.get(places.manifest(job_id))
            if Manifest.model_validate_json(raw).upload_id == upload_id:
                return True
    left = [f.key async for f in ingest.store.list(prefix)]
    if job_id:

        async def recorded(key: str) -> bool:
            image = image_id(job_id, ingest.store.uri(key))
            return await ingest.store.exists(keys.job_input_record(job_id, image))

        known = await intake.in_parallel(left, recorded)
        left = [key for key, is_known in zip(left, known, strict=True) if not is_known]
        if left and not await _closed(ingest, job_id):
            # claimed and not recorded: a sender that comes again finds it by its claim
            claimed = await _claimed(ingest, job_id, prefix)
    dead = [key for key in left if key not in claimed]
    await intake.in_parallel(dead, ingest.store.delete)
    crash_point("ingest.abandoned-deleted")
    return len(dead) == len(left)


async def _closed(ingest: Ingest, job_id: str) -> bool:
    """Whether the job takes no more images, for so long that no request began before that."""
    sealed = keys.job_sealed(job_id)
    for key in (keys.job_completed(job_id), keys.job_cancelled(job_id), sealed):
        with contextlib.suppress(ObjectMissing):
            if age(await ingest.store.stat(key)) < ingest.settings.abandoned_seconds:
                continue
            if key != sealed or not json.loads(await ingest.store.get(key)).get("declared"):
                return True
    return False


async def _claimed(ingest: Ingest, job_id: str, prefix: str) -> set[str]:
    """Those objects with this prefix that a name of the job is claimed for."""

    async def read(claim: Listed) -> str:
        with contextlib.suppress(ObjectMissing):
            raw = await ingest.store.get(claim.key)
            if not raw:
                return ""
            file = File.model_validate_json(raw)
            bucket, key = parse_s3_uri(file.image)
            if bucket == ingest.store.bucket:
                return key
        return ""

    claims = [c async for c in ingest.store.list(places.claims(job_id))]
    return {k for k in await intake.in_parallel(claims, read) if k.startswith(prefix)}
