"""Files into MinIO by the minio client alone, several at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from minio import Minio
from minio.datatypes import Part


def _client(env: dict[str, str]) -> Minio:
    return Minio(
        urlsplit(env["FROND_S3_ENDPOINT"]).netloc, env["FROND_S3_ACCESS_KEY"],
        env["FROND_S3_SECRET_KEY"], secure=False, region="us-east-1",
    )  # fmt: skip


def plain(
    endpoints: str, folder: str, files: int, at_once: int, prefix: str
) -> Callable[[], dict[str, Any]]:
    """As the client puts a file of this size: in one request."""
    env = json.loads(endpoints)
    client, bucket = _client(env), env["FROND_S3_BUCKET"]

    def put(path: Path) -> None:
        client.fput_object(bucket, f"{prefix}/{path.name}", str(path), "image/tiff")

    return _work(put, folder, files, at_once)


def multipart(
    endpoints: str, folder: str, files: int, at_once: int, prefix: str
) -> Callable[[], dict[str, Any]]:
    """As a multipart upload of one part: begun, sent, completed."""
    env = json.loads(endpoints)
    client, bucket = _client(env), env["FROND_S3_BUCKET"]

    def put(path: Path) -> None:
        key = f"{prefix}/{path.name}"
        upload = client._create_multipart_upload(bucket, key, {"Content-Type": "image/tiff"})
        etag = client._upload_part(bucket, key, path.read_bytes(), None, upload, 1)
        client._complete_multipart_upload(bucket, key, upload, [Part(1, etag.strip('"'))])

    return _work(put, folder, files, at_once)


def _work(
    put: Callable[[Path], None], folder: str, files: int, at_once: int
) -> Callable[[], dict[str, Any]]:
    paths = sorted(Path(folder).glob("*.tif"))[:files]
    pool = ThreadPoolExecutor(at_once)
    list(pool.map(put, paths[: 2 * at_once]))

    def work() -> dict[str, Any]:
        list(pool.map(put, paths))
        return {"kept": len(paths)}

    return work
