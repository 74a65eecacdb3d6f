"""Resampling of float rasters with NaN: GDAL takes it for a number, with its bilinear kernel even
where it is the nodata value, so that one NaN makes every pixel NaN that it is a part of."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.windows import Window

from frond.raster.open import Dataset
from frond.raster.validity import Validity, both

_STEP_BYTES: Final = 32 << 20
# a number, because GDAL leaves NaN out by multiplying it by 0; and one that no file has
_VOID: Final = -1.2345e38
# without a transform rasterio warns
_ANYWHERE: Final = Affine.translation(1, 1)


def around_holes(
    dataset: Dataset,
    bands: list[int],
    validity: Validity,
    window: Window,
    shape: tuple[int, int],
    how: Resampling,
) -> NDArray[Any]:
    """A window's float samples [bands, *shape], each made of the valid pixels alone that it covers;
    NaN where there is none.

    Read is the overview that GDAL reads by itself, in steps of bounded memory: what it has cached of
    that is not asked for again.
    """
    level = _Level(dataset, window, shape)
    out = np.empty((len(bands), *shape), dataset.dtypes[0])
    row_bytes = max(1.0, level.down / shape[0]) * level.across * len(bands) * out.itemsize
    high = max(1, int(_STEP_BYTES // row_bytes))
    for top in range(0, shape[0], high):
        rows = slice(top, min(top + high, shape[0]))
        out[:, rows] = _step(level, bands, validity, rows, shape, how)
    return out


class _Level:
    """The pixels that a window is resampled from: a raster's own, or those of an overview.

    Attributes:
        x, y, across, down: the window, in these pixels.
    """

    def __init__(self, dataset: Dataset, window: Window, shape: tuple[int, int]) -> None:
        self.dataset = dataset
        most = min(window.width / shape[1], window.height / shape[0]) * (1 + 1e-6)
        factor = max([1, *(f for f in dataset.overviews(1) if f <= most)])
        self.width = -(-dataset.width // factor)
        self.height = -(-dataset.height // factor)
        self._wide = dataset.width / self.width
        self._high = dataset.height / self.height
        self.x, self.across = window.col_off / self._wide, window.width / self._wide
        self.y, self.down = window.row_off / self._high, window.height / self._high

    def window(self, x0: int, y0: int, x1: int, y1: int) -> Window:
        """Some of these pixels, in the raster's own."""
        x, y = x0 * self._wide, y0 * self._high
        return Window(
            x,
            y,
            min(x1 * self._wide, self.dataset.width) - x,
            min(y1 * self._high, self.dataset.height) - y,
        )


def _step(
    level: _Level,
    bands: list[int],
    validity: Validity,
    rows: slice,
    shape: tuple[int, int],
    how: Resampling,
) -> NDArray[Any]:
    each = level.down / shape[0]
    y, down = level.y + rows.start * each, (rows.stop - rows.start) * each
    # GDAL looks beyond a window by its kernel
    more_x, more_y = math.ceil(level.across / shape[1]) + 1, math.ceil(each) + 1
    x0, x1 = _within(level.x, level.across, more_x, level.width)
    y0, y1 = _within(y, down, more_y, level.height)
    size = (y1 - y0, x1 - x0)
    window = level.window(x0, y0, x1, y1)
    data = level.dataset.read(bands, window=window, out_shape=(len(bands), *size))
    valid = both(validity.of_samples(data), validity.of_bands(level.dataset, window, size))
    own = validity.nodata if validity.by_nodata else ()
    void = float(data.dtype.type(_VOID))
    for band, value in zip(data, own, strict=False):
        band[band == value] = void
    if valid is not None:
        data[:, ~valid] = void
    profile = {
        "driver": "MEM", "count": len(bands), "height": size[0], "width": size[1],
        "dtype": data.dtype, "nodata": void, "transform": _ANYWHERE,
    }  # fmt: skip
    # a MemoryFile for its name: what lies under a name of our own rasterio would delete
    with MemoryFile() as memory, memory.open(**profile) as held:
        held.write(data)
        out: NDArray[Any] = held.read(
            window=Window(level.x - x0, y - y0, level.across, down),
            out_shape=(len(bands), rows.stop - rows.start, shape[1]),
            resampling=how,
        )
    gone = out == void
    nothing = gone.all(axis=0)
    for band, absent, value in zip(out, gone, own, strict=False):
        band[absent] = value
    out[:, nothing] = np.nan
    return out


def _within(start: float, extent: float, more: int, length: int) -> tuple[int, int]:
    first = max(0, math.floor(start) - more)
    return first, max(first + 1, min(length, math.ceil(start + extent) + more))
