"""From the network's maps to boxes, window by window, without a service.

The parity tests of ``frond.models`` hold its ``centerpoint`` decoder against :func:`decode` and
:func:`nms`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LOWEST: Final = 0.05
"""Finds of lower scores are not looked at."""
STRIDE: Final = 4
"""Pixels a cell of the network's maps."""
WINDOW: Final = 512
MARGIN: Final = 64
NMS_IOU: Final = 0.4

Array = NDArray[Any]
Maps = tuple[Array, Array, Array]
Predict = Callable[[Array], Maps]


def onnx_predictor(path: Path, threads: int = 2) -> Predict:
    """uint8 [N, 512, 512, 3] → heatmap, size, offset, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def predict(batch: Array) -> Maps:
        heat, size, offset = session.run(["heatmap", "size", "offset"], {"image": batch})
        return heat, size, offset

    return predict


def decode(heat: Array, size: Array, offset: Array) -> Array:
    """One window's maps → [n, 5] x0 y0 x1 y1 score, by falling score, before NMS."""
    rows, columns = np.nonzero(heat[0] >= LOWEST)
    score = heat[0, rows, columns]
    x = (columns + offset[0, rows, columns]) * STRIDE
    y = (rows + offset[1, rows, columns]) * STRIDE
    w, h = size[0, rows, columns] / 2, size[1, rows, columns] / 2
    found = np.stack([x - w, y - h, x + w, y + h, score], axis=1)
    return found[np.lexsort((x, y, -score))]


def iou(one: Array, many: Array) -> Array:
    """[4] with [n, 4] → [n]."""
    low, high = np.maximum(one[:2], many[:, :2]), np.minimum(one[2:4], many[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(one[2:4] - one[:2])
    areas = np.prod(many[:, 2:4] - many[:, :2], axis=1)
    told: Array = shared / np.maximum(area + areas - shared, 1e-9)
    return told


def nms(found: Array) -> Array:
    """Greedy suppression of rows sorted by falling score."""
    kept: list[int] = []
    for k in range(len(found)):
        if not kept or iou(found[k], found[kept]).max() < NMS_IOU:
            kept.append(k)
    return found[kept]


def _starts(length: int) -> list[int]:
    step = WINDOW - 2 * MARGIN
    starts = list(range(0, max(1, length - 2 * MARGIN), step))
    return sorted({min(s, max(0, length - WINDOW)) for s in starts})


def detect(predict: Predict, pixels: Array) -> Array:
    """All detections of an image, their boxes cut off at its edge as a service cuts them."""
    return cut_off(detect_whole(predict, pixels), *pixels.shape[:2])


def cut_off(found: Array, height: int, width: int) -> Array:
    """The same finds with what of their boxes lies in an image of so many pixels."""
    cut = found.copy()
    cut[:, [0, 2]] = cut[:, [0, 2]].clip(0, width)
    cut[:, [1, 3]] = cut[:, [1, 3]].clip(0, height)
    return cut


def detect_whole(predict: Predict, pixels: Array) -> Array:
    """All detections of an image: overlapping windows, each keeping its core's centres.

    Boxes are as the model sees them: of a crown that the image's edge cuts, they reach beyond it.
    """
    height, width = pixels.shape[:2]
    pad = (max(0, WINDOW - height), max(0, WINDOW - width))
    padded = np.pad(pixels, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="reflect")
    xs, ys = _starts(width), _starts(height)
    found = []
    for y in ys:
        for x in xs:
            window = padded[y : y + WINDOW, x : x + WINDOW][None]
            heat, size, offset = predict(np.ascontiguousarray(window))
            here = decode(heat[0], size[0], offset[0])
            here[:, :4] += np.array([x, y, x, y])
            centre = (here[:, :2] + here[:, 2:4]) / 2
            low = np.array([x + MARGIN if x else 0, y + MARGIN if y else 0])
            last_x, last_y = x == xs[-1], y == ys[-1]
            high = np.array(
                [
                    width if last_x else x + WINDOW - MARGIN,
                    height if last_y else y + WINDOW - MARGIN,
                ]
            )
            found.append(here[((centre >= low) & (centre < high)).all(axis=1)])
    merged = np.concatenate(found)
    return nms(merged[np.lexsort((merged[:, 0], merged[:, 1], -merged[:, 4]))])
