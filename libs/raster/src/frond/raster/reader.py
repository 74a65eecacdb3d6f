"""Windows' pixels: resampled to the grid's scale, in the model's range, without black edges."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import Box, Radiometry, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.raster import overheard
from frond.raster.gdal import gdal_errors
from frond.raster.holes import around_holes
from frond.raster.inspect import inspect
from frond.raster.limits import UNBOUNDED
from frond.raster.open import Dataset, open_dataset
from frond.raster.sampling import stretched
from frond.raster.validity import Bools, Palette, Validity, both, palette_of, validity_of

Layout = Literal["CHW", "HWC"]
Pixels = NDArray[np.uint8]

_BLOCK_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class WindowPixels:
    """One window.

    Attributes:
        index: in the grid.
        data: uint8, [bands, size, size] or [size, size, bands] as asked for; may be a view of a
            larger array, so it is not to be written to. Pixels that mean nothing have the
            radiometry's ``fill``. Windows of an image smaller than ``size`` are continued by
            reflection to the right and below.
        valid: bool [size, size], False where the pixel means nothing; None: all are valid.
    """

    index: int
    data: Pixels
    valid: Bools | None


class RasterReader:
    """Reads the windows of a plan, from any number of threads: each has a handle of its own.

    A reader is a context manager; ``close`` closes every thread's handle and must not run while
    another thread reads.

    Args:
        source, grid: from the plan.
        path: read this local file instead of ``source.uri``.
        dataset: read this open dataset (one thread only); it stays open.
        layout: of the arrays handed out.
    """

    def __init__(
        self,
        source: RasterSource,
        grid: WindowGrid,
        *,
        path: str | None = None,
        dataset: Dataset | None = None,
        layout: Layout = "CHW",
    ) -> None:
        self._source = source
        self._grid = grid
        self._path = path or source.uri
        self._given = dataset
        self._layout = layout
        self._local = threading.local()
        self._lock = threading.Lock()
        self._handles: list[_Handle] = []
        self._range = _Range(source.radiometry, np.dtype(source.dtype))

    def __enter__(self) -> RasterReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every handle that was opened here."""
        with self._lock:
            handles, self._handles = self._handles, []
        self._local = threading.local()
        if self._given is None:
            for handle in handles:
                handle.dataset.close()

    def read(self, index: int) -> WindowPixels:
        """One window.

        Raises:
            RasterRejected: TRUNCATED or another reason; OBJECT_CHANGED when the file is no longer
                what was planned.
            StoreUnavailable: the store could not be asked; try again later.
        """
        return self.read_block([index])[0]

    def read_block(self, indices: Sequence[int]) -> list[WindowPixels]:
        """Windows of one chunk, in the order asked for, with as few reads as memory allows.

        Neighbours are cut out of one read of their common rectangle, up to 64 MB; raises as
        :meth:`read`, for the whole block at once. Pixels are the same whether windows are read
        alone or together.
        """
        try:
            return self._read_block(indices)
        except RasterRejected as e:
            if e.reason is not Reason.TRUNCATED or not self._is_remote:
                raise
        # a store that went away in the middle of a read looks like missing pixels
        try:
            return self._read_block(indices)
        except RasterRejected:
            open_dataset(self._path).close()
            raise

    @property
    def _is_remote(self) -> bool:
        return self._given is None and self._path.startswith("s3://")

    def _read_block(self, indices: Sequence[int]) -> list[WindowPixels]:
        try:
            handle = self._handle()
            overheard.opened(self._source.size if self._is_remote else None)
            with gdal_errors(reading=True):
                by_index = {
                    i: p for part in self._parts(indices) for i, p in self._cut(handle, part)
                }
        except Exception:
            # whatever the handle has cached of a store that failed must not be read again
            self._drop()
            raise
        return [by_index[i] for i in indices]

    def _handle(self) -> _Handle:
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None:
            dataset = self._given or open_dataset(self._path)
            try:
                handle = _Handle(dataset, self._source, self._layout)
            except BaseException:
                if self._given is None:
                    dataset.close()
                raise
            self._local.handle = handle
            with self._lock:
                self._handles.append(handle)
        return handle

    def _drop(self) -> None:
        handle: _Handle | None = getattr(self._local, "handle", None)
        if handle is None or self._given is not None:
            return
        self._local.handle = None
        with self._lock:
            if handle in self._handles:
                self._handles.remove(handle)
        handle.dataset.close()

    def _parts(self, indices: Sequence[int]) -> Iterator[list[int]]:
        ordered = sorted(set(indices))
        if self._grid.scale != 1.0:
            # resampled pixels depend on where the read begins: always at the window
            yield from ([i] for i in ordered)
            return
        pending = [ordered]
        while pending:
            part = pending.pop()
            box = self._around(part)
            sample = np.dtype(self._source.dtype).itemsize * len(self._source.bands)
            if len(part) > 1 and box.width * box.height * sample > _BLOCK_BYTES:
                middle = len(part) // 2
                pending += [part[middle:], part[:middle]]
            else:
                yield part

    def _around(self, part: list[int]) -> Box:
        boxes = [self._grid.window(i) for i in part]
        return Box(
            min(b.x0 for b in boxes),
            min(b.y0 for b in boxes),
            max(b.x1 for b in boxes),
            max(b.y1 for b in boxes),
        )

    def _cut(self, handle: _Handle, part: list[int]) -> Iterator[tuple[int, WindowPixels]]:
        around = self._around(part)
        raw, valid = handle.read(around, self._grid)
        pixels = self._range.apply(raw)
        if valid is not None and not valid.all():
            pixels = self._filled(pixels, valid)
        else:
            valid = None
        for i in part:
            box = self._grid.window(i)
            rows = slice(box.y0 - around.y0, box.y1 - around.y0)
            cols = slice(box.x0 - around.x0, box.x1 - around.x0)
            own = None if valid is None else valid[rows, cols]
            if own is not None and own.all():
                own = None
            yield i, framed(i, pixels[:, rows, cols], own, self._grid.size, self._layout)

    def _filled(self, pixels: Pixels, valid: Bools) -> Pixels:
        fill = self._source.radiometry.fill or (0,) * len(pixels)
        if not pixels.flags.writeable:
            pixels, read = _lying_as(pixels), pixels
            pixels[...] = read
        void = ~valid
        for band, value in zip(pixels, fill, strict=True):
            band[void] = value
        return pixels


def framed(
    index: int, pixels: Pixels, valid: Bools | None, size: int, layout: Layout
) -> WindowPixels:
    """A window of what a raster has there: continued to ``size``, in a model's layout.

    Args:
        pixels: uint8 [bands, rows, cols], at most ``size`` of each.
        valid: bool [rows, cols]; None: all are valid.
    """
    more = ((0, size - pixels.shape[1]), (0, size - pixels.shape[2]))
    bands = (0, 0)
    if layout == "HWC":
        pixels = pixels.transpose(1, 2, 0)
    if more != ((0, 0), (0, 0)):
        around = (*more, bands) if layout == "HWC" else (bands, *more)
        pixels = np.pad(pixels, around, mode="reflect")
        if valid is not None:
            valid = np.pad(valid, more, mode="reflect")
    return WindowPixels(index, pixels, valid)


def _lying_as(bands: NDArray[Any]) -> Pixels:
    """Room for as many pixels, in the same order of axes.

    It is a view of a contiguous array where the bands lie side by side, too: as such alone windows
    of it are handed to another process without a copy of each.
    """
    turned = bands.transpose(1, 2, 0)
    if turned.flags.c_contiguous:
        return np.empty(turned.shape, np.uint8).transpose(2, 0, 1)
    return np.empty(bands.shape, np.uint8)


class _Range:
    """Samples to 0…255, as the radiometry says."""

    def __init__(self, radiometry: Radiometry, dtype: np.dtype[Any]) -> None:
        self._radiometry = radiometry
        self._dtype = dtype

    def apply(self, raw: NDArray[Any]) -> Pixels:
        if self._radiometry.mode == "native":
            return raw.astype(np.uint8, copy=False)
        out = _lying_as(raw)
        for band, (samples, low, high) in enumerate(
            zip(raw, self._radiometry.low, self._radiometry.high, strict=True)
        ):
            if self._dtype.itemsize <= 2 and self._dtype.kind in "iu":
                unsigned = np.dtype(f"u{self._dtype.itemsize}")
                np.take(self._tables[band], samples.view(unsigned), out=out[band])
            else:
                with np.errstate(invalid="ignore"):
                    values = samples.astype(np.float64)
                out[band] = _bytes_of(values, low, high)
        return out

    @cached_property
    def _tables(self) -> list[Pixels]:
        # one entry for each sample value, in the order of its bits
        unsigned = np.dtype(f"u{self._dtype.itemsize}")
        every = np.arange(1 << (8 * self._dtype.itemsize), dtype=np.uint32).astype(unsigned)
        values = every.view(self._dtype).astype(np.float64)
        pairs = zip(self._radiometry.low, self._radiometry.high, strict=True)
        return [_bytes_of(values, low, high) for low, high in pairs]


def _bytes_of(values: NDArray[np.float64], low: float, high: float) -> Pixels:
    mapped: NDArray[np.float64]
    with np.errstate(invalid="ignore", over="ignore"):
        mapped = stretched(values, low, high)
    np.nan_to_num(mapped, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(mapped, 0.0, 255.0, out=mapped)
    return np.rint(mapped, out=mapped).astype(np.uint8)


class _Handle:
    """One thread's open file."""

    def __init__(self, dataset: Dataset, source: RasterSource, layout: Layout) -> None:
        self.dataset = dataset
        self._layout = layout
        self._bands = source.bands
        self._palette: Palette | None = None
        # what it is taken for was decided with the plan, by limits that are not known here
        info = inspect(dataset, None, UNBOUNDED)
        if source.palette:
            with gdal_errors(reading=False):
                self._palette = palette_of(dataset)
        self._read_bands = [1] if source.palette else list(source.bands)
        self._dtype = np.dtype(source.dtype)
        seen = (info.width, info.height, info.dtype)
        planned = (source.width, source.height, source.dtype)
        if seen != planned or max(self._read_bands) > info.count:
            raise RasterRejected(
                Reason.OBJECT_CHANGED,
                f"The image was {source.width}×{source.height} {source.dtype} when it was "
                f"planned and is {info.width}×{info.height} {info.dtype} now. Send it again.",
            )
        self._validity: Validity = validity_of(info, tuple(self._read_bands), self._palette)

    def read(self, box: Box, grid: WindowGrid) -> tuple[NDArray[Any], Bools | None]:
        """A box of scaled pixels: samples [bands, rows, cols] and which of them mean something."""
        if grid.scale == 1.0:
            window = Window(box.x0, box.y0, box.width, box.height)
            return self._read(window, (box.height, box.width), Resampling.nearest)
        x0, across, cols = _span(box.x0, box.x1, self.dataset.width, grid.scale)
        y0, down, rows = _span(box.y0, box.y1, self.dataset.height, grid.scale)
        how = Resampling.bilinear if grid.scale > 0.5 else Resampling.average
        if self._palette is not None:
            how = Resampling.nearest
        data, valid = self._read(Window(x0, y0, across, down), (rows, cols), how)
        more = ((0, box.height - rows), (0, box.width - cols))
        if more != ((0, 0), (0, 0)):
            data = np.pad(data, ((0, 0), *more), mode="edge")
            valid = None if valid is None else np.pad(valid, more, mode="edge")
        return data, valid

    def _read(
        self, window: Window, shape: tuple[int, int], how: Resampling
    ) -> tuple[NDArray[Any], Bools | None]:
        bands = len(self._read_bands)
        if self._layout == "HWC":
            # GDAL puts each sample where the model wants it: quicker than to turn them around later
            data = np.empty((*shape, bands), self._dtype).transpose(2, 0, 1)
        else:
            data = np.empty((bands, *shape), self._dtype)
        self.dataset.read(self._read_bands, window=window, out=data, resampling=how)
        resampled = how is not Resampling.nearest
        if resampled and self._validity.floating and not np.isfinite(data).all():
            data[...] = around_holes(
                self.dataset, self._read_bands, self._validity, window, shape, how
            )
        valid = both(
            self._validity.of_samples(data),
            self._validity.of_bands(self.dataset, window, shape, how),
        )
        if self._palette is not None:
            colours = self._palette[data[0]]
            data = np.stack([colours[..., b - 1] for b in self._bands])
        return data, valid


def _span(start: int, stop: int, length: int, scale: float) -> tuple[float, float, int]:
    """Scaled pixels [start, stop) as raster offset, raster extent and how many fit the raster.

    The last scaled pixel may reach beyond the raster: it is left out, and the caller repeats its
    neighbour, so that all others keep their exact place.
    """
    fit = min(stop, math.floor(length * scale + 1e-6))
    count = max(1, fit - start)
    offset = min(start / scale, length - 1e-3)
    return offset, min(count / scale, length - offset), count
