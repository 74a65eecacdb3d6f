"""A STAC 1.1 item for each raster: where it lies, what was found, and by which model.

The Machine Learning Model extension (MLM 1.5) names the model in the item's properties and points
to its graph as an asset. A raster's time of acquisition is not known to Frond: ``datetime`` is
null and the interval spans all of time, as STAC asks of an item whose time is unknown.

The class raster of a segmentation is an asset whose values the Classification extension names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from frond.artifacts.common import (
    COG_TYPE,
    ImageResult,
    JobInfo,
    Sink,
    encoded,
    text,
)
from frond.artifacts.geojson import geometry_of
from frond.artifacts.geometry import Floats, footprint, split
from frond.contracts import keys
from frond.contracts.jobs import ModelRef
from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan
from frond.contracts.provenance import GENERATOR

MLM: Final = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
CLASSIFICATION: Final = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"

_TASKS: Final = {
    "detection": "object-detection",
    "segmentation": "semantic-segmentation",
    "classification": "classification",
}
_OUTPUTS: Final[tuple[dict[str, Any], ...]] = (
    {
        "result": {
            "shape": [-1, 6],
            "dim_order": ["detection", "value"],
            "data_type": "float32",
        },
        "description": "x0, y0, x1, y1, score, class of each detection, after decoding",
    },
    {
        "result": {
            "shape": [-1, -1],
            "dim_order": ["height", "width"],
            "data_type": "uint8",
        },
        "description": "the class of each pixel, blended over the windows, and its outlines",
    },
)
_NO_TIME: Final = {
    "datetime": None,
    "start_datetime": "0001-01-01T00:00:00Z",
    "end_datetime": "9999-12-31T23:59:59Z",
}


def write_stac(sink: Sink, job: JobInfo, result: ImageResult, bucket: str = "") -> None:
    """Write ``stac.json``: the item, its results as assets by relative links.

    Args:
        bucket: where the model registry lies; without it the model's asset is a bare key.
    """
    sink.write(encoded(text(item(job, result, bucket)) + "\n"))


def item(job: JobInfo, result: ImageResult, bucket: str = "") -> dict[str, Any]:
    """The STAC item of one completed image."""
    outcome, plan = result.outcome, result.plan
    width, height = result.size
    ring = footprint(plan.georeference, width, height) if plan else None
    geometry, bbox = _where(ring)
    extensions: list[str] = []
    properties: dict[str, Any] = {
        "title": outcome.name,
        **_NO_TIME,
        "frond:generator": GENERATOR,
        "frond:job_id": job.job_id,
        "frond:detections": outcome.detections,
        "frond:windows": outcome.windows.model_dump(),
        **{f"frond:{name}": value for name, value in result.traced.items()},
    }
    assets: dict[str, Any] = {
        "raster": {"href": outcome.image, "roles": ["data"], "title": outcome.name},
        **{
            name: {"href": f"./{href}", "type": media_type, "roles": ["frond:detections"]}
            for name, href, media_type in (
                ("coco", "coco.json", "application/json"),
                ("geojson", "detections.geojson", "application/geo+json"),
                ("geoparquet", "detections.parquet", "application/vnd.apache.parquet"),
            )
        },
    }
    if plan is not None and plan.georeference.crs is not None:
        extensions.append(PROJECTION)
        properties |= _projection(plan.georeference.crs, plan.georeference.transform)
        properties["proj:shape"] = [height, width]
    if plan is not None and plan.gsd_m is not None:
        properties["gsd"] = plan.gsd_m
        if plan.gsd_source is not None:
            properties["frond:gsd_source"] = plan.gsd_source
    if job.model is not None and isinstance(job.manifest, ModelManifest):
        extensions.append(MLM)
        properties |= _model(job.model, job.manifest)
        assets["model"] = _model_asset(job.model, job.manifest, bucket)
    if job.manifest is not None and job.manifest.task == "segmentation":
        extensions.append(CLASSIFICATION)
        assets["classes"] = _class_asset(job.manifest.classes) | (_class_grid(plan) if plan else {})
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": extensions,
        "id": outcome.image_id,
        "geometry": geometry,
        **({"bbox": bbox} if bbox else {}),
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def _where(ring: Floats | None) -> tuple[dict[str, object] | None, list[float] | None]:
    if ring is None:
        return None, None
    parts = split(ring)
    geometry = geometry_of(parts)
    if geometry is None:
        return None, None
    south = min(y for p in parts for _, y in p)
    north = max(y for p in parts for _, y in p)
    if len(parts) == 1:
        west, east = min(x for x, _ in parts[0]), max(x for x, _ in parts[0])
    else:
        # RFC 7946, 5.2: a box across the antimeridian has its west edge east of its east edge
        west = min(x for p in parts for x, _ in p if max(q[0] for q in p) == 180.0)
        east = max(x for p in parts for x, _ in p if min(q[0] for q in p) == -180.0)
    return geometry, [round(v, 7) + 0.0 for v in (west, south, east, north)]


def _projection(crs: str, transform: tuple[float, ...] | None) -> dict[str, Any]:
    found: dict[str, Any] = {"proj:code": crs} if crs.startswith("EPSG:") else {"proj:wkt2": crs}
    if transform is not None:
        found["proj:transform"] = list(transform)
    return found


def _model(model: ModelRef, manifest: ModelManifest) -> dict[str, Any]:
    channels, size = len(manifest.bands), manifest.input.size
    order = ["batch", "channel", "height", "width"]
    shape = [-1, channels, size, size]
    if manifest.input.layout == "NHWC":
        order, shape = ["batch", "height", "width", "channel"], [-1, size, size, channels]
    task = _TASKS[manifest.task]
    return {
        "mlm:name": _mlm_name(model.name),
        "mlm:architecture": manifest.decoder.name,
        **({"mlm:framework": "ONNX"} if manifest.server is None else {}),
        "mlm:tasks": [task],
        "mlm:input": [
            {
                "name": manifest.input.name or "window",
                "description": f"bands {', '.join(map(str, manifest.bands))} of the raster",
                "bands": [],
                "input": {
                    "shape": shape,
                    "dim_order": order,
                    "data_type": manifest.input.dtype,
                },
            }
        ],
        "mlm:output": [
            {
                "name": task,
                "tasks": [task],
                **_OUTPUTS[task == "semantic-segmentation"],
                "classification:classes": (
                    _raster_values(manifest.classes)
                    if manifest.task == "segmentation"
                    else _values(enumerate(manifest.classes))
                ),
            }
        ],
        "frond:model_version": model.version,
        "frond:model_digest": model.digest,
    }


def _model_asset(model: ModelRef, manifest: ModelManifest, bucket: str) -> dict[str, Any]:
    # a model that a server runs has its weights there, and its description here
    graph = manifest.server is None
    folder = keys.model_version(model.name, model.digest)
    key = folder + ("model.onnx" if graph else "model.yaml")
    kind = "application/octet-stream; application=onnx" if graph else "application/yaml"
    return {
        "href": f"s3://{bucket}/{key}" if bucket else key,
        "type": kind,
        "title": f"{model.name} {model.version}".strip(),
        "roles": ["mlm:model"],
        **({"mlm:artifact_type": "onnx"} if graph else {}),
    }


def _values(named: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"value": value, "name": _class_name(name), "title": name} for value, name in named]


def _raster_values(classes: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        *_values(enumerate(("unclassified", *classes))),
        {"value": 255, "name": "nodata", "title": "nodata", "nodata": True},
    ]


def _class_asset(classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "href": f"./{keys.CLASS_RASTER}",
        "type": COG_TYPE,
        "title": "the class of each pixel",
        "roles": ["data", "frond:classes"],
        "bands": [
            {
                "name": "class",
                "data_type": "uint8",
                "nodata": 255,
                "classification:classes": _raster_values(classes),
            }
        ],
    }


def _class_grid(plan: ImagePlan) -> dict[str, Any]:
    """The class raster's own grid, where it is not the raster's, which the item tells of."""
    geo, grid = plan.georeference, plan.grid
    if geo.crs is None or grid.scale == 1.0:
        return {}
    found: dict[str, Any] = {"proj:shape": [grid.height, grid.width]}
    if geo.transform is not None:
        a, b, x, d, e, y = geo.transform
        s = grid.scale
        found["proj:transform"] = [a / s, b / s, x, d / s, e / s, y]
    return found


def _mlm_name(name: str) -> str:
    # the extension wants a letter first, a letter or digit last and three characters at least
    name = name if re.match("[a-zA-Z]", name) else f"model-{name}"
    return name if len(name) > 2 and name[-1].isalnum() else f"{name}-model"


def _class_name(name: str) -> str:
    # the classification extension allows a machine name only; the title keeps the class's own
    return re.sub(r"[^0-9A-Za-z_-]", "-", name) or "class"
