"""A chunk's windows, surely of the object that was planned."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from frond.contracts.errors import ObjectMissing, RasterRejected
from frond.contracts.events import ChunkPlanned
from frond.contracts.reasons import Reason
from frond.inference.ports import ReadBlock, Results
from frond.inference.results import check_fit
from frond.models.session import ModelSession
from frond.raster import DOUBTFUL, JUDGED_BYTES, Block, Layout, WindowPixels
from frond.runtime import get_logger

_log = get_logger(__name__)

# what costs readers, or their time: an image's other chunks are not given to another one
_COSTLY: Final = (Reason.READER_DIED, Reason.READ_TIMEOUT, Reason.UNAVAILABLE)
# a line may be so slow that reading in place takes too long
_DOUBTFUL: Final = DOUBTFUL | {Reason.READ_TIMEOUT}
_REMEMBERED: Final = 1000


class SourceGone(ObjectMissing):
    """The store itself says that the image is not there."""


class FailedBefore:
    """For what reasons chunks of images failed in this process, of late, and what was said."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Reason], str] = OrderedDict()

    def add(self, image_id: str, reason: Reason, detail: str) -> None:
        self._known[image_id, reason] = detail
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def detail(self, image_id: str, reason: Reason) -> str | None:
        """What was said; None: no chunk of the image failed for that."""
        return self._known.get((image_id, reason))


class Reading:
    """Reads chunks' windows, some chunks at a time.

    Args:
        read: reads windows, in another process.
        readers: how many chunks are read at a time.
        failed_before: is asked, and told of what costs readers.
    """

    def __init__(
        self, results: Results, read: ReadBlock, readers: int, failed_before: FailedBefore
    ) -> None:
        self._results = results
        self._read = read
        self._failed_before = failed_before
        self._places = asyncio.Semaphore(readers)

    async def windows(
        self, event: ChunkPlanned, session: ModelSession
    ) -> tuple[list[WindowPixels], float]:
        """The chunk's windows, in order, and the seconds that reading them took.

        Raises:
            RasterRejected, ModelRejected, JobRejected: they cannot be read, or not for this model.
            SourceGone: the image is not there any more.
            StoreUnavailable: the store is away.
        """
        check_fit(event, session)
        self._results.check(event.source.uri)
        block = Block(event.source, event.grid, event.windows, session.layout)
        # also while a damaged image is judged: its other chunks wait for that
        async with self._places:
            started = time.perf_counter()
            for reason in _COSTLY:
                if (detail := self._failed_before.detail(event.image_id, reason)) is not None:
                    raise RasterRejected(reason, detail)
            try:
                windows = await self._doubted(event, block)
            except RasterRejected as e:
                if e.reason in _COSTLY:
                    self._failed_before.add(event.image_id, e.reason, e.detail)
                raise
        # after, because an object replaced while it was read gives windows of two rasters
        await self._unchanged(event)
        return windows, time.perf_counter() - started

    async def again(
        self, event: ChunkPlanned, windows: tuple[int, ...], layout: Layout
    ) -> Sequence[WindowPixels]:
        """Some windows of a chunk that was read before, raising as :meth:`windows`."""
        self._results.check(event.source.uri)
        async with self._places:
            read = await self._read(Block(event.source, event.grid, windows, layout))
        await self._unchanged(event)
        return read

    async def _doubted(self, event: ChunkPlanned, block: Block) -> list[WindowPixels]:
        """The block, in place; where that tells of damage, a whole copy of the image decides."""
        try:
            return await self._read(block)
        except RasterRejected as e:
            # a replaced object may look damaged: the truer reason goes first
            await self._unchanged(event)
            known = self._failed_before.detail(event.image_id, e.reason) is not None
            if e.reason not in _DOUBTFUL or known or event.source.size > JUDGED_BYTES:
                raise
            detail = e.detail
        async with self._results.copy(event.source.uri) as whole:
            source = event.source.model_copy(update={"uri": str(whole)})
            windows = await self._read(replace(block, source=source))
        _log.warning("an image only looked damaged", chunk_id=event.chunk_id, detail=detail)
        return windows

    async def _unchanged(self, event: ChunkPlanned) -> None:
        try:
            etag = await self._results.etag(event.source.uri)
        except ObjectMissing:
            raise SourceGone(
                "The image was deleted from the store before it was processed. Send it again."
            ) from None
        if etag.strip('"') != event.source.etag.strip('"'):
            raise RasterRejected(
                Reason.OBJECT_CHANGED,
                "The image was replaced in the store after its processing began. Send it again.",
            )
