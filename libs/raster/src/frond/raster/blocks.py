"""A block of windows as one piece of work: said in one object, done in any process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from frond.contracts.plan import RasterSource, WindowGrid
from frond.raster.reader import Layout, RasterReader, WindowPixels


@dataclass(frozen=True, slots=True)
class Block:
    """Windows of one raster (see :class:`RasterReader`)."""

    source: RasterSource
    grid: WindowGrid
    windows: tuple[int, ...]
    layout: Layout


class _Kept(threading.local):
    """This thread's last raster: an image's chunks follow one another, and opening it again costs
    two requests and more time than reading some windows. One, for the path that a reader process
    may reach is that of the last one opened."""

    of: tuple[RasterSource, WindowGrid, Layout] | None = None
    reader: RasterReader | None = None

    def drop(self) -> None:
        reader, self.of, self.reader = self.reader, None, None
        if reader is not None:
            reader.close()


_kept: Final = _Kept()


def read_block(block: Block) -> list[WindowPixels]:
    """The windows' pixels, in order. Raises as :meth:`RasterReader.read`.

    A raster in the store stays open until this thread reads another one: whoever needs to know that
    it is still the one that was planned asks for its ETag after reading.
    """
    of = block.source, block.grid, block.layout
    reader = _kept.reader
    if reader is None or _kept.of != of:
        _kept.drop()
        reader = RasterReader(block.source, block.grid, layout=block.layout)
        if block.source.uri.startswith("s3://"):
            _kept.of, _kept.reader = of, reader
    try:
        return reader.read_block(block.windows)
    except BaseException:
        _kept.drop()
        raise
    finally:
        if reader is not _kept.reader:
            reader.close()
