"""Which windows hold no valid pixel at all, found without reading what cannot be empty."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from frond.contracts.plan import Box, WindowGrid
from frond.raster.gdal import gdal_errors
from frond.raster.inspect import RasterInfo
from frond.raster.open import Dataset
from frond.raster.validity import Validity, both

_PROBE: Final = 32
_STEP_BYTES: Final = 32 << 20


def empty_windows(
    dataset: Dataset,
    info: RasterInfo,
    grid: WindowGrid,
    read_bands: tuple[int, ...],
    validity: Validity,
) -> NDArray[np.bool_]:
    """Windows of which not one pixel is valid: a bool by window index.

    Candidates come from an overview, or from a probe in each window's middle where there is no
    overview; each candidate is then read in full, so that one valid pixel is enough to keep a
    window. Memory is constant; the time is that of reading the empty area once.

    Raises:
        RasterRejected: pixels are missing or damaged.
    """
    empty = np.zeros(grid.count, np.bool_)
    if validity.always:
        return empty
    look = _Look(dataset, info, read_bands, validity)
    factor = _overview(info, grid)
    with gdal_errors(reading=True):
        for row in range(grid.rows):
            boxes = [
                raster_box(grid.window(i), grid, info.width, info.height)
                for i in range(row * grid.cols, (row + 1) * grid.cols)
            ]
            seen = look.row(boxes, factor) if factor else [look.probe(b) for b in boxes]
            for col, (box, valid) in enumerate(zip(boxes, seen, strict=True)):
                if not valid:
                    empty[row * grid.cols + col] = not look.anything(box)
    return empty


def raster_box(box: Box, grid: WindowGrid, width: int, height: int) -> Box:
    """The whole raster pixels that a box of scaled pixels touches."""
    s = grid.scale
    if s == 1.0:
        return box
    x0 = min(int(box.x0 / s), width - 1)
    y0 = min(int(box.y0 / s), height - 1)
    return Box(
        x0,
        y0,
        max(x0 + 1, min(width, math.ceil(box.x1 / s))),
        max(y0 + 1, min(height, math.ceil(box.y1 / s))),
    )


def _overview(info: RasterInfo, grid: WindowGrid) -> int:
    # at least eight overview pixels across a window, else nearly everything is a candidate
    most = grid.size / grid.scale / 8
    fits = [f for f in info.overviews if f <= most]
    return fits[-1] if fits else 0


class _Look:
    def __init__(
        self, dataset: Dataset, info: RasterInfo, bands: tuple[int, ...], validity: Validity
    ) -> None:
        self._dataset = dataset
        self._info = info
        self._bands = list(bands)
        self._validity = validity

    def row(self, boxes: list[Box], factor: int) -> list[bool]:
        """Whether an overview shows something valid in each box; the boxes are of one grid row."""
        y0, y1 = boxes[0].y0, boxes[0].y1
        x1 = boxes[-1].x1
        high, wide = max(1, (y1 - y0) // factor), max(1, x1 // factor)
        columns = np.zeros(wide, np.bool_)
        across = wide / x1
        step = max(1, _STEP_BYTES // (high * len(self._bands) * self._info.itemsize))
        for left in range(0, wide, step):
            right = min(left + step, wide)
            box = Box(round(left / across), y0, round(right / across), y1)
            valid = self._read(box, (high, right - left))
            if valid is None:
                return [True] * len(boxes)
            columns[left:right] = valid.any(axis=0)
        return [
            bool(columns[math.ceil(b.x0 * across) : max(1, int(b.x1 * across))].any())
            for b in boxes
        ]

    def probe(self, box: Box) -> bool:
        """Whether something in the box's middle is valid."""
        x, y = (box.x0 + box.x1) // 2, (box.y0 + box.y1) // 2
        half = _PROBE // 2
        return self._any(
            Box(
                max(box.x0, x - half),
                max(box.y0, y - half),
                min(box.x1, x + half),
                min(box.y1, y + half),
            )
        )

    def anything(self, box: Box) -> bool:
        """Whether any pixel of the box is valid, at full resolution."""
        across = box.width * len(self._bands) * self._info.itemsize
        high = max(1, min(box.height, _STEP_BYTES // max(1, across)))
        if high > 512:
            high = 512
        return any(
            self._any(Box(box.x0, y, box.x1, min(y + high, box.y1)))
            for y in range(box.y0, box.y1, high)
        )

    def _any(self, box: Box) -> bool:
        valid = self._read(box, (box.height, box.width))
        return valid is None or bool(valid.any())

    def _read(self, box: Box, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        window = Window(box.x0, box.y0, box.width, box.height)
        valid = self._validity.of_bands(self._dataset, window, shape, Resampling.nearest)
        if valid is not None and not valid.any():
            return valid
        if self._validity.by_samples:
            data = self._dataset.read(
                self._bands, window=window, out_shape=(len(self._bands), *shape)
            )
            valid = both(valid, self._validity.of_samples(data))
        return valid


def pack_bitmap(flags: NDArray[np.bool_]) -> str:
    """A plan's ``skipped``: base64 of zlib of the bits, least significant first; '' for none."""
    if not flags.any():
        return ""
    packed = np.packbits(flags, bitorder="little").tobytes()
    return base64.b64encode(zlib.compress(packed, 9)).decode("ascii")


def unpack_bitmap(text: str, count: int) -> NDArray[np.bool_]:
    """The inverse of :func:`pack_bitmap`: a bool by window index.

    Raises ValueError for what is no bitmap of so many windows.
    """
    if not text:
        return np.zeros(count, np.bool_)
    size = (count + 7) // 8
    try:
        # no longer than it may be, whatever was packed
        packed = zlib.decompressobj().decompress(base64.b64decode(text), size + 1)
    except zlib.error as e:
        raise ValueError(f"no bitmap: {e}") from e
    if len(packed) != size:
        raise ValueError(f"no bitmap of {count} windows")
    raw = np.frombuffer(packed, np.uint8)
    return np.unpackbits(raw, count=count, bitorder="little").astype(np.bool_)


def running_blocks(grid: WindowGrid, size: int, skipped: NDArray[np.bool_]) -> Iterator[list[int]]:
    """The grid's blocks without their skipped windows; blocks with nothing left are left out."""
    for block in grid.blocks(size):
        left = _left(block, skipped)
        if left:
            yield left


def _left(block: Iterable[int], skipped: NDArray[np.bool_]) -> list[int]:
    return [i for i in block if not skipped[i]]
