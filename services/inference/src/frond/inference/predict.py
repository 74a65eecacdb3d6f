"""One image, start to end, in memory: what POST /predict does. Nothing is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, Field

from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.ids import image_id
from frond.contracts.jobs import ModelRef, Thresholds
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import Georeference
from frond.contracts.reasons import Reason
from frond.inference import decoding
from frond.inference.decoding import Decoded, Image
from frond.inference.pipeline import Runner, check_count
from frond.merge import Detections, assemble, merge
from frond.models import effective_thresholds
from frond.models.session import ModelSession
from frond.raster import Limits, PlanRequest, pixel_to_lonlat, pixel_to_map

_CORNERS: Final = ((0, 1), (0, 3), (2, 3), (2, 1), (0, 1))
_MOST_WINDOWS: Final = 10_000
# a narrow image takes more windows than a square one of as many pixels
_NARROW: Final = 2


class Found(BaseModel):
    """One detection."""

    class_: str = Field(serialization_alias="class")
    score: float
    bbox: tuple[float, float, float, float] = Field(
        description="x, y, width, height; pixels, (0, 0) the upper left corner of the first one"
    )
    center: tuple[float, float] | None = Field(
        default=None,
        description="of the box, in the raster's CRS, in units unknown where it names none; null "
        "without a georeference",
    )
    geometry: dict[str, Any] | None = Field(
        default=None, description="the box as a GeoJSON polygon, in coordinates as center's"
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


def most_windows(manifest: ModelManifest, pixels: int) -> int:
    """How many windows an image may be, so that one of so many pixels at the model's own scale is
    none too large: whatever an image weighs as a file, its windows are what it costs."""
    core = manifest.input.size - 2 * manifest.margin
    return min(_MOST_WINDOWS, max(1, _NARROW * -(-pixels // core**2)))


def predict(
    data: bytes,
    ref: ModelRef,
    session: ModelSession,
    runner: Runner,
    limits: Limits,
    score: float | None = None,
    gsd_m: float | None = None,
    *,
    decode: Callable[[Image], Decoded],
    most: int,
    stop: threading.Event,
) -> Prediction:
    """Detections in an image given as bytes: GeoTIFF, PNG, JPEG or npy. Blocking.

    Args:
        decode: as :func:`frond.inference.decoding.decode`, in another process. An array of plain
            numbers is taken apart here.
        most: detections in all windows together.
        stop: once it is set no further chunk is run: nobody waits for the answer any more.

    Raises:
        RasterRejected: the bytes are no such image, it does not fit the model or the limits, or it
            kills whoever decodes it.
        ModelRejected: the model failed, or was stopped.
        ModelUnavailable: the server that runs it does not answer.
    """
    image = Image(
        np.frombuffer(data, np.uint8),
        PlanRequest(
            job_id="predict", image_id=image_id("predict", "memory"), image="memory", name="predict",
            uri="memory", etag="", size=len(data), model=ref, manifest=session.manifest,
            thresholds=Thresholds(score=score), limits=limits, gsd_m=gsd_m,
        ),
        session.layout,
    )  # fmt: skip
    if decoding.is_array(data):
        decode = decoding.decode
    try:
        decoded = decode(image)
    except RasterRejected as e:
        if e.reason is Reason.TOO_MANY:
            raise RasterRejected(e.reason, f"{e.detail} Or upload it as a job.") from None
        raise
    plan = decoded.plan
    thresholds = effective_thresholds(session.manifest, plan.thresholds)
    cores = session.manifest.task == "classification"
    parts, count, rows, first = [], 0, 0, 0
    while decoded.chunks:
        for windows in decoded.chunks:
            if stop.is_set():
                raise ModelRejected(Reason.INFERENCE_FAILED, "The run was stopped.")
            found = runner.request(session, [w.data for w in windows], thresholds)
            check_count(found, limits.max_detections)
            parts.append(assemble(found, windows, plan.grid, plan.source, cores=cores))
            count += len(windows)
            rows += len(parts[-1])
            if rows > most:
                raise RasterRejected(
                    Reason.TOO_MANY,
                    f"The model finds more than {most} objects in the windows of this image; no "
                    "more are answered here. Ask for a higher score, or upload it as a job.",
                )
        first += len(decoded.chunks)
        if first >= plan.chunks:
            break
        decoded = decode(replace(image, plan=plan, first=first))
    merged = merge(Detections.concat(parts), plan.grid, thresholds.merge_iou)
    return Prediction(
        model=ref,
        width=decoded.width,
        height=decoded.height,
        crs=decoded.georeference.crs,
        gsd_m=plan.gsd_m,
        windows=count,
        notes=plan.notes,
        detections=_told(merged, decoded.georeference, session.manifest.classes),
    )


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
