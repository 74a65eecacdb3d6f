"""Rasters that take their reader a long time, and cost nobody else anything."""

from __future__ import annotations

from pathlib import Path

import rasterio
from rasterio.transform import Affine


def endless(path: Path, side: int = 120_000) -> bytes:
    """A GeoTIFF of a few hundred kB and ``side``² pixels, none of them there: all of its area has to
    be looked at before it is known to be empty."""
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", nodata=0,
        crs="EPSG:32650", transform=Affine.translation(480_000, 80_000) @ Affine.scale(0.5, -0.5),
        tiled=True, blockxsize=512, blockysize=512, sparse_ok=True, BIGTIFF="YES",
    ):  # fmt: skip
        pass
    return path.read_bytes()
