"""supervision's InferenceSlicer on the open dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import rasterio
import supervision as sv

from contenders.palm import Palm


def whole(path: str, model: str, batch: int) -> Callable[[], dict]:
    palm = Palm(model)
    manifest = palm.manifest

    def many(tiles: list[np.ndarray]) -> list[sv.Detections]:
        return [
            sv.Detections(xyxy=f.boxes, confidence=f.scores, class_id=f.classes.astype(int))
            for f in palm.detect(tiles)
        ]

    def one(tile: np.ndarray) -> sv.Detections:
        return many([tile])[0]

    callback: Any = one if batch == 1 else many
    slicer = sv.InferenceSlicer(
        callback, slice_wh=manifest.input.size, overlap_wh=2 * manifest.margin,
        iou_threshold=manifest.thresholds.merge_iou, batch_size=batch,
    )  # fmt: skip

    def work() -> dict[str, object]:
        with rasterio.open(path) as dataset:
            found = slicer(dataset)
        return {"kept": len(found)}

    return work
