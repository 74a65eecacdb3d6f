"""Windows for a model to look at: of somebody's raster, as a job would cut them, or drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan, WindowGrid
from frond.models.check import drawn_windows
from frond.raster import (
    Detector,
    PlanRequest,
    RasterReader,
    chunks_of,
    inspect,
    open_raster,
    plan_image,
)

MOST: Final = 4
_PALMS_GSD_M: Final = 0.14


def raster_windows(
    path: Path, manifest: ModelManifest, detector: Detector | None = None, most: int = MOST
) -> tuple[list[NDArray[np.uint8]], ImagePlan]:
    """Windows [size, size, bands] about the raster's middle, scaled and stretched as for a job; and
    the plan that they are of.

    Args:
        detector: the model, for rasters that do not say their scale.

    Raises:
        RasterRejected: Frond would not take the raster, or it has no pixel that means something.
        ModelRejected: the model fails on it.
    """
    size = path.stat().st_size
    with open_raster(str(path), size=size) as dataset:
        request = PlanRequest(
            job_id="check", image_id="0" * 32, image=path.name, name=path.name, uri=str(path),
            etag="", size=size, model=ModelRef(name=manifest.name, digest="0" * 64),
            manifest=manifest,
        )  # fmt: skip
        plan = plan_image(dataset, inspect(dataset, size), request, detector)
        told = [n for chunk in chunks_of(plan) for n in chunk.windows]
        nearest = sorted(told, key=lambda n: (_far(plan.grid, n), n))[:most]
        with RasterReader(plan.source, plan.grid, dataset=dataset, layout="HWC") as reader:
            return [w.data for w in reader.read_block(tuple(sorted(nearest)))], plan


def scene_windows(manifest: ModelManifest) -> list[NDArray[np.uint8]]:
    """Two drawn scenes with palms for models of three bands; shapes and noise for others."""
    if len(manifest.bands) != 3:
        return list(drawn_windows(manifest))
    from frond.client.scenes import palm_scene

    side = manifest.input.size
    gsd = min(max(manifest.gsd_m or _PALMS_GSD_M, 0.05), 1.0)
    palms = max(3, round((side * gsd / 20) ** 2))
    return [palm_scene(side, side, palms, seed, gsd)[0] for seed in (1, 2)]


def _far(grid: WindowGrid, index: int) -> float:
    core = grid.core(index)
    x, y = core.x0 + core.x1 - grid.width, core.y0 + core.y1 - grid.height
    return float(x * x + y * y)
