"""Writing an object as a stream: constant memory, and nothing visible until it is whole."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from minio.datatypes import Part

from frond.contracts.errors import ObjectMissing, StoreUnavailable
from frond.store.s3 import S3, translated

MIB: Final = 1 << 20
_FIRST_PART: Final = 8 * MIB
_LATER_PART: Final = 32 * MIB
_SMALL_PARTS: Final = 500  # 4 GiB in parts of 8 MiB, then 9,500 of 32 MiB: 300 GiB


class MultipartWriter:
    """A file-like sink for one object. Blocking: use it in a thread.

    The object appears whole at :meth:`close`, or not at all. Used as a context manager it is
    aborted by an exception. Holds at most one part in memory.

    Attributes:
        size: bytes written so far.
        etag: of the object, once closed.
    """

    def __init__(
        self,
        s3: S3,
        bucket: str,
        key: str,
        content_type: str = "application/octet-stream",
        metadata: dict[str, str] | None = None,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self.key = key
        self._headers = {"Content-Type": content_type}
        self._headers.update({f"x-amz-meta-{k}": v for k, v in (metadata or {}).items()})
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._parts: list[Part] = []
        self._sha = hashlib.sha256()
        self.size = 0
        self.etag = ""
        self._closed = False

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def parts(self) -> int:
        """How many parts the store has; none of them is visible before :meth:`close`."""
        return len(self._parts)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what was written so far."""
        return self._sha.hexdigest()

    def flush(self) -> None:
        """Does nothing: parts are sent when they are full."""

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        """Take bytes; sends a part when one is full.

        Raises:
            StoreUnavailable: the store does not take the part; the whole object is to be written
                again.
        """
        view = memoryview(data).cast("B")
        self._sha.update(view)
        self.size += len(view)
        taken = 0
        while taken < len(view):
            limit = _FIRST_PART if len(self._parts) < _SMALL_PARTS else _LATER_PART
            piece = view[taken : taken + limit - len(self._buffer)]
            self._buffer += piece
            taken += len(piece)
            if len(self._buffer) == limit:
                self._send(self._buffer)
                self._buffer = bytearray()
        return len(view)

    def _send(self, part: bytes | bytearray) -> None:
        with translated(f"writing {self.key}", writing=True):
            if self._upload_id is None:
                self._upload_id = self._s3.begin_multipart(self._bucket, self.key, self._headers)
            number = len(self._parts) + 1
            etag = self._s3.put_part(self._bucket, self.key, self._upload_id, number, part)
        self._parts.append(Part(number, etag.strip('"')))

    def close(self) -> None:
        """Make the object visible. A second call does nothing."""
        if self._closed:
            return
        if self._upload_id is None:
            with translated(f"writing {self.key}"):
                done = self._s3.put_bytes(
                    self._bucket,
                    self.key,
                    bytes(self._buffer),
                    self._headers,
                    sha256=self._sha.hexdigest(),
                )
            self.etag = str(done.etag or "")
        else:
            if self._buffer:
                self._send(self._buffer)
            with translated(f"writing {self.key}", writing=True):
                self.etag = self._s3.end_multipart(
                    self._bucket, self.key, self._upload_id, self._parts
                )
        self._buffer = bytearray()
        self._closed = True

    def abort(self) -> None:
        """Drop what was written; the object stays as it was before."""
        if self._closed:
            return
        self._closed = True
        self._buffer = bytearray()
        if self._upload_id is not None:
            # the store may have dropped it by itself
            with suppress(ObjectMissing), translated(f"dropping {self.key}"):
                self._s3.abort_multipart(self._bucket, self.key, self._upload_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            # what went wrong first is what the caller must hear
            with suppress(StoreUnavailable):
                self.abort()
