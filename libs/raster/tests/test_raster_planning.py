from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from frond.contracts.errors import RasterRejected
from frond.contracts.ids import chunk_id
from frond.contracts.jobs import ModelRef, Shadow
from frond.contracts.plan import MOST_WINDOWS_AN_IMAGE, ImagePlan, WindowGrid
from frond.contracts.reasons import Reason
from frond.raster import (
    Limits,
    RasterReader,
    chunks_of,
    inspect,
    make_tiled,
    open_raster,
    pack_bitmap,
    unpack_bitmap,
)
from frond.raster.sampling import sample, sample_windows
from frond.raster.skip import empty_windows
from frond.raster.validity import Validity, validity_of

Make = Callable[..., Path]
Scene = Callable[..., np.ndarray]
PlanOf = Callable[..., ImagePlan]


def skipped(plan: ImagePlan) -> set[int]:
    return set(np.flatnonzero(unpack_bitmap(plan.skipped, plan.grid.count)).tolist())


def test_the_same_raster_gives_the_same_plan(
    make_raster: Make, scene: Scene, plan_of: PlanOf
) -> None:
    path = make_raster(scene())
    assert plan_of(path) == plan_of(path)
    assert plan_of(path).plan_digest == plan_of(path).plan_digest


def test_chunks(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    """Consecutive ordinals, ids from the plan, each window once."""
    plan = plan_of(make_raster(scene(rows=900, cols=1100)), windows_per_chunk=6)
    chunks = list(chunks_of(plan))
    assert [c.ordinal for c in chunks] == list(range(plan.chunks))
    assert {c.chunks for c in chunks} == {plan.chunks}
    assert sorted(w for c in chunks for w in c.windows) == list(range(plan.grid.count))
    assert chunks[2].chunk_id == chunk_id(plan.image_id, plan.plan_digest, 2)


@pytest.mark.parametrize(
    ("size", "bands", "batch", "gsd", "more", "windows", "block"),
    [
        (512, 3, None, None, {}, 32, 30), (640, 3, None, None, {}, 20, 20),
        (1024, 3, None, None, {}, 8, 6), (1024, 1, None, None, {}, 24, 20),
        (64, 3, None, None, {}, 128, 121), (4096, 3, None, None, {}, 1, 1),
        (64, 3, None, None, {"windows_per_chunk": 6}, 6, 6),
        (512, 3, None, None, {"chunk_mb": 48}, 64, 64),
        # a batch that the manifest fixes is full, or nearly
        (256, 3, 8, None, {"chunk_mb": 1}, 16, 16), (256, 3, 8, None, {"chunk_mb": 4}, 30, 30),
        (256, 3, 8, None, {"windows_per_chunk": 4}, 4, 4),
        # of a raster that is seen at half, a quarter, a 16th of its resolution, more has to be read
        (256, 3, None, 1.0, {}, 128, 121), (256, 3, None, 2.0, {}, 64, 64),
        (256, 3, None, 8.0, {}, 4, 4),
    ],
)  # fmt: skip
def test_a_chunk_is_as_many_windows_as_memory_is_meant_for(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any,
    size: int, bands: int, batch: int | None, gsd: float | None, more: dict[str, int],
    windows: int, block: int,
) -> None:  # fmt: skip
    """24 MiB of them unless it is told otherwise, 128 at most, and eight times as much to be read; one
    window, and batches that a manifest fixes, go first."""
    model = manifest(size=size, margin=0, bands=tuple(range(1, bands + 1)), gsd_m=gsd)
    model = model.model_copy(update={"input": model.input.model_copy(update={"batch": batch})})
    side = 7 * size if batch else 16
    path = make_raster(
        scene(rows=side, cols=side), transform=from_origin(500_000, 0, 0.5 * 0.9996, 0.5 * 0.9996)
    )
    plan = plan_of(path, model, **more)
    assert plan.windows_per_chunk == windows
    large = plan.grid.model_copy(update={"width": 20 * size, "height": 20 * size})
    assert len(next(large.blocks(windows))) == block


def test_a_shadow_changes_no_plan(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    """It travels with each chunk; ids, and all that results' bytes hang on, are those without it."""
    path = make_raster(scene(rows=900, cols=1100))
    shadow = Shadow(model=ModelRef(name="m", digest="b" * 64), share=0.2)
    plain, beside = plan_of(path), plan_of(path, shadow=shadow)
    assert beside.plan_digest == plain.plan_digest
    assert beside.model_copy(update={"shadow": None}) == plain
    chunks = list(
        chunks_of(ImagePlan.model_validate_json(beside.model_dump_json(exclude_none=True)))
    )
    assert {c.shadow for c in chunks} == {shadow}
    assert [c.model_copy(update={"shadow": None}) for c in chunks] == list(chunks_of(plain))
    assert '"shadow":' not in plain.model_dump_json(exclude_none=True)


@pytest.mark.parametrize(
    ("gsd", "scale", "width"),
    [(0.5, 1.0, 400), (0.505, 1.0, 400), (1.0, 0.5, 200), (0.25, 2.0, 800), (None, 1.0, 400)],
)
def test_windows_are_at_the_models_gsd(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any,
    gsd: float | None, scale: float, width: int,
) -> None:  # fmt: skip
    """Within 2 % nothing is resampled."""
    # on the central meridian a UTM metre is 0.9996 of one on the ground
    path = make_raster(scene(), transform=from_origin(500_000, 0, 0.5 * 0.9996, 0.5 * 0.9996))
    plan = plan_of(path, manifest(gsd_m=gsd))
    assert plan.grid.scale == pytest.approx(scale, rel=1e-4)
    assert abs(plan.grid.width - width) <= 1


@pytest.mark.parametrize(("gsd", "scale"), [(0.05, 1.0), (30.0, 1 / 16)])
def test_absurd_scales_are_limited_and_said(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any, gsd: float, scale: float
) -> None:
    plan = plan_of(make_raster(scene()), manifest(gsd_m=gsd))
    assert plan.grid.scale == scale
    assert any("0.5 m" in n for n in plan.notes)


def test_unknown_gsd_is_said(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any
) -> None:
    plan = plan_of(make_raster(scene(), crs=None, transform=None), manifest(gsd_m=0.1))
    assert plan.grid.scale == 1.0
    assert any("not known" in n for n in plan.notes)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_what_a_stretch_makes_of_samples_is_said(
    make_raster: Make, scene: Scene, plan_of: PlanOf, dtype: str
) -> None:
    """Which samples the model sees as black and white, band by band, in the file's numbering; a band
    that says nothing is told to. Bytes go in as they are, and there is nothing to say."""
    data = scene().astype(dtype)
    if dtype != "uint8":
        data = data * np.array(3, dtype) - np.array(40 if dtype != "uint16" else 0, dtype)
        data[2] = 17
    plan = plan_of(make_raster(data))
    told = [n for n in plan.notes if "percentile" in n]
    if dtype == "uint8":
        assert told == []
        return
    low, high = np.percentile(data[0].astype(float), [2, 98])
    assert len(told) == 1
    assert told[0].startswith(f"{dtype} samples seen as 0 to 255")
    assert f"band 1 from {low:.6g} to {high:.6g}, band 2 from " in told[0]
    assert told[0].endswith("band 3 is 17 throughout")


def test_a_bands_own_nodata_is_no_measurement_of_it(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any
) -> None:
    """Where one band alone has its nodata value the pixel is seen, but that value is left out of the
    band's stretch; a band of nothing else is stretched all the same."""
    data = scene(bands=4).astype(np.float32)
    heights = np.random.default_rng(1).uniform(0, 25, data[3].shape).astype(np.float32)
    data[3] = heights
    data[3, :30] = -9999
    plan = plan_of(make_raster(data, nodata=-9999.0), manifest(bands=(1, 4)))
    assert plan.windows_skipped == 0
    low, high = np.percentile(heights[30:].astype(float), [2, 98])
    seen = plan.source.radiometry
    assert (seen.low[1], seen.high[1]) == pytest.approx((low, high))
    assert 120 <= seen.fill[1] <= 135
    data[3] = -9999
    path = make_raster(data, name="void.tif", nodata=-9999.0)
    assert plan_of(path, manifest(bands=(1, 4))).source.radiometry.low[1] == -9999


def test_grey_is_not_tripled(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    with pytest.raises(RasterRejected) as e:
        plan_of(make_raster(scene(bands=1)))
    assert e.value.reason is Reason.MISSING_BANDS
    assert "1 band." in e.value.detail


def test_alpha_is_no_band_of_the_model(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any
) -> None:
    """Bands are counted without it, wherever it is; near infrared is a band like any other."""
    with_alpha = make_raster(scene(bands=4), photometric="RGB", alpha="yes")
    assert plan_of(with_alpha).source.bands == (1, 2, 3)
    with pytest.raises(RasterRejected) as e:
        plan_of(with_alpha, manifest(bands=(1, 2, 4)))
    assert e.value.reason is Reason.MISSING_BANDS
    assert "alpha" in e.value.detail
    with_nir = make_raster(scene(bands=4), name="nir.tif", photometric="RGB", alpha="no")
    assert plan_of(with_nir, manifest(bands=(4, 1, 2))).source.bands == (4, 1, 2)

    def first(out: Any) -> None:
        out.colorinterp = [ColorInterp.alpha, ColorInterp.red, ColorInterp.green, ColorInterp.blue]

    odd = make_raster(scene(bands=4), name="argb.tif", photometric="MINISBLACK", after=first)
    assert plan_of(odd).source.bands == (2, 3, 4)


@pytest.mark.parametrize("kind", ["near infrared", "binary", "feathered", "faded"])
def test_near_infrared_that_is_tagged_as_alpha_is_told_of(
    make_raster: Make, scene: Scene, plan_of: PlanOf, kind: str
) -> None:
    """GDAL tags the fourth band of 8-bit imagery as alpha; what says 0 there is lost, and said to be.
    Real transparency, with soft edges or the same everywhere, is nothing to tell of."""
    data = scene(bands=4)
    data[3, :40] = 0
    if kind != "near infrared":
        data[3, 40:] = 128 if kind == "faded" else 255
    if kind == "feathered":
        data[3, 40:100] = np.arange(1, 241, 4)[:, None]
    plan = plan_of(make_raster(data, photometric="RGB", alpha="yes"))
    told = [n for n in plan.notes if "colorinterp_4 undefined" in n]
    assert len(told) == (kind == "near infrared")


def test_a_colour_table_is_expanded(make_raster: Make, plan_of: PlanOf, manifest: Any) -> None:
    data = np.zeros((1, 50, 60), np.uint8)
    table = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255)}
    path = make_raster(data, photometric="PALETTE", after=lambda out: out.write_colormap(1, table))
    plan = plan_of(path)
    assert plan.source.palette
    assert plan.source.bands == (1, 2, 3)
    of_one = plan_of(path, manifest(bands=(1,)))
    assert not of_one.source.palette
    assert any("the model sees the numbers" in n for n in of_one.notes)


def test_a_table_of_more_colours_than_are_expanded_is_told_of(
    make_raster: Make, plan_of: PlanOf, manifest: Any, tmp_path: Path
) -> None:
    """A model of one band sees its numbers; one of three hears how bands are made of them. A tiled
    copy says the same."""
    data = np.resize(np.arange(300, dtype=np.uint16), (1, 90, 90))
    table = {i: (i % 256, 0, 0, 255) for i in range(300)}
    path = make_raster(data, photometric="PALETTE", after=lambda out: out.write_colormap(1, table))
    copy = tmp_path / "copy.tif"
    with open_raster(str(path)) as ds:
        make_tiled(ds, inspect(ds), copy)
    for file in (path, copy):
        plan = plan_of(file, manifest(bands=(1,)))
        assert not plan.source.palette
        assert any("the model sees the numbers" in n for n in plan.notes)
        with pytest.raises(RasterRejected) as e:
            plan_of(file)
        assert "-expand rgb -ot Byte" in e.value.detail


@pytest.mark.parametrize("images", [1, 3])
def test_a_file_of_several_images_is_told_of(
    plan_of: PlanOf, scene: Scene, tmp_path: Path, images: int
) -> None:
    """The first is read; a tiled copy of it says so, too."""
    path, copy = tmp_path / "pages.tif", tmp_path / "copy.tif"
    first, *others = [Image.fromarray(scene().transpose(1, 2, 0)) for _ in range(images)]
    first.save(path, save_all=True, append_images=others)
    with open_raster(str(path)) as ds:
        make_tiled(ds, inspect(ds), copy)
    for file in (path, copy):
        told = [n for n in plan_of(file).notes if "images" in n]
        assert len(told) == (images > 1)
        assert all("has 3 images, of which the first is read" in n for n in told)
    first.convert("L").save(path, save_all=True, append_images=others)
    with pytest.raises(RasterRejected) as e:
        plan_of(path)
    assert ("GTIFF_DIR:2" in e.value.detail) == (images > 1)


def test_overviews_and_masks_are_no_images(
    make_raster: Make, scene: Scene, plan_of: PlanOf
) -> None:
    mask = np.full((300, 400), 255, np.uint8)
    path = make_raster(scene(), mask=mask, after=lambda out: out.build_overviews([2, 4]))
    assert not [n for n in plan_of(path).notes if "images" in n]


def test_a_table_that_is_not_there_is_none(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any
) -> None:
    """A band that is tagged as one of palette indices, without a palette, is a band of numbers."""

    def tag(out: Any) -> None:
        out.colorinterp = [ColorInterp.palette]

    path = make_raster(scene(bands=1), photometric="MINISBLACK", after=tag)
    plan = plan_of(path, manifest(bands=(1,)))
    assert not plan.source.palette
    with pytest.raises(RasterRejected) as e:
        plan_of(path)
    assert e.value.reason is Reason.MISSING_BANDS


def test_a_table_of_greys_is_expanded_for_models_of_one_band(
    make_raster: Make, plan_of: PlanOf, manifest: Any
) -> None:
    """Index 1 is shown as 200: that is what a model of one band is to see."""
    data = np.zeros((1, 50, 60), np.uint8)
    data[0, :, 30:] = 1
    table = {0: (10, 10, 10, 255), 1: (200, 200, 200, 255)}
    path = make_raster(data, photometric="PALETTE", after=lambda out: out.write_colormap(1, table))
    plan = plan_of(path, manifest(bands=(1,)))
    assert plan.source.palette
    assert any("expanded to grey" in n for n in plan.notes)
    with RasterReader(plan.source.model_copy(update={"uri": str(path)}), plan.grid) as reader:
        seen = reader.read(0).data
    assert set(np.unique(seen[..., :50, :60])) == {10, 200}


def test_a_file_in_which_0_is_white_is_told_of(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any
) -> None:
    for kind in ("MINISWHITE", "MINISBLACK"):
        path = make_raster(scene(bands=1), name=f"{kind}.tif", photometric=kind)
        told = [n for n in plan_of(path, manifest(bands=(1,))).notes if "0 is white" in n]
        assert len(told) == (kind == "MINISWHITE")
    # of two colours: GDAL has a table for them
    path = make_raster(scene(bands=1) % 2, name="fax.tif", photometric="MINISWHITE", nbits=1)
    plan = plan_of(path, manifest(bands=(1,)))
    assert plan.source.palette and not [n for n in plan.notes if "0 is white" in n]


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8])
@pytest.mark.parametrize("nodata", [None, 0])
def test_samples_of_few_bits_are_as_bright_as_they_are_meant(
    make_raster: Make, plan_of: PlanOf, manifest: Any, bits: int, nodata: int | None, driver: str
) -> None:
    """The highest that they can be is white, and a note says so; GDAL hands them over as they are."""
    most = 2**bits - 1
    data = np.resize(np.arange(most + 1, dtype=np.uint8), (1, 90, 90))
    if driver == "PNG":
        if bits == 7:
            return
        path = make_raster(data, driver="PNG", nbits=bits, nodata=nodata, crs=None, transform=None)
    else:
        more = {} if bits == 8 else {"nbits": bits}
        data = np.repeat(data, 3, axis=0)
        path = make_raster(data, photometric="RGB", nodata=nodata, **more)
    plan = plan_of(path, manifest(bands=tuple(range(1, len(data) + 1))))
    assert [n for n in plan.notes if "bit" in n] == (
        [] if bits == 8 else [f"samples of {bits} bit{'s' if bits > 1 else ''} seen as 0 to 255"]
    )
    with RasterReader(plan.source, plan.grid) as reader:
        window = reader.read(0)
    valid = np.ones((90, 90), np.bool_) if nodata is None else data[0] != nodata
    seen, want = window.data[:, :90, :90], np.rint(data * (255 / most))
    assert (seen[:, valid] == want[:, valid]).all()
    if nodata is not None:
        assert len(np.unique(seen[:, ~valid])) == 1
        assert abs(int(seen[0][~valid][0]) - want[:, valid].mean()) <= 1


@pytest.mark.parametrize(
    "dtype", ["uint16", "int16", "float32", "uint32", "int32", "float64", "int8"]
)
def test_other_samples_are_stretched(
    make_raster: Make, scene: Scene, plan_of: PlanOf, dtype: str
) -> None:
    """Between the raster's own 2nd and 98th percentile, band by band."""
    data = (scene().astype(np.float64) / 2 + np.array([0, 10, 20])[:, None, None]).astype(dtype)
    radiometry = plan_of(make_raster(data)).source.radiometry
    low, high = np.percentile(data.reshape(3, -1).astype(np.float64), [2, 98], axis=1)
    assert radiometry.mode == "stretch"
    assert np.allclose(radiometry.low, low)
    assert np.allclose(radiometry.high, high)


def test_eight_bits_stay_as_they_are(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    assert plan_of(make_raster(scene())).source.radiometry.mode == "native"


def test_nodata_and_nan_are_no_part_of_the_statistics(
    make_raster: Make, plan_of: PlanOf, manifest: Any
) -> None:
    data = np.full((1, 200, 200), np.nan, np.float32)
    data[0, :100] = np.linspace(0, 1, 100)[:, None]
    data[0, 150:] = -9999
    plan = plan_of(make_raster(data, nodata=-9999), manifest(bands=(1,)))
    assert plan.source.radiometry.low[0] == pytest.approx(0.02, abs=0.01)
    assert plan.source.radiometry.high[0] == pytest.approx(0.98, abs=0.01)


HUGE = float(np.finfo(np.float64).max)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", [-3.4028234663852886e38]), ("float64", [1e16]), ("float64", [-1e20]),
        ("float64", [HUGE]), ("float64", [-HUGE]), ("float64", [-HUGE, HUGE]),
        ("float64", [-HUGE, 0.5, 0.25]), ("float64", [5e-324, 1e-310]), ("float32", [-3.4e38, 3.4e38]),
        ("float32", [1e-45, 0]), ("float64", [HUGE, HUGE / 2, 0, -HUGE / 2]),
    ],
)  # fmt: skip
def test_any_samples_have_a_range(
    make_raster: Make, plan_of: PlanOf, manifest: Any, dtype: str, values: list[float]
) -> None:
    """Throughout the same, or farther from each other than numbers go: what is low is dark, what is
    high bright, and nothing of it ends in an arithmetic error."""
    data = np.resize(np.array(values, dtype), (1, 80, 80))
    plan = plan_of(make_raster(data), manifest(bands=(1,)))
    seen = plan.source.radiometry
    assert np.isfinite([*seen.low, *seen.high]).all() and seen.low[0] < seen.high[0]
    with RasterReader(plan.source, plan.grid) as reader:
        window = reader.read(0).data[0, :80, :80]
    order = np.argsort(data[0], axis=None, kind="stable")
    assert (np.diff(window.ravel()[order].astype(int)) >= 0).all()
    if len(values) > 1 and abs(max(values) - min(values)) > 1e-40:
        assert (window.min(), window.max()) == (0, 255)
    assert any("-a_nodata" in n for n in plan.notes) == (max(map(abs, values)) > 1e30)


def test_constant_and_empty_bands_still_have_a_range(
    make_raster: Make, plan_of: PlanOf, manifest: Any
) -> None:
    one = manifest(bands=(1,))
    flat = plan_of(make_raster(np.full((1, 50, 50), 7, np.uint16)), one).source.radiometry
    assert flat.low == (7.0,) and flat.high == (8.0,)
    void = plan_of(make_raster(np.full((1, 50, 50), np.nan, np.float32)), one)
    assert (void.chunks, void.windows_skipped, void.grid.count) == (0, 1, 1)
    assert list(chunks_of(void)) == []


def island(tmp_path: Path, dtype: str, at: slice, **kwargs: Any) -> Path:
    """4,200² pixels of nothing, but for a square of samples from 200 to 3,000."""
    path = tmp_path / "island.tif"
    side = at.stop - at.start
    samples = np.random.default_rng(1).integers(200, 3000, (1, side, side)).astype(dtype)
    profile = {
        "driver": "GTiff", "width": 4200, "height": 4200, "count": 1, "dtype": dtype, "nodata": 0,
        "tiled": True, "blockxsize": 256, "blockysize": 256, "SPARSE_OK": True, **kwargs,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(samples, window=((at.start, at.stop), (at.start, at.stop)))
    return path


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("side", [2, 80, 140])
def test_samples_that_a_lattice_misses_are_found(
    tmp_path: Path, plan_of: PlanOf, manifest: Any, dtype: str, side: int
) -> None:
    """Where the sample of a large raster without overviews has little or nothing in it, windows that
    are not empty are sampled: else all that is valid would be white."""
    path = island(tmp_path, dtype, slice(130, 130 + side))
    model = manifest(bands=(1,), size=512, margin=64)
    plan = plan_of(path, model)
    with rasterio.open(path) as ds:
        values = ds.read(1)
    low, high = np.percentile(values[values > 0].astype(float), [2, 98])
    seen = plan.source.radiometry
    assert (seen.low[0], seen.high[0]) == pytest.approx((low, high), rel=0.02)
    assert any("percentile" in n for n in plan.notes)
    assert plan == plan_of(path, model)
    with RasterReader(plan.source, plan.grid) as reader:
        (index,) = (w for c in chunks_of(plan) for w in c.windows)
        window = reader.read(index)
    assert window.valid is not None
    assert len(np.unique(window.data[:, window.valid])) > side


def test_little_is_read_of_many_windows(tmp_path: Path, manifest: Any) -> None:
    """However many are not empty: up to 64 of them, spread, and 16 million pixels, and each gives no
    more than its share."""
    path = island(tmp_path, "uint16", slice(4000, 4001))
    seen: list[Any] = []

    class Counted:
        def __init__(self, ds: Any) -> None:
            self.ds = ds

        def read(self, *args: Any, window: Any, **kwargs: Any) -> Any:
            seen.append(window)
            return self.ds.read(*args, window=window, **kwargs)

    with open_raster(str(path)) as ds:
        info = inspect(ds)
        validity = validity_of(info, (1,), None)
        known = sample(ds, info, (1,), validity)
        assert known.few and not len(known.values)
        for size in (64, 1024):
            grid = WindowGrid(width=4200, height=4200, size=size, margin=size // 8)
            none = np.zeros(grid.count, np.bool_)
            seen.clear()
            sample_windows(Counted(ds), info, (1,), validity, grid, none, known)
            assert sum(w.width * w.height for w in seen) <= 16_000_000 + size**2
            assert len(seen) <= 64
            for side in ([w.col_off for w in seen], [w.row_off for w in seen]):
                assert min(side) < 1024 and max(side) > 3000


def test_a_raster_whose_samples_are_enough_is_sampled_no_further(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is read whole, one that is valid throughout, one of which a part is: their plans are
    what they were."""
    monkeypatch.setattr("frond.raster.planning.sample_windows", None)
    half = scene(bands=1, rows=2500, cols=2500).astype(np.uint16)
    half[:, 1000:] = 0
    small = half[:, :100, :100].copy()
    small[:, 1:] = 0
    for name, data in (("half", half), ("small", small), ("thin", half[:, :2])):
        path = make_raster(data, name=f"{name}.tif", nodata=0)
        assert plan_of(path, manifest(bands=(1,))).source.radiometry.high[0] > 50


KINDS = ["nodata", "alpha", "mask", "nan"]


def hidden(kind: str, valid: np.ndarray, make_raster: Make, scene: Scene, **kwargs: Any) -> Path:
    """A raster of three bands that hides what is not valid in one of four ways."""
    data = scene(rows=valid.shape[0], cols=valid.shape[1])
    if kind == "nodata":
        return make_raster(np.where(valid, data, 0).astype(np.uint8), nodata=0, **kwargs)
    if kind == "alpha":
        data = np.concatenate([data, np.where(valid, 255, 0).astype(np.uint8)[None]])
        return make_raster(data, photometric="RGB", alpha="yes", **kwargs)
    if kind == "mask":
        return make_raster(data, mask=np.where(valid, 255, 0).astype(np.uint8), **kwargs)
    return make_raster(np.where(valid, data, np.nan).astype(np.float32), **kwargs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overviews", [False, True])
def test_only_windows_without_one_valid_pixel_are_skipped(
    make_raster: Make, scene: Scene, plan_of: PlanOf, kind: str, overviews: bool
) -> None:
    """A single pixel keeps its window, and no overview or probe may miss it."""
    valid = np.zeros((600, 800), np.bool_)
    valid[:150, :300] = True
    valid[431, 577] = True

    def build(out: Any) -> None:
        if overviews:
            out.build_overviews([2, 4, 8])

    path = hidden(
        kind, valid, make_raster, scene, tiled=True, blockxsize=64, blockysize=64, after=build
    )
    plan = plan_of(path)
    expected = {
        i
        for i in range(plan.grid.count)
        if not valid[
            plan.grid.window(i).y0 : plan.grid.window(i).y1,
            plan.grid.window(i).x0 : plan.grid.window(i).x1,
        ].any()
    }
    assert skipped(plan) == expected
    assert plan.windows_skipped == len(expected) > 0
    run = {w for c in chunks_of(plan) for w in c.windows}
    assert run == set(range(plan.grid.count)) - expected


def test_a_row_is_looked_at_in_pieces(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However wide a raster is, no more of its overview is held than of its pixels."""
    valid = np.zeros((300, 801), np.bool_)
    valid[:150, 390:410] = True
    path = hidden(
        "nodata", valid, make_raster, scene, tiled=True, blockxsize=64, blockysize=64,
        after=lambda out: out.build_overviews([2, 4, 8]),
    )  # fmt: skip
    whole = plan_of(path)
    assert 0 < whole.windows_skipped < whole.grid.count
    monkeypatch.setattr("frond.raster.skip._STEP_BYTES", 1000)
    held: list[int] = []
    read = Validity.of_samples

    def counted(self: Validity, data: np.ndarray) -> Any:
        held.append(data.nbytes)
        return read(self, data)

    monkeypatch.setattr(Validity, "of_samples", counted)
    with open_raster(str(path)) as ds:
        info = inspect(ds)
        empty = empty_windows(ds, info, whole.grid, (1, 2, 3), validity_of(info, (1, 2, 3), None))
    assert pack_bitmap(empty) == whole.skipped
    assert max(held) <= 1000


@pytest.mark.parametrize("scale", [0.4, 1.7])
def test_skipping_at_another_scale(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any, scale: float
) -> None:
    valid = np.zeros((600, 800), np.bool_)
    valid[:100, :100] = True
    path = hidden("nodata", valid, make_raster, scene)
    plan = plan_of(path, manifest(gsd_m=0.5 / scale, size=64, margin=8))
    run = {w for c in chunks_of(plan) for w in c.windows}
    reach = 100 * plan.grid.scale
    must = {
        i for i in range(plan.grid.count)
        if plan.grid.window(i).x0 < reach - 1 and plan.grid.window(i).y0 < reach - 1
    }  # fmt: skip
    assert must <= run
    assert plan.windows_skipped > plan.grid.count / 2


def test_one_band_that_differs_is_enough(make_raster: Make, plan_of: PlanOf) -> None:
    """A pixel is nodata where every band has the value: pure red has two zeros and is no nodata."""
    data = np.zeros((3, 100, 100), np.uint8)
    data[0] = 200
    assert plan_of(make_raster(data, nodata=0)).windows_skipped == 0


def test_black_without_a_nodata_value_is_black(make_raster: Make, plan_of: PlanOf) -> None:
    assert plan_of(make_raster(np.zeros((3, 300, 300), np.uint8))).windows_skipped == 0


def test_too_many_windows(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    with pytest.raises(RasterRejected) as e:
        plan_of(make_raster(scene()), limits=Limits(max_windows=3))
    assert e.value.reason is Reason.TOO_MANY
    assert "at most 3 are taken" in e.value.detail


@pytest.mark.parametrize("most", [2_000_000, 1 << 40])
def test_more_windows_than_a_grid_may_have(
    tmp_path: Path, plan_of: PlanOf, manifest: Any, most: int
) -> None:
    """A very large raster that is seen enlarged is told of as any other that is too large."""
    path = tmp_path / "large.tif"
    profile = {
        "driver": "GTiff", "width": 200_000, "height": 190_000, "count": 1, "dtype": "uint8",
        "tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True, "BIGTIFF": "YES",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.ones((4096, 4096), np.uint8), 1, window=((0, 4096), (0, 4096)))
    model = manifest(bands=(1,), size=128, margin=32, gsd_m=0.1)
    with pytest.raises(RasterRejected) as e:
        plan_of(path, model, gsd_m=0.8, limits=Limits(max_windows=most))
    assert e.value.reason is Reason.TOO_MANY
    assert f"at most {min(most, MOST_WINDOWS_AN_IMAGE)} are taken" in e.value.detail


@pytest.mark.parametrize(("task", "side", "told"), [
    ("segmentation", 1 << 16, True), ("segmentation", (1 << 16) - 256, False), ("detection", 1 << 16, False),
])  # fmt: skip
def test_a_segmentation_that_pycocotools_cannot_count_is_told_of(
    tmp_path: Path, plan_of: PlanOf, manifest: Any, task: str, side: int, told: bool
) -> None:
    """From 2³² pixels on its masks lie elsewhere than Frond wrote them; boxes do not."""
    path = tmp_path / "large.tif"
    profile = {
        "driver": "GTiff", "width": side, "height": 1 << 16, "count": 1, "dtype": "uint8",
        "tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True, "BIGTIFF": "YES",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.ones((4096, 4096), np.uint8), 1, window=((0, 4096), (0, 4096)))
    plan = plan_of(path, manifest(bands=(1,), size=4096, task=task))
    assert any("pycocotools" in n for n in plan.notes) == told


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_bytes": 1000}, "at most 1.0 kB are taken"),
        ({"max_bands": 2}, "3 bands; at most 2 are taken"),
        ({"max_pixels": 1000}, "at most 1e-06 gigapixels are taken"),
    ],
)
def test_each_limit_has_its_sentence(
    make_raster: Make, scene: Scene, limits: dict[str, int], told: str
) -> None:
    """TOO_LARGE, with what the image has, what is taken, and what to do."""
    path = make_raster(scene())
    with pytest.raises(RasterRejected) as e, open_raster(str(path)) as dataset:
        inspect(dataset, path.stat().st_size, Limits(**limits))  # type: ignore[arg-type]
    assert e.value.reason is Reason.TOO_LARGE
    assert told in e.value.detail


@given(st.lists(st.booleans(), min_size=1, max_size=500))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_bitmap_comes_back(flags: list[bool]) -> None:
    array = np.array(flags, np.bool_)
    text = pack_bitmap(array)
    assert unpack_bitmap(text, len(array)).tolist() == flags
    assert bool(text) == any(flags)
