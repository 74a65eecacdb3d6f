"""Figures of a detection model: precision and recall, counts, false finds, confusion, a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.evaluation.dataset import Labels
from frond.evaluation.matching import Judged, Scene, by_centre, by_overlap, confusion, scene
from frond.evaluation.precision import AveragePrecision
from frond.evaluation.predict import Found
from frond.evaluation.shares import mean, share
from frond.merge import Detections

HOW: Final = ("centre", "overlap")
"""Ways to match: centres within half a label's side; boxes by their IoU."""

_STEPS: Final = 100
_LAST: Final = 95


class DetectionFigures:
    """Adds up images, in any number; what is kept of one is a few bytes a find.

    Args:
        classes: the model's.
        judged: indices of those that the labels can judge; finds of others are left out.
        score, floor: of plain finds, and of every one.
        iou: from which a find is a label, by overlap.
        edge_band: see :func:`frond.evaluation.matching.scene`.
    """

    def __init__(
        self,
        classes: Sequence[str],
        judged: Sequence[int],
        score: float,
        floor: float,
        *,
        iou: float = 0.5,
        edge_band: float = 0.0,
    ) -> None:
        n = len(classes)
        self._classes, self._judged = tuple(classes), tuple(judged)
        self._score, self._floor, self._iou, self._band = score, floor, iou, edge_band
        self._labels = np.zeros(n, np.int64)
        self._finds = {how: np.zeros(n, np.int64) for how in HOW}
        self._right = {how: np.zeros(n, np.int64) for how in HOW}
        self._confusion = np.zeros((n + 1, n + 1), np.int64)
        self._precision = AveragePrecision(n)
        self._swept: dict[str, list[tuple[NDArray[np.float32], NDArray[np.bool_]]]] = {
            how: [] for how in HOW
        }
        self._errors: list[int] = []
        self._empty = self._empty_finds = 0
        self._empty_pixels = 0

    def add(
        self,
        found: Found,
        labels: Labels,
        width: int,
        height: int,
        *,
        edge_pixels: float | None = None,
    ) -> None:
        """One image: what was found in it, and its labels.

        Args:
            edge_pixels: the width of its edge band, where it is known and no share.
        """
        plain = self._scene(found.plain, labels, width, height, edge_pixels)
        every = self._scene(found.every, labels, width, height, edge_pixels)
        n = len(self._classes)
        real = plain.labels.classes[~plain.aside_labels]
        self._labels += np.bincount(real, minlength=n)
        told: dict[str, Judged] = {}
        for how in HOW:
            at = told[how] = self._matched(plain, how)
            kinds, right = plain.finds.classes[at.counts], at.label[at.counts] >= 0
            self._finds[how] += np.bincount(kinds, minlength=n)
            self._right[how] += np.bincount(kinds[right], minlength=n)
            low = self._matched(every, how)
            self._swept[how].append((every.finds.scores[low.counts], low.label[low.counts] >= 0))
        self._confusion += confusion(plain, told["overlap"], self._iou, n)
        self._precision.add(every)
        self._errors.append(int(told["centre"].counts.sum()) - len(real))
        if not len(labels):
            self._empty += 1
            self._empty_pixels += width * height
            self._empty_finds += len(plain.finds)

    def figures(self) -> dict[str, Any]:
        """All of them; shares from 0 to 1, None where nothing can be said."""
        by_class: dict[str, Any] = {}
        precision = self._precision.figures()
        for k in self._judged:
            by_class[self._classes[k]] = precision[k] | self._counted(slice(k, k + 1))
        whole = {
            f: mean([by_class[self._classes[k]][f] for k in self._judged])
            for f in ("ap50", "ap50_95")
        }
        sweep = self._sweep()
        return {
            "overall": whole | self._counted(slice(None)),
            "classes": by_class,
            "count_error_an_image": mean([abs(e) for e in self._errors]),
            "without_labels": {
                "images": self._empty,
                "megapixels": self._empty_pixels / 1e6,
                "finds": self._empty_finds,
                "finds_a_megapixel": share(self._empty_finds, self._empty_pixels / 1e6),
            },
            "confusion": {
                "names": [*self._classes, "background"],
                "labels_by_finds": self._confusion.tolist(),
            },
            "sweep": sweep,
            "best": {how: _best(sweep, how) for how in HOW},
        }

    def _scene(
        self, finds: Detections, labels: Labels, width: int, height: int, pixels: float | None
    ) -> Scene:
        mine = finds.take(np.isin(finds.classes, self._judged)).sorted()
        return scene(mine, labels, width, height, self._band, pixels)

    def _matched(self, on: Scene, how: str) -> Judged:
        return by_centre(on) if how == "centre" else by_overlap(on, self._iou)

    def _counted(self, of: slice) -> dict[str, Any]:
        labels, finds = int(self._labels[of].sum()), int(self._finds["centre"][of].sum())
        told: dict[str, Any] = {
            "labels": labels,
            "finds": finds,
            "count_error": share(finds - labels, labels),
        }
        for how in HOW:
            told[how] = _rates(
                int(self._right[how][of].sum()), int(self._finds[how][of].sum()), labels
            )
        return told

    def _sweep(self) -> list[dict[str, Any]]:
        labels = int(self._labels.sum())
        bars = {n / _STEPS for n in range(1, _LAST + 1) if n / _STEPS >= self._floor}
        rows: list[dict[str, Any]] = [{"score": bar} for bar in sorted(bars | {self._score})]
        for how, parts in self._swept.items():
            scores = np.concatenate([s for s, _ in parts] or [np.empty(0, np.float32)])
            right = np.concatenate([r for _, r in parts] or [np.empty(0, np.bool_)])
            for row in rows:
                # scores are multiples of 10⁻⁶, and float32 may be a little below
                chosen = scores >= row["score"] - 5e-7
                row[how] = _rates(int(right[chosen].sum()), int(chosen.sum()), labels)
        return rows


def _rates(right: int, finds: int, labels: int) -> dict[str, float | None]:
    return {
        "precision": share(right, finds),
        "recall": share(right, labels),
        "f1": share(2 * right, finds + labels) if labels else None,
    }


def _best(sweep: Sequence[dict[str, Any]], how: str) -> dict[str, float] | None:
    """Where F1 is highest; the lowest score of several."""
    rows = [r for r in sweep if r[how]["f1"] is not None]
    if not rows:
        return None
    top = max(rows, key=lambda r: (r[how]["f1"], -r["score"]))
    return {"score": top["score"], "f1": top[how]["f1"]}
