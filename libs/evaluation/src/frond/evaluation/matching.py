"""Which find is which label: by overlap, or by centres.

Finds choose in the order of their scores, each the best label of its class that is left: so whoever
lowers the threshold adds finds and changes none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frond.evaluation.dataset import Labels
from frond.merge import Detections
from frond.merge.pairs import Overlaps

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# a find that lies so far within a crowd region is of the crowd
_IN_CROWD: Final = 0.5


class Near(NamedTuple):
    """Pairs of a find and a label that overlap.

    Attributes:
        find, label: rows of both.
        iou: intersection over union.
        within: share of the find that lies in the label.
    """

    find: Ints
    label: Ints
    iou: NDArray[np.float64]
    within: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scene:
    """One image's finds and labels, and which of them neither help nor harm.

    Attributes:
        finds: in the total order: by falling score.
        at_edge: finds in the edge band.
        aside_finds: those, and finds in a crowd region.
        aside_labels: in the edge band, or a crowd region.
    """

    finds: Detections
    labels: Labels
    near: Near
    at_edge: Bools
    aside_finds: Bools
    aside_labels: Bools


class Judged(NamedTuple):
    """Which label each find is (−1: none), and which finds count."""

    label: Ints
    counts: Bools


def scene(
    finds: Detections,
    labels: Labels,
    width: int,
    height: int,
    edge_band: float = 0.0,
    edge_pixels: float | None = None,
) -> Scene:
    """Put finds beside labels.

    Args:
        width, height: of the raster.
        edge_band: what has its centre this near to the image's edge, in shares of its labels'
            median side, is set aside.
        edge_pixels: the band's width, in place of that share.
    """
    near = overlaps(finds, labels)
    band = edge_band * _median_side(labels) if edge_pixels is None else edge_pixels
    at_edge = _at_edge(finds.boxes, width, height, band)
    aside_finds = at_edge.copy()
    crowded = labels.crowd[near.label] & (near.within >= _IN_CROWD)
    crowded &= finds.classes[near.find] == labels.classes[near.label]
    aside_finds[near.find[crowded]] = True
    aside_labels = _at_edge(labels.boxes, width, height, band) | labels.crowd
    return Scene(finds, labels, near, at_edge, aside_finds, aside_labels)


def overlaps(finds: Detections, labels: Labels) -> Near:
    """Every pair that overlaps, in a fixed order."""
    one, other, shared = _pairs(finds.boxes, labels.boxes)
    a, b = _areas(finds.boxes)[one], _areas(labels.boxes)[other]
    return Near(one, other, shared / np.maximum(a + b - shared, 1e-9), shared / np.maximum(a, 1e-9))


def by_overlap(on: Scene, iou: float) -> Judged:
    """A find is a label of its class when their IoU reaches ``iou``."""
    near = on.near
    good = (near.iou >= iou) & (on.finds.classes[near.find] == on.labels.classes[near.label])
    return _judged(on, near.find[good], near.label[good], near.iou[good])


def by_centre(on: Scene) -> Judged:
    """A find is a label of its class when their centres lie within half a label's side."""
    labels = on.labels.boxes
    middle, reach = (labels[:, :2] + labels[:, 2:]) / 2, np.sqrt(_areas(labels)) / 2
    centres = (on.finds.boxes[:, :2] + on.finds.boxes[:, 2:]) / 2
    grown = reach[:, None] + 1
    find, label, _ = _pairs(
        np.concatenate([centres - 0.5, centres + 0.5], axis=1),
        np.concatenate([middle - grown, middle + grown], axis=1),
    )
    far = np.linalg.norm(centres[find] - middle[label], axis=1)
    good = (far <= reach[label]) & (on.finds.classes[find] == on.labels.classes[label])
    return _judged(on, find[good], label[good], -far[good])


def of_any_class(on: Scene, judged: Judged, iou: float) -> Ints:
    """Which label each find is; one that is none of its own class, what is left over it of another."""
    near, label = on.near, judged.label
    taken = np.zeros(len(on.labels), np.bool_)
    taken[label[label >= 0]] = True
    left = (near.iou >= iou) & (label[near.find] < 0) & ~taken[near.label]
    left &= ~on.labels.crowd[near.label]
    mixed = _greedy(near.find[left], near.label[left], near.iou[left], len(on.finds))
    return np.where(label >= 0, label, mixed)


def confusion(on: Scene, judged: Judged, iou: float, classes: int) -> Ints:
    """[classes + 1, classes + 1]: labels (rows) as finds (columns); the last is the background.

    Labels that nothing of their class matches go to what other finds are left over them.
    """
    every = of_any_class(on, judged, iou)
    counts = np.where(every >= 0, ~_at(on.aside_labels, every), ~on.aside_finds)
    rows = np.where(every >= 0, _at(on.labels.classes, every), classes)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(table, (rows[counts], on.finds.classes[counts]), 1)
    found = np.zeros(len(on.labels), np.bool_)
    found[every[every >= 0]] = True
    missed = on.labels.classes[~found & ~on.aside_labels]
    np.add.at(table, (missed, np.full(len(missed), classes)), 1)
    return table


def _judged(on: Scene, find: Ints, label: Ints, merit: NDArray[np.float64]) -> Judged:
    real = ~on.labels.crowd[label]
    chosen = _greedy(find[real], label[real], merit[real], len(on.finds))
    return Judged(chosen, np.where(chosen >= 0, ~_at(on.aside_labels, chosen), ~on.aside_finds))


def _greedy(find: Ints, label: Ints, merit: NDArray[np.float64], finds: int) -> Ints:
    chosen = np.full(finds, -1, np.int64)
    taken: set[int] = set()
    order = np.lexsort((label, -merit, find))
    for f, k in zip(find[order].tolist(), label[order].tolist(), strict=True):
        if chosen[f] < 0 and k not in taken:
            chosen[f] = k
            taken.add(k)
    return chosen


def _at(values: NDArray[Any], where: Ints) -> NDArray[Any]:
    """``values[where]``, and whatever where it is −1."""
    return values[where] if len(values) else np.zeros(len(where), values.dtype)


def _pairs(
    ones: NDArray[np.float64], others: NDArray[np.float64]
) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Rows of both that overlap, and the area that they share."""
    n, m = len(ones), len(others)
    if not n or not m:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    both = np.concatenate([ones, others])
    # overlaps are sought between windows: these are two
    sides = np.r_[np.zeros(n, np.int64), np.ones(m, np.int64)]
    index = Overlaps(
        Detections.of(both, np.ones(n + m), 0, sides), np.arange(n + m, dtype=np.int32)
    )
    found = list(index.between(np.arange(n), np.arange(n, n + m)))
    a = np.concatenate([p.a for p in found] or [np.empty(0, np.int64)]).astype(np.int64)
    b = np.concatenate([p.b for p in found] or [np.empty(0, np.int64)]).astype(np.int64)
    one, other = np.minimum(a, b), np.maximum(a, b) - n
    order = np.lexsort((other, one))
    one, other = one[order], other[order]
    low = np.maximum(ones[one, :2], others[other, :2])
    high = np.minimum(ones[one, 2:], others[other, 2:])
    return one, other, np.prod(np.clip(high - low, 0, None), axis=1)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _median_side(labels: Labels) -> float:
    sides = np.sqrt(_areas(labels.boxes[~labels.crowd]))
    return float(np.median(sides)) if len(sides) else 0.0


def _at_edge(boxes: NDArray[np.float64], width: int, height: int, band: float) -> Bools:
    if band <= 0:
        return np.zeros(len(boxes), np.bool_)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    far = np.array((width, height), np.float64) - band
    return np.asarray(((centre < band) | (centre > far)).any(axis=1))
