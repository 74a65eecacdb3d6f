from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from frond.contracts.errors import RasterRejected
from frond.contracts.plan import ImagePlan, RasterSource, WindowGrid
from frond.contracts.reasons import Reason
from frond.raster import Limits, RasterReader, chunks_of, inspect, open_bytes, open_raster
from frond.raster.parcels import pack

Make = Callable[..., Path]
Scene = Callable[..., np.ndarray]
PlanOf = Callable[..., ImagePlan]


def windows(plan: ImagePlan, **kwargs: Any) -> dict[int, Any]:
    with RasterReader(plan.source, plan.grid, **kwargs) as reader:
        return {w.index: w for c in chunks_of(plan) for w in reader.read_block(c.windows)}


def test_windows_are_cut_from_the_image(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    data = scene()
    plan = plan_of(make_raster(data, tiled=True, blockxsize=64, blockysize=64))
    got = windows(plan)
    assert sorted(got) == list(range(plan.grid.count))
    for i, w in got.items():
        box = plan.grid.window(i)
        assert w.data.dtype == np.uint8
        assert np.array_equal(w.data, data[:, box.y0 : box.y1, box.x0 : box.x1])
        assert w.valid is None


def test_alone_or_together_the_pixels_are_the_same(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any
) -> None:
    """Also resampled, and with the bands last."""
    path = make_raster(scene(bands=4), photometric="RGB", alpha="no")
    for gsd in (None, 0.7, 0.3):
        plan = plan_of(path, manifest(gsd_m=gsd, bands=(4, 2)))
        with RasterReader(plan.source, plan.grid, layout="HWC") as reader:
            order = list(range(plan.grid.count))[::-1]
            together = reader.read_block(order)
            assert [w.index for w in together] == order
            for w in together:
                assert w.data.shape == (128, 128, 2)
                assert np.array_equal(w.data, reader.read(w.index).data)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", None), ("uint8", 0), ("uint16", None)])
def test_windows_are_views_of_what_was_read(
    make_raster: Make, scene: Scene, plan_of: PlanOf, manifest: Any, dtype: str, nodata: int | None
) -> None:
    """Neighbours share their pixels, a pixel's bands lie side by side as the model takes them, and
    another process is handed the common array, not each window through a pipe."""
    data = scene(rows=500, cols=500).astype(dtype)
    data[:, :40, :40] = 0
    plan = plan_of(make_raster(data, nodata=nodata), manifest(size=256))
    with RasterReader(plan.source, plan.grid, layout="HWC") as reader:
        first, second, *more = reader.read_block(range(plan.grid.count))
    assert np.shares_memory(first.data, second.data)
    assert first.data.strides[1:] == (3, 1)
    parcel = pack([first.data, second.data, *(w.data for w in more)])
    try:
        assert parcel.fd is not None
        assert len(parcel.body) < 5000
        assert os.fstat(parcel.fd).st_size < 500 * 501 * 3
    finally:
        parcel.close()


@pytest.mark.parametrize(
    ("limits", "bands", "side"),
    [({"max_bands": 2000}, 1030, 64), ({"max_pixels": 1 << 40}, 1, 220_000)],
)
def test_what_was_planned_by_wider_limits_is_read(
    tmp_path: Path, limits: dict[str, int], bands: int, side: int
) -> None:
    """Whoever raises a limit raises it for the tiler, which judges; readers take what was planned."""
    path = tmp_path / "large.tif"
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": "uint8",
        "interleave": "band", "compress": "DEFLATE", "SPARSE_OK": True, "BIGTIFF": "YES",
        **({"tiled": True, "blockxsize": 4096, "blockysize": 4096} if side > 64 else {}),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.ones((64, 64), np.uint8), 1, window=((0, 64), (0, 64)))
    with open_raster(str(path)) as ds:
        with pytest.raises(RasterRejected):
            inspect(ds)
        info = inspect(ds, None, Limits(**limits))  # type: ignore[arg-type]
    source = RasterSource(
        uri=str(path), etag="e", size=1, bands=(1,), dtype="uint8", width=info.width,
        height=info.height,
    )  # fmt: skip
    grid = WindowGrid(width=side, height=side, size=64, margin=0)
    with RasterReader(source, grid) as reader:
        assert (reader.read(0).data == 1).all()


def test_a_small_image_is_reflected_never_black(
    make_raster: Make, scene: Scene, plan_of: PlanOf
) -> None:
    data = scene(rows=40, cols=100)
    plan = plan_of(make_raster(data))
    (window,) = windows(plan).values()
    assert np.array_equal(window.data, np.pad(data, ((0, 0), (0, 88), (0, 28)), mode="reflect"))
    (pixel,) = windows(plan_of(make_raster(data[:, :1, :1], name="one.tif"))).values()
    assert (pixel.data == data[:, :1, :1]).all()


def test_resampled_pixels_keep_their_place(
    make_raster: Make, plan_of: PlanOf, manifest: Any
) -> None:
    """A gradient is a gradient at any scale: the value tells the place, in every window."""
    cols = np.arange(600)[None, None, :]
    rows = np.arange(500)[None, :, None]
    x = (cols + 0 * rows) % 256
    data = np.concatenate([cols * 0.4 + 0 * rows, 0 * cols + rows * 0.4, x]).astype(np.float32)
    for gsd in (0.31, 0.77, 1.9):
        plan = plan_of(make_raster(data), manifest(gsd_m=gsd, bands=(1, 2)))
        source = plan.source.model_copy(
            update={
                "radiometry": plan.source.radiometry.model_copy(
                    update={"low": (0.0, 0.0), "high": (255.0, 255.0)}
                )
            }
        )
        plan = plan.model_copy(update={"source": source})
        s = plan.grid.scale
        assert s != 1
        for i, w in windows(plan).items():
            box = plan.grid.window(i)
            # centres of scaled pixels, in raster pixels, minus the half pixel of the sample's centre
            at_x = (np.arange(box.x0, box.x1) + 0.5) / s - 0.5
            at_y = (np.arange(box.y0, box.y1) + 0.5) / s - 0.5
            seen_x = w.data[0, : box.height, : box.width].astype(float).mean(axis=0)
            seen_y = w.data[1, : box.height, : box.width].astype(float).mean(axis=1)
            assert np.abs(seen_x[1:-2] - at_x[1:-2] * 0.4).max() < 1.0
            assert np.abs(seen_y[1:-2] - at_y[1:-2] * 0.4).max() < 1.0


def test_stretch(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    """Linear between low and high, clipped, rounded; the same for integers and floats."""
    base = scene().astype(np.int32) * 40 - 2000
    seen = {}
    for dtype in ("int16", "int32", "float32", "float64"):
        plan = plan_of(make_raster(base.astype(dtype), name=f"{dtype}.tif"))
        r = plan.source.radiometry
        seen[dtype] = windows(plan)[0].data
        low, high = np.array(r.low)[:, None, None], np.array(r.high)[:, None, None]
        want = np.rint(np.clip((base[:, :128, :128] - low) * (255 / (high - low)), 0, 255))
        assert np.array_equal(seen[dtype], want)
        assert len(r.fill) == 3
    assert all(np.array_equal(v, seen["int16"]) for v in seen.values())


@pytest.mark.parametrize("kind", ["nodata", "alpha", "mask", "nan"])
def test_what_means_nothing_is_filled(
    make_raster: Make, scene: Scene, plan_of: PlanOf, kind: str
) -> None:
    """With one colour for the whole raster, and told by `valid`."""
    valid = np.ones((300, 400), np.bool_)
    valid[100:140, 50:90] = False
    data = scene()
    if kind == "nodata":
        path = make_raster(np.where(valid, data, 255).astype(np.uint8), nodata=255)
    elif kind == "alpha":
        rgba = np.concatenate([data, np.where(valid, 255, 0).astype(np.uint8)[None]])
        path = make_raster(rgba, photometric="RGB", alpha="yes")
    elif kind == "mask":
        path = make_raster(data, mask=np.where(valid, 255, 0).astype(np.uint8))
    else:
        path = make_raster(np.where(valid, data, np.nan).astype(np.float32))
    plan = plan_of(path)
    assert len(plan.source.radiometry.fill) == 3 and min(plan.source.radiometry.fill) > 50
    some = 0
    for i, w in windows(plan).items():
        box = plan.grid.window(i)
        own = valid[box.y0 : box.y1, box.x0 : box.x1]
        if own.all():
            assert w.valid is None
            continue
        some += 1
        assert np.array_equal(w.valid, own)
        for band, fill in zip(w.data, plan.source.radiometry.fill, strict=True):
            assert (band[~own] == fill).all()
    assert some > 0


def test_palette_pixels(make_raster: Make, plan_of: PlanOf) -> None:
    """Indices become colours; a transparent colour means nothing."""
    data = np.zeros((1, 50, 60), np.uint8)
    data[0, 10:20] = 1
    data[0, 30:40] = 2
    table = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (0, 0, 0, 0)}
    path = make_raster(data, photometric="PALETTE", after=lambda out: out.write_colormap(1, table))
    (w,) = windows(plan_of(path)).values()
    assert w.data[:, 0, 0].tolist() == [10, 20, 30]
    assert w.data[:, 15, 0].tolist() == [200, 100, 50]


def test_many_threads_one_reader(make_raster: Make, scene: Scene, plan_of: PlanOf) -> None:
    plan = plan_of(
        make_raster(scene(rows=700, cols=900), tiled=True, blockxsize=128, blockysize=128)
    )
    alone = windows(plan)
    with (
        RasterReader(plan.source, plan.grid) as reader,
        ThreadPoolExecutor(4) as pool,
    ):
        for w in pool.map(reader.read, list(range(plan.grid.count)) * 3):
            assert np.array_equal(w.data, alone[w.index].data)


def test_damaged_pixels_are_told(make_raster: Make, plan_of: PlanOf) -> None:
    """Damage that comes after planning is a rejection of the windows' image, no crash."""
    rng = np.random.default_rng(1)
    data = rng.integers(0, 255, (3, 400, 400), dtype=np.uint8)
    path = make_raster(data, tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    plan = plan_of(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 3000] = b"\xff" * 3000
    path.write_bytes(raw)
    with pytest.raises(RasterRejected) as e:
        windows(plan)
    assert e.value.reason is Reason.TRUNCATED


def test_another_image_under_the_same_name_is_told(
    make_raster: Make, scene: Scene, plan_of: PlanOf
) -> None:
    path = make_raster(scene())
    plan = plan_of(path)
    make_raster(scene(rows=200))
    with pytest.raises(RasterRejected) as e:
        windows(plan)
    assert e.value.reason is Reason.OBJECT_CHANGED


@pytest.mark.parametrize("driver", ["PNG", "JPEG"])
def test_pictures_from_memory(scene: Scene, plan_of: PlanOf, tmp_path: Path, driver: str) -> None:
    """An image in memory can be planned and read with the dataset that is open already."""
    data = scene(rows=100, cols=120)
    path = tmp_path / f"x.{driver.lower()}"
    with rasterio.open(
        path, "w", driver=driver, width=120, height=100, count=3, dtype="uint8"
    ) as out:
        out.write(data)
    plan = plan_of(path)
    with (
        open_bytes(path.read_bytes()) as ds,
        RasterReader(plan.source, plan.grid, dataset=ds) as reader,
    ):
        w = reader.read(0)
        assert np.array_equal(w.data[:, :100, :120], ds.read())
