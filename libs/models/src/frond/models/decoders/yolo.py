"""YOLO heads whose boxes still overlap: v5 to v8, v11."""

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
)


class Yolo:
    """One output: centre, width and height in input pixels, then scores after their sigmoid.

    v5 to v7: [N, A, 5 + C] with an objectness that multiplies the classes' scores; v8, v9, v11:
    [N, 4 + C, A] without one, [N, A, 4 + C] as well. Which it is follows from C where it can.

    Params: ``version`` "v5" or "v8" where the shape leaves it open; ``outputs`` (role ``output``).
    """

    name = "yolo"
    task = "detection"
    params = frozenset({"version", "outputs"})
    roles: tuple[str, ...] = ("output",)
    per_image = False

    def decode(
        self, outputs: Outputs, manifest: ModelManifest, thresholds: ModelThresholds
    ) -> list[WindowDetections]:
        raw = output(outputs, "output", manifest, alone=True)
        boxes, scores, classes = _read(raw, manifest)
        return [
            select(from_centres(b), s, c, manifest, thresholds, suppress=True)
            for b, s, c in _candidates(boxes, scores, classes, thresholds.score)
        ]


def _read(raw: Floats, manifest: ModelManifest) -> tuple[Floats, Floats, Floats]:
    """Boxes [N, A, 4], best scores [N, A] and their classes [N, A]."""
    version, turned = _layout(raw, manifest)
    rows = raw.transpose(0, 2, 1) if turned else raw
    scores = rows[..., 5:] if version == "v5" else rows[..., 4:]
    best = scores.argmax(axis=2)
    top = np.take_along_axis(scores, best[..., None], axis=2)[..., 0]
    check_probability(scores, "class scores", manifest)
    if version == "v5":
        top = top * check_probability(rows[..., 4], "objectness values", manifest)
    return rows[..., :4], np.clip(top, 0.0, 1.0), best


def _layout(raw: Floats, manifest: ModelManifest) -> tuple[str, bool]:
    c = len(manifest.classes)
    said = manifest.decoder.params.get("version")
    if said not in (None, "v5", "v8"):
        raise bad(manifest, f"decoder.params.version is {said!r}; write v5 or v8.")
    if raw.ndim == 3:
        may = {("v5", False): raw.shape[2] == 5 + c, ("v8", True): raw.shape[1] == 4 + c,
               ("v8", False): raw.shape[2] == 4 + c}  # fmt: skip
        fits = [k for k, ok in may.items() if ok and said in (None, k[0])]
        if said == "v8" and len(fits) == 2:
            return "v8", True
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise bad(manifest, f"the output of {shape_words(raw)} may be YOLO v5 or v8. "
                                "Say which in decoder.params.version.")  # fmt: skip
    raise bad(
        manifest,
        f"the output is {shape_words(raw)}; YOLO with {c} classes gives N×A×{5 + c} (v5) or "
        f"N×{4 + c}×A (v8, v11). Check the list of classes.",
    )


def _candidates(  # type: ignore[no-untyped-def]
    boxes: Floats, scores: Floats, classes: Floats, threshold: float
):
    for b, s, c in zip(boxes, scores, classes, strict=True):
        above = np.flatnonzero(s >= threshold)
        yield b[above], s[above], c[above]
