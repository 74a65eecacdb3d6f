"""Objects of the store as answers."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from frond.contracts.errors import ObjectMissing
from frond.contracts.reasons import Reason
from frond.ingest.context import Ingest, ingest_of
from frond.ingest.problems import Refused
from frond.ingest.ranges import Slice, Unsatisfiable, etag_matches, parse_range

_TYPES: Final = {
    ".geojson": "application/geo+json",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
    ".tif": "image/tiff",
    ".yaml": "application/yaml",
    ".md": "text/markdown",
}


def media_type(key: str, stored: str) -> str:
    """What to call a file's type: as it was stored, or by its suffix."""
    if stored not in ("", "application/octet-stream", "binary/octet-stream"):
        return stored
    suffix = "." + key.rsplit(".", 1)[-1].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(key)[0] or "application/octet-stream"


async def serve(request: Request, key: str, missing: Refused) -> Response:
    """An object as the answer to GET or HEAD, with ETag, conditions and ranges (RFC 9110).

    Raises:
        Refused: ``missing`` where there is none; 416 for a range behind its end.
    """
    ingest, name = ingest_of(request), key.rsplit("/", 1)[-1]
    try:
        found = await ingest.store.stat(key)
    except ObjectMissing:
        raise missing from None
    etag = found.etag.strip('"')
    headers = {
        "ETag": f'"{etag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}",
    }
    if found.last_modified is not None:
        headers["Last-Modified"] = found.last_modified.strftime("%a, %d %b %Y %H:%M:%S GMT")
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range") if request.method == "GET" else None
    if (condition := request.headers.get("if-range")) and condition.strip('"') != etag:
        wanted = None
    try:
        part = parse_range(wanted, found.size)
    except Unsatisfiable:
        raise Refused(
            Reason.BAD_REQUEST, f"The range lies behind the end: {name} has {found.size} bytes.",
            status=416, headers={"Content-Range": f"bytes */{found.size}"},
        ) from None  # fmt: skip
    kind = media_type(key, found.content_type)
    length = part.length if part else found.size
    headers["Content-Length"] = str(length)
    if part is not None:
        last = part.offset + part.length - 1
        headers["Content-Range"] = f"bytes {part.offset}-{last}/{found.size}"
    status = 206 if part else 200
    if request.method == "HEAD" or length == 0:
        return Response(status_code=status, headers=headers, media_type=kind)
    body = await _begun(ingest, key, part)
    return StreamingResponse(body, status, headers=headers, media_type=kind)


async def _begun(ingest: Ingest, key: str, part: Slice | None) -> AsyncIterator[bytes]:
    """The object's bytes; the first piece is here already, so that an outage is still a 503."""
    stream = ingest.store.stream(
        key, offset=part.offset if part else 0, length=part.length if part else 0
    )
    first = await anext(stream, b"")

    async def all_of_it() -> AsyncIterator[bytes]:
        yield first
        async for piece in stream:
            yield piece

    return all_of_it()
