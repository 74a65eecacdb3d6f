"""An image's bytes to windows: what a reader process does for POST /predict."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import Georeference, ImagePlan
from frond.contracts.reasons import Reason
from frond.raster import (
    Layout,
    Limits,
    PlanRequest,
    RasterInfo,
    RasterReader,
    WindowPixels,
    chunks_of,
    framed,
    inspect,
    open_bytes,
    plan_image,
)

_NPY: Final = b"\x93NUMPY"
_NPY_DTYPES: Final = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
# of windows in memory at a time: those of an image at a coarser scale than the model's take many
# times its own bytes
_AT_ONCE: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """An image to be decoded.

    Attributes:
        data: its bytes, as they were sent.
        request: what a plan is made for; its limits hold.
        plan: the plan that was made before, for the chunks that were not decoded yet.
        first: the first of them.
    """

    data: NDArray[np.uint8]
    request: PlanRequest
    layout: Layout
    plan: ImagePlan | None = None
    first: int = 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, seen.

    Attributes:
        chunks: the windows of chunk ``first`` and some after it; all, unless they are too many.
    """

    width: int
    height: int
    georeference: Georeference
    plan: ImagePlan
    chunks: list[list[WindowPixels]]


def is_array(data: bytes) -> bool:
    """Whether these are a .npy file's bytes: numbers, which numpy alone reads."""
    return data.startswith(_NPY)


def decode(image: Image) -> Decoded:
    """Decode an image: GeoTIFF, PNG, JPEG or npy.

    Raises:
        RasterRejected: it is none, or does not fit the model or the limits.
    """
    request = image.request
    data = image.data.tobytes()
    opened: AbstractContextManager[Any]
    if is_array(data):
        bands = _npy(data, request.limits)
        # what is to be resampled is a raster's business
        if bands.dtype == np.uint8 and image.request.gsd_m is None:
            return _cut_out(bands, image)
        opened = _as_raster(bands)
    else:
        opened = open_bytes(data)
    with opened as dataset:
        info = inspect(dataset, request.size, request.limits)
        plan = image.plan or plan_image(dataset, info, request)
        with RasterReader(plan.source, plan.grid, dataset=dataset, layout=image.layout) as reader:
            return _seen(info, plan, image.first, reader.read_block)


def _cut_out(bands: NDArray[np.uint8], image: Image) -> Decoded:
    """An array of bytes needs no reader: each one means something, and none knows its place on the
    ground, so that windows are parts of it as it is."""
    count, height, width = bands.shape
    info = replace(_said_of_bytes(count), width=width, height=height)
    # there is nothing that could not be decoded
    limits = replace(image.request.limits, verify_pixels=0)
    plan = image.plan or plan_image(None, info, replace(image.request, limits=limits))
    every = plan.source.bands == tuple(range(1, count + 1))
    chosen = bands if every else bands[[b - 1 for b in plan.source.bands]]

    def cut(indices: Sequence[int]) -> list[WindowPixels]:
        windows = []
        for i in indices:
            box = plan.grid.window(i)
            pixels = chosen[:, box.y0 : box.y1, box.x0 : box.x1]
            windows.append(framed(i, pixels, None, plan.grid.size, image.layout))
        return windows

    return _seen(info, plan, image.first, cut)


@lru_cache(64)
def _said_of_bytes(count: int) -> RasterInfo:
    """What would be said of a raster of an array's bytes, but for its size.

    It has no tiles that could lie beyond a file's end: it is none of GDAL's.
    """
    with _as_raster(np.zeros((count, 1, 1), np.uint8)) as dataset:
        return replace(inspect(dataset), driver="npy")


def _seen(
    info: RasterInfo,
    plan: ImagePlan,
    first: int,
    read: Callable[[Sequence[int]], list[WindowPixels]],
) -> Decoded:
    chunks, held = [], 0
    for chunk in islice(chunks_of(plan), first, None):
        windows = read(chunk.windows)
        chunks.append(windows)
        held += sum(w.data.nbytes for w in windows)
        if held >= _AT_ONCE:
            break
    return Decoded(info.width, info.height, info.georeference, plan, chunks)


def warm_up(_: None) -> None:
    """Do once what every first image pays for: GDAL's drivers, first of all."""
    with _as_raster(np.zeros((1, 16, 16), np.uint8)) as dataset:
        inspect(dataset)


@contextmanager
def _as_raster(bands: NDArray[Any]) -> Iterator[Any]:
    with MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        count, height, width = bands.shape
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype.name,
            tiled=True, blockxsize=256, blockysize=256, photometric="MINISBLACK",
        ) as sink:  # fmt: skip
            sink.write(np.ascontiguousarray(bands))
        with rasterio.open(memory.name, driver="GTiff", sharing=False) as dataset:
            yield dataset


def _npy(data: bytes, limits: Limits) -> NDArray[Any]:
    """An array file as [bands, rows, cols]."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as e:  # a header is Python text: hostile ones raise whatever its parser does
        raise RasterRejected(
            Reason.CORRUPT,
            f"The .npy file cannot be read ({' '.join(str(e).split())[:160]}). "
            "Write it with numpy.save, without objects.",
        ) from None
    if array.dtype.name == "bool":
        array = array.astype(np.uint8)
    if array.dtype.name not in _NPY_DTYPES:
        raise RasterRejected(
            Reason.UNSUPPORTED_DTYPE,
            f"The array holds {array.dtype.name}; send one of {', '.join(_NPY_DTYPES)}.",
        )
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise RasterRejected(
            Reason.CORRUPT,
            f"The array has shape {'×'.join(map(str, array.shape))}; send rows×columns, "
            "rows×columns×bands or bands×rows×columns.",
        )
    # the bands are the shortest axis, first or last; rows×columns×bands where both would do
    if array.shape[2] <= array.shape[0]:
        array = array.transpose(2, 0, 1)
    if array.shape[1] * array.shape[2] > limits.max_pixels or len(array) > limits.max_bands:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The array has {array.shape[2]}×{array.shape[1]} pixels in {len(array)} bands; at "
            f"most {limits.max_pixels} pixels are taken. Upload it as a job.",
        )
    # byte order as GDAL wants it
    native: NDArray[Any] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native
