"""SAHI's own index functions, by class, on a plain array: its fastest way in.

``get_sliced_prediction`` wraps the same functions in one Python object a box, which is not timed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sahi.postprocess.backends import set_postprocess_backend
from sahi.postprocess.combine import batched_greedy_nmm, batched_nms

from data import identities, matrix


def nms(path: str, iou: float, keep: str, backend: str = "auto") -> Callable[[], dict]:
    return _work(batched_nms, path, iou, keep, backend)


def greedy_nmm(path: str, iou: float, keep: str, backend: str = "auto") -> Callable[[], dict]:
    return _work(batched_greedy_nmm, path, iou, keep, backend)


def _work(function: Callable, path: str, iou: float, keep: str, backend: str) -> Callable:
    set_postprocess_backend(backend)
    rows = matrix(path)
    for n in (300, 3000):  # compiles what numba compiles, on both of its ways
        function(rows[:n], "IOU", iou)

    def work() -> dict[str, object]:
        kept = list(function(rows, "IOU", iou))
        if keep:
            np.save(keep, identities(rows[kept, 4]))
        return {"kept": len(kept)}

    return work
