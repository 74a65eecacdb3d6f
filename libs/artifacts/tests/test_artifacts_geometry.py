"""Rings on a round Earth."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from artifact_support import JOB, NOWHERE, UTM, detections, image, job_files
from hypothesis import given
from hypothesis import strategies as st

from frond.artifacts.geometry import (
    area_km2,
    footprint,
    lonlat_rings,
    map_rings,
    signed_area,
    split,
)
from frond.artifacts.stac import item
from frond.contracts.plan import Georeference
from frond.merge import Detections
from frond.raster import pixel_to_lonlat

FLIPS = [
    (0.5, 0.0, 0.0, 0.0, -0.5, 0.0), (0.5, 0.0, 0.0, 0.0, 0.5, 0.0), (-0.5, 0.0, 9.0, 0.0, 0.5, 0.0),
    (0.0, 0.5, 0.0, 0.5, 0.0, 0.0), (0.4, 0.3, 0.0, 0.3, -0.4, 0.0),
]  # fmt: skip


@pytest.mark.parametrize("transform", FLIPS)
def test_rings_are_counter_clockwise_however_the_raster_lies(
    transform: tuple[float, ...],
) -> None:
    """North up, south up, mirrored, transposed, rotated."""
    geo = Georeference(kind="affine", crs="EPSG:32633", transform=transform)  # type: ignore[arg-type]
    for ring in map_rings(geo, detections(20).boxes):
        assert shapely.LinearRing(ring).is_ccw


@given(
    lon=st.floats(-180, 180), lat=st.floats(-80, 80), w=st.floats(0.001, 60), h=st.floats(0.001, 9)
)  # fmt: skip
def test_split_covers_the_same_ground_within_the_world(
    lon: float, lat: float, w: float, h: float
) -> None:
    """Parts lie in [-180, 180], are valid and counter-clockwise, and their areas add up."""
    corners = [(lon, lat), (lon + w, lat), (lon + w, lat + h), (lon, lat + h)]
    ring = [((x + 180.0) % 360.0 - 180.0, y) for x, y in [*corners, corners[0]]]
    parts = split(ring)
    assert 1 <= len(parts) <= 2
    for p in parts:
        assert p[0] == p[-1]
        assert all(-180.0 <= x <= 180.0 for x, _ in p)
        assert signed_area(p[:-1]) > 0
        assert shapely.Polygon(p).is_valid
    assert sum(signed_area(p[:-1]) for p in parts) == pytest.approx(2 * w * h, rel=1e-6, abs=1e-9)


BEYOND = [
    # a grid whose outermost pixels' centres lie at the poles, one whose pixel is rounded up, a part
    # of such a grid, one from 0 to 360
    ((0.1, 0.0, -180.05, 0.0, -0.1, 90.05), (3601, 1801)),
    ((0.01666666666667, 0.0, -180.0, 0.0, -0.01666666666667, 90.0), (21600, 10800)),
    ((0.1, 0.0, 100.0, 0.0, -0.1, 90.05), (100, 100)),
    ((2.5, 0.0, -1.25, 0.0, -2.5, 91.25), (144, 73)),
]


@pytest.mark.parametrize(("transform", "size"), BEYOND)
def test_what_reaches_beyond_a_pole_ends_at_it(
    transform: tuple[float, ...], size: tuple[int, int]
) -> None:
    """The image, and the job with its area: no latitude is above 90, no figure is no number."""
    geo = Georeference(kind="affine", crs="EPSG:4326", transform=transform)  # type: ignore[arg-type]
    beyond = image("grid.tif", detections(3, side=min(size) - 45.0), geo, size=size)
    files, _ = job_files([image("a.tif", detections(2)), beyond])
    area = json.loads(files["summary.json"])["area_km2"]
    # the Earth has 510,066,000; a grid of 360.1° counts a tenth of a degree twice
    assert 0 < area <= 510_300_000
    whole = footprint(geo, *size)
    assert whole is not None
    assert np.abs(whole[:, 1]).max() <= 90.0


def test_metres_that_are_said_to_be_degrees_are_no_place() -> None:
    """No latitude is made up for them, and no area: the geometries are null."""
    geo = Georeference(
        kind="affine", crs="EPSG:4326", transform=(0.5, 0.0, 5e5, 0.0, -0.5, 4e6)
    )  # fmt: skip
    wrong = image("wrong.tif", detections(2), geo)
    files, _ = job_files([wrong])
    features = json.loads(files["detections.geojson"])["features"]
    assert [f["geometry"] for f in features] == [None, None]
    assert area_km2(geo, 100, 100) is None


@pytest.mark.parametrize("west", [-5e5, -2.3e5])
def test_a_ring_around_the_pole_is_led_to_it(west: float) -> None:
    """A polar raster's footprint covers all longitudes up to the pole, in one piece: two that touch
    along a line are no valid geometry."""
    polar = Georeference(
        kind="affine", crs="EPSG:3031", transform=(1000.0, 0.0, west, 0.0, -1000.0, 5e5)
    )
    ring = footprint(polar, 1000, 1000)
    assert ring is not None
    (part,) = split(ring)
    assert shapely.LinearRing(part).is_ccw
    shape = shapely.Polygon(part)
    assert shape.is_valid
    assert shape.covers(shapely.Point(0, -89.99))
    assert shape.covers(shapely.Point(179, -89.0))
    assert not shape.covers(shapely.Point(0, -80.0))
    assert shape.bounds[:3] == (-180.0, -90.0, 180.0)
    assert item(JOB, image("p.tif", detections(5), polar))["bbox"][:3] == [-180.0, -90.0, 180.0]


@pytest.mark.parametrize(
    ("crs", "west"),
    [("EPSG:4326", -180.0), ("EPSG:4326", 0.0), ("EPSG:4326", -100.05), ("EPSG:6933", -180.0)],
)
@pytest.mark.parametrize("cols", [(500, 3100), (900, 2600), (0, 3600), (1000, 2900), (1700, 1900)])
def test_a_box_around_half_the_globe_is_no_other_half(
    west: float, crs: str, cols: tuple[int, int]
) -> None:
    """Plain, across the antimeridian, all around: the box's own ground, in GeoJSON and GeoParquet."""
    to_map = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
    pixel = to_map.transform(0.1, 0)[0]
    top = to_map.transform(0, 80)[1]
    geo = Georeference(
        kind="affine", crs=crs, transform=(pixel, 0, to_map.transform(west, 0)[0], 0, -pixel, top)
    )
    boxes = np.array([[cols[0], 500, cols[1], 900], [10.0, 10, 30, 20]])
    d = Detections.of(boxes, np.full(2, 0.9), np.zeros(2, int), 0)
    elsewhere = Georeference(kind="affine", crs="EPSG:4267", transform=(1, 0, 0, 0, -1, 0))
    results = [
        image("a.tif", d, geo, size=(3600, 1600)),
        image("b.tif", Detections.empty(), elsewhere),
    ]
    files, _ = job_files(results)
    rows = np.arange(510.0, 900, 60)
    for shape in (
        shapely.geometry.shape(json.loads(files["detections.geojson"])["features"][0]["geometry"]),
        shapely.from_wkb(
            pq.read_table(io.BytesIO(files["detections.parquet"]))["geometry"][0].as_py()
        ),
    ):
        assert shape.is_valid
        for col in np.arange(4.5, 3600, 45):
            lonlat = pixel_to_lonlat(geo, np.full(len(rows), col), rows)
            assert lonlat is not None
            assert (shapely.contains_xy(shape, *lonlat) == (cols[0] < col < cols[1])).all()


def test_no_georeference_no_lonlat() -> None:
    """Pixels are never passed off as degrees."""
    assert lonlat_rings(NOWHERE, detections(3).boxes) is None
    assert footprint(NOWHERE, 10, 10) is None


class TestStac:
    def test_the_item_is_what_stac_and_mlm_ask_for(self) -> None:
        """Required members, both extensions, the model named in properties and as an asset."""
        found = item(JOB, image("a.tif", detections(5)), "bucket")
        assert found["stac_version"] == "1.1.0"
        p = found["properties"]
        assert p["datetime"] is None
        assert p["start_datetime"] < p["end_datetime"]
        assert {"mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= set(p)
        assert p["proj:code"] == "EPSG:32633"
        model = found["assets"]["model"]
        assert model["roles"] == ["mlm:model"]
        assert model["mlm:artifact_type"] == "onnx"
        assert model["href"].startswith("s3://bucket/models/palms/versions/")
        west, south, east, north = found["bbox"]
        assert shapely.geometry.shape(found["geometry"]).bounds == (west, south, east, north)
        assert (14.9 < west < east < 15.1) and (44 < south < north < 46)

    def test_across_the_antimeridian_west_is_east(self) -> None:
        """RFC 7946: the box of such an item begins east of where it ends."""
        fiji = Georeference(
            kind="affine", crs="EPSG:4326", transform=(1e-4, 0.0, 179.96, 0.0, -1e-4, -17.0)
        )
        found = item(JOB, image("f.tif", detections(5), fiji))
        assert found["geometry"]["type"] == "MultiPolygon"
        west, _, east, _ = found["bbox"]
        assert west == pytest.approx(179.96)
        assert east == pytest.approx(-179.94)

    @pytest.mark.parametrize("west", [-180.0, 0.0, 0.1])
    def test_all_around_the_globe(self, west: float) -> None:
        """A global raster has one footprint and every longitude, also where they count from 0 to 360."""
        globe = Georeference(
            kind="affine", crs="EPSG:4326", transform=(0.1, 0.0, west, 0.0, -0.1, 80.0)
        )
        found = item(JOB, image("g.tif", detections(5), globe, size=(3600, 1600)))
        assert found["bbox"] == [-180.0, -80.0, 180.0, 80.0]
        shape = shapely.geometry.shape(found["geometry"])
        assert shape.is_valid and shape.area == pytest.approx(360 * 160)

    def test_without_place_the_geometry_is_null(self) -> None:
        """STAC allows it, and then wants no bbox."""
        found = item(JOB, image("e.tif", detections(5), NOWHERE))
        assert found["geometry"] is None
        assert "bbox" not in found

    def test_lonlat_agrees_with_the_map(self) -> None:
        """Both kinds of rings are one place."""
        boxes = detections(10).boxes
        lonlat = lonlat_rings(UTM, boxes)
        assert lonlat is not None
        x, y = pyproj.Transformer.from_crs("OGC:CRS84", "EPSG:32633", always_xy=True).transform(
            lonlat[..., 0], lonlat[..., 1]
        )
        assert np.abs(np.stack([x, y], -1) - map_rings(UTM, boxes)).max() < 1e-6
