"""GeoParquet 1.1: one row a detection, in pixels and on the map.

The file is in the rasters' own CRS where all its georeferenced images share one, else in
longitude and latitude (OGC:CRS84, cut at the antimeridian). Rows of images that have no place in
the file's CRS keep their pixel columns and have a null geometry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely
from pyproj.exceptions import CRSError

from frond.artifacts.common import CountingSink, ImageResult, JobInfo, Part, scores_of
from frond.artifacts.geometry import (
    Floats,
    crosses,
    lonlat_rings,
    map_rings,
    split,
    wide_rings,
)
from frond.artifacts.regions import Shapes, lonlat_shapes, map_shapes, wkb
from frond.contracts.jobs import ImageOutcome, ImageStatus
from frond.contracts.plan import Georeference
from frond.masks.table import Polygons

ROWS_A_GROUP: Final = 65_536
POINTS_A_GROUP: Final = 2_097_152
_TABLES: Final = 512
CRS84: Final = "OGC:CRS84"

_BOX = pa.struct([(k, pa.float64()) for k in ("xmin", "ymin", "xmax", "ymax")])
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()), ("image", pa.string()), ("image_id", pa.string()),
        ("class", pa.string()), ("class_id", pa.int32()), ("score", pa.float64()),
        ("x0", pa.float64()), ("y0", pa.float64()), ("x1", pa.float64()), ("y1", pa.float64()),
        ("window", pa.int64()), ("image_checksum", pa.string()), ("plan_digest", pa.string()),
        ("model", pa.string()), ("model_version", pa.string()), ("model_digest", pa.string()),
        ("geometry", pa.binary()), ("bbox", _BOX),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class FileCrs:
    """Which CRS a file is in. ``lonlat``: OGC:CRS84; else ``crs``, None meaning unknown."""

    lonlat: bool
    crs: str | None = None

    @classmethod
    def of_job(cls, outcomes: Iterable[ImageOutcome]) -> FileCrs:
        """That of all completed images, if they have one in common."""
        found: set[str] = set()
        for o in outcomes:
            if o.status is ImageStatus.COMPLETED and o.crs is not None:
                found.add(o.crs)
                if len(found) > 1:
                    return cls(lonlat=True)
        return cls(lonlat=False, crs=found.pop()) if found else cls(lonlat=True)

    @classmethod
    def of_image(cls, result: ImageResult) -> FileCrs:
        """The image's own, which may be an unknown one."""
        geo = result.plan.georeference if result.plan else None
        if geo is None or geo.kind == "none":
            return cls(lonlat=True)
        return cls(lonlat=False, crs=geo.crs)

    def rings(self, geo: Georeference, boxes: Floats) -> Floats | None:
        """Boxes in this CRS; None where the image has no place in it."""
        if geo.kind == "none":
            return None
        if self.lonlat:
            return lonlat_rings(geo, boxes)
        return map_rings(geo, boxes) if geo.crs == self.crs else None

    def wide(self, geo: Georeference, boxes: Floats) -> dict[int, Floats]:
        """Outlines that stand in for some of these rings."""
        return wide_rings(geo, boxes) if self.lonlat else {}

    def shapes(self, geo: Georeference, regions: Polygons) -> Shapes | None:
        """Regions in this CRS; None where the image has no place in it."""
        if geo.kind == "none":
            return None
        if self.lonlat:
            return lonlat_shapes(geo, regions)
        return map_shapes(geo, regions) if geo.crs == self.crs else None

    def projjson(self) -> dict[str, Any] | None:
        if not self.lonlat and self.crs is None:
            return None
        try:
            crs = pyproj.CRS.from_user_input(CRS84 if self.lonlat else self.crs)
            return dict(crs.to_json_dict())
        except (CRSError, ValueError):
            return None


class GeoParquet:
    """Writes ``detections.parquet``. Holds at most one row group of small images.

    Args:
        image: the only one, where the file is an image's.
    """

    def __init__(
        self, sink: CountingSink, job: JobInfo, crs: FileCrs, image: ImageResult | None = None
    ) -> None:
        self._job = job
        self._about = job.describe(image)
        self._crs = crs
        self._writer = pq.ParquetWriter(
            pa.PythonFile(sink, "w"), SCHEMA, compression="zstd", store_schema=False,
            use_dictionary=["image", "image_id", "class", "image_checksum", "plan_digest", "model",
                            "model_version", "model_digest"],
            write_page_index=False,
        )  # fmt: skip
        self._waiting: list[pa.Table] = []
        self._packed: list[pa.Table] = []
        self._rows = self._points = 0
        self._kinds: set[str] = set()
        self._bounds: list[float] | None = None

    def add(self, result: ImageResult) -> None:
        if not result.completed:
            return
        for part in result.slices():
            self._waiting.append(self._table(result, part))
            if len(self._waiting) >= _TABLES:
                self._pack()
            self._rows += len(part.detections)
            self._points += len(part.regions.points) if part.regions is not None else 0
            if self._rows >= ROWS_A_GROUP or self._points >= POINTS_A_GROUP:
                self._flush()

    def _pack(self) -> None:
        """Make one table of many: a table of one row takes ten times what is in it."""
        self._packed.append(pa.concat_tables(self._waiting).combine_chunks())
        self._waiting = []

    def _flush(self) -> None:
        if self._rows:
            table = pa.concat_tables([*self._packed, *self._waiting]).combine_chunks()
            self._writer.write_table(table, row_group_size=2 * ROWS_A_GROUP)
        self._packed, self._waiting, self._rows, self._points = [], [], 0, 0

    def _table(self, result: ImageResult, part: Part) -> pa.Table:
        first, d, regions = part
        n = len(d)
        outcome, model = result.outcome, self._job.model
        geo = result.plan.georeference if result.plan else Georeference()
        if regions is None:
            geometry, bbox = self._geometry(
                self._crs.rings(geo, d.boxes), self._crs.wide(geo, d.boxes), n
            )
        else:
            geometry, bbox = self._shapes(self._crs.shapes(geo, regions), n)

        def repeated(value: str | None) -> pa.Array:
            return pa.repeat(pa.scalar(value, pa.string()), n)

        image_id = repeated(outcome.image_id)
        numbers = pa.array(np.arange(first, first + n)).cast(pa.string())
        return pa.table(
            [
                pc.binary_join_element_wise(image_id, numbers, "/"),
                repeated(outcome.name), image_id,
                pa.array([self._job.class_name(c) for c in d.classes.tolist()], pa.string()),
                pa.array(d.classes), pa.array(scores_of(d)),
                *(pa.array(np.ascontiguousarray(d.boxes[:, k])) for k in range(4)),
                pa.array(d.windows), *map(repeated, result.traced.values()),
                repeated(model.name if model else None),
                repeated(model.version if model else None),
                repeated(model.digest if model else None),
                geometry, bbox,
            ],
            schema=SCHEMA,
        )  # fmt: skip

    def _geometry(
        self, rings: Floats | None, wide: dict[int, Floats], n: int
    ) -> tuple[pa.Array, pa.Array]:
        if rings is None:
            return pa.nulls(n, pa.binary()), pa.nulls(n, _BOX)
        placed = np.isfinite(rings[:, 0, 0])
        cut = crosses(rings) & placed if self._crs.lonlat else np.zeros(n, dtype=bool)
        low, high = rings.min(axis=1), rings.max(axis=1)
        outlines = {k: rings[k] for k in np.flatnonzero(cut).tolist()} | wide
        parts = {k: split(ring) for k, ring in outlines.items()}
        for k, rings_out in parts.items():
            # one that only touches the antimeridian is still in one piece
            cut[k], placed[k] = len(rings_out) > 1, bool(rings_out)
            if rings_out:
                points = np.concatenate(rings_out)
                low[k], high[k] = points.min(axis=0), points.max(axis=0)
        self._note(low[placed], high[placed], cut[placed])
        bbox = _boxes(low, high, placed)
        geometry = polygons(rings, placed)
        if not parts:
            return geometry, bbox
        values = geometry.to_pylist()
        for k, rings_out in parts.items():
            values[k] = _wkb(rings_out)
        return pa.array(values, pa.binary()), bbox

    def _shapes(self, shapes: Shapes | None, n: int) -> tuple[pa.Array, pa.Array]:
        if shapes is None:
            return pa.nulls(n, pa.binary()), pa.nulls(n, _BOX)
        kinds, bounds = shapely.get_type_id(shapes), shapely.bounds(shapes)
        placed, cut = kinds >= 0, kinds == shapely.GeometryType.MULTIPOLYGON
        self._note(bounds[placed, :2], bounds[placed, 2:], cut[placed])
        return wkb(shapes), _boxes(bounds[:, :2], bounds[:, 2:], placed)

    def _note(self, low: Floats, high: Floats, cut: npt.NDArray[np.bool_]) -> None:
        if not len(low):
            return
        if cut.any():
            self._kinds.add("MultiPolygon")
        if not cut.all():
            self._kinds.add("Polygon")
        now = [*low.min(axis=0).tolist(), *high.max(axis=0).tolist()]
        old = self._bounds
        self._bounds = (
            now if old is None
            else [*map(min, old[:2], now[:2]), *map(max, old[2:], now[2:])]
        )  # fmt: skip

    def finish(self) -> None:
        self._flush()
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self._kinds),
            "crs": self._crs.projjson(),
            "orientation": "counterclockwise",
            "edges": "planar",
            "covering": {
                "bbox": {k: ["bbox", k] for k in ("xmin", "ymin", "xmax", "ymax")},
            },
        }
        if self._bounds is not None:
            column["bbox"] = self._bounds
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        self._writer.add_key_value_metadata(
            {"geo": json.dumps(geo, sort_keys=True), "frond": json.dumps(self._about)}
        )
        self._writer.close()


def _boxes(low: Floats, high: Floats, placed: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.StructArray.from_arrays(
        [pa.array(c) for c in (low[:, 0], low[:, 1], high[:, 0], high[:, 1])],
        fields=list(_BOX), mask=pa.array(~placed),
    )  # fmt: skip


_POLYGON = np.dtype(
    [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)


def polygons(rings: Floats, placed: npt.NDArray[np.bool_]) -> pa.Array:
    """WKB polygons (ISO, little-endian) of closed rings [n, 5, 2]; null where not ``placed``."""
    n = len(rings)
    rows = np.zeros(n, dtype=_POLYGON)
    rows["order"], rows["kind"], rows["rings"], rows["points"] = 1, 3, 1, 5
    rows["xy"] = np.where(placed[:, None, None], rings, 0.0)
    offsets = np.arange(n + 1, dtype=np.int32) * _POLYGON.itemsize
    whole = pa.Array.from_buffers(
        pa.binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(rows.tobytes())]
    )
    return (
        whole if placed.all() else pc.if_else(pa.array(placed), whole, pa.scalar(None, pa.binary()))
    )


def _wkb(parts: list[list[tuple[float, float]]]) -> bytes | None:
    if not parts:
        return None
    rings = [shapely.Polygon(p) for p in parts]
    shape = rings[0] if len(rings) == 1 else shapely.MultiPolygon(rings)
    return bytes(shapely.to_wkb(shape, byte_order=1, flavor="iso"))
