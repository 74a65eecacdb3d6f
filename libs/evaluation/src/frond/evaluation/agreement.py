"""How far two versions agree that saw the same windows: a job's model and its shadow.

Each window is compared for itself, and what lies in its core alone counts: what is beyond is its
neighbours', where it counts once. A find of the job's model decides by its own place where the pair of
two counts, one that has no match by its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.plan import WindowGrid
from frond.evaluation.dataset import Labels
from frond.evaluation.matching import Scene, by_overlap, confusion, of_any_class, overlaps
from frond.evaluation.shares import mean, share
from frond.masks import MaskFile
from frond.merge import Detections
from frond.models.check import classes_of

IOU: Final = 0.5
"""From where on two boxes are one object."""


class Classes:
    """The classes of two models, by their names.

    Attributes:
        names: those of the job's model, and then those that the shadow alone has.
    """

    def __init__(self, production: Sequence[str], shadow: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys((*production, *shadow)))
        place = {name: n for n, name in enumerate(self.names)}
        self._of: list[NDArray[np.int32]] = [
            np.array([place[name] for name in names], np.int32) for names in (production, shadow)
        ]

    def of_production(self, classes: NDArray[Any]) -> NDArray[np.int32]:
        """Indices into ``names``."""
        return np.asarray(self._of[0][classes], np.int32)

    def of_shadow(self, classes: NDArray[Any]) -> NDArray[np.int32]:
        return np.asarray(self._of[1][classes], np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class WindowCompared:
    """A window's finds that count; ``pairs``: rows of both, and their IoU."""

    production: Detections
    shadow: Detections
    pairs: tuple[tuple[int, int, float], ...]
    only_production: tuple[int, ...]
    only_shadow: tuple[int, ...]


class BoxAgreement:
    """Adds up windows; what is kept is one table of counts and two sums a class."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        n = len(classes.names)
        self._table = np.zeros((n + 1, n + 1), np.int64)
        self._iou = np.zeros(n)
        self._score = np.zeros(n)

    def add(
        self, grid: WindowGrid, window: int, production: Detections, shadow: Detections
    ) -> WindowCompared:
        """What both found in a window; rows of other windows are left out."""
        ours = _of_window(production, window, self._classes.of_production)
        theirs = _of_window(shadow, window, self._classes.of_shadow)
        core = np.array(grid.core(window), np.float64) / grid.scale
        labels = Labels(
            ours.boxes, ours.classes, np.zeros(len(ours), np.bool_), (None,) * len(ours)
        )
        none = np.zeros(len(theirs), np.bool_)
        on = Scene(
            theirs, labels, overlaps(theirs, labels), none, ~_within(theirs.boxes, core),
            ~_within(ours.boxes, core),
        )  # fmt: skip
        judged = by_overlap(on, IOU)
        n = len(self._classes.names)
        self._table += confusion(on, judged, IOU, n)
        every = of_any_class(on, judged, IOU)
        ious = {(int(f), int(k)): float(i) for f, k, i in zip(*on.near[:3], strict=True)}
        pairs = tuple(
            (int(k), f, ious[f, int(k)])
            for f, k in enumerate(every)
            if k >= 0 and not on.aside_labels[k]
        )
        for k, f, iou in pairs:
            if ours.classes[k] == theirs.classes[f]:
                self._iou[ours.classes[k]] += iou
                self._score[ours.classes[k]] += float(theirs.scores[f]) - float(ours.scores[k])
        matched = set(every[every >= 0].tolist())
        return WindowCompared(
            ours, theirs, pairs,
            tuple(k for k in range(len(ours)) if k not in matched and not on.aside_labels[k]),
            tuple(np.flatnonzero((every < 0) & ~on.aside_finds).tolist()),
        )  # fmt: skip

    def figures(self) -> dict[str, Any]:
        """By class; None where nothing can be said."""
        table, names = self._table, self._classes.names
        n = len(names)
        told: dict[str, Any] = {}
        for k, name in enumerate(names):
            both = int(table[k, k])
            told[name] = {
                "both": both,
                "only_production": int(table[k, n]),
                "only_shadow": int(table[n, k]),
                "other_class": int(table[k, :n].sum()) - both,
                "mean_iou": self._iou[k] / both if both else None,
                "mean_score_difference": self._score[k] / both if both else None,
            }
        return {"classes": told, "confusions": _confusions(table[:n, :n], names)}


class MaskAgreement:
    """Adds up windows' cores, pixel by pixel; pixels that mean nothing do not count."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        n = len(classes.names)
        self._table = np.zeros((n + 1, n + 1), np.int64)

    def add(
        self,
        grid: WindowGrid,
        window: int,
        production: MaskFile,
        shadow: MaskFile,
        scores: tuple[float, float],
    ) -> float | None:
        """The share of its pixels that the two do not agree on; None: none of them counts.

        Args:
            scores: from where on a pixel is of a class, of the job's model and the shadow.
        """
        place, core = grid.window(window), grid.core(window)
        own = (
            slice(None), slice(core.y0 - place.y0, core.y1 - place.y0),
            slice(core.x0 - place.x0, core.x1 - place.x0),
        )  # fmt: skip
        one, other = production.planes(window)[own], shadow.planes(window)[own]
        counts = (one[-1] > 0) & (other[-1] > 0)
        n = len(self._classes.names)
        a, b = (
            _rows(classes_of(planes, score)[counts], of, n)
            for planes, score, of in zip(
                (one, other), scores,
                (self._classes.of_production, self._classes.of_shadow), strict=True,
            )
        )  # fmt: skip
        self._table += np.bincount(a * (n + 1) + b, minlength=(n + 1) ** 2).reshape(n + 1, n + 1)
        return float((a != b).mean()) if len(a) else None

    def figures(self) -> dict[str, Any]:
        """By class; None where nothing can be said."""
        table, names = self._table, self._classes.names
        told: dict[str, Any] = {}
        for k, name in enumerate(names):
            both, ours, theirs = int(table[k, k]), int(table[k].sum()), int(table[:, k].sum())
            told[name] = {
                "both_pixels": both,
                "production_pixels": ours,
                "shadow_pixels": theirs,
                "iou": share(both, ours + theirs - both),
            }
        total = int(table.sum())
        return {
            "classes": told,
            "confusions": _confusions(table, (*names, "background")),
            "pixels": total,
            "agreement": share(int(np.trace(table)), total),
            "mean_iou": mean(c["iou"] for c in told.values()),
        }


def _of_window(rows: Detections, window: int, of: Any) -> Detections:
    some = rows.take(rows.windows == window)
    return replace(some, classes=of(some.classes)).sorted()


def _within(boxes: NDArray[np.float64], core: NDArray[np.float64]) -> NDArray[np.bool_]:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.asarray(((centre >= core[:2]) & (centre < core[2:])).all(axis=1))


def _rows(values: NDArray[np.intp], of: Any, background: int) -> NDArray[np.int64]:
    """Rows of the table; ``values``: 0 is the background, then the model's classes."""
    lookup = np.full(int(values.max(initial=0)) + 1, background, np.int64)
    lookup[1:] = of(np.arange(len(lookup) - 1))
    return lookup[values]


def _confusions(table: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    """What the job's model calls one thing and the shadow another; the most frequent first."""
    found = [
        {"production": names[a], "shadow": names[b], "count": int(table[a, b])}
        for a, b in np.argwhere(table > 0).tolist()
        if a != b
    ]
    return sorted(found, key=lambda f: -int(str(f["count"])))
