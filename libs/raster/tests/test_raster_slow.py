from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from frond.contracts.plan import ImagePlan
from frond.raster import RasterReader, chunks_of, inspect, is_slow, make_tiled, open_raster

Make = Callable[..., Path]
Scene = Callable[..., np.ndarray]
PlanOf = Callable[..., ImagePlan]


def test_what_is_slow(make_raster: Make, scene: Scene) -> None:
    """Wide strips, giant tiles and formats that decode from the top; never small images."""
    path = make_raster(scene())
    with open_raster(str(path)) as ds:
        info = inspect(ds)
    assert not is_slow(info)
    large = replace(info, width=40_000, height=40_000)
    assert is_slow(replace(large, block=(1, 40_000)))
    assert is_slow(replace(large, block=(8192, 8192), tiled=True))
    assert is_slow(replace(large, driver="JPEG", block=(1, 40_000)))
    assert not is_slow(replace(large, block=(512, 512), tiled=True))
    narrow = replace(info, width=4000, height=40_000)
    assert not is_slow(replace(narrow, block=(16, 4000)))


def _mask(out: Any) -> None:
    mask = np.full((300, 400), 255, np.uint8)
    mask[:100] = 0
    out.write_mask(mask)


def read_alike(a: ImagePlan, b: ImagePlan) -> None:
    """Whatever either plan reads is the same, in pixels and in what of them means something."""
    with RasterReader(a.source, a.grid) as one, RasterReader(b.source, b.grid) as two:
        for chunk in chunks_of(a):
            for w, v in zip(
                one.read_block(chunk.windows), two.read_block(chunk.windows), strict=True
            ):
                assert np.array_equal(w.data, v.data)
                assert (w.valid is None) == (v.valid is None)
                assert w.valid is None or v.valid is None or np.array_equal(w.valid, v.valid)


@pytest.mark.parametrize(
    ("bands", "dtype", "kwargs"),
    [
        (3, "uint8", {}),
        (4, "uint8", {"photometric": "RGB", "alpha": "yes"}),
        (4, "uint8", {"photometric": "RGB", "alpha": "no"}),
        (3, "uint16", {"nodata": 0}),
        (3, "float32", {"nodata": -9999.0}),
        (3, "uint8", {"after": _mask}),
        (3, "int16", {"crs": None, "transform": None}),
        (3, "uint8", {"nbits": 4, "photometric": "RGB"}),
        (3, "uint8", {"nbits": 1, "photometric": "RGB", "nodata": 0}),
        (3, "uint8", {"photometric": "MINISWHITE"}),
        (3, "uint8", {"nbits": 2, "photometric": "MINISWHITE"}),
        (3, "float32", {"photometric": "MINISWHITE"}),
    ],
)
def test_the_copy_reads_the_same(
    make_raster: Make, scene: Scene, plan_of: PlanOf, tmp_path: Path,
    bands: int, dtype: str, kwargs: dict[str, Any],
) -> None:  # fmt: skip
    """Same windows, same georeference, same nodata, and tiled."""
    path = make_raster(scene(bands=bands).astype(dtype), **kwargs)
    copy, again = tmp_path / "cog.tif", tmp_path / "again.tif"
    for out in (copy, again):
        with open_raster(str(path)) as ds:
            make_tiled(ds, inspect(ds), out)
    assert copy.read_bytes() == again.read_bytes()
    a, b = plan_of(path), plan_of(copy)
    assert b.georeference == a.georeference
    assert (b.grid, b.skipped, b.notes) == (a.grid, a.skipped, a.notes)
    assert b.source.radiometry == a.source.radiometry
    read_alike(a, b)
    with rasterio.open(copy) as ds:
        assert ds.block_shapes[0] == (512, 512)


def test_a_copy_of_gcps_and_palette(make_raster: Make, plan_of: PlanOf, tmp_path: Path) -> None:
    from rasterio.control import GroundControlPoint
    from rasterio.crs import CRS

    data = (np.arange(300 * 400).reshape(1, 300, 400) % 3).astype(np.uint8)
    points = [GroundControlPoint(r, c, 100 + c, 5 - r) for r, c in [(0, 0), (0, 400), (300, 0)]]
    table = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (1, 2, 3, 255)}
    path = make_raster(
        data, photometric="PALETTE", transform=None, crs=CRS.from_epsg(4326), gcps=points,
        after=lambda out: out.write_colormap(1, table),
    )  # fmt: skip
    copy = tmp_path / "cog.tif"
    with open_raster(str(path)) as ds:
        make_tiled(ds, inspect(ds), copy)
    a, b = plan_of(path), plan_of(copy)
    assert b.source.palette and b.georeference == a.georeference
    with RasterReader(a.source, a.grid) as one, RasterReader(b.source, b.grid) as two:
        assert np.array_equal(one.read(0).data, two.read(0).data)


def _with_alpha(path: Path, data: np.ndarray) -> None:
    table = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (1, 2, 3, 255)}
    alpha = np.full(data.shape, 255, np.uint8)
    alpha[:, :150] = 0
    profile = {
        "driver": "GTiff", "count": 2, "dtype": "uint8", "height": data.shape[0],
        "width": data.shape[1], "photometric": "MINISBLACK",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.stack([data, alpha]))
        out.write_colormap(1, table)
        out.colorinterp = [ColorInterp.palette, ColorInterp.alpha]


def _with_clear_colours(path: Path, data: np.ndarray) -> None:
    image = Image.fromarray(data, mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    image.save(path, "PNG", transparency=bytes([0, 0, 255]))


@pytest.mark.parametrize("write", [_with_alpha, _with_clear_colours])
def test_a_copy_of_a_palette_keeps_what_means_nothing(
    plan_of: PlanOf, tmp_path: Path, write: Callable[[Path, np.ndarray], None]
) -> None:
    """Be it said by an alpha band or by clear colours, of which a GeoTIFF's table knows none."""
    data = np.full((300, 400), 2, np.uint8)
    data[:, :75], data[:, 75:150] = 0, 1
    path, copy = tmp_path / "palette", tmp_path / "cog.tif"
    write(path, data)
    with open_raster(str(path)) as ds:
        make_tiled(ds, inspect(ds), copy)
    a, b = plan_of(path), plan_of(copy)
    assert b.source.palette and b.source.bands == a.source.bands
    assert (b.skipped, b.source.radiometry) == (a.skipped, a.source.radiometry)
    assert a.windows_skipped > 0
    read_alike(a, b)


@pytest.mark.parametrize(("orientation", "told"), [(None, 0), (1, 0), (6, 1), (3, 1)])
def test_an_image_that_viewers_turn_is_told_of(
    plan_of: PlanOf, scene: Scene, tmp_path: Path, orientation: int | None, told: int
) -> None:
    """Its pixels stay as they are stored, and a note says so, of its tiled copy too."""
    path, copy = tmp_path / "photo.jpg", tmp_path / "cog.tif"
    image = Image.fromarray(scene(rows=200, cols=300).transpose(1, 2, 0))
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(path, exif=exif)
    with open_raster(str(path)) as ds:
        make_tiled(ds, inspect(ds), copy)
    for plan in (plan_of(path), plan_of(copy)):
        assert (plan.source.width, plan.source.height) == (300, 200)
        assert len([n for n in plan.notes if "asks viewers to turn it" in n]) == told


_ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from frond.contracts.errors import StoreUnavailable
from frond.raster import inspect, make_tiled, open_raster
from frond.raster.gdal import configure_formats
configure_formats()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with open_raster(sys.argv[1]) as ds:
    try:
        make_tiled(ds, inspect(ds), Path(sys.argv[2]))
    except StoreUnavailable:
        print("waits")
"""


def test_a_full_disk_is_not_the_rasters_fault(make_raster: Make, tmp_path: Path) -> None:
    """A copy that cannot be written is waited for, and leaves nothing behind."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 1200, 1200)).astype(np.uint8)
    copy = tmp_path / "copies" / "cog.tif"
    copy.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_FULL_DISK, str(make_raster(noise)), str(copy)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "waits", done.stderr[-2000:]
    assert not list(copy.parent.iterdir())
