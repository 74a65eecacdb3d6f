"""A detector with the layers, parameters and arithmetic of a YOLOv8-nano, and random weights.

What it finds means nothing; what it costs does: as many operations as that network, 8.7 GFLOP a
window of 640²; 33 ms on the two cores that it was first run on. Made here from a seed, so that
nothing is downloaded; kept under .frond/bench.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import yaml
from onnx import TensorProto, helper, numpy_helper

from frond.client.scenes import palm_scene
from frond.models.folder import MANIFEST_FILE, MODEL_FILE

SIZE, CLASSES, NAME = 640, 80, "nano"
_BINS, _STRIDES, _WANTED = 16, (8, 16, 32), 40
_SCORE = 0.25


def stored(folder: Path) -> Path:
    """The model's folder, made when it is not there."""
    home = folder / "model-nano"
    if (home / MANIFEST_FILE).exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    onnx.save(_calibrated(), str(home / MODEL_FILE))
    manifest = {
        "name": NAME, "version": "1", "decoder": {"name": "yolo", "params": {"version": "v8"}},
        "description": "The cost of a YOLOv8-nano with random weights; for measurements.",
        "classes": [f"class-{n}" for n in range(CLASSES)], "input": {"size": SIZE},
        "normalization": {"scale": 1 / 255}, "margin": 64, "licence": "Apache-2.0",
        "thresholds": {"score": _SCORE, "nms_iou": 0.5, "merge_iou": 0.5},
    }  # fmt: skip
    (home / MANIFEST_FILE).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return home


def _calibrated() -> Any:
    """The scores' bias is such that some dozens of a drawn scene's anchors pass the threshold."""
    image = palm_scene(SIZE, SIZE, 60, 1)[0].transpose(2, 0, 1)[None].astype(np.float32) / 255
    session = ort.InferenceSession(_Net(0.0).model().SerializeToString())
    scores = session.run(None, {"images": image})[0][0, 4:].astype(np.float64)
    logits = np.sort(np.log(scores / (1 - scores)).max(axis=0))
    return _Net(np.log(_SCORE / (1 - _SCORE)) - logits[-_WANTED]).model()


class _Net:
    """The graph under construction; each method adds nodes and returns the last one's output."""

    def __init__(self, bias: float) -> None:
        self._rng = np.random.default_rng(5)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._bias = bias

    def model(self) -> Any:
        output = self._head(self._features("images"))
        graph = helper.make_graph(
            self._nodes, NAME,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 4 + CLASSES, "a"])],
            self._constants,
        )  # fmt: skip
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="frond"
        )

    def _features(self, x: str) -> list[tuple[str, int]]:
        x = self._conv(self._conv(x, 3, 16, 3, 2), 16, 32, 3, 2)
        x = self._conv(self._c2f(x, 32, 32, 1, True), 32, 64, 3, 2)
        p3 = self._c2f(x, 64, 64, 2, True)
        p4 = self._c2f(self._conv(p3, 64, 128, 3, 2), 128, 128, 2, True)
        x = self._c2f(self._conv(p4, 128, 256, 3, 2), 256, 256, 1, True)
        p5 = self._pool_pyramid(x, 256)
        n4 = self._c2f(self._cat(self._up(p5), p4), 384, 128, 1, False)
        n3 = self._c2f(self._cat(self._up(n4), p3), 192, 64, 1, False)
        m4 = self._c2f(self._cat(self._conv(n3, 64, 64, 3, 2), n4), 192, 128, 1, False)
        m5 = self._c2f(self._cat(self._conv(m4, 128, 128, 3, 2), p5), 384, 256, 1, False)
        return [(n3, 64), (m4, 128), (m5, 256)]

    def _head(self, levels: list[tuple[str, int]]) -> str:
        boxes, scores, anchors = [], [], []
        for (x, channels), stride in zip(levels, _STRIDES, strict=True):
            side = SIZE // stride
            b = self._conv(self._conv(x, channels, 64, 3), 64, 64, 3)
            boxes.append(self._flat(self._conv(b, 64, 4 * _BINS, 1, plain=True), 4 * _BINS))
            c = self._conv(self._conv(x, channels, 80, 3), 80, 80, 3)
            logits = self._conv(c, 80, CLASSES, 1, plain=True, bias=self._bias)
            scores.append(self._flat(logits, CLASSES))
            cell = np.arange(side) + 0.5
            xy = np.stack(np.meshgrid(cell, cell)).reshape(2, -1)
            anchors.append(np.concatenate([xy, np.full((1, side * side), stride)]))
        place = np.concatenate(anchors, axis=1).astype(np.float32)
        # each side's distance is the mean of a distribution over bins
        bins = self._do("Reshape", self._cat(*boxes, axis=2), self._const([0, 4, _BINS, -1]))
        share = self._do("Softmax", bins, axis=2)
        steps = self._const(np.arange(_BINS, dtype=np.float32).reshape(1, 1, -1, 1))
        sides = self._do("ReduceSum", self._do("Mul", share, steps), self._const([2]), keepdims=0)
        near, far = self._split(sides, 1, [2, 2])
        centre, stride_ = self._const(place[None, :2]), self._const(place[None, 2:])
        first, last = self._do("Sub", centre, near), self._do("Add", centre, far)
        middle = self._do("Mul", self._do("Add", first, last), self._const(np.float32(0.5)))
        box = self._do("Mul", self._cat(middle, self._do("Sub", last, first)), stride_)
        return self._cat(box, self._do("Sigmoid", self._cat(*scores, axis=2)))

    def _conv(
        self, x: str, i: int, o: int, k: int, s: int = 1, *, plain: bool = False, bias: float = 0.0
    ) -> str:
        # keeps the variance through a SiLU
        weights = self._rng.normal(0, 1.6 / np.sqrt(i * k * k), (o, i, k, k)).astype(np.float32)
        pads = [k // 2] * 4
        x = self._do(
            "Conv", x, self._const(weights), self._const(np.full(o, bias, np.float32)),
            kernel_shape=[k, k], strides=[s, s], pads=pads,
        )  # fmt: skip
        return x if plain else self._do("Mul", x, self._do("Sigmoid", x))

    def _c2f(self, x: str, i: int, o: int, n: int, shortcut: bool) -> str:
        half = o // 2
        parts = list(self._split(self._conv(x, i, o, 1), 1, [half, half]))
        for _ in range(n):
            y = self._conv(self._conv(parts[-1], half, half, 3), half, half, 3)
            parts.append(self._do("Add", parts[-1], y) if shortcut else y)
        return self._conv(self._cat(*parts), half * len(parts), o, 1)

    def _pool_pyramid(self, x: str, c: int) -> str:
        parts = [self._conv(x, c, c // 2, 1)]
        for _ in range(3):
            parts.append(self._do("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2] * 4))
        return self._conv(self._cat(*parts), 2 * c, c, 1)

    def _up(self, x: str) -> str:
        scales = self._const(np.array([1, 1, 2, 2], np.float32))
        return self._do("Resize", x, "", scales, mode="nearest")

    def _flat(self, x: str, channels: int) -> str:
        return self._do("Reshape", x, self._const([0, channels, -1]))

    def _cat(self, *parts: str, axis: int = 1) -> str:
        return self._do("Concat", *parts, axis=axis)

    def _split(self, x: str, axis: int, sizes: list[int]) -> tuple[str, ...]:
        names = tuple(f"n{len(self._nodes)}.{k}" for k in range(len(sizes)))
        self._nodes.append(
            helper.make_node("Split", [x, self._const(sizes)], list(names), axis=axis)
        )
        return names

    def _do(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _const(self, value: Any) -> str:
        array = np.asarray(value, np.int64) if isinstance(value, list) else np.asarray(value)
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name
