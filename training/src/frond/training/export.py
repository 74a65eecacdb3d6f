"""A trained network as an ONNX graph that ONNX Runtime reads as torch does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from frond.training.config import TrainingFailed

Array = NDArray[Any]

OPSET: Final = 17
_MOST: Final = 1e-4


def largest_difference(got: Sequence[Array], want: Sequence[Array]) -> float:
    """Of all values, relative to those above 1."""
    worst = 0.0
    for a, b in zip(got, want, strict=True):
        worst = max(worst, float((np.abs(a - b) / np.maximum(1.0, np.abs(b))).max()))
    return worst


def export(
    model: nn.Module,
    example: Tensor,
    path: Path,
    inputs: str,
    outputs: Sequence[str],
    differ: Callable[[list[Array], list[Array]], float] = largest_difference,
) -> float:
    """Write the graph, its batch free, and run both on the example.

    Args:
        differ: how far what ONNX Runtime and torch say lies apart.

    Returns:
        The largest difference between ONNX Runtime and torch.

    Raises:
        TrainingFailed: it is more than 1e-4.
    """
    free = {name: {0: "batch"} for name in (inputs, *outputs)}
    model = model.to(memory_format=torch.contiguous_format).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # the scripted exporter needs no further package; the newer one does
        torch.onnx.export(
            model, (example,), str(path), input_names=[inputs], output_names=list(outputs),
            dynamic_axes=free, opset_version=OPSET, dynamo=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    got = session.run(list(outputs), {inputs: example.numpy()})
    with torch.no_grad():
        told = model(example)
    want = [told] if isinstance(told, Tensor) else list(told)
    worst = differ([np.asarray(a) for a in got], [t.numpy() for t in want])
    if not worst <= _MOST:
        raise TrainingFailed(
            f"ONNX Runtime and torch differ by {worst:.1e} on the same input: the graph is not what "
            "was trained."
        )
    return worst
