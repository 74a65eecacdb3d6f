"""Average precision, by pycocotools, image by image and in bounded memory."""

from __future__ import annotations

import contextlib
import copy
import io
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frond.evaluation.matching import Scene

_GROUP: Final = 16
# the lowest overlap that pycocotools looks at, and room for what it rounds otherwise
_LEAST: Final = 0.5 - 1e-6
_ALL: Final = [0.0, float("inf")]


class AveragePrecision:
    """Adds up images; what is kept of one is a few bytes a find.

    pycocotools compares all finds of an image with all its labels. What overlaps too little to
    match, over however many others, has no say in each other's matches: so what may match goes in
    as an image of its own, in groups of about 16, and the figures are the same.
    """

    def __init__(self, classes: int) -> None:
        self._parts: list[list[dict[str, Any]]] = [[] for _ in range(classes)]

    def add(self, on: Scene) -> None:
        """An image's finds (at the lowest score there is) and labels."""
        for k in sorted({*on.finds.classes.tolist(), *on.labels.classes.tolist()}):
            finds = np.flatnonzero(on.finds.classes == k)
            labels = np.flatnonzero(on.labels.classes == k)
            for some, other in _groups(on, finds, labels):
                self._parts[k].append(_evaluated(on, some, other))

    def figures(self) -> list[dict[str, float | None]]:
        """AP50 and AP50:95 of each class; None where it has no labels."""
        told: list[dict[str, float | None]] = []
        for parts in self._parts:
            ap50 = ap = None
            if any((p["gtIgnore"] == 0).any() for p in parts):
                scorer = _scorer()
                scorer.params.imgIds = list(range(len(parts)))
                scorer.evalImgs = parts
                scorer._paramsEval = copy.deepcopy(scorer.params)
                with contextlib.redirect_stdout(io.StringIO()):
                    scorer.accumulate()
                precision = scorer.eval["precision"]
                ap50, ap = float(precision[0].mean()), float(precision.mean())
            told.append({"ap50": ap50, "ap50_95": ap})
        return told


def _scorer() -> Any:
    # pycocotools is of no use to whoever evaluates masks
    from pycocotools.cocoeval import COCOeval

    scorer = COCOeval(iouType="bbox")
    scorer.params.catIds = [1]
    scorer.params.areaRng, scorer.params.areaRngLbl = [_ALL], ["all"]
    scorer.params.maxDets = [1 << 31]
    return scorer


def _groups(
    on: Scene, finds: NDArray[np.int64], labels: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """These finds and labels, in groups between which nothing can match.

    A crowd region takes any number of finds and is no label to be found: it is in each group that
    has a find in it.
    """
    near, crowd = on.near, on.labels.crowd
    mine = np.isin(near.find, finds) & np.isin(near.label, labels)
    linked = mine & (near.iou >= _LEAST) & ~crowd[near.label]
    inside = mine & (near.within >= _LEAST) & crowd[near.label]
    head = {("f", k): ("f", k) for k in finds.tolist()}
    head |= {("l", k): ("l", k) for k in labels[~crowd[labels]].tolist()}

    def root(of: tuple[str, int]) -> tuple[str, int]:
        while head[of] != of:
            head[of] = head[head[of]]
            of = head[of]
        return of

    for f, k in zip(near.find[linked].tolist(), near.label[linked].tolist(), strict=True):
        one, other = root(("f", f)), root(("l", k))
        head[max(one, other)] = min(one, other)
    members: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
    for node in head:
        members.setdefault(root(node), ([], []))[node[0] == "l"].append(node[1])
    groups: list[tuple[list[int], list[int]]] = []
    for more_finds, more_labels in members.values():
        if not groups or len(groups[-1][0]) + len(groups[-1][1]) >= _GROUP:
            groups.append(([], []))
        groups[-1][0].extend(more_finds)
        groups[-1][1].extend(more_labels)
    crowds: dict[int, list[int]] = {}
    for f, k in zip(near.find[inside].tolist(), near.label[inside].tolist(), strict=True):
        crowds.setdefault(f, []).append(k)
    return [
        (np.array(sorted(a), np.int64),
         np.array(sorted({*b, *chain.from_iterable(crowds.get(f, ()) for f in a)}), np.int64))
        for a, b in groups
    ]  # fmt: skip


def _evaluated(on: Scene, finds: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, Any]:
    scorer = _scorer()
    scorer._gts = {(0, 1): [
        {"id": n, "bbox": _xywh(on.labels.boxes[k]), "area": 1.0,
         "iscrowd": int(on.labels.crowd[k]), "ignore": int(on.aside_labels[k])}
        for n, k in enumerate(labels.tolist(), 1)
    ]}  # fmt: skip
    # pycocotools sets an unmatched find aside when its area is out of range
    scorer._dts = {(0, 1): [
        {"id": n, "bbox": _xywh(on.finds.boxes[k]), "area": -1.0 if on.at_edge[k] else 1.0,
         "score": float(on.finds.scores[k])}
        for n, k in enumerate(finds.tolist(), 1)
    ]}  # fmt: skip
    scorer.ious = {(0, 1): scorer.computeIoU(0, 1)}
    told: dict[str, Any] = scorer.evaluateImg(0, 1, _ALL, scorer.params.maxDets[-1])
    # of the rest nothing is read again
    kept = {k: told[k] for k in ("dtScores", "gtIgnore")}
    return kept | {k: told[k].astype(np.bool_) for k in ("dtMatches", "dtIgnore")}


def _xywh(box: NDArray[np.float64]) -> list[float]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]
