"""A drawn RGB COG with palms in it, whole or with 40 % nodata; kept under .frond/bench."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from frond.client.scenes import palm_scene

_TILE, _GSD = 1024, 0.14


def stored(side: int, nodata: bool, folder: Path) -> Path:
    """side² pixels of 0.14 m in EPSG:32750. nodata: a slanting 40 % of them are 0."""
    path = folder / f"scene-{side}{'-nodata' if nodata else ''}.tif"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    tiles = [palm_scene(_TILE, _TILE, 150, seed)[0] for seed in range(4)]
    rng = np.random.default_rng(7)
    image = np.empty((side, side, 3), np.uint8)
    for y in range(0, side, _TILE):
        for x in range(0, side, _TILE):
            tile = np.rot90(tiles[rng.integers(len(tiles))], rng.integers(4))
            image[y : y + _TILE, x : x + _TILE] = np.maximum(tile, 1)
    if nodata:
        columns, rows = np.arange(side)[None, :], np.arange(side)[:, None]
        image[columns + 0.25 * rows < (0.4 + 0.125) * side] = 0
    fresh = path.with_suffix(".new.tif")
    with rasterio.open(
        fresh, "w", driver="COG", width=side, height=side, count=3, dtype="uint8",
        crs="EPSG:32750", transform=from_origin(500_000, 9_000_000, _GSD, _GSD),
        compress="deflate", blocksize=512, nodata=0 if nodata else None,
    ) as out:  # fmt: skip
        out.write(np.moveaxis(image, -1, 0))
        out.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    fresh.replace(path)
    return path
