"""YOLO heads without NMS: v10, YOLO26, and exports with NMS in the graph."""

from __future__ import annotations

from frond.contracts.modelspec import ModelManifest, ModelThresholds
from frond.models.decoders.base import (
    Outputs,
    WindowDetections,
    bad,
    check_classes,
    check_probability,
    output,
    select,
    shape_words,
)


class YoloEnd2End:
    """One output [N, K, 6]: x0, y0, x1, y1 in input pixels, score, class.

    Params: ``nms`` true to suppress overlaps all the same; ``outputs`` (role ``output``).
    """

    name = "yolo-end2end"
    task = "detection"
    params = frozenset({"nms", "outputs"})
    per_image = False

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        raw = output(outputs, "output", manifest, alone=True)
        if raw.ndim != 3 or raw.shape[2] != 6:
            raise bad(manifest, f"the output is {shape_words(raw)}; yolo-end2end needs N×K×6.")
        scores = check_probability(raw[..., 4], "scores", manifest)
        suppress = bool(manifest.decoder.params.get("nms"))
        found = []
        for rows, s in zip(raw, scores, strict=True):
            # unused rows are filled up with anything
            keep = s >= thresholds.score
            classes = check_classes(rows[keep, 5].astype(int), manifest)
            found.append(
                select(rows[keep, :4], s[keep], classes, manifest, thresholds, suppress=suppress)
            )
        return found
