"""supervision's Detections.with_nms, by class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import supervision as sv

from data import identities, matrix


def nms(path: str, iou: float, keep: str) -> Callable[[], dict]:
    m = matrix(path)
    rows = sv.Detections(xyxy=m[:, :4], confidence=m[:, 4], class_id=m[:, 5].astype(int))
    rows[:300].with_nms(iou)

    def work() -> dict[str, object]:
        kept = rows.with_nms(iou)
        if keep:
            np.save(keep, identities(kept.confidence))
        return {"kept": len(kept)}

    return work
