"""Graphs whose right answer is plain to see: for tests of the pipeline, never shipped.

They need no training and no luck: one finds squares and rectangles of pure magenta, so that a test
which plants them knows where every box must land; one knows red and green pixels from all others,
and one windows of these colours. Needs the ``onnx`` package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from frond.models.folder import MANIFEST_FILE, MODEL_FILE

MAGENTA: Final = (255, 0, 255)
"""The colour to plant."""

_STRIDE: Final = 4
_REACH: Final = 24


def blob_model(
    folder: Path,
    size: int = 256,
    *,
    name: str = "blob",
    version: str = "1",
    margin: int = 32,
    gsd_m: float | None = None,
    batch: int | None = None,
    score: float = 0.5,
) -> Path:
    """Write a model folder that finds magenta rectangles; returns the folder.

    Plant rectangles of 10 to 18 pixels a side (at the model's GSD), at least 12 pixels apart from
    each other. Their boxes come out exact where the raster is not resampled, else within a pixel;
    scores are above 0.85 for squares of 16. One class, ``blob``; decoder ``centerpoint``.

    Args:
        size: side of the window; a multiple of 4.
        batch: fixed in ``model.yaml``; None leaves it to the session.
        version: written into the graph as well, so that each has a digest of its own.
    """
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_graph(size, version), str(folder / MODEL_FILE))
    manifest: dict[str, Any] = {
        "name": name,
        "version": version,
        "description": "Finds magenta rectangles; for tests.",
        "decoder": {"name": "centerpoint"},
        "classes": ["blob"],
        "input": {"size": size} | ({"batch": batch} if batch else {}),
        "margin": margin,
        "thresholds": {"score": score, "nms_iou": 0.3, "merge_iou": 0.3},
        "licence": "CC0-1.0",
    }
    if gsd_m is not None:
        manifest["gsd_m"] = gsd_m
    (folder / MANIFEST_FILE).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def colour_model(
    folder: Path,
    size: int = 64,
    *,
    name: str = "colours",
    version: str = "1",
    margin: int = 8,
    gsd_m: float | None = None,
    score: float = 0.5,
    shrink: int = 1,
    params: dict[str, Any] | None = None,
) -> Path:
    """Write a segmentation model that tells colours; returns the folder.

    Classes ``red`` and ``green``, background channel 0. Pixels of pure red or green are sure to 250
    of 255, and so are grey ones and black to be background; each pixel stands for itself alone.

    Args:
        size: side of the window.
        shrink: the output is so many times smaller than the window, means of the pixels between.
        params: of the decoder, beside ``background``; with an ``activation`` the graph has none.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    said = {"background": 0, **(params or {})}
    mixing = np.array([[0, 0, 0], [1, -1, -1], [-1, 1, -1]], np.float32) / (10 * shrink**2)
    kernel = np.broadcast_to(mixing[:, :, None, None], (3, 3, shrink, shrink))
    last = helper.make_node("Softmax", ["z"], ["scores"], axis=1)
    if said.get("activation", "none") != "none":
        last = helper.make_node("Identity", ["z"], ["scores"])
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "kernel", "bias"], ["z"], strides=[shrink] * 2),
            last,
        ],
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [
            numpy_helper.from_array(np.ascontiguousarray(kernel), "kernel"),
            numpy_helper.from_array(np.array([0, -5, -5], np.float32), "bias"),
        ],
        doc_string=f"version {version}",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="frond"
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / MODEL_FILE))
    manifest: dict[str, Any] = {
        "name": name,
        "version": version,
        "task": "segmentation",
        "description": "Knows red and green; for tests.",
        "decoder": {"name": "semantic", "params": said},
        "classes": ["red", "green"],
        "input": {"size": size},
        "margin": margin,
        "thresholds": {"score": score},
        "licence": "CC0-1.0",
    }
    if gsd_m is not None:
        manifest["gsd_m"] = gsd_m
    (folder / MANIFEST_FILE).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def tile_model(folder: Path, size: int = 64, *, name: str = "tiles", margin: int = 8) -> Path:
    """Write a model that tells what colour a window is; returns the folder.

    Classes ``red`` and ``green``, background channel 0: windows of pure red or green are sure to
    above 0.99 of it, grey and black ones are background.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    mixing = np.array([[0, 0, 0], [1, -1, -1], [-1, 1, -1]], np.float32) / 10
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Conv", ["mean", "kernel", "bias"], ["mixed"]),
            helper.make_node("Flatten", ["mixed"], ["logits"]),
        ],
        "tiles",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(mixing[:, :, None, None], "kernel"),
            numpy_helper.from_array(np.array([0, -5, -5], np.float32), "bias"),
        ],
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(folder / MODEL_FILE),
    )
    manifest: dict[str, Any] = {
        "name": name,
        "version": "1",
        "task": "classification",
        "decoder": {
            "name": "tile-classification",
            "params": {"activation": "softmax", "background": 0},
        },
        "classes": ["red", "green"],
        "input": {"size": size},
        "margin": margin,
        "thresholds": {"score": 0.5},
        "licence": "CC0-1.0",
    }
    (folder / MANIFEST_FILE).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return folder


def _graph(size: int, version: str) -> Any:
    """Moments of "how magenta" over 24×24 pixels about each cell of 4×4: area, centre, variance."""
    from onnx import TensorProto, helper, numpy_helper

    cells = size // _STRIDE
    pad = (_REACH - _STRIDE) // 2
    x = np.arange(_REACH, dtype=np.float32) - (_REACH - 1) / 2
    one = np.ones(_REACH, np.float32)
    kernels = np.stack([np.outer(one, one), np.outer(one, x), np.outer(x, one),
                        np.outer(one, x * x), np.outer(x * x, one)])[:, None]  # fmt: skip
    constants = {
        # (R + B) / 2 − G, as a share of 255
        "colour": np.array([0.5, -1.0, 0.5], np.float32).reshape(1, 3, 1, 1) / 255,
        "low": np.float32(0.4),
        "steep": np.float32(5),
        "zero": np.float32(0),
        "one": np.float32(1),
        "kernels": kernels.astype(np.float32),
        "area_min": np.float32(1),
        "area_full": np.float32(1 / 256),
        "twelve": np.float32(12),
        "far": np.float32(0.0125),
        "half": np.float32(0.5),
        "cell": np.float32(1 / _STRIDE),
        "split": np.array([1, 2, 2], np.int64),
        "halves": np.array([1, 1], np.int64),
        "axis": np.array([1], np.int64),
    }
    n = helper.make_node
    nodes = [
        n("Conv", ["input", "colour"], ["mag"]),
        n("Sub", ["mag", "low"], ["mag0"]),
        n("Mul", ["mag0", "steep"], ["mag1"]),
        n("Clip", ["mag1", "zero", "one"], ["m"]),
        n("Conv", ["m", "kernels"], ["moments"], strides=[_STRIDE] * 2, pads=[pad] * 4),
        n("Split", ["moments", "split"], ["area", "first", "second"], axis=1),
        n("Max", ["area", "area_min"], ["a"]),
        n("Div", ["first", "a"], ["centre"]),
        n("Div", ["second", "a"], ["square"]),
        n("Mul", ["centre", "centre"], ["centre2"]),
        n("Sub", ["square", "centre2"], ["variance"]),
        # a row of w pixels has the variance (w² − 1) / 12
        n("Mul", ["variance", "twelve"], ["v12"]),
        n("Add", ["v12", "one"], ["v121"]),
        n("Max", ["v121", "one"], ["side2"]),
        n("Sqrt", ["side2"], ["size"]),
        n("Mul", ["centre", "cell"], ["shift"]),
        n("Add", ["shift", "half"], ["offset"]),
        n("ReduceSum", ["centre2", "axis"], ["d2"], keepdims=1),
        n("Mul", ["d2", "far"], ["loss"]),
        n("Sub", ["one", "loss"], ["near0"]),
        n("Clip", ["near0", "zero", "one"], ["near"]),
        n("Mul", ["area", "area_full"], ["full0"]),
        n("Clip", ["full0", "zero", "one"], ["full"]),
        # two neighbours seen at once do not fill the rectangle of their common variance
        n("Split", ["size", "halves"], ["w", "h"], axis=1),
        n("Mul", ["w", "h"], ["wh"]),
        n("Div", ["area", "wh"], ["fill0"]),
        n("Clip", ["fill0", "zero", "one"], ["fill"]),
        n("Mul", ["full", "near"], ["score"]),
        n("Mul", ["score", "fill"], ["heatmap"]),
    ]
    shapes = {"heatmap": 1, "size": 2, "offset": 2}
    graph = helper.make_graph(
        nodes,
        "blob",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, size, size])],
        [
            helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", c, cells, cells])
            for k, c in shapes.items()
        ],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        doc_string=f"version {version}",
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="frond"
    )
