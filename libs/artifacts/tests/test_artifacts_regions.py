"""Regions with holes in a job's files, read by the tools that people use."""

from __future__ import annotations

import io
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyproj
import pytest
import shapely
from artifact_support import (
    FIJI,
    NOWHERE,
    ROTATED,
    SEGMENTATION,
    UTM,
    Files,
    Mask,
    blobs,
    failure,
    image,
    image_files,
    job_files,
    regions_of,
    segmented,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from frond.artifacts import ImageResult, rle
from frond.artifacts.regions import cut, geojson_texts, lonlat_shapes, map_shapes, wkb
from frond.artifacts.rle import run_lengths
from frond.artifacts.stac import item
from frond.contracts.plan import Georeference
from frond.merge import Detections
from frond.raster import pixel_to_lonlat, pixel_to_map


@pytest.fixture(scope="module")
def two() -> tuple[list[ImageResult], list[Mask], Files]:
    a, masks_a = regions_of(blobs(1))
    b, masks_b = regions_of(blobs(2))
    results = [segmented("a.tif", a), failure("b.tif"), segmented("c.tif", b, ROTATED)]
    return results, masks_a + masks_b, job_files(results, SEGMENTATION)[0]


class TestCoco:
    def test_pycocotools_gives_back_every_pixel(self, two: Any, tmp_path: Path) -> None:
        """annToMask of each annotation is exactly its region; the areas are those of the masks."""
        results, masks, files = two
        (tmp_path / "coco.json").write_bytes(files["coco.json"])
        coco = COCO(str(tmp_path / "coco.json"))
        annotations = coco.loadAnns(sorted(coco.getAnnIds()))
        assert len(annotations) == len(masks)
        kinds = {type(a["segmentation"]) for a in annotations}
        assert kinds == {list, dict}
        for annotation, mask in zip(annotations, masks, strict=True):
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
            assert annotation["area"] == mask.sum()
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert annotation["bbox"] == [cols[0], rows[0], np.ptp(cols) + 1, np.ptp(rows) + 1]
        assert [len(r.detections) for r in results if r.completed] == [
            len(coco.getAnnIds(imgIds=[n])) for n in (1, 2)
        ]

    def test_a_polygon_without_a_hole_is_a_polygon(self, two: Any) -> None:
        """Run lengths only where there are holes; rings open, as is the custom."""
        results, _, files = two
        annotations = json.loads(files["coco.json"])["annotations"]
        holed = [h for r in results if r.polygons is not None for h in r.polygons.has_holes]
        assert [isinstance(a["segmentation"], dict) for a in annotations] == holed
        plain = next(a["segmentation"] for a in annotations if isinstance(a["segmentation"], list))
        assert plain[0][:2] != plain[0][-2:] and len(plain) == 1

    def test_load_res_takes_the_results(self, two: Any, tmp_path: Path) -> None:
        """As masks, with their areas: what an evaluation of masks starts from."""
        _, masks, files = two
        for name in ("coco.json", "coco-results.json"):
            (tmp_path / name).write_bytes(files[name])
        loaded = COCO(str(tmp_path / "coco.json")).loadRes(str(tmp_path / "coco-results.json"))
        for annotation, mask in zip(loaded.loadAnns(loaded.getAnnIds()), masks, strict=True):
            assert np.array_equal(loaded.annToMask(annotation).astype(bool), mask)
            assert annotation["area"] == mask.sum()


class TestRunLengths:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 1 << 30), st.floats(0.05, 0.95), st.integers(1, 12), st.integers(1, 12))
    def test_they_are_those_of_pycocotools(
        self, seed: int, share: float, width: int, height: int
    ) -> None:
        """The same text as its own encoder gives for the region's bitmap, however odd it is."""
        classes = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
        found, masks = regions_of(classes)
        assert run_lengths(found, width, height) == [
            coco_mask.encode(np.asfortranarray(m.astype(np.uint8)))["counts"].decode()
            for m in masks
        ]

    @pytest.mark.parametrize("crossings", [1, 7, 300])
    def test_in_strips_and_batches_they_are_the_same(
        self, crossings: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However few columns or regions are done at a time."""
        found, _ = regions_of(blobs(3))
        whole = run_lengths(found, 60, 60)
        monkeypatch.setattr(rle, "CROSSINGS", crossings)
        assert run_lengths(found, 60, 60) == whole

    def test_what_lies_beyond_the_image_is_cut_off(self) -> None:
        """A ring that the rounding led over the edge fills up to the edge."""
        found, _ = regions_of(np.ones((4, 4), np.uint8))
        wide = replace(found, points=np.where(found.points == 4, 4.25, found.points))
        assert run_lengths(wide, 4, 4) == run_lengths(found, 4, 4)

    def test_of_large_pixels(self) -> None:
        """Regions found in coarser pixels than the raster's cover them all the same."""
        found, masks = regions_of(blobs(4), factor=3)
        for counts, mask in zip(run_lengths(found, 180, 180), masks, strict=True):
            got = coco_mask.decode({"size": [180, 180], "counts": counts.encode()})
            assert np.array_equal(got, np.kron(mask, np.ones((3, 3))))

    def test_a_large_image_costs_what_its_regions_do(self) -> None:
        """A region in the far corner of 60,000² pixels: no bitmap of them is ever made."""
        found, masks = regions_of(blobs(5))
        far = replace(found, points=found.points + 59_900)
        for counts, mask in zip(run_lengths(far, 60_000, 60_000), masks, strict=True):
            rle_ = {"size": [60_000, 60_000], "counts": counts.encode()}
            assert coco_mask.area(rle_) == mask.sum()

    @pytest.mark.parametrize(("teeth", "long", "bar"), [(100, 5000, 0), (4000, 160, 100_000)])
    def test_few_corners_with_long_edges_take_little_memory(
        self, teeth: int, long: int, bar: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a comb, alone or at the end of a long bar, no more crossings are held than are worked
        out at a time: a million of them would be 130 MB. The text is the comb's."""
        classes = np.zeros((2 * teeth, 3), np.uint8)
        classes[:, 0] = classes[::2, 1] = classes[0, 2] = 1
        found, _ = regions_of(classes)
        columns = np.array([0.0, 1, 1 + long, 1 + long + bar])
        points = found.points.copy()
        points[:, 0] = columns[points[:, 0].astype(int)]
        wide, size = replace(found, points=points), (int(columns[-1]), 2 * teeth)
        monkeypatch.setattr(rle, "CROSSINGS", 1 << 14)
        tracemalloc.start()
        (counts,) = run_lengths(wide, *size)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000_000
        got = {"size": size[::-1], "counts": counts.encode()}
        assert coco_mask.area(got) == 2 * teeth + teeth * long + bar
        assert coco_mask.toBbox(got).tolist() == [0, 0, *size]


class TestGeoJson:
    def test_rings_are_those_of_rfc_7946(self, two: Any) -> None:
        """Valid, closed, exterior counter-clockwise, holes clockwise and kept."""
        results, masks, files = two
        features = json.loads(files["detections.geojson"])["features"]
        assert len(features) == len(masks)
        holes = 0
        for feature in features:
            assert shapely.geometry.shape(feature["geometry"]).is_valid
            outer, *inner = feature["geometry"]["coordinates"]
            assert shapely.LinearRing(outer).is_ccw
            assert not any(shapely.LinearRing(r).is_ccw for r in inner)
            assert all(r[0] == r[-1] for r in (outer, *inner))
            holes += len(inner)
        expected = sum(
            len(r.polygons.rings) - len(r.polygons.polygons) for r in results if r.polygons
        )
        assert holes == expected > 10

    def test_small_pixels_stay_apart(self) -> None:
        """Half a centimetre wide, rotated: valid, counter-clockwise and of the pixels' area."""
        geo = Georeference(
            kind="affine", crs="EPSG:32633", transform=(0.004, 0.003, 5e5, 0.003, -0.004, 5e6)
        )
        found, masks = regions_of(blobs(6))
        files = job_files([segmented("a.tif", found, geo)], SEGMENTATION)[0]
        frame = geopandas.read_file(io.BytesIO(files["detections.geojson"]))
        assert frame.is_valid.all()
        assert all(g.exterior.is_ccw for g in frame.geometry)
        areas = frame.to_crs("EPSG:32633").area / 0.005**2
        assert np.allclose(areas, [m.sum() for m in masks], rtol=0.1, atol=0.5)

    def test_they_lie_where_the_pixels_do(self, two: Any) -> None:
        """Taken back to the raster's CRS, each covers its pixels' ground to a part in a thousand."""
        _, masks, files = two
        frame = geopandas.read_file(io.BytesIO(files["detections.geojson"])).to_crs("EPSG:32633")
        for geometry, mask in zip(frame.geometry, masks, strict=True):
            assert geometry.area == pytest.approx(mask.sum() * 0.25, rel=1e-2)
        a, _, c, _, e, f = UTM.transform or ()
        rows, cols = np.nonzero(masks[0])
        centres = shapely.points(a * (cols + 0.5) + c, e * (rows + 0.5) + f)
        assert shapely.contains(frame.geometry[0], centres).all()

    def test_across_the_antimeridian(self) -> None:
        """A frame of pixels over 180° is cut in two halves of a frame; each side stays on its own."""
        classes = np.zeros((60, 900), np.uint8)
        classes[10:50, 300:500] = 1
        classes[20:40, 350:450] = 0
        classes[5:8, 600:620] = 2
        found, _ = regions_of(classes)
        file = job_files([segmented("f.tif", found, FIJI, size=(900, 60))], SEGMENTATION)[0]
        crossing, east = sorted(
            (f["geometry"] for f in json.loads(file["detections.geojson"])["features"]),
            key=lambda g: str(g["type"]),
        )
        assert (crossing["type"], east["type"]) == ("MultiPolygon", "Polygon")
        shape = shapely.geometry.shape(crossing)
        assert shape.is_valid and shape.area == pytest.approx((200 * 40 - 100 * 20) * 1e-8)
        west_half, east_half = sorted(shape.geoms, key=lambda g: -g.bounds[0])
        assert west_half.bounds == pytest.approx((179.99, -17.005, 180.0, -17.001))
        assert east_half.bounds == pytest.approx((-180.0, -17.005, -179.99, -17.001))
        frame = geopandas.read_parquet(io.BytesIO(file["detections.parquet"]))
        assert frame.geometry.is_valid.all()

    @pytest.mark.parametrize(("crs", "left", "pixel"), [
        ("EPSG:32633", (399_960, 5_000_040), 10), ("EPSG:32633", (499_960, 7_000_040), 10),
        ("EPSG:3035", (4_000_000, 3_000_000), 30), ("EPSG:4326", (-180, 80), 0.1),
        ("EPSG:4326", (0, 80), 0.1),
    ])  # fmt: skip
    def test_long_edges_follow_the_raster(
        self, crs: str, left: tuple[float, float], pixel: float
    ) -> None:
        """A hole close to a straight edge across a whole scene stays inside of it, be the scene as
        wide as the Earth."""
        geo = Georeference(
            kind="affine", crs=crs, transform=(pixel, 0, left[0], 0, -pixel, left[1])
        )
        classes = np.ones((1600, 3600), np.uint8)
        for row in (2, 1596):
            classes[row : row + 2, 1700:1710] = 0
        shapes = lonlat_shapes(geo, regions_of(classes)[0])
        (text,) = geojson_texts(shapes, 7)
        shape = shapely.geometry.shape(json.loads(text))
        assert shape.is_valid
        holes = [r for p in shapely.get_parts(shape) for r in p.interiors]
        if crs == "EPSG:4326":
            assert shape.area == pytest.approx(((classes > 0).sum()) * pixel**2)
        assert len(holes) == 2

    @pytest.mark.parametrize("left", [(-30_000, 30_000), (-27_500, 35_500)])
    def test_around_a_pole(self, left: tuple[int, int]) -> None:
        """A region that holds the pole covers it; one around it leaves it out."""
        geo = Georeference(
            kind="affine", crs="EPSG:3413", transform=(1000, 0, left[0], 0, -1000, left[1])
        )
        full = np.ones((60, 60), np.uint8)
        ring = full.copy()
        ring[24:42, 14:36] = 0
        for classes, holds in ((full, True), (ring, False)):
            shapes = lonlat_shapes(geo, regions_of(classes)[0])
            assert shapes is not None and shapes[0].is_valid
            assert shapely.covers(shapes[0], shapely.Point(10.0, 89.99)) == holds
            assert shapely.covers(shapes[0], shapely.Point(-120.0, 89.76))

    @pytest.mark.parametrize("crs", ["EPSG:3031", "EPSG:3413"])
    def test_holes_around_a_pole(self, crs: str) -> None:
        """Sea around land around a pole, with lakes at every longitude: each pixel's centre is in its
        own region, but for the few beside an edge, and in no other."""
        n, pixel = 120, 50_000.0
        y, x = np.mgrid[0:n, 0:n] + 0.5 - n / 2
        around = np.arctan2(y, x)
        classes = np.where(np.hypot(x, y) < 35 + 6 * np.sin(2 * around), 2, 1).astype(np.uint8)
        for turn in np.arange(0, 2 * np.pi, np.pi / 4):
            lake = np.hypot(x - 18 * np.cos(turn), y - 18 * np.sin(turn)) < 3
            classes[lake] = 1
        # so that no centre lies on the antimeridian
        left = -n / 2 * pixel + 9000.0
        geo = Georeference(
            kind="affine", crs=crs, transform=(pixel, 0, left, 0, -pixel, n / 2 * pixel)
        )
        found, masks = regions_of(classes)
        lonlat = pixel_to_lonlat(geo, x + n / 2, y + n / 2)
        shapes = lonlat_shapes(geo, found)
        assert lonlat is not None and shapes is not None
        for shape, mask in zip(shapes, masks, strict=True):
            covered = shapely.contains_xy(shape, *(v.ravel() for v in lonlat)).reshape(mask.shape)
            assert shape.is_valid and (covered != mask).mean() < 1e-3

    @pytest.mark.parametrize(("crs", "left", "pixel"), [
        ("EPSG:3413", (-3_850_000, 5_850_000), 25_000), ("EPSG:3413", (-1_600_000, 2_850_000), 25_000),
        ("EPSG:3035", (4_000_000, 5_000_000), 5_000), ("EPSG:32633", (500_000, 8_000_000), 10),
        ("EPSG:3857", (0, 8_000_000), 10_000), ("EPSG:4326", (0, 80), 0.1),
    ])  # fmt: skip
    def test_edges_of_coarse_pixels_keep_to_the_raster(
        self, crs: str, left: tuple[float, float], pixel: float
    ) -> None:
        """To a sixth of a pixel, be it 25 km wide and beside the pole; and no points are added where
        there is nothing to follow."""
        geo = Georeference(
            kind="affine", crs=crs, transform=(pixel, 0, left[0], 0, -pixel, left[1])
        )
        classes = np.zeros((200, 200), np.uint8)
        classes[100:160, 40:100] = 1
        (shape,) = lonlat_shapes(geo, regions_of(classes)[0])
        to_map = pyproj.Transformer.from_crs("OGC:CRS84", crs, always_xy=True)
        for part in shapely.get_parts(shape):
            lonlat = shapely.get_coordinates(shapely.segmentize(part.exterior, part.length / 9000))
            own = (np.abs(lonlat) < [180 - 1e-9, 90 - 1e-9]).all(axis=1)
            x, y = to_map.transform(*lonlat[own].T)
            at = shapely.points((x - left[0]) / pixel, (left[1] - y) / pixel)
            assert shapely.distance(at, shapely.box(40, 100, 100, 160).exterior).max() < 1 / 6
        if crs not in ("EPSG:3413", "EPSG:3035"):
            assert len(shape.exterior.coords) == 5

    def test_a_cut_of_nothing_is_nothing(self) -> None:
        """What has no area on the globe has no geometry."""
        flat = shapely.Polygon([(179.0, 1.0), (-179.0, 1.0), (179.0, 1.0)])
        assert cut(flat) is None

    def test_without_lonlat(self) -> None:
        """No features, named as such; the pixels are in the other files."""
        found, _ = regions_of(blobs(1))
        files = job_files([segmented("n.tif", found, NOWHERE)], SEGMENTATION)[0]
        data = json.loads(files["detections.geojson"])
        assert data["features"] == [] and len(data["images_without_lonlat"]) == 1
        assert len(json.loads(files["coco.json"])["annotations"]) == len(found)
        frame = geopandas.read_parquet(io.BytesIO(files["detections.parquet"]))
        assert len(frame) == len(found) and frame.geometry.isna().all()


def test_geoparquet_has_them_in_the_rasters_crs(two: Any) -> None:
    """Valid polygons with their holes, exact in map units, right-handed, each in its own bbox."""
    _, masks, files = two
    frame = geopandas.read_parquet(io.BytesIO(files["detections.parquet"]))
    assert frame.crs == "EPSG:32633" and frame.geometry.is_valid.all()
    assert all(g.exterior.is_ccw for g in frame.geometry)
    for geometry, mask in zip(frame.geometry, masks, strict=True):
        assert geometry.area == pytest.approx(mask.sum() * 0.25)
    some = geopandas.read_parquet(
        io.BytesIO(files["detections.parquet"]), bbox=tuple(frame.geometry.iloc[0].bounds)
    )
    assert 0 < len(some) < len(frame)


def bent_gcps() -> Georeference:
    """1,600 by 2,400 pixels of some 100 m, whose rows are 80 of them lower at their ends."""
    return Georeference(
        kind="gcps", crs="EPSG:4326",
        gcps=tuple(
            (row, col, 10 + 1.4e-3 * col, 60 - 9e-4 * row - 5e-8 * (col - 1200) ** 2, 0.0)
            for row in np.linspace(0, 1600, 5).tolist()
            for col in np.linspace(0, 2400, 5).tolist()
        ),
    )  # fmt: skip


def bent_rpcs() -> Georeference:
    """The same in rational polynomials."""
    one = [1.0] + [0.0] * 19
    terms = {
        "height_off": 0.0, "height_scale": 500.0,
        "lat_off": 60.0, "lat_scale": 0.7, "line_off": 800.0, "line_scale": 800.0,
        "long_off": 10.0, "long_scale": 1.7, "samp_off": 1200.0, "samp_scale": 1200.0,
        "line_num_coeff": [0.0, 0.0, -1.0, *[0.0] * 4, 0.1, *[0.0] * 12], "line_den_coeff": one,
        "samp_num_coeff": [0.0, 1.0] + [0.0] * 18, "samp_den_coeff": one,
    }  # fmt: skip
    return Georeference(kind="rpcs", crs="EPSG:4326", rpcs=terms)


@pytest.mark.parametrize("geo", [bent_gcps(), bent_rpcs()], ids=["gcps", "rpcs"])
def test_on_the_map_long_edges_follow_gcps_and_rpcs(geo: Georeference) -> None:
    """To a sixth of a pixel, so that a hole close to an edge across the whole scene stays inside of
    it; a small region gets no points."""
    classes = np.ones((1600, 2400), np.uint8)
    for row in (2, 1596):
        classes[row : row + 2, 1195:1205] = 0
    classes[700:760, 1000:1060] = 2
    small, scene = sorted(map_shapes(geo, regions_of(classes)[0]), key=lambda s: float(s.area))
    assert scene.is_valid and len(scene.interiors) == 3
    assert len(small.exterior.coords) == 5
    cols = np.linspace(0, 2400, 4801)
    for row in (0.0, 1600.0):
        edge = shapely.points(*pixel_to_map(geo, cols, np.full(len(cols), row)))
        assert shapely.distance(edge, scene.exterior).max() < 9e-4 / 6


def test_a_region_without_a_place_is_null_and_alone_so() -> None:
    """A point that the CRS cannot place takes its own region's geometry, and no other's."""
    found, _ = regions_of(blobs(1))
    points = found.points.copy()
    points[-1] = np.inf
    shapes = map_shapes(UTM, replace(found, points=points))
    assert [s is None for s in shapes] == [False] * (len(found) - 1) + [True]
    assert wkb(shapes).null_count == 1 and geojson_texts(shapes, 7)[-1] == "null"


def test_the_same_regions_give_the_same_bytes(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice, and in slices of other sizes."""
    results, _, files = two
    assert job_files(results, SEGMENTATION)[0] == files
    monkeypatch.setattr("frond.artifacts.common.SLICE_POINTS", 50)
    again = job_files(results, SEGMENTATION)[0]
    for name in ("coco.json", "coco-results.json", "detections.geojson", "summary.json"):
        assert again[name] == files[name]


def test_stac_names_the_classes_of_the_raster(two: Any) -> None:
    """The class raster is an asset; the values it holds are named, nodata among them."""
    results, _, _ = two
    item = json.loads(image_files(results[0], SEGMENTATION)["stac.json"])
    assert any("classification" in e for e in item["stac_extensions"])
    asset = item["assets"]["classes"]
    assert asset["href"] == "./classes.tif" and "cloud-optimized" in asset["type"]
    (band,) = asset["bands"]
    assert [c["value"] for c in band["classification:classes"]] == [0, 1, 2, 255]
    assert band["classification:classes"][1]["title"] == "palm"
    (output,) = item["properties"]["mlm:output"]
    assert output["classification:classes"] == band["classification:classes"]
    assert (
        "classes"
        not in json.loads(image_files(image("b.tif", Detections.empty()))["stac.json"])["assets"]
    )


@pytest.mark.parametrize(("geo", "transform"), [
    (ROTATED, [0.8, 0.6, 500_000.0, 0.6, -0.8, 5_000_000.0]),
    (Georeference(kind="gcps", crs="EPSG:4326", gcps=((0, 0, 1, 5, 0),) * 3), None),
    (NOWHERE, None),
])  # fmt: skip
def test_stac_tells_the_class_rasters_own_grid(
    geo: Georeference, transform: list[float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a raster that is seen at half its resolution; where there is no other grid, the item's is its."""
    monkeypatch.setattr("frond.artifacts.stac.footprint", lambda *_: None)
    result = segmented("a.tif", regions_of(blobs(1))[0], geo)
    assert result.plan is not None
    grid = result.plan.grid.model_copy(update={"width": 30, "height": 31, "scale": 0.5})
    half = replace(result, plan=result.plan.model_copy(update={"grid": grid}))
    asset = item(SEGMENTATION, half)["assets"]["classes"]
    assert asset.get("proj:shape") == ([31, 30] if geo.crs else None)
    assert asset.get("proj:transform") == transform
    assert not any(k.startswith("proj:") for k in item(SEGMENTATION, result)["assets"]["classes"])


def test_the_summary_tells_how_much_each_class_covers(two: Any) -> None:
    """In pixels of all images; in km² as the regions' share of each image's area. None of boxes, and
    no km² where nothing is on the map."""
    results, masks, files = two
    data = json.loads(files["summary.json"])
    assert sum(c["area_pixels"] for c in data["classes"]) == sum(m.sum() for m in masks)
    by_image = [
        r.polygons.areas.sum() / np.prod(r.size) * i["area_km2"]
        for r in results
        for i in data["images"]
        if r.polygons is not None and i["name"] == r.outcome.name
    ]
    assert len(by_image) == 2
    assert sum(c["area_km2"] for c in data["classes"]) == pytest.approx(sum(by_image), rel=1e-9)
    nowhere = job_files([segmented("e.tif", regions_of(blobs(1))[0], NOWHERE)], SEGMENTATION)[0]
    classes = json.loads(nowhere["summary.json"])["classes"]
    assert {c["area_km2"] for c in classes} == {None}
    assert any(c["area_pixels"] for c in classes)
    boxes = json.loads(job_files([image("a.tif", Detections.empty())])[0]["summary.json"])
    assert not any("area_km2" in c for c in boxes["classes"])
