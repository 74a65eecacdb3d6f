"""YOLO heads without NMS: v10, YOLO26, and exports with NMS in the graph; RT-DETR of that form."""

from __future__ import annotations

import numpy as np

from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders.base import (
    Outputs,
    WindowDetections,
    bad,
    check_classes,
    check_probability,
    from_centres,
    output,
    select,
    shape_words,
)


class YoloEnd2End:
    """One output [N, K, 6]: x0, y0, x1, y1 in input pixels, score, class.

    Params: ``boxes``: ``corners`` (the default) or ``centres``, for rows that begin with centre, width
    and height as shares of the input (RT-DETR as Ultralytics 8.4 exports it); ``nms`` true to
    suppress overlaps all the same; ``outputs`` (role ``output``).
    """

    name = "yolo-end2end"
    task = "detection"
    params = frozenset({"boxes", "nms", "outputs"})
    roles: tuple[str, ...] = ("output",)
    per_image = False

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        raw = output(outputs, "output", manifest, alone=True)
        if raw.ndim != 3 or raw.shape[2] != 6:
            raise bad(manifest, f"the output is {shape_words(raw)}; yolo-end2end needs N×K×6.")
        how = manifest.decoder.params.get("boxes", "corners")
        if how not in ("corners", "centres"):
            raise bad(manifest, f"decoder.params.boxes is {how!r}; write corners or centres.")
        scores = check_probability(raw[..., 4], "scores", manifest)
        suppress = bool(manifest.decoder.params.get("nms"))
        found = []
        for rows, s in zip(raw, scores, strict=True):
            boxes = rows[:, :4]
            if how == "centres":
                boxes = from_centres(boxes * np.float32(manifest.input.size))
            # unused rows are filled up with anything, class -1 among it, and a job may ask for score 0
            keep = (s >= thresholds.score) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
            classes = check_classes(rows[keep, 5].astype(int), manifest)
            found.append(
                select(boxes[keep], s[keep], classes, manifest, thresholds, suppress=suppress)
            )
        return found
