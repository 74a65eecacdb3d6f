"""Multipart uploads whose parts go from the sender to the store directly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from minio.datatypes import Part

from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.contracts.reasons import Reason
from frond.ingest.problems import Refused
from frond.store import ObjectStore
from frond.store.s3 import S3, code_of, translated

_SENDERS_FAULT: Final = {"InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML"}


async def begin_parts(
    store: ObjectStore, signer: S3, key: str, count: int, expires: timedelta
) -> tuple[str, list[str]]:
    """Begin an upload of so many parts: its id, and a URL to PUT each part to, in order.

    ``signer``: a client of the address that the sender reaches the store at; a URL is signed for
    one address.
    """

    def begin() -> tuple[str, list[str]]:
        headers = {"Content-Type": "application/octet-stream"}
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

    return await store.in_thread(begin)


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
        raise Refused(
            Reason.OBJECT_MISSING, "There is no such multipart upload; begin a new one.", status=404
        ) from None
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
