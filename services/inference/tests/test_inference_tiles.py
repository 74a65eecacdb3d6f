"""A model of whole windows, from raster to detections: one box a core, and cores tile the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from frond.contracts.jobs import ModelRef
from frond.inference.pipeline import Runner
from frond.merge import Detections, assemble, merge
from frond.models.session import ModelSession
from frond.models.testing import tile_model
from frond.raster import PlanRequest, RasterReader, chunks_of, inspect, open_raster, plan_image

RED, GREEN = 0, 1


def found_in(
    path: Path, session: ModelSession
) -> tuple[list[Detections], Detections, list[tuple[int, ...]]]:
    """Chunks' detections, the merged ones, and the cores that were run."""
    with open_raster(str(path)) as dataset:
        request = PlanRequest(
            job_id="j", image_id="1" * 32, image="s3://bucket/i.tif", name="i", uri=str(path), etag="e",
            size=path.stat().st_size, model=ModelRef(name="tiles", digest="0" * 64),
            manifest=session.manifest,
        )  # fmt: skip
        plan = plan_image(dataset, inspect(dataset), request)
    runner, parts, cores = Runner(), [], []
    for chunk in chunks_of(plan):
        with RasterReader(plan.source, plan.grid, layout=session.layout) as reader:
            windows = reader.read_block(chunk.windows)
        found, _ = runner.detect(session, [w.data for w in windows], session.manifest.thresholds)
        parts.append(assemble(found, windows, plan.grid, plan.source, cores=True))
        cores += [tuple(plan.grid.core(n)) for n in chunk.windows]
    runner.close()
    return parts, merge(Detections.concat(parts), plan.grid, 0.0), cores


def painted(path: Path, pixels: np.ndarray, valid: np.ndarray | None = None) -> Path:
    _, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8",
        crs="EPSG:32650", transform=from_origin(500_000, 100_000, 0.5, 0.5),
    ) as out:  # fmt: skip
        out.write(pixels)
        if valid is not None:
            out.write_mask(valid)
    return path


@pytest.mark.parametrize("margin", [0, 8])
@pytest.mark.parametrize("size", [(200, 150), (64, 64), (40, 30)])
def test_each_core_is_one_box_and_the_merge_leaves_them(
    tmp_path: Path, margin: int, size: tuple[int, int]
) -> None:
    """All red: the boxes are the grid's cores, not one lost to a neighbour of the same class, even
    where any overlap would do."""
    pixels = np.zeros((3, size[1], size[0]), np.uint8)
    pixels[0] = 255
    session = ModelSession(tile_model(tmp_path / "m", margin=margin))
    parts, merged, cores = found_in(painted(tmp_path / "i.tif", pixels), session)
    assert sorted(map(tuple, merged.boxes.tolist())) == sorted(cores)
    assert set(merged.classes.tolist()) == {RED}
    assert sum(map(len, parts)) == len(merged)
    area = (merged.boxes[:, 2:] - merged.boxes[:, :2]).prod(axis=1).sum()
    assert area == size[0] * size[1]


def test_classes_and_background_lie_where_they_are(tmp_path: Path) -> None:
    """Left red, right green, grey between: grey cores give nothing."""
    pixels = np.full((3, 64, 320), 100, np.uint8)
    pixels[:, :, :110] = np.array([255, 0, 0])[:, None, None]
    pixels[:, :, -110:] = np.array([0, 255, 0])[:, None, None]
    session = ModelSession(tile_model(tmp_path / "m", margin=0))
    _, merged, _ = found_in(painted(tmp_path / "i.tif", pixels), session)
    by_class = {k: merged.boxes[merged.classes == k] for k in (RED, GREEN)}
    assert by_class[RED].min(axis=0)[0] == 0
    assert by_class[RED].max() <= 128
    assert by_class[GREEN][:, 0].min() >= 192
    assert by_class[GREEN].max() == 320


def test_cores_of_pixels_that_mean_nothing_give_nothing(tmp_path: Path) -> None:
    """A red nodata area is no red tile."""
    pixels = np.zeros((3, 64, 192), np.uint8)
    pixels[0] = 255
    valid = np.full((64, 192), 255, np.uint8)
    valid[:, 100:] = 0
    session = ModelSession(tile_model(tmp_path / "m", margin=0))
    _, merged, _ = found_in(painted(tmp_path / "i.tif", pixels, valid), session)
    assert sorted(merged.boxes[:, 0].tolist()) == [0.0, 64.0]
