"""DETR and its family: a fixed number of queries, each a box and its classes."""

from __future__ import annotations

import numpy as np

from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders.base import (
    Floats,
    Outputs,
    WindowDetections,
    bad,
    check_probability,
    from_centres,
    output,
    select,
    shape_words,
    sigmoid,
)


class Detr:
    """Outputs ``logits`` [N, Q, C] or [N, Q, C + 1] and ``pred_boxes`` [N, Q, 4] (centre, width
    and height as shares of the input). One output [N, Q, 4 + C] with scores already between 0
    and 1 (RT-DETR as Ultralytics exports it) is read as well.

    Params: ``activation``: ``sigmoid`` (RT-DETR, Deformable DETR; any class above the threshold
    counts), ``softmax`` (DETR; the last class is "no object") or ``none``; by default sigmoid for
    C logits and softmax for C + 1. ``nms`` true to suppress overlaps all the same; ``outputs``.
    """

    name = "detr"
    task = "detection"
    params = frozenset({"activation", "nms", "outputs"})
    roles: tuple[str, ...] = ("logits", "pred_boxes")
    per_image = False

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        scores, boxes = _read(outputs, manifest)
        suppress = bool(manifest.decoder.params.get("nms"))
        found = []
        for s, b in zip(scores, boxes, strict=True):
            query, cls = np.nonzero(s >= thresholds.score)
            corners = from_centres(b[query] * np.float32(manifest.input.size))
            found.append(
                select(corners, s[query, cls], cls, manifest, thresholds, suppress=suppress)
            )
        return found


def _read(outputs: Outputs, manifest: ModelManifest) -> tuple[Floats, Floats]:
    """Scores [N, Q, C] and boxes [N, Q, 4]."""
    c = len(manifest.classes)
    if len(outputs) == 1 and "outputs" not in manifest.decoder.params:
        both = output(outputs, "output", manifest, alone=True)
        if both.ndim != 3 or both.shape[2] != 4 + c:
            raise bad(manifest, f"the output is {shape_words(both)}; DETR with {c} classes needs "
                                f"logits and pred_boxes, or one of N×Q×{4 + c}.")  # fmt: skip
        return check_probability(both[..., 4:], "scores", manifest), both[..., :4]
    logits = output(outputs, "logits", manifest)
    boxes = output(outputs, "pred_boxes", manifest)
    if logits.ndim != 3 or logits.shape[2] not in (c, c + 1):
        raise bad(manifest, f"logits are {shape_words(logits)}; {c} classes need N×Q×{c} or "
                            f"N×Q×{c + 1}.")  # fmt: skip
    if boxes.shape != (*logits.shape[:2], 4):
        raise bad(manifest, f"pred_boxes are {shape_words(boxes)}; the logits need "
                            f"{logits.shape[0]}×{logits.shape[1]}×4.")  # fmt: skip
    how = manifest.decoder.params.get(
        "activation", "sigmoid" if logits.shape[2] == c else "softmax"
    )
    if how == "softmax":
        if logits.shape[2] != c + 1:
            raise bad(manifest, "softmax needs one logit more than classes, for “no object”.")
        power = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares = (power / power.sum(axis=2, keepdims=True))[..., :c]
        # one class a query: the best
        best = shares == shares.max(axis=2, keepdims=True)
        first = best & (np.cumsum(best, axis=2) == 1)
        return np.where(first, shares, np.float32(-1.0)), boxes
    if how == "sigmoid":
        return sigmoid(logits[..., :c]), boxes
    if how == "none":
        return check_probability(logits[..., :c], "logits", manifest), boxes
    raise bad(manifest, f"decoder.params.activation is {how!r}; write sigmoid, softmax or none.")
