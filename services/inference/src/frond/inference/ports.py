"""What the worker is given: where results, rasters, models and windows come from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.drift import Look
from frond.models.session import ModelSession
from frond.raster import Block, WindowPixels

# reads windows in another process; raises as frond.raster.sandbox.Sandbox.run
ReadBlock = Callable[[Block], Awaitable[list[WindowPixels]]]


class Results(Protocol):
    """Where results lie and rasters come from. Methods raise StoreUnavailable."""

    async def get(self, key: str) -> bytes:
        """Raises ObjectMissing."""
        ...

    async def put_if_absent(self, key: str, data: bytes, content_type: str) -> bytes:
        """What is stored under the key afterwards: the first writer wins."""
        ...

    def check(self, uri: str) -> None:
        """Raises JobRejected for a place where rasters may not lie."""
        ...

    async def etag(self, uri: str) -> str:
        """The ETag of a raster. Raises ObjectMissing, or JobRejected as :meth:`check`."""
        ...

    def copy(self, uri: str) -> AbstractAsyncContextManager[Path]:
        """A raster as a local file, surely whole; gone on leaving. Raises ObjectMissing."""
        ...

    async def is_cancelled(self, job_id: str) -> bool: ...


class Models(Protocol):
    """Models by version. Raises ModelRejected, StoreUnavailable or ModelUnavailable."""

    async def get(self, ref: ModelRef) -> ModelSession: ...


class Watch(Protocol):
    """Whoever looks on at what is run. Neither waits, nor raises."""

    def look(
        self, event: ChunkPlanned, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> Look | None:
        """What to keep of a chunk while it runs; None: nothing."""
        ...

    def seen(
        self,
        event: ChunkPlanned,
        session: ModelSession,
        look: Look,
        windows: Sequence[WindowPixels],
    ) -> None:
        """The chunk was run, and its result is stored."""
        ...
