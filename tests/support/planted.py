"""GeoTIFFs with squares planted at known pixels, for the blob model to find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rasterio.io import MemoryFile
from rasterio.transform import Affine

SIDE = 16
BACKGROUND = (60, 90, 60)
MAGENTA = (255, 0, 255)


@dataclass(frozen=True)
class Planted:
    """One GeoTIFF and its truth.

    Attributes:
        corners: [n, 2] x, y of each square's upper left pixel.
        transform: the geotransform, metres.
    """

    name: str
    data: bytes
    corners: npt.NDArray[np.int64]
    transform: Affine
    crs: str

    def map_centres(self) -> npt.NDArray[np.float64]:
        """[n, 2] map coordinates of the squares' centres."""
        centres = self.corners + SIDE / 2
        return np.array([self.transform @ (x, y) for x, y in centres])


def planted(
    name: str, seed: int, *, side: int = 256, count: int = 3, crs: str = "EPSG:32650",
    gsd: float = 0.5, rotation: float = 0.0,
) -> Planted:  # fmt: skip
    """A GeoTIFF of ``side``² pixels with ``count`` squares that do not come near one another."""
    rng = np.random.default_rng(seed)
    image = np.empty((side, side, 3), np.uint8)
    image[:] = BACKGROUND
    corners: list[tuple[int, int]] = []
    while len(corners) < count:
        x, y = (int(v) for v in rng.integers(4, side - SIDE - 4, 2))
        if all(max(abs(x - a), abs(y - b)) >= 3 * SIDE for a, b in corners):
            corners.append((x, y))
            image[y : y + SIDE, x : x + SIDE] = MAGENTA
    transform = (
        Affine.translation(480_000 + seed * 10, 80_000)
        @ Affine.rotation(rotation)
        @ Affine.scale(gsd, -gsd)
    )
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs=crs,
            transform=transform, compress="deflate", tiled=True, blockxsize=256, blockysize=256,
        ) as out:  # fmt: skip
            out.write(image.transpose(2, 0, 1))
        data = memory.read()
    return Planted(name, bytes(data), np.array(sorted(corners)), transform, crs)
