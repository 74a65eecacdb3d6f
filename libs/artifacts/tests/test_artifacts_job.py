"""A job's files, read by the tools that people use."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from artifact_support import (
    FIJI,
    JOB,
    MODEL,
    NOWHERE,
    ROTATED,
    UTM,
    Files,
    detections,
    failure,
    image,
    image_files,
    job_files,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from frond.artifacts import IMAGE_ARTIFACTS, JOB_ARTIFACTS, ImageResult, JobInfo, geoparquet
from frond.artifacts.common import CountingSink
from frond.artifacts.geojson import FeatureCollection
from frond.artifacts.geometry import area_km2
from frond.contracts.plan import Georeference
from frond.merge import Detections

RESULTS = [
    image("a.tif", detections(40, 1)),
    failure("b.tif"),
    image("ç 猫.tif", detections(20_000, 2), ROTATED),
    image("d.tif", Detections.empty()),
    image("e.tif", detections(30, 3), NOWHERE),
]
COUNT = 40 + 20_000 + 30


@pytest.fixture(scope="module")
def files() -> Files:
    return job_files(RESULTS)[0]


def noted(name: str, *notes: str) -> ImageResult:
    result = image(name, detections(1))
    assert result.plan is not None
    return replace(result, plan=result.plan.model_copy(update={"notes": notes}))


class TestCoco:
    def test_images_of_one_name_are_told_apart_by_their_file_names(self) -> None:
        """Most tools know an image by its file name; two folders may hold one of the same name each.
        A failed image is not in the file, so that it takes no name from another."""
        north, south, other = (image("tile.tif", detections(2, n)) for n in range(3))
        found = [
            replace(r, outcome=r.outcome.model_copy(update={"image": uri, "image_id": n * 32}))
            for r, uri, n in (
                (north, "s3://b/north/tile.tif", "1"),
                (south, "s3://b/south/tile.tif", "2"),
                (replace(other, outcome=other.outcome.model_copy(update={"name": "u.tif"})),
                 "s3://b/u.tif", "3"),
            )
        ]  # fmt: skip
        found.append(failure("u.tif"))
        told = json.loads(job_files(found)[0]["coco.json"])["images"]
        names = [i["file_name"] for i in told]
        assert names == ["b/north/tile.tif", "b/south/tile.tif", "u.tif"]
        assert [i["frond"]["uri"] for i in told][:2] == [f"s3://{n}" for n in names[:2]]
        alone = json.loads(image_files(found[0])["coco.json"])["images"]
        assert [i["file_name"] for i in alone] == ["tile.tif"]

    def test_pycocotools_opens_both(self, files: Files, tmp_path: Path) -> None:
        """COCO() indexes the dataset, loadRes takes the results, ids run from 1 without a gap."""
        (tmp_path / "coco.json").write_bytes(files["coco.json"])
        (tmp_path / "res.json").write_bytes(files["coco-results.json"])
        coco = COCO(str(tmp_path / "coco.json"))
        assert coco.getImgIds() == [1, 2, 3, 4]
        assert coco.getCatIds() == [1, 2]
        assert sorted(coco.getAnnIds()) == list(range(1, COUNT + 1))
        assert [i["file_name"] for i in coco.loadImgs([1, 2, 3, 4])] == [
            "a.tif", "ç 猫.tif", "d.tif", "e.tif",
        ]  # fmt: skip
        again = coco.loadRes(str(tmp_path / "res.json"))
        assert len(again.getAnnIds()) == COUNT
        assert coco.annToMask(coco.loadAnns([1])[0]).any()

    def test_numbers_are_the_detections(self, files: Files) -> None:
        """bbox is x, y, w, h in full-image pixels; area and polygon are the box's; score as given."""
        data = json.loads(files["coco.json"])
        mine = [a for a in data["annotations"] if a["image_id"] == 1]
        d = RESULTS[0].detections
        for k, a in enumerate(mine):
            x0, y0, x1, y1 = d.boxes[k].tolist()
            assert a["bbox"] == [x0, y0, x1 - x0, y1 - y0]
            assert a["area"] == (x1 - x0) * (y1 - y0)
            assert a["segmentation"] == [[x0, y0, x1, y0, x1, y1, x0, y1]]
            assert np.float32(a["score"]) == d.scores[k]
            assert a["category_id"] == d.classes[k] + 1
            assert a["iscrowd"] == 0
            assert a["frond"] == {"detection": k + 1, "window": d.windows[k]}

    def test_the_head_names_the_model_and_no_clock(self, files: Files) -> None:
        """Who made it is in there; when it was made is not."""
        data = json.loads(files["coco.json"])
        assert data["info"]["frond"]["model"]["digest"] == MODEL.digest
        assert not {"year", "date_created"} & set(data["info"])
        assert data["images"][0]["frond"]["checksum"] == "etag-1"
        assert data["images"][0]["frond"]["geotransform"] == list(UTM.transform or ())


class TestGeoJson:
    def test_a_collection_is_these_bytes(self) -> None:
        """An item a line, whoever writes it; the images without a place come last."""
        out = io.BytesIO()
        with FeatureCollection(out, {"job_id": "é"}) as collection:
            collection.without_lonlat("1", "a.tif")
            collection.features(['{"n":1}', '{"n":2}'])
            collection.features(['{"n":3}'])
            collection.without_lonlat("2", "b.tif")
            collection.finish()
        assert out.getvalue().decode() == (
            '{"type":"FeatureCollection","frond":{"job_id":"é"},"features":[\n{"n":1},\n{"n":2},\n'
            '{"n":3}],"images_without_lonlat":[\n{"image_id":"1","image":"a.tif"},\n'
            '{"image_id":"2","image":"b.tif"}]}\n'
        )

    def test_detections_are_such_a_collection(self) -> None:
        """The common writer's bytes around them."""
        nowhere = image("n.tif", detections(3, 1), NOWHERE)
        out = io.BytesIO()
        with FeatureCollection(out, JOB.describe()) as collection:
            collection.without_lonlat(nowhere.outcome.image_id, "n.tif")
            collection.finish()
        assert job_files([nowhere])[0]["detections.geojson"] == out.getvalue()

    def test_geopandas_opens_it_where_the_objects_are(self, files: Files) -> None:
        """Each ring, taken back to the raster's CRS, lies on the box's corners to a centimetre."""
        frame = geopandas.read_file(io.BytesIO(files["detections.geojson"]))
        assert len(frame) == 40 + 20_000
        assert str(frame.crs).endswith("4326") or "CRS84" in str(frame.crs)
        assert frame.is_valid.all()
        back = frame[frame["image"] == "a.tif"].to_crs("EPSG:32633")
        a, _, c, _, e, f = UTM.transform or ()
        boxes = RESULTS[0].detections.boxes
        wanted = shapely.box(
            a * boxes[:, 0] + c, e * boxes[:, 3] + f, a * boxes[:, 2] + c, e * boxes[:, 1] + f
        )
        for got, want in zip(back.geometry, wanted, strict=True):
            assert shapely.hausdorff_distance(got, want) < 0.02

    def test_it_is_rfc_7946(self, files: Files) -> None:
        """No crs member, rings closed and counter-clockwise, seven decimals, null-safe members."""
        data = json.loads(files["detections.geojson"])
        assert "crs" not in data
        assert data["images_without_lonlat"] == [
            {"image_id": RESULTS[4].outcome.image_id, "image": "e.tif"}
        ]
        for f in data["features"][:200]:
            (ring,) = f["geometry"]["coordinates"]
            assert ring[0] == ring[-1] and len(ring) == 5
            assert shapely.LinearRing(ring).is_ccw
            assert all(round(v, 7) == v for p in ring for v in p)
        first = data["features"][0]
        assert first["id"] == f"{RESULTS[0].outcome.image_id}/1"
        assert first["properties"]["model_digest"] == MODEL.digest
        assert first["properties"]["class"] in JOB.classes

    @pytest.mark.parametrize("gsd", [0.05, 0.01, 0.002, 0.0005])
    def test_small_pixels_stay_apart(self, gsd: float) -> None:
        """Degrees have as many digits as the raster's pixels ask for: no box moves by half of one."""
        geo = Georeference(
            kind="affine", crs="EPSG:32633", transform=(gsd, 0.0, 500_000.0, 0.0, -gsd, 5_000_000.0)
        )
        found = detections(50, 1)
        data = job_files([image("a.tif", found, geo)])[0]["detections.geojson"]
        back = geopandas.read_file(io.BytesIO(data)).to_crs("EPSG:32633").bounds
        assert np.abs((back.minx - 500_000.0) / gsd - found.boxes[:, 0]).max() < 0.5

    def test_across_the_antimeridian(self) -> None:
        """Boxes over 180° become two parts that meet there; neighbours stay polygons."""
        boxes = [(390, 10, 410, 30), (10, 10, 30, 30), (500, 10, 520, 30)]
        found = Detections.of(boxes, [0.9, 0.8, 0.7], 0).sorted()
        data = json.loads(job_files([image("f.tif", found, FIJI)])[0]["detections.geojson"])
        kinds = [f["geometry"]["type"] for f in data["features"]]
        assert kinds == ["MultiPolygon", "Polygon", "Polygon"]
        parts = [p[0] for p in data["features"][0]["geometry"]["coordinates"]]
        assert [max(x for x, _ in p) for p in parts] == [180.0, -179.999]
        assert [min(x for x, _ in p) for p in parts] == [179.999, -180.0]
        (east,) = data["features"][2]["geometry"]["coordinates"]
        assert all(-180 <= x < -179.9 for x, _ in east)


class TestGeoParquet:
    def test_one_crs_is_kept(self, files: Files) -> None:
        """All georeferenced images in one CRS: the file is in it, exact corners, null without place."""
        frame = geopandas.read_parquet(io.BytesIO(files["detections.parquet"]))
        assert frame.crs == "EPSG:32633"
        assert len(frame) == COUNT
        assert frame[frame["image"] == "e.tif"].geometry.isna().all()
        mine = frame[frame["image"] == "a.tif"]
        boxes = RESULTS[0].detections.boxes
        assert np.array_equal(mine[["x0", "y0", "x1", "y1"]].to_numpy(), boxes)
        bounds = mine.geometry.bounds.to_numpy()
        assert np.allclose(bounds[:, 0], boxes[:, 0] * 0.5 + 500_000.0, atol=1e-9)
        assert np.allclose(bounds[:, 3], 5_000_000.0 - boxes[:, 1] * 0.5, atol=1e-9)
        assert all(g.exterior.is_ccw for g in mine.geometry)

    def test_its_metadata_is_that_of_the_standard(self, files: Files) -> None:
        """Version 1.1, WKB, PROJJSON, types, bounds and a covering that a reader can filter by."""
        meta = pq.read_metadata(io.BytesIO(files["detections.parquet"]))
        geo = json.loads(meta.metadata[b"geo"])
        column = geo["columns"]["geometry"]
        assert geo["version"] == "1.1.0"
        assert column["encoding"] == "WKB"
        assert column["geometry_types"] == ["Polygon"]
        assert column["crs"]["id"] == {"authority": "EPSG", "code": 32633}
        assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
        frame = geopandas.read_parquet(io.BytesIO(files["detections.parquet"]))
        assert np.allclose(column["bbox"], frame.total_bounds)
        some = geopandas.read_parquet(
            io.BytesIO(files["detections.parquet"]), bbox=tuple(frame.geometry.iloc[0].bounds)
        )
        assert 0 < len(some) < COUNT

    def test_different_crs_meet_in_lonlat(self) -> None:
        """Rasters of several CRSs: the job's file is CRS84, each image's own is in its own."""
        one, two = image("a.tif", detections(50, 1)), image("f.tif", detections(50, 2), FIJI)
        job = geopandas.read_parquet(io.BytesIO(job_files([one, two])[0]["detections.parquet"]))
        assert job.crs is not None and job.crs.is_geographic
        assert job.geometry.notna().all()
        assert (job.bounds.minx >= -180).all() and (job.bounds.maxx <= 180).all()
        own = geopandas.read_parquet(io.BytesIO(image_files(one)["detections.parquet"]))
        assert own.crs == "EPSG:32633"

    def test_small_images_share_row_groups(self) -> None:
        """A thousand images of few detections do not make a thousand row groups."""
        many = [image(f"{i:04d}.tif", detections(20, i)) for i in range(300)]
        meta = pq.read_metadata(io.BytesIO(job_files(many)[0]["detections.parquet"]))
        assert meta.num_rows == 6000
        assert meta.num_row_groups == 1

    def test_tables_that_wait_are_few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many images have one detection each; the file is the same."""
        many = [image(f"{i:04d}.tif", detections(1, i)) for i in range(100)]
        whole = job_files(many)[0]["detections.parquet"]
        monkeypatch.setattr(geoparquet, "_TABLES", 8)
        assert job_files(many)[0]["detections.parquet"] == whole
        out = geoparquet.GeoParquet(
            CountingSink(io.BytesIO()), JOB, geoparquet.FileCrs(lonlat=False, crs=UTM.crs)
        )
        for one in many:
            out.add(one)
            assert len(out._waiting) < 8
        assert len(out._packed) == 12


class TestSummary:
    def test_it_adds_up(self, files: Files) -> None:
        """Totals are the sum of images; each failure is there with its reason."""
        data = json.loads(files["summary.json"])
        assert (data["images_completed"], data["images_failed"]) == (4, 1)
        assert data["detections"] == COUNT == sum(c["count"] for c in data["classes"])
        assert data["failures"] == [
            {
                "name": "b.tif", "uri": "s3://b/b.tif", "reason": "not-a-raster",
                "detail": "These bytes are no raster.",
            }
        ]  # fmt: skip
        assert len(data["images"]) == 5
        for c in data["classes"]:
            assert sum(c["score_histogram"]) == c["count"]
            assert len(c["score_histogram"]) == 20

    def test_density_is_by_searched_ground(self) -> None:
        """0.25 km² with a quarter of its windows skipped: the count over the rest."""
        result = image("a.tif", detections(90, 1), skipped=9)
        data = json.loads(job_files([result])[0]["summary.json"])
        assert data["area_km2"] == pytest.approx(0.25, rel=1e-2)
        share = 1 - 9 / result.outcome.windows.total
        assert data["searched_km2"] == pytest.approx(0.25 * share, rel=1e-2)
        densities = [c["density_per_km2"] for c in data["classes"]]
        assert sum(densities) == pytest.approx(90 / data["searched_km2"], rel=1e-9)

    def test_no_place_no_density(self) -> None:
        """Without georeference there is no density, rather than a wrong one."""
        data = json.loads(job_files([image("e.tif", detections(5), NOWHERE)])[0]["summary.json"])
        assert [c["density_per_km2"] for c in data["classes"]] == [None, None]

    def test_notes_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The most frequent first, each with one image that has it; so many different ones at most."""

        results = [noted("a.tif", "x"), noted("b.tif", "y", "x"), noted("c.tif"), noted("d.tif", "y"),
                   noted("e.tif", "y", "a"), failure("f.tif")]  # fmt: skip
        told = json.loads(job_files(results)[0]["summary.json"])["notes"]
        assert [(n["note"], n["images"], n["example"]) for n in told] == [
            ("y", 3, "b.tif"), ("x", 2, "a.tif"), ("a", 1, "e.tif"),
        ]  # fmt: skip
        monkeypatch.setattr("frond.artifacts.summary.MOST_NOTES", 2)
        told = json.loads(job_files(results)[0]["summary.json"])["notes"]
        assert [(n["note"], n["images"]) for n in told] == [("y", 3), ("x", 2)]

    def test_a_note_is_one_note_whatever_its_figures(self) -> None:
        """Each image's own; an image counts once, however often it has it."""

        results = [noted("a.tif", "x of 0.31 m"), noted("b.tif", "x of 1,200.5 m", "x of 2 m"),
                   noted("c.tif", "x of -3.2e-05 m")]  # fmt: skip
        (told,) = json.loads(job_files(results)[0]["summary.json"])["notes"]
        assert told == {"note": "x of … m", "images": 3, "example": "a.tif"}

    def test_a_notes_figures_are_told_where_they_hold_for_all(self) -> None:
        """Those of one image would be read as those of all; the order of images changes nothing."""

        def told(*notes: tuple[str, ...]) -> object:
            results = [noted(f"{n}.tif", *said) for n, said in enumerate(notes)]
            one, other = (
                json.loads(job_files(order)[0]["summary.json"])["notes"]
                for order in (results, results[::-1])
            )
            assert one == other
            return one

        same = {"note": "x of 2 m", "images": 2, "example": "0.tif"}
        assert told(("x of 2 m",), ("x of 2 m",)) == [same]
        assert told(("x of 2 m",), ("x of 3 m",)) == [same | {"note": "x of … m"}]
        assert told(("x of 2 m", "x of 3 m")) == [same | {"note": "x of … m", "images": 1}]

    def test_area_is_geodesic(self) -> None:
        """At 17° south a degree of longitude is shorter: the ellipsoid's area, also across 180°."""
        got = area_km2(FIJI, 1000, 1000)
        assert got == pytest.approx(
            0.1 * 110.65 * 0.1 * 111.32 * np.cos(np.radians(17.05)), rel=5e-3
        )

    @pytest.mark.parametrize("west", [-180.0, 0.0])
    @pytest.mark.parametrize(("north", "km2"), [(90.0, 510_065_621.7), (60.0, 441_255_000.0)])
    def test_the_globe_has_its_area(self, west: float, north: float, km2: float) -> None:
        """All of the Earth, and more than half of it: an outline alone does not tell which side."""
        globe = Georeference(
            kind="affine", crs="EPSG:4326", transform=(0.1, 0.0, west, 0.0, -0.1, north)
        )
        assert area_km2(globe, 3600, round(20 * north)) == pytest.approx(km2, rel=1e-3)


def test_a_scale_that_was_estimated_is_said_to_be() -> None:
    """In COCO and STAC, and only then: what the raster says needs no word."""
    one = image("a.tif", detections(3))
    assert one.plan is not None
    other = replace(one, plan=one.plan.model_copy(update={"gsd_source": "estimated"}))
    for result, said in ((one, None), (other, "estimated")):
        coco = json.loads(image_files(result)["coco.json"])["images"][0]["frond"]
        stac = json.loads(image_files(result)["stac.json"])["properties"]
        assert (coco["gsd_m"], coco.get("gsd_source")) == (0.5, said)
        assert (stac["gsd"], stac.get("frond:gsd_source")) == (0.5, said)


@pytest.mark.parametrize(
    ("boxes", "kinds", "bounds"),
    [
        ([[60, 10, 70, 20], [100, 10, 110, 20]], ["Polygon"], (-180, 8, 177, 9)),
        ([[100, 10, 110, 20]], ["Polygon"], (-180, 8, -179, 9)),
        ([[90, 10, 100, 20]], ["Polygon"], (179, 8, 180, 9)),
        ([[95, 10, 105, 20]], ["MultiPolygon"], (-180, 8, 180, 9)),
        ([[60, 10, 70, 20], [95, 10, 105, 20]], ["MultiPolygon", "Polygon"], (-180, 8, 180, 9)),
    ],
)
def test_geoparquet_tells_what_it_has_at_the_antimeridian(
    boxes: list[list[float]], kinds: list[str], bounds: tuple[float, ...]
) -> None:
    """A box that only touches it is one polygon in its own bbox; so says the file's head."""
    geo = Georeference(kind="affine", crs="EPSG:4326", transform=(0.1, 0, 170, 0, -0.1, 10))
    other = Georeference(kind="affine", crs="EPSG:4267", transform=(0.1, 0, 100, 0, -0.1, 10))
    n = len(boxes)
    found = Detections.of(np.array(boxes, float), np.full(n, 0.9), np.zeros(n, int), 0)
    results = [
        image("a.tif", found, geo, size=(200, 100)),
        image("b.tif", Detections.empty(), other),
    ]
    table = pq.read_table(io.BytesIO(job_files(results)[0]["detections.parquet"]))
    column = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    shapes = [shapely.from_wkb(g.as_py()) for g in table["geometry"]]
    assert column["geometry_types"] == kinds == sorted({s.geom_type for s in shapes})
    assert column["bbox"] == pytest.approx(bounds)
    for shape, box in zip(shapes, table["bbox"].to_pylist(), strict=True):
        assert tuple(box.values()) == pytest.approx(shape.bounds)


def test_the_same_job_gives_the_same_bytes() -> None:
    """Twice the same input, twice the same files, and the artifacts' sums are those of the files."""
    one, made = job_files(RESULTS)
    two, _ = job_files(RESULTS)
    assert list(one) == list(two)
    assert one == two
    assert tuple(a.name for a in made) == JOB_ARTIFACTS
    for a in made:
        assert (a.size, a.sha256) == (len(one[a.name]), sha256(one[a.name]).hexdigest())


def test_a_job_of_nothing_still_has_its_files() -> None:
    """All images failed, or none came: every file is there and can be read."""
    for results in ([], [failure("b.tif")]):
        files, _ = job_files(results, JobInfo("empty"))
        assert json.loads(files["coco.json"])["annotations"] == []
        assert json.loads(files["coco-results.json"]) == []
        assert json.loads(files["detections.geojson"])["features"] == []
        assert len(geopandas.read_parquet(io.BytesIO(files["detections.parquet"]))) == 0
        assert json.loads(files["summary.json"])["images_failed"] == len(results)


def test_a_file_that_was_not_finished_does_not_appear() -> None:
    """An error while images are read leaves nothing behind."""
    from frond.artifacts import write_job

    def broken():  # type: ignore[no-untyped-def]
        yield RESULTS[0]
        raise OSError("the store went away")

    files = Files()
    with pytest.raises(OSError, match="went away"):
        write_job(broken(), [], JOB, files.open, str)
    assert not files


@settings(max_examples=20, deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_any_name_an_image_may_have(name: str) -> None:
    """Quotes, backslashes, percent signs, line ends, other scripts: the files stay readable."""
    plain = image("x", detections(3))
    result = replace(plain, outcome=plain.outcome.model_copy(update={"name": name}))
    files, _ = job_files([result])
    assert json.loads(files["coco.json"])["images"][0]["file_name"] == name
    assert json.loads(files["detections.geojson"])["features"][0]["properties"]["image"] == name
    assert json.loads(files["summary.json"])["images"][0]["name"] == name


def test_an_image_has_its_own_files() -> None:
    """Per image: COCO, GeoJSON, GeoParquet and a STAC item, of that image alone."""
    files = image_files(RESULTS[0])
    assert set(files) == set(IMAGE_ARTIFACTS)
    assert len(json.loads(files["coco.json"])["annotations"]) == 40
    assert len(json.loads(files["detections.geojson"])["features"]) == 40


SOFTWARE = f"frond {version('frond-artifacts')}"


def test_a_jobs_files_say_how_each_detection_came_to_be(files: Files) -> None:
    """Software and model in the head; what came in and the plan by image, beside each detection where a
    file has nothing of images. The bare list of COCO has ``coco.json`` to tell of it."""
    plans = {r.outcome.image_id: r.plan.plan_digest for r in RESULTS if r.plan}
    assert len(set(plans.values())) == len(plans)
    summary, coco, geojson = (
        json.loads(files[n]) for n in ("summary.json", "coco.json", "detections.geojson")
    )
    table = pq.read_table(io.BytesIO(files["detections.parquet"]))
    heads = (summary, coco["info"]["frond"], geojson["frond"],
             json.loads(table.schema.metadata[b"frond"]))  # fmt: skip
    for head in heads:
        assert (head["generator"], head["model"]["digest"]) == (SOFTWARE, MODEL.digest)
    rows = [i for i in summary["images"] if i["status"] == "completed"]
    assert {i["image_id"]: (i["checksum"], i["plan_digest"]) for i in rows} == {
        image_id: ("etag-1", digest) for image_id, digest in plans.items()
    }
    beside: list[dict[str, Any]] = [f["properties"] for f in geojson["features"]]
    beside += table.select(["image_id", "image_checksum", "plan_digest"]).to_pylist()
    assert len(beside) == COUNT - 30 + COUNT
    for one in beside:
        assert one["image_checksum"] == "etag-1"
        assert one["plan_digest"] == plans[one["image_id"]]


@pytest.mark.parametrize("found", [detections(3), Detections.empty()], ids=["some", "none"])
def test_an_images_files_say_how_they_came_to_be(found: Detections) -> None:
    """Also where nothing was found that could tell of it."""
    result = image("a.tif", found)
    assert result.plan is not None
    files = image_files(result)
    about = {
        "image_id": result.outcome.image_id, "image_checksum": "etag-1",
        "plan_digest": result.plan.plan_digest, "generator": SOFTWARE,
    }  # fmt: skip
    parquet = pq.read_metadata(io.BytesIO(files["detections.parquet"])).metadata[b"frond"]
    for head in (json.loads(files["detections.geojson"])["frond"], json.loads(parquet)):
        assert head.items() >= about.items()
        assert head["model"]["digest"] == MODEL.digest
    (coco,) = (i["frond"] for i in json.loads(files["coco.json"])["images"])
    assert (coco["checksum"], coco["plan_digest"]) == ("etag-1", about["plan_digest"])
    item = json.loads(files["stac.json"])
    told = item["properties"] | {"frond:image_id": item["id"]}
    assert told.items() >= {f"frond:{k}": v for k, v in about.items()}.items()
    assert told["frond:model_digest"] == MODEL.digest
