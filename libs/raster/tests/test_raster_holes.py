from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from frond.contracts.modelspec import ModelManifest
from frond.contracts.plan import ImagePlan, Radiometry
from frond.raster import RasterReader, holes, inspect, make_tiled, open_raster, slow

Make = Callable[..., Path]
Scene = Callable[..., np.ndarray]
PlanOf = Callable[..., ImagePlan]
Manifest = Callable[..., ModelManifest]
Bools = np.ndarray

KINDS = ["nodata", "nodata and NaN", "NaN, tagged", "NaN", "infinite", "alpha", "mask", "nothing"]
SCALES = [0.14, 0.6, 1.7]


@pytest.fixture
def written(make_raster: Make, scene: Scene) -> Callable[..., Path]:
    """A float raster of 300×400 with 2 % of its pixels, and one area, that mean nothing."""
    data = scene().astype(np.float32)
    hole = np.random.default_rng(3).random(data.shape[1:]) < 0.02
    hole[100:200, 80:180] = True

    def make(kind: str, **kwargs: Any) -> Path:
        holed, more = data.copy(), dict(kwargs)
        if kind.startswith("nodata"):
            holed[:, hole] = more["nodata"] = -9999.0
        if "NaN" in kind:
            # in one band of three it is enough
            holed[:1, hole & (np.arange(400) % 2 == 0) if "and" in kind else hole] = np.nan
        if kind == "NaN, tagged":
            more["nodata"] = np.nan
        if kind == "infinite":
            holed[1:, hole] = -np.inf
        shown = np.where(hole, 0, 255).astype(np.float32)
        if kind == "alpha":
            holed = np.concatenate([holed, shown[None]])
            more |= {"photometric": "RGB", "alpha": "yes"}
        if kind == "mask":
            more["mask"] = shown.astype(np.uint8)
        return make_raster(holed, name=f"{kind}.tif", **more)

    return make


def seen(plan: ImagePlan) -> tuple[np.ndarray, Bools]:
    """All that windows show, with one radiometry for all kinds, and what of it means something."""
    radiometry = Radiometry(mode="stretch", low=(0.0,) * 3, high=(255.0,) * 3, fill=(0, 0, 0))
    source = plan.source.model_copy(update={"radiometry": radiometry})
    pixels = np.zeros((3, plan.grid.height, plan.grid.width), np.int64)
    valid = np.ones(pixels.shape[1:], np.bool_)
    with RasterReader(source, plan.grid) as reader:
        for i in range(plan.grid.count):
            w, box = reader.read(i), plan.grid.window(i)
            at = slice(box.y0, box.y1), slice(box.x0, box.x1)
            pixels[:, *at] = w.data[:, : box.height, : box.width]
            if w.valid is not None:
                valid[at] = w.valid[: box.height, : box.width]
    return pixels, valid


@pytest.mark.parametrize("scale", SCALES)
def test_what_means_nothing_is_left_out_however_it_is_said(
    written: Callable[..., Path], plan_of: PlanOf, manifest: Manifest, scale: float
) -> None:
    """At any scale a pixel is seen that has anything valid to be made of, by a tag or without one, and
    is made of that alone."""
    model = manifest(gsd_m=0.5 / scale)
    got = {kind: seen(plan_of(written(kind), model)) for kind in KINDS}
    whole, every = got.pop("nothing")
    assert every.all()
    pixels, valid = got["nodata"]
    # the area of nothing is 100×100 of 300×400; not much is lost around it, and at 1.7 to single ones
    assert 0.85 < valid.mean() < 0.93
    for kind, (own, shown) in got.items():
        differing = (shown != valid).mean()
        # a mask's edge lies in the middle between what it hides and what it does not
        assert differing <= (0.02 if kind == "mask" else 0), kind
        both = shown & valid
        assert np.abs(own - whole)[:, both].mean() < 2, kind
        if kind not in ("alpha", "mask", "NaN, tagged"):
            assert np.abs(own - pixels)[:, both].max() <= 1, kind


def test_steps_of_little_memory_show_the_same(
    written: Callable[..., Path], plan_of: PlanOf, manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = written("NaN")
    for scale in SCALES:
        plan = plan_of(path, manifest(gsd_m=0.5 / scale))
        pixels, valid = seen(plan)
        with monkeypatch.context() as patch:
            patch.setattr(holes, "_STEP_BYTES", 40_000)
            again, shown = seen(plan)
        assert np.abs(pixels - again).max() <= 1
        assert np.array_equal(valid, shown)


def test_without_nan_nothing_is_read_twice(
    written: Callable[..., Path], plan_of: PlanOf, manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("frond.raster.reader.around_holes", None)
    for kind in ("nothing", "nodata"):
        seen(plan_of(written(kind), manifest(gsd_m=1.0)))


@pytest.mark.parametrize("scale", [0.14, 0.3])
def test_an_overview_is_read_where_there_is_one(
    written: Callable[..., Path], plan_of: PlanOf, manifest: Manifest, scale: float,
) -> None:  # fmt: skip
    """The same as where NaN is tagged, and GDAL chooses the overview."""
    model = manifest(gsd_m=0.5 / scale)
    got = [
        seen(plan_of(written(kind, after=lambda out: out.build_overviews([2, 4])), model))
        for kind in ("NaN", "nodata")
    ]
    (pixels, valid), (others, shown) = got
    assert (valid != shown).mean() < 0.01
    assert np.abs(pixels - others)[:, valid & shown].mean() < 0.5


def test_the_overviews_of_a_copy_leave_nan_out(
    written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow, "_BLOCK", 128)
    copy = tmp_path / "copy.tif"
    with open_raster(str(written("NaN"))) as ds:
        make_tiled(ds, inspect(ds), copy)
    with rasterio.open(copy, overview_level=1) as ds:
        assert ds.width == 100
        # the area alone
        assert np.isnan(ds.read(1)).mean() < 0.1
