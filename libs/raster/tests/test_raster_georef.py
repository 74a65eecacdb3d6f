from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from pyproj.exceptions import CRSError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import Georeference
from frond.contracts.reasons import Reason
from frond.raster import (
    RasterInfo,
    gsd_m,
    has_lonlat,
    inspect,
    open_raster,
    pixel_to_lonlat,
    pixel_to_map,
)
from frond.raster.georef import crs_text

Make = Callable[..., Path]
Scene = Callable[..., np.ndarray]


def facts(path: Path) -> RasterInfo:
    with open_raster(str(path)) as ds:
        return inspect(ds, path.stat().st_size)


def test_all_six_affine_terms(make_raster: Make, scene: Scene) -> None:
    """A rotated raster lands where its geotransform says, corner by corner."""
    t = Affine.translation(300_000, 200_000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)
    geo = facts(make_raster(scene(), transform=t)).georeference
    assert (geo.kind, geo.crs) == ("affine", "EPSG:32648")
    cols, rows = np.array([0, 400, 12.5]), np.array([0, 300, 7.25])
    x, y = pixel_to_map(geo, cols, rows)
    expected = [t * (c, r) for c, r in zip(cols, rows, strict=True)]
    assert np.allclose(np.column_stack([x, y]), expected, rtol=0, atol=1e-6)
    assert gsd_m(geo, 400, 300) == pytest.approx(0.5, rel=1e-3)


def test_pixel_is_point_is_not_shifted_again(make_raster: Make, scene: Scene) -> None:
    """GDAL has moved the tie point by half a pixel already."""
    area = facts(make_raster(scene(), name="area.tif")).georeference
    tagged = facts(
        make_raster(
            scene(), name="point.tif", after=lambda out: out.update_tags(AREA_OR_POINT="Point")
        )
    ).georeference
    assert tagged.transform == area.transform


def test_no_georeference_is_fine(make_raster: Make, scene: Scene) -> None:
    info = facts(make_raster(scene(), crs=None, transform=None))
    assert info.georeference == Georeference()
    assert "pixels only" in info.notes[0]
    assert info.gsd is None
    assert pixel_to_lonlat(info.georeference, [1.0], [1.0]) is None


def test_gcps(make_raster: Make, scene: Scene) -> None:
    """Ground control points of a plain shift and scale give that shift and scale back."""
    points = [
        GroundControlPoint(row=r, col=c, x=100 + c * 0.001, y=5 - r * 0.001, z=0)
        for r, c in [(0, 0), (0, 400), (300, 0), (300, 400)]
    ]
    info = facts(make_raster(scene(), transform=None, crs=CRS.from_epsg(4326), gcps=points))
    geo = info.georeference
    assert (geo.kind, geo.crs, len(geo.gcps)) == ("gcps", "EPSG:4326", 4)
    x, y = pixel_to_map(geo, np.array([[0.0, 200.0]]), np.array([[0.0, 150.0]]))
    assert x.shape == (1, 2)
    assert np.allclose(x, [[100, 100.2]]) and np.allclose(y, [[5, 4.85]])
    assert info.gsd == pytest.approx(111, rel=0.01)


@pytest.mark.parametrize("first", [179.0, -181.0])
def test_gcps_across_the_antimeridian(make_raster: Make, scene: Scene, first: float) -> None:
    """Longitudes that jump from 180 to -180 within an image are one stretch of ground."""

    def lon(col: float) -> float:
        return (first + col * 0.005 + 180) % 360 - 180

    points = [
        GroundControlPoint(row=r, col=c, x=lon(c), y=5 - r * 0.005, z=0)
        for r in (0, 150, 300)
        for c in (0, 100, 200, 300, 399)
    ]
    info = facts(make_raster(scene(), transform=None, crs=CRS.from_epsg(4326), gcps=points))
    cols = np.array([0.0, 120.5, 199, 201, 333])
    lonlat = pixel_to_lonlat(info.georeference, cols, np.full(5, 75.0))
    assert lonlat is not None
    assert np.allclose(lonlat[0], [lon(c) for c in cols], rtol=0, atol=1e-6)
    assert np.allclose(lonlat[1], 5 - 75 * 0.005)
    assert info.gsd == pytest.approx(0.005 * 111_000, rel=0.01)


def test_gcps_around_the_whole_earth_stay_as_they_are(make_raster: Make, scene: Scene) -> None:
    """Ten of them in two rows, too, for which there is no polynomial of the degree that ten allow."""
    points = [
        GroundControlPoint(row=r, col=c, x=c * 0.9 - 180, y=60 - r * 0.4, z=0)
        for r in (0, 300)
        for c in (0, 100, 200, 300, 400)
    ]
    info = facts(make_raster(scene(), transform=None, crs=CRS.from_epsg(4326), gcps=points))
    lonlat = pixel_to_lonlat(info.georeference, [50.0, 350.0], [150.0, 150.0])
    assert lonlat is not None
    assert np.allclose(lonlat[0], [-135, 135], rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", ["a line", "a crooked line", "one point", "no place"])
@pytest.mark.parametrize("count", [3, 4, 8, 12])
def test_gcps_that_fix_no_place_are_left_out(
    make_raster: Make, scene: Scene, where: str, count: int
) -> None:
    """The pixels are as good as ever: the image has no georeference, and says why."""
    turn = 0.731 if where == "a crooked line" else 1.0
    points = []
    for n in range(count):
        col = 0.0 if where == "one point" else n * 24.7
        row = col * turn if where != "no place" else n % 3 * 50.3
        x, y = (0.0, 0.0) if where == "no place" else (100 + col / 300, row / 300)
        points.append(GroundControlPoint(row=row, col=col, x=x, y=y, z=0))
    info = facts(make_raster(scene(), transform=None, crs=CRS.from_epsg(4326), gcps=points))
    assert info.georeference.kind == "none"
    assert any("GCPs lie on one line or on one point" in n for n in info.notes)


def test_rpcs(make_raster: Make, scene: Scene) -> None:
    """RPCs are evaluated at their mean height; the image's middle lands on their offset."""
    line_num, samp_num = [0.0, 0, 1] + [0.0] * 17, [0.0, 1] + [0.0] * 18
    den = [1.0] + [0.0] * 19
    rpc = RPC(
        height_off=50, height_scale=100, lat_off=5, lat_scale=-0.01, line_den_coeff=den,
        line_num_coeff=line_num, line_off=150, line_scale=150, long_off=100, long_scale=0.01,
        samp_den_coeff=den, samp_num_coeff=samp_num, samp_off=200, samp_scale=200,
    )  # fmt: skip
    info = facts(make_raster(scene(), crs=None, transform=None, rpcs=rpc))
    assert info.georeference.kind == "rpcs"
    lonlat = pixel_to_lonlat(info.georeference, [200.5], [150.5])
    assert lonlat is not None
    assert lonlat[0][0] == pytest.approx(100, abs=1e-6)
    assert lonlat[1][0] == pytest.approx(5, abs=1e-6)


@pytest.mark.parametrize("what", ["no denominator", "one line", "no scale", "no numerator", "zero"])
def test_rpcs_that_give_no_place_are_left_out(make_raster: Make, scene: Scene, what: str) -> None:
    """The pixels are as good as ever: the image has no georeference, and says why."""
    terms = {
        "height_off": 50.0, "height_scale": 100.0, "lat_off": 5.0, "lat_scale": 0.01,
        "long_off": 100.0, "long_scale": 0.01, "line_off": 150.0, "line_scale": 150.0,
        "samp_off": 200.0, "samp_scale": 200.0,
        "line_num_coeff": [0.0, 0, -1] + [0.0] * 17, "line_den_coeff": [1.0] + [0.0] * 19,
        "samp_num_coeff": [0.0, 1] + [0.0] * 18, "samp_den_coeff": [1.0] + [0.0] * 19,
    }  # fmt: skip
    nothing = [0.0] * 20
    terms |= {
        "no denominator": {"line_den_coeff": nothing},
        "one line": {"line_num_coeff": terms["samp_num_coeff"]},
        "no scale": {"long_scale": 0.0},
        "no numerator": {"line_num_coeff": nothing, "samp_num_coeff": nothing},
        "zero": {k: nothing if isinstance(v, list) else 0.0 for k, v in terms.items()},
    }[what]
    info = facts(make_raster(scene(), crs=None, transform=None, rpcs=RPC(**terms)))
    assert info.georeference.kind == "none" and info.gsd is None
    assert "the RPCs are damaged and are left out" in info.notes


def test_geotransform_without_area_is_rejected(make_raster: Make, scene: Scene) -> None:
    path = make_raster(scene(), transform=Affine(0.5, 1, 0, 0.5, 1, 0))
    with pytest.raises(RasterRejected) as e:
        facts(path)
    assert e.value.reason is Reason.BAD_GEOREFERENCE


def test_lonlat_of_utm(make_raster: Make, scene: Scene) -> None:
    """The central meridian's easting is 500,000: that point is at 105° E."""
    geo = facts(make_raster(scene(), transform=from_origin(500_000, 0, 1, 1))).georeference
    lonlat = pixel_to_lonlat(geo, [0.0], [0.0])
    assert lonlat is not None
    assert lonlat[0][0] == pytest.approx(105, abs=1e-9)
    assert lonlat[1][0] == pytest.approx(0, abs=1e-9)


def test_longitudes_beyond_180_come_back() -> None:
    geo = Georeference(kind="affine", crs="EPSG:4326", transform=(1, 0, 170, 0, -1, 10))
    lonlat = pixel_to_lonlat(geo, [0.0, 10.0, 20.0], [0.0, 0.0, 0.0])
    assert lonlat is not None
    assert lonlat[0].tolist() == [170, 180, -170]


@pytest.mark.parametrize(
    ("crs", "pixel", "at", "metres"),
    [
        ("EPSG:32648", (0.5, 0.5), (500_000, 0), 0.5 / 0.9996),
        ("EPSG:32648", (0.5, 2.0), (500_000, 0), 1.0 / 0.9996),
        # Web Mercator's metres at 60° N are half metres on the ground
        ("EPSG:3857", (1.0, 1.0), (0, 8_399_738), 0.5),
        ("EPSG:2263", (1.0, 1.0), (1_000_000, 200_000), 0.3048),
        ("EPSG:4326", (1 / 3600, 1 / 3600), (100, 0), 30.82),
    ],
)
def test_gsd(crs: str, pixel: tuple[float, float], at: tuple[float, float], metres: float) -> None:
    """Metres on the ground, whatever the CRS's unit and scale; anisotropic pixels by their area."""
    geo = Georeference(kind="affine", crs=crs, transform=(pixel[0], 0, at[0], 0, -pixel[1], at[1]))
    assert gsd_m(geo, 10, 10) == pytest.approx(metres, rel=5e-3)


def test_mars_has_metres_but_no_lonlat(shared_data: Path) -> None:
    info = facts(shared_data / "rasters_valid/rio-tiler/cog_hirise_mars.tif")
    assert not has_lonlat(info.georeference)
    assert pixel_to_lonlat(info.georeference, [0.0], [0.0]) is None
    assert info.gsd == pytest.approx(5, rel=1e-2)


def test_a_crs_that_has_no_code_stays_itself(make_raster: Make, scene: Scene) -> None:
    """WKT2 where EPSG has none; and it can be read back."""
    albers = CRS.from_proj4("+proj=aea +lat_1=1 +lat_2=9 +lon_0=101 +datum=WGS84 +units=m")
    geo = facts(make_raster(scene(), crs=albers)).georeference
    assert geo.crs is not None and geo.crs.startswith("PROJCRS")
    lonlat = pixel_to_lonlat(geo, [0.0], [0.0])
    assert lonlat is not None and math.isfinite(lonlat[0][0])


_MERCATOR = (
    'PROJCS["web",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]{grids}],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Mercator_1SP"],'
    'PARAMETER["central_meridian",0],PARAMETER["scale_factor",1],PARAMETER["false_easting",0],'
    'PARAMETER["false_northing",0],UNIT["metre",1]{proj4}]'
)


@pytest.mark.parametrize(
    ("grids", "proj4"),
    [
        (',EXTENSION["PROJ4_GRIDS","{path}"]', ""),
        ("", ',EXTENSION["PROJ4","+proj=merc +a=6378137 +b=6378137 +nadgrids={path} +units=m"]'),
        ("", ',EXTENSION["PROJ4","+proj=merc +a=6378137 +title=a) +nadgrids=""{path}"" +units=m"]'),
    ],
)
def test_a_crs_that_names_a_file_is_none(tmp_path: Path, grids: str, proj4: str) -> None:
    """PROJ would open the path as a grid, be it a pipe that never ends: no such CRS is taken. Names
    of grids alone, and the null grid of web maps, are."""
    secret = str(tmp_path / "secret")
    hostile = _MERCATOR.format(grids=grids.format(path=secret), proj4=proj4.format(path=secret))
    with pytest.raises(CRSError, match="names a file"):
        crs_text(hostile)
    assert not has_lonlat(Georeference(kind="affine", crs=hostile, transform=(1, 0, 0, 0, -1, 0)))
    usual = _MERCATOR.format(grids=grids.format(path="@null"), proj4=proj4.format(path="@null"))
    assert crs_text(usual)


@pytest.mark.parametrize("code", [32648, 4326])
def test_a_crs_alone_is_no_place(make_raster: Make, scene: Scene, code: int) -> None:
    """GDAL gives the identity where a file has no geotransform: nobody said that a pixel is one
    metre or one degree wide, or that the first one lies where the CRS begins."""
    info = facts(make_raster(scene(), crs=CRS.from_epsg(code), transform=None))
    assert info.georeference == Georeference()
    assert info.gsd is None
    assert "gdal_edit.py -a_ullr" in info.notes[0]


def test_a_crs_keeps_no_rpcs_from_being_used(make_raster: Make, scene: Scene) -> None:
    """A CRS without a geotransform says less than RPCs do."""
    middle = {"line_off": 150, "samp_off": 200, "lat_off": 2.5, "long_off": 103.5, "height_off": 20}
    scales = {"line_scale": 150, "samp_scale": 200, "lat_scale": 0.01, "long_scale": 0.01}
    one = [1.0] + [0.0] * 19
    rpcs = RPC(
        **middle, **scales, height_scale=100, line_num_coeff=[0, 0, -1.0] + [0] * 17,
        line_den_coeff=one, samp_num_coeff=[0, 1.0] + [0] * 18, samp_den_coeff=one,
    )  # fmt: skip
    path = make_raster(
        scene(), crs=CRS.from_epsg(4326), transform=None,
        after=lambda out: setattr(out, "rpcs", rpcs),
    )  # fmt: skip
    assert facts(path).georeference.kind == "rpcs"
