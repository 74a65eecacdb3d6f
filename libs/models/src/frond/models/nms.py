"""Non-maximum suppression inside one window, by class: vectorised, and a function of the set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_PAIRS_A_BLOCK: Final = 1 << 20
_BLOCK: Final = 1024

Places = NDArray[np.intp]


def total_order(boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any]) -> Places:
    """Indices by score descending, then class, then box: no two different rows are equal."""
    return np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], classes, -scores))


def nms(boxes: NDArray[Any], classes: NDArray[Any], iou: float, most: int | None = None) -> Places:
    """Greedy NMS: the indices that stay.

    A row stays unless a row before it that stays has its class and overlaps it by more than
    ``iou``. Candidate pairs come from a sweep along x, so that time goes with the overlaps there
    are. Rows are settled a block at a time, and what a block's survivors overlap is gone before the
    next: memory is a block's, also where all rows lie in one place.

    Args:
        boxes: [n, 4] corners, with area, best first (see :func:`total_order`).
        classes: [n].
        most: how many of those that stay are asked for, the best.

    Returns:
        Ascending indices.
    """
    n = len(boxes)
    stays = np.ones(n, bool)
    rows, kept = _Rows(boxes, classes, iou), 0
    for first in range(0, n, _BLOCK):
        block = first + np.flatnonzero(stays[first : first + _BLOCK])
        found = [rows.overlapping(block[a], block[b]) for a, b in rows.among(block)]
        if found:
            at = np.zeros(n, np.intp)
            at[block] = np.arange(len(block))
            better = np.concatenate([at[np.minimum(a, b)] for a, b in found])
            worse = np.concatenate([at[np.maximum(a, b)] for a, b in found])
            stays[block] = _settle(len(block), better, worse)
        block = block[stays[block]]
        kept += len(block)
        if most is not None and kept >= most:
            break
        rest = first + _BLOCK + np.flatnonzero(stays[first + _BLOCK :])
        for a, b in rows.between(block, rest):
            stays[rows.overlapping(block[a], rest[b])[1]] = False
    return np.flatnonzero(stays)[:most]


class _Rows:
    """Boxes, a column at a time."""

    def __init__(self, boxes: NDArray[Any], classes: NDArray[Any], iou: float) -> None:
        self._x0, self._y0, self._x1, self._y1 = np.ascontiguousarray(boxes.T, dtype=np.float64)
        self._area = (self._x1 - self._x0) * (self._y1 - self._y0)
        self._classes = classes
        self._iou = iou

    def among(self, rows: Places) -> Iterator[tuple[Places, Places]]:
        """Pairs of places in ``rows`` whose boxes share an x, each once, in blocks of bounded size."""
        by_x = np.argsort(self._x0[rows], kind="stable")
        stop = np.searchsorted(self._x0[rows[by_x]], self._x1[rows[by_x]], side="left")
        start = np.arange(1, len(rows) + 1)
        for a, b in _expanded(start, stop):
            yield by_x[a], by_x[b]

    def between(self, ones: Places, others: Places) -> Iterator[tuple[Places, Places]]:
        """Pairs of places in the two whose boxes share an x, and some that do not."""
        if not len(ones) or not len(others):
            return
        by_x = np.argsort(self._x0[ones], kind="stable")
        left = self._x0[ones[by_x]]
        reach = float((self._x1 - self._x0)[ones].max())
        start = np.searchsorted(left, self._x0[others] - reach, side="left")
        stop = np.searchsorted(left, self._x1[others], side="left")
        for b, a in _expanded(start, stop):
            yield by_x[a], b

    def overlapping(self, a: Places, b: Places) -> tuple[Places, Places]:
        """Those of the pairs that are of one class and overlap by more than the threshold."""
        same = self._classes[a] == self._classes[b]
        high = np.minimum(self._y1[a], self._y1[b]) - np.maximum(self._y0[a], self._y0[b])
        near = np.flatnonzero(same & (high > 0))
        a, b, high = a[near], b[near], high[near]
        wide = np.minimum(self._x1[a], self._x1[b]) - np.maximum(self._x0[a], self._x0[b])
        shared = np.maximum(wide, 0.0) * high
        # shared / union > iou, without dividing
        over = shared > self._iou * (self._area[a] + self._area[b] - shared)
        return a[over], b[over]


def _expanded(start: Places, stop: Places) -> Iterator[tuple[Places, Places]]:
    """All (k, i) with start[k] ≤ i < stop[k], in blocks of bounded size."""
    count = np.maximum(stop - start, 0)
    ends = np.cumsum(count)
    first = 0
    while first < len(count):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _PAIRS_A_BLOCK, side="right")))
        counts = count[first:last]
        if total := int(counts.sum()):
            step = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            at = np.repeat(np.arange(first, last), counts)
            yield at, start[at] + step
        first = last


def _settle(n: int, better: Places, worse: Places) -> NDArray[np.bool_]:
    """Greedy choice over the graph of overlaps, in rounds of all rows at once.

    A row whose betters are all gone stays; what a staying row overlaps goes. As many rounds as
    the longest chain of overlapping rows.
    """
    stays, open_ = np.zeros(n, bool), np.ones(n, bool)
    while len(better):
        held = np.zeros(n, bool)
        held[worse] = True
        winners = open_ & ~held
        stays |= winners
        gone = np.zeros(n, bool)
        gone[worse[winners[better]]] = True
        open_ &= ~(winners | gone)
        live = open_[better] & open_[worse]
        better, worse = better[live], worse[live]
    return stays | open_
