"""From chunk files to a class raster and polygons."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from masks_support import AFFINE, certain, cut, manifest_of, plan_of, put_chunks

from frond.contracts.colours import class_colour
from frond.contracts.errors import ModelRejected, RasterRejected
from frond.contracts.jobs import Thresholds
from frond.contracts.plan import Georeference, ImagePlan, WindowGrid
from frond.contracts.reasons import Reason
from frond.masks import Built, build
from frond.masks.codec import Planes
from frond.masks.table import Polygons, from_ipc

GRID = WindowGrid(width=150, height=110, size=64, margin=8)


def blobs(grid: WindowGrid, classes: int, seed: int) -> np.ndarray[Any, Any]:
    """A mask of patches of all classes, unclassified and nodata."""
    rng = np.random.default_rng(seed)
    values = rng.choice([255, *range(classes + 1)], (grid.height // 8 + 1, grid.width // 8 + 1))
    return values.repeat(8, 0).repeat(8, 1)[: grid.height, : grid.width].astype(np.uint8)


def prepared(
    folder: Path, planes: Planes, grid: WindowGrid = GRID, each: int = 4, **more: Any
) -> ImagePlan:
    chunks = list(grid.blocks(each))
    plan = plan_of(grid, chunks=len(chunks), windows_per_chunk=each, **more)
    put_chunks(folder, plan, chunks, cut(planes, grid))
    return plan


def read(built: Built) -> tuple[np.ndarray[Any, Any], Polygons]:
    with rasterio.open(built.classes) as raster:
        values = raster.read(1)
    return values, from_ipc(built.polygons.read_bytes())[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 4), st.integers(1, 60), st.integers(1, 9))
def test_a_mask_comes_back_as_raster_and_polygons(
    tmp_path_factory: pytest.TempPathFactory, seed: int, classes: int, min_area: int, each: int
) -> None:
    """The raster is the mask; polygons' areas are its pixels, but of what is too small."""
    folder = tmp_path_factory.mktemp("masks")
    mask = blobs(GRID, classes, seed)
    plan = prepared(folder, certain(mask, classes), each=each)
    built = build(folder, plan, manifest_of(classes, min_area=min_area))
    values, polygons = read(built)
    np.testing.assert_array_equal(values, mask)
    assert built.pixels == tuple(int((mask == c + 1).sum()) for c in range(classes))
    assert built.unclassified == (mask == 0).sum()
    assert built.nodata == (mask == 255).sum()
    assert len(polygons) == built.regions
    assert (polygons.areas >= min_area).all()
    assert (polygons.scores == 1).all()
    if min_area == 1:
        for c in range(classes):
            assert polygons.areas[polygons.classes == c].sum() == (mask == c + 1).sum()
    firsts = [tuple(polygons.exterior(k)[0][::-1]) for k in range(len(polygons))]
    order = list(zip(polygons.classes.tolist(), firsts, strict=True))
    assert order == sorted(order)


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    """Also when the windows come in other chunks: of that only the plan's digest tells."""
    rng = np.random.default_rng(0)
    planes = rng.integers(1, 256, (4, GRID.height, GRID.width), np.uint8)
    made, digests = [], []
    for n, each in enumerate((2, 2, 5)):
        folder = tmp_path / str(n)
        folder.mkdir()
        plan = prepared(folder, planes, each=each, georeference=AFFINE)
        built = build(folder, plan, manifest_of(3, min_area=2))
        digests.append(plan.plan_digest.encode())
        made.append((built.classes.read_bytes(), read(built)[1]))
        assert sorted(p.name for p in folder.iterdir() if len(p.stem) != 32) == [
            "classes.tif",
            "polygons.arrow",
        ]
    assert made[0][0] == made[1][0] == made[2][0].replace(digests[2], digests[0])
    for name in ("points", "rings", "scores"):
        np.testing.assert_array_equal(getattr(made[0][1], name), getattr(made[2][1], name))
    one, two = tmp_path / "0" / "polygons.arrow", tmp_path / "1" / "polygons.arrow"
    assert one.read_bytes() == two.read_bytes()


def test_it_is_a_cog_that_says_what_it_holds(tmp_path: Path) -> None:
    """Blocks of 512, overviews by the nearest pixel, nodata, colours, names, and its place."""
    grid = WindowGrid(width=1500, height=1100, size=512, margin=64, scale=0.5)
    mask = blobs(grid, 3, 1)
    plan = prepared(tmp_path, certain(mask, 3), grid, georeference=AFFINE)
    built = build(tmp_path, plan, manifest_of(3))
    with rasterio.open(built.classes) as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.compression.value == "DEFLATE"
        assert raster.block_shapes == [(512, 512)]
        assert raster.overviews(1) == [2, 4]
        assert raster.nodata == 255
        assert raster.crs.to_epsg() == 32631
        # a pixel of the grid is two of the raster
        assert raster.transform[:6] == (1.0, 0.0, 500_000.0, 0.0, -1.0, 4_500_000.0)
        assert json.loads(raster.tags()["classes"]) == {
            "0": "unclassified", "1": "class 0", "2": "class 1", "3": "class 2",
        }  # fmt: skip
        colours = raster.colormap(1)
        assert [colours[n][:3] for n in (1, 2, 3)] == [class_colour(n) for n in range(3)]
        assert len({colours[n] for n in (1, 2, 3)}) == 3
        small = raster.read(1, out_shape=(550, 750))
    assert set(np.unique(small)) <= set(np.unique(mask))
    _, polygons = read(built)
    assert (polygons.points % (1 / 256) == 0).all()
    assert polygons.points.max() <= 3000
    assert polygons.areas.sum() == pytest.approx(4 * ((mask > 0) & (mask < 255)).sum())


def test_its_tags_say_how_it_came_to_be(tmp_path: Path) -> None:
    """Who holds the raster alone knows the software, what came in, the model and the plan. The job's id
    is in none of it: another job of the same image gives the same bytes."""
    made = []
    for n, job in enumerate(("survey", "another")):
        folder = tmp_path / str(n)
        folder.mkdir()
        own = {"job_id": job, "image_id": str(n) * 32}
        planes = certain(blobs(GRID, 2, 1), 2)
        plan = prepared(folder, planes).model_copy(update=own)
        put_chunks(folder, plan, GRID.blocks(4), cut(planes, GRID))
        made.append(build(folder, plan, manifest_of(2)))
    with rasterio.open(made[0].classes) as raster:
        tags = raster.tags()
    assert tags.items() >= {
        "generator": f"frond {version('frond-masks')}", "image": "s3://b/k.tif", "image_checksum": "e",
        "model": "cover", "model_version": "1", "model_digest": "0" * 64,
        "plan_digest": plan.plan_digest,
    }.items()  # fmt: skip
    assert made[0].classes.read_bytes() == made[1].classes.read_bytes()
    _, about = from_ipc(made[0].polygons.read_bytes())
    assert about == {"image_id": "0" * 32} | {k: tags[k] for k in about if k != "image_id"}
    assert about["image_checksum"] == "e"


@pytest.mark.parametrize("scale", [0.3, 0.9, 1.7])
def test_areas_are_of_what_lies_in_the_raster(tmp_path: Path, scale: float) -> None:
    """Regions at the right and lower edge are as large as their polygons, where the last scaled pixels
    reach beyond the raster; holes count as nothing."""
    width, height = 137, 101
    grid = WindowGrid(
        width=math.ceil(width * scale), height=math.ceil(height * scale), size=64, margin=8,
        scale=scale,
    )  # fmt: skip
    mask = np.ones((grid.height, grid.width), np.uint8)
    mask[4:12, 6:20] = 0
    mask[-5:, -7:] = 2
    chunks = list(grid.blocks(4))
    plan = plan_of(grid, chunks=len(chunks), windows_per_chunk=4)
    source = plan.source.model_copy(update={"width": width, "height": height})
    plan = plan.model_copy(update={"source": source})
    put_chunks(tmp_path, plan, chunks, cut(certain(mask, 2), grid))
    _, polygons = read(build(tmp_path, plan, manifest_of(2, min_area=1)))
    shapes = [
        shapely.Polygon(polygons.exterior(k), polygons.holes(k)) for k in range(len(polygons))
    ]
    assert [len(s.interiors) for s in shapes] == [1, 0]
    assert polygons.areas.tolist() == pytest.approx([s.area for s in shapes], rel=1e-12)
    hole = shapely.Polygon(polygons.holes(0)[0]).area
    assert polygons.areas.sum() == pytest.approx(width * height - hole, rel=1e-12)


def test_what_lies_beyond_the_raster_is_no_polygon(tmp_path: Path) -> None:
    """A region of the last scaled column alone, of which the raster has less than a step of the lattice:
    it has no area, and is not counted; the others keep their holes."""
    scale = 0.5000005
    grid = WindowGrid(width=501, height=51, size=64, margin=8, scale=scale)
    mask = np.ones((grid.height, grid.width), np.uint8)
    mask[4:12, 6:20] = 0
    mask[:20, -1] = 2
    mask[30:40, 100:120] = 2
    chunks = list(grid.blocks(4))
    plan = plan_of(grid, chunks=len(chunks), windows_per_chunk=4)
    source = plan.source.model_copy(update={"width": 1000, "height": 100})
    plan = plan.model_copy(update={"source": source})
    put_chunks(tmp_path, plan, chunks, cut(certain(mask, 2), grid))
    built = build(tmp_path, plan, manifest_of(2, min_area=1))
    _, polygons = read(built)
    assert built.regions == len(polygons) == 2
    assert built.pixels[1] == 20 + 200
    shapes = [
        shapely.Polygon(polygons.exterior(k), polygons.holes(k)) for k in range(len(polygons))
    ]
    assert [len(s.interiors) for s in shapes] == [2, 0]
    assert polygons.classes.tolist() == [0, 1]
    assert polygons.areas.tolist() == pytest.approx([s.area for s in shapes], rel=1e-12)


@pytest.mark.parametrize("code", [4326, None])
def test_control_points_are_kept(tmp_path: Path, code: int | None) -> None:
    """A raster that is placed by GCPs gives a class raster that is, at its own scale; a CRS they
    need not have."""
    points = ((0.0, 0.0, 10.0, 50.0, 0.0), (220.0, 0.0, 10.0, 49.0, 0.0), (0.0, 300.0, 11.0, 50.0, 0.0))  # fmt: skip
    grid = GRID.model_copy(update={"scale": 0.5})
    geo = Georeference(kind="gcps", crs=code and f"EPSG:{code}", gcps=points)
    plan = prepared(tmp_path, certain(blobs(grid, 1, 0), 1), grid, georeference=geo)
    with rasterio.open(build(tmp_path, plan, manifest_of(1)).classes) as raster:
        kept, crs = raster.gcps
    assert (crs and crs.to_epsg()) == code
    assert [(p.row * 2, p.col * 2, p.x, p.y, p.z) for p in kept] == list(points)


def test_an_image_without_a_place(tmp_path: Path) -> None:
    """No CRS is fine."""
    plan = prepared(tmp_path, certain(blobs(GRID, 2, 3), 2))
    with rasterio.open(build(tmp_path, plan, manifest_of(2)).classes) as raster:
        assert raster.crs is None


def test_what_a_job_asks_for_counts(tmp_path: Path) -> None:
    """A job's score overrides the model's."""
    planes = np.full((2, GRID.height, GRID.width), 128, np.uint8)
    for score, whole in ((0.5, True), (0.51, False)):
        plan = prepared(tmp_path, planes, thresholds=Thresholds(score=score))
        built = build(tmp_path, plan, manifest_of(1, score=0.9))
        assert (built.unclassified == 0) is whole
        assert read(built)[1].scores.tolist() == ([pytest.approx(128 / 255, abs=1e-6)] if whole else [])  # fmt: skip


def test_skipped_windows_are_nodata(tmp_path: Path) -> None:
    """Only what no window that ran has seen."""
    grid = WindowGrid(width=64 + 48, height=64, size=64, margin=8)
    plan = plan_of(grid, chunks=1, skipped=1)
    planes = np.full((2, 64, 112), 200, np.uint8)
    put_chunks(tmp_path, plan, [[0]], cut(planes, grid))
    built = build(tmp_path, plan, manifest_of(1))
    values, _ = read(built)
    assert (values[:, :64] == 1).all()
    assert (values[:, 64:] == 255).all()


def test_a_hole_in_the_chunks_is_an_error(tmp_path: Path) -> None:
    """A missing chunk, one that is damaged, or windows that nobody ran never become nodata."""
    plan = prepared(tmp_path, certain(blobs(GRID, 1, 0), 1))
    with pytest.raises(ValueError, match="the plan runs"):
        build(tmp_path, plan.model_copy(update={"windows_skipped": 1}), manifest_of(1))
    chunk = sorted(tmp_path.glob("*.arrow"))[0]
    data = chunk.read_bytes()
    chunk.write_bytes(data[:-9])
    with pytest.raises(ValueError, match="no Arrow file"):
        build(tmp_path, plan, manifest_of(1))
    chunk.unlink()
    with pytest.raises(ValueError, match="not there"):
        build(tmp_path, plan, manifest_of(1))
    assert not list(tmp_path.glob("*.tif*"))


def test_what_cannot_be_built_says_so(tmp_path: Path) -> None:
    """Too many outlines, too many classes and a min_area that is no number."""
    plan = prepared(tmp_path, certain(blobs(GRID, 2, 5), 2))
    with pytest.raises(RasterRejected) as e:
        build(tmp_path, plan, manifest_of(2), most_corners=10)
    assert e.value.reason is Reason.TOO_MANY
    assert not list(tmp_path.glob("*.tif"))
    for manifest in (manifest_of(255), manifest_of(2, min_area="16"), manifest_of(2, min_area=-1)):
        with pytest.raises(ModelRejected):
            build(tmp_path, plan, manifest)


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    """In a process of its own; who is at fault is told apart by the exit status."""
    plan = prepared(tmp_path, certain(blobs(GRID, 2, 7), 2))
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    for manifest, status in ((manifest_of(2), 0), (manifest_of(2, min_area="x"), 3)):
        (tmp_path / "model.json").write_text(manifest.model_dump_json())
        files = [str(tmp_path), str(tmp_path / "plan.json"), str(tmp_path / "model.json")]
        done = subprocess.run(
            [sys.executable, "-m", "frond.masks", *files], capture_output=True, check=False
        )
        assert done.returncode == status, done.stderr
        said = json.loads(done.stdout)
        assert said["regions" if status == 0 else "detail"]
    assert from_ipc((tmp_path / "polygons.arrow").read_bytes())[1]["image_id"] == plan.image_id
