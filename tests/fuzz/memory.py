"""An object store in memory, behind the very class that services use.

Only what lies under :class:`frond.store.ObjectStore` is replaced, so that a target does thousands
of inputs a second; the same paths are walked on the real MinIO by the chaos program's scenario.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from minio.error import S3Error

from frond.store import ObjectStore, StoreSettings
from frond.store.s3 import translated

T = TypeVar("T")
BUCKET = "frond"
_NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class _Object:
    object_name: str
    data: bytes
    content_type: str = "application/octet-stream"
    last_modified: datetime = _NOW

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()

    @property
    def metadata(self) -> dict[str, str]:
        return {}


class _Answer(io.BytesIO):
    def __init__(self, found: _Object, data: bytes) -> None:
        super().__init__(data)
        self.headers = {
            "etag": found.etag, "content-type": found.content_type,
            "content-range": f"bytes 0-{len(data)}/{found.size}",
        }  # fmt: skip

    def release_conn(self) -> None:
        """As urllib3 has it."""


def _error(code: str, key: str) -> S3Error:
    return S3Error(None, code, code, key, "", "")  # type: ignore[arg-type]


class MemoryS3:
    """The requests that ObjectStore makes. Names that MinIO refuses are refused."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, _Object]] = {BUCKET: {}}
        self.written: list[str] = []

    def _found(self, bucket: str, key: str) -> _Object:
        _check(key)
        if bucket not in self.buckets:
            raise _error("NoSuchBucket", key)
        if key not in self.buckets[bucket]:
            raise _error("NoSuchKey", key)
        return self.buckets[bucket][key]

    def bucket_exists(self, bucket: str) -> bool:
        return bucket in self.buckets

    def make_bucket(self, bucket: str) -> None:
        self.buckets.setdefault(bucket, {})

    def get_object(self, bucket: str, key: str, offset: int = 0, length: int = 0) -> _Answer:
        found = self._found(bucket, key)
        return _Answer(found, found.data[offset : offset + length if length else None])

    def fget_object(self, bucket: str, key: str, path: str) -> None:
        Path(path).write_bytes(self._found(bucket, key).data)

    def stat_object(self, bucket: str, key: str) -> _Object:
        return self._found(bucket, key)

    def put_bytes(
        self,
        bucket: str,
        key: str,
        data: bytes,
        headers: dict[str, str],
        *,
        sha256: str | None = None,
    ) -> _Object:
        _check(key)
        if sha256 is not None and sha256 != hashlib.sha256(data).hexdigest():
            raise _error("XAmzContentSHA256Mismatch", key)
        there = self.buckets[bucket].get(key)
        if (headers.get("If-None-Match") == "*" and there is not None) or (
            "If-Match" in headers
            and (there is None or there.etag != headers["If-Match"].strip('"'))
        ):
            raise _error("PreconditionFailed", key)
        kind = headers.get("Content-Type", "")
        if any(ord(c) < 32 or ord(c) > 255 for c in kind):
            raise ValueError(f"a header with {kind!r}")
        self.written.append(key)
        self.buckets[bucket][key] = _Object(key, bytes(data), kind)
        return self.buckets[bucket][key]

    def list_objects(
        self, bucket: str, prefix: str = "", recursive: bool = True, start_after: str | None = None
    ) -> Iterator[_Object]:
        for key in sorted(self.buckets.get(bucket, {})):
            if key.startswith(prefix) and key > (start_after or ""):
                yield self.buckets[bucket][key]

    def remove_object(self, bucket: str, key: str) -> None:
        _check(key)
        self.buckets[bucket].pop(key, None)

    def remove_objects(self, bucket: str, names: list[Any]) -> list[Any]:
        for one in names:
            self.remove_object(bucket, one._name)
        return []


def _check(key: str) -> None:
    parts = key.split("/")
    if any(p in (".", "..") for p in parts) or "//" in key or "\x00" in key:
        raise _error("XMinioInvalidObjectName", key)
    if len(key.encode()) > 1024 or any(len(p.encode()) > 255 for p in parts):
        raise _error("KeyTooLongError", key)


class MemoryStore(ObjectStore):
    """The real store class over :class:`MemoryS3`, without threads."""

    def __init__(self) -> None:
        super().__init__(StoreSettings("http://127.0.0.1:9", "fuzz", "fuzz", BUCKET), threads=1)
        self.memory = MemoryS3()
        self.s3 = self.memory  # type: ignore[assignment]

    async def _run(self, what: str, call: Callable[[], T], bucket: str | None = None) -> T:
        with translated(what, foreign=bucket is not None and bucket != self.bucket):
            return call()

    async def in_thread(self, call: Callable[[], T]) -> T:
        return call()

    def seed(self, objects: dict[str, bytes]) -> None:
        """What is there before the first message."""
        self.memory.buckets = {BUCKET: {k: _Object(k, v) for k, v in objects.items()}}
        self.memory.written = []

    @property
    def objects(self) -> dict[str, bytes]:
        return {k: o.data for k, o in self.memory.buckets[BUCKET].items()}
