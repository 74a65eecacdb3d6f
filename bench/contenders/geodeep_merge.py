"""What geodeep does with a raster's boxes: NMS over all classes, then its k-d tree pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from geodeep.detection import non_max_kdtree, non_max_suppression_fast, sort_by_area

from data import identities, matrix


def detect(path: str, iou: float, keep: str) -> Callable[[], dict]:
    m = matrix(path)
    rows = np.c_[m[:, :5], np.eye(3, dtype=np.float32)[m[:, 5].astype(int)]]
    config = {"det_type": "YOLO_v5_or_v7_default", "det_iou_thresh": iou}

    def work(given: np.ndarray = rows) -> dict[str, object]:
        kept = non_max_suppression_fast(given, config)
        kept = non_max_kdtree(sort_by_area(kept, reverse=True), iou)
        if keep:
            np.save(keep, identities(kept[:, 4]))
        return {"kept": len(kept)}

    work(rows[:200])
    return work
