"""Figures of a segmentation model: labels are painted band by band, and compared pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from frond.contracts.plan import ImagePlan
from frond.evaluation.dataset import Labels
from frond.evaluation.runs import unpacked
from frond.evaluation.shares import mean, share
from frond.masks.blend import NODATA, Band

_ASIDE: Final = 255

Bytes = NDArray[np.uint8]


class SegmentationFigures:
    """Adds up bands of class rasters; what is kept is one table of counts.

    Args:
        classes: the model's.
        judged: indices of those that the labels can judge; what is found of others counts as
            background.
    """

    def __init__(self, classes: Sequence[str], judged: Sequence[int]) -> None:
        self._classes, self._judged = tuple(classes), tuple(judged)
        n = len(classes)
        self._pixels = np.zeros((n + 1, n + 1), np.int64)
        # value of the class raster → row of the table; the last is the background
        self._row = np.full(NODATA + 1, n, np.int64)
        for k in judged:
            self._row[k + 1] = k

    def add(self, band: Band, painter: Painter) -> None:
        """Some rows of an image. Pixels that mean nothing, and crowd regions, do not count."""
        labels = painter.rows(band.y0, band.y0 + len(band.values))
        counts = (band.values != NODATA) & (labels != _ASIDE)
        n = len(self._classes) + 1
        at = self._row[labels[counts]] * n + self._row[band.values[counts]]
        self._pixels += np.bincount(at, minlength=n * n).reshape(n, n)

    def figures(self) -> dict[str, Any]:
        """All of them; shares from 0 to 1, None where nothing can be said."""
        table = self._pixels
        by_class: dict[str, dict[str, float | None]] = {}
        for k in self._judged:
            both, labels, found = int(table[k, k]), int(table[k].sum()), int(table[:, k].sum())
            by_class[self._classes[k]] = {
                "iou": share(both, labels + found - both) if labels else None,
                "dice": share(2 * both, labels + found) if labels else None,
                "labelled_pixels": labels,
                "found_pixels": found,
            }
        whole: dict[str, Any] = {}
        for f in ("iou", "dice"):
            whole[f] = mean(c[f] for c in by_class.values())
        total = int(table.sum())
        whole["pixels"] = total
        whole["pixel_accuracy"] = share(int(np.trace(table)), total)
        return {
            "overall": whole,
            "classes": by_class,
            "confusion": {
                "names": [*self._classes, "background"],
                "labels_by_finds": table.tolist(),
            },
        }


class Painter:
    """An image's labels as rows of a class raster: 0 none, class + 1, 255 where nothing counts.

    Where labels overlap the smaller one is on top. A pixel is of a label when its centre is.
    """

    def __init__(self, labels: Labels, plan: ImagePlan) -> None:
        self._width, self._scale = plan.grid.width, plan.grid.scale
        shapes = [_shape(s, self._scale) for s in labels.shapes]
        order = sorted(range(len(labels)), key=lambda k: (-shapes[k].area, k))
        # crowds last: they set aside whatever lies there
        order.sort(key=lambda k: bool(labels.crowd[k]))
        self._painted = [
            (shapes[k], _ASIDE if labels.crowd[k] else int(labels.classes[k]) + 1) for k in order
        ]

    def rows(self, y0: int, y1: int) -> Bytes:
        """Rows [y0, y1) of scaled pixels."""
        out = np.zeros((y1 - y0, self._width), np.uint8)
        rings: list[tuple[dict[str, Any], int]] = []
        for shape, value in self._painted:
            if not shape.reaches(y0, y1):
                continue
            if isinstance(shape, _Polygons):
                rings += [(ring, value) for ring in shape.rings(y0)]
                continue
            _burn(rings, out)
            rings.clear()
            shape.paint(out, y0, value)
        _burn(rings, out)
        return out


def _burn(rings: Sequence[tuple[dict[str, Any], int]], out: Bytes) -> None:
    # a call costs as much as the whole band, however small the polygon
    if rings:
        rasterize(rings, out=out)


def _shape(told: Any, scale: float) -> _Polygons | _Runs:
    if isinstance(told, dict):
        return _Runs(told["size"][0], told["size"][1], told["counts"], scale)
    return _Polygons(told, scale)


class _Polygons:
    def __init__(self, rings: Sequence[Sequence[float]], scale: float) -> None:
        points = [np.asarray(r, np.float64).reshape(-1, 2) * scale for r in rings]
        self.area = float(sum(abs(_signed_area(p)) for p in points))
        self._bottom = max(p[:, 1].max() for p in points)
        self._top = min(p[:, 1].min() for p in points)
        self._points = points

    def reaches(self, y0: int, y1: int) -> bool:
        """Whether it may have pixels in the rows [y0, y1)."""
        return bool(self._top < y1 and self._bottom > y0)

    def rings(self, y0: int) -> list[dict[str, Any]]:
        """Its parts as GeoJSON, counted from row ``y0``: they add up, and cut no holes."""
        return [
            {"type": "Polygon", "coordinates": [[*map(tuple, p - (0, y0)), tuple(p[0] - (0, y0))]]}
            for p in self._points
        ]


def _signed_area(p: NDArray[np.float64]) -> float:
    x, y = p[:, 0], p[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


class _Runs:
    """Run lengths down the columns, zeros first; never opened into a bitmap of the image."""

    def __init__(self, height: int, width: int, counts: str | Sequence[int], scale: float) -> None:
        runs = np.array(unpacked(counts) if isinstance(counts, str) else counts, np.int64)
        self._ends, self._scale = np.cumsum(runs), scale
        self._height, self._width = height, width
        self.area = float(runs[1::2].sum()) * scale**2
        begins, ends = (self._ends - runs)[1::2], self._ends[1::2]
        some, h = ends > begins, max(height, 1)
        first, last = begins[some] // h, (ends[some] - 1) // h
        self._left, self._right = int(first.min(initial=width)), int(last.max(initial=-1)) + 1
        # a run through the end of a column reaches both ends
        top = np.where(first == last, begins[some] % h, 0)
        bottom = np.where(first == last, (ends[some] - 1) % h + 1, h)
        self._first = int(top.min(initial=h) * scale)
        self._last = int(np.ceil(bottom.max(initial=0) * scale))

    def reaches(self, y0: int, y1: int) -> bool:
        """Whether it may have pixels in the rows [y0, y1)."""
        return self._first < y1 and self._last > y0

    def paint(self, out: Bytes, y0: int, value: int) -> None:
        """Onto ``out``, whose first row is row ``y0``."""
        top, bottom = max(y0, self._first), min(y0 + len(out), self._last)
        x0 = int(self._left * self._scale)
        x1 = min(out.shape[1], int(np.ceil(self._right * self._scale)))
        if x1 <= x0 or bottom <= top:
            return
        x = ((np.arange(x0, x1) + 0.5) / self._scale).astype(np.int64).clip(0, self._width - 1)
        y = ((np.arange(top, bottom) + 0.5) / self._scale).astype(np.int64)
        y = y.clip(0, self._height - 1)
        at = x[None, :] * self._height + y[:, None]
        inside = np.searchsorted(self._ends, at, side="right") % 2 == 1
        # beyond the last run is as outside as before the first
        inside &= at < (self._ends[-1] if len(self._ends) else 0)
        out[top - y0 : bottom - y0, x0:x1][inside] = value
