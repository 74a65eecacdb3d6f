"""A few windows of a raster, spread over it, for a model to look at before there is a plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from frond.contracts.errors import RasterRejected
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.raster.open import Dataset
from frond.raster.reader import Layout, RasterReader, WindowPixels
from frond.raster.scale import Sizes, search

LOOKS: Final = 9
"""Windows at a zoom that a model is shown."""
_TRIED: Final = 4 * LOOKS
_WITH_DATA: Final = 0.25
_EDGE_PX: Final = 2.0
_NOTHING: Final = np.zeros(0)


class Finds(Protocol):
    """What a model finds in a window: ``frond.models.WindowDetections`` is one."""

    @property
    def boxes(self) -> NDArray[np.float32]: ...


class Detector(Protocol):
    """What runs a model: ``frond.models.session.ModelSession`` is one."""

    @property
    def layout(self) -> Layout: ...

    def detect(self, windows: Sequence[NDArray[Any]], /) -> Sequence[Finds]: ...


def estimated_gsd(
    dataset: Dataset,
    source: RasterSource,
    manifest: ModelManifest,
    detector: Detector,
    most_windows: int,
) -> float | None:
    """Ground metres a pixel of a raster that does not say, by what its model finds in it.

    The same pixels and model give the same answer. None: the manifest does not tell how large its
    objects are, or too few finds agree.

    Args:
        most_windows: of an image. Scales at which the raster would have more are not looked at.

    Raises:
        RasterRejected: pixels are missing or damaged.
        StoreUnavailable: the store could not be asked.
    """
    if manifest.gsd_m is None or manifest.object_px is None:
        return None
    asking = search(manifest.object_px)
    try:
        zoom = next(asking)
        while True:
            fits = _at_most(source, manifest, zoom) <= most_windows
            # an estimate must not be what makes an image too large to be taken
            sizes = _sizes(dataset, source, manifest, detector, zoom) if fits else _NOTHING
            zoom = asking.send(sizes)
    except StopIteration as told:
        scale: float | None = told.value
    if scale is None or _at_most(source, manifest, scale) > most_windows:
        return None
    # four digits of a step of two per cent: the plan's scale is told from this number
    return float(f"{manifest.gsd_m * scale:.4g}")


def grid_at(source: RasterSource, manifest: ModelManifest, scale: float) -> WindowGrid:
    """The model's windows over a raster at ``scale`` scaled pixels a raster pixel."""
    return WindowGrid(**_grid_fields(source, manifest, scale))


def windows_at(source: RasterSource, manifest: ModelManifest, scale: float) -> int:
    """How many windows that grid would have, be they more than a grid may have."""
    return WindowGrid.model_construct(**_grid_fields(source, manifest, scale)).count


def _grid_fields(source: RasterSource, manifest: ModelManifest, scale: float) -> dict[str, Any]:
    return {
        "width": _scaled(source.width, scale),
        "height": _scaled(source.height, scale),
        "size": manifest.input.size,
        "margin": manifest.margin,
        "scale": scale,
    }


def spread(grid: WindowGrid, most: int) -> Iterator[int]:
    """Up to ``most`` windows of a grid, each once, always the same ones.

    Any number of the first of them is spread over the grid. Constant memory in the grid's size.
    """
    most = min(most, grid.count)
    given: set[int] = set()
    # a point of Halton's sequence comes to every cell sooner or later
    for n in itertools.count(1):
        if len(given) == most:
            return
        index = int(_halton(n, 3) * grid.rows) * grid.cols + int(_halton(n, 2) * grid.cols)
        if index not in given:
            given.add(index)
            yield index


def _sizes(
    dataset: Dataset,
    source: RasterSource,
    manifest: ModelManifest,
    detector: Detector,
    zoom: float,
) -> Sizes:
    """Sides of what is found at a zoom, each object once, those cut by the image's edge left out.

    None, where the model finds more than is taken: a zoom that is tried is not the image's scale.
    """
    grid = grid_at(source, manifest, zoom)
    windows = list(_windows(dataset, source, grid, detector.layout))
    sizes = [_NOTHING]
    try:
        every = detector.detect([w.data for w in windows])
    except RasterRejected as e:
        if e.reason is not Reason.TOO_MANY:
            raise
        return _NOTHING
    for window, found in zip(windows, every, strict=True):
        box, core = grid.window(window.index), grid.core(window.index)
        low = found.boxes[:, :2] + np.array([box.x0, box.y0], np.float64)
        high = found.boxes[:, 2:] + np.array([box.x0, box.y0], np.float64)
        middle = (low + high) / 2
        whole = (low >= _EDGE_PX) & (high <= np.array([grid.width, grid.height]) - _EDGE_PX)
        own = (middle >= core[:2]) & (middle < core[2:])
        kept = (whole & own).all(axis=1)
        sizes.append(np.sqrt(np.prod(high - low, axis=1))[kept])
    return np.concatenate(sizes)


def _windows(
    dataset: Dataset, source: RasterSource, grid: WindowGrid, layout: Layout
) -> Iterator[WindowPixels]:
    with RasterReader(source, grid, dataset=dataset, layout=layout) as reader:
        seen = (reader.read(index) for index in spread(grid, _TRIED))
        yield from itertools.islice(filter(_has_data, seen), LOOKS)


def _has_data(window: WindowPixels) -> bool:
    if window.valid is not None and window.valid.mean() < _WITH_DATA:
        return False
    return bool(window.data.min() != window.data.max())


def _at_most(source: RasterSource, manifest: ModelManifest, scale: float) -> int:
    """No fewer windows than a grid has, which cannot be made where they are far too many."""
    core = manifest.input.size - 2 * manifest.margin
    return -(-_scaled(source.width, scale) // core) * -(-_scaled(source.height, scale) // core)


def _scaled(length: int, scale: float) -> int:
    # the product's last bits must not add a column
    return max(1, math.ceil(length * scale - 1e-6))


def _halton(n: int, base: int) -> float:
    value, part = 0.0, 1.0
    while n:
        part /= base
        n, digit = divmod(n, base)
        value += part * digit
    return value
