"""Regions as shapes on the map: polygons with holes, exterior rings counter-clockwise, holes
clockwise, and what the antimeridian and the poles make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from frond.artifacts.common import SLICE_POINTS, blocks
from frond.artifacts.geometry import Floats, all_around, joined
from frond.contracts.plan import Georeference
from frond.masks.table import Polygons
from frond.raster import pixel_to_lonlat, pixel_to_map

Shapes = npt.NDArray[np.object_]
"""Shapely's polygons, None where a region has no place."""

_POLYGON: Final = shapely.GeometryType.POLYGON

_EDGE_PIXELS: Final = 64
"""A raster's straight edge is a curve in longitude and latitude, and wherever GCPs or RPCs lead. Edges of this length keep to it by far
less than a pixel where pixels are of some hundred metres and the poles are far."""
_BENT_PIXELS: Final = 0.1
"""What is farther from the curve in its middle is halved, and its halves are looked at in turn."""
_HALVINGS: Final = 8

Bent = Callable[[Georeference, Floats, Floats], npt.NDArray[np.bool_]]
"""Which edges, between these points of the raster, leave it in their middle where they are straight
on the map."""


def map_shapes(geo: Georeference, regions: Polygons) -> Shapes:
    """In the georeference's CRS."""
    if geo.kind in ("gcps", "rpcs"):
        regions = _with_short_edges(geo, regions, _bent_on_map)
    points = np.stack(pixel_to_map(geo, regions.points[:, 0], regions.points[:, 1]), axis=-1)
    shapes, _ = _shapes(points, regions)
    return oriented(shapes)


def lonlat_shapes(geo: Georeference, regions: Polygons) -> Shapes | None:
    """In longitude and latitude (WGS 84), cut at the antimeridian; None where there are none for
    this image."""
    regions = _with_short_edges(geo, regions, _bent_in_lonlat)
    found = pixel_to_lonlat(geo, regions.points[:, 0], regions.points[:, 1])
    if found is None:
        return None
    shapes, placed = _shapes(np.stack(found, axis=-1), regions)
    if len(shapes):
        begins = _begins(regions)
        with np.errstate(invalid="ignore"):
            lon = found[0]
            span = np.maximum.reduceat(lon, begins) - np.minimum.reduceat(lon, begins)
        for k in np.flatnonzero(placed & (span > 180.0)).tolist():
            shapes[k] = cut(shapes[k])
    return oriented(shapes)


def oriented(shapes: Shapes) -> Shapes:
    """Exterior rings counter-clockwise, holes clockwise."""
    return np.asarray(shapely.orient_polygons(shapes, exterior_cw=False), dtype=object)


def cut(polygon: shapely.Polygon) -> shapely.Geometry | None:
    """A lon/lat polygon, cut where it meets the antimeridian: parts within [-180, 180] which
    together cover the same ground (RFC 7946, 3.1.9); None where nothing is left.

    A ring around a pole is led along the antimeridian to it.
    """
    shell = _unrolled(polygon.exterior.coords)
    begin, end = shell[:, 0].min(), shell[:, 0].max()
    whole = _valid(shapely.Polygon(shell))
    for ring in polygon.interiors:
        hole = _unrolled(ring.coords)
        # beside its own shell, not a turn further on
        hole[:, 0] += 360.0 * np.rint(((begin + end) / 2 - hole[:, 0].mean()) / 360.0)
        # of a shell around a pole it may lie on both ends, or be around the pole from elsewhere on
        for turn in (-1, 0, 1):
            turned = hole + np.array([360.0 * turn, 0.0])
            if turned[:, 0].min() < end and turned[:, 0].max() > begin:
                whole = shapely.difference(whole, _valid(shapely.Polygon(turned)))
    west, _, east, _ = shapely.bounds(whole).tolist()
    if not math.isfinite(west):
        return None
    parts: list[Any] = []
    for turn in range(math.floor((west + 180.0) / 360.0), math.floor((east + 180.0) / 360.0) + 1):
        span = shapely.box(360.0 * turn - 180.0, -90.0, 360.0 * turn + 180.0, 90.0)
        for part in shapely.get_parts(shapely.intersection(whole, span)):
            if shapely.get_type_id(part) == _POLYGON and part.area:
                parts.append(shapely.transform(part, lambda p, t=turn: _turned(p, t)))
    if not parts:
        return None
    if len(parts) > 1 and all_around(west, east):
        parts = joined(parts)
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)


def wkb(shapes: Shapes) -> pa.Array:
    """WKB (ISO, little-endian); null where there is no shape."""
    return pa.array(shapely.to_wkb(shapes, byte_order=1, flavor="iso"), pa.binary())


def geojson_texts(shapes: Shapes, decimals: int) -> list[str]:
    """The GeoJSON geometry of each shape: Polygon, MultiPolygon or null."""
    texts = ["null"] * len(shapes)
    kinds = shapely.get_type_id(shapes)
    plain = np.flatnonzero(kinds == _POLYGON)
    for k, rings in zip(plain.tolist(), _rings_texts(shapes[plain], decimals), strict=True):
        texts[k] = f'{{"type":"Polygon","coordinates":{rings}}}'
    for k in np.flatnonzero(kinds == shapely.GeometryType.MULTIPOLYGON).tolist():
        parts = ",".join(_rings_texts(shapely.get_parts(shapes[k]), decimals))
        texts[k] = f'{{"type":"MultiPolygon","coordinates":[{parts}]}}'
    return texts


def _rings_texts(polygons: Any, decimals: int) -> list[str]:
    if not len(polygons):
        return []
    _, points, (rings, shells) = shapely.to_ragged_array(polygons)
    texts = [_pairs(points[a:b], decimals) for a, b in pairwise(rings.tolist())]
    return ["[[" + "],[".join(texts[a:b]) + "]]" for a, b in pairwise(shells.tolist())]


def _pairs(points: Floats, decimals: int) -> str:
    # as Python numbers, a point takes eight times the memory of its text
    return ",".join(
        ",".join([f"[{x!r},{y!r}]" for x, y in (np.round(part, decimals) + 0.0).tolist()])
        for part in blocks(points)
    )


def _with_short_edges(geo: Georeference, regions: Polygons, is_bent: Bent) -> Polygons:
    """The same regions, with points along edges that are long, or bent."""
    along = _edges(regions)
    regions, edges = _divided(regions, np.ceil(np.abs(along).max(axis=1) / _EDGE_PIXELS))
    doubtful = np.flatnonzero(_edges(regions).any(axis=1))
    for _ in range(_HALVINGS):
        bent = doubtful[_bent(geo, regions, doubtful, is_bent)]
        if not len(bent):
            break
        halved = np.ones(len(regions.points))
        halved[bent] = 2
        regions, edges = _divided(regions, halved)
        doubtful = np.flatnonzero(np.isin(edges, bent))
    return regions


def _edges(regions: Polygons) -> Floats:
    """What leads from each point to the next; nothing from the last of a ring."""
    along = np.diff(regions.points, axis=0, append=regions.points[-1:])
    along[np.asarray(regions.rings)[1:] - 1] = 0.0
    return along


def _divided(regions: Polygons, pieces: npt.NDArray[Any]) -> tuple[Polygons, npt.NDArray[np.int64]]:
    """The same regions, each edge in so many equal pieces, and of which edge each of them is."""
    points, along = regions.points, _edges(regions)
    counts = np.maximum(pieces, 1).astype(np.int64)
    ends = np.append(0, np.cumsum(counts))
    edge = np.repeat(np.arange(len(points)), counts)
    if ends[-1] == len(points):
        return regions, edge
    share = (np.arange(ends[-1]) - ends[edge]) / counts[edge]
    whole = points[edge] + share[:, None] * along[edge]
    return replace(regions, points=whole, rings=ends[np.asarray(regions.rings)]), edge


def _bent(
    geo: Georeference, regions: Polygons, edges: npt.NDArray[np.int64], is_bent: Bent
) -> npt.NDArray[np.bool_]:
    """Which of these edges are bent, looked at a slice at a time."""
    parts = [
        is_bent(geo, regions.points[part], regions.points[part + 1])
        for part in (edges[k : k + SLICE_POINTS] for k in range(0, len(edges), SLICE_POINTS))
    ]
    return np.concatenate([np.zeros(0, np.bool_), *parts])


def _bent_on_map(geo: Georeference, begin: Floats, end: Floats) -> npt.NDArray[np.bool_]:
    along = end - begin
    across = along[:, ::-1] * [-1.0, 1.0] / np.hypot(*along.T)[:, None]
    middle = (begin + end) / 2
    points = np.concatenate([begin, middle, end, middle + across])
    x, y = (v.reshape(4, -1) for v in pixel_to_map(geo, points[:, 0], points[:, 1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        (mx, ex), (my, ey) = x[1:3] - x[0], y[1:3] - y[0]
        # beside the edge's middle, one pixel away: the map's units may differ from axis to axis
        px, py = x[3] - x[1], y[3] - y[1]
        pixels = np.abs((mx * ey - my * ex) / (px * ey - py * ex))
    return np.asarray(pixels > _BENT_PIXELS)


def _bent_in_lonlat(geo: Georeference, begin: Floats, end: Floats) -> npt.NDArray[np.bool_]:
    points = np.concatenate([begin, (begin + end) / 2, end])
    found = pixel_to_lonlat(geo, points[:, 0], points[:, 1])
    if found is None:
        return np.zeros(len(begin), np.bool_)
    lon, lat = (v.reshape(3, -1) for v in found)
    with np.errstate(invalid="ignore", divide="ignore"):
        # to the edge's middle and to its end, in degrees of latitude
        shrink = np.cos(np.radians(lat[1]))
        (mx, ex) = ((lon[1:] - lon[0] + 180.0) % 360.0 - 180.0) * shrink
        (my, ey) = lat[1:] - lat[0]
        # along the edge the middle may lie where it likes
        share = np.abs(mx * ey - my * ex) / (ex * ex + ey * ey)
        pixels = share * np.hypot(*(end - begin).T)
    return np.asarray(pixels > _BENT_PIXELS)


def _begins(regions: Polygons) -> npt.NDArray[np.int64]:
    """Each region's first point."""
    return np.asarray(regions.rings)[np.asarray(regions.polygons)[:-1]]


def _shapes(points: Floats, regions: Polygons) -> tuple[Shapes, npt.NDArray[np.bool_]]:
    """Regions over other points, and which of them have a place for every one."""
    if not len(regions):
        return np.empty(0, dtype=object), np.empty(0, dtype=bool)
    finite = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1])
    placed = np.logical_and.reduceat(finite, _begins(regions))
    whole = np.where(finite[:, None], points, 0.0) + 0.0
    offsets = (np.asarray(regions.rings), np.asarray(regions.polygons))
    shapes = np.asarray(shapely.from_ragged_array(_POLYGON, whole, offsets), dtype=object)
    shapes[~placed] = None
    return shapes, placed


def _unrolled(ring: Any) -> Floats:
    """A closed ring whose longitudes go on beyond ±180 instead of jumping."""
    points = np.asarray(ring, dtype=np.float64)[:-1, :2]
    steps = (np.diff(np.append(points[:, 0], points[0, 0])) + 180.0) % 360.0 - 180.0
    lon = points[0, 0] + np.concatenate([[0.0], np.cumsum(steps)])
    open_ring = np.stack([lon[:-1], points[:, 1]], axis=-1)
    if abs(lon[-1] - lon[0]) > 180.0:
        pole = math.copysign(90.0, float(points[:, 1].sum()))
        way = [(lon[-1], points[0, 1]), (lon[-1], pole), (lon[0], pole)]
        open_ring = np.concatenate([open_ring, np.array(way)])
    return np.concatenate([open_ring, open_ring[:1]])


def _valid(shape: Any) -> Any:
    return shape if shapely.is_valid(shape) else shapely.make_valid(shape)


def _turned(points: Floats, turn: int) -> Floats:
    return np.stack([np.clip(points[:, 0] - 360.0 * turn, -180.0, 180.0), points[:, 1]], axis=-1)
