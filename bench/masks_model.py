"""A small segmentation network with random weights: four classes and a background.

What it finds means nothing; it is a real graph, cheap to run, so that what is done with its output
counts. Its classes are patches as large as what people map, some dozens of pixels, and do not depend
on where a window lies, but for what a convolution sees at its edge. Made here from a seed; kept
under .frond/bench.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from frond.models.folder import MANIFEST_FILE, MODEL_FILE

SIZE, MARGIN, CLASSES, NAME = 512, 64, 4, "nano-masks"
_STRIDE, _SMOOTH = 8, 9
_CERTAINTY = 60.0


def stored(folder: Path) -> Path:
    """The model's folder, made when it is not there."""
    home = folder / f"model-{NAME}"
    if (home / MANIFEST_FILE).exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    onnx.save(_graph(), str(home / MODEL_FILE))
    manifest = {
        "name": NAME, "version": "1", "task": "segmentation",
        "decoder": {"name": "semantic", "params": {"background": 0, "min_area": 64}},
        "description": "Patches of four classes by random weights; for measurements.",
        "classes": [f"class-{n}" for n in range(CLASSES)], "input": {"size": SIZE},
        "normalization": {"scale": 1 / 255}, "margin": MARGIN, "licence": "Apache-2.0",
        "thresholds": {"score": 0.25},
    }  # fmt: skip
    (home / MANIFEST_FILE).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return home


def _graph() -> Any:
    rng = np.random.default_rng(11)
    nodes: list[Any] = []
    constants: list[Any] = []

    def const(value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, f"c{len(constants)}"))
        return f"c{len(constants) - 1}"

    def do(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [f"n{len(nodes)}"], **attributes))
        return f"n{len(nodes) - 1}"

    x, channels = "images", 3
    for wide in (8, 16, 16):
        weights = rng.normal(0, 1.6 / np.sqrt(channels * 9), (wide, channels, 3, 3))
        x = do(
            "Conv", x, const(weights.astype(np.float32)), kernel_shape=[3, 3], strides=[2, 2],
            pads=[1, 1, 1, 1],
        )  # fmt: skip
        x, channels = do("Mul", x, do("Sigmoid", x)), wide
    # each class answers to a direction in which smoothed features differ from their mean
    weights = rng.normal(0, _CERTAINTY / np.sqrt(channels), (CLASSES + 1, channels, 1, 1))
    smooth = {"count_include_pad": 0, "strides": [1, 1]}
    near = do("AveragePool", x, kernel_shape=[_SMOOTH] * 2, pads=[_SMOOTH // 2] * 4, **smooth)
    far = do("AveragePool", x, kernel_shape=[31, 31], pads=[15] * 4, **smooth)
    x = do("Conv", do("Sub", near, far), const(weights.astype(np.float32)), kernel_shape=[1, 1])
    scales = const(np.array([1, 1, _STRIDE, _STRIDE], np.float32))
    x = do("Softmax", do("Resize", x, "", scales, mode="linear"), axis=1)
    graph = helper.make_graph(
        nodes, NAME,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", CLASSES + 1, SIZE, SIZE])],
        constants,
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="frond"
    )
