"""Boxes as rings on the map: corners through the georeference, counter-clockwise, and what the
antimeridian and the poles make of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from frond.contracts.plan import Georeference
from frond.raster import pixel_to_lonlat, pixel_to_map

Floats = npt.NDArray[np.float64]
Point = tuple[float, float]

_EDGE_POINTS = 16
_WIDE_DEGREES = 90.0
_WIDE_CELLS = 8
_SEAM_DEGREES = 1e-9


def map_rings(geo: Georeference, boxes: Floats) -> Floats:
    """Closed counter-clockwise rings in the georeference's CRS.

    Args:
        boxes: [n, 4] in raster pixels.

    Returns:
        [n, 5, 2] x, y. A box that has no place on the map is all NaN.
    """
    cols, rows = _corners(boxes)
    return _closed(np.stack(pixel_to_map(geo, cols, rows), axis=-1))


def lonlat_rings(geo: Georeference, boxes: Floats) -> Floats | None:
    """The same in longitude and latitude (WGS 84); None where there are none for this image.

    A ring whose longitudes span more than 180° crosses the antimeridian or holds a pole, see
    :func:`crosses` and :func:`split`; or it is so wide, see :func:`wide_rings`.
    """
    cols, rows = _corners(boxes)
    points = pixel_to_lonlat(geo, cols, rows)
    if points is None:
        return None
    lon, lat = points
    with np.errstate(invalid="ignore"):
        beside_first = lon[:, :1] + (lon - lon[:, :1] + 180.0) % 360.0 - 180.0
    return _closed(np.stack([lon, lat], axis=-1), np.stack([beside_first, lat], axis=-1))


def wide_rings(geo: Georeference, boxes: Floats) -> dict[int, Floats]:
    """Outlines, by its row, of each box that has a side of more than 180° of longitude: closed lon/lat
    rings [m, 2] with points along their edges. Between its corners alone such a side would be taken to
    go around the other half of the Earth.

    Args:
        boxes: as of :func:`lonlat_rings`.
    """
    if not len(boxes):
        return {}
    low, size = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    first = low.min(axis=0)
    around = _outline(geo, *first, *(boxes[:, 2:].max(axis=0) - first))
    if around is not None and _reach(around) <= 180.0:
        return {}
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
    towards = np.roll(corners, -1, axis=0) - corners
    # no third of a side is so wide
    shares = (corners[:, None] + towards[:, None] * (np.arange(3) / 3)[:, None]).reshape(-1, 2)
    points = low[:, None] + shares * size[:, None]
    found = pixel_to_lonlat(geo, points[..., 0], points[..., 1])
    if found is None:
        return {}
    with np.errstate(invalid="ignore"):
        steps = (np.roll(found[0], -1, axis=1) - found[0] + 180.0) % 360.0 - 180.0
        sides = np.abs(steps.reshape(-1, 4, 3).sum(axis=2))
    rows = np.flatnonzero((sides > 180.0).any(axis=1)).tolist()
    outlines = {k: _outline(geo, *low[k], *size[k]) for k in rows}
    return {k: ring for k, ring in outlines.items() if ring is not None}


def crosses(rings: Floats) -> npt.NDArray[np.bool_]:
    """Which lon/lat rings cross the antimeridian or hold a pole."""
    lon = rings[:, :, 0]
    return np.asarray(lon.max(axis=1) - lon.min(axis=1) > 180.0)


def split(ring: Sequence[Sequence[float]] | Floats) -> list[list[Point]]:
    """One ring, cut where it meets the antimeridian: closed counter-clockwise rings, each within
    [-180, 180], which together cover the same ground (RFC 7946, 3.1.9). A ring around a pole
    is led along the antimeridian to it.
    """
    points = [(float(x), float(y)) for x, y in ring][:-1]
    steps = _steps([x for x, _ in points])
    unrolled, lon = [], points[0][0]
    for (_, lat), step in zip(points, steps, strict=True):
        unrolled.append((lon, lat))
        lon += step
    if abs(sum(steps)) > 180.0:
        pole = math.copysign(90.0, sum(lat for _, lat in points))
        unrolled += [(lon, points[0][1]), (lon, pole), (points[0][0], pole)]
    west, east = min(x for x, _ in unrolled), max(x for x, _ in unrolled)
    parts = []
    for turn in range(math.floor((west + 180.0) / 360.0), math.floor((east + 180.0) / 360.0) + 1):
        part = _clipped(_clipped(unrolled, 360.0 * turn - 180.0, 1), 360.0 * turn + 180.0, -1)
        part = [(x - 360.0 * turn, y) for x, y in part]
        area = signed_area(part)
        if area:
            ring_out = part if area > 0 else part[::-1]
            parts.append([*ring_out, ring_out[0]])
    if len(parts) > 1 and all_around(west, east):
        polygons = shapely.orient_polygons(joined([shapely.Polygon(p) for p in parts]))
        parts = [[(x, y) for x, y in p.exterior.coords] for p in polygons]
    return parts


def all_around(west: float, east: float) -> bool:
    """Whether what lies between two unrolled longitudes meets itself again."""
    return east - west > 360.0 - _SEAM_DEGREES


def joined(parts: Sequence[shapely.Polygon]) -> list[shapely.Polygon]:
    """Parts that reach all around the globe, without the seam where their ring happened to begin:
    neighbours that share an edge are no valid MultiPolygon."""
    sound = [shapely.make_valid(p, method="structure", keep_collapsed=False) for p in parts]
    whole = shapely.union_all(sound, grid_size=_SEAM_DEGREES)
    return [p for p in shapely.get_parts(whole).tolist() if p.area]


def signed_area(points: Sequence[Point]) -> float:
    """Twice a ring's area in its own units; positive for counter-clockwise."""
    if len(points) < 3:
        return 0.0
    x0, y0 = points[0]
    return math.fsum(
        (a[0] - x0) * (b[1] - y0) - (b[0] - x0) * (a[1] - y0) for a, b in pairwise(points)
    )


def footprint(geo: Georeference, width: int, height: int) -> Floats | None:
    """The image's outline in longitude and latitude: a closed ring [n, 2] with points along its
    edges; None where it has none."""
    return _outline(geo, 0.0, 0.0, width, height)


def _outline(
    geo: Georeference, col: float, row: float, width: float, height: float
) -> Floats | None:
    t = np.arange(_EDGE_POINTS) / _EDGE_POINTS
    cols = np.concatenate([0 * t, t, 0 * t + 1, 1 - t]) * width + col
    rows = np.concatenate([t, 0 * t + 1, 1 - t, 0 * t]) * height + row
    points = pixel_to_lonlat(geo, cols, rows)
    if points is None or not all(np.isfinite(p).all() for p in points):
        return None
    ring = np.stack(points, axis=-1)
    return np.concatenate([ring, ring[:1]])


def area_km2(geo: Georeference, width: int, height: int) -> float | None:
    """The image's ground area on the WGS 84 ellipsoid; None where it has no lon/lat."""
    ring = footprint(geo, width, height)
    if ring is None:
        return None
    # an outline around half the globe does not say which half, and one around all of it is a line
    cells = _WIDE_CELLS if _reach(ring) > _WIDE_DEGREES else 1
    w, h = width / cells, height / cells
    area = 0.0
    for col, row in product(range(cells), range(cells)):
        outline = _outline(geo, col * w, row * h, w, h)
        if outline is None:
            return None
        lon, lat = outline[:-1].T
        area += abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])
    if not math.isfinite(area):
        return None
    # ten digits: what is beyond differs between versions of PROJ
    return float(f"{area / 1e6:.10g}")


def _reach(ring: Floats) -> float:
    """Degrees of longitude that a closed ring spans."""
    unrolled = np.cumsum(_steps(ring[:-1, 0].tolist()))
    return float(np.ptp(unrolled))


def _steps(lon: Sequence[float]) -> list[float]:
    """The short way from each longitude to the next, and from the last to the first."""
    return [(b - a + 180.0) % 360.0 - 180.0 for a, b in pairwise([*lon, lon[0]])]


def _corners(boxes: Floats) -> tuple[Floats, Floats]:
    return boxes[:, [0, 0, 2, 2]], boxes[:, [1, 3, 3, 1]]


def _closed(points: Floats, seen_as: Floats | None = None) -> Floats:
    p = points if seen_as is None else seen_as
    with np.errstate(invalid="ignore"):
        r = p - p[:, :1]
        twice = (r[:, 1, 0] * r[:, 2, 1] - r[:, 2, 0] * r[:, 1, 1]) + (
            r[:, 2, 0] * r[:, 3, 1] - r[:, 3, 0] * r[:, 2, 1]
        )
    points = np.where((twice < 0)[:, None, None], points[:, [0, 3, 2, 1]], points) + 0.0
    points[~np.isfinite(points).all(axis=(1, 2))] = np.nan
    return np.concatenate([points, points[:, :1]], axis=1)


def _clipped(points: list[Point], limit: float, side: int) -> list[Point]:
    """Sutherland and Hodgman against one meridian: what lies at side·lon ≥ side·limit."""
    kept: list[Point] = []
    for a, b in zip(points, [*points[1:], *points[:1]], strict=True):
        inside_a, inside_b = side * a[0] >= side * limit, side * b[0] >= side * limit
        if inside_a:
            kept.append(a)
        if inside_a != inside_b:
            share = (limit - a[0]) / (b[0] - a[0])
            kept.append((limit, a[1] + share * (b[1] - a[1])))
    return kept
