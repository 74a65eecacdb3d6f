"""From windows' boxes to an image's: where a model has been over its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from frond.contracts.plan import RasterSource, WindowGrid
from frond.merge.table import Detections, own

# a detection whose box is mostly pixels that mean nothing was found in the fill
_VALID_SHARE: Final = 0.5


class Found(Protocol):
    """What a model found in a window; boxes [n, 4] in window pixels."""

    @property
    def boxes(self) -> npt.NDArray[np.float32]: ...
    @property
    def scores(self) -> npt.NDArray[np.float32]: ...
    @property
    def classes(self) -> npt.NDArray[np.int32]: ...


class Seen(Protocol):
    """A window that a model saw: which one, and [size, size] where its pixels mean something."""

    @property
    def index(self) -> int: ...
    @property
    def valid(self) -> npt.NDArray[np.bool_] | None: ...


def assemble(
    found: Sequence[Found],
    windows: Sequence[Seen],
    grid: WindowGrid,
    source: RasterSource,
    *,
    cores: bool = False,
) -> Detections:
    """Windows' detections in full-image raster pixels, each with what its window owns.

    Args:
        found: one entry a window.
        windows: the windows they were found in, in the same order.
        cores: what was found is said of the whole window: its box becomes the window's core, and
            the merge leaves it alone.

    Returns:
        In the table's total order.
    """
    parts = []
    for one, pixels in zip(found, windows, strict=True):
        if not len(one.scores):
            continue
        place = grid.window(pixels.index)
        shift = np.array((place.x0, place.y0, place.x0, place.y0), np.float64)
        boxes = one.boxes
        if cores:
            core = np.array(grid.core(pixels.index), np.float64) - shift
            boxes = np.broadcast_to(core.astype(np.float32), boxes.shape)
        keep = _on_valid(boxes, pixels.valid)
        rows = own(
            boxes[keep].astype(np.float64) + shift, one.scores[keep], one.classes[keep],
            pixels.index, grid, width=source.width, height=source.height,
        )  # fmt: skip
        # cores tile the image: what is flagged is looked for a twin, and they have none
        parts.append(replace(rows, flags=np.zeros_like(rows.flags)) if cores else rows)
    return Detections.concat(parts).sorted()


def _on_valid(
    boxes: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_]:
    """Which boxes are at least half on pixels that mean something."""
    if valid is None:
        return np.ones(len(boxes), np.bool_)
    rows, cols = valid.shape
    # summed-area table: any box costs four look-ups
    area: npt.NDArray[Any] = np.zeros((rows + 1, cols + 1), np.int64)
    np.cumsum(np.cumsum(valid, axis=0, dtype=np.int64), axis=1, out=area[1:, 1:])
    x0, x1 = (np.clip(np.rint(boxes[:, k]), 0, cols).astype(np.intp) for k in (0, 2))
    y0, y1 = (np.clip(np.rint(boxes[:, k]), 0, rows).astype(np.intp) for k in (1, 3))
    inside = area[y1, x1] - area[y0, x1] - area[y1, x0] + area[y0, x0]
    return np.asarray(inside >= _VALID_SHARE * np.maximum((x1 - x0) * (y1 - y0), 1))
