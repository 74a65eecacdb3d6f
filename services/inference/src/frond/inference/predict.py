"""One image, start to end, in memory: what POST /predict does. Nothing is kept."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from frond.contracts.errors import RasterRejected
from frond.contracts.ids import image_id
from frond.contracts.jobs import ModelRef, Thresholds
from frond.contracts.plan import Georeference, ImagePlan
from frond.contracts.reasons import Reason
from frond.inference.pipeline import Runner, assemble, check_count
from frond.merge import Detections, merge
from frond.models import effective_thresholds
from frond.models.session import ModelSession
from frond.raster import (
    Limits,
    PlanRequest,
    RasterReader,
    chunks_of,
    inspect,
    open_bytes,
    pixel_to_lonlat,
    pixel_to_map,
    plan_image,
)

_NPY: Final = b"\x93NUMPY"
_NPY_DTYPES: Final = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_CORNERS: Final = ((0, 1), (0, 3), (2, 3), (2, 1), (0, 1))


class Found(BaseModel):
    """One detection."""

    class_: str = Field(serialization_alias="class")
    score: float
    bbox: tuple[float, float, float, float] = Field(
        description="x, y, width, height; pixels, (0, 0) the upper left corner of the first one"
    )
    center: tuple[float, float] | None = Field(
        default=None, description="of the box, in the raster's CRS"
    )
    geometry: dict[str, Any] | None = Field(
        default=None, description="GeoJSON polygon of the box, in the raster's CRS"
    )
    lonlat: tuple[float, float] | None = Field(
        default=None, description="of the box's centre, WGS 84"
    )


class Prediction(BaseModel):
    """What POST /predict answers; detections by score, best first."""

    model: ModelRef
    width: int
    height: int
    crs: str | None = Field(description="EPSG:n or WKT2; null when the image has none")
    gsd_m: float | None = Field(description="ground metres a pixel, where known")
    windows: int = Field(description="run by the model")
    notes: tuple[str, ...]
    detections: list[Found]


def predict(
    data: bytes,
    ref: ModelRef,
    session: ModelSession,
    runner: Runner,
    limits: Limits,
    score: float | None = None,
) -> Prediction:
    """Detections in an image given as bytes: GeoTIFF, PNG, JPEG or npy. Blocking.

    Raises:
        RasterRejected: the bytes are no such image, or it does not fit the model or the limits.
        ModelRejected: the model failed.
    """
    with _opened(data, limits) as dataset:
        info = inspect(dataset, len(data), limits)
        plan = plan_image(
            dataset,
            info,
            PlanRequest(
                job_id="predict", image_id=image_id("predict", "memory"), image="memory", name="predict",
                uri="memory", etag="", size=len(data), model=ref, manifest=session.manifest,
                thresholds=Thresholds(score=score), limits=limits,
            ),
        )  # fmt: skip
        found, windows = _run(plan, dataset, session, runner, limits.max_detections)
    return Prediction(
        model=ref,
        width=info.width,
        height=info.height,
        crs=info.georeference.crs,
        gsd_m=info.gsd,
        windows=windows,
        notes=plan.notes,
        detections=_told(found, info.georeference, session.manifest.classes),
    )


def _run(
    plan: ImagePlan, dataset: Any, session: ModelSession, runner: Runner, most: int
) -> tuple[Detections, int]:
    thresholds = effective_thresholds(session.manifest, plan.thresholds)
    parts, count = [], 0
    with RasterReader(plan.source, plan.grid, dataset=dataset, layout=session.layout) as reader:
        for chunk in chunks_of(plan):
            windows = reader.read_block(chunk.windows)
            found, _ = runner.detect(session, [w.data for w in windows], thresholds)
            check_count(found, most)
            parts.append(assemble(found, windows, plan.grid, plan.source))
            count += len(windows)
    return merge(Detections.concat(parts), plan.grid, thresholds.merge_iou), count


def _told(found: Detections, geo: Georeference, classes: tuple[str, ...]) -> list[Found]:
    b = found.boxes
    middle = (b[:, :2] + b[:, 2:]) / 2
    lonlat = pixel_to_lonlat(geo, middle[:, 0], middle[:, 1])
    on_map = geo.kind != "none"
    if on_map:
        cx, cy = pixel_to_map(geo, middle[:, 0], middle[:, 1])
        xs, ys = pixel_to_map(
            geo, np.stack([b[:, i] for i, _ in _CORNERS]), np.stack([b[:, j] for _, j in _CORNERS])
        )
    out = []
    for n in range(len(found)):
        x0, y0, x1, y1 = (float(v) for v in b[n])
        # a lattice of 10⁻⁶, whose float32 has more digits than it means
        one = Found(
            class_=classes[int(found.classes[n])],
            score=round(float(found.scores[n]), 6),
            bbox=(x0, y0, x1 - x0, y1 - y0),
        )
        if on_map and np.isfinite(xs[:, n]).all() and np.isfinite(ys[:, n]).all():
            ring = [[float(x), float(y)] for x, y in zip(xs[:, n], ys[:, n], strict=True)]
            one.center = (float(cx[n]), float(cy[n]))
            one.geometry = {"type": "Polygon", "coordinates": [ring]}
        if lonlat is not None and np.isfinite(lonlat[0][n]) and np.isfinite(lonlat[1][n]):
            one.lonlat = (float(lonlat[0][n]), float(lonlat[1][n]))
        out.append(one)
    return out


@contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[Any]:
    if not data.startswith(_NPY):
        with open_bytes(data) as dataset:
            yield dataset
        return
    bands = _npy(data, limits)
    with MemoryFile() as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        count, height, width = bands.shape
        with memory.open(
            driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype.name,
            tiled=True, blockxsize=256, blockysize=256, photometric="MINISBLACK",
        ) as sink:  # fmt: skip
            sink.write(bands)
        with rasterio.open(memory.name, driver="GTiff", sharing=False) as dataset:
            yield dataset


def _npy(data: bytes, limits: Limits) -> NDArray[Any]:
    """An array file as [bands, rows, cols]."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError) as e:
        raise RasterRejected(
            Reason.CORRUPT,
            f"The .npy file cannot be read ({' '.join(str(e).split())[:160]}). "
            "Write it with numpy.save, without objects.",
        ) from None
    if array.dtype.name == "bool":
        array = array.astype(np.uint8)
    if array.dtype.name not in _NPY_DTYPES:
        raise RasterRejected(
            Reason.UNSUPPORTED_DTYPE,
            f"The array holds {array.dtype.name}; send one of {', '.join(_NPY_DTYPES)}.",
        )
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise RasterRejected(
            Reason.CORRUPT,
            f"The array has shape {'×'.join(map(str, array.shape))}; send rows×columns, "
            "rows×columns×bands or bands×rows×columns.",
        )
    # the bands are the shortest axis, first or last; rows×columns×bands where both would do
    if array.shape[2] <= array.shape[0]:
        array = array.transpose(2, 0, 1)
    if array.shape[1] * array.shape[2] > limits.max_pixels or len(array) > limits.max_bands:
        raise RasterRejected(
            Reason.TOO_LARGE,
            f"The array has {array.shape[2]}×{array.shape[1]} pixels in {len(array)} bands; at "
            f"most {limits.max_pixels} pixels are taken. Upload it as a job.",
        )
    # byte order and memory order as GDAL wants them
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
