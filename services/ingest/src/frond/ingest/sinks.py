"""Where a file's bytes go while they arrive: into the store, or only through a hash."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Final, Protocol

from frond.contracts.errors import FrondError
from frond.contracts.reasons import Reason
from frond.ingest.problems import Refused
from frond.runtime import crash_point
from frond.store import MultipartWriter, ObjectStore

_PIECE: Final = 1 << 20


class Sink(Protocol):
    """Takes one file's bytes in order."""

    size: int

    async def write(self, data: bytes) -> None: ...

    async def whole(self) -> str:
        """All bytes were given: their SHA-256 in hex. Nothing is visible in the store yet."""
        ...

    async def keep(self) -> None:
        """Make the object visible."""
        ...

    async def drop(self) -> None:
        """Leave no object behind. Never raises."""
        ...


class _Limited:
    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit

    def _count(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise Refused(
                Reason.TOO_LARGE, f"A file may have {self._limit} bytes here; this one has more."
            )


class ObjectSink(_Limited):
    """Streams into one object: one piece of 1 MiB fills while the one before it is written.

    Whoever writes waits for the store when it is slower than they are: memory is two pieces and
    the writer's part, whatever the file's size.
    """

    def __init__(self, store: ObjectStore, key: str, limit: int) -> None:
        super().__init__(limit)
        self._store = store
        self._writer: MultipartWriter = store.writer(key, "application/octet-stream")
        self._piece = bytearray()
        self._writing: asyncio.Future[int] | None = None

    async def write(self, data: bytes) -> None:
        self._count(data)
        self._piece += data
        if len(self._piece) >= _PIECE:
            await self._hand_over()

    async def _hand_over(self) -> None:
        if self._writing is not None:
            await self._writing
            crash_point("ingest.piece-written")
            if self._writer.parts:
                crash_point("ingest.part-sent")
        piece = bytes(self._piece)
        self._piece.clear()
        self._writing = asyncio.ensure_future(
            self._store.in_thread(lambda: self._writer.write(piece))
        )

    async def whole(self) -> str:
        await self._hand_over()
        assert self._writing is not None
        await self._writing
        return self._writer.sha256

    async def keep(self) -> None:
        await self._store.in_thread(self._writer.close)

    async def drop(self) -> None:
        if self._writing is not None:
            with contextlib.suppress(FrondError, asyncio.CancelledError):
                await self._writing
        with contextlib.suppress(FrondError):
            await self._store.in_thread(self._writer.abort)


class HashSink(_Limited):
    """Stores nothing: for comparing a repeated request with the first."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._sha = hashlib.sha256()

    async def write(self, data: bytes) -> None:
        self._count(data)
        self._sha.update(data)

    async def whole(self) -> str:
        return self._sha.hexdigest()

    async def keep(self) -> None:
        pass

    async def drop(self) -> None:
        pass
