"""Small graphs of each family, for tests: what they give is planted, and hangs on the input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def planted(
    path: Path,
    outputs: Mapping[str, np.ndarray],
    *,
    size: Any = 64,
    bands: int = 3,
    layout: str = "NCHW",
    dtype: str = "float32",
    axes: int = 4,
    metadata: Mapping[str, str] | None = None,
    sway: float = 1e-4,
    limit: float = 0.005,
    sides: tuple[Any, Any] | None = None,
    more_inputs: int = 0,
) -> Path:
    """Write a graph for one image that gives these arrays, floats swayed by the input's mean.

    Args:
        sway: how much, as a share; 0: the graph does not see its input.
        limit: of that share.
    """
    high, wide = sides or (size, size)
    shape = [bands, high, wide] if layout == "NCHW" else [high, wide, bands]
    shape = [1, *shape] if axes == 4 else shape
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "sway"], ["tilt0"]),
        helper.make_node("Clip", ["tilt0", "low", "high"], ["tilt"]),
    ]
    constants: dict[str, Any] = {
        "sway": np.float32(sway), "low": np.float32(-limit), "high": np.float32(limit),
    }  # fmt: skip
    told = []
    for name, values in outputs.items():
        constants[f"{name}_c"] = values
        kind = TensorProto.INT64 if values.dtype.kind == "i" else TensorProto.FLOAT
        told.append(helper.make_tensor_value_info(name, kind, list(values.shape)))
        if kind == TensorProto.INT64:
            nodes.append(helper.make_node("Identity", [f"{name}_c"], [name]))
            continue
        # whole numbers stay so: classes, rows that are not used
        constants[f"{name}_m"] = np.where(values == np.rint(values), 0, values).astype("f4")
        nodes += [
            helper.make_node("Mul", [f"{name}_m", "tilt"], [f"{name}_t"]),
            helper.make_node("Sub", [f"{name}_c", f"{name}_t"], [name]),
        ]
    inputs = [helper.make_tensor_value_info("x", KINDS[dtype], shape)]
    inputs += [
        helper.make_tensor_value_info(f"more{n}", TensorProto.INT64, [1, 2])
        for n in range(more_inputs)
    ]
    graph = helper.make_graph(
        nodes, "t", inputs, told,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def beside(folder: Path) -> Path:
    """Give a folder's graph two outputs more, which nobody reads and which have no batch axis."""
    path = folder / "model.onnx"
    model = onnx.load(str(path))
    for name, values in (("anchors", np.ones((84, 4), "f4")), ("scale", np.float32(2))):
        value = numpy_helper.from_array(np.asarray(values), name)
        model.graph.node.append(helper.make_node("Constant", [], [name], value=value))
        shape = list(np.shape(values))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    onnx.save(model, str(path))
    return folder


def raw_yolo(version: str, classes: int, size: int = 64, planted_score: float = 0.8) -> np.ndarray:
    """A head for windows of ``size`` with two boxes in it."""
    cells = sum((size // s) ** 2 for s in (8, 16, 32))
    rows = np.zeros((cells * (3 if version == "v5" else 1), 4 + (version == "v5") + classes), "f4")
    rows[:, :4] = 20.5
    for n, (x, y) in enumerate(((16.25, 20.5), (44.5, 40.25))):
        rows[n, :4] = x, y, 10.5, 12.5
        rows[n, 4:] = 0.01
        rows[n, 4] = planted_score if version == "v8" else 0.9
        rows[n, -1] = planted_score
    return (rows.T if version == "v8" else rows)[None].copy()


def end2end(rows: int = 300) -> np.ndarray:
    out = np.zeros((1, rows, 6), "f4")
    out[0, 0] = 10.5, 12.5, 30.5, 28.5, 0.8, 2
    out[0, 1] = 40.5, 12.5, 60.5, 28.5, 0.7, 0
    return out


def queries(count: int, channels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    boxes = rng.uniform(0.2, 0.4, (1, count, 4)).astype("f4")
    return {"logits": rng.normal(-2, 3, (1, count, channels)).astype("f4"), "pred_boxes": boxes}


def heatmaps(classes: int = 1, side: int = 16) -> dict[str, np.ndarray]:
    heat = np.zeros((1, classes, side, side), "f4")
    heat[0, 0, 4, 4], heat[0, 0, 9, 12] = 0.8, 0.6
    rng = np.random.default_rng(4)
    return {
        "heatmap": heat,
        "size": rng.uniform(8, 12, (1, 2, side, side)).astype("f4"),
        "offset": rng.uniform(0.3, 0.6, (1, 2, side, side)).astype("f4"),
    }


def torchvision() -> dict[str, np.ndarray]:
    return {
        "boxes": np.array([[10.5, 12.5, 30.5, 28.5]], "f4"),
        "labels": np.array([1], np.int64),
        "scores": np.array([0.8], "f4"),
    }


def planes(
    channels: int, side: int = 64, *, logits: bool = False, layout: str = "NCHW"
) -> np.ndarray:
    raw = np.random.default_rng(5).normal(0, 3, (1, channels, side, side)).astype("f4")
    out = raw if logits else np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    return out if layout == "NCHW" else np.ascontiguousarray(out.transpose(0, 2, 3, 1))
