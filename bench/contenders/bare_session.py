"""``session.run`` in process, one window after another: what a tile costs at the very least."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from frond.models.folder import MODEL_FILE


def runs(path: str, model: str, number: int) -> Callable[[], dict[str, object]]:
    """ONNX Runtime with its default options; ``path``: the windows, uint8 [n, size, size, 3]."""
    session = ort.InferenceSession(
        str(Path(model) / MODEL_FILE), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    windows = np.load(path)
    inputs = {n: np.ascontiguousarray(windows[:n]) for n in (1, 8)}
    for given in inputs.values():
        session.run(None, {name: given})

    def work() -> dict[str, object]:
        figures: dict[str, object] = {"kept": 0}
        for batch, given in inputs.items():
            took = []
            for _ in range(max(3, number // batch)):
                began = time.perf_counter()
                session.run(None, {name: given})
                took.append(time.perf_counter() - began)
            figures[f"batch {batch} p50"] = float(np.median(took))
            figures[f"batch {batch} p99"] = float(np.quantile(took, 0.99))
            figures[f"batch {batch} each"] = sum(took) / len(took) / batch
        return figures

    return work
