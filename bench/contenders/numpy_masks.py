"""The loop that everybody writes: the whole image's sums in memory, a ramp of weights, argmax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import rasterio

from frond.contracts.plan import WindowGrid
from frond.models.folder import MODEL_FILE, load_manifest

_BATCH = 8
_ROWS = 1024


def whole(path: str, model: str, out: str) -> Callable[[], dict]:
    """ONNX Runtime with its default options, the same windows as Frond's, float32."""
    manifest = load_manifest(Path(model))
    size, margin, classes = manifest.input.size, manifest.margin, len(manifest.classes)
    session = ort.InferenceSession(
        str(Path(model) / MODEL_FILE), providers=["CPUExecutionProvider"]
    )
    session.run(None, {"images": np.zeros((_BATCH, 3, size, size), np.float32)})
    ramp = np.minimum(np.arange(size) + 1, 2 * margin)
    ramp = np.minimum(ramp, ramp[::-1]).astype(np.float32)
    weight = ramp[:, None] * ramp[None, :]

    def work() -> dict[str, object]:
        with rasterio.open(path) as dataset:
            image, place = dataset.read(), {"crs": dataset.crs, "transform": dataset.transform}
        _, height, width = image.shape
        grid = WindowGrid(width=width, height=height, size=size, margin=margin)
        sums = np.zeros((classes + 1, height, width), np.float32)
        total = np.zeros((height, width), np.float32)
        for first in range(0, grid.count, _BATCH):
            boxes = [grid.window(i) for i in range(first, min(first + _BATCH, grid.count))]
            batch = np.stack([image[:, b.y0 : b.y1, b.x0 : b.x1] for b in boxes])
            (found,) = session.run(None, {"images": batch.astype(np.float32) / 255})
            for b, p in zip(boxes, found, strict=True):
                sums[:, b.y0 : b.y1, b.x0 : b.x1] += p * weight
                total[b.y0 : b.y1, b.x0 : b.x1] += weight
        values = np.empty((height, width), np.uint8)
        # some rows at a time: numpy copies what it takes argmax of, and makes eight bytes of each answer
        for y in range(0, height, _ROWS):
            part = sums[:, y : y + _ROWS] / total[y : y + _ROWS]
            # the background comes first
            best = part.argmax(axis=0).astype(np.uint8)
            best[part.max(axis=0) < manifest.thresholds.score] = 0
            values[y : y + _ROWS] = best
        with rasterio.open(
            out, "w", driver="COG", width=width, height=height, count=1, dtype="uint8", nodata=255,
            compress="DEFLATE", blocksize=512, overview_resampling="nearest", **place,
        ) as raster:  # fmt: skip
            raster.write(values, 1)
        return {"kept": 0, "pixels": int((values > 0).sum())}

    return work
