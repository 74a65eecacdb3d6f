"""Classes of whole windows: ResNet, EfficientNet, ViT and their like."""

from __future__ import annotations

import numpy as np

from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders.base import (
    Floats,
    Outputs,
    WindowDetections,
    bad,
    check_probability,
    class_scores,
    select,
    shape_words,
    sigmoid,
)


class TileClassification:
    """One output [N, K], a score for each class: one box a window, the whole of it, which becomes
    the window's core in the image.

    Params: ``activation`` softmax (one class a window), sigmoid (each class above the threshold) or
    none (the default: the graph gives probabilities; one class a window); ``background``, the
    number of a channel that is no class (from 0; default: there is none): windows of it give
    nothing; ``outputs`` (role ``scores``).
    """

    name = "tile-classification"
    task = "classification"
    params = frozenset({"activation", "background", "outputs"})
    roles: tuple[str, ...] = ("scores",)
    per_image = False

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        background = manifest.decoder.params.get("background")
        channels = len(manifest.classes) + (background is not None)
        if background is not None and not (type(background) is int and 0 <= background < channels):
            raise bad(
                manifest,
                f"decoder.params.background is {background!r}; with {channels - 1} classes it is a "
                f"channel from 0 to {channels - 1}, or left out.",
            )
        activation = manifest.decoder.params.get("activation", "none")
        raw = class_scores(outputs, manifest, activation)
        if raw.ndim != 2 or raw.shape[1] != channels:
            raise bad(
                manifest,
                f"the output is {shape_words(raw)}; {len(manifest.classes)} classes"
                f"{' and a background' * (background is not None)} need N×{channels}.",
            )
        scores = _activated(raw, manifest)
        if activation != "sigmoid":
            # one class a window: the first of the best
            best = np.arange(channels) == scores.argmax(axis=1)[:, None]
            scores = np.where(best, scores, np.float32(-1))
        if background is not None:
            scores = np.delete(scores, background, axis=1)
        return [_whole(row, manifest, thresholds) for row in scores]


def _activated(raw: Floats, manifest: ModelManifest) -> Floats:
    how = manifest.decoder.params.get("activation", "none")
    if how == "softmax":
        if raw.shape[1] == 1:
            raise bad(manifest, "softmax over one class is always 1. Take activation sigmoid.")
        raised = np.exp(raw - raw.max(axis=1, keepdims=True))
        shares: Floats = raised / raised.sum(axis=1, keepdims=True)
        return shares
    if how == "sigmoid":
        return sigmoid(raw)
    if how == "none":
        return check_probability(raw, "scores", manifest)
    raise bad(
        manifest, f"decoder.params.activation is {how!r}; it may be none, softmax or sigmoid."
    )


def _whole(
    scores: Floats, manifest: ModelManifest, thresholds: ModelThresholds
) -> WindowDetections:
    (classes,) = np.nonzero(scores >= 0)
    side = np.float32(manifest.input.size)
    boxes = np.tile(np.array([0, 0, side, side], np.float32), (len(classes), 1))
    return select(boxes, scores[classes], classes, manifest, thresholds, suppress=False)
