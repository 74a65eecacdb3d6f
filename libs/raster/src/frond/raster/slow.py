"""Rasters whose windows would be slow to read, and the tiled copy that is made of them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from frond.raster.gdal import gdal_errors
from frond.raster.inspect import IMAGES, ORIENTATION, RasterInfo
from frond.raster.open import Dataset
from frond.raster.validity import palette_of

SMALL_PIXELS: Final = 16_000_000
_WINDOW: Final = 1024
_AMPLIFIED: Final = 8.0
_BLOCK: Final = 512
_STEP_BYTES: Final = 128 << 20


def is_slow(info: RasterInfo, *, small_pixels: int = SMALL_PIXELS) -> bool:
    """Whether reading a window decodes far more than the window.

    Small images never are: they are read whole in little time. PNG and JPEG decode from the top
    each time; strips across a wide image, or very large tiles, decode more than eight times what
    a window of 1024² needs.
    """
    if info.pixels <= small_pixels:
        return False
    if info.driver != "GTiff":
        return True
    high, wide = info.block
    touched_rows = -(-_WINDOW // high) * high
    touched_cols = -(-_WINDOW // wide) * wide
    return touched_rows * touched_cols > _AMPLIFIED * _WINDOW * _WINDOW


def make_tiled(dataset: Dataset, info: RasterInfo, path: Path) -> None:
    """Copy a raster into a tiled, DEFLATE-compressed GeoTIFF with overviews.

    Samples, their bits, whether 0 is white, nodata, alpha, mask band, colour table, georeference and orientation are kept. The copy goes by
    strips of bounded memory, top to bottom, so that each strip of the source is decoded once. The
    same raster gives the same bytes.

    Raises:
        RasterRejected: the raster's pixels are missing or damaged.
        StoreUnavailable: the store could not be asked, or the disk is full.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _copy(dataset, info, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _copy(ds: Dataset, info: RasterInfo, path: Path) -> None:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": info.width,
        "height": info.height,
        "count": info.count,
        "dtype": info.dtype,
        "nodata": _nodata(ds, info),
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "DEFLATE",
        "zlevel": 1,
        "predictor": 3 if info.dtype.startswith("float") else 2,
        "interleave": "pixel",
        "BIGTIFF": "IF_SAFER",
    }
    indexed = info.palette or info.wide_palette
    if indexed:
        profile.update(predictor=1, photometric="PALETTE")
    else:
        # GDAL takes a fourth band of 8 bits for alpha unless it is told what it is
        rgb = info.colours[:3] == ("red", "green", "blue")
        grey = "MINISWHITE" if info.negative else "MINISBLACK"
        profile.update(photometric="RGB" if rgb else grey, alpha="NO")
        if info.bits < 8:
            # differences are of whole bytes
            profile.update(predictor=1, nbits=info.bits)
    if not ds.gcps[0]:
        profile.update(crs=ds.crs, transform=ds.transform)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), gdal_errors(reading=True):
        with rasterio.open(path, "w", **profile) as out:
            _describe(ds, info, out)
            clear = _clear_colours(ds, info)
            for window in _steps(info):
                data = ds.read(window=window)
                out.write(data, window=window)
                if info.mask:
                    out.write_mask(ds.read_masks(1, window=window), window=window)
                elif clear.any():
                    out.write_mask(np.where(clear[data[0]], 0, 255).astype(np.uint8), window=window)
        how = Resampling.nearest if indexed else Resampling.average
        factors = _overviews(info)
        if factors:
            with rasterio.open(path, "r+") as out:
                out.build_overviews(factors, how)


def _nodata(ds: Dataset, info: RasterInfo) -> float | None:
    # NaN means nothing, said or not; overviews are made without it where it is said
    said = ds.nodata is not None or info.mask or info.alpha is not None
    return ds.nodata if said or np.dtype(info.dtype).kind != "f" else math.nan


def _describe(ds: Dataset, info: RasterInfo, out: Any) -> None:
    points, crs = ds.gcps
    if points:
        out.gcps = (points, crs)
    if ds.rpcs is not None:
        out.rpcs = ds.rpcs
    if turned := ds.tags().get(ORIENTATION):
        out.update_tags(**{ORIENTATION: turned})
    if info.images > 1:
        out.update_tags(**{IMAGES: info.images})
    if info.palette or info.wide_palette:
        out.write_colormap(1, ds.colormap(1))
    if info.alpha is not None:
        out.colorinterp = [
            ColorInterp.alpha if i == info.alpha else c for i, c in enumerate(ds.colorinterp, 1)
        ]


def _clear_colours(ds: Dataset, info: RasterInfo) -> NDArray[np.bool_]:
    """Which indices of the colour table mean nothing by their colour alone: a GeoTIFF's table has no
    alpha but that of the nodata value."""
    clear = np.zeros(256, np.bool_)
    if info.palette:
        clear = palette_of(ds)[:, 3] == 0
        if info.nodata[0] is not None:
            clear[int(info.nodata[0])] = False
    return clear


def _steps(info: RasterInfo) -> list[Window]:
    sample = info.count * info.itemsize
    wide = info.width
    if wide * _BLOCK * sample > _STEP_BYTES:
        wide = max(_BLOCK, _STEP_BYTES // (_BLOCK * sample) // _BLOCK * _BLOCK)
    return [
        Window(x, y, min(wide, info.width - x), min(_BLOCK, info.height - y))
        for y in range(0, info.height, _BLOCK)
        for x in range(0, info.width, wide)
    ]


def _overviews(info: RasterInfo) -> list[int]:
    factors: list[int] = []
    factor = 2
    while max(info.width, info.height) / factor >= _BLOCK / 2:
        factors.append(factor)
        factor *= 2
    return factors


def free_bytes(folder: Path) -> int:
    """Bytes free where temporary files are made."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def total_bytes(folder: Path) -> int:
    """Bytes that would be free there if nothing were on the disk."""
    stat = os.statvfs(folder)
    reserved = stat.f_bfree - stat.f_bavail
    return (stat.f_blocks - reserved) * stat.f_frsize
