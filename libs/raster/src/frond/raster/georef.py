"""From pixels to the map: affine, GCPs and RPCs; to lon/lat; and how large a pixel is.

Pixel coordinates are those of corners: (0, 0) is the upper left corner of the upper left pixel,
(0.5, 0.5) its centre. GDAL has already moved PixelIsPoint rasters by half a pixel; nothing here
does so again.
"""

from __future__ import annotations

import atexit
import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import ArrayLike, NDArray
from pyproj.enums import WktVersion
from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.rpc import RPC
from rasterio.transform import AffineTransformer, GCPTransformer, RPCTransformer

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import Georeference
from frond.contracts.reasons import Reason
from frond.raster.open import Dataset

Floats = NDArray[np.float64]

_EARTH_RADIUS_M = 6_378_137.0
_A_LINE = 1e-6
"""As wide as that, in its length, points are taken to lie on one line."""
_BEYOND_POLE_DEGREES = 5.0
"""Half a pixel of a coarse global grid; what lies farther beyond is no latitude."""
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def read_georeference(dataset: Dataset) -> tuple[Georeference, tuple[str, ...]]:
    """How the file says that it lies on the map, and notes a user should see.

    A geotransform goes before GCPs, and these before RPCs. No georeference is fine (``none``).

    Raises:
        RasterRejected: BAD_GEOREFERENCE, the geotransform has no area or is not finite.
    """
    notes: list[str] = []
    crs = _crs_of(dataset.crs, notes)
    transform = tuple(float(v) for v in dataset.transform[:6])
    # the identity is what GDAL says of a file that has no geotransform
    if transform != _IDENTITY:
        if not _is_usable(transform):
            raise RasterRejected(
                Reason.BAD_GEOREFERENCE,
                f"The geotransform {transform} gives pixels no area on the map. "
                "Write the georeference again, for example with gdal_edit.py -a_ullr.",
            )
        if crs is None:
            notes.append("no CRS: map coordinates are in units unknown, no GeoJSON is written")
        return Georeference(kind="affine", crs=crs, transform=transform), tuple(notes)
    points, gcp_crs = dataset.gcps
    if points:
        if len(points) < 3:
            notes.append(f"only {len(points)} GCPs: too few for a georeference")
        elif not all(math.isfinite(v) for p in points for v in (p.row, p.col, p.x, p.y)):
            notes.append("the GCPs are damaged and are left out")
        else:
            found = Georeference(
                kind="gcps",
                crs=_crs_of(gcp_crs, notes),
                gcps=tuple(
                    (float(p.row), float(p.col), float(p.x), float(p.y), float(p.z or 0.0))
                    for p in points
                ),
            )
            if _is_solvable(found, 0.0, 0.0):
                return found, tuple(notes)
            notes.append("the GCPs lie on one line or on one point, and are left out")
    rpcs = None if dataset.rpcs is None else dataset.rpcs.to_dict()
    if rpcs is not None:
        terms = {k: v for k, v in rpcs.items() if v is not None}
        if _is_finite(terms.values()):
            found = Georeference(kind="rpcs", crs="EPSG:4326", rpcs=terms)
            if _is_solvable(found, dataset.width / 2, dataset.height / 2):
                notes.append("georeferenced by RPCs at their mean height, without a terrain model")
                return found, tuple(notes)
        notes.append("the RPCs are damaged and are left out")
    if crs is not None and not points:
        notes.append(
            "a CRS but no geotransform: it is not known where the image lies; write it into the "
            "file, for example with gdal_edit.py -a_ullr"
        )
    notes.append("no georeference: results are in pixels only")
    return Georeference(), tuple(notes)


def _is_finite(values: Iterable[Any]) -> bool:
    return all(
        _is_finite(v)
        if isinstance(v, list | tuple)
        else not isinstance(v, float) or math.isfinite(v)
        for v in values
    )


def _is_usable(t: tuple[float, ...]) -> bool:
    det = t[0] * t[4] - t[1] * t[3]
    return all(math.isfinite(v) for v in t) and det != 0 and math.isfinite(det)


def _is_solvable(geo: Georeference, col: float, row: float) -> bool:
    """Whether GCPs or RPCs give a pixel a place."""
    try:
        x, y = pixel_to_map(geo, [col], [row])
    except (CPLE_BaseError, RasterioError, ValueError):
        return False
    return bool(np.isfinite(x).all() and np.isfinite(y).all())


def _crs_of(crs: Any, notes: list[str]) -> str | None:
    if not crs:
        return None
    try:
        return crs_text(crs.to_wkt())
    except (CRSError, ProjError, ValueError, TypeError) as e:
        notes.append(f"the CRS could not be understood and is left out ({str(e)[:100]})")
        return None


# what PROJ takes from a CRS as the name of a grid, and opens: a path is no business of a raster's.
# Whole WKT strings, in which a quote is doubled; and the same said as a PROJ string
_TEXT = r'"(?:[^"]|"")*"'
_PATH = r'"(?:[^"]|"")*[/\\](?:[^"]|"")*"'
_NAMES_A_FILE = re.compile(
    rf"(?:EXTENSION|PARAMETERFILE)\s*[\[(]\s*{_TEXT}\s*,\s*{_PATH}"
    rf"|PARAMETERFILE\s*[\[(]\s*{_PATH}"
    r"|PROJ-based[^\"]*[/\\]|grids\s*=\s*\S*[/\\]",
    re.IGNORECASE,
)


def _require_no_file(crs: str) -> None:
    if _NAMES_A_FILE.search(crs):
        raise CRSError("it names a file of a grid")


@lru_cache(maxsize=256)
def crs_text(wkt: str) -> str:
    """``EPSG:n`` where the CRS is exactly one of EPSG's but for axis order, else its WKT2.

    Raises:
        CRSError: PROJ does not know what it says, or it names a file.
    """
    _require_no_file(wkt)
    crs = pyproj.CRS.from_user_input(wkt)
    code = crs.to_epsg(min_confidence=70)
    if code is not None and crs.equals(pyproj.CRS.from_epsg(code), ignore_axis_order=True):
        return f"EPSG:{code}"
    return crs.to_wkt(WktVersion.WKT2_2019) or wkt


def pixel_to_map(geo: Georeference, cols: ArrayLike, rows: ArrayLike) -> tuple[Floats, Floats]:
    """Map coordinates, in the georeference's CRS, of points in pixel coordinates.

    Args:
        cols, rows: float arrays of one shape; corner coordinates (see the module).

    Returns:
        x and y, float64, shaped as the input. For ``none`` the pixel coordinates themselves.
    """
    c, r = np.broadcast_arrays(np.asarray(cols, np.float64), np.asarray(rows, np.float64))
    if geo.kind == "affine" and geo.transform is not None:
        a, b, x0, d, e, y0 = geo.transform
        with np.errstate(over="ignore", invalid="ignore"):
            return a * c + b * r + x0, d * c + e * r + y0
    if geo.kind == "none" or c.size == 0:
        return c.copy(), r.copy()
    transformer, z = _transformer(geo.model_dump_json(include={"kind", "crs", "gcps", "rpcs"}))
    flat_c, flat_r = c.ravel(), r.ravel()
    zs = np.full(flat_c.shape, z)
    x, y = transformer.xy(flat_r, flat_c, zs=zs, offset="ul")
    return np.asarray(x, np.float64).reshape(c.shape), np.asarray(y, np.float64).reshape(c.shape)


@lru_cache(maxsize=64)
def _transformer(key: str) -> tuple[Any, float]:
    geo = Georeference.model_validate_json(key)
    if geo.kind == "gcps":
        east = _eastwards([x for _, _, x, _, _ in geo.gcps], geo.crs)
        points = [
            GroundControlPoint(row=r, col=c, x=x, y=y, z=z)
            for (r, c, _, y, z), x in zip(geo.gcps, east, strict=True)
        ]
        return _fitted(points), 0.0
    # a term that the file leaves out is None to rasterio
    rpc = RPC(**{"err_bias": None, "err_rand": None, **(geo.rpcs or {})})
    return RPCTransformer(rpc), float(rpc.height_off or 0.0)


def _fitted(points: list[GroundControlPoint]) -> Any:
    """GDAL's polynomial through GCPs; its degree goes by how many there are, and where they lie in too
    few rows or columns for that, a plane.

    Raises:
        ValueError: they lie on one line, in the image or on the map.
    """
    pixels = np.array([(p.col, p.row) for p in points])
    places = np.array([(p.x, p.y) for p in points])
    # GDAL notices only what does not differ from a line by a rounding error
    if _on_a_line(pixels) or _on_a_line(places):
        raise ValueError("the GCPs lie on one line")
    try:
        return GCPTransformer(points)
    except CPLE_BaseError:
        # rasterio's own from_gcps gives whatever lay in memory where there is no plane
        sides = np.column_stack([np.ones(len(pixels)), pixels])
        plane, *_ = np.linalg.lstsq(sides, places)
        (x0, y0), (a, d), (b, e) = plane.tolist()
        return AffineTransformer(Affine(a, b, x0, d, e, y0))


def _on_a_line(points: Floats) -> bool:
    along, across = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(across <= _A_LINE * along)


def _eastwards(longitudes: list[float], crs: str | None) -> list[float]:
    """GCPs' x without the jump at the antimeridian, over which no polynomial is fitted: as GDAL does
    by ``GCP_ANTIMERIDIAN_UNWRAP`` in its own transformer, which rasterio's goes around.

    An image is taken to cross it where its GCPs lie closer together that way; one that goes around the
    whole Earth stays as it is.
    """
    shifted = [x + 360.0 if x < 0 else x for x in longitudes]
    spans = [max(xs) - min(xs) for xs in (longitudes, shifted)]
    if not (spans[0] > 180.0 > spans[1] > 0.0) or crs is None:
        return longitudes
    try:
        degrees = pyproj.CRS.from_user_input(crs).is_geographic
    except CRSError:
        degrees = False
    return shifted if degrees else longitudes


# a transformer that is freed with the interpreter already half gone says so on stderr
atexit.register(_transformer.cache_clear)


def has_lonlat(geo: Georeference) -> bool:
    """Whether points can be told in longitude and latitude of the Earth."""
    return geo.kind != "none" and geo.crs is not None and _lonlat(geo.crs) is not None


def pixel_to_lonlat(
    geo: Georeference, cols: ArrayLike, rows: ArrayLike
) -> tuple[Floats, Floats] | None:
    """Longitude and latitude (WGS 84, degrees) of points in pixel coordinates.

    Returns:
        Two float64 arrays shaped as the input, inf where the CRS is not defined; longitudes in
        [-180, 180], latitudes in [-90, 90]. What lies beyond a pole by less than a coarse global
        grid's pixel is at the pole: such grids have their outermost pixels' centres there. None where there is no georeference, no CRS, or it is not one of the Earth.
    """
    if geo.kind == "none" or geo.crs is None:
        return None
    transformer = _lonlat(geo.crs)
    if transformer is None:
        return None
    x, y = pixel_to_map(geo, cols, rows)
    lon, lat = transformer.transform(x, y)
    lon, lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    with np.errstate(invalid="ignore"):
        over = np.isfinite(lon) & (np.abs(lon) > 180.0)
        lon = np.where(over, (lon + 180.0) % 360.0 - 180.0, lon)
        nowhere = np.abs(lat) > 90.0 + _BEYOND_POLE_DEGREES
    return np.where(nowhere, np.inf, lon), np.where(nowhere, np.inf, np.clip(lat, -90.0, 90.0))


@lru_cache(maxsize=256)
def _lonlat(crs: str) -> pyproj.Transformer | None:
    try:
        # a plan may be older than what is refused now
        _require_no_file(crs)
        source = pyproj.CRS.from_user_input(crs)
        ellipsoid = source.ellipsoid
        if ellipsoid is None or abs(ellipsoid.semi_major_metre / _EARTH_RADIUS_M - 1) > 0.01:
            return None
        if source.is_bound is False and source.is_engineering:
            return None
        return pyproj.Transformer.from_crs(source, "OGC:CRS84", always_xy=True)
    except (CRSError, ProjError):
        return None


def gsd_m(geo: Georeference, width: int, height: int) -> float | None:
    """Ground metres a pixel at the image's centre; None where that cannot be known.

    The square root of a pixel's area on the WGS 84 ellipsoid, so that anisotropic, sheared and
    Web-Mercator pixels get their true size. Where there is no longitude and latitude (Mars), the
    CRS's unit and the geotransform decide.
    """
    if geo.kind == "none" or geo.crs is None:
        return None
    size = _ground_size(geo, width / 2, height / 2)
    if size is None and geo.kind == "affine" and geo.transform is not None:
        size = _nominal_size(geo)
    if size is None or not math.isfinite(size) or size <= 0:
        return None
    # nine digits: more are noise of the projection, and the scale goes into ids
    return float(f"{size:.9g}")


def _ground_size(geo: Georeference, col: float, row: float) -> float | None:
    step = 0.5
    lonlat = pixel_to_lonlat(
        geo, [col - step, col + step, col, col], [row, row, row - step, row + step]
    )
    if lonlat is None or not (np.isfinite(lonlat[0]).all() and np.isfinite(lonlat[1]).all()):
        return None
    lon, lat = lonlat
    if np.abs(lat).max() > 89.99:
        return None
    azimuth, _, distance = pyproj.Geod(ellps="WGS84").inv(
        lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]]
    )
    angle = math.radians(float(azimuth[1]) - float(azimuth[0]))
    return math.sqrt(abs(float(distance[0]) * float(distance[1]) * math.sin(angle)))


def _nominal_size(geo: Georeference) -> float | None:
    assert geo.transform is not None and geo.crs is not None
    try:
        crs = pyproj.CRS.from_user_input(geo.crs)
    except CRSError:
        return None
    if not crs.axis_info or crs.is_engineering:
        return None
    a, b, _, d, e, _ = geo.transform
    side = math.sqrt(abs(a * e - b * d))
    if crs.is_geographic:
        radius = crs.ellipsoid.semi_major_metre if crs.ellipsoid else _EARTH_RADIUS_M
        return math.radians(side) * radius
    return side * float(crs.axis_info[0].unit_conversion_factor)
