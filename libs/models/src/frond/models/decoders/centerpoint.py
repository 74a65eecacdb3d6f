"""Centre-point heatmaps (Zhou, Wang, Krähenbühl: Objects as Points, 2019)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

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
)


class CenterPoint:
    """Outputs ``heatmap`` [N, C, h, w] after its sigmoid, ``size`` [N, 2, h, w] (width and height
    in input pixels) and ``offset`` [N, 2, h, w] (x and y of the centre inside its cell, in
    cells). The stride is input size ÷ w.

    Params: ``sizes``: ``pixels`` (the default) or ``cells``, as CenterNet and MMDetection export
    them; ``peaks_suppressed`` (or ``peaks_done``) true if the graph leaves peaks alone itself;
    ``stride``, in input pixels, is checked against the heatmap; ``outputs``.
    """

    name = "centerpoint"
    task = "detection"
    params = frozenset({"sizes", "peaks_suppressed", "peaks_done", "stride", "outputs"})
    roles: tuple[str, ...] = ("heatmap", "size", "offset")
    per_image = False

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        heat = output(outputs, "heatmap", manifest)
        size = output(outputs, "size", manifest)
        offset = output(outputs, "offset", manifest)
        if heat.ndim != 4 or heat.shape[1] != len(manifest.classes):
            raise bad(
                manifest,
                f"heatmap is {shape_words(heat)}; {len(manifest.classes)} classes need "
                f"N×{len(manifest.classes)}×h×w.",
            )
        wanted = (heat.shape[0], 2, *heat.shape[2:])
        for name, values in (("size", size), ("offset", offset)):
            if values.shape != wanted:
                raise bad(manifest, f"{name} is {shape_words(values)}; the heatmap needs "
                                    f"{'×'.join(map(str, wanted))}.")  # fmt: skip
        heat = check_probability(heat, "heatmap values", manifest)
        stride = (manifest.input.size / heat.shape[3], manifest.input.size / heat.shape[2])
        params = manifest.decoder.params
        if params.get("stride") not in (None, *stride):
            raise bad(
                manifest,
                f"model.yaml says stride {params['stride']}; a heatmap of {shape_words(heat)} for "
                f"windows of {manifest.input.size} has {stride[0]:g}.",
            )
        sizes = params.get("sizes", "pixels")
        if sizes not in ("pixels", "cells"):
            raise bad(manifest, f"decoder.params.sizes is {sizes!r}; write pixels or cells.")
        across, down = stride if sizes == "cells" else (1.0, 1.0)
        done = bool(params.get("peaks_suppressed") or params.get("peaks_done"))
        n, c, y, x = _peaks(heat, thresholds.score, done)
        scores = heat[n, c, y, x]
        centre_x = (x + offset[n, 0, y, x]) * np.float32(stride[0])
        centre_y = (y + offset[n, 1, y, x]) * np.float32(stride[1])
        boxes = from_centres(
            np.stack(
                [
                    centre_x,
                    centre_y,
                    size[n, 0, y, x] * np.float32(across),
                    size[n, 1, y, x] * np.float32(down),
                ],
                axis=1,
            ).astype(np.float32)
        )
        bounds = np.searchsorted(n, np.arange(len(heat) + 1))
        return [
            select(boxes[a:b], scores[a:b], c[a:b], manifest, thresholds, suppress=True)
            for a, b in pairwise(bounds)
        ]


def _peaks(
    heat: Floats, threshold: float, done: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Cells above the threshold and above their eight neighbours; ascending by window.

    Of equal neighbours the first in row order is the peak.
    """
    n, c, y, x = np.nonzero((heat >= threshold) & (heat > 0))
    if done or not len(n):
        return n, c, y, x
    value = heat[n, c, y, x]
    top = np.ones(len(n), bool)
    rows, cols = heat.shape[2:]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy == dx == 0:
                continue
            yy, xx = y + dy, x + dx
            inside = (yy >= 0) & (yy < rows) & (xx >= 0) & (xx < cols)
            other = heat[n, c, np.clip(yy, 0, rows - 1), np.clip(xx, 0, cols - 1)]
            earlier = dy < 0 or (dy == 0 and dx < 0)
            top &= ~inside | ((value > other) if earlier else (value >= other))
    return n[top], c[top], y[top], x[top]
