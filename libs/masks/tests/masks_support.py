"""Plans, manifests and chunk files for masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from frond.contracts.ids import chunk_id
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import DecoderSpec, InputSpec, ModelManifest
from frond.contracts.plan import Georeference, ImagePlan, RasterSource, WindowGrid
from frond.masks import WindowMask, to_ipc
from frond.masks.codec import Planes

AFFINE = Georeference(
    kind="affine", crs="EPSG:32631", transform=(0.5, 0.0, 500_000.0, 0.0, -0.5, 4_500_000.0)
)


def plan_of(grid: WindowGrid, *, chunks: int, skipped: int = 0, **more: Any) -> ImagePlan:
    return ImagePlan(
        job_id="survey",
        image_id="a" * 32,
        image="s3://b/k.tif",
        name="k.tif",
        source=RasterSource(
            uri="s3://b/k.tif", etag="e", size=1, bands=(1,), dtype="uint8",
            width=round(grid.width / grid.scale), height=round(grid.height / grid.scale),
        ),
        grid=grid,
        model=ModelRef(name="cover", version="1", digest="0" * 64),
        windows_skipped=skipped,
        chunks=chunks,
        **more,
    )  # fmt: skip


def manifest_of(classes: int, score: float = 0.25, **params: Any) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": "cover",
            "task": "segmentation",
            "decoder": DecoderSpec(name="semantic", params=params),
            "classes": tuple(f"class {n}" for n in range(classes)),
            "input": InputSpec(size=64),
            "margin": 8,
            "thresholds": {"score": score},
        }
    )


def cut(planes: Planes, grid: WindowGrid) -> Callable[[int], Planes]:
    """The windows of whole-image planes: all agree."""

    def window(index: int) -> Planes:
        box = grid.window(index)
        return np.ascontiguousarray(planes[:, box.y0 : box.y1, box.x0 : box.x1])

    return window


def put_chunks(
    folder: Path, plan: ImagePlan, chunks: Iterable[list[int]], planes: Callable[[int], Planes]
) -> None:
    for n, windows in enumerate(chunks):
        data = to_ipc((WindowMask(w, planes(w)) for w in windows), {"ordinal": str(n)})
        name = chunk_id(plan.image_id, plan.plan_digest, n)
        (folder / f"{name}.arrow").write_bytes(data)


def certain(mask: np.ndarray[Any, Any], classes: int) -> Planes:
    """Planes that say a mask: 255 where it is the class, 0 elsewhere; no mask value 255 counts."""
    planes = np.stack([(mask == c + 1) * 255 for c in range(classes)] + [mask != 255])
    return planes.astype(np.uint8)
