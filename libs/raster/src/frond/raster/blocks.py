"""A block of windows as one piece of work: said in one object, done in any process."""

from __future__ import annotations

from dataclasses import dataclass

from frond.contracts.plan import RasterSource, WindowGrid
from frond.raster.reader import Layout, RasterReader, WindowPixels


@dataclass(frozen=True, slots=True)
class Block:
    """Windows of one raster (see :class:`RasterReader`)."""

    source: RasterSource
    grid: WindowGrid
    windows: tuple[int, ...]
    layout: Layout


def read_block(block: Block) -> list[WindowPixels]:
    """The windows' pixels, in order. Raises as :meth:`RasterReader.read`."""
    with RasterReader(block.source, block.grid, layout=block.layout) as reader:
        return reader.read_block(block.windows)
