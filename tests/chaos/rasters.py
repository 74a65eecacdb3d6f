"""Rasters that make the services take ways that those of the usual jobs do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from rasterio.io import MemoryFile

from chaos.jobs import Picture
from support.planted import BACKGROUND, MAGENTA, SIDE, planted

SQUARES: Final = 3
"""How many there are in each :func:`small` raster."""
_WIDE: Final = (8448, 1920)
_TINY: Final = 2240


@dataclass(frozen=True)
class Wide(Picture):
    """A raster in strips so wide that it is copied before it is read."""

    def data(self) -> bytes:
        width, height = _WIDE
        image = _plain(width, height)
        for i in range(self.count):
            x, y = 200 + 900 * i, 300 + 100 * i
            image[y : y + SIDE, x : x + SIDE] = MAGENTA
        return _tiff(image, tiled=False)


@dataclass(frozen=True)
class Broken(Picture):
    """A raster with a tile that cannot be decoded: planned, and then failed by its reader."""

    def data(self) -> bytes:
        whole = bytearray(planted(self.name, self.seed, side=self.side, count=self.count).data)
        middle = len(whole) // 2
        whole[middle : middle + 600] = b"\xff" * 600
        return bytes(whole)


def small(seed: int) -> bytes:
    """One window with a few squares; other bytes for each seed."""
    return planted(f"guest-{seed}", 77_000 + seed, count=SQUARES).data


def empty() -> bytes:
    """Nothing to find, and for a model of small windows many chunks."""
    return _tiff(_plain(_TINY, _TINY), tiled=True)


def _plain(width: int, height: int) -> Any:
    image = np.empty((height, width, 3), np.uint8)
    image[:] = BACKGROUND
    return image


def _tiff(image: Any, *, tiled: bool) -> bytes:
    layout: dict[str, Any] = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=image.shape[1], height=image.shape[0], count=3, dtype="uint8",
            compress="deflate", **layout,
        ) as out:  # fmt: skip
            out.write(image.transpose(2, 0, 1))
        return bytes(memory.read())
