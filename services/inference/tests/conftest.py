"""What tests of models that servers run have in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from frond.models.testing import MAGENTA, blob_model
from frond.models.testing_server import ModelServer, model_server

sys.path.insert(0, str(Path(__file__).parent))

from inference_bench import PLACES, SIZE  # importable from here on
from shadow_bench import Made


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return blob_model(tmp_path / "local", size=SIZE, margin=8)


@pytest.fixture
def server(local: Path) -> Iterator[ModelServer]:
    with model_server(local) as made:
        yield made


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.tif"
    pixels = np.full((3, 128, 128), 90, np.uint8)
    for x, y in PLACES:
        pixels[:, y : y + 12, x : x + 12] = np.array(MAGENTA)[:, None, None]
    with rasterio.open(
        path, "w", driver="GTiff", width=128, height=128, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5),
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return blob_model(tmp_path / "own", size=SIZE, margin=8)


@pytest.fixture
def made(scene: Path, tmp_path: Path, own: Path) -> Iterator[Made]:
    """The shadow is another version that finds the same things."""
    other = blob_model(tmp_path / "other", size=SIZE, margin=8, version="2", score=0.3)
    made = Made(scene, tmp_path, own, other)
    yield made
    made.shadowing.close()
    made.bench.close()
