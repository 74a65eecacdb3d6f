"""GeoJSON to RFC 7946: lon/lat of WGS 84 with seven decimals (1 cm; more where a pixel is smaller
than 5.6 cm), no ``crs``, exterior rings counter-clockwise, holes clockwise, cut at the antimeridian.

Images without longitude and latitude give no features; the file names them in the foreign member
``images_without_lonlat``. A detection that its georeference cannot place has a null geometry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from frond.artifacts.common import (
    ImageResult,
    JobInfo,
    JsonList,
    Sink,
    Spool,
    encoded,
    scores_of,
    text,
)  # fmt: skip
from frond.artifacts.geometry import Floats, Point, crosses, lonlat_rings, split, wide_rings
from frond.artifacts.regions import geojson_texts, lonlat_shapes
from frond.contracts.plan import Georeference
from frond.merge import Detections
from frond.raster import gsd_m, has_lonlat

DECIMALS = 7
_DEGREE_M = 111_320.0
_STEPS_A_PIXEL = 5


class FeatureCollection:
    """Writes a collection as its features come; ``finish`` ends it.

    Args:
        about: what the file says of itself, in the foreign member ``frond``.
    """

    def __init__(self, sink: Sink, about: Mapping[str, Any]) -> None:
        self._sink = sink
        self._features = JsonList(sink)
        self._spool = Spool()
        self._elsewhere = JsonList(self._spool)
        head = {"type": "FeatureCollection", "frond": dict(about)}
        sink.write(encoded(text(head)[:-1] + ',"features":['))

    def features(self, texts: list[str]) -> None:
        """Append features, each a JSON text."""
        self._features.add(texts)

    def without_lonlat(self, image_id: str, name: str) -> None:
        """Name an image that has no longitude and latitude, and so no features."""
        self._elsewhere.add([text({"image_id": image_id, "image": name})])

    def finish(self) -> None:
        self._sink.write(b'],"images_without_lonlat":[')
        self._spool.copy_to(self._sink)
        self._sink.write(b"]}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.__exit__(kind, error, trace)


class GeoJson(FeatureCollection):
    """Writes ``detections.geojson``.

    Args:
        image: the only one, where the file is an image's.
    """

    def __init__(self, sink: Sink, job: JobInfo, image: ImageResult | None = None) -> None:
        super().__init__(sink, job.describe(image))
        self._job = job
        self._classes: dict[int, str] = {}

    def add(self, result: ImageResult) -> None:
        if not result.completed:
            return
        if result.plan is None or not has_lonlat(result.plan.georeference):
            self.without_lonlat(result.outcome.image_id, result.outcome.name)
            return
        geo = result.plan.georeference
        digits = decimals(geo, *result.size)
        for first, part, regions in result.slices():
            if regions is not None:
                shapes = lonlat_shapes(geo, regions)
                texts = None if shapes is None else geojson_texts(shapes, digits)
            else:
                rings = lonlat_rings(geo, part.boxes)
                wide = wide_rings(geo, part.boxes)
                texts = None if rings is None else geometry_texts(rings, digits, wide)
            if texts is not None:
                self.features(self._texts(result, first, part, texts))

    def _texts(
        self, result: ImageResult, first: int, d: Detections, geometries: list[str]
    ) -> list[str]:
        image_id = result.outcome.image_id
        model = self._job.model
        # a list of the images would not do: GDAL opens no file whose other members are many
        tail = (
            f',"image":{text(result.outcome.name)},"image_id":{text(image_id)}'
            f",{text(result.traced)[1:-1]}"
            f',"model":{text(model.name if model else None)}'
            f',"model_digest":{text(model.digest if model else None)}}}}}'
        )
        columns = zip(
            range(first, first + len(d)), geometries, d.classes.tolist(),
            scores_of(d).tolist(), d.windows.tolist(), strict=True,
        )  # fmt: skip
        head = '{"type":"Feature","id":' + text(image_id)[:-1]
        return [
            f'{head}/{n}","geometry":{geometry},"properties":{{"detection":"{image_id}/{n}",'
            f'"class":{self._class(c)},"score":{score!r},"window":{window}{tail}'
            for n, geometry, c, score, window in columns
        ]

    def _class(self, index: int) -> str:
        known = self._classes.get(index)
        if known is None:
            known = self._classes[index] = text(self._job.class_name(index))
        return known


def decimals(geo: Georeference, width: int, height: int) -> int:
    """How many decimals an image's degrees have, so that its pixels stay apart."""
    size = gsd_m(geo, width, height)
    if size is None:
        return DECIMALS
    return max(DECIMALS, math.ceil(math.log10(_DEGREE_M * _STEPS_A_PIXEL / size)))


def geometry_texts(
    rings: Floats, digits: int = DECIMALS, wide: Mapping[int, Floats] | None = None
) -> list[str]:
    """The GeoJSON geometry of each ring [n, 5, 2]: Polygon, MultiPolygon or null.

    Args:
        wide: by row, the outlines that stand in for rings (:func:`wide_rings`).
    """
    flat = (np.round(rings, digits) + 0.0).reshape(len(rings), 10)
    texts = [_POLYGON % tuple(row) for row in flat.tolist()]
    for k in np.flatnonzero(crosses(rings)).tolist():
        texts[k] = text(geometry_of(split(rings[k]), digits))
    for k in np.flatnonzero(np.isnan(flat[:, 0])).tolist():
        texts[k] = "null"
    for k, ring in (wide or {}).items():
        texts[k] = text(geometry_of(split(ring), digits))
    return texts


def geometry_of(parts: list[list[Point]], digits: int = DECIMALS) -> dict[str, object] | None:
    """Rings as one GeoJSON geometry, rounded."""
    rings = [[[round(x, digits) + 0.0, round(y, digits) + 0.0] for x, y in p] for p in parts]
    if not rings:
        return None
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings}
    return {"type": "MultiPolygon", "coordinates": [[r] for r in rings]}


_POLYGON = '{"type":"Polygon","coordinates":[[' + ",".join(["[%r,%r]"] * 5) + "]]}"
