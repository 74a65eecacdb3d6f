"""Non-maximum suppression inside one window, by class: vectorised, and a function of the set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_PAIRS_A_BLOCK: Final = 1 << 20


def total_order(
    boxes: NDArray[Any], scores: NDArray[Any], classes: NDArray[Any]
) -> NDArray[np.intp]:
    """Indices by score descending, then class, then box: no two different rows are equal."""
    return np.lexsort((boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], classes, -scores))


def nms(boxes: NDArray[Any], classes: NDArray[Any], iou: float) -> NDArray[np.intp]:
    """Greedy NMS: the indices that stay.

    A row stays unless a row before it that stays has its class and overlaps it by more than
    ``iou``. Candidate pairs come from a sweep along x, so that time goes with the overlaps there
    are.

    Args:
        boxes: [n, 4] corners, with area, best first (see :func:`total_order`).
        classes: [n].

    Returns:
        Ascending indices.
    """
    n = len(boxes)
    if n < 2:
        return np.arange(n)
    pairs = [_overlapping(boxes, classes, iou, i, j) for i, j in _candidates(boxes)]
    better = np.concatenate([p[0] for p in pairs]) if pairs else np.empty(0, np.intp)
    worse = np.concatenate([p[1] for p in pairs]) if pairs else np.empty(0, np.intp)
    return np.flatnonzero(_settle(n, better, worse))


def _candidates(boxes: NDArray[Any]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs whose extents overlap on x, in blocks of bounded size."""
    by_x = np.argsort(boxes[:, 0], kind="stable")
    left = boxes[by_x, 0]
    stop = np.searchsorted(left, boxes[by_x, 2], side="left")
    follow = np.maximum(stop - np.arange(len(boxes)) - 1, 0)
    ends = np.cumsum(follow)
    first = 0
    while first < len(boxes):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + _PAIRS_A_BLOCK, side="right")))
        counts = follow[first:last]
        if total := int(counts.sum()):
            at = np.repeat(np.arange(first, last), counts)
            step = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
            yield by_x[at], by_x[at + 1 + step]
        first = last


def _overlapping(
    boxes: NDArray[Any],
    classes: NDArray[Any],
    iou: float,
    i: NDArray[np.intp],
    j: NDArray[np.intp],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    same = classes[i] == classes[j]
    i, j = i[same], j[same]
    a, b = boxes[i].astype(np.float64), boxes[j].astype(np.float64)
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.maximum(sides, 0.0).prod(axis=1)
    area = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1)
    # shared / union > iou, without dividing
    over = shared > iou * (area - shared)
    i, j = i[over], j[over]
    return np.minimum(i, j), np.maximum(i, j)


def _settle(n: int, better: NDArray[np.intp], worse: NDArray[np.intp]) -> NDArray[np.bool_]:
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
