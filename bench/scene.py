"""Drawn RGB scenes as COGs, written piece by piece so that memory does not grow with them; kept
under .frond/bench."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.windows import Window

from frond.client.scenes import palm_scene
from frond.models.testing import MAGENTA

_TILE, _GSD, _PIECE = 1024, 0.14, 4096
_PLACE = {"crs": "EPSG:32750", "transform": from_origin(500_000, 9_000_000, _GSD, _GSD)}
_GROUND = (60, 90, 60)

Draw = Callable[[int, int, int, int], NDArray[np.uint8]]
"""The pixels [height, width, 3] of a rectangle: x, y, width, height."""


def stored(side: int, nodata: bool, folder: Path) -> Path:
    """side² pixels of 0.14 m in EPSG:32750 with palms. nodata: a slanting 40 % of them are 0."""
    tiles = [palm_scene(_TILE, _TILE, 150, seed)[0] for seed in range(4)]
    rng = np.random.default_rng(7)
    across = -(-side // _TILE)
    turns = [(rng.integers(len(tiles)), rng.integers(4)) for _ in range(across * across)]

    def draw(x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        piece = np.empty((height, width, 3), np.uint8)
        for top in range(y, y + height, _TILE):
            for left in range(x, x + width, _TILE):
                which, turn = turns[top // _TILE * across + left // _TILE]
                part = piece[top - y : top - y + _TILE, left - x : left - x + _TILE]
                tile = np.rot90(tiles[which], turn)[: part.shape[0], : part.shape[1]]
                part[...] = np.maximum(tile, 1)
        if nodata:
            columns, rows = np.arange(x, x + width)[None, :], np.arange(y, y + height)[:, None]
            piece[columns + 0.25 * rows < (0.4 + 0.125) * side] = 0
        return piece

    name = f"scene-{side}{'-nodata' if nodata else ''}.tif"
    return _cog(folder / name, side, draw, nodata=0 if nodata else None)


def planted(side: int, pitch: int, square: int, folder: Path) -> Path:
    """side² pixels of plain ground with a magenta square every ``pitch`` pixels, for the model of
    :func:`frond.models.testing.blob_model`: next to nothing when compressed."""
    first = (pitch - square) // 2

    def draw(x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        columns, rows = ((np.arange(a, a + n) - first) % pitch < square
                         for a, n in ((x, width), (y, height)))  # fmt: skip
        piece = np.empty((height, width, 3), np.uint8)
        piece[:] = _GROUND
        piece[rows[:, None] & columns[None, :]] = MAGENTA
        return piece

    return _cog(folder / f"planted-{side}-{pitch}-{square}.tif", side, draw)


def small_files(count: int, side: int, folder: Path) -> list[Path]:
    """``count`` GeoTIFFs of side² pixels with palms, no two the same."""
    home = folder / f"small-{side}"
    home.mkdir(parents=True, exist_ok=True)
    paths = [home / f"scene-{n:05d}.tif" for n in range(count)]
    for n, path in enumerate(paths):
        if not path.exists():
            # drawing costs more than all else: eight scenes, turned, shifted in colour
            image = np.rot90(palm_scene(side, side, 40, n % 8)[0], n // 8 % 4)
            image = np.clip(image.astype(np.int16) + n // 32 % 40 - 20, 1, 255).astype(np.uint8)
            path.with_suffix(".new").write_bytes(geotiff(image, n))
            path.with_suffix(".new").replace(path)
    return paths


def blob_file(seed: int, side: int = 256, count: int = 3) -> bytes:
    """A GeoTIFF with a few magenta squares."""
    rng = np.random.default_rng(seed)
    image = np.empty((side, side, 3), np.uint8)
    image[:] = _GROUND
    for cell in rng.choice(16, count, replace=False):
        x, y = cell % 4 * side // 4 + 24, cell // 4 * side // 4 + 24
        image[y : y + 16, x : x + 16] = MAGENTA
    return geotiff(image, seed)


def geotiff(image: NDArray[np.uint8], place: int = 0) -> bytes:
    """A tiled GeoTIFF of 0.14 m; ``place`` sets where it lies."""
    height, width, _ = image.shape
    where = {**_PLACE, "transform": from_origin(500_000 + 100 * place, 9_000_000, _GSD, _GSD)}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=width, height=height, count=3, dtype="uint8", tiled=True,
            blockxsize=256, blockysize=256, compress="deflate", photometric="RGB", **where,
        ) as out:  # fmt: skip
            out.write(np.moveaxis(image, -1, 0))
        return bytes(memory.read())


def _cog(path: Path, side: int, draw: Draw, nodata: int | None = None) -> Path:
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    raw, fresh = path.with_suffix(".raw.tif"), path.with_suffix(".new.tif")
    settings = {"compress": "deflate", "bigtiff": "if_safer", "num_threads": "all_cpus"}
    with rasterio.Env(GDAL_CACHEMAX=256):
        with rasterio.open(
            raw, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
            tiled=True, blockxsize=512, blockysize=512, interleave="pixel", zlevel=1,
            nodata=nodata, **_PLACE, **settings,
        ) as out:  # fmt: skip
            for y in range(0, side, _PIECE):
                for x in range(0, side, _PIECE):
                    width, height = min(_PIECE, side - x), min(_PIECE, side - y)
                    pixels = np.moveaxis(draw(x, y, width, height), -1, 0)
                    out.write(pixels, window=Window(x, y, width, height))
            out.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        copy(raw, fresh, driver="COG", blocksize=512, level=1, **settings)
    raw.unlink()
    fresh.replace(path)
    return path
