"""The trained network as an ONNX graph."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from palm_eval import WINDOW
from palm_model import Deployed

OUTPUTS = ["heatmap", "size", "offset"]


def export(model: Deployed, path: Path) -> float:
    """Write the graph (batch free, 512² windows) and return the largest difference to torch.

    Raises ValueError where ONNX Runtime differs by more than 1e-4, relative to values above 1.
    """
    rng = np.random.default_rng(0)
    example = torch.from_numpy(rng.integers(0, 256, (2, WINDOW, WINDOW, 3), dtype=np.uint8))
    free = {name: {0: "batch"} for name in ["image", *OUTPUTS]}
    model = model.to(memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the scripted exporter needs no further package; the newer one does
        torch.onnx.export(
            model, (example,), str(path), input_names=["image"], output_names=OUTPUTS,
            dynamic_axes=free, opset_version=17, dynamo=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(OUTPUTS, {"image": example.numpy()})
    with torch.no_grad():
        want = [t.numpy() for t in model(example)]
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        worst = max(worst, float((np.abs(a - b) / np.maximum(1.0, np.abs(b))).max()))
    if worst > 1e-4:
        raise ValueError(f"ONNX Runtime and torch differ by {worst:.1e}")
    return worst
