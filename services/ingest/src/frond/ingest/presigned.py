"""Multipart uploads whose parts go from the sender to the store directly."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from minio.datatypes import Part
from pydantic import BaseModel

from frond.contracts import keys
from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.contracts.ids import image_id
from frond.contracts.reasons import Reason
from frond.ingest import places
from frond.ingest.context import Ingest, age
from frond.ingest.problems import Refused
from frond.runtime import crash_point, get_logger
from frond.store import ObjectStore
from frond.store.s3 import NoTemporaryKeys, code_of, connect, keys_for_writing, translated

_log = get_logger(__name__)
_SENDERS_FAULT: Final = {"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML"}


class Coming(BaseModel):
    """What was said of a raster that comes in parts."""

    key: str
    upload_id: str
    size: int


async def note(ingest: Ingest, job_id: str, coming: Coming) -> None:
    """Remember it until it is there, or given up."""
    await ingest.store.put(
        places.parts(job_id, coming.upload_id), coming.model_dump_json().encode()
    )


async def noted(ingest: Ingest, job_id: str, key: str, upload_id: str) -> Coming | None:
    """What was said of this upload; None: nothing was, or it is over."""
    try:
        raw = await ingest.store.get(places.parts(job_id, upload_id))
    except ObjectMissing:
        return None
    coming = Coming.model_validate_json(raw)
    return coming if (coming.key, coming.upload_id) == (key, upload_id) else None


async def forget(ingest: Ingest, job_id: str, upload_id: str) -> None:
    """It is there."""
    await ingest.store.delete(places.parts(job_id, upload_id))


async def give_up(ingest: Ingest, prefix: str = places.PARTS, older_than: float = 0.0) -> int:
    """Drop uploads that were not completed, with their parts; returns how many.

    ``older_than``: seconds; then what was said of an object stays that is there and nobody's image yet:
    whoever comes again to complete it is told whether it fits.
    """
    count = 0
    async for found in ingest.store.list(prefix):
        if age(found) < older_than:
            continue
        try:
            coming = Coming.model_validate_json(await ingest.store.get(found.key))
        except ObjectMissing:
            continue  # completed
        with contextlib.suppress(ObjectMissing):  # joined, or dropped by another process
            await _abort(ingest.store, coming)
            crash_point("ingest.parts-dropped")
        if older_than and await _waits(ingest, found.key, coming):
            continue
        await ingest.store.delete(found.key)
        count += 1
    return count


async def _waits(ingest: Ingest, note_key: str, coming: Coming) -> bool:
    """Whether the object was made, and whoever did so died before it was recorded, in a job that goes on."""
    job_id = note_key.removeprefix(places.PARTS).partition("/")[0]
    record = keys.job_input_record(job_id, image_id(job_id, ingest.store.uri(coming.key)))
    if not await ingest.store.exists(coming.key):
        return False
    over = [await ingest.store.exists(key) for key in (record, keys.job_completed(job_id))]
    return not any(over)


async def _abort(store: ObjectStore, coming: Coming) -> None:
    def abort() -> None:
        with translated(f"dropping parts of {coming.key}"):
            store.s3.abort_multipart(store.bucket, coming.key, coming.upload_id)

    await store.in_thread(abort)


def no_such_upload() -> Refused:
    """The answer for parts that were never begun, or whose time is over."""
    return Refused(
        Reason.OBJECT_MISSING, "There is no such multipart upload; begin a new one.", status=404
    )


async def begin_parts(
    store: ObjectStore, public: str, key: str, count: int, expires: timedelta, *, own_keys: bool
) -> tuple[str, list[str]]:
    """Begin an upload of so many parts: its id, and a URL to PUT each part to, in order.

    Args:
        public: the address that the sender reaches the store at; a URL is signed for one address.
        own_keys: sign with the installation's own keys, in place of some that can do nothing else.

    Raises:
        Refused: the store has no such keys to lend.
    """

    def begin() -> tuple[str, list[str]]:
        headers = {"Content-Type": "application/octet-stream"}
        lent = None
        if not own_keys:
            lent = keys_for_writing(store.settings, key, int(expires.total_seconds()))
        signer = connect(replace(store.settings, endpoint=public), lent)
        with translated(f"beginning {key}"):
            upload_id = store.s3.begin_multipart(store.bucket, key, headers)
            urls = [
                signer.get_presigned_url(
                    "PUT", store.bucket, key, expires,
                    extra_query_params={"partNumber": str(n), "uploadId": upload_id},
                )
                for n in range(1, count + 1)
            ]  # fmt: skip
        return upload_id, urls

    try:
        return await store.in_thread(begin)
    except NoTemporaryKeys as e:
        _log.warning("no temporary keys: see FROND_PRESIGN_WITH", error=str(e)[:300])
        raise Refused(
            Reason.BAD_REQUEST,
            "The object store here lends no keys to senders. PUT the image to the job in place of "
            "its parts to the store.",
            status=422,
        ) from None


async def finish_parts(
    store: ObjectStore, key: str, upload_id: str, parts: Sequence[tuple[int, str]]
) -> None:
    """Make the object visible, given its parts' numbers and ETags.

    Raises:
        Refused: there is no such upload, or its parts are not those that the store has.
    """
    listed = [Part(n, etag.strip('"')) for n, etag in sorted(parts)]

    def finish() -> None:
        with translated(f"completing {key}"):
            store.s3.end_multipart(store.bucket, key, upload_id, listed)

    try:
        await store.in_thread(finish)
    except ObjectMissing:
        raise no_such_upload() from None
    except StoreUnavailable as e:
        code = code_of(e.__cause__) if e.__cause__ else None
        if code in _SENDERS_FAULT:
            raise Refused(
                Reason.BAD_REQUEST,
                f"The store does not have these parts ({code}). Put all of them, and send the "
                "ETag that each was answered with.",
                status=422,
            ) from None
        raise
