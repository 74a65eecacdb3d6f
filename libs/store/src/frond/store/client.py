"""The object store as services see it: async, with deadlines, errors of our own tree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.store.s3 import S3, StoreSettings, code_of, connect, translated
from frond.store.writer import MultipartWriter

__all__ = ["Listed", "ObjectStore", "Stat", "StoreSettings"]

T = TypeVar("T")

_DEADLINE_S: Final = 120.0
_STREAM_CHUNK: Final = 1 << 20
_LIST_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Stat:
    """What a HEAD request tells of an object."""

    key: str
    size: int
    etag: str
    content_type: str = "application/octet-stream"
    last_modified: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    etag: str
    last_modified: datetime | None


class ObjectStore:
    """One bucket of an S3-compatible store, and read access to others by name.

    Every call has a deadline and raises ObjectMissing, StoreUnavailable, or nothing else that a
    caller should expect. Threads do the blocking work; the store may be used from one event loop.
    """

    def __init__(self, settings: StoreSettings, *, threads: int = 32) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self.s3: S3 = connect(settings)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def uri(self, key: str) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    async def _run(self, what: str, call: Callable[[], T], bucket: str | None = None) -> T:
        foreign = bucket is not None and bucket != self.bucket

        def guarded() -> T:
            with translated(what, foreign=foreign):
                return call()

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await loop.run_in_executor(self._pool, guarded)
        except TimeoutError as e:
            raise StoreUnavailable(f"{what}: no answer in {_DEADLINE_S:.0f} s") from e

    async def has_bucket(self) -> bool:
        """Whether the bucket is there."""
        return await self._run(
            f"looking for bucket {self.bucket}", lambda: self.s3.bucket_exists(self.bucket)
        )

    async def ensure_bucket(self, bucket: str | None = None) -> None:
        """Make the bucket unless it is there."""
        name = bucket or self.bucket

        def make() -> None:
            if not self.s3.bucket_exists(name):
                try:
                    self.s3.make_bucket(name)
                except S3Error as e:
                    if e.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

        await self._run(f"making bucket {name}", make)

    async def get(self, key: str, *, bucket: str | None = None) -> bytes:
        """A small object, whole. Raises ObjectMissing."""

        def read() -> bytes:
            response = self.s3.get_object(bucket or self.bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        return await self._run(f"reading {key}", read, bucket)

    async def head_bytes(
        self, key: str, length: int, *, bucket: str | None = None
    ) -> tuple[Stat, bytes]:
        """An object's size and ETag, and its first ``length`` bytes, all of one state of it.

        Raises ObjectMissing.
        """

        def read() -> tuple[Stat, bytes] | None:
            try:
                response = self.s3.get_object(bucket or self.bucket, key, 0, length)
            except S3Error as e:
                if e.code == "InvalidRange":
                    return None
                raise
            try:
                data = bytes(response.read())
                told = response.headers
            finally:
                response.close()
                response.release_conn()
            whole = told.get("content-range", "").rpartition("/")[2]
            size = int(whole) if whole.isdigit() else len(data)
            kind = told.get("content-type", "application/octet-stream")
            return Stat(key, size, told.get("etag", "").strip('"'), kind), data

        # an object of no bytes has no first ones
        return await self._run(f"reading {key}", read, bucket) or (
            await self.stat(key, bucket=bucket), b"",
        )  # fmt: skip

    async def stream(
        self, key: str, *, offset: int = 0, length: int = 0, bucket: str | None = None
    ) -> AsyncIterator[bytes]:
        """An object, or ``length`` bytes of it from ``offset``, in pieces of at most 1 MiB."""
        response = await self._run(
            f"reading {key}",
            lambda: self.s3.get_object(bucket or self.bucket, key, offset, length),
            bucket,
        )
        try:
            while piece := await self._run(f"reading {key}", lambda: response.read(_STREAM_CHUNK)):
                yield piece
        finally:
            response.close()
            response.release_conn()

    async def put(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",
        metadata: dict[str, str] | None = None,
    ) -> Stat:
        """Write an object whole."""
        headers = {"Content-Type": content_type}
        headers.update({f"x-amz-meta-{k}": v for k, v in (metadata or {}).items()})
        done = await self._run(
            f"writing {key}", lambda: self.s3.put_bytes(self.bucket, key, data, headers)
        )
        return Stat(key, len(data), str(done.etag or ""), content_type)

    async def put_if_absent(
        self, key: str, data: bytes, content_type: str = "application/json"
    ) -> bytes:
        """Write an object unless it is there; returns what is stored: the first writer wins."""
        headers = {"Content-Type": content_type, "If-None-Match": "*"}

        def write() -> bool:
            try:
                self.s3.put_bytes(self.bucket, key, data, headers)
            except S3Error as e:
                if code_of(e) == "PreconditionFailed":
                    return False
                raise
            return True

        while not await self._run(f"writing {key}", write):
            # gone between the two: somebody deleted it, so that it may be written after all
            with suppress(ObjectMissing):
                return await self.get(key)
        return data

    async def get_or_put(
        self, key: str, data: bytes, content_type: str = "application/json"
    ) -> bytes:
        """As :meth:`put_if_absent`, for what most likely is there: then it is read, and that is all."""
        try:
            return await self.get(key)
        except ObjectMissing:
            return await self.put_if_absent(key, data, content_type)

    async def replace(
        self, key: str, data: bytes, etag: str, content_type: str = "application/json"
    ) -> bool:
        """Write over the object that has this ETag; False when it is another one, or gone."""
        headers = {"Content-Type": content_type, "If-Match": f'"{etag.strip(chr(34))}"'}

        def write() -> bool:
            try:
                self.s3.put_bytes(self.bucket, key, data, headers)
            except S3Error as e:
                if code_of(e) in ("PreconditionFailed", "NoSuchKey"):
                    return False
                raise
            return True

        if await self._run(f"writing {key}", write):
            return True
        # the request is sent again when its answer is lost: it may have been refused because of
        # our own first one
        try:
            return await self.get(key) == data
        except ObjectMissing:
            return False

    async def stat(self, key: str, *, bucket: str | None = None) -> Stat:
        """What is known of an object. Raises ObjectMissing."""
        found = await self._run(
            f"looking at {key}",
            lambda: self.s3.stat_object(bucket or self.bucket, key),
            bucket,
        )
        meta = {
            k.lower().removeprefix("x-amz-meta-"): str(v)
            for k, v in (found.metadata or {}).items()
            if k.lower().startswith("x-amz-meta-")
        }
        return Stat(
            key, found.size or 0, found.etag or "",
            found.content_type or "application/octet-stream", found.last_modified, meta,
        )  # fmt: skip

    async def exists(self, key: str) -> bool:
        try:
            await self.stat(key)
        except ObjectMissing:
            return False
        return True

    async def list(
        self, prefix: str, *, bucket: str | None = None, start_after: str | None = None
    ) -> AsyncIterator[Listed]:
        """All objects under a prefix, in the order of their keys, a page at a time."""
        pages = self.s3.list_objects(
            bucket or self.bucket, prefix=prefix, recursive=True, start_after=start_after
        )
        async for item in self._paged(prefix, pages, bucket):
            yield item

    async def folders(self, prefix: str, *, after: str = "") -> AsyncIterator[str]:
        """The names that come next under a prefix ending with a slash, each once, in order, from
        the one after ``after`` on: a request for each thousand of them, however many objects lie
        under each."""
        # "0" follows "/"
        start_after = f"{prefix}{after}0" if after else None
        pages = self.s3.list_objects(
            self.bucket, prefix=prefix, recursive=False, start_after=start_after
        )
        async for item in self._paged(prefix, pages, None):
            if item.key.endswith("/"):
                yield item.key.removeprefix(prefix).removesuffix("/")

    async def _paged(
        self, prefix: str, pages: Iterator[Any], bucket: str | None
    ) -> AsyncIterator[Listed]:

        def page() -> Sequence[Listed]:
            out: list[Listed] = []
            for item in pages:
                out.append(
                    Listed(item.object_name, item.size or 0, item.etag or "", item.last_modified)
                )
                if len(out) == _LIST_PAGE:
                    break
            return out

        while found := await self._run(f"listing {prefix}", page, bucket):
            for item in found:
                yield item

    async def delete(self, key: str) -> None:
        """Remove an object; it need not be there."""
        await self._run(f"deleting {key}", lambda: self.s3.remove_object(self.bucket, key))

    async def delete_prefix(self, prefix: str, *, spare: str | None = None) -> int:
        """Remove all objects under a prefix but ``spare``; returns how many there were."""
        count = 0
        batch: list[str] = []
        async for item in self.list(prefix):
            if item.key == spare:
                continue
            batch.append(item.key)
            count += 1
            if len(batch) == _LIST_PAGE:
                await self._delete_all(batch)
                batch = []
        await self._delete_all(batch)
        return count

    async def _delete_all(self, keys: Sequence[str]) -> None:
        if not keys:
            return

        def remove() -> Sequence[Any]:
            return tuple(self.s3.remove_objects(self.bucket, [DeleteObject(k) for k in keys]))

        errors = await self._run("deleting", remove)
        if errors:
            raise StoreUnavailable(f"deleting: {errors[0].message}")

    async def get_file(self, key: str, path: Path, *, bucket: str | None = None) -> None:
        """Download to a local file: whole, or StoreUnavailable."""

        def copy() -> None:
            with translated(f"reading {key}", foreign=bucket not in (None, self.bucket)):
                self.s3.fget_object(bucket or self.bucket, key, str(path))

        # a large file may take longer than one request's deadline; each read has its own
        await asyncio.get_running_loop().run_in_executor(self._pool, copy)

    async def put_file(
        self, key: str, path: Path, content_type: str = "application/octet-stream"
    ) -> None:
        """Upload a local file, as a stream."""

        def copy() -> None:
            with path.open("rb") as source, self.writer(key, content_type) as sink:
                while piece := source.read(_STREAM_CHUNK):
                    sink.write(piece)

        # a large file may take longer than one request's deadline; each part has its own
        await asyncio.get_running_loop().run_in_executor(self._pool, copy)

    def writer(
        self,
        key: str,
        content_type: str = "application/octet-stream",
        metadata: dict[str, str] | None = None,
    ) -> MultipartWriter:
        """A blocking sink for one object of any size; for threads."""
        return MultipartWriter(self.s3, self.bucket, key, content_type, metadata)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run blocking work on the store's threads, without a deadline of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)
