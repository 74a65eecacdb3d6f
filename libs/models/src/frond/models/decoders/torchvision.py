"""torchvision's detection models (Faster R-CNN, RetinaNet, SSD, FCOS), as they export."""

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


class Torchvision:
    """Outputs of one image: ``boxes`` [K, 4] (corners in input pixels), ``labels`` [K] and
    ``scores`` [K]. NMS is in the graph.

    Params: ``label_offset``, the label of the first class (default 1: 0 is the background);
    ``nms`` true to suppress overlaps all the same; ``outputs``.
    """

    name = "torchvision"
    task = "detection"
    params = frozenset({"label_offset", "nms", "outputs"})
    roles: tuple[str, ...] = ("boxes", "labels", "scores")
    per_image = True

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        boxes = output(outputs, "boxes", manifest)
        labels = output(outputs, "labels", manifest)
        scores = check_probability(output(outputs, "scores", manifest), "scores", manifest)
        if boxes.shape != (len(boxes), 4):
            raise bad(manifest, f"boxes are {shape_words(boxes)}; torchvision gives K×4.")
        for name, values in (("labels", labels), ("scores", scores)):
            if values.shape != (len(boxes),):
                raise bad(manifest, f"{name} are {shape_words(values)} for {len(boxes)} boxes.")
        offset = manifest.decoder.params.get("label_offset", 1)
        if not isinstance(offset, int):
            raise bad(manifest, f"decoder.params.label_offset is {offset!r}, no whole number.")
        keep = scores >= thresholds.score
        classes = check_classes(labels[keep].astype(int) - offset, manifest)
        return [
            select(
                boxes[keep], scores[keep], classes, manifest, thresholds,
                suppress=bool(manifest.decoder.params.get("nms")),
            )
        ]  # fmt: skip
