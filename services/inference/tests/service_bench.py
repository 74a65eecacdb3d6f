"""The wired service, and one image planned into chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from frond.contracts import keys
from frond.contracts.events import ChunkPlanned
from frond.contracts.jobs import ModelRef
from frond.contracts.plan import ImagePlan
from frond.inference.wiring import Inference
from frond.models.testing import MAGENTA
from frond.store import ObjectStore

SIDE = 16
KEY = "uploads/scene.tif"


def draw(path: Path, seed: int = 1, width: int = 700, height: int = 500) -> np.ndarray:
    """A GeoTIFF with magenta squares; returns their boxes [n, 4]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 110, (3, height, width)).astype(np.uint8)
    boxes = []
    for x0 in range(10, width - 40, 90):
        for y0 in range(10, height - 40, 90):
            x, y = x0 + int(rng.integers(0, 14)), y0 + int(rng.integers(0, 14))
            pixels[:, y : y + SIDE, x : x + SIDE] = np.array(MAGENTA)[:, None, None]
            boxes.append((x, y, x + SIDE, y + SIDE))
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5), tiled=True,
        blockxsize=256, blockysize=256,
    ) as out:  # fmt: skip
        out.write(pixels)
    return np.array(boxes, dtype=float)


@dataclass
class Bench:
    """The service, and one image planned into chunks."""

    inference: Inference
    store: ObjectStore
    model: ModelRef
    plan: ImagePlan
    chunks: list[ChunkPlanned]
    truth: np.ndarray

    def key(self, chunk: ChunkPlanned) -> str:
        return keys.chunk_result(chunk.job_id, chunk.image_id, chunk.chunk_id)
